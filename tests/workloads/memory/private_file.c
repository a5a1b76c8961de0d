/* Private mappings of a file: pages that were written are the process's own, the others are the file's; with an offset, beyond
 * the file's end within its last page, read-only, and with the descriptor closed.
 */
#include "../workload.h"

enum { PAGES = 64 };

int main(int argc, char **argv)
{
    begin(argc, argv);
    static char block[PAGES * 4096 - 1000];
    int fd = must(open(data_path("mapped"), O_RDWR | O_CREAT | O_TRUNC, 0644));
    fill(block, sizeof block, 5);
    write_exactly(fd, block, sizeof block);
    char *all = mmap(NULL, PAGES * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
    char *part = mmap(NULL, 8 * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 16 * 4096);
    char *read_only = mmap(NULL, 4 * 4096, PROT_READ, MAP_PRIVATE, fd, 4096);
    char *executable = mmap(NULL, 2 * 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE, fd, 0);
    check(all != MAP_FAILED && part != MAP_FAILED && read_only != MAP_FAILED && executable != MAP_FAILED);
    must(close(fd));
    for (int i = 0; i < PAGES; i += 5)
        fill(all + i * 4096, 4096, 100 + i);
    part[3 * 4096 + 7] = 42;
    loop_until_finish({
        for (int i = 0; i < PAGES - 1; i++) {
            if (i % 5 == 0)
                check_filled(all + i * 4096, 4096, 100 + i, "written page");
            else
                check(memcmp(all + i * 4096, block + i * 4096, 4096) == 0, "page %d of the file", i);
        }
        check(part[3 * 4096 + 7] == 42 && memcmp(part, block + 16 * 4096, 3 * 4096) == 0);
        check(memcmp(read_only, block + 4096, 4 * 4096) == 0);
        check(memcmp(executable, block, 2 * 4096) == 0);
    });
    /* The file itself was never written; pages not yet written show what is written to it now. */
    fd = must(open(data_path("mapped"), O_RDWR));
    static char now[sizeof block];
    read_exactly(fd, now, sizeof now);
    check(memcmp(now, block, sizeof block) == 0, "the file changed");
    must(pwrite(fd, "new", 3, 7 * 4096));
    check(memcmp(all + 7 * 4096, "new", 3) == 0, "an untouched page isn't the file's any more");
    must(pwrite(fd, "new", 3, 5 * 4096));
    check_filled(all + 5 * 4096, 4096, 105, "written page");
    done();
}
