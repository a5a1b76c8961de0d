/* Epolls of every sort of entry: level- and edge-triggered, reported and not yet, one-shot that has fired or not, exclusive,
 * nested, with numbers that are closed or lead elsewhere now, shared with a child, and one that a thread waits in.
 */
#include "../workload.h"
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/timerfd.h>

static void add(int epoll, int fd, uint32_t events, uint64_t data)
{
    struct epoll_event event = { .events = events, .data.u64 = data };
    must(epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event));
}

static void modify(int epoll, int fd, uint32_t events, uint64_t data)
{
    struct epoll_event event = { .events = events, .data.u64 = data };
    must(epoll_ctl(epoll, EPOLL_CTL_MOD, fd, &event));
}

static int by_data(const void *a, const void *b)
{
    uint64_t x = ((const struct epoll_event *)a)->data.u64, y = ((const struct epoll_event *)b)->data.u64;
    return x < y ? -1 : x > y;
}

/* What is reported now must be this: pairs of data (ascending) and events. */
static void expect(int line, int epoll, int n, const uint64_t *pairs)
{
    struct epoll_event events[32];
    int got = must(epoll_wait(epoll, events, 32, 0));
    check(got == n, "line %d: %d events of %d, the first for %#lx", line, got, n, got > 0 ? events[0].data.u64 : 0);
    qsort(events, got, sizeof *events, by_data);
    for (int i = 0; i < n; i++)
        check(events[i].data.u64 == pairs[2 * i] && events[i].events == pairs[2 * i + 1], "line %d: %#lx has %#x", line,
              events[i].data.u64, events[i].events);
}

#define EXPECT(epoll, ...)                                                                                                    \
    expect(__LINE__, epoll, sizeof((uint64_t[]){ __VA_ARGS__ }) / 16, (uint64_t[]){ __VA_ARGS__ })
#define NOTHING(epoll) expect(__LINE__, epoll, 0, NULL)

struct ends {
    int r, w;
};

static struct ends new_pipe(void)
{
    int fds[2];
    must(pipe2(fds, O_NONBLOCK | O_CLOEXEC));
    return (struct ends){ fds[0], fds[1] };
}

static struct ends full_pipe(const char *text)
{
    struct ends ends = new_pipe();
    write_exactly(ends.w, text, strlen(text));
    return ends;
}

static void drain(int fd, const char *text)
{
    char got[16];
    ssize_t n = must(read(fd, got, sizeof got));
    check((size_t)n == strlen(text) && memcmp(got, text, n) == 0, "%.*s", (int)n, got);
}

static int waited_in;
static atomic_long reported;
static atomic_bool enough;

/* Waits for ever, and for a time that never passes. */
static void *waiter(void *ignored)
{
    (void)ignored;
    struct epoll_event event;
    while (!enough) {
        check(must(uninterrupted(epoll_wait(waited_in, &event, 1, reported % 2 ? -1 : 1000000))) == 1 && event.data.u64 == 0xabc);
        uint64_t n;
        check(must(read(event.data.u64 == 0xabc ? waited_in + 1 : -1, &n, 8)) == 8);
        reported++;
    }
    return NULL;
}

