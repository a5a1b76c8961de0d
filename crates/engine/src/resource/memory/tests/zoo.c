/* One area of every kind that bardo saves, for the round trip in tests.rs: `zoo FILE` says "ready" and waits.
 * With a second argument, a child that shares memory with it waits too. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#define P 4096ul
#define CHECK(x) ((long)(x) == -1 ? perror(#x), exit(1) : (void)0)

static char *map(unsigned long pages, int prot, int flags)
{
    char *at = mmap(NULL, pages * P, prot, flags | MAP_ANONYMOUS, -1, 0);
    CHECK(at);
    /* A hole after each, so that none merges with the next. */
    CHECK(mmap(NULL, P, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
    return at;
}

static void fill(char *at, unsigned long pages, unsigned seed)
{
    for (unsigned long i = 0; i < pages * P; i += 8)
        *(unsigned long *)(at + i) = (i + 1) * 0x9e3779b97f4a7c15ul + seed;
}

int main(int argc, char **argv)
{
    const int RW = PROT_READ | PROT_WRITE, PRIVATE = MAP_PRIVATE;
    char *at;

    /* Content, zero pages that are there, pages that were never touched. */
    at = map(600, RW, PRIVATE);
    for (int i = 0; i < 600; i += 3)
        fill(at + i * P, 1, i);
    for (int i = 1; i < 600; i += 6)
        memset(at + i * P, 0, P);

    at = map(8, RW, PRIVATE), fill(at, 4, 1), CHECK(mprotect(at, 8 * P, PROT_READ));
    at = map(8, RW, PRIVATE), fill(at, 8, 2), CHECK(mprotect(at, 8 * P, PROT_NONE));
    at = map(8, RW, PRIVATE), fill(at, 8, 3), CHECK(mprotect(at, 8 * P, PROT_READ | PROT_EXEC));
    at = map(8, RW, PRIVATE), fill(at, 8, 4), CHECK(mprotect(at, 8 * P, PROT_WRITE));
    /* Counted as committed though nothing is there: once it had pages. */
    at = map(8, RW, PRIVATE), fill(at, 8, 5), CHECK(madvise(at, 8 * P, MADV_DONTNEED)), CHECK(mprotect(at, 8 * P, PROT_READ));
    at = map(8, RW, PRIVATE), CHECK(mprotect(at, 8 * P, PROT_NONE));
    map(8, PROT_NONE, PRIVATE), map(8, PROT_READ, PRIVATE), map(8, RW, PRIVATE);
    at = map(1 << 18, RW, PRIVATE | MAP_NORESERVE), fill(at + 77777 * P, 3, 6);
    at = map(64, RW, PRIVATE | MAP_GROWSDOWN | MAP_STACK), fill(at, 64, 7);

    const int advice[] = { MADV_SEQUENTIAL, MADV_RANDOM, MADV_DONTDUMP, MADV_WIPEONFORK, MADV_HUGEPAGE, MADV_NOHUGEPAGE,
                           MADV_MERGEABLE };
    for (unsigned i = 0; i < sizeof advice / sizeof *advice; i++)
        at = map(8, RW, PRIVATE), fill(at, 8, 10 + i), CHECK(madvise(at, 8 * P, advice[i]));
    at = map(2048, RW, PRIVATE), CHECK(madvise(at, 2048 * P, MADV_HUGEPAGE)), fill(at, 2048, 20);
    at = map(8, RW, PRIVATE), fill(at, 8, 21), CHECK(mlock(at, 8 * P));
    at = map(8, RW, PRIVATE), fill(at, 2, 22), CHECK(syscall(SYS_mlock2, at, 8 * P, 1));
    /* Guard pages, where the kernel has them. */
    at = map(8, RW, PRIVATE), fill(at, 8, 23), madvise(at + 2 * P, 3 * P, 102);

    int rw = open(argv[1], O_RDWR), ro = open(argv[1], O_RDONLY), zero = open("/dev/zero", O_RDWR);
    CHECK(rw), CHECK(ro), CHECK(zero);
    CHECK(at = mmap(NULL, 8 * P, RW, MAP_PRIVATE, ro, 2 * P));
    fill(at + P, 1, 30), memset(at + 3 * P, 0, P);
    CHECK(mmap(NULL, 8 * P, PROT_READ, MAP_SHARED, ro, 0));
    CHECK(at = mmap(NULL, 8 * P, RW, MAP_SHARED, rw, P));
    *(volatile char *)at;
    CHECK(mmap(NULL, 8 * P, PROT_READ, MAP_SHARED, rw, 3 * P));
    CHECK(at = mmap(NULL, 8 * P, PROT_READ | PROT_EXEC, MAP_PRIVATE, ro, 0));
    CHECK(at = mmap(NULL, 8 * P, RW, MAP_PRIVATE, zero, 0));
    fill(at, 3, 31);
    close(rw), close(ro), close(zero);

    at = map(64, RW, MAP_SHARED), fill(at + 5 * P, 20, 40);
    char *part = mremap(at + 8 * P, 0, 16 * P, MREMAP_MAYMOVE);
    CHECK(part), CHECK(mprotect(part, 16 * P, PROT_READ));
    at = map(64, RW, MAP_SHARED | MAP_NORESERVE), fill(at, 1, 41), CHECK(mprotect(at, 64 * P, PROT_NONE));

    /* A memfd, mapped shared and privately; a deleted file that ends within a page and before its area. */
    int memfd = memfd_create("zoo", 0);
    CHECK(memfd), CHECK(ftruncate(memfd, 40 * P));
    CHECK(at = mmap(NULL, 40 * P, RW, MAP_SHARED, memfd, 0)), fill(at + 3 * P, 5, 60);
    CHECK(at = mmap(NULL, 8 * P, RW, MAP_PRIVATE, memfd, 0)), fill(at + 5 * P, 1, 61);
    close(memfd);
    char deleted[4096];
    snprintf(deleted, sizeof deleted, "%s.deleted", argv[1]);
    int gone = open(deleted, O_RDWR | O_CREAT, 0600);
    CHECK(gone), CHECK(ftruncate(gone, 20 * P + 100)), CHECK(unlink(deleted));
    CHECK(at = mmap(NULL, 24 * P, RW, MAP_PRIVATE, gone, 0)), fill(at + 2 * P, 1, 62);
    CHECK(at = mmap(NULL, 24 * P, RW, MAP_SHARED, gone, 0)), fill(at + 4 * P, 8, 63), at[20 * P + 99] = 9;
    close(gone);

    char *heap = sbrk(100 * P + 123);
    CHECK(heap), memset(heap, 0x5a, 50 * P);

    int done[2];
    CHECK(pipe(done));
    if (argc > 2 && fork() == 0) {
        prctl(PR_SET_PDEATHSIG, 9);
        at = map(16, RW, PRIVATE), fill(at, 16, 50);
        CHECK(write(done[1], "", 1));
        pause();
        return 0;
    } else
        at = map(3, RW, PRIVATE), fill(at, 3, 51);
    if (argc > 2)
        CHECK(read(done[0], at, 1));
    puts("ready"), fflush(stdout);
    pause();
    return 0;
}
