/* Pending signals: blocked and queued, to the process and to two threads, standard and real-time, with what sigqueue(3) and
 * the kernel put into their siginfo. In the end every one is taken, in order, and there is no other.
 */
#include "../workload.h"
#include <sys/wait.h>

static pthread_barrier_t barrier;
static atomic_bool finish;
static pid_t child;

static void queue_to_thread(int number, int value)
{
    siginfo_t info = { 0 };
    info.si_signo = number;
    info.si_code = SI_QUEUE;
    info.si_pid = getpid();
    info.si_uid = getuid();
    info.si_value.sival_int = value;
    must(syscall(SYS_rt_tgsigqueueinfo, getpid(), gettid(), number, &info));
}

static void take(int number, int code, int value)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, number);
    siginfo_t info;
    memset(&info, 0, sizeof info);
    struct timespec none = { 0, 0 };
    /* Raw: glibc's sigtimedwait makes SI_USER of SI_TKILL. */
    int got = syscall(SYS_rt_sigtimedwait, &set, &info, &none, 8);
    check(got == number, "signal %d: %d", number, got);
    check(info.si_signo == number && info.si_code == code, "signal %d: code %d, not %d", number, info.si_code, code);
    check(info.si_pid == (number == SIGCHLD ? child : getpid()) && info.si_uid == getuid(), "signal %d: pid %d uid %d", number, info.si_pid, info.si_uid);
    if (number == SIGCHLD)
        check(info.si_status == value);
    else if (code == SI_QUEUE)
        check(info.si_value.sival_int == value, "signal %d: value %d, not %d", number, info.si_value.sival_int, value);
}

static void check_pending(const int *numbers)
{
    sigset_t set;
    must(sigpending(&set));
    for (int number = 1; number <= 64; number++) {
        bool expected = false;
        for (const int *n = numbers; *n; n++)
            expected |= *n == number;
        check(sigismember(&set, number) == expected || number == 32 || number == 33, "signal %d", number);
    }
}

static void *other(void *argument)
{
    queue_to_thread(SIGUSR2, 77);
    for (int i = 0; i < 3; i++)
        queue_to_thread(SIGRTMIN + 3, 200 + i);
    pthread_barrier_wait(&barrier);
    while (!finish)
        sleep_ms(2);
    take(SIGUSR2, SI_QUEUE, 77);
    for (int i = 0; i < 3; i++)
        take(SIGRTMIN + 3, SI_QUEUE, 200 + i);
    return argument;
}

int main(int argc, char **argv)
{
    begin(argc, argv);
    sigset_t all, set;
    sigfillset(&all);
    must(sigprocmask(SIG_BLOCK, &all, NULL));
    pthread_barrier_init(&barrier, NULL, 2);
    pthread_t thread;
    must_pthread(pthread_create(&thread, NULL, other, NULL));
    pthread_barrier_wait(&barrier);
    union sigval value;
    for (int i = 0; i < 5; i++) {
        value.sival_int = 10 + i;
        must(sigqueue(getpid(), SIGRTMIN + 1, value));
    }
    value.sival_int = 99;
    must(sigqueue(getpid(), SIGRTMAX, value));
    must(kill(getpid(), SIGUSR1));
    must(kill(getpid(), SIGUSR1)); /* a standard signal isn't queued twice */
    must(syscall(SYS_tgkill, getpid(), gettid(), SIGTERM));
    for (int i = 0; i < 3; i++)
        queue_to_thread(SIGRTMIN + 2, 300 + i);
    child = must(fork());
    if (child == 0)
        _exit(42);
    /* The SIGCHLD stays pending, the child stays a zombie. */
    siginfo_t info;
    must(waitid(P_PID, child, &info, WEXITED | WNOWAIT));
    int numbers[] = { SIGRTMIN + 1, SIGRTMAX, SIGUSR1, SIGTERM, SIGRTMIN + 2, SIGCHLD, 0 };
    loop_until_finish(check_pending(numbers));
    take(SIGCHLD, CLD_EXITED, 42);
    take(SIGUSR1, SI_USER, 0);
    take(SIGTERM, SI_TKILL, 0);
    for (int i = 0; i < 5; i++)
        take(SIGRTMIN + 1, SI_QUEUE, 10 + i);
    for (int i = 0; i < 3; i++)
        take(SIGRTMIN + 2, SI_QUEUE, 300 + i);
    take(SIGRTMAX, SI_QUEUE, 99);
    must(sigpending(&set));
    for (int number = 1; number <= 64; number++)
        check(!sigismember(&set, number), "signal %d came twice", number);
    wait_exited(child, 42);
    must(sigpending(&set));
    finish = true;
    must_pthread(pthread_join(thread, NULL));
    done();
}
