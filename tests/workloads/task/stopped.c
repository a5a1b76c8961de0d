/* A stopped child: it stays stopped, its parent may not have been told twice, and SIGCONT makes it go on. Another child's stop
 * has not been waited for yet: that is still there to be waited for.
 */
#include "../workload.h"

static volatile sig_atomic_t continued;
static void handle(int number) { continued += number == SIGCONT; }

static char state_of(pid_t pid)
{
    char path[64], text[512];
    snprintf(path, sizeof path, "/proc/%d/stat", pid);
    text[slurp(path, text, sizeof text - 1)] = 0;
    return strrchr(text, ')')[2];
}

/* While a tracer looks at it, it is a small t; when one lets go, the kernel wakes it for a moment, to find its stop again. */
static bool stands(pid_t pid)
{
    char state = state_of(pid);
    while (state == 'R' || state == 'S') {
        sched_yield();
        state = state_of(pid);
    }
    return state == 'T' || state == 't';
}

int main(int argc, char **argv)
{
    begin(argc, argv);
    struct sigaction action = { .sa_handler = handle, .sa_flags = SA_RESTART };
    must(sigaction(SIGCONT, &action, NULL));
    pid_t waited, unwaited;
    if ((waited = must(fork())) == 0) {
        must(raise(SIGSTOP));
        check(continued == 1, "continued %d times", (int)continued);
        _exit(11);
    }
    if ((unwaited = must(fork())) == 0) {
        must(raise(SIGTSTP));
        check(continued == 1, "continued %d times", (int)continued);
        _exit(12);
    }
    int status;
    check(must(waitpid(waited, &status, WUNTRACED)) == waited);
    check(WIFSTOPPED(status) && WSTOPSIG(status) == SIGSTOP);
    siginfo_t info;
    must(waitid(P_PID, unwaited, &info, WSTOPPED | WNOWAIT));
    loop_until_finish({
        check(stands(waited) && stands(unwaited), "%c %c", state_of(waited), state_of(unwaited));
        check(waitpid(waited, &status, WUNTRACED | WNOHANG) == 0, "a stop is told a second time");
    });
    check(must(waitpid(unwaited, &status, WUNTRACED | WNOHANG)) == unwaited, "a stop that wasn't waited for is lost");
    check(WIFSTOPPED(status) && WSTOPSIG(status) == SIGTSTP, "%#x", status);
    must(kill(waited, SIGCONT));
    must(kill(unwaited, SIGCONT));
    wait_exited(waited, 11);
    wait_exited(unwaited, 12);
    done();
}
