/* What is checkpointed and restarted. It knows nothing of that: all it has is its own clock.
 *
 *   subject clock REPORT BYTES      holds memory without a pattern and reads CLOCK_MONOTONIC in a tight loop
 *   subject hold REPORT BYTES       holds the same memory and sleeps
 *   subject processes REPORT N      N processes, threads, areas or descriptors, itself, its first thread, … included
 *   subject threads REPORT N
 *   subject vmas REPORT N
 *   subject fds REPORT N
 *   subject exec PROGRAM ARG...     becomes another program, with nothing inherited but stdin, stdout and stderr
 *
 * REPORT is a file that appears, whole, when there is something to say: `ready NS` once everything was made, which took that long;
 * from `clock`, on SIGUSR1, `TOUCHED INTACT START END START END ...`: how many nanoseconds it took to touch every page just
 * now, whether the memory is what it was (1 or 0), and the gaps between two readings since the last report, all that were long
 * enough to be no accident of the processor. A busy machine makes such gaps, too: whoever asks knows when to look for which.
 *
 * CLOCK_MONOTONIC is one clock for all processes of a host and goes on across a checkpoint and restart (no time namespace is
 * involved), so the end of a gap is also when a restarted program read it first.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

enum { GAPS_MAX = 2048, GAP_NS = 20000, GAP_TEXT = 42 };

static const char *report_path;
static struct { uint64_t start, end; } gaps[GAPS_MAX];
static volatile sig_atomic_t asked;

static void ask(int number)
{
    (void)number;
    asked = 1;
}

static void fail(const char *what)
{
    perror(what);
    exit(1);
}

static uint64_t now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* Nobody reads half a report: it is written under another name first. */
static void report(const char *text)
{
    char other[4096];
    if (snprintf(other, sizeof other, "%s.new", report_path) >= (int)sizeof other)
        exit(1);
    int fd = open(other, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    if (fd == -1)
        fail(other);
    if (write(fd, text, strlen(text)) != (ssize_t)strlen(text))
        fail(other);
    close(fd);
    if (rename(other, report_path) == -1)
        fail(report_path);
}

static void ready(uint64_t begun)
{
    char text[64];
    snprintf(text, sizeof text, "ready %llu\n", (unsigned long long)(now() - begun));
    report(text);
}

static void sleep_for_ever(void)
{
    for (;;)
        pause();
}

/* Memory that no compressor makes smaller, and no two pages of which are alike. */
static uint64_t *fill(size_t bytes, uint64_t *sum)
{
    uint64_t *words = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (words == MAP_FAILED)
        fail("mmap");
    uint64_t x = 0x9e3779b97f4a7c15u ^ bytes;
    for (size_t i = 0; i < bytes / 8; i++) {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        words[i] = x;
        *sum = (*sum << 1 | *sum >> 63) ^ x;
    }
    return words;
}

static void run_clock(size_t bytes)
{
    uint64_t begun = now(), sum = 0;
    uint64_t *words = fill(bytes, &sum);
    ready(begun);
    uint64_t last = now();
    size_t count = 0;
    for (;;) {
        uint64_t t = now();
        if (t - last >= GAP_NS) {
            /* Full, the later ones count: they are asked for soon. */
            if (count == GAPS_MAX)
                memmove(gaps, gaps + GAPS_MAX / 2, (count = GAPS_MAX / 2) * sizeof *gaps);
            gaps[count].start = last;
            gaps[count++].end = t;
        }
        last = t;
        if (!asked)
            continue;
        asked = 0;
        uint64_t touch = now();
        for (size_t i = 0; i < bytes / 8; i += 512)
            (void)*(volatile uint64_t *)&words[i];
        uint64_t touched = now(), again = 0;
        for (size_t i = 0; i < bytes / 8; i++)
            again = (again << 1 | again >> 63) ^ words[i];
        static char text[64 + GAPS_MAX * GAP_TEXT];
        int at = sprintf(text, "%llu %d", (unsigned long long)(touched - touch), again == sum);
        for (size_t i = 0; i < count; i++)
            at += sprintf(text + at, " %llu %llu", (unsigned long long)gaps[i].start, (unsigned long long)gaps[i].end);
        report(text);
        count = 0;
        last = now();
    }
}

static void *run_thread(void *unused)
{
    (void)unused;
    sleep_for_ever();
    return NULL;
}

static void make_processes(long count)
{
    for (long i = 1; i < count; i++) {
        pid_t child = fork();
        if (child == -1)
            fail("fork");
        if (child == 0)
            sleep_for_ever();
    }
}

static void make_threads(long count)
{
    for (long i = 1; i < count; i++) {
        pthread_t thread;
        errno = pthread_create(&thread, NULL, run_thread, NULL);
        if (errno)
            fail("pthread_create");
    }
}

/* Neighbours of different protection, so that the kernel doesn't make one area of them. */
static void make_vmas(long count)
{
    long page = sysconf(_SC_PAGESIZE);
    char *start = mmap(NULL, (size_t)(count * page), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (start == MAP_FAILED)
        fail("mmap");
    for (long i = 0; i < count; i++) {
        memset(start + i * page, 0x40 | (int)(i & 15), (size_t)page);
        if (i % 2 && mprotect(start + i * page, (size_t)page, PROT_READ) == -1)
            fail("mprotect");
    }
}

static void make_fds(long count)
{
    char path[4096];
    if (snprintf(path, sizeof path, "%s.open", report_path) >= (int)sizeof path)
        exit(1);
    for (long i = 0; i < count; i++) {
        int fd = open(path, O_RDWR | O_CREAT, 0600);
        if (fd == -1)
            fail(path);
        if (lseek(fd, i, SEEK_SET) == -1)
            fail("lseek");
    }
}

int main(int argc, char **argv)
{
    if (argc < 3)
        return 2;
    setsid();
    if (close_range(3, ~0u, 0) == -1)
        fail("close_range");
    if (!strcmp(argv[1], "exec")) {
        execvp(argv[2], argv + 2);
        fail(argv[2]);
    }
    if (argc < 4)
        return 2;
    report_path = argv[2];
    long count = atol(argv[3]);
    if (count < 1)
        return 2;
    struct sigaction action = { .sa_handler = ask, .sa_flags = SA_RESTART };
    sigaction(SIGUSR1, &action, NULL);
    uint64_t begun = now(), sum = 0;
    if (!strcmp(argv[1], "clock"))
        run_clock((size_t)count);
    else if (!strcmp(argv[1], "hold"))
        fill((size_t)count, &sum);
    else if (!strcmp(argv[1], "processes"))
        make_processes(count);
    else if (!strcmp(argv[1], "threads"))
        make_threads(count);
    else if (!strcmp(argv[1], "vmas"))
        make_vmas(count);
    else if (!strcmp(argv[1], "fds"))
        make_fds(count);
    else
        return 2;
    ready(begun);
    sleep_for_ever();
}
