/* Filters of seccomp(2) that stay in force: shared by the threads of a process and told to all of them at once
 * (SECCOMP_FILTER_FLAG_TSYNC), with one more on a single thread; on a process without any right and without no_new_privs; with
 * the LOG flag; and one that kills for everything that isn't in its list.
 */
#include "../workload.h"
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <linux/capability.h>

#ifndef SECCOMP_RET_KILL_PROCESS
#define SECCOMP_RET_KILL_PROCESS 0x80000000u
#endif
#define LOAD(field) BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, field))
#define RETURN(what) BPF_STMT(BPF_RET | BPF_K, what)

static pthread_barrier_t barrier;
static atomic_int lone_tid, over;

static long filter(struct sock_filter *code, unsigned short len, unsigned flags)
{
    struct sock_fprog program = { len, code };
    return syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags, &program);
}

/* A filter that answers one call with an error. */
static long forbid(unsigned nr, unsigned error, unsigned flags)
{
    struct sock_filter code[] = {
        LOAD(nr),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, nr, 0, 1),
        RETURN(SECCOMP_RET_ERRNO | error),
        RETURN(SECCOMP_RET_ALLOW),
    };
    return filter(code, sizeof code / sizeof *code, flags);
}

static void forbidden(long nr, int error)
{
    errno = 0;
    check(syscall(nr, 0, 0) == -1 && errno == error, "call %ld", nr);
}

static void allowed(long nr)
{
    errno = 0;
    check(syscall(nr, 0, 0) != -1, "call %ld", nr);
}

static void *companion(void *unused)
{
    (void)unused;
    pthread_barrier_wait(&barrier);
    pthread_barrier_wait(&barrier);
    while (!atomic_load(&over)) {
        forbidden(SYS_getpgid, 70);
        allowed(SYS_getsid);
        sleep_ms(2);
    }
    return NULL;
}

static void *lone(void *unused)
{
    (void)unused;
    pthread_barrier_wait(&barrier);
    pthread_barrier_wait(&barrier);
    must(forbid(SYS_getsid, 71, 0));
    lone_tid = gettid();
    while (!atomic_load(&over)) {
        forbidden(SYS_getpgid, 70);
        forbidden(SYS_getsid, 71);
        sleep_ms(2);
    }
    return NULL;
}

/* One filter for all threads, one more for one of them. */
static void threads(void)
{
    pthread_t one, other;
    progress_as("threads");
    must(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
    must_pthread(pthread_barrier_init(&barrier, NULL, 3));
    must_pthread(pthread_create(&one, NULL, companion, NULL));
    must_pthread(pthread_create(&other, NULL, lone, NULL));
    pthread_barrier_wait(&barrier);
    check(must(forbid(SYS_getpgid, 70, SECCOMP_FILTER_FLAG_TSYNC)) == 0);
    pthread_barrier_wait(&barrier);
    while (!atomic_load(&lone_tid))
        sleep_ms(1);
    while (!finishing()) {
        forbidden(SYS_getpgid, 70);
        allowed(SYS_getsid);
        progress();
        sleep_ms(2);
    }
    /* The lone thread has gone its own way; without it, all are told. */
    check(must(forbid(SYS_getpriority, 72, SECCOMP_FILTER_FLAG_TSYNC)) == lone_tid);
    atomic_store(&over, 1);
    must_pthread(pthread_join(other, NULL));
    must_pthread(pthread_join(one, NULL));
    check(must(forbid(SYS_getpriority, 72, SECCOMP_FILTER_FLAG_TSYNC)) == 0);
    forbidden(SYS_getpriority, 72);
    _exit(0);
}

/* Filters that were set by right, which is gone since; TSYNC finds all threads alike. */
static void *told(void *unused)
{
    (void)unused;
    while (!atomic_load(&over)) {
        forbidden(SYS_getpgid, 73);
        sleep_ms(2);
    }
    forbidden(SYS_getsid, 74);
    return NULL;
}

static void powerless(void)
{
    pthread_t other;
    progress_as("powerless");
    must(forbid(SYS_getpgid, 73, SECCOMP_FILTER_FLAG_LOG));
    must_pthread(pthread_create(&other, NULL, told, NULL));
    struct __user_cap_header_struct header = { _LINUX_CAPABILITY_VERSION_3, 0 };
    struct __user_cap_data_struct none[2] = { 0 };
    must(syscall(SYS_capset, &header, none));
    while (!finishing()) {
        forbidden(SYS_getpgid, 73);
        check(must(prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0)) == 0);
        errno = 0;
        check(forbid(SYS_getsid, 74, 0) == -1 && errno == EACCES);
        progress();
        sleep_ms(2);
    }
    must(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
    check(must(forbid(SYS_getsid, 74, SECCOMP_FILTER_FLAG_TSYNC)) == 0);
    atomic_store(&over, 1);
    must_pthread(pthread_join(other, NULL));
    _exit(0);
}

/* Everything kills but what is listed; a call that a filter forbids is fatal still. */
static void strict(void)
{
    static const unsigned list[] = {
        SYS_read, SYS_write, SYS_open, SYS_openat, SYS_close, SYS_access, SYS_faccessat, SYS_faccessat2, SYS_truncate, SYS_exit_group,
        SYS_exit, SYS_clock_nanosleep, SYS_nanosleep, SYS_restart_syscall, SYS_rt_sigreturn, SYS_getpid, SYS_getpgid, SYS_getppid,
        SYS_mmap, SYS_munmap, SYS_brk, SYS_mprotect, SYS_futex, 449 /* futex_waitv */, SYS_memfd_create, SYS_rt_sigprocmask,
        SYS_rt_sigpending, SYS_rt_sigaction, SYS_sigaltstack, SYS_prctl, SYS_arch_prctl, SYS_getitimer, SYS_timer_gettime, SYS_waitid,
        SYS_newfstatat, SYS_stat, SYS_clock_gettime,
    };
    enum { COUNT = sizeof list / sizeof *list };
    struct sock_filter code[2 * COUNT + 2] = { LOAD(nr) };
    for (int i = 0; i < COUNT; i++) {
        code[1 + 2 * i] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, list[i], 0, 1);
        code[2 + 2 * i] = (struct sock_filter)RETURN(SECCOMP_RET_ALLOW);
    }
    code[2 * COUNT + 1] = (struct sock_filter)RETURN(SECCOMP_RET_KILL_PROCESS);
    progress_as("strict");
    must(setrlimit(RLIMIT_CORE, &(struct rlimit){ 0, 0 }));
    must(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
    must(filter(code, 2 * COUNT + 2, 0));
    while (!finishing()) {
        allowed(SYS_getpgid);
        progress();
        sleep_ms(2);
    }
    syscall(SYS_getsid, 0);
    fail("a forbidden call returned");
}

int main(int argc, char **argv)
{
    begin(argc, argv);
    void (*kinds[])(void) = { threads, powerless, strict };
    pid_t children[3];
    for (int i = 0; i < 3; i++) {
        children[i] = must(fork());
        if (children[i] == 0)
            kinds[i]();
    }
    loop_until_finish();
    wait_exited(children[0], 0);
    wait_exited(children[1], 0);
    int status;
    must(waitpid(children[2], &status, 0));
    check(WIFSIGNALED(status) && WTERMSIG(status) == SIGSYS, "%#x", status);
    done();
}
