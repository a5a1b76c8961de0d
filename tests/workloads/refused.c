/* Holds one thing that can't be saved yet, named by the second argument, and goes on: a checkpoint must refuse it by name, and
 * this process must not notice. Exits with 77 where this kernel doesn't have the thing.
 */
#include "workload.h"
#include <linux/filter.h>
#include <linux/perf_event.h>
#include <linux/seccomp.h>
#include <mqueue.h>
#include <netinet/in.h>
#include <pty.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/inotify.h>
#include <sys/ipc.h>
#include <sys/shm.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/un.h>

static long have(long result)
{
    if (result == -1) {
        perror("not here");
        _exit(77);
    }
    return result;
}

static void *touch_user_memory(size_t size)
{
    void *at = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    check(at != MAP_FAILED);
    return at;
}

static int block_ends[2];
static atomic_int blocked;

/* Reads for ever, under a filter that allows little more than that, or in strict mode. */
static void *read_for_ever(void *argument)
{
    struct sock_filter code[] = {
        { BPF_LD | BPF_W | BPF_ABS, 0, 0, offsetof(struct seccomp_data, nr) },
        { BPF_JMP | BPF_JEQ | BPF_K, 1, 0, SYS_read },
        { BPF_RET | BPF_K, 0, 0, SECCOMP_RET_KILL_THREAD },
        { BPF_RET | BPF_K, 0, 0, SECCOMP_RET_ALLOW },
    };
    struct sock_fprog program = { 4, code };
    char byte;
    must(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
    if (argument)
        must(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program));
    else
        must(prctl(PR_SET_SECCOMP, SECCOMP_MODE_STRICT));
    atomic_store(&blocked, 1);
    for (;;)
        must(read(block_ends[0], &byte, 1));
}

/* System calls from anywhere are dispatched, but for those while this byte says otherwise. */
static char selector;

static void *sleep_for_ever(void *argument)
{
    for (;;)
        pause();
    return argument;
}

