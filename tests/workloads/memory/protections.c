/* Protections: memory that was written and then made read-only or inaccessible keeps its contents and its protection; a touch
 * faults, and mprotect(2) brings it back. One area has a different protection on every page.
 */
#include "../workload.h"
#include <setjmp.h>

static sigjmp_buf back;
static void on_fault(int number, siginfo_t *info, void *context)
{
    (void)number, (void)context;
    siglongjmp(back, info->si_code);
}

/* What a touch gives: 0, or the SIGSEGV's code. */
static int touch(volatile char *at, bool write)
{
    int code = sigsetjmp(back, 1);
    if (code)
        return code;
    char value = *at;
    if (write)
        *at = value;
    return 0;
}

int main(int argc, char **argv)
{
    begin(argc, argv);
    struct sigaction action = { .sa_sigaction = on_fault, .sa_flags = SA_SIGINFO };
    must(sigaction(SIGSEGV, &action, NULL));
    enum { SIZE = 16 * 4096 };
    char *none = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    char *read_only = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    char *striped = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    char *reserved = mmap(NULL, 1ul << 36, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    check(none != MAP_FAILED && read_only != MAP_FAILED && striped != MAP_FAILED && reserved != MAP_FAILED);
    fill(none, SIZE, 1);
    fill(read_only, SIZE, 2);
    fill(striped, SIZE, 3);
    must(mprotect(none, SIZE, PROT_NONE));
    must(mprotect(read_only, SIZE, PROT_READ));
    static const int protections[4] = { PROT_NONE, PROT_READ, PROT_READ | PROT_WRITE, PROT_READ | PROT_EXEC };
    for (int i = 0; i < 16; i++)
        must(mprotect(striped + i * 4096, 4096, protections[i % 4]));
    must(mprotect(reserved + (1ul << 30), 4096, PROT_READ | PROT_WRITE));
    fill(reserved + (1ul << 30), 4096, 4);
    loop_until_finish({
        check(touch(none + 5 * 4096, false) == SEGV_ACCERR);
        check(touch(reserved, false) == SEGV_ACCERR);
        check(touch(read_only, true) == SEGV_ACCERR);
        check_filled(read_only, SIZE, 2, "read-only");
        check_filled(reserved + (1ul << 30), 4096, 4, "within a reservation");
        for (int i = 0; i < 16; i++) {
            check(touch(striped + i * 4096, false) == (i % 4 == 0 ? SEGV_ACCERR : 0));
            check(touch(striped + i * 4096, true) == (i % 4 == 2 ? 0 : SEGV_ACCERR));
        }
        check(touch((char *)16, false) == SEGV_MAPERR);
    });
    must(mprotect(none, SIZE, PROT_READ | PROT_WRITE));
    check_filled(none, SIZE, 1, "data under PROT_NONE");
    must(mprotect(striped, SIZE, PROT_READ | PROT_WRITE));
    check_filled(striped, SIZE, 3, "striped");
    must(mprotect(read_only, SIZE, PROT_READ | PROT_WRITE));
    fill(read_only, SIZE, 9);
    done();
}
