/* Processes that share their memory: a chain of two below the root, of whom the second shares the handlers, descriptors and
 * directory of the first too and leads a session of its own; one that job control has stopped; and one that has a copy, of the
 * first in the chain. Each member changes the memory round by round, maps and unmaps parts of it, and looks at what it shares and
 * what it doesn't. In the end whoever waits for a member is woken by its word in memory, which the kernel clears
 * (CLONE_CHILD_CLEARTID).
 *
 * Such a process can't have the thread-local memory of the one that made it. So a thread makes it, and leaves its own to it: until
 * the process is gone the thread makes one raw call and touches nothing.
 */
#include "../workload.h"

enum { ROOT, FIRST, SECOND, MEMBERS, STOPPED = MEMBERS, ALL };
enum { BLOCK = 3 * 4096 };

struct member {
    int me;
    long flags;
    pid_t pid, parent, session;
    _Atomic int tid;
    pthread_t bearer;
    char path[640];
    long shown;
    char *stack;
};
static struct member members[ALL] = { [ROOT] = { ROOT },
                                      [FIRST] = { FIRST, CLONE_VM },
                                      [SECOND] = { SECOND, CLONE_VM | CLONE_SIGHAND | CLONE_FILES | CLONE_FS },
                                      [STOPPED] = { STOPPED, CLONE_VM | CLONE_FILES } };

/* What all members know. */
static _Atomic int turn, end, born_all;
/* What the one with a copy knows too. */
static _Atomic int *over;
static char *mapped;
static int moving_fd, held;
static char directories[2][400];

/* Handled by the root, and by the chain. */
static _Atomic int root_heard, chain_heard;
static void root_hears(int signal)
{
    (void)signal;
    root_heard++;
}
static void chain_hears(int signal)
{
    (void)signal;
    chain_heard++;
}

static void show(struct member *member)
{
    if (!*member->path) {
        static const char *const names[] = { "root", "first", "second", "stopped" };
        snprintf(member->path, sizeof member->path, "%s/progress.%s", workload_dir, names[member->me]);
        close(must(open(member->path, O_WRONLY | O_CREAT | O_CLOEXEC, 0644)));
    }
    must(truncate(member->path, ++member->shown));
}

static bool ignores_usr2(void)
{
    struct sigaction now;
    must(sigaction(SIGUSR2, NULL, &now));
    return now.sa_handler == SIG_IGN;
}

static void look(int me, int round)
{
    bool chain = me != ROOT;
    struct member *member = &members[me];
    check(getpid() == member->pid && getppid() == member->parent && getsid(0) == member->session, "member %d", me);
    check_filled(mapped, BLOCK, round, "what another one has mapped");
    /* Handlers, descriptors and directory are those of the chain. */
    check(ignores_usr2() == (chain && round % 2), "member %d, round %d", me, round);
    check(fcntl(moving_fd, F_GETFD) == (chain ? 0 : -1), "member %d, round %d, fd %d", me, round, moving_fd);
    char here[400];
    check(getcwd(here, sizeof here) != NULL && strcmp(here, directories[chain ? round % 2 : 0]) == 0, "member %d in %.300s", me, here);
    int heard = chain ? chain_heard : root_heard, other = chain ? root_heard : chain_heard;
    /* What is sent to the process may be handled by another thread, and later. */
    must(syscall(SYS_tgkill, getpid(), gettid(), SIGUSR1));
    check((chain ? chain_heard : root_heard) == heard + 1 && (chain ? root_heard : chain_heard) == other);
}