int main(int argc, char **argv)
{
    begin(argc, argv);
    check(argc == 3);
    const char *what = argv[2];
    char queue[64] = "";
#define is(name) else if (strcmp(what, name) == 0)
    if (0) {}
    is("eventfd-outside") {
        /* Its other holder is the parent of the tree's root, as with memory below. */
        have(eventfd(3, 0));
        pid_t child = must(fork());
        if (child) {
            must(waitpid(child, NULL, 0));
            _exit(0);
        }
    }
    is("epoll-signalfd") {
        sigset_t set;
        sigemptyset(&set);
        sigaddset(&set, SIGUSR1);
        int fd = have(signalfd(-1, &set, 0)), epoll = have(epoll_create1(0));
        must(epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &(struct epoll_event){ .events = EPOLLIN }));
        if (must(fork()) == 0) {
            while (!finishing())
                sleep_ms(5);
            _exit(0);
        }
    }
    is("owner-outside") {
        int ends[2];
        have(pipe(ends));
        must(fcntl(ends[0], F_SETOWN, 1));
    }
    is("owner-directory") {
        int fd = have(open("/", O_RDONLY | O_DIRECTORY));
        must(fcntl(fd, F_NOTIFY, DN_CREATE | DN_MULTISHOT));
    }
    is("epoll-outside") {
        /* What it watches is open in the parent of the tree's root alone. */
        int fd = have(eventfd(3, 0));
        pid_t child = must(fork());
        if (child) {
            must(waitpid(child, NULL, 0));
            _exit(0);
        }
        int epoll = have(epoll_create1(0));
        must(epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &(struct epoll_event){ .events = EPOLLIN }));
        must(close(fd));
    }
    is("epoll-fired") {
        /* What it watches was ready once, and is no more. */
        int epoll = have(epoll_create1(0)), ends[2];
        must(pipe2(ends, O_NONBLOCK));
        struct epoll_event event = { .events = EPOLLOUT | EPOLLONESHOT };
        must(epoll_ctl(epoll, EPOLL_CTL_ADD, ends[1], &event));
        check(must(epoll_wait(epoll, &event, 1, 0)) == 1);
        char block[4096] = "";
        while (write(ends[1], block, sizeof block) > 0)
            ;
    }
    is("inotify-unread") {
        int fd = have(inotify_init());
        char data[600];
        snprintf(data, sizeof data, "%s/data", workload_dir);
        must(mkdir(data, 0755));
        must(inotify_add_watch(fd, data, IN_CREATE));
        close(must(open(data_path("new"), O_WRONLY | O_CREAT | O_CLOEXEC, 0644)));
    }
    is("inotify-lost") {
        /* What it watches has no name, and is open in the parent of the tree's root alone. */
        int file = must(open(data_path("gone"), O_RDWR | O_CREAT, 0600)), fd = have(inotify_init());
        must(inotify_add_watch(fd, data_path("gone"), IN_MODIFY));
        must(unlink(data_path("gone")));
        pid_t child = must(fork());
        if (child) {
            must(close(fd));
            must(waitpid(child, NULL, 0));
            _exit(0);
        }
        must(close(file));
    }
    is("huge-memfd") have(memfd_create("memfd", MFD_HUGETLB));
    is("memfd-outside") {
        have(memfd_create("memfd", 0));
        pid_t child = must(fork());
        if (child) {
            must(waitpid(child, NULL, 0));
            _exit(0);
        }
    }
    is("pidfd-outside") have(syscall(SYS_pidfd_open, 1, 0));
    is("pidfd-shared") {
        have(syscall(SYS_pidfd_open, getpid(), 0));
        if (must(fork()) == 0) {
            while (!finishing())
                sleep_ms(5);
            _exit(0);
        }
    }
    is("socketpair") {
        int ends[2];
        have(socketpair(AF_UNIX, SOCK_STREAM, 0, ends));
    }
    is("udp") have(socket(AF_INET, SOCK_DGRAM, 0));
    is("tcp-listening") {
        int fd = have(socket(AF_INET, SOCK_STREAM, 0));
        have(listen(fd, 5));
    }
    is("deleted-outside") {
        have(open(data_path("deleted"), O_RDWR | O_CREAT, 0600));
        must(unlink(data_path("deleted")));
        pid_t child = must(fork());
        if (child) {
            must(waitpid(child, NULL, 0));
            _exit(0);
        }
    }
    is("other-name") {
        /* In a directory where nobody looks for it. */
        char name[1024];
        have(open(data_path("deleted"), O_RDWR | O_CREAT, 0600));
        must(mkdir(data_path("away"), 0700));
        snprintf(name, sizeof name, "%s", data_path("away/other"));
        must(link(data_path("deleted"), name));
        must(unlink(data_path("deleted")));
    }
    is("fifo-outside") {
        must(mkfifo(data_path("fifo"), 0600));
        have(open(data_path("fifo"), O_RDWR));
        pid_t child = must(fork());
        if (child) {
            must(waitpid(child, NULL, 0));
            _exit(0);
        }
    }
    is("fifo-unread") {
        must(mkfifo(data_path("fifo"), 0600));
        int reader = have(open(data_path("fifo"), O_RDONLY | O_NONBLOCK));
        int writer = have(open(data_path("fifo"), O_WRONLY));
        write_exactly(writer, "unread", 6);
        must(close(reader));
    }
    is("pty") {
        int master, slave;
        have(openpty(&master, &slave, NULL, NULL, NULL));
    }
    is("posix-timer-outside") {
        /* On the CPU time of a process that isn't in the tree. */
        timer_t timer;
        clockid_t clock;
        struct sigevent event = { .sigev_notify = SIGEV_NONE };
        errno = clock_getcpuclockid(getppid(), &clock);
        have(errno ? -1 : 0);
        have(timer_create(clock, &event, &timer));
    }
    is("posix-timer-thread") {
        /* On the CPU time of the thread that makes it, not set, and there are two threads. */
        timer_t timer;
        pthread_t thread;
        struct sigevent event = { .sigev_notify = SIGEV_NONE };
        have(timer_create(CLOCK_THREAD_CPUTIME_ID, &event, &timer));
        must_pthread(pthread_create(&thread, NULL, sleep_for_ever, NULL));
    }
    is("segments") {
        /* struct user_desc {entry_number, base_addr, limit, bits}: 32-bit code and data */
        unsigned descriptor[4] = { 0, 0, 0xfffff, 1 | 1 << 4 };
        have(syscall(SYS_modify_ldt, 1, descriptor, sizeof descriptor));
    }
    is("core-cookie") {
        /* PR_SCHED_CORE, PR_SCHED_CORE_CREATE, of this thread */
        have(prctl(62, 1, 0, 0, 0));
    }
    is("lease") {
        int fd = have(open(data_path("leased"), O_RDONLY | O_CREAT, 0600));
        have(fcntl(fd, F_SETLEASE, F_RDLCK));
    }
    is("shm") {
        int id = have(shmget(IPC_PRIVATE, 4096, IPC_CREAT | 0600));
        check(shmat(id, NULL, 0) != (void *)-1);
        must(shmctl(id, IPC_RMID, NULL));
    }
    is("aio") {
        unsigned long context = 0;
        have(syscall(SYS_io_setup, 8, &context));
    }
    is("hugetlb") {
        /* Without a reservation this works with an empty pool. */
        int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB | MAP_NORESERVE;
        have((long)mmap(NULL, 2 << 20, PROT_READ | PROT_WRITE, flags, -1, 0));
    }
    is("perf") {
        /* A counter of software, whose ring is mapped and whose descriptor is closed. */
        struct perf_event_attr attributes = { .type = PERF_TYPE_SOFTWARE, .size = sizeof attributes };
        attributes.config = PERF_COUNT_SW_CPU_CLOCK;
        int fd = have(syscall(SYS_perf_event_open, &attributes, 0, -1, -1, PERF_FLAG_FD_CLOEXEC));
        have((long)mmap(NULL, 2 * 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0));
        must(close(fd));
    }
    is("mqueue") {
        snprintf(queue, sizeof queue, "/bardo-test-mqueue-%d", getpid());
        have(mq_open(queue, O_RDWR | O_CREAT, 0600, NULL));
    }
    is("seccomp-notify") {
        struct sock_filter ask[] = {
            { BPF_LD | BPF_W | BPF_ABS, 0, 0, offsetof(struct seccomp_data, nr) },
            { BPF_JMP | BPF_JEQ | BPF_K, 0, 1, SYS_getpgid },
            { BPF_RET | BPF_K, 0, 0, SECCOMP_RET_USER_NOTIF },
            { BPF_RET | BPF_K, 0, 0, SECCOMP_RET_ALLOW },
        };
        struct sock_fprog program = { 4, ask };
        must(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
        have(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program));
    }
    else if (strcmp(what, "seccomp-kill") == 0 || strcmp(what, "seccomp-strict") == 0)
    {
        pthread_t thread;
        must(pipe(block_ends));
        void *filter = strcmp(what, "seccomp-kill") == 0 ? &block_ends : NULL;
        must_pthread(pthread_create(&thread, NULL, read_for_ever, filter));
        while (!atomic_load(&blocked))
            sleep_ms(1);
    }
    is("user-dispatch") {
        have(prctl(59 /* PR_SET_SYSCALL_USER_DISPATCH */, 1 /* PR_SYS_DISPATCH_ON */, 0, 0, &selector));
    }
    is("io_uring") {
        unsigned parameters[30] = { 0 };
        have(syscall(SYS_io_uring_setup, 4, parameters));
    }
    is("userfaultfd") have(syscall(SYS_userfaultfd, 1 /* UFFD_USER_MODE_ONLY */));
    is("proc-file-outside") {
        char path[64];
        snprintf(path, sizeof path, "/proc/%d/status", getppid());
        have(open(path, O_RDONLY));
    }
    is("proc-file-shared") {
        have(open("/proc/self/status", O_RDONLY));
        if (must(fork()) == 0) {
            must(prctl(PR_SET_PDEATHSIG, SIGKILL));
            while (getppid() != 1)
                sleep_ms(10);
            _exit(0);
        }
    }
    is("hugetlb") {
        have(mmap(NULL, 2 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB, -1, 0) == MAP_FAILED ? -1 : 0);
    }
    is("memfd-secret") {
        int fd = have(syscall(SYS_memfd_secret, 0));
        must(ftruncate(fd, 4096));
    }
    is("shared-memory-outside") {
        /* Its other holder is the parent of the tree's root: see below. */
        char *shared = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
        check(shared != MAP_FAILED);
        pid_t child = must(fork());
        if (child) {
            must(waitpid(child, NULL, 0));
            _exit(0);
        }
    }
    is("pipe-outside") {
        int ends[2];
        must(pipe(ends));
        pid_t child = must(fork());
        if (child) {
            must(waitpid(child, NULL, 0));
            _exit(0);
        }
    }
    is("memory-shared-outside") {
        /* Its other holder is the parent of the tree's root, who does nothing more. */
        char *stack = touch_user_memory(256 << 10);
        extern int live_as_tree(void *);
        pid_t child = have(clone(live_as_tree, stack + (256 << 10) - 64, CLONE_VM | SIGCHLD, NULL));
        int status;
        must(waitpid(child, &status, 0));
        _exit(status ? 1 : 0);
    }
    is("memory-shared-apart") {
        extern void memory_shared_apart(void);
        memory_shared_apart();
    }
    is("shared-directory-apart") {
        extern void shared_directory_apart(void);
        shared_directory_apart();
    }
    is("session-apart") {
        extern void session_apart(void);
        session_apart();
    }
    is("own-directory-shared") {
        extern void own_directory(bool);
        own_directory(false);
    }
    is("own-directory-removed") {
        extern void own_directory(bool);
        own_directory(true);
    }
    is("namespace") have(unshare(CLONE_NEWUTS));
    is("vfork") {
        if (vfork() == 0) {
            /* The parent can't be stopped until this ends. */
            int fd = open(ready_path, O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
            close(fd);
            while (access(finish_path, F_OK) == -1) {
                truncate(progress_path, ++progress_count);
                usleep(2000);
            }
            _exit(0);
        }
        done();
    }
    is("vfork-moment") {
        /* Nearly always in a vfork, of a child that calls exec in a moment. */
        for (ready(); !finishing(); progress()) {
            pid_t child = vfork();
            if (child == 0) {
                usleep(20000);
                execl("/bin/true", "true", NULL);
                _exit(1);
            }
            wait_exited(must(child), 0);
        }
        done();
    }
    else {
        fprintf(stderr, "unknown: %s\n", what);
        return 2;
    }
    int pid = must(open(data_path("pid"), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644));
    dprintf(pid, "%d", getpid());
    must(close(pid));
    loop_until_finish();
    if (*queue)
        must(mq_unlink(queue));
    done();
}

