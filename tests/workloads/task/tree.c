/* A tree: children and grandchildren in process groups and sessions of their own; every one knows its pid, parent, group and
 * session, and talks with its parent through pipes. In the end signals to a group reach exactly its members.
 */
#include "../workload.h"

struct ids {
    pid_t pid, parent, group, session;
};
static struct ids before;
static bool is_root;
static volatile sig_atomic_t signals;
static void handle(int number) { signals += number == SIGUSR1; }

static void look(struct ids *ids)
{
    /* The root's parent is bardo after a restart, or whoever adopts the root from it. */
    *ids = (struct ids){ getpid(), is_root ? 0 : getppid(), getpgid(0), getsid(0) };
}

static void compare(void)
{
    struct ids now;
    look(&now);
    check(now.pid == before.pid && now.parent == before.parent && now.group == before.group && now.session == before.session,
          "pid %d parent %d group %d session %d; were %d %d %d %d", now.pid, now.parent, now.group, now.session, before.pid,
          before.parent, before.group, before.session);
}

/* A process that answers each byte with itself plus one, and ends with 'q'. */
static void answer(int in, int out, const char *name)
{
    progress_as(name);
    look(&before);
    for (;;) {
        char byte;
        read_exactly(in, &byte, 1);
        compare();
        if (byte == 'q')
            break;
        byte = byte == 's' ? (char)signals : byte + 1;
        write_exactly(out, &byte, 1);
        progress();
    }
}

struct peer {
    pid_t pid;
    int to, from;
};

static char ask(struct peer *peer, char byte)
{
    write_exactly(peer->to, &byte, 1);
    read_exactly(peer->from, &byte, 1);
    return byte;
}

static struct peer spawn(const char *name, void (*before_answer)(void))
{
    int to[2], from[2];
    must(pipe(to));
    must(pipe(from));
    struct peer peer = { must(fork()), to[1], from[0] };
    if (peer.pid == 0) {
        close(to[1]);
        close(from[0]);
        before_answer();
        answer(to[0], from[1], name);
        int status;
        while (wait(&status) > 0)
            check(status == 0, "a grandchild ended with %#x", status);
        _exit(0);
    }
    close(to[0]);
    close(from[1]);
    return peer;
}

static void plain(void) {}
static void own_group(void) { must(setpgid(0, 0)); }
static void own_session(void) { must(setsid()); }
static int grandchild_to[2];
/* A child with a grandchild in the child's group, and one more in its own session, both blocked until told. */
static void with_grandchildren(void)
{
    must(setpgid(0, 0));
    for (int i = 0; i < 2; i++)
        if (must(fork()) == 0) {
            if (i)
                must(setsid());
            close(grandchild_to[1]);
            progress_as(i ? "grandchild1" : "grandchild0");
            sigset_t set;
            sigemptyset(&set);
            sigaddset(&set, SIGUSR1);
            must(sigprocmask(SIG_BLOCK, &set, NULL)); /* so that it can't interrupt the sleep below */
            look(&before);
            while (!finishing()) {
                compare();
                progress();
                sleep_ms(3);
            }
            char byte;
            read_exactly(grandchild_to[0], &byte, 1); /* finish: the group is signalled, then a byte comes */
            must(sigprocmask(SIG_UNBLOCK, &set, NULL));
            check(signals == (i ? 0 : 1), "grandchild %d got %d signals", i, (int)signals);
            _exit(0);
        }
}

int main(int argc, char **argv)
{
    begin(argc, argv);
    struct sigaction action = { .sa_handler = handle, .sa_flags = SA_RESTART };
    must(sigaction(SIGUSR1, &action, NULL));
    must(pipe(grandchild_to));
    struct peer peers[4] = { spawn("plain", plain), spawn("group", own_group), spawn("session", own_session),
                             spawn("family", with_grandchildren) };
    struct peer joined = { 0 };
    for (int i = 0; i < 4; i++)
        ask(&peers[i], 'a');
    /* One more in the group of another. */
    int to[2], from[2];
    must(pipe(to));
    must(pipe(from));
    joined.pid = must(fork());
    if (joined.pid == 0) {
        close(to[1]);
        must(setpgid(0, peers[1].pid));
        answer(to[0], from[1], "joined");
        _exit(0);
    }
    joined.to = to[1], joined.from = from[0];
    ask(&joined, 'a');
    is_root = true;
    look(&before);
    loop_until_finish({
        compare();
        for (int i = 0; i < 4; i++)
            check(ask(&peers[i], 'a' + i) == 'a' + i + 1);
        check(ask(&joined, 'x') == 'y');
    });
    must(kill(-peers[1].pid, SIGUSR1));
    check(ask(&peers[1], 's') == 1 && ask(&joined, 's') == 1);
    check(ask(&peers[0], 's') == 0 && ask(&peers[2], 's') == 0 && ask(&peers[3], 's') == 0);
    must(kill(-peers[3].pid, SIGUSR1));
    check(ask(&peers[3], 's') == 1);
    write_exactly(grandchild_to[1], "gg", 2);
    for (int i = 0; i < 4; i++) {
        write_exactly(peers[i].to, "q", 1);
        wait_exited(peers[i].pid, 0);
    }
    write_exactly(joined.to, "q", 1);
    wait_exited(joined.pid, 0);
    check(wait(NULL) == -1 && errno == ECHILD);
    done();
}
