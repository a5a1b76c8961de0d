/* Private anonymous memory: filled pages, zero pages, untouched pages, a sparse gigabyte with few pages in it, and areas with
 * the marks that madvise(2), mlock(2) and mmap(2) leave on them. After the checkpoint all of it can be written and grown.
 */
#include "../workload.h"

enum { FILLED = 2 << 20 };
static const size_t SPARSE = 1ul << 30;

static char *map(size_t size, int flags)
{
    char *at = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | flags, -1, 0);
    check(at != MAP_FAILED);
    return at;
}

static bool present(const char *at)
{
    unsigned char core;
    must(mincore((void *)at, 4096, &core));
    return core & 1;
}

int main(int argc, char **argv)
{
    begin(argc, argv);
    char *filled = map(FILLED, 0), *zeros = map(FILLED, 0), *sparse = map(SPARSE, MAP_NORESERVE);
    char *holes = map(256 * 4096, 0);
    char *huge = map(8 << 20, 0), *dont_fork = map(8 * 4096, 0), *wipe = map(8 * 4096, 0), *dont_dump = map(8 * 4096, 0);
    char *locked = map(4 * 4096, 0), *no_huge = map(8 * 4096, 0), *random = map(8 * 4096, 0);
    fill(filled, FILLED, 1);
    for (int i = 0; i < FILLED; i += 4096)
        zeros[i] = 0;
    for (size_t at = 0; at < SPARSE; at += SPARSE / 16)
        fill(sparse + at, 4096, at);
    for (int i = 0; i < 256; i += 3)
        fill(holes + i * 4096, 4096, i);
    must(madvise(huge, 8 << 20, MADV_HUGEPAGE));
    fill(huge, 3 << 20, 3);
    must(madvise(dont_fork, 8 * 4096, MADV_DONTFORK));
    fill(dont_fork, 8 * 4096, 4);
    must(madvise(wipe, 8 * 4096, MADV_WIPEONFORK));
    fill(wipe, 8 * 4096, 5);
    must(madvise(dont_dump, 8 * 4096, MADV_DONTDUMP));
    fill(dont_dump, 8 * 4096, 6);
    must(mlock(locked, 4 * 4096));
    fill(locked, 4 * 4096, 7);
    must(madvise(no_huge, 8 * 4096, MADV_NOHUGEPAGE));
    must(madvise(random, 8 * 4096, MADV_RANDOM));
    /* Freed again: must stay absent and read as zeros. */
    fill(random, 4 * 4096, 8);
    must(madvise(random, 4 * 4096, MADV_DONTNEED));
    int turn = 0;
    loop_until_finish({
        if (turn++ % 16 == 0) {
            check_filled(filled, FILLED, 1, "filled");
            check_filled(huge, 3 << 20, 3, "huge");
        }
        for (size_t at = 0; at < SPARSE; at += SPARSE / 16) {
            check_filled(sparse + at, 4096, at, "sparse");
            check(!present(sparse + at + 64 * 4096), "a page of the sparse area that was never touched is there");
        }
        for (int i = 0; i < 256; i += 3)
            check_filled(holes + i * 4096, 4096, i, "every third page");
        check_filled(dont_fork, 8 * 4096, 4, "MADV_DONTFORK");
        check_filled(wipe, 8 * 4096, 5, "MADV_WIPEONFORK");
        check_filled(dont_dump, 8 * 4096, 6, "MADV_DONTDUMP");
        check_filled(locked, 4 * 4096, 7, "locked");
    });
    static const char none[4096];
    for (int i = 0; i < FILLED; i += 4096)
        check(memcmp(zeros + i, none, 4096) == 0);
    for (int i = 0; i < 256; i++)
        if (i % 3)
            check(memcmp(holes + i * 4096, none, 4096) == 0);
    for (int i = 0; i < 4; i++)
        check(memcmp(random + i * 4096, none, 4096) == 0);
    pid_t child = must(fork());
    if (child == 0) {
        check(memcmp(wipe, none, 4096) == 0);
        check(msync(dont_fork, 4096, MS_ASYNC) == -1 && errno == ENOMEM);
        check_filled(filled, FILLED, 1, "filled, in a child");
        _exit(0);
    }
    wait_exited(child, 0);
    fill(filled, FILLED, 9);
    check_filled(filled, FILLED, 9, "filled again");
    char *moved = mremap(filled, FILLED, 2 * FILLED, MREMAP_MAYMOVE);
    check(moved != MAP_FAILED);
    check_filled(moved, FILLED, 9, "moved");
    memset(moved + FILLED, 1, FILLED);
    must(munmap(moved + FILLED, FILLED));
    must(munmap(sparse, SPARSE));
    done();
}
