/* Memory that changes all the time: mappings come, grow, move, shrink, split and go in a fixed order while the checkpoint is
 * made, with contents that are checked at every step; the heap does the same through malloc.
 */
#include "../workload.h"

enum { AREAS = 24, BLOCKS = 200 };
static struct area {
    char *at;
    size_t pages;
    uint64_t seed;
} areas[AREAS];
static uint64_t state = 88172645463325252u;

static uint64_t next(void)
{
    state ^= state << 13, state ^= state >> 7, state ^= state << 17;
    return state;
}

static void stamp(struct area *area)
{
    for (size_t i = 0; i < area->pages; i++)
        fill(area->at + i * 4096, 32, area->seed + i);
}

static void verify(const struct area *area)
{
    for (size_t i = 0; i < area->pages; i++)
        check_filled(area->at + i * 4096, 32, area->seed + i, "area");
}

static void step(void)
{
    struct area *area = &areas[next() % AREAS];
    if (area->at == NULL) {
        area->pages = 1 + next() % 40;
        area->seed = next();
        area->at = mmap(NULL, area->pages * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        check(area->at != MAP_FAILED);
        stamp(area);
        return;
    }
    verify(area);
    switch (next() % 4) {
    case 0:
        must(munmap(area->at, area->pages * 4096));
        area->at = NULL;
        break;
    case 1: {
        size_t pages = area->pages + 1 + next() % 8;
        area->at = mremap(area->at, area->pages * 4096, pages * 4096, MREMAP_MAYMOVE);
        check(area->at != MAP_FAILED);
        area->pages = pages;
        stamp(area);
        break;
    }
    case 2:
        if (area->pages > 1) {
            must(munmap(area->at + (area->pages - 1) * 4096, 4096));
            area->pages--;
        }
        break;
    case 3:
        must(mprotect(area->at, 4096, PROT_READ));
        verify(area);
        must(mprotect(area->at, 4096, PROT_READ | PROT_WRITE));
        must(madvise(area->at, area->pages * 4096, MADV_DONTNEED));
        check(area->at[0] == 0);
        stamp(area);
    }
}

int main(int argc, char **argv)
{
    begin(argc, argv);
    static char *blocks[BLOCKS];
    static size_t sizes[BLOCKS];
    loop_until_finish({
        for (int i = 0; i < 100; i++)
            step();
        for (int i = 0; i < 20; i++) {
            int n = next() % BLOCKS;
            if (blocks[n])
                check_filled(blocks[n], sizes[n], n, "malloc");
            sizes[n] = next() % 20000;
            blocks[n] = realloc(blocks[n], sizes[n] + 1);
            fill(blocks[n], sizes[n], n);
        }
    });
    for (int i = 0; i < AREAS; i++)
        if (areas[i].at)
            verify(&areas[i]);
    done();
}
