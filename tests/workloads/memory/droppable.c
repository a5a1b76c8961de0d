/* Memory that the kernel may drop (MAP_DROPPABLE, Linux 6.11), as libc has for random numbers: its pages hold what was written,
 * or zeros, at any time; it can be written, and is wiped at a fork.
 */
#include "../workload.h"
#ifndef MAP_DROPPABLE
#define MAP_DROPPABLE 0x08
#endif

enum { PAGES = 16 };

int main(int argc, char **argv)
{
    begin(argc, argv);
    char *at = mmap(NULL, PAGES * 4096, PROT_READ | PROT_WRITE, MAP_DROPPABLE | MAP_ANONYMOUS, -1, 0);
    bool there = at != MAP_FAILED;
    check(there || errno == EINVAL || errno == EOPNOTSUPP);
    static const char none[4096];
    for (int i = 0; there && i < PAGES; i++)
        fill(at + i * 4096, 4096, i);
    loop_until_finish({
        for (int i = 0; there && i < PAGES; i++)
            if (memcmp(at + i * 4096, none, 4096) != 0)
                check_filled(at + i * 4096, 4096, i, "not dropped");
    });
    if (there) {
        fill(at, 4096, 9);
        pid_t child = must(fork());
        if (child == 0) {
            check(memcmp(at, none, 4096) == 0);
            _exit(0);
        }
        wait_exited(child, 0);
    }
    done();
}
