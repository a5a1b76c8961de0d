/* Guard regions (MADV_GUARD_INSTALL, Linux 6.13): a touch faults as if nothing were there, what lies beside them stays, and
 * removing them leaves pages of zeros. In memory with data, in memory that is locked, in an untouched reservation, in a file.
 */
#include "../workload.h"
#include <setjmp.h>
#ifndef MADV_GUARD_INSTALL
#define MADV_GUARD_INSTALL 102
#define MADV_GUARD_REMOVE 103
#endif

static sigjmp_buf back;
static void on_fault(int number, siginfo_t *info, void *context)
{
    (void)number, (void)context;
    siglongjmp(back, info->si_code);
}

static int touch(volatile char *at)
{
    int code = sigsetjmp(back, 1);
    if (code)
        return code;
    (void)*at;
    return 0;
}

enum { PAGES = 64 };
static char *data, *locked, *reserved, *file;
static bool guards, file_guards;

static void check_all(void)
{
    for (int i = 0; i < PAGES; i++) {
        bool guarded = guards && i % 4 == 1;
        check(touch(data + i * 4096) == (guarded ? SEGV_MAPERR : 0) || (guarded && touch(data + i * 4096) == SEGV_ACCERR));
        if (!guarded)
            check_filled(data + i * 4096, 4096, i, "beside guards");
    }
    check(!guards || touch(reserved + (5ul << 20)) != 0);
    check(touch(reserved + (5ul << 20) + 8192) == 0);
    check(!guards || touch(locked) != 0);
    check_filled(locked + 4096, 4096, 100, "locked, beside a guard");
    check(!file_guards || touch(file + 4096) != 0);
    check_filled(file, 4096, 200, "a file beside a guard");
}

int main(int argc, char **argv)
{
    begin(argc, argv);
    struct sigaction action = { .sa_sigaction = on_fault, .sa_flags = SA_SIGINFO };
    must(sigaction(SIGSEGV, &action, NULL));
    must(sigaction(SIGBUS, &action, NULL));
    data = mmap(NULL, PAGES * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    locked = mmap(NULL, 2 * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    reserved = mmap(NULL, 1ul << 36, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    int fd = must(open(data_path("file"), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
    static char page[4096];
    fill(page, sizeof page, 200);
    for (int i = 0; i < 4; i++)
        write_exactly(fd, page, sizeof page);
    file = mmap(NULL, 4 * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
    must(close(fd));
    check(data != MAP_FAILED && locked != MAP_FAILED && reserved != MAP_FAILED && file != MAP_FAILED);
    for (int i = 0; i < PAGES; i++)
        fill(data + i * 4096, 4096, i);
    fill(locked + 4096, 4096, 100);
    guards = madvise(data + 4096, 4096, MADV_GUARD_INSTALL) == 0;
    if (guards) {
        for (int i = 5; i < PAGES; i += 4)
            must(madvise(data + i * 4096, 4096, MADV_GUARD_INSTALL));
        must(madvise(locked, 4096, MADV_GUARD_INSTALL));
        must(madvise(reserved + (5ul << 20), 4096, MADV_GUARD_INSTALL));
        /* Of files since Linux 6.15. */
        file_guards = madvise(file + 4096, 4096, MADV_GUARD_INSTALL) == 0;
    } else {
        check(errno == EINVAL);
    }
    check(mlock(locked, 2 * 4096) == 0 || errno == ENOMEM || errno == EFAULT);
    loop_until_finish(check_all());
    if (guards) {
        must(munlock(locked, 2 * 4096));
        must(madvise(locked, 4096, MADV_GUARD_REMOVE));
        must(madvise(data, PAGES * 4096, MADV_GUARD_REMOVE));
        static const char none[4096];
        check(memcmp(locked, none, 4096) == 0);
        for (int i = 1; i < PAGES; i += 4)
            check(memcmp(data + i * 4096, none, 4096) == 0);
    }
    if (file_guards) {
        must(madvise(file, 4 * 4096, MADV_GUARD_REMOVE));
        check_filled(file + 4096, 4096, 200, "a file below a guard");
    }
    done();
}
