/* Zombies: children that ended, by exit and by signal, and wait to be waited for; also one of a child. Their status is read
 * after the checkpoint, and the group of one that led it lives on in a sibling.
 */
#include "../workload.h"

int main(int argc, char **argv)
{
    begin(argc, argv);
    pid_t exited[3], killed[2], child, leader, member;
    for (int i = 0; i < 3; i++)
        if ((exited[i] = must(fork())) == 0)
            _exit(i * 100 + 7);
    for (int i = 0; i < 2; i++)
        if ((killed[i] = must(fork())) == 0) {
            struct rlimit none = { 0, 0 };
            setrlimit(RLIMIT_CORE, &none);
            raise(i ? SIGABRT : SIGKILL);
            _exit(0);
        }
    /* A zombie that leads the group of a living process, and a session leader that is a zombie. */
    if ((leader = must(fork())) == 0) {
        must(setpgid(0, 0));
        _exit(3);
    }
    siginfo_t info;
    must(waitid(P_PID, leader, &info, WEXITED | WNOWAIT));
    int ends[2];
    must(pipe(ends));
    if ((member = must(fork())) == 0) {
        progress_as("member");
        must(setpgid(0, leader));
        while (!finishing()) {
            check(getpgid(0) == leader);
            progress();
            sleep_ms(2);
        }
        check(getpgid(0) == leader);
        _exit(0);
    }
    if ((child = must(fork())) == 0) {
        pid_t grandchild = must(fork());
        if (grandchild == 0)
            _exit(77);
        must(waitid(P_PID, grandchild, &info, WEXITED | WNOWAIT));
        progress_as("child");
        write_exactly(ends[1], "r", 1);
        while (!finishing()) {
            progress();
            sleep_ms(2);
        }
        wait_exited(grandchild, 77);
        _exit(5);
    }
    char byte;
    read_exactly(ends[0], &byte, 1);
    for (int i = 0; i < 3; i++)
        must(waitid(P_PID, exited[i], &info, WEXITED | WNOWAIT));
    for (int i = 0; i < 2; i++)
        must(waitid(P_PID, killed[i], &info, WEXITED | WNOWAIT));
    loop_until_finish({
        memset(&info, 0, sizeof info);
        must(waitid(P_PID, exited[1], &info, WEXITED | WNOWAIT | WNOHANG));
        check(info.si_pid == exited[1] && info.si_status == 107 && info.si_code == CLD_EXITED && info.si_uid == getuid());
        check(kill(exited[0], 0) == 0);
    });
    for (int i = 0; i < 3; i++)
        wait_exited(exited[i], i * 100 + 7);
    for (int i = 0; i < 2; i++) {
        int status;
        check(must(waitpid(killed[i], &status, 0)) == killed[i]);
        check(WIFSIGNALED(status) && WTERMSIG(status) == (i ? SIGABRT : SIGKILL), "%#x", status);
    }
    wait_exited(leader, 3);
    wait_exited(member, 0);
    wait_exited(child, 5);
    check(wait(NULL) == -1 && errno == ECHILD);
    done();
}