int main(int argc, char **argv)
{
    begin(argc, argv);
    /* Nothing waits in this one: what was reported once isn't again. */
    int quiet = must(epoll_create1(EPOLL_CLOEXEC));
    struct ends told = full_pipe("told"), empty = new_pipe();
    int writable = must(eventfd(0, EFD_NONBLOCK));
    add(quiet, told.r, EPOLLIN | EPOLLET | EPOLLRDHUP, 1);
    add(quiet, told.w, EPOLLOUT | EPOLLET, 2);
    add(quiet, writable, EPOLLIN | EPOLLOUT | EPOLLET, 3);
    add(quiet, empty.r, EPOLLIN | EPOLLET, UINT64_MAX);
    EXPECT(quiet, 1, EPOLLIN, 2, EPOLLOUT, 3, EPOLLOUT);
    NOTHING(quiet);
    /* What is edge-triggered and wasn't reported waits. */
    int waiting = must(epoll_create1(0));
    struct ends untold = full_pipe("untold"), calm = new_pipe();
    add(waiting, untold.r, EPOLLIN | EPOLLET, 0x123456789abcdef0);
    add(waiting, calm.r, EPOLLIN | EPOLLET, 5);
    /* Level-triggered ones come back. */
    int often = must(epoll_create1(0));
    struct ends full = full_pipe("full");
    add(often, full.r, EPOLLIN | EPOLLPRI, 6);
    add(often, full.w, EPOLLOUT | EPOLLEXCLUSIVE, 7);
    add(often, empty.r, EPOLLIN | EPOLLEXCLUSIVE | EPOLLET, 8);
    add(often, calm.r, 0, 9);
    /* One-shots: not fired; fired with what they fired for still there, gone, and with the other end gone later. */
    int once = must(epoll_create1(0));
    struct ends still = full_pipe("still"), gone = full_pipe("gone"), hung = full_pipe("hung"), armed = new_pipe();
    int count = must(eventfd(1, EFD_NONBLOCK)), tick = must(timerfd_create(CLOCK_MONOTONIC, 0));
    must(timerfd_settime(tick, 0, &(struct itimerspec){ .it_value.tv_nsec = 1 }, NULL));
    while (poll(&(struct pollfd){ tick, POLLIN, 0 }, 1, -1) != 1)
        ;
    add(once, still.r, EPOLLIN | EPOLLONESHOT, 10);
    add(once, gone.r, EPOLLIN | EPOLLONESHOT | EPOLLET, 11);
    add(once, hung.r, EPOLLIN | EPOLLONESHOT, 12);
    add(once, armed.r, EPOLLIN | EPOLLONESHOT, 13);
    add(once, count, EPOLLIN | EPOLLONESHOT, 14);
    add(once, tick, EPOLLIN | EPOLLONESHOT, 15);
    EXPECT(once, 10, EPOLLIN, 11, EPOLLIN, 12, EPOLLIN, 14, EPOLLIN, 15, EPOLLIN);
    drain(gone.r, "gone");
    drain(hung.r, "hung");
    uint64_t n;
    check(read(tick, &n, 8) == 8 && n == 1);
    /* Numbers that are closed, and that lead elsewhere now, twice over. */
    int lives = must(epoll_create1(0));
    struct ends first = full_pipe("first"), second = full_pipe("second"), third = new_pipe();
    must(dup2(first.r, 500));
    add(lives, 500, EPOLLIN, 20);
    must(dup2(second.r, 500));
    add(lives, 500, EPOLLIN, 21);
    must(close(500));
    must(dup2(third.r, 501));
    add(lives, 501, EPOLLIN, 22);
    must(dup2(writable, 501));
    /* Nested three deep, and one that its watcher was added to before it was. */
    int outer = must(epoll_create1(0)), middle = must(epoll_create1(0)), inner = must(epoll_create1(0));
    add(outer, middle, EPOLLIN, 30);
    add(middle, inner, EPOLLIN | EPOLLET, 31);
    add(outer, quiet, EPOLLIN, 32);
    add(outer, often, EPOLLIN, 33);
    add(inner, third.r, EPOLLIN | EPOLLET, 34);
    /* One that a thread waits in. */
    waited_in = must(fcntl(must(epoll_create1(0)), F_DUPFD, 600));
    int bell = must(fcntl(must(eventfd(0, 0)), F_DUPFD, 601));
    check(bell == waited_in + 1);
    add(waited_in, bell, EPOLLIN, 0xabc);
    pthread_t waits;
    must_pthread(pthread_create(&waits, NULL, waiter, NULL));
    /* A child has them too; it alone has what two entries belong to. */
    struct ends theirs = full_pipe("theirs");
    add(lives, theirs.r, EPOLLIN, 23);
    pid_t child = must(fork());
    if (child == 0) {
        must(close(waited_in));
        must(close(hung.w));
        progress_as("child");
        while (!finishing()) {
            NOTHING(quiet);
            progress();
            sleep_ms(3);
        }
        pause();
    }
    must(close(theirs.r));
    must(close(theirs.w));
    int many = must(epoll_create1(0));
    for (int i = 0; i < 300; i++)
        add(many, must(fcntl(i % 2 ? first.w : empty.r, F_DUPFD, 1000)), i % 2 ? EPOLLOUT | EPOLLET : EPOLLIN, i);
    struct epoll_event events[300];
    check(must(epoll_wait(many, events, 300, 0)) == 150);
    uint64_t rung = 0;
    wait_until_shown("child");
    loop_until_finish({
        NOTHING(quiet);
        NOTHING(once);
        NOTHING(inner);
        NOTHING(middle);
        NOTHING(many);
        EXPECT(often, 6, EPOLLIN, 7, EPOLLOUT);
        EXPECT(lives, 20, EPOLLIN, 21, EPOLLIN, 23, EPOLLIN);
        EXPECT(outer, 33, EPOLLIN);
        n = 1;
        must(write(bell, &n, 8));
        rung++;
        while ((uint64_t)reported < rung)
            sched_yield();
    });
    /* It is as alive as it was. */
    EXPECT(waiting, 0x123456789abcdef0, EPOLLIN);
    NOTHING(waiting);
    write_exactly(calm.w, "x", 1);
    EXPECT(waiting, 5, EPOLLIN);
    write_exactly(told.w, "x", 1);
    EXPECT(quiet, 1, EPOLLIN);
    write_exactly(empty.w, "x", 1);
    EXPECT(quiet, UINT64_MAX, EPOLLIN);
    EXPECT(often, 6, EPOLLIN, 7, EPOLLOUT, 8, EPOLLIN);
    EXPECT(often, 6, EPOLLIN, 7, EPOLLOUT);
    must(close(hung.w));
    NOTHING(once);
    write_exactly(gone.w, "x", 1);
    write_exactly(armed.w, "x", 1);
    EXPECT(once, 13, EPOLLIN);
    NOTHING(once);
    modify(once, hung.r, EPOLLIN | EPOLLONESHOT, 112);
    modify(once, still.r, EPOLLIN | EPOLLONESHOT, 110);
    modify(once, gone.r, EPOLLIN | EPOLLONESHOT | EPOLLET, 111);
    modify(once, tick, EPOLLIN | EPOLLONESHOT, 115);
    EXPECT(once, 110, EPOLLIN, 111, EPOLLIN, 112, EPOLLHUP);
    write_exactly(third.w, "x", 1);
    EXPECT(lives, 20, EPOLLIN, 21, EPOLLIN, 22, EPOLLIN, 23, EPOLLIN);
    EXPECT(outer, 30, EPOLLIN, 33, EPOLLIN);
    EXPECT(middle, 31, EPOLLIN);
    EXPECT(inner, 34, EPOLLIN);
    NOTHING(middle);
    /* The entry of a number that leads elsewhere can't be named. */
    check(epoll_ctl(lives, EPOLL_CTL_DEL, 501, NULL) == -1 && errno == ENOENT);
    must(dup2(third.r, 501));
    must(epoll_ctl(lives, EPOLL_CTL_DEL, 501, NULL));
    must(dup2(second.r, 500));
    must(epoll_ctl(lives, EPOLL_CTL_DEL, 500, NULL));
    EXPECT(lives, 20, EPOLLIN, 23, EPOLLIN);
    /* With its last descriptor an entry goes. */
    must(kill(child, SIGKILL));
    int status;
    check(must(waitpid(child, &status, 0)) == child && WIFSIGNALED(status));
    EXPECT(lives, 20, EPOLLIN);
    enough = true;
    n = 1;
    must(write(bell, &n, 8));
    must_pthread(pthread_join(waits, NULL));
    done();
}
