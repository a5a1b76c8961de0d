/* Timers that are read: relative and absolute, of three clocks, once and again and again, unset, expired and not yet read, with a
 * thread that waits for one, and one that two processes share. None ever expires early, and none is forgotten.
 */
#include "../workload.h"
#include <sys/timerfd.h>

static const int64_t second = 1000000000, ms = 1000000;

static struct timespec of_ns(int64_t ns)
{
    return (struct timespec){ ns / second, ns % second };
}

static int64_t clock_ns(int clock)
{
    struct timespec t;
    must(clock_gettime(clock, &t));
    return t.tv_sec * second + t.tv_nsec;
}

static int timer(int clock, int flags, int64_t value, int64_t interval)
{
    int fd = must(timerfd_create(clock, TFD_NONBLOCK | TFD_CLOEXEC));
    struct itimerspec spec = { of_ns(interval), of_ns(value) };
    must(timerfd_settime(fd, flags, &spec, NULL));
    return fd;
}

static uint64_t expirations(int fd)
{
    uint64_t n = 0;
    if (read(fd, &n, 8) == -1)
        check(errno == EAGAIN);
    return n;
}

static bool readable(int fd)
{
    struct pollfd p = { fd, POLLIN, 0 };
    return must(poll(&p, 1, 0));
}

/* When an unexpired timer expires, by its clock: not before `due`, and not much later. */
static void check_due(int fd, int clock, int64_t due)
{
    struct itimerspec spec;
    int64_t before = clock_ns(clock);
    must(timerfd_gettime(fd, &spec));
    int64_t remains = spec.it_value.tv_sec * second + spec.it_value.tv_nsec;
    check(remains > 0 && remains + clock_ns(clock) >= due, "early by %ld", due - remains - clock_ns(clock));
    check(remains + before < due + 1000 * second);
}

static int waited_for;
static _Atomic int64_t waited_since;
static atomic_bool enough;

/* Waits for a timer of 3 ms, again and again: it may be late, never early. */
static void *waiter(void *ignored)
{
    (void)ignored;
    uint64_t total = 0, n;
    while (!enough) {
        check(must(read(waited_for, &n, 8)) == 8 && n > 0);
        total += n;
        check((int64_t)total * 3 * ms <= clock_ns(CLOCK_MONOTONIC) - waited_since, "%lu expirations", total);
    }
    return NULL;
}

int main(int argc, char **argv)
{
    begin(argc, argv);
    int64_t mono = clock_ns(CLOCK_MONOTONIC), wall = clock_ns(CLOCK_REALTIME), boot = clock_ns(CLOCK_BOOTTIME);
    int unset = timer(CLOCK_MONOTONIC, 0, 0, 0);
    int far = timer(CLOCK_MONOTONIC, 0, 5000 * second, 0);
    int absolute = timer(CLOCK_MONOTONIC, TFD_TIMER_ABSTIME, mono + 5000 * second, 7 * second);
    int of_boot = timer(CLOCK_BOOTTIME, TFD_TIMER_ABSTIME, boot + 5000 * second, 0);
    int relative_wall = timer(CLOCK_REALTIME, 0, 5000 * second, 0);
    int on_the_wall = timer(CLOCK_REALTIME, TFD_TIMER_ABSTIME | TFD_TIMER_CANCEL_ON_SET, wall + 5000 * second, 0);
    int expired = timer(CLOCK_MONOTONIC, 0, 1, 0);
    int64_t often_since = clock_ns(CLOCK_MONOTONIC), unread_since = often_since, slow_since = often_since;
    int often = timer(CLOCK_MONOTONIC, 0, 5 * ms, 5 * ms);
    int unread = timer(CLOCK_MONOTONIC, 0, ms, ms);
    int slow = timer(CLOCK_MONOTONIC, 0, 40 * ms, 0);
    while (!readable(unread) || !readable(expired))
        sched_yield();
    /* What is due of it is counted now, and stays. */
    struct itimerspec spec;
    must(timerfd_gettime(unread, &spec));
    waited_since = clock_ns(CLOCK_MONOTONIC);
    waited_for = must(timerfd_create(CLOCK_MONOTONIC, 0));
    spec = (struct itimerspec){ of_ns(3 * ms), of_ns(3 * ms) };
    must(timerfd_settime(waited_for, 0, &spec, NULL));
    pthread_t waits;
    must_pthread(pthread_create(&waits, NULL, waiter, NULL));
    /* Both processes read it: what one has had the other hasn't. */
    int shared = timer(CLOCK_MONOTONIC, 0, 2 * ms, 2 * ms);
    int64_t shared_since = clock_ns(CLOCK_MONOTONIC);
    _Atomic uint64_t *had = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    check(had != MAP_FAILED);
    pid_t child = must(fork());
    while (child == 0) {
        *had += expirations(shared);
        sleep_ms(3);
        if (finishing())
            _exit(3);
    }
    uint64_t often_had = 0, own = 0;
    int64_t last = 6000 * second;
    loop_until_finish({
        check(!readable(unset) && !readable(far) && !readable(absolute) && !readable(of_boot) && !readable(on_the_wall));
        must(timerfd_gettime(unset, &spec));
        check(spec.it_value.tv_sec == 0 && spec.it_value.tv_nsec == 0 && spec.it_interval.tv_nsec == 0);
        check_due(far, CLOCK_MONOTONIC, mono + 5000 * second);
        check_due(absolute, CLOCK_MONOTONIC, mono + 5000 * second);
        check_due(of_boot, CLOCK_BOOTTIME, boot + 5000 * second);
        check_due(relative_wall, CLOCK_MONOTONIC, mono + 5000 * second);
        check_due(on_the_wall, CLOCK_REALTIME, wall + 5000 * second);
        must(timerfd_gettime(far, &spec));
        int64_t remains = spec.it_value.tv_sec * second + spec.it_value.tv_nsec;
        check(remains < last, "more remains than before");
        last = remains;
        check(readable(expired) && readable(unread));
        often_had += expirations(often);
        check((int64_t)often_had * 5 * ms <= clock_ns(CLOCK_MONOTONIC) - often_since);
        own += expirations(shared);
        check((int64_t)(own + *had) * 2 * ms <= clock_ns(CLOCK_MONOTONIC) - shared_since);
        if (readable(slow)) {
            check(clock_ns(CLOCK_MONOTONIC) - slow_since >= 40 * ms, "early");
            check(expirations(slow) == 1);
            spec = (struct itimerspec){ .it_value = of_ns(40 * ms) };
            slow_since = clock_ns(CLOCK_MONOTONIC);
            must(timerfd_settime(slow, 0, &spec, NULL));
        }
    });
    must(timerfd_gettime(absolute, &spec));
    check(spec.it_interval.tv_sec == 7);
    check(expirations(expired) == 1 && expirations(expired) == 0);
    uint64_t n = expirations(unread);
    check(n >= 1 && (int64_t)n * ms <= clock_ns(CLOCK_MONOTONIC) - unread_since, "%lu", n);
    for (n = 0; n < 3; sched_yield()) {
        n += expirations(unread); /* It goes on. */
    }
    while (!readable(slow))
        sched_yield();
    enough = true;
    must_pthread(pthread_join(waits, NULL));
    wait_exited(child, 3);
    done();
}
