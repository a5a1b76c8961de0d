/* Processes held by descriptors: oneself, a child that lives, a zombie, one that is gone, one's parent; at several numbers, and
 * in an epoll. No other process is ever meant.
 */
#include "../workload.h"
#include <sys/epoll.h>

static int pidfd_open_as(pid_t pid, unsigned flags)
{
    return must(syscall(SYS_pidfd_open, pid, flags));
}

static bool has_ended(int pidfd)
{
    return must(poll(&(struct pollfd){ pidfd, POLLIN, 0 }, 1, 0)) == 1;
}

static int try_signal(int pidfd, int signal)
{
    return syscall(SYS_pidfd_send_signal, pidfd, signal, NULL, 0);
}

/* The pid that the kernel shows for it. */
static int shown(int pidfd)
{
    char path[64], text[1024];
    snprintf(path, sizeof path, "/proc/self/fdinfo/%d", pidfd);
    text[slurp(path, text, sizeof text - 1)] = 0;
    const char *line = strstr(text, "\nPid:");
    check(line, "%s", text);
    return atoi(line + 5);
}

int main(int argc, char **argv)
{
    begin(argc, argv);
    int self = pidfd_open_as(getpid(), O_NONBLOCK);
    pid_t child = must(fork());
    if (child == 0) {
        must(close(self));
        int parent = must(fcntl(pidfd_open_as(getppid(), 0), F_DUPFD, 200));
        progress_as("child");
        for (;;) {
            check(!has_ended(parent) && try_signal(parent, 0) == 0 && shown(parent) == getppid());
            progress();
            sleep_ms(2);
        }
    }
    pid_t zombie = must(fork());
    if (zombie == 0)
        _exit(42);
    pid_t gone = must(fork());
    if (gone == 0)
        _exit(43);
    siginfo_t info;
    must(waitid(P_PID, zombie, &info, WEXITED | WNOWAIT));
    must(waitid(P_PID, gone, &info, WEXITED | WNOWAIT));
    int living = pidfd_open_as(child, 0), dead = pidfd_open_as(zombie, 0), lost = pidfd_open_as(gone, 0);
    wait_exited(gone, 43);
    int again = must(dup2(living, 100)), other = pidfd_open_as(child, 0);
    must(fcntl(living, F_SETFD, 0));
    int high = must(dup2(dead, 300));
    must(close(dead));
    int epoll = must(epoll_create1(0));
    must(epoll_ctl(epoll, EPOLL_CTL_ADD, living, &(struct epoll_event){ .events = EPOLLIN, .data.u64 = 1 }));
    must(epoll_ctl(epoll, EPOLL_CTL_ADD, high, &(struct epoll_event){ .events = EPOLLIN, .data.u64 = 2 }));
    must(epoll_ctl(epoll, EPOLL_CTL_ADD, again, &(struct epoll_event){ .events = EPOLLIN | EPOLLET, .data.u64 = 3 }));
    struct epoll_event events[4];
    wait_until_shown("child");
    loop_until_finish({
        check(!has_ended(self) && !has_ended(living) && !has_ended(again) && !has_ended(other));
        check(has_ended(high) && has_ended(lost));
        check(shown(self) == getpid() && shown(living) == child && shown(again) == child && shown(other) == child);
        check(shown(high) == zombie && shown(lost) == -1);
        check(try_signal(self, 0) == 0 && try_signal(living, 0) == 0 && try_signal(high, 0) == 0);
        check(try_signal(lost, 0) == -1 && errno == ESRCH);
        check(must(fcntl(self, F_GETFL)) & O_NONBLOCK && !(must(fcntl(living, F_GETFL)) & O_NONBLOCK));
        check(must(fcntl(living, F_GETFD)) == 0 && must(fcntl(other, F_GETFD)) == FD_CLOEXEC);
        check(must(epoll_wait(epoll, events, 4, 0)) == 1 && events[0].data.u64 == 2);
    });
    check(waitid(P_PIDFD, high, &info, WEXITED) == 0 && info.si_pid == zombie && info.si_status == 42);
    /* The status flags of an open file are those of all its descriptors. */
    must(fcntl(again, F_SETFL, O_NONBLOCK));
    check(must(fcntl(living, F_GETFL)) & O_NONBLOCK && !(must(fcntl(other, F_GETFL)) & O_NONBLOCK));
    must(try_signal(other, SIGKILL));
    must(fcntl(living, F_SETFL, 0));
    check(must(waitid(P_PIDFD, living, &info, WEXITED)) == 0 && info.si_pid == child && info.si_status == SIGKILL);
    check(must(epoll_wait(epoll, events, 4, 0)) == 3);
    done();
}
