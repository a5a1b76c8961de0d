/* What every workload shares: how it is controlled, how it says what it found, and checks that fail loudly.
 *
 * A workload is started as `NAME DIR [ARGUMENT...]`, DIR absolute. It sets up its state, calls ready(), then loops:
 * check everything, progress(), sleep, until finishing(); then come the checks that change things, and done().
 *
 * The control must not be a part of what is checkpointed: no descriptor is ever held open for it. All of it goes by path:
 *   DIR/ready      made by ready()
 *   DIR/progress*  a file per process that shows progress; its size is the process's count (truncate(2) needs no fd)
 *   DIR/finish     made by whoever wants the final checks
 *   DIR/verdict    "ok", or a line for every discrepancy, whichever process found it
 *   DIR/data/      files of the workload's own
 * The exit status is 0 exactly when the verdict is "ok".
 */
#ifndef WORKLOAD_H
#define WORKLOAD_H
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static char workload_dir[512], progress_path[640], finish_path[640], verdict_path[640], ready_path[640];
static long progress_count;

/* Where a tracer is killed in the microseconds between a stop and its taking back what the stop did, the kernel has some calls
 * return EINTR, and nobody is left to hide that. With a last argument "interrupted" these calls are made again. */
static bool may_be_interrupted;

/* Writes a line of the verdict and ends the process. */
__attribute__((noreturn, format(printf, 1, 2), unused)) static void fail(const char *format, ...)
{
    char line[1024];
    int n = snprintf(line, sizeof line, "pid %d: ", getpid());
    va_list list;
    va_start(list, format);
    n += vsnprintf(line + n, sizeof line - n - 1, format, list);
    va_end(list);
    if (n > (int)sizeof line - 2)
        n = sizeof line - 2;
    line[n++] = '\n';
    int fd = open(verdict_path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
    if (write(fd, line, n) != n || write(2, line, n) != n)
        _exit(2);
    _exit(1);
}

/* Fails unless the condition holds. */
#define check(condition, ...)                                                                                                 \
    do {                                                                                                                      \
        if (!(condition)) {                                                                                                   \
            int errno_now = errno;                                                                                            \
            char detail[512];                                                                                                 \
            snprintf(detail, sizeof detail, " " __VA_ARGS__);                                                                 \
            fail("%s:%d: not %s (errno %s) %s", __FILE_NAME__, __LINE__, #condition, strerrorname_np(errno_now), detail);     \
        }                                                                                                                     \
    } while (0)

#ifndef __FILE_NAME__
#define __FILE_NAME__ (strrchr(__FILE__, '/') ? strrchr(__FILE__, '/') + 1 : __FILE__)
#endif

/* The call's result, of a call that a stop may end (signal(7)); it must not, but where `may_be_interrupted`. */
#define uninterrupted(call)                                                                                                   \
    ({                                                                                                                        \
        __auto_type result_of_waiting = (call);                                                                               \
        while (may_be_interrupted && (long)result_of_waiting == -1 && errno == EINTR)                                         \
            result_of_waiting = (call);                                                                                       \
        result_of_waiting;                                                                                                    \
    })

/* The call's result; fails if it is -1. An EINTR is a failure like any other: no handler of ours interrupts these calls. */
#define must(call)                                                                                                            \
    ({                                                                                                                        \
        errno = 0;                                                                                                            \
        __auto_type result_of_call = (call);                                                                                  \
        check((long)result_of_call != -1, "%s", #call);                                                                       \
        result_of_call;                                                                                                       \
    })

/* The same for the pthread calls, which return the error. */
#define must_pthread(call)                                                                                                    \
    do {                                                                                                                      \
        errno = (call);                                                                                                       \
        check(errno == 0, "%s", #call);                                                                                       \
    } while (0)

/* Names the file that shows this process's progress: "" for the root's. Made at once, so that it is waited for. */
__attribute__((unused)) static void progress_as(const char *name)
{
    snprintf(progress_path, sizeof progress_path, "%s/progress%s%s", workload_dir, *name ? "." : "", name);
    progress_count = 0;
    close(must(open(progress_path, O_WRONLY | O_CREAT | O_CLOEXEC, 0644)));
}

/* Waits until another process has named the file that shows its progress: what it sets up before that is there. */
__attribute__((unused)) static void wait_until_shown(const char *name)
{
    char path[640];
    snprintf(path, sizeof path, "%s/progress.%s", workload_dir, name);
    while (access(path, F_OK) == -1)
        sched_yield();
}

__attribute__((unused)) static void begin(int argc, char **argv)
{
    if (argc < 2 || argv[1][0] != '/') {
        fprintf(stderr, "usage: %s DIR [ARGUMENT...], DIR absolute\n", argv[0]);
        exit(2);
    }
    snprintf(workload_dir, sizeof workload_dir, "%s", argv[1]);
    snprintf(finish_path, sizeof finish_path, "%s/finish", workload_dir);
    snprintf(verdict_path, sizeof verdict_path, "%s/verdict", workload_dir);
    snprintf(ready_path, sizeof ready_path, "%s/ready", workload_dir);
    may_be_interrupted = strcmp(argv[argc - 1], "interrupted") == 0;
    progress_as("");
}

/* The path of a file of the workload's own, under DIR/data. */
__attribute__((unused)) static const char *data_path(const char *name)
{
    static __thread char path[1024];
    snprintf(path, sizeof path, "%s/data", workload_dir);
    mkdir(path, 0755);
    snprintf(path, sizeof path, "%s/data/%s", workload_dir, name);
    return path;
}

__attribute__((unused)) static void ready(void)
{
    close(must(open(ready_path, O_WRONLY | O_CREAT | O_CLOEXEC, 0644)));
}

__attribute__((unused)) static bool finishing(void)
{
    return access(finish_path, F_OK) == 0;
}

__attribute__((unused)) static void progress(void)
{
    must(truncate(progress_path, ++progress_count));
}

__attribute__((noreturn, unused)) static void done(void)
{
    int fd = must(open(verdict_path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644));
    check(write(fd, "ok\n", 3) == 3);
    exit(0);
}

__attribute__((unused)) static uint64_t now_ns(void)
{
    struct timespec t;
    must(clock_gettime(CLOCK_MONOTONIC, &t));
    return (uint64_t)t.tv_sec * 1000000000u + t.tv_nsec;
}

/* Sleeps; an EINTR or an early return is a failure. */
__attribute__((unused)) static void sleep_ms(long ms)
{
    struct timespec t = { ms / 1000, ms % 1000 * 1000000 };
    uint64_t start = now_ns();
    must(nanosleep(&t, NULL));
    check(now_ns() - start >= (uint64_t)ms * 1000000u, "slept %lu ns of %ld ms", now_ns() - start, ms);
}

/* The usual middle of a workload. */
#define loop_until_finish(...)                                                                                                \
    do {                                                                                                                      \
        ready();                                                                                                              \
        while (!finishing()) {                                                                                                \
            __VA_ARGS__;                                                                                                      \
            progress();                                                                                                       \
            sleep_ms(2);                                                                                                      \
        }                                                                                                                     \
        __VA_ARGS__;                                                                                                          \
    } while (0)

/* A block of bytes that depends on a seed alone. */
__attribute__((unused)) static void fill(void *block, size_t size, uint64_t seed)
{
    uint64_t x = seed * 0x9e3779b97f4a7c15u + 1;
    unsigned char *at = block;
    for (size_t i = 0; i < size; i++) {
        if (i % 8 == 0) {
            x ^= x << 13, x ^= x >> 7, x ^= x << 17;
        }
        at[i] = x >> (i % 8 * 8);
    }
}

/* Fails unless the block holds what fill() with this seed put there. */
__attribute__((unused)) static void check_filled(const void *block, size_t size, uint64_t seed, const char *what)
{
    uint64_t x = seed * 0x9e3779b97f4a7c15u + 1;
    const unsigned char *at = block;
    for (size_t i = 0; i < size; i++) {
        if (i % 8 == 0) {
            x ^= x << 13, x ^= x >> 7, x ^= x << 17;
        }
        check(at[i] == (unsigned char)(x >> (i % 8 * 8)), "%s: byte %zu of %zu at %p is %#x", what, i, size, at, at[i]);
    }
}

__attribute__((unused)) static void read_exactly(int fd, void *block, size_t size)
{
    for (size_t got = 0; got < size;) {
        ssize_t n = must(read(fd, (char *)block + got, size - got));
        check(n > 0, "end of file on fd %d after %zu of %zu bytes", fd, got, size);
        got += n;
    }
}

__attribute__((unused)) static void write_exactly(int fd, const void *block, size_t size)
{
    for (size_t put = 0; put < size;)
        put += must(write(fd, (const char *)block + put, size - put));
}

/* Waits for a child and fails unless it exited with this status. */
__attribute__((unused)) static void wait_exited(pid_t pid, int expected)
{
    int status = 0;
    check(must(waitpid(pid, &status, 0)) == pid);
    check(WIFEXITED(status) && WEXITSTATUS(status) == expected, "pid %d ended with status %#x", pid, status);
}

/* Reads a small file. Returns its length. */
__attribute__((unused)) static ssize_t slurp(const char *path, char *block, size_t size)
{
    int fd = must(open(path, O_RDONLY | O_CLOEXEC));
    size_t got = 0;
    ssize_t n;
    while (got < size && (n = must(read(fd, block + got, size - got))) > 0)
        got += n;
    must(close(fd));
    return got;
}
#endif
