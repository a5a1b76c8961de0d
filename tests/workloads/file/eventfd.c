/* Event counters: as a number and as a semaphore, up to the largest count, shared by dup and by fork, with threads that wait to
 * read and to write.
 */
#include "../workload.h"
#include <dirent.h>
#include <sys/eventfd.h>

static int hungry, crammed;
static const uint64_t most = UINT64_MAX - 1;

static void *reader(void *got)
{
    must(read(hungry, got, 8));
    return NULL;
}

static void *writer(void *ignored)
{
    (void)ignored;
    uint64_t more = 5;
    must(write(crammed, &more, 8));
    return NULL;
}

static bool readable(int fd)
{
    struct pollfd p = { fd, POLLIN, 0 };
    return must(poll(&p, 1, 0));
}

static bool writable(int fd)
{
    struct pollfd p = { fd, POLLOUT, 0 };
    return must(poll(&p, 1, 0));
}

static uint64_t taken(int fd)
{
    uint64_t got;
    check(must(read(fd, &got, 8)) == 8);
    return got;
}

/* Until a thread is in this system call. */
static void until_blocked(long call)
{
    char line[256], path[512];
    for (bool blocked = false; !blocked; sched_yield()) {
        DIR *tasks = opendir("/proc/self/task");
        check(tasks);
        for (struct dirent *task; (task = readdir(tasks));) {
            snprintf(path, sizeof path, "/proc/self/task/%s/syscall", task->d_name);
            if (access(path, R_OK) == 0) {
                line[slurp(path, line, sizeof line - 1)] = 0;
                blocked |= *line != 'r' && atol(line) == call;
            }
        }
        closedir(tasks);
    }
}

int main(int argc, char **argv)
{
    begin(argc, argv);
    uint64_t got = 0, full = most, one = 1;
    int number = must(eventfd(7, 0));
    int semaphore = must(eventfd(3, EFD_SEMAPHORE | EFD_NONBLOCK));
    int largest = must(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
    must(write(largest, &full, 8));
    int empty = must(eventfd(0, EFD_NONBLOCK)), same = must(dup(empty));
    hungry = must(eventfd(0, 0));
    crammed = must(eventfd(0, 0));
    must(write(crammed, &full, 8));
    pthread_t reads, writes;
    must_pthread(pthread_create(&reads, NULL, reader, &got));
    must_pthread(pthread_create(&writes, NULL, writer, NULL));
    until_blocked(SYS_write);
    until_blocked(SYS_read);
    /* The child adds 10 to the number when it is told to by the semaphore's last grain. */
    int go = must(eventfd(0, 0));
    pid_t child = must(fork());
    if (child == 0) {
        check(taken(go) == 1);
        uint64_t ten = 10;
        must(write(number, &ten, 8));
        _exit(7);
    }
    loop_until_finish({
        check(readable(number) && writable(number) && readable(semaphore));
        check(!readable(empty) && !readable(hungry) && !readable(go) && !writable(largest) && !writable(crammed));
        check(read(same, &one, 8) == -1 && errno == EAGAIN);
        check(write(largest, &one, 8) == -1 && errno == EAGAIN);
        check(must(fcntl(same, F_GETFL)) & O_NONBLOCK && !(must(fcntl(number, F_GETFL)) & O_NONBLOCK));
        check(must(fcntl(largest, F_GETFD)) == FD_CLOEXEC && must(fcntl(number, F_GETFD)) == 0);
    });
    for (int i = 0; i < 3; i++)
        check(taken(semaphore) == 1);
    check(read(semaphore, &got, 8) == -1 && errno == EAGAIN);
    must(write(go, &one, 8));
    wait_exited(child, 7);
    check(taken(number) == 17);
    check(taken(largest) == most);
    must(write(same, &full, 8));
    check(taken(empty) == most);
    one = 9;
    must(write(hungry, &one, 8));
    must_pthread(pthread_join(reads, NULL));
    check(got == 9, "the reader got %lu", got);
    check(taken(crammed) == most);
    must_pthread(pthread_join(writes, NULL));
    check(taken(crammed) == 5);
    done();
}
