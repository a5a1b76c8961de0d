/* Mappings of /dev/zero: private, which is anonymous memory with a name; shared with a child, which is shared anonymous memory.
 * And a page of a reserved range mapped over with it.
 */
#include "../workload.h"

enum { SIZE = 16 * 4096 };

int main(int argc, char **argv)
{
    begin(argc, argv);
    int fd = must(open("/dev/zero", O_RDWR | O_CLOEXEC));
    char *private = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
    char *read_only = mmap(NULL, SIZE, PROT_READ, MAP_PRIVATE, fd, 3 * 4096);
    char *shared = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    check(private != MAP_FAILED && read_only != MAP_FAILED && shared != MAP_FAILED);
    must(close(fd));
    fill(private + 4096, 4096, 1);
    fill(shared + 8192, 4096, 2);
    atomic_int *turns = (atomic_int *)shared;
    pid_t child = must(fork());
    if (child == 0) {
        progress_as("child");
        while (!finishing()) {
            ++*turns;
            progress();
            sleep_ms(2);
        }
        check_filled(private + 4096, 4096, 1, "private, in the child");
        fill(shared + 8192, 4096, 3);
        _exit(0);
    }
    static const char none[4096];
    loop_until_finish({
        check_filled(private + 4096, 4096, 1, "private");
        check(memcmp(private, none, 4096) == 0 && memcmp(read_only + 4096, none, 4096) == 0);
    });
    wait_exited(child, 0);
    check(*turns > 0);
    check_filled(shared + 8192, 4096, 3, "shared");
    done();
}
