/* Files that tell their owners by signals: a process, a thread, a group, a child; with F_SETSIG and O_ASYNC, and without.
 */
#include "../workload.h"

struct ends {
    int r, w;
};

static struct ends new_pipe(void)
{
    int fds[2];
    must(pipe2(fds, O_NONBLOCK | O_CLOEXEC));
    return (struct ends){ fds[0], fds[1] };
}

static void own(int fd, int type, pid_t pid, int signal, bool on)
{
    must(fcntl(fd, F_SETOWN_EX, &(struct f_owner_ex){ type, pid }));
    must(fcntl(fd, F_SETSIG, signal));
    if (on)
        must(fcntl(fd, F_SETFL, must(fcntl(fd, F_GETFL)) | O_ASYNC));
}

static void check_owned(int fd, int type, pid_t pid, int signal, bool on)
{
    struct f_owner_ex owner;
    must(fcntl(fd, F_GETOWN_EX, &owner));
    check((int)owner.type == type && owner.pid == pid, "%d %d", owner.type, owner.pid);
    check(must(fcntl(fd, F_GETSIG)) == signal);
    int flags = must(fcntl(fd, F_GETFL));
    check(!(flags & O_ASYNC) == !on && flags & O_NONBLOCK, "%#o", flags);
}

/* Something happens, and this signal says so. */
static void ring(struct ends pipe, int signal, bool has_info)
{
    write_exactly(pipe.w, "x", 1);
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, signal);
    siginfo_t info;
    struct timespec soon = { 20, 0 };
    check(must(sigtimedwait(&set, &info, &soon)) == signal);
    if (has_info)
        check(info.si_code == POLL_IN && info.si_fd == pipe.r, "%d %d", info.si_code, info.si_fd);
    char x;
    check(must(read(pipe.r, &x, 1)) == 1);
}

static void nothing_is_pending(void)
{
    sigset_t set;
    must(sigpending(&set));
    for (int i = 1; i < 65; i++)
        check(i == SIGCHLD || sigismember(&set, i) != 1, "signal %d", i);
}

int main(int argc, char **argv)
{
    begin(argc, argv);
    sigset_t all;
    sigfillset(&all);
    must_pthread(pthread_sigmask(SIG_BLOCK, &all, NULL));
    must(setpgid(0, 0));
    struct ends process = new_pipe(), thread = new_pipe(), group = new_pipe(), quiet = new_pipe(), theirs = new_pipe();
    struct ends nobody = new_pipe();
    pid_t child = must(fork());
    if (child == 0) {
        must(setpgid(0, 0));
        struct ends mine = new_pipe();
        own(mine.r, F_OWNER_PID, getppid(), SIGRTMIN + 5, true);
        while (must(fcntl(theirs.r, F_GETSIG)) == 0 || !(must(fcntl(theirs.r, F_GETFL)) & O_ASYNC))
            sched_yield();
        progress_as("child");
        for (;;) {
            ring(theirs, SIGRTMIN + 4, true);
            check_owned(mine.r, F_OWNER_PID, getppid(), SIGRTMIN + 5, true);
            progress();
            sleep_ms(2);
        }
    }
    own(process.r, F_OWNER_PID, getpid(), 0, true);
    own(thread.r, F_OWNER_TID, gettid(), SIGRTMIN + 1, true);
    own(group.r, F_OWNER_PGRP, getpgrp(), SIGRTMIN + 2, true);
    own(quiet.r, F_OWNER_PID, getpid(), SIGUSR1, false);
    own(theirs.r, F_OWNER_PID, child, SIGRTMIN + 4, true);
    must(fcntl(nobody.r, F_SETSIG, SIGUSR2));
    must(fcntl(nobody.r, F_SETFL, O_ASYNC | O_NONBLOCK));
    write_exactly(quiet.w, "waits", 5);
    wait_until_shown("child");
    loop_until_finish({
        nothing_is_pending();
        check_owned(process.r, F_OWNER_PID, getpid(), 0, true);
        check_owned(thread.r, F_OWNER_TID, gettid(), SIGRTMIN + 1, true);
        check_owned(group.r, F_OWNER_PGRP, getpgrp(), SIGRTMIN + 2, true);
        check_owned(quiet.r, F_OWNER_PID, getpid(), SIGUSR1, false);
        check_owned(theirs.r, F_OWNER_PID, child, SIGRTMIN + 4, true);
        check_owned(nobody.r, F_OWNER_TID, 0, SIGUSR2, true);
        ring(process, SIGIO, false);
        ring(thread, SIGRTMIN + 1, true);
        ring(group, SIGRTMIN + 2, true);
    });
    must(fcntl(quiet.r, F_SETFL, O_ASYNC | O_NONBLOCK));
    write_exactly(quiet.w, "x", 1);
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGUSR1);
    check(must(sigtimedwait(&set, NULL, &(struct timespec){ 20, 0 })) == SIGUSR1);
    must(kill(child, SIGKILL));
    int status;
    check(must(waitpid(child, &status, 0)) == child && WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL, "%#x", status);
    done();
}