static void live_on(void)
{
    while (!finishing())
        usleep(2000);
}

static int news[2];
static void tell(pid_t pid) { write_exactly(news[1], &pid, sizeof pid); }
static pid_t hear(void)
{
    pid_t pid;
    read_exactly(news[0], &pid, sizeof pid);
    return pid;
}

/* Two orphans of one dead session whose parents, once one below the other, now stand side by side. */
void session_apart(void)
{
    must(pipe(news));
    must(prctl(PR_SET_CHILD_SUBREAPER, 1));
    if (must(fork()) == 0) {
        must(prctl(PR_SET_CHILD_SUBREAPER, 1));
        pid_t middle = must(fork());
        if (middle == 0) {
            if (must(fork()) == 0) {
                must(prctl(PR_SET_CHILD_SUBREAPER, 1));
                pid_t leader = must(fork());
                if (leader == 0) {
                    must(setsid());
                    if (must(fork()) == 0) {
                        live_on();
                        _exit(0);
                    }
                    if (must(fork()) == 0) {
                        if (must(fork()) == 0) {
                            live_on();
                            _exit(0);
                        }
                        tell(getpid());
                        pause();
                    }
                    _exit(0);
                }
                wait_exited(leader, 0);
                pid_t between = hear();
                must(prctl(PR_SET_CHILD_SUBREAPER, 0));
                must(kill(between, SIGKILL));
                must(waitpid(between, NULL, 0));
                close(must(open(data_path("between"), O_WRONLY | O_CREAT | O_CLOEXEC, 0644)));
                live_on();
                _exit(0);
            }
            pause();
        }
        while (access(data_path("between"), F_OK) == -1)
            usleep(1000);
        must(prctl(PR_SET_CHILD_SUBREAPER, 0));
        must(kill(middle, SIGKILL));
        must(waitpid(middle, NULL, 0));
        close(must(open(data_path("apart"), O_WRONLY | O_CREAT | O_CLOEXEC, 0644)));
        live_on();
        _exit(0);
    }
    while (access(data_path("apart"), F_OK) == -1)
        usleep(1000);
}

