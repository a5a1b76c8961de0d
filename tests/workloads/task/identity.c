/* What a program sees of itself: exe, argv, environ, auxv, comm, brk, vdso and getrandom; and the command line that it wrote
 * over, as setproctitle(3bsd) does. After the checkpoint the heap still grows by brk(2), from where it was.
 */
#include "../workload.h"
#include <elf.h>
#include <link.h>
#include <sys/auxv.h>

extern char **environ;
struct text {
    ssize_t size;
    char bytes[65536];
};
static struct text before[5], now;
static const char *paths[5] = { "/proc/self/cmdline", "/proc/self/environ", "/proc/self/auxv", "/proc/self/comm", "/proc/self/exe" };

static void look(int i, struct text *text)
{
    memset(text, 0, sizeof *text);
    if (i == 4)
        text->size = must(readlink(paths[i], text->bytes, sizeof text->bytes));
    else
        text->size = slurp(paths[i], text->bytes, sizeof text->bytes);
}

static void compare(char *heap)
{
    for (int i = 0; i < 5; i++) {
        look(i, &now);
        check(now.size == before[i].size && memcmp(now.bytes, before[i].bytes, now.size) == 0, "%s: %s", paths[i], now.bytes);
    }
    check(sbrk(0) == heap + 3 * 4096 + 100, "brk is %p", sbrk(0));
    check_filled(heap, 3 * 4096 + 100, 17, "heap");
    struct timespec a, b;
    must(clock_gettime(CLOCK_MONOTONIC, &a)); /* through the vdso */
    must(syscall(SYS_clock_gettime, CLOCK_MONOTONIC, &b));
    check(a.tv_sec < b.tv_sec || (a.tv_sec == b.tv_sec && a.tv_nsec <= b.tv_nsec));
    struct timeval t;
    must(gettimeofday(&t, NULL));
    check(time(NULL) - t.tv_sec <= 1);
    unsigned cpu;
    must(getcpu(&cpu, NULL));
    const ElfW(Ehdr) *vdso = (void *)getauxval(AT_SYSINFO_EHDR);
    check(memcmp(vdso->e_ident, ELFMAG, SELFMAG) == 0);
}

int main(int argc, char **argv)
{
    begin(argc, argv);
    check(setenv("BARDO_WORKLOAD", "identity", 1) == 0);
    /* Over the first argument, within its length. */
    memset(argv[0], 'x', strlen(argv[0]));
    must(prctl(PR_SET_NAME, "another name"));
    char *heap = sbrk(3 * 4096 + 100);
    check(heap != (void *)-1);
    fill(heap, 3 * 4096 + 100, 17);
    for (int i = 0; i < 5; i++)
        look(i, &before[i]);
    loop_until_finish(compare(heap));
    char *more = sbrk(1 << 20);
    check(more == heap + 3 * 4096 + 100);
    memset(more, 1, 1 << 20);
    check_filled(heap, 3 * 4096 + 100, 17, "heap");
    check(sbrk(-(1 << 20)) == more + (1 << 20));
    check(sbrk(0) == more);
    check(strcmp(getenv("BARDO_WORKLOAD"), "identity") == 0);
    /* The program can still be started again from where it is. */
    pid_t child = must(fork());
    if (child == 0) {
        int null = open("/dev/null", O_WRONLY);
        dup2(null, 2);
        execl("/proc/self/exe", "identity", NULL);
        _exit(1);
    }
    wait_exited(child, 2);
    done();
}
