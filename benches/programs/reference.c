/* The least that has to be done: what a checkpoint or a restart is measured against. Prints the nanoseconds it took.
 *
 *   reference write FILE BYTES      write(2) of memory without a pattern into a new file, and fsync(2)
 *   reference read FILE BYTES       MADV_POPULATE_WRITE of fresh memory, and read(2) of a file's bytes into it
 *   reference copy BYTES            memcpy of memory that is there to memory that is there
 *   reference warm BYTES            touches memory and lets it go: a host may have taken it back, and be slow to give it again
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif

/* Small enough to be the fastest: ext4 takes large pieces in large folios, and was seen to be several times as slow then. */
enum { PIECE = 64 << 10 };

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

static char *fresh(size_t bytes)
{
    char *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED)
        fail("mmap");
    return memory;
}

static char *full(size_t bytes)
{
    char *memory = fresh(bytes);
    uint64_t x = 88172645463325252u;
    for (size_t i = 0; i < bytes / 8; i++) {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        ((uint64_t *)memory)[i] = x;
    }
    return memory;
}

static uint64_t run_write(const char *path, size_t bytes)
{
    char *memory = full(bytes);
    uint64_t begun = now();
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL, 0600);
    if (fd == -1)
        fail(path);
    for (size_t at = 0; at < bytes;) {
        ssize_t n = write(fd, memory + at, bytes - at < PIECE ? bytes - at : PIECE);
        if (n <= 0)
            fail("write");
        at += (size_t)n;
    }
    if (fsync(fd) == -1)
        fail("fsync");
    close(fd);
    return now() - begun;
}

static uint64_t run_read(const char *path, size_t bytes)
{
    uint64_t begun = now();
    int fd = open(path, O_RDONLY);
    if (fd == -1)
        fail(path);
    char *memory = fresh(bytes);
    if (madvise(memory, bytes, MADV_POPULATE_WRITE) == -1)
        fail("MADV_POPULATE_WRITE");
    for (size_t at = 0; at < bytes;) {
        ssize_t n = read(fd, memory + at, bytes - at < PIECE ? bytes - at : PIECE);
        if (n <= 0)
            fail("read");
        at += (size_t)n;
    }
    return now() - begun;
}

static uint64_t run_copy(size_t bytes)
{
    char *from = full(bytes), *to = full(bytes);
    uint64_t begun = now();
    memcpy(to, from, bytes);
    uint64_t ended = now();
    if (memcmp(from, to, bytes))
        exit(1);
    return ended - begun;
}

int main(int argc, char **argv)
{
    uint64_t took;
    if (argc == 4 && !strcmp(argv[1], "write"))
        took = run_write(argv[2], strtoul(argv[3], NULL, 10));
    else if (argc == 4 && !strcmp(argv[1], "read"))
        took = run_read(argv[2], strtoul(argv[3], NULL, 10));
    else if (argc == 3 && !strcmp(argv[1], "copy"))
        took = run_copy(strtoul(argv[2], NULL, 10));
    else if (argc == 3 && !strcmp(argv[1], "warm")) {
        uint64_t begun = now();
        size_t bytes = strtoul(argv[2], NULL, 10);
        memset(fresh(bytes), 1, bytes);
        took = now() - begun;
    } else
        return 2;
    printf("%llu\n", (unsigned long long)took);
    return 0;
}
