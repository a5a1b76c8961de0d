/* Transparent huge pages: what was huge is huge again, what was small in the same area isn't blown up. */
#include "../workload.h"

static const size_t HUGE = 2ul << 20;
static char *area;
static long huge_kb;

/* What of the area is in huge pages. */
static long in_huge_pages(void)
{
    static char text[1 << 20];
    ssize_t n = slurp("/proc/self/smaps", text, sizeof text - 1);
    text[n] = 0;
    char start[32];
    snprintf(start, sizeof start, "\n%lx-", (unsigned long)area);
    char *at = strstr(text, start);
    check(at != NULL);
    at = strstr(at, "AnonHugePages:");
    check(at != NULL);
    return atol(at + 14);
}

int main(int argc, char **argv)
{
    begin(argc, argv);
    /* With a gap on both sides, so that it has its own line. */
    char *room = mmap(NULL, 20 * HUGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    check(room != MAP_FAILED);
    area = (char *)(((uintptr_t)room + 2 * HUGE) & ~(HUGE - 1));
    must(mprotect(area, 16 * HUGE, PROT_READ | PROT_WRITE));
    /* Small pages first, then the advice, then what becomes huge. */
    for (size_t i = 0; i < 16; i += 2)
        fill(area + i * HUGE, 4096, i);
    must(madvise(area, 16 * HUGE, MADV_HUGEPAGE));
    for (size_t i = 1; i < 16; i += 4)
        fill(area + i * HUGE, 64 << 10, i);
    huge_kb = in_huge_pages();
    loop_until_finish({
        for (size_t i = 0; i < 16; i += 2)
            check_filled(area + i * HUGE, 4096, i, "small");
        for (size_t i = 1; i < 16; i += 4)
            check_filled(area + i * HUGE, 64 << 10, i, "huge");
    });
    /* The kernel may make more of them huge in time (khugepaged), and none small. */
    check(in_huge_pages() >= huge_kb, "%ld of %ld KiB are in huge pages", in_huge_pages(), huge_kb);
    for (size_t i = 0; i < 16; i++)
        fill(area + i * HUGE, HUGE, i);
    done();
}
