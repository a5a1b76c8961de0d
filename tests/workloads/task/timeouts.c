/* Calls that wait with a time-out, one per thread, over and over: none may end early, none may return EINTR, all must end.
 *
 * With a second argument, milliseconds, each waits that long once and the workload ends by itself: so a test can see that
 * what remained at the checkpoint is still waited for after a restart, however long the tree was away.
 */
#include "../workload.h"
#include <linux/futex.h>
#include <semaphore.h>
#include <sys/select.h>

static long wait_ms = 60;
static bool once;
static atomic_int ended;

static struct timespec span(void)
{
    return (struct timespec){ wait_ms / 1000, wait_ms % 1000 * 1000000 };
}

static struct timespec until(clockid_t clock)
{
    struct timespec t, s = span();
    must(clock_gettime(clock, &t));
    t.tv_sec += s.tv_sec;
    t.tv_nsec += s.tv_nsec;
    if (t.tv_nsec >= 1000000000)
        t.tv_nsec -= 1000000000, t.tv_sec++;
    return t;
}

static void by_nanosleep(void)
{
    struct timespec t = span();
    must(nanosleep(&t, NULL));
}
static void by_clock_nanosleep(void)
{
    struct timespec t = span(), rest = { 0, 0 };
    check(clock_nanosleep(CLOCK_MONOTONIC, 0, &t, &rest) == 0);
}
static void by_clock_nanosleep_boottime(void)
{
    struct timespec t = span();
    check(clock_nanosleep(CLOCK_BOOTTIME, 0, &t, NULL) == 0);
}
static void by_clock_nanosleep_absolute(void)
{
    struct timespec t = until(CLOCK_MONOTONIC);
    check(clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL) == 0);
}
static void by_poll(void) { check(must(poll(NULL, 0, wait_ms)) == 0); }
static void by_ppoll(void)
{
    struct timespec t = span();
    check(must(ppoll(NULL, 0, &t, NULL)) == 0);
}
static void by_select(void)
{
    struct timeval t = { wait_ms / 1000, wait_ms % 1000 * 1000 };
    check(must(select(0, NULL, NULL, NULL, &t)) == 0);
}
static void by_pselect(void)
{
    struct timespec t = span();
    sigset_t mask;
    sigemptyset(&mask);
    check(must(pselect(0, NULL, NULL, NULL, &t, &mask)) == 0);
}
static void by_poll_of_pipe(void)
{
    static int ends[2] = { -1, -1 };
    if (ends[0] == -1)
        must(pipe(ends));
    struct pollfd poll_of = { ends[0], POLLIN, 0 };
    check(must(poll(&poll_of, 1, wait_ms)) == 0);
}
static void by_futex(void)
{
    static int word = 5;
    struct timespec t = span();
    check(syscall(SYS_futex, &word, FUTEX_WAIT_PRIVATE, 5, &t, NULL, 0) == -1 && errno == ETIMEDOUT);
}
static void by_futex_bitset(void)
{
    static int word = 5;
    struct timespec t = until(CLOCK_MONOTONIC);
    check(syscall(SYS_futex, &word, FUTEX_WAIT_BITSET_PRIVATE, 5, &t, NULL, ~0u) == -1 && errno == ETIMEDOUT);
}
static void by_sigtimedwait(void)
{
    struct timespec t = span();
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGUSR1);
    check(uninterrupted(sigtimedwait(&set, NULL, &t)) == -1 && errno == EAGAIN);
}
static void by_sem_timedwait(void)
{
    static sem_t semaphore;
    struct timespec t = until(CLOCK_REALTIME);
    check(sem_timedwait(&semaphore, &t) == -1 && errno == ETIMEDOUT);
}
static void by_condition(void)
{
    static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
    static pthread_cond_t condition = PTHREAD_COND_INITIALIZER;
    struct timespec t = until(CLOCK_REALTIME);
    must_pthread(pthread_mutex_lock(&mutex));
    check(pthread_cond_timedwait(&condition, &mutex, &t) == ETIMEDOUT);
    must_pthread(pthread_mutex_unlock(&mutex));
}

static struct waiter {
    const char *name;
    void (*wait)(void);
    atomic_int turns;
} waiters[] = {
    { "nanosleep", by_nanosleep, 0 },
    { "clock_nanosleep", by_clock_nanosleep, 0 },
    { "clock_nanosleep boottime", by_clock_nanosleep_boottime, 0 },
    { "clock_nanosleep absolute", by_clock_nanosleep_absolute, 0 },
    { "poll", by_poll, 0 },
    { "ppoll", by_ppoll, 0 },
    { "select", by_select, 0 },
    { "pselect", by_pselect, 0 },
    { "poll of a pipe", by_poll_of_pipe, 0 },
    { "futex", by_futex, 0 },
    { "futex bitset", by_futex_bitset, 0 },
    { "sigtimedwait", by_sigtimedwait, 0 },
    { "sem_timedwait", by_sem_timedwait, 0 },
    { "pthread_cond_timedwait", by_condition, 0 },
};
enum { WAITERS = sizeof waiters / sizeof *waiters };

static void *work(void *argument)
{
    struct waiter *waiter = argument;
    do {
        uint64_t start = now_ns();
        waiter->wait();
        uint64_t passed = now_ns() - start;
        /* The realtime clock may be stepped against the monotonic one: a millisecond of grace, as for poll's granularity. */
        check(passed + 1000000 >= (uint64_t)wait_ms * 1000000, "%s ended after %lu ns", waiter->name, passed);
        waiter->turns++;
    } while (!once);
    ended++;
    return NULL;
}

int main(int argc, char **argv)
{
    begin(argc, argv);
    if (argc > 2 && !may_be_interrupted) {
        wait_ms = atol(argv[2]);
        once = true;
    }
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGUSR1);
    must(sigprocmask(SIG_BLOCK, &set, NULL));
    int seen[WAITERS] = { 0 };
    for (int i = 0; i < WAITERS; i++) {
        pthread_t thread;
        must_pthread(pthread_create(&thread, NULL, work, &waiters[i]));
    }
    ready();
    if (once) {
        while (ended < WAITERS) {
            progress();
            sleep_ms(2);
        }
        done();
    }
    while (!finishing()) {
        for (int i = 0; i < WAITERS; i++)
            while (waiters[i].turns == seen[i] && !finishing())
                sleep_ms(1);
        for (int i = 0; i < WAITERS; i++)
            seen[i] = waiters[i].turns;
        progress();
    }
    done();
}
