/* Interval timers (setitimer(2)): REAL, VIRTUAL and PROF keep their interval and go on; a long one keeps what remains.
 *
 * The first thread spins and takes the signals; the second one controls, with all signals blocked. A child holds a timer of
 * a thousand seconds: it may never show less than a thousand seconds minus the time that passed, nor grow.
 */
#include "../workload.h"

static volatile sig_atomic_t counts[65];
static void count(int number) { counts[number]++; }

static void *control(void *argument)
{
    int seen[3] = { 0 };
    int numbers[3] = { SIGALRM, SIGVTALRM, SIGPROF };
    ready();
    while (!finishing()) {
        for (int i = 0; i < 3; i++)
            while (counts[numbers[i]] == seen[i] && !finishing())
                sleep_ms(1);
        for (int i = 0; i < 3; i++)
            seen[i] = counts[numbers[i]];
        progress();
    }
    *(atomic_bool *)argument = true;
    return NULL;
}

static void compare(int which, long interval_us)
{
    struct itimerval now;
    must(getitimer(which, &now));
    /* The kernel rounds CPU timers to ticks. */
    long got = now.it_interval.tv_sec * 1000000 + now.it_interval.tv_usec;
    check(got >= interval_us && got <= interval_us + 20000, "timer %d: interval %ld us", which, got);
}

int main(int argc, char **argv)
{
    begin(argc, argv);
    pid_t child = must(fork());
    if (child == 0) {
        progress_as("long");
        struct itimerval timer = { .it_interval = { 7, 5 }, .it_value = { 1000, 0 } }, now;
        uint64_t start = now_ns();
        must(setitimer(ITIMER_REAL, &timer, NULL));
        long last = 1000000000;
        while (!finishing()) {
            long passed = (now_ns() - start) / 1000;
            must(getitimer(ITIMER_REAL, &now));
            long remains = now.it_value.tv_sec * 1000000 + now.it_value.tv_usec;
            uint64_t after = (now_ns() - start) / 1000;
            check(now.it_interval.tv_sec == 7 && now.it_interval.tv_usec == 5);
            check(remains <= last, "%ld us remain, were %ld", remains, last);
            check(remains + (long)after >= 1000000000 - 20000, "%ld us remain after %ld", remains, passed);
            last = remains;
            progress();
            sleep_ms(2);
        }
        _exit(0);
    }
    sigset_t all, none;
    sigfillset(&all);
    sigemptyset(&none);
    must(sigprocmask(SIG_SETMASK, &all, NULL));
    static atomic_bool finish;
    pthread_t thread;
    must_pthread(pthread_create(&thread, NULL, control, &finish));
    struct sigaction action = { .sa_handler = count, .sa_flags = SA_RESTART };
    must(sigaction(SIGALRM, &action, NULL));
    must(sigaction(SIGVTALRM, &action, NULL));
    must(sigaction(SIGPROF, &action, NULL));
    struct itimerval timer = { { 0, 10000 }, { 0, 15000 } };
    must(setitimer(ITIMER_REAL, &timer, NULL));
    timer = (struct itimerval){ { 0, 8000 }, { 0, 12000 } };
    must(setitimer(ITIMER_VIRTUAL, &timer, NULL));
    timer = (struct itimerval){ { 0, 16000 }, { 0, 4000 } };
    must(setitimer(ITIMER_PROF, &timer, NULL));
    must(sigprocmask(SIG_SETMASK, &none, NULL));
    while (!finish) {
        compare(ITIMER_REAL, 10000);
        compare(ITIMER_VIRTUAL, 8000);
        compare(ITIMER_PROF, 16000);
    }
    must(sigprocmask(SIG_SETMASK, &all, NULL));
    must_pthread(pthread_join(thread, NULL));
    wait_exited(child, 0);
    done();
}
