/* POSIX timers (timer_create(2)): ids with holes, clocks, whom they tell, what they tell, what remains, the interval, signals
 * that wait, overruns that were told; on the CPU time of the process and of threads.
 *
 * Two fast ones go on all the time, one telling the process and one telling a thread; the others are long, or have expired and
 * wait with their signals blocked until the end. glibc's SIGEV_THREAD has a thread of its own behind it.
 */
#include "../workload.h"

#ifndef sigev_notify_thread_id
#define sigev_notify_thread_id _sigev_un._tid
#endif

enum { FAST = 9, TO_THREAD = 10, LONG = 11, SILENT = 12, RANG_ONCE = 13, RANG = 14, OVERRAN = 15 };

static atomic_int fast, to_thread, by_glibc;
static int fast_id, to_thread_id, long_id, silent_id, rang_once_id, rang_id, overran_id, process_cpu_id, thread_cpu_id, own_cpu_id, unset_id,
    boottime_id;
static pid_t worker_tid;
static pthread_barrier_t barrier;
static atomic_bool finish;

static int make(clockid_t clock, int notify, int number, uintptr_t value, pid_t tid)
{
    struct sigevent event = { .sigev_notify = notify, .sigev_signo = number, .sigev_value.sival_ptr = (void *)value };
    event.sigev_notify_thread_id = tid;
    int id = -1;
    must(syscall(SYS_timer_create, clock, &event, &id));
    return id;
}

static void set(int id, long s, long ns, long interval_s, long interval_ns)
{
    struct itimerspec spec = { { interval_s, interval_ns }, { s, ns } };
    must(syscall(SYS_timer_settime, id, 0, &spec, NULL));
}

static void on_fast(int number, siginfo_t *info, void *context)
{
    check(context && number == SIGRTMIN + FAST && info->si_code == SI_TIMER && info->si_timerid == fast_id);
    check(info->si_value.sival_ptr == (void *)0x1122334455667788, "%p", info->si_value.sival_ptr);
    fast++;
}

static void on_thread(int number, siginfo_t *info, void *context)
{
    check(context && number == SIGRTMIN + TO_THREAD && info->si_code == SI_TIMER && info->si_timerid == to_thread_id);
    check(gettid() == worker_tid && info->si_value.sival_int == 77);
    to_thread++;
}

static void on_glibc(union sigval value)
{
    check(value.sival_int == 4242);
    by_glibc++;
}

static long remains(int id, long interval_s, long interval_ns)
{
    struct itimerspec now;
    must(syscall(SYS_timer_gettime, id, &now));
    check(now.it_interval.tv_sec == interval_s && now.it_interval.tv_nsec == interval_ns, "timer %d: interval %ld s %ld ns", id,
          now.it_interval.tv_sec, now.it_interval.tv_nsec);
    return now.it_value.tv_sec * 1000000000 + now.it_value.tv_nsec;
}

/* What remains never grows, and no more has gone than the time that has passed. */
static void check_falling(int id, long *last, long interval_s, long interval_ns, uint64_t start, long from_s)
{
    long now = remains(id, interval_s, interval_ns);
    long passed = now_ns() - start;
    check(now > 0 && now <= *last, "timer %d: %ld ns remain, were %ld", id, now, *last);
    check(now >= from_s * 1000000000 - passed - 1000000, "timer %d: %ld ns remain after %ld", id, now, passed);
    *last = now;
}

/* What remains of a timer on CPU time never grows, and there is much left. */
static void check_cpu(int id, long *last, long interval_s)
{
    long now = remains(id, interval_s, 0);
    check(now > 0 && now <= *last && now > 900000000000, "timer %d: %ld ns of CPU time remain, were %ld", id, now, *last);
    *last = now;
}

static void *work(void *argument)
{
    worker_tid = gettid();
    sigset_t mask;
    sigemptyset(&mask);
    sigaddset(&mask, SIGRTMIN + TO_THREAD);
    own_cpu_id = make(CLOCK_THREAD_CPUTIME_ID, SIGEV_SIGNAL, SIGRTMIN + LONG, 5, 0);
    set(own_cpu_id, 1000, 0, 3, 0);
    pthread_barrier_wait(&barrier);
    must_pthread(pthread_sigmask(SIG_UNBLOCK, &mask, NULL));
    long last = 1000000000000, before = last;
    while (!finish) {
        check_cpu(own_cpu_id, &last, 3);
        /* It is this thread's time that it counts. */
        for (volatile int i = 0; i < 100000; i++)
            ;
        check_cpu(own_cpu_id, &last, 3);
        check(last < before, "the timer on this thread's CPU time doesn't move");
        before = last;
        /* Its own signals end this. */
        usleep(2000);
    }
    return argument;
}

