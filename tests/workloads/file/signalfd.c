/* Signals that are read: pending for the process and for a thread, a mask that is changed, a thread that waits for one, a child
 * that shares the open file and reads its own, and an epoll that hears of them.
 */
#include "../workload.h"
#include <sys/epoll.h>
#include <sys/signalfd.h>

static sigset_t set_of(int one, int other)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, one);
    sigaddset(&set, other);
    return set;
}

static struct signalfd_siginfo take(int fd)
{
    struct signalfd_siginfo info;
    check(must(read(fd, &info, sizeof info)) == sizeof info);
    return info;
}

static int waited_for;
static atomic_int heard, is_there;

static void *waiter(void *ignored)
{
    (void)ignored;
    for (;;) {
        is_there = gettid();
        struct signalfd_siginfo info = take(waited_for);
        if (info.ssi_int == -1)
            return NULL;
        check(info.ssi_signo == (uint32_t)SIGRTMIN + 3 && info.ssi_int == heard + 1, "%d after %d", info.ssi_int, heard);
        heard++;
    }
}

int main(int argc, char **argv)
{
    begin(argc, argv);
    sigset_t all;
    sigfillset(&all);
    must_pthread(pthread_sigmask(SIG_BLOCK, &all, NULL));
    sigset_t some = set_of(SIGRTMIN, SIGUSR1);
    int pending = must(signalfd(-1, &some, SFD_NONBLOCK | SFD_CLOEXEC));
    for (int i = 0; i < 3; i++)
        must(sigqueue(getpid(), SIGRTMIN, (union sigval){ .sival_int = 40 + i }));
    must(kill(getpid(), SIGUSR1));
    some = set_of(SIGRTMIN + 1, SIGRTMIN + 2);
    int changed = must(signalfd(-1, &some, 0));
    some = set_of(SIGRTMIN + 2, SIGHUP);
    must(signalfd(changed, &some, 0));
    must(fcntl(changed, F_SETFL, O_NONBLOCK));
    some = set_of(SIGRTMIN + 3, SIGRTMIN + 3);
    waited_for = must(signalfd(-1, &some, 0));
    pthread_t waits;
    must_pthread(pthread_create(&waits, NULL, waiter, NULL));
    int epoll = must(epoll_create1(EPOLL_CLOEXEC)), edges = must(epoll_create1(EPOLL_CLOEXEC)), outer = must(epoll_create1(0));
    pid_t child = must(fork());
    if (child == 0) {
        must(close(epoll));
        must(close(edges));
        must(close(outer));
        some = set_of(SIGWINCH, SIGHUP);
        int own = must(epoll_create1(0));
        must(epoll_ctl(own, EPOLL_CTL_ADD, changed, &(struct epoll_event){ .events = EPOLLIN, .data.u64 = 7 }));
        progress_as("child");
        for (int i = 0;; i++) {
            struct epoll_event event;
            check(must(epoll_wait(own, &event, 1, 0)) == 0);
            check(read(changed, &event, 8) == -1);
            must(sigqueue(getpid(), SIGRTMIN + 2, (union sigval){ .sival_int = i }));
            check(must(epoll_wait(own, &event, 1, -1)) == 1 && event.data.u64 == 7);
            struct signalfd_siginfo info = take(changed);
            check(info.ssi_pid == (uint32_t)getpid() && info.ssi_int == i, "%d, not %d", info.ssi_int, i);
            progress();
            sleep_ms(2);
        }
    }
    must(epoll_ctl(epoll, EPOLL_CTL_ADD, pending, &(struct epoll_event){ .events = EPOLLIN, .data.u64 = 1 }));
    must(epoll_ctl(epoll, EPOLL_CTL_ADD, changed, &(struct epoll_event){ .events = EPOLLIN, .data.u64 = 2 }));
    must(epoll_ctl(edges, EPOLL_CTL_ADD, changed, &(struct epoll_event){ .events = EPOLLIN | EPOLLET, .data.u64 = 3 }));
    must(epoll_ctl(outer, EPOLL_CTL_ADD, epoll, &(struct epoll_event){ .events = EPOLLIN, .data.u64 = 4 }));
    struct epoll_event events[4];
    int sent = 0;
    wait_until_shown("child");
    loop_until_finish({
        check(must(epoll_wait(epoll, events, 4, 0)) == 1 && events[0].data.u64 == 1);
        check(must(epoll_wait(outer, events, 4, 0)) == 1 && events[0].data.u64 == 4);
        check(must(epoll_wait(edges, events, 4, 0)) == 0);
        must(sigqueue(getpid(), SIGRTMIN + 3, (union sigval){ .sival_int = ++sent }));
        while (heard < sent)
            sched_yield();
    });
    must(kill(getpid(), SIGHUP));
    check(must(epoll_wait(edges, events, 4, 0)) == 1 && events[0].data.u64 == 3);
    check(must(epoll_wait(epoll, events, 4, 0)) == 2);
    check(take(changed).ssi_signo == SIGHUP);
    struct signalfd_siginfo info = take(pending);
    check(info.ssi_signo == SIGUSR1 && info.ssi_code == SI_USER && info.ssi_pid == (uint32_t)getpid());
    for (int i = 0; i < 3; i++)
        check((info = take(pending)).ssi_int == 40 + i, "%d is number %d", info.ssi_int, i);
    check(read(pending, &info, sizeof info) == -1 && errno == EAGAIN);
    must(sigqueue(getpid(), SIGRTMIN + 3, (union sigval){ .sival_int = -1 }));
    must_pthread(pthread_join(waits, NULL));
    must(kill(child, SIGKILL));
    int status;
    check(must(waitpid(child, &status, 0)) == child && WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL, "%#x", status);
    done();
}
