/* Descriptor tables: high numbers, gaps, many descriptors, and two processes whose numbers mean different things: each one's
 * descriptor n is another's n+1, so that nothing can be put in place without moving something else first.
 */
#include "../workload.h"

enum { FILES = 40 };
static ino_t inodes[FILES];
static int order[FILES];

static void compare(void)
{
    for (int i = 0; i < FILES; i++) {
        struct stat status;
        must(fstat(order[i], &status));
        check(status.st_ino == inodes[i], "fd %d is another file", order[i]);
        check(must(lseek(order[i], 0, SEEK_CUR)) == i);
    }
    for (int fd = 3; fd < 1100; fd++) {
        bool expected = false;
        for (int i = 0; i < FILES; i++)
            expected |= order[i] == fd;
        check((fcntl(fd, F_GETFD) != -1) == expected, "fd %d is %s", fd, expected ? "gone" : "new");
    }
}

int main(int argc, char **argv)
{
    begin(argc, argv);
    struct rlimit limit;
    must(getrlimit(RLIMIT_NOFILE, &limit));
    int top = limit.rlim_cur > 1100 ? 1000 : limit.rlim_cur - 100;
    for (int i = 0; i < FILES; i++) {
        char name[32];
        snprintf(name, sizeof name, "file %d", i);
        int fd = must(open(data_path(name), O_RDWR | O_CREAT, 0600));
        order[i] = i < 20 ? 10 + i : top + i * 2;
        check(dup2(fd, 2000 - i > (int)limit.rlim_cur ? order[i] : 2000 - i) != -1);
        struct stat status;
        must(fstat(fd, &status));
        inodes[i] = status.st_ino;
        must(lseek(fd, i, SEEK_SET));
        must(close(fd));
    }
    for (int i = 0; i < FILES; i++)
        if (2000 - i <= (int)limit.rlim_cur) {
            must(dup2(2000 - i, order[i]));
            must(close(2000 - i));
        }
    pid_t child = must(fork());
    if (child == 0) {
        progress_as("child");
        /* Turned by one: the inode at order[i] becomes that of i+1. */
        int first = must(fcntl(order[0], F_DUPFD, 1900 > limit.rlim_cur ? 3 : 1900));
        for (int i = 0; i + 1 < FILES; i++)
            must(dup2(order[i + 1], order[i]));
        must(dup2(first, order[FILES - 1]));
        must(close(first));
        int number = order[FILES - 1];
        memmove(order + 1, order, (FILES - 1) * sizeof *order);
        order[0] = number;
        while (!finishing()) {
            compare();
            progress();
            sleep_ms(3);
        }
        compare();
        _exit(0);
    }
    loop_until_finish(compare());
    wait_exited(child, 0);
    /* The lowest free number is the next one. */
    check(must(dup(order[0])) == 3);
    done();
}
