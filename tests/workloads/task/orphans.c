/* Daemons and other orphans below a child subreaper: in sessions and groups whose leaders are dead; in the session of a zombie
 * that somebody else has; in one dead session, but with two parents; and a leader of a group who has gone to another one.
 * Everyone knows its pid, parent, group and session all the time.
 */
#include "../workload.h"

static int news[2];

/* Waits for the end of whoever is to be an orphan's dead parent, then looks at itself, goes on, and ends. */
static _Noreturn void live(const char *name, pid_t dead, pid_t parent, pid_t group, pid_t session)
{
    while (dead && getppid() == dead)
        sleep_ms(1);
    progress_as(name);
    write_exactly(news[1], "n", 1);
    for (bool last = false; !last; progress(), sleep_ms(2)) {
        last = finishing();
        check(getppid() == parent && getpgid(0) == group && getsid(0) == session,
              "%s: parent %d group %d session %d; were %d %d %d", name, getppid(), getpgid(0), getsid(0), parent, group, session);
    }
    int status, ended = 0;
    for (; wait(&status) > 0; ended++)
        check(WIFEXITED(status) && WEXITSTATUS(status) < 2, "%s: a child ended with %#x", name, status);
    _exit(ended);
}

static void hear(int count)
{
    char byte;
    while (count--)
        read_exactly(news[0], &byte, 1);
}

/* A daemon as the textbooks have it: it, its children, and one of those in a session of its own. */
static void daemon_and_family(pid_t root)
{
    pid_t leader = must(fork());
    if (leader == 0) {
        leader = must(setsid());
        if (must(fork()) == 0) {
            pid_t daemon = getpid();
            if (must(fork()) == 0)
                live("daemon.child", 0, daemon, leader, leader);
            if (must(fork()) == 0) {
                pid_t own = getpid();
                if (must(fork()) == 0) /* born before its parent makes a session */
                    live("daemon.early", 0, own, leader, leader);
                must(setsid());
                live("daemon.session", 0, daemon, own, own);
            }
            live("daemon", leader, root, leader, leader);
        }
        hear(3); /* the root waits for us: nobody else reads now */
        _exit(0);
    }
    /* The daemon itself speaks when its parent is dead. */
    wait_exited(leader, 0);
}

/* What a shell leaves behind whose terminal is gone: jobs in groups, one of which has lost its leader. */
static void jobs_without_a_shell(pid_t root)
{
    pid_t shell = must(fork());
    if (shell == 0) {
        shell = must(setsid());
        pid_t job = must(fork());
        if (job == 0) {
            job = getpid();
            must(setpgid(0, 0));
            live("job", shell, root, job, shell);
        }
        must(setpgid(job, job));
        if (must(fork()) == 0) {
            must(setpgid(0, job));
            live("job.member", shell, root, job, shell);
        }
        pid_t dead = must(fork());
        if (dead == 0) {
            must(setpgid(0, 0));
            pause();
        }
        must(setpgid(dead, dead));
        for (int i = 0; i < 2; i++) {
            pid_t member = must(fork());
            if (member == 0) {
                while (getpgid(0) != dead)
                    sleep_ms(1);
                live(i ? "headless1" : "headless0", shell, root, dead, shell);
            }
            must(setpgid(member, dead));
        }
        must(kill(dead, SIGKILL));
        must(waitpid(dead, NULL, 0));
        _exit(0);
    }
    wait_exited(shell, 0);
    hear(4);
}

/* The session's leader is a zombie that its parent doesn't fetch; what it has left behind is the root's. */
static void zombie_leader(pid_t root)
{
    pid_t middle = must(fork());
    if (middle == 0) {
        pid_t zombie = must(fork());
        if (zombie == 0) {
            pid_t leader = must(setsid());
            if (must(fork()) == 0)
                live("of.zombie", leader, root, leader, leader);
            _exit(0);
        }
        siginfo_t info;
        must(waitid(P_PID, zombie, &info, WEXITED | WNOWAIT));
        live("middle", 0, root, getpgid(0), getsid(0));
    }
    hear(2);
}

/* Two of one dead session, of which one went to a child of the root, the other to the root. */
static void two_parents(pid_t root)
{
    if (must(fork()) == 0) {
        pid_t lower = getpid();
        must(prctl(PR_SET_CHILD_SUBREAPER, 1));
        int to_root = news[1];
        must(pipe(news)); /* for us alone */
        pid_t leader = must(fork());
        if (leader == 0) {
            leader = must(setsid());
            if (must(fork()) == 0)
                live("lower.orphan", leader, lower, leader, leader);
            if (must(fork()) == 0) {
                pid_t between = getpid();
                if (must(fork()) == 0) {
                    news[1] = to_root;
                    live("upper.orphan", between, root, leader, leader);
                }
                write_exactly(news[1], "n", 1);
                pause();
            }
            _exit(0);
        }
        wait_exited(leader, 0);
        hear(2);
        must(prctl(PR_SET_CHILD_SUBREAPER, 0));
        /* The orphans came to us in the order of their birth. */
        char path[64], list[256] = "";
        snprintf(path, sizeof path, "/proc/self/task/%d/children", gettid());
        slurp(path, list, sizeof list - 1);
        char *second = strchr(list, ' ');
        check(second != NULL, "children: %s", list);
        pid_t between = atoi(second);
        must(kill(between, SIGKILL));
        check(must(waitpid(between, NULL, 0)) == between);
        news[1] = to_root;
        live("lower", 0, root, getpgid(0), getsid(0));
    }
    hear(2);
}

/* One leads a group that it isn't in any more, and is in that of a sibling. */
static void gone_elsewhere(pid_t root)
{
    pid_t elsewhere = must(fork());
    if (elsewhere == 0) {
        must(setpgid(0, 0));
        live("elsewhere", 0, root, getpid(), getsid(0));
    }
    hear(1);
    pid_t leader = must(fork());
    if (leader == 0) {
        leader = getpid();
        must(setpgid(0, 0));
        if (must(fork()) == 0)
            live("left.behind", 0, leader, leader, getsid(0));
        must(setpgid(0, elsewhere));
        live("leader.gone", 0, root, elsewhere, getsid(0));
    }
    hear(2);
}

int main(int argc, char **argv)
{
    begin(argc, argv);
    must(pipe(news));
    must(prctl(PR_SET_CHILD_SUBREAPER, 1));
    pid_t root = getpid();
    daemon_and_family(root);
    hear(1);
    jobs_without_a_shell(root);
    zombie_leader(root);
    two_parents(root);
    gone_elsewhere(root);
    loop_until_finish({
        int reaps = 0;
        must(prctl(PR_GET_CHILD_SUBREAPER, &reaps));
        check(reaps == 1);
    });
    /* The daemon has two children, the middle one has the zombie, the lower one an orphan, and the group's leader a child;
     * the one in a session of its own has a child, which is told by its own status. */
    int status, ends[3] = { 0 };
    for (; wait(&status) > 0;) {
        check(WIFEXITED(status) && WEXITSTATUS(status) < 3, "a child ended with %#x", status);
        ends[WEXITSTATUS(status)]++;
    }
    check(errno == ECHILD && ends[0] == 7 && ends[1] == 3 && ends[2] == 1, "%d %d %d", ends[0], ends[1], ends[2]);
    done();
}
