/* Stacks: the first thread's grows after the checkpoint, far below where it was; what lies on it stays; thread stacks and an
 * area with MAP_GROWSDOWN too.
 */
#include "../workload.h"

static uint64_t descend(int depth)
{
    volatile char here[8192];
    fill((void *)here, sizeof here, depth);
    uint64_t below = depth ? descend(depth - 1) : 0;
    check_filled((void *)here, sizeof here, depth, "frame");
    return below + here[17];
}

static void *work(void *argument)
{
    char here[16384];
    fill(here, sizeof here, 8);
    while (!finishing()) {
        check_filled(here, sizeof here, 8, "thread's stack");
        descend(10);
        sleep_ms(2);
    }
    descend(500);
    return argument;
}

int main(int argc, char **argv)
{
    begin(argc, argv);
    pthread_t thread;
    must_pthread(pthread_create(&thread, NULL, work, NULL));
    /* Room below: the kernel keeps a gap of 256 pages under a growing area (stack_guard_gap). */
    char *area = mmap(NULL, 4096 * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    check(area != MAP_FAILED);
    must(munmap(area, 4096 * 4096));
    char *growing = mmap(area + 4092 * 4096, 4 * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_GROWSDOWN | MAP_FIXED, -1, 0);
    check(growing != MAP_FAILED);
    fill(growing, 4 * 4096, 3);
    char here[100000];
    fill(here, sizeof here, 7);
    loop_until_finish({
        check_filled(here, sizeof here, 7, "stack");
        check_filled(growing, 4 * 4096, 3, "growing area");
    });
    descend(600);
    check_filled(here, sizeof here, 7, "stack");
    fill(growing - 4096, 4096, 4);
    fill(growing - 8192, 4096, 5);
    check_filled(growing - 4096, 4096, 4, "grown");
    must_pthread(pthread_join(thread, NULL));
    done();
}
