/* Processes that share what threads share: one shares its parent's descriptors, one its working directory and umask, one both,
 * and so does a child of that one; another has copies. Round by round one of those who share everything changes all of it,
 * and then everyone looks at what it has.
 */
#include "../workload.h"

enum { ROOT, FILES, DIRECTORY, BOTH, GRANDCHILD, NEITHER, MEMBERS };
static const char *names[] = { "root", "files", "directory", "both", "grandchild", "neither" };
static const int changers[] = { ROOT, BOTH, GRANDCHILD };

/* What all of them know, in memory that they share: whose turn it is, and the descriptor that moves about. */
static struct {
    _Atomic int turn, done, fd;
} *board;
static int held;
static char directories[2][400];

static void look(int me, int round)
{
    bool files = me != DIRECTORY && me != NEITHER, directory = me != FILES && me != NEITHER;
    char here[400];
    check(getcwd(here, sizeof here) != NULL);
    mode_t mask = umask(0);
    umask(mask);
    int now = directory ? round % 2 : 0;
    check(strcmp(here, directories[now]) == 0 && mask == (now ? 027 : 022), "%s: round %d, mask %o in %.300s", names[me], round,
          mask, here);
    int flags = fcntl(board->fd, F_GETFD);
    check(flags == (files ? round % 2 ? FD_CLOEXEC : 0 : -1), "%s: round %d, fd %d: %d", names[me], round, board->fd, flags);
}

static void change(int round)
{
    must(close(board->fd));
    board->fd = must(fcntl(held, round % 2 ? F_DUPFD_CLOEXEC : F_DUPFD, 30 + round % 50));
    must(chdir(directories[round % 2]));
    umask(round % 2 ? 027 : 022);
}

/* Does what is this one's to do now, if anything is. */
static void take_turn(int me)
{
    int turn = board->turn, step = turn % (MEMBERS + 1), round = turn / (MEMBERS + 1);
    if (step == me) {
        look(me, round);
        board->turn = turn + 1;
    } else if (step == MEMBERS && changers[round % 3] == me) {
        change(round + 1);
        board->turn = turn + 1;
    }
}

static pid_t born(int me, long flags)
{
    pid_t child = must(syscall(SYS_clone, flags | SIGCHLD, NULL, NULL, NULL, NULL));
    if (child)
        return child;
    pid_t grandchild = me == BOTH ? born(GRANDCHILD, CLONE_FILES | CLONE_FS) : 0;
    if (!(flags & CLONE_FILES))
        must(close(board->fd));
    progress_as(names[me]);
    while (!board->done) {
        take_turn(me);
        progress();
        usleep(500);
    }
    if (grandchild)
        wait_exited(grandchild, 0);
    _exit(0);
}

int main(int argc, char **argv)
{
    begin(argc, argv);
    board = must(mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
    for (int i = 0; i < 2; i++) {
        strncpy(directories[i], data_path(i ? "second" : "first"), sizeof directories[i] - 1);
        must(mkdir(directories[i], 0755));
    }
    held = must(open("/dev/null", O_RDWR));
    board->fd = must(fcntl(held, F_DUPFD, 30));
    must(chdir(directories[0]));
    umask(022);
    pid_t children[] = { born(FILES, CLONE_FILES), born(DIRECTORY, CLONE_FS), born(BOTH, CLONE_FILES | CLONE_FS),
                         born(NEITHER, 0) };
    loop_until_finish(take_turn(ROOT));
    /* A whole round more. */
    for (int end = board->turn + 2 * (MEMBERS + 1); board->turn < end; usleep(500))
        take_turn(ROOT);
    board->done = 1;
    for (int i = 0; i < 4; i++)
        wait_exited(children[i], 0);
    done();
}
