/* The clocks that count since a boot, asked of the vdso and of the kernel: none of them ever goes back, and both tell the same. A
 * thread for each way to wait for them, until a time of the clock or for a while, over and over: none ends early, and all end.
 *
 * A clock may jump forward (a restart on a machine that has been up for longer): what waits for a time of it is over then.
 */
#include "../workload.h"
#include <linux/futex.h>
#include <sys/epoll.h>
#include <sys/timerfd.h>

static const int64_t second = 1000000000, span_ns = 60000000;

static struct timespec of_ns(int64_t ns)
{
    return (struct timespec){ ns / second, ns % second };
}

static int64_t told_by_vdso(int clock)
{
    struct timespec t;
    must(clock_gettime(clock, &t));
    return t.tv_sec * second + t.tv_nsec;
}

static int64_t told_by_kernel(int clock)
{
    struct timespec t;
    must(syscall(SYS_clock_gettime, clock, &t));
    return t.tv_sec * second + t.tv_nsec;
}

/* Clocks, and the latest time that any thread has seen of each. */
static struct clock {
    const char *name;
    int id;
    _Atomic int64_t latest;
} clocks[] = {
    { "CLOCK_MONOTONIC", CLOCK_MONOTONIC, 0 },
    { "CLOCK_MONOTONIC_RAW", CLOCK_MONOTONIC_RAW, 0 },
    { "CLOCK_MONOTONIC_COARSE", CLOCK_MONOTONIC_COARSE, 0 },
    { "CLOCK_BOOTTIME", CLOCK_BOOTTIME, 0 },
};
enum { CLOCKS = sizeof clocks / sizeof *clocks };

static void check_clock(struct clock *clock)
{
    int64_t before = clock->latest, first = told_by_kernel(clock->id), then = told_by_vdso(clock->id),
            last = told_by_kernel(clock->id);
    check(first >= before, "%s went back by %ld ns", clock->name, before - first);
    check(first <= then && then <= last, "%s: %ld, %ld of the vdso, %ld", clock->name, first, then, last);
    while (before < last && !atomic_compare_exchange_weak(&clock->latest, &before, last)) {
    }
}

/* What /proc/uptime says is CLOCK_BOOTTIME, to the hundredth of a second. */
static void check_uptime(void)
{
    char text[128] = "";
    int64_t before = told_by_kernel(CLOCK_BOOTTIME);
    slurp("/proc/uptime", text, sizeof text - 1);
    int64_t after = told_by_kernel(CLOCK_BOOTTIME), uptime = (int64_t)(strtod(text, NULL) * 1e9);
    check(uptime >= before - 20000000 && uptime <= after + 20000000, "%ld: %s", before, text);
}

static void by_sleep(int clock)
{
    struct timespec t = of_ns(span_ns);
    check(clock_nanosleep(clock, 0, &t, NULL) == 0);
}
static void by_sleep_until(int clock)
{
    struct timespec t = of_ns(told_by_vdso(clock) + span_ns);
    check(clock_nanosleep(clock, TIMER_ABSTIME, &t, NULL) == 0);
}
static void by_futex(int clock)
{
    (void)clock;
    static int word = 5;
    struct timespec t = of_ns(span_ns);
    check(syscall(SYS_futex, &word, FUTEX_WAIT_PRIVATE, 5, &t, NULL, 0) == -1 && errno == ETIMEDOUT);
}
static void by_futex_until(int clock)
{
    static int word = 5;
    struct timespec t = of_ns(told_by_vdso(clock) + span_ns);
    check(syscall(SYS_futex, &word, FUTEX_WAIT_BITSET_PRIVATE, 5, &t, NULL, ~0u) == -1 && errno == ETIMEDOUT);
}
static void by_condition_until(int clock)
{
    static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
    static pthread_cond_t condition;
    static bool made;
    if (!made) {
        pthread_condattr_t attributes;
        must_pthread(pthread_condattr_init(&attributes));
        must_pthread(pthread_condattr_setclock(&attributes, clock));
        must_pthread(pthread_cond_init(&condition, &attributes));
        made = true;
    }
    struct timespec t = of_ns(told_by_vdso(clock) + span_ns);
    must_pthread(pthread_mutex_lock(&mutex));
    check(pthread_cond_timedwait(&condition, &mutex, &t) == ETIMEDOUT);
    must_pthread(pthread_mutex_unlock(&mutex));
}
static void by_ppoll(int clock)
{
    (void)clock;
    struct timespec t = of_ns(span_ns);
    check(must(ppoll(NULL, 0, &t, NULL)) == 0);
}
static void by_timerfd(int clock)
{
    static int timer = -1;
    if (timer == -1)
        timer = must(timerfd_create(clock, TFD_CLOEXEC));
    struct itimerspec spec = { .it_value = of_ns(span_ns) };
    must(timerfd_settime(timer, 0, &spec, NULL));
    uint64_t n;
    check(must(read(timer, &n, 8)) == 8 && n == 1);
}
static void by_epoll_of_timerfd_until(int clock)
{
    static int timer = -1, epoll;
    struct epoll_event event = { .events = EPOLLIN };
    if (timer == -1) {
        timer = must(timerfd_create(clock, TFD_CLOEXEC));
        epoll = must(epoll_create1(EPOLL_CLOEXEC));
        must(epoll_ctl(epoll, EPOLL_CTL_ADD, timer, &event));
    }
    struct itimerspec spec = { .it_value = of_ns(told_by_vdso(clock) + span_ns) };
    must(timerfd_settime(timer, TFD_TIMER_ABSTIME, &spec, NULL));
    check(uninterrupted(epoll_wait(epoll, &event, 1, -1)) == 1);
    uint64_t n;
    check(must(read(timer, &n, 8)) == 8 && n == 1);
}
static void by_posix_timer_until(int clock)
{
    static timer_t timer;
    static bool made;
    if (!made) {
        struct sigevent event = { .sigev_notify = SIGEV_THREAD_ID, .sigev_signo = SIGUSR1 };
        event._sigev_un._tid = gettid();
        must(timer_create(clock, &event, &timer));
        made = true;
    }
    struct itimerspec spec = { .it_value = of_ns(told_by_vdso(clock) + span_ns) };
    must(timer_settime(timer, TIMER_ABSTIME, &spec, NULL));
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGUSR1);
    check(uninterrupted(sigwaitinfo(&set, NULL)) == SIGUSR1);
}

