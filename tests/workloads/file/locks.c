/* File locks of all kinds: POSIX locks of two processes, open file description locks, flock(2) locks that a child shares; ranges,
 * types and owners as others see them; and those who wait for one, in a process and in a thread, go on waiting until it is free.
 */
#include "../workload.h"
#include <sys/file.h>

static pid_t parent;
static int shared, own, described, whole, whole_read;
static atomic_int got_flock;

static struct flock range(short type, off_t start, off_t length)
{
    return (struct flock){ .l_type = type, .l_whence = SEEK_SET, .l_start = start, .l_len = length };
}

/* What stands in the way of a write lock of these bytes, as another open file sees it. */
static struct flock in_the_way(int fd, off_t start, off_t length)
{
    struct flock lock = range(F_WRLCK, start, length);
    must(fcntl(fd, F_OFD_GETLK, &lock));
    return lock;
}

static void is_lock(struct flock lock, short type, off_t start, off_t length, pid_t pid)
{
    check(lock.l_type == type && lock.l_start == start && lock.l_len == length && lock.l_pid == pid,
          "type %d, %ld+%ld, pid %d, for type %d, %ld+%ld, pid %d", lock.l_type, lock.l_start, lock.l_len, lock.l_pid, type,
          start, length, pid);
}

static void compare(pid_t child)
{
    int other = must(open(data_path("ranges"), O_RDWR));
    is_lock(in_the_way(other, 0, 10), F_WRLCK, 0, 10, parent);
    is_lock(in_the_way(other, 10, 10), F_RDLCK, 10, 5, parent);
    is_lock(in_the_way(other, 20, 10), F_WRLCK, 20, 1, child);
    is_lock(in_the_way(other, 1l << 40, 10), F_RDLCK, 1l << 40, 0, child);
    is_lock(in_the_way(other, 30, 10), F_UNLCK, 30, 10, 0);
    must(close(other)); /* the watcher has no POSIX lock that this would free */
    int locked = must(open(data_path("described"), O_RDWR));
    is_lock(in_the_way(locked, 0, 0), F_WRLCK, 100, 100, -1);
    is_lock(in_the_way(locked, 300, 0), F_RDLCK, 300, 0, -1);
    must(close(locked));
    int flocked = must(open(data_path("whole"), O_RDWR));
    check(flock(flocked, LOCK_SH | LOCK_NB) == -1 && errno == EWOULDBLOCK);
    must(close(flocked));
    flocked = must(open(data_path("whole read"), O_RDWR));
    check(flock(flocked, LOCK_EX | LOCK_NB) == -1 && errno == EWOULDBLOCK);
    must(flock(flocked, LOCK_SH | LOCK_NB));
    must(close(flocked));
}

static void *wait_for_flock(void *unused)
{
    (void)unused;
    int fd = must(open(data_path("whole"), O_RDWR));
    must(flock(fd, LOCK_EX));
    atomic_store(&got_flock, 1);
    return NULL;
}

int main(int argc, char **argv)
{
    begin(argc, argv);
    parent = getpid();
    own = must(open(data_path("ranges"), O_RDWR | O_CREAT, 0600));
    struct flock lock = range(F_WRLCK, 0, 10);
    must(fcntl(own, F_SETLK, &lock));
    lock = range(F_RDLCK, 10, 5);
    must(fcntl(own, F_SETLK, &lock));
    described = must(open(data_path("described"), O_RDWR | O_CREAT, 0600));
    lock = range(F_WRLCK, 100, 100);
    must(fcntl(described, F_OFD_SETLK, &lock));
    lock = range(F_RDLCK, 300, 0);
    must(fcntl(described, F_OFD_SETLK, &lock));
    whole = must(open(data_path("whole"), O_RDWR | O_CREAT, 0600));
    must(flock(whole, LOCK_EX));
    whole_read = must(open(data_path("whole read"), O_RDONLY | O_CREAT, 0600));
    must(flock(whole_read, LOCK_SH));
    shared = must(dup(whole));
    int up[2];
    must(pipe(up));
    pid_t child = must(fork());
    if (child == 0) {
        /* Two POSIX locks of its own, and then it waits for the parent's. */
        lock = range(F_WRLCK, 20, 1);
        must(fcntl(own, F_SETLK, &lock));
        lock = range(F_RDLCK, 1l << 40, 0);
        must(fcntl(own, F_SETLK, &lock));
        must(close(described));
        write_exactly(up[1], "1", 1);
        lock = range(F_WRLCK, 5, 1);
        must(fcntl(own, F_SETLKW, &lock));
        write_exactly(up[1], "2", 1);
        pause();
    }
    char byte;
    read_exactly(up[0], &byte, 1);
    pthread_t waiter;
    must_pthread(pthread_create(&waiter, NULL, wait_for_flock, NULL));
    pid_t watcher = must(fork());
    if (watcher == 0) {
        progress_as("watcher");
        while (!finishing()) {
            compare(child);
            progress();
            sleep_ms(2);
        }
        _exit(0);
    }
    struct pollfd poll_up = { up[0], POLLIN, 0 };
    loop_until_finish(check(must(poll(&poll_up, 1, 0)) == 0 && !atomic_load(&got_flock)));
    wait_exited(watcher, 0);
    /* Both waiters get what they wait for, and not before. */
    lock = range(F_UNLCK, 0, 10);
    must(fcntl(own, F_SETLK, &lock));
    read_exactly(up[0], &byte, 1);
    check(byte == '2');
    int other = must(open(data_path("described"), O_RDWR));
    is_lock(in_the_way(other, 0, 200), F_WRLCK, 100, 100, -1);
    must(close(described));
    is_lock(in_the_way(other, 0, 0), F_UNLCK, 0, 0, 0);
    /* The lock is the open file's: it goes when nobody has that any more. */
    must(close(whole));
    check(!atomic_load(&got_flock));
    must(kill(child, SIGKILL));
    int status;
    must(waitpid(child, &status, 0));
    check(!atomic_load(&got_flock));
    must(close(shared));
    must_pthread(pthread_join(waiter, NULL));
    check(atomic_load(&got_flock));
    done();
}
