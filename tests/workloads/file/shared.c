/* Open files shared by dup(2) and fork(2): one offset and one set of status flags for all who share, and close-on-exec for each
 * descriptor alone. Two opens of the same file share nothing. kcmp(2) says who shares.
 */
#include "../workload.h"
#include <linux/kcmp.h>

static int first, copy, high, separate;

static bool same(pid_t a, int fd_a, pid_t b, int fd_b)
{
    return must(syscall(SYS_kcmp, a, b, KCMP_FILE, fd_a, fd_b)) == 0;
}

static void compare(pid_t other)
{
    pid_t self = getpid();
    check(same(self, first, self, copy) && same(self, first, self, high) && !same(self, first, self, separate));
    check(same(self, first, other, first) && same(self, first, other, high) && same(self, separate, other, separate));
    check(fcntl(first, F_GETFD) == 0 && fcntl(copy, F_GETFD) == 0 && fcntl(high, F_GETFD) == FD_CLOEXEC);
}

int main(int argc, char **argv)
{
    begin(argc, argv);
    char block[4096], got[100];
    fill(block, sizeof block, 1);
    first = must(open(data_path("shared"), O_RDWR | O_CREAT | O_TRUNC, 0600));
    write_exactly(first, block, sizeof block);
    separate = must(open(data_path("shared"), O_RDWR));
    copy = must(dup(first));
    high = must(fcntl(first, F_DUPFD_CLOEXEC, 90));
    must(lseek(first, 1000, SEEK_SET));
    int turn[2], back[2];
    must(pipe(turn));
    must(pipe(back));
    pid_t parent = getpid();
    pid_t child = must(fork());
    if (child == 0) {
        progress_as("child");
        must(close(turn[1]));
        while (!finishing()) {
            compare(parent);
            progress();
            sleep_ms(2);
        }
        read_exactly(turn[0], got, 1); /* the parent has read 100 bytes */
        read_exactly(copy, got, 100);
        check(memcmp(got, block + 1100, 100) == 0, "the child doesn't share the parent's offset");
        check(fcntl(first, F_GETFL) & O_APPEND, "the child doesn't share the parent's status flags");
        write_exactly(back[1], "b", 1);
        _exit(0);
    }
    loop_until_finish(compare(child));
    read_exactly(high, got, 100);
    check(memcmp(got, block + 1000, 100) == 0);
    must(fcntl(first, F_SETFL, O_APPEND));
    write_exactly(turn[1], "t", 1);
    read_exactly(back[0], got, 1);
    check(must(lseek(first, 0, SEEK_CUR)) == 1200 && must(lseek(separate, 0, SEEK_CUR)) == 0);
    check(!(fcntl(separate, F_GETFL) & O_APPEND));
    wait_exited(child, 0);
    done();
}
