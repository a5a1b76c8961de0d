/* Large reservations of address space, as garbage collectors and sanitizers make them: 64 GiB that may be written, 64 GiB
 * without protection, 64 GiB shared, a few pages touched in each; and a region advised to use huge pages of which only single
 * pages are there. None of it is made to exist by a checkpoint or a restart.
 */
#include "../workload.h"

static const size_t SIZE = 64ul << 30, HUGE = 256ul << 20;
enum { PAGES = 50 };
static char *writable, *none, *shared, *advised;

/* Resident pages of this process, and those of the shared memory. */
static long resident(void)
{
    char text[128] = "";
    slurp("/proc/self/statm", text, sizeof text - 1);
    long size, pages;
    check(sscanf(text, "%ld %ld", &size, &pages) == 2);
    return pages;
}

static void check_all(void)
{
    for (size_t i = 0; i < PAGES; i++) {
        check_filled(writable + i * (SIZE / PAGES & ~4095ul), 64, i, "writable");
        check_filled(shared + i * (SIZE / PAGES & ~4095ul), 64, 100 + i, "shared");
        check_filled(advised + i * (4ul << 20), 64, 200 + i, "advised");
    }
    check_filled(none + (SIZE / 2), 4096, 300, "an island in a reservation");
}

int main(int argc, char **argv)
{
    begin(argc, argv);
    int flags = MAP_ANONYMOUS | MAP_NORESERVE;
    writable = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | flags, -1, 0);
    none = mmap(NULL, SIZE, PROT_NONE, MAP_PRIVATE | flags, -1, 0);
    shared = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED | flags, -1, 0);
    advised = mmap(NULL, HUGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | flags, -1, 0);
    check(writable != MAP_FAILED && none != MAP_FAILED && shared != MAP_FAILED && advised != MAP_FAILED);
    must(mprotect(none + SIZE / 2, 4096, PROT_READ | PROT_WRITE));
    fill(none + SIZE / 2, 4096, 300);
    for (size_t i = 0; i < PAGES; i++) {
        fill(writable + i * (SIZE / PAGES & ~4095ul), 4096, i);
        fill(shared + i * (SIZE / PAGES & ~4095ul), 4096, 100 + i);
        fill(advised + i * (4ul << 20), 4096, 200 + i);
    }
    must(madvise(advised, HUGE, MADV_HUGEPAGE));
    loop_until_finish(check_all());
    /* 256 MiB of huge pages would be 65536, the shared memory 16 million. */
    check(resident() < 20000, "%ld pages are resident", resident());
    fill(writable + SIZE - 4096, 4096, 7);
    must(mprotect(none, 4096, PROT_READ | PROT_WRITE));
    fill(none, 4096, 8);
    must(munmap(writable, SIZE));
    done();
}