/* Takes the signal of a timer that has expired and waits. */
static void take(int number, int id, uintptr_t value)
{
    sigset_t one;
    sigemptyset(&one);
    sigaddset(&one, SIGRTMIN + number);
    siginfo_t info;
    struct timespec none = { 0, 0 };
    memset(&info, 0, sizeof info);
    int got = syscall(SYS_rt_sigtimedwait, &one, &info, &none, 8);
    check(got == SIGRTMIN + number, "no signal of timer %d: %d", id, got);
    check(info.si_code == SI_TIMER && info.si_timerid == id && info.si_value.sival_ptr == (void *)value, "timer %d: code %d id %d value %p",
          id, info.si_code, info.si_timerid, info.si_value.sival_ptr);
    check(syscall(SYS_rt_sigtimedwait, &one, &info, &none, 8) == -1, "timer %d: a second signal", id);
}

int main(int argc, char **argv)
{
    begin(argc, argv);
    sigset_t mask;
    sigfillset(&mask);
    must(sigprocmask(SIG_SETMASK, &mask, NULL));
    pthread_barrier_init(&barrier, NULL, 2);
    struct sigaction action = { .sa_sigaction = on_fast, .sa_flags = SA_SIGINFO | SA_RESTART };
    must(sigaction(SIGRTMIN + FAST, &action, NULL));
    action.sa_sigaction = on_thread;
    must(sigaction(SIGRTMIN + TO_THREAD, &action, NULL));
    pthread_t thread;
    must_pthread(pthread_create(&thread, NULL, work, NULL));

    /* Ids with holes: every other one goes again. */
    int *ids[] = { &fast_id, &long_id, &silent_id, &rang_once_id, &rang_id, &overran_id, &unset_id, &boottime_id };
    int holes[8], hole = 0;
    pthread_barrier_wait(&barrier);
    for (int i = 0; i < 8; i++) {
        holes[hole++] = make(CLOCK_MONOTONIC, SIGEV_NONE, 0, 0, 0);
        switch (i) {
        case 0: *ids[i] = make(CLOCK_MONOTONIC, SIGEV_SIGNAL, SIGRTMIN + FAST, 0x1122334455667788, 0); break;
        case 1: *ids[i] = make(CLOCK_REALTIME, SIGEV_SIGNAL, SIGRTMIN + LONG, 1, 0); break;
        case 2: *ids[i] = make(CLOCK_MONOTONIC, SIGEV_NONE, 0, 0, 0); break;
        case 3: *ids[i] = make(CLOCK_MONOTONIC, SIGEV_SIGNAL, SIGRTMIN + RANG_ONCE, 0xabcdef, 0); break;
        case 4: *ids[i] = make(CLOCK_MONOTONIC, SIGEV_SIGNAL, SIGRTMIN + RANG, 33, 0); break;
        case 5: *ids[i] = make(CLOCK_MONOTONIC, SIGEV_SIGNAL, SIGRTMIN + OVERRAN, 44, 0); break;
        case 6: *ids[i] = make(CLOCK_MONOTONIC, SIGEV_SIGNAL, SIGRTMIN + LONG, 55, 0); break;
        case 7: *ids[i] = make(CLOCK_BOOTTIME, SIGEV_SIGNAL, SIGRTMIN + LONG, 66, 0); break;
        }
    }
    for (int i = 0; i < hole; i++)
        must(syscall(SYS_timer_delete, holes[i]));
    to_thread_id = make(CLOCK_MONOTONIC, SIGEV_THREAD_ID | SIGEV_SIGNAL, SIGRTMIN + TO_THREAD, 77, worker_tid);
    process_cpu_id = make(CLOCK_PROCESS_CPUTIME_ID, SIGEV_SIGNAL, SIGRTMIN + LONG, 2, 0);
    clockid_t thread_clock;
    must_pthread(pthread_getcpuclockid(thread, &thread_clock));
    thread_cpu_id = make(thread_clock, SIGEV_SIGNAL, SIGRTMIN + LONG, 3, 0);
    timer_t glibc;
    struct sigevent event = { .sigev_notify = SIGEV_THREAD, .sigev_notify_function = on_glibc, .sigev_value.sival_int = 4242 };
    must(timer_create(CLOCK_MONOTONIC, &event, &glibc));

    uint64_t start = now_ns();
    set(long_id, 1000, 0, 7, 5);
    set(silent_id, 2000, 0, 0, 0);
    set(boottime_id, 3000, 0, 0, 1);
    set(process_cpu_id, 1000, 0, 2, 0);
    set(thread_cpu_id, 1000, 0, 0, 0);
    set(rang_once_id, 0, 1, 0, 0);
    /* Expires now, and its next multiple is in a thousand seconds. */
    set(rang_id, 0, 1, 1000, 0);
    struct timespec now;
    must(clock_gettime(CLOCK_MONOTONIC, &now));
    /* Five multiples of ten seconds have passed, or as many as there can be. */
    long past = now.tv_sec > 60 ? 50 : now.tv_sec / 10 * 10;
    struct itimerspec spec = { { 10, 0 }, { now.tv_sec - past, 1 } };
    sigset_t one;
    sigemptyset(&one);
    sigaddset(&one, SIGRTMIN + OVERRAN);
    must(syscall(SYS_timer_settime, overran_id, TIMER_ABSTIME, &spec, NULL));
    siginfo_t info;
    check(sigwaitinfo(&one, &info) == SIGRTMIN + OVERRAN);
    int overruns = must(syscall(SYS_timer_getoverrun, overran_id));
    check(overruns == past / 10 && info.si_overrun == overruns, "%d overruns", overruns);
    spec = (struct itimerspec){ { 100000, 0 }, { 0, 0 } };
    /* Again, with an interval that doesn't end while this runs. */
    long interval = now.tv_sec / 10;
    spec = (struct itimerspec){ { interval ? interval : 1, 0 }, { now.tv_sec - past / 10 * interval, 1 } };
    bool has_overruns = interval > 600;
    if (has_overruns) {
        must(syscall(SYS_timer_settime, overran_id, TIMER_ABSTIME, &spec, NULL));
        check(sigwaitinfo(&one, &info) == SIGRTMIN + OVERRAN);
        overruns = must(syscall(SYS_timer_getoverrun, overran_id));
        check(overruns == past / 10);
    } else {
        set(overran_id, 100000, 0, 0, 0);
        overruns = 0;
    }
    spec = (struct itimerspec){ { 0, 7000000 }, { 0, 5000000 } };
    must(timer_settime(glibc, 0, &spec, NULL));
    set(fast_id, 0, 10000000, 0, 6000000);
    set(to_thread_id, 0, 10000000, 0, 8000000);
    sigemptyset(&mask);
    sigaddset(&mask, SIGRTMIN + FAST);
    must_pthread(pthread_sigmask(SIG_UNBLOCK, &mask, NULL));

    long last_long = 1000000000000, last_silent = 2000000000000, last_boot = 3000000000000, last_process = 1000000000000,
         last_thread = 1000000000000;
    ready();
    while (!finishing()) {
        int seen[] = { fast, to_thread, by_glibc };
        while ((fast == seen[0] || to_thread == seen[1] || by_glibc == seen[2]) && !finishing())
            sched_yield();
        check_falling(long_id, &last_long, 7, 5, start, 1000);
        check_falling(silent_id, &last_silent, 0, 0, start, 2000);
        check_falling(boottime_id, &last_boot, 0, 1, start, 3000);
        check_cpu(process_cpu_id, &last_process, 2);
        check_cpu(thread_cpu_id, &last_thread, 0);
        check(remains(unset_id, 0, 0) == 0);
        check(remains(rang_once_id, 0, 0) == 0);
        check(remains(rang_id, 1000, 0) > 0);
        check(must(syscall(SYS_timer_getoverrun, overran_id)) == overruns);
        check(remains(overran_id, has_overruns ? interval : 0, 0) > 0);
        for (int i = 0; i < hole; i++)
            check(syscall(SYS_timer_delete, holes[i]) == -1 && errno == EINVAL);
        progress();
    }
    take(RANG_ONCE, rang_once_id, 0xabcdef);
    take(RANG, rang_id, 33);
    check(remains(rang_id, 1000, 0) > 900000000000, "the timer doesn't go on once its signal is taken");
    finish = true;
    must_pthread(pthread_join(thread, NULL));
    must(timer_delete(glibc));
    int *all[] = { &fast_id, &long_id, &silent_id, &rang_once_id, &rang_id, &overran_id, &unset_id, &boottime_id, &to_thread_id,
                   &process_cpu_id, &thread_cpu_id, &own_cpu_id };
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        must(syscall(SYS_timer_delete, *all[i]));
    done();
}