/* A grandchild shares our working directory, and the one between us has left it. */
int live_as_tree(void *argument)
{
    (void)argument;
    int pid = must(open(data_path("pid"), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644));
    dprintf(pid, "%d", getpid());
    must(close(pid));
    loop_until_finish();
    done();
}

/* The root and its grandchild have one memory, and the process between them has called exec. */
static int share_with_grandparent(void *argument)
{
    (void)argument;
    live_on();
    _exit(0);
}

static int leave_the_memory(void *stack)
{
    must(clone(share_with_grandparent, stack, CLONE_VM | SIGCHLD, NULL));
    char wait[700];
    snprintf(wait, sizeof wait, "touch '%s'; while [ ! -e '%s' ]; do sleep 0.01; done", data_path("apart"), finish_path);
    execl("/bin/sh", "sh", "-c", wait, NULL);
    _exit(1);
}

void memory_shared_apart(void)
{
    size_t size = 256 << 10;
    char *stacks = mmap(NULL, 2 * size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    check(stacks != MAP_FAILED);
    must(clone(leave_the_memory, stacks + size, CLONE_VM | CLONE_VFORK | SIGCHLD, stacks + 2 * size));
    while (access(data_path("apart"), F_OK) == -1)
        usleep(1000);
}

static _Atomic int settled;

/* A thread with a directory of its own, which is removed, or which a child of the thread shares. */
static void *work_apart(void *removed)
{
    must(unshare(CLONE_FS));
    if (removed) {
        must(mkdir(data_path("removed"), 0700));
        must(chdir(data_path("removed")));
        must(rmdir(data_path("removed")));
    } else if (must(syscall(SYS_clone, CLONE_FS | SIGCHLD, NULL, NULL, NULL, NULL)) == 0) {
        live_on();
        _exit(0);
    }
    settled = 1;
    live_on();
    return NULL;
}

void own_directory(bool removed)
{
    pthread_t thread;
    must_pthread(pthread_create(&thread, NULL, work_apart, removed ? &settled : NULL));
    while (!settled)
        usleep(1000);
}

void shared_directory_apart(void)
{
    if (must(syscall(SYS_clone, CLONE_FS | SIGCHLD, NULL, NULL, NULL, NULL)) == 0) {
        if (must(syscall(SYS_clone, CLONE_FS | SIGCHLD, NULL, NULL, NULL, NULL)) == 0) {
            live_on();
            _exit(0);
        }
        must(unshare(CLONE_FS));
        close(must(open(data_path("apart"), O_WRONLY | O_CREAT | O_CLOEXEC, 0644)));
        live_on();
        _exit(0);
    }
    while (access(data_path("apart"), F_OK) == -1)
        usleep(1000);
}