/* One of them maps what all see. */
static void change_memory(int round)
{
    must(munmap(mapped, BLOCK));
    mapped = mmap(NULL, BLOCK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    check(mapped != MAP_FAILED);
    fill(mapped, BLOCK, round);
}

/* One of the chain changes what only the chain shares. */
static void change_chain(int round)
{
    must(close(moving_fd));
    moving_fd = must(fcntl(held, F_DUPFD, 60 + round % 50));
    must(chdir(directories[round % 2]));
    check(signal(SIGUSR2, round % 2 ? SIG_IGN : SIG_DFL) != SIG_ERR);
}

static void take_turn(int me)
{
    int now = turn, step = now % (MEMBERS + 2), round = now / (MEMBERS + 2);
    if (step == me)
        look(me, round);
    else if (step == MEMBERS && me == round % MEMBERS)
        change_memory(round + 1);
    else if (step == MEMBERS + 1 && me == FIRST + round % 2)
        change_chain(round + 1);
    else
        return;
    turn = now + 1;
}

static void bear(struct member *member);

/* Has the memory as it was when it was born, and its descriptors. */
static pid_t with_a_copy(void)
{
    pid_t pid = must(fork());
    if (pid)
        return pid;
    fill(mapped, BLOCK, 4711);
    int as_it_was = turn;
    progress_as("copy");
    while (!*over) {
        check(turn == as_it_was);
        check_filled(mapped, BLOCK, 4711, "a copy");
        progress();
        usleep(500);
    }
    _exit(0);
}

static int run(void *given)
{
    struct member *member = given;
    member->pid = getpid();
    member->parent = getppid();
    if (member->me == SECOND)
        must(setsid());
    member->session = getsid(0);
    if (member->me == STOPPED) {
        must(kill(getpid(), SIGSTOP));
        check(end);
        _exit(STOPPED);
    }
    pid_t copy = 0;
    if (member->me == FIRST) {
        check(signal(SIGUSR1, chain_hears) != SIG_ERR);
        moving_fd = must(fcntl(held, F_DUPFD, 60));
        bear(&members[SECOND]);
        copy = with_a_copy();
    }
    show(member);
    while (!born_all)
        usleep(500);
    while (!end) {
        take_turn(member->me);
        show(member);
        usleep(500);
    }
    if (copy) {
        wait_exited(copy, 0);
        must_pthread(pthread_join(members[SECOND].bearer, NULL));
    }
    _exit(member->me);
}

/* The thread that makes a member, and leaves it what is thread-local until it is gone. */
static void *bearer(void *given)
{
    struct member *member = given;
    pid_t pid = must(clone(run, member->stack, member->flags | CLONE_CHILD_SETTID | CLONE_CHILD_CLEARTID | SIGCHLD, member, NULL,
                           NULL, &member->tid));
    for (int tid; (tid = atomic_load(&member->tid)) != 0;) {
        register long no_timeout asm("r10") = 0;
        long result;
        asm volatile("syscall"
                     : "=a"(result)
                     : "0"(SYS_futex), "D"(&member->tid), "S"(0 /* FUTEX_WAIT, of any process */), "d"((long)tid), "r"(no_timeout)
                     : "rcx", "r11", "memory");
    }
    wait_exited(pid, member->me);
    return NULL;
}

static void bear(struct member *member)
{
    size_t size = 256 << 10;
    member->stack = (char *)mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_STACK, -1, 0) + size;
    atomic_store(&member->tid, -1);
    must_pthread(pthread_create(&member->bearer, NULL, bearer, member));
}

int main(int argc, char **argv)
{
    begin(argc, argv);
    for (int i = 0; i < 2; i++) {
        strncpy(directories[i], data_path(i ? "second" : "first"), sizeof directories[i] - 1);
        must(mkdir(directories[i], 0755));
    }
    must(chdir(directories[0]));
    check(signal(SIGUSR1, root_hears) != SIG_ERR);
    held = must(open("/dev/null", O_RDWR));
    mapped = mmap(NULL, BLOCK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    fill(mapped, BLOCK, 0);
    over = must(mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
    members[ROOT] = (struct member){ .me = ROOT, .pid = getpid(), .parent = getppid(), .session = getsid(0) };
    bear(&members[FIRST]);
    wait_until_shown("copy");
    wait_until_shown("second");
    bear(&members[STOPPED]);
    siginfo_t info;
    while (!members[STOPPED].pid)
        usleep(500);
    must(waitid(P_PID, members[STOPPED].pid, &info, WSTOPPED));
    born_all = 1;
    loop_until_finish({
        /* Whoever restarts the tree is its parent, and has a session. */
        members[ROOT].parent = getppid();
        members[ROOT].session = getsid(0);
        take_turn(ROOT);
    });
    for (int last = turn + 3 * (MEMBERS + 2); turn < last; usleep(500))
        take_turn(ROOT);
    end = 1;
    *over = 1;
    must(kill(members[STOPPED].pid, SIGCONT));
    must_pthread(pthread_join(members[STOPPED].bearer, NULL));
    must_pthread(pthread_join(members[FIRST].bearer, NULL));
    done();
}
