/* A process that was filled and then forked many workers: what nobody has written since is shared copy-on-write by all of them.
 * Every worker writes some pages of its own, frees some, grows; one forks workers itself; the parent writes after its children
 * were born, so that they share an older version. All see their own, and together they take no more memory than before.
 */
#include "../workload.h"

enum { WORKERS = 12, GRANDCHILDREN = 4, PAGES = 2000 };
static char *pages, *none;
static char *heap[64];
static atomic_int *released; /* Whether the parent has looked: until then all of them stay. */

/* What of this process's memory counts as its own part: its pages, each divided by the number of those who have it. */
static long part_kb(void)
{
    static char text[4096];
    ssize_t n = slurp("/proc/self/smaps_rollup", text, sizeof text - 1);
    text[n] = 0;
    char *at = strstr(text, "Pss_Anon:");
    check(at != NULL);
    return atol(at + 9);
}

/* The seed of a page's content, as a process sees it. */
static int seed(int self, int i)
{
    if (self >= 0 && i % 50 == self)
        return 10000 + self * PAGES + i;
    if (self < 0 && i % 50 == 49)
        return 20000 + i;
    return i;
}

static void compare(int self)
{
    for (int i = 0; i < PAGES; i++) {
        if (self >= 0 && self < WORKERS && i % 50 == 48)
            check(pages[i * 4096] == 0, "page %d was dropped, and has %d", i, pages[i * 4096]);
        else
            check_filled(pages + i * 4096, 32, seed(self, i), "page");
    }
    for (int i = 0; i < 64; i++)
        check_filled(heap[i], 1000, i, "heap");
    check_filled(none + 4096, 4096, 3, "read-only");
}

static void begin_worker(int self)
{
    char name[16];
    snprintf(name, sizeof name, "%d", self);
    progress_as(name);
    for (int i = 0; i < PAGES; i++) {
        if (i % 50 == self)
            fill(pages + i * 4096, 4096, seed(self, i));
        if (i % 50 == 48 && self < WORKERS)
            must(madvise(pages + i * 4096, 4096, MADV_DONTNEED));
    }
}

static void run(int self)
{
    while (!*released) {
        compare(self);
        progress();
        sleep_ms(20);
    }
    compare(self);
}

int main(int argc, char **argv)
{
    begin(argc, argv);
    pages = mmap(NULL, PAGES * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    none = mmap(NULL, 4 * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    released = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    check(pages != MAP_FAILED && none != MAP_FAILED && released != MAP_FAILED);
    for (int i = 0; i < PAGES; i++)
        fill(pages + i * 4096, 4096, i);
    fill(none + 4096, 4096, 3);
    must(mprotect(none, 4 * 4096, PROT_READ));
    for (int i = 0; i < 64; i++)
        fill(heap[i] = malloc(1000), 1000, i);
    pid_t children[WORKERS];
    for (int self = 0; self < WORKERS; self++)
        if ((children[self] = must(fork())) == 0) {
            begin_worker(self);
            pid_t own[GRANDCHILDREN];
            if (self == 3) {
                /* Beyond what its parent has. */
                char *more = malloc(200 << 10);
                fill(more, 200 << 10, 7);
                must(madvise(pages + 48 * 4096, 4096, MADV_DONTNEED));
                for (int i = 0; i < PAGES; i++)
                    if (i % 50 == 48)
                        fill(pages + i * 4096, 4096, i);
                for (int i = 0; i < GRANDCHILDREN; i++)
                    if ((own[i] = must(fork())) == 0) {
                        self = WORKERS + i;
                        /* What its parent has of its own. */
                        for (int page = 3; page < PAGES; page += 50)
                            fill(pages + page * 4096, 4096, page);
                        begin_worker(self);
                        run(self);
                        check_filled(more, 200 << 10, 7, "a child's own memory");
                        _exit(0);
                    }
                for (int i = 0; i < PAGES; i++)
                    if (i % 50 == 48)
                        must(madvise(pages + i * 4096, 4096, MADV_DONTNEED));
            }
            run(self);
            for (int i = 0; self == 3 && i < GRANDCHILDREN; i++)
                wait_exited(own[i], 0);
            _exit(0);
        }
    for (int i = 0; i < PAGES; i++)
        if (i % 50 == 49)
            fill(pages + i * 4096, 4096, seed(-1, i));
    loop_until_finish(compare(-1));
    /* 2000 pages shared by 17 are 470 KiB; not shared they would be 8000. */
    check(part_kb() < 2500, "%ld KiB of its memory are its own part", part_kb());
    *released = 1;
    fill(pages, 4096, 1);
    for (int i = 0; i < WORKERS; i++)
        wait_exited(children[i], 0);
    done();
}
