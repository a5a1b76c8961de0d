/* Two hundred openings of one file, each with a second descriptor, pairs of them at the same offset: what is shared stays shared,
 * and what only looks alike stays apart. A child has them all too.
 */
#include "../workload.h"
#include <linux/kcmp.h>

enum { OPENINGS = 200 };
static int fds[OPENINGS], copies[OPENINGS];

static bool same(pid_t a, int fd_a, pid_t b, int fd_b)
{
    return must(syscall(SYS_kcmp, a, b, KCMP_FILE, fd_a, fd_b)) == 0;
}

static void compare(pid_t other)
{
    pid_t self = getpid();
    for (int i = 0; i < OPENINGS; i++) {
        check(same(self, fds[i], self, copies[i]) && same(self, fds[i], other, copies[i]), "%d", i);
        for (int k = 1; k < 4; k++)
            check(!same(self, fds[i], other, copies[(i + k) % OPENINGS]), "%d, %d", i, i + k);
        check(must(lseek(fds[i], 0, SEEK_CUR)) == i / 2, "%d is at %ld", i, lseek(fds[i], 0, SEEK_CUR));
    }
}

int main(int argc, char **argv)
{
    begin(argc, argv);
    for (int i = 0; i < OPENINGS; i++) {
        fds[i] = must(open(data_path("file"), O_RDWR | O_CREAT, 0600));
        must(lseek(fds[i], i / 2, SEEK_SET));
    }
    for (int i = 0; i < OPENINGS; i++)
        copies[i] = must(dup(fds[OPENINGS - 1 - i]));
    for (int i = 0; i < OPENINGS / 2; i++) {
        int copy = copies[i];
        copies[i] = copies[OPENINGS - 1 - i];
        copies[OPENINGS - 1 - i] = copy;
    }
    int turn[2];
    must(pipe(turn));
    pid_t parent = getpid();
    pid_t child = must(fork());
    if (child == 0) {
        must(close(turn[1]));
        progress_as("child");
        while (!finishing()) {
            compare(parent);
            progress();
            sleep_ms(2);
        }
        char end;
        check(must(read(turn[0], &end, 1)) == 0); /* the parent compares once more */
        _exit(0);
    }
    loop_until_finish(compare(child));
    must(close(turn[1]));
    wait_exited(child, 0);
    for (int i = 0; i < OPENINGS; i++)
        must(lseek(copies[i], 1000 + i, SEEK_SET));
    for (int i = 0; i < OPENINGS; i++)
        check(must(lseek(fds[i], 0, SEEK_CUR)) == 1000 + i);
    done();
}
