/* mlock(2), mlock2(2) with MLOCK_ONFAULT, mlockall(2): what is locked stays so, what is locked at a fault stays absent until
 * then; and memory that is mapped later is locked too, where that was asked for (MCL_FUTURE).
 */
#include "../workload.h"
#ifndef MCL_ONFAULT
#define MCL_ONFAULT 4
#endif
#ifndef MLOCK_ONFAULT
#define MLOCK_ONFAULT 1
#endif

static long locked_kb(void)
{
    static char text[8192];
    ssize_t n = slurp("/proc/self/status", text, sizeof text - 1);
    text[n] = 0;
    char *at = strstr(text, "VmLck:");
    check(at != NULL);
    return atol(at + 6);
}

static bool present(const char *at)
{
    unsigned char core;
    must(mincore((void *)at, 4096, &core));
    return core & 1;
}

enum { SIZE = 64 * 4096 };

/* What becomes of memory that is mapped now. */
static void check_future(int flags)
{
    char *at = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    check(at != MAP_FAILED);
    check(present(at) == (flags == MCL_FUTURE));
    must(munmap(at, SIZE));
}

/* A process with these flags of mlockall(2). */
static void work(int flags)
{
    char *locked = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    char *on_fault = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    check(locked != MAP_FAILED && on_fault != MAP_FAILED);
    fill(locked, SIZE, 1);
    fill(on_fault, SIZE / 2, 2);
    must(mlock(locked, SIZE));
    must(mlock2(on_fault, SIZE, MLOCK_ONFAULT));
    if (flags)
        must(mlockall(flags));
    long total = locked_kb();
    char name[16];
    snprintf(name, sizeof name, "%d", flags);
    if (flags)
        progress_as(name);
    else
        ready();
    while (!finishing()) {
        check_filled(locked, SIZE, 1, "locked");
        check_filled(on_fault, SIZE / 2, 2, "locked at a fault");
        check(!present(on_fault + SIZE / 2) && present(locked));
        check_future(flags);
        progress();
        sleep_ms(2);
    }
    char *more = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    check(more != MAP_FAILED);
    if (flags & MCL_FUTURE)
        total += SIZE / 1024;
    check(locked_kb() == total, "%ld KiB were locked, now %ld", total, locked_kb());
}

int main(int argc, char **argv)
{
    begin(argc, argv);
    pid_t children[2];
    for (int i = 0; i < 2; i++)
        if ((children[i] = must(fork())) == 0) {
            work(i ? MCL_FUTURE | MCL_ONFAULT : MCL_FUTURE);
            _exit(0);
        }
    work(0);
    for (int i = 0; i < 2; i++)
        wait_exited(children[i], 0);
    done();
}