static struct waiter {
    const char *name;
    void (*wait)(int clock);
    int clock;
    atomic_int turns;
} waiters[] = {
    { "sleep", by_sleep, CLOCK_MONOTONIC, 0 },
    { "sleep until", by_sleep_until, CLOCK_MONOTONIC, 0 },
    { "sleep until, boottime", by_sleep_until, CLOCK_BOOTTIME, 0 },
    { "futex", by_futex, CLOCK_MONOTONIC, 0 },
    { "futex until", by_futex_until, CLOCK_MONOTONIC, 0 },
    { "condition until", by_condition_until, CLOCK_MONOTONIC, 0 },
    { "ppoll", by_ppoll, CLOCK_MONOTONIC, 0 },
    { "timerfd, boottime", by_timerfd, CLOCK_BOOTTIME, 0 },
    { "epoll of timerfd until", by_epoll_of_timerfd_until, CLOCK_MONOTONIC, 0 },
    { "posix timer until, boottime", by_posix_timer_until, CLOCK_BOOTTIME, 0 },
};
enum { WAITERS = sizeof waiters / sizeof *waiters };

static void *work(void *argument)
{
    struct waiter *waiter = argument;
    for (;;) {
        int64_t start = told_by_vdso(waiter->clock);
        waiter->wait(waiter->clock);
        int64_t passed = told_by_vdso(waiter->clock) - start;
        check(passed >= span_ns, "%s ended after %ld ns", waiter->name, passed);
        for (int i = 0; i < CLOCKS; i++)
            check_clock(&clocks[i]);
        waiter->turns++;
    }
    return NULL;
}

int main(int argc, char **argv)
{
    begin(argc, argv);
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGUSR1);
    must(sigprocmask(SIG_BLOCK, &set, NULL));
    pid_t child = must(fork());
    while (child == 0) {
        for (int i = 0; i < CLOCKS; i++)
            check_clock(&clocks[i]);
        sleep_ms(5);
        if (finishing())
            _exit(3);
    }
    int seen[WAITERS] = { 0 };
    for (int i = 0; i < WAITERS; i++) {
        pthread_t thread;
        must_pthread(pthread_create(&thread, NULL, work, &waiters[i]));
    }
    ready();
    do {
        for (int i = 0; i < WAITERS; i++)
            while (waiters[i].turns == seen[i] && !finishing()) {
                for (int clock = 0; clock < CLOCKS; clock++)
                    check_clock(&clocks[clock]);
                sleep_ms(1);
            }
        for (int i = 0; i < WAITERS; i++)
            seen[i] = waiters[i].turns;
        progress();
    } while (!finishing());
    check_uptime();
    wait_exited(child, 3);
    done();
}
