/* Mappings of files that lost their names. A library that was upgraded while it was mapped: private mappings of the old inode,
 * some pages written. A scratch file that was unlinked: mapped shared by two processes, at two places, with a hole, and an end
 * within a page. What one writes the other sees, after the checkpoint too.
 */
#include "../workload.h"
#include <sys/uio.h>

enum { P = 4096, LIBRARY = 40 * P, SCRATCH = 600 * P + 123, HOLE = 100 * P, HOLE_END = 500 * P };

static char *code, *data, *shared, *part;

static char *map(size_t size, int prot, int flags, int fd, off_t offset)
{
    char *at = mmap(NULL, size, prot, flags, fd, offset);
    check(at != MAP_FAILED);
    return at;
}

static int make(const char *name, size_t size, uint64_t seed)
{
    int fd = must(open(data_path(name), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0755));
    char *block = malloc(size);
    fill(block, size, seed);
    write_exactly(fd, block, size);
    free(block);
    return fd;
}

/* Whether the first byte of a page can be read, asked so that the answer isn't SIGBUS. */
static bool readable(char *at)
{
    char byte;
    struct iovec to = { &byte, 1 }, from = { at, 1 };
    return process_vm_readv(getpid(), &to, 1, &from, 1, 0) == 1;
}

static void check_all(void)
{
    check_filled(code, 8 * P, 1, "the old library's code");
    char expected[LIBRARY];
    fill(expected, LIBRARY, 1);
    for (int page = 0; page < 20; page++)
        if (page % 5 == 0)
            check_filled(data + page * P, P, 100 + page, "a page of the old library that was written");
        else
            check(memcmp(data + page * P, expected + (10 + page) * P, P) == 0, "page %d of the old library", page);
    check_filled(shared, 50 * P, 3, "the scratch file");
    check(shared[HOLE] == 0 && shared[HOLE_END - 1] == 0);
    check_filled(shared + HOLE_END + P, 99 * P, 4, "the scratch file's end");
    check(shared[SCRATCH - 1] == 7);
    check(!readable(shared + 601 * P), "there is something behind the end of a file");
    check_filled(part, 20 * P, 4, "a part of the scratch file");
}

int main(int argc, char **argv)
{
    begin(argc, argv);
    int fd = make("library", LIBRARY, 1);
    code = map(8 * P, PROT_READ | PROT_EXEC, MAP_PRIVATE, fd, 0);
    data = map(20 * P, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 10 * P);
    close(fd);
    for (int page = 0; page < 20; page += 5)
        fill(data + page * P, P, 100 + page);
    close(make("library.new", LIBRARY, 2));
    char old[1024];
    snprintf(old, sizeof old, "%s", data_path("library"));
    must(rename(data_path("library.new"), old));

    fd = make("scratch", 50 * P, 3);
    must(ftruncate(fd, SCRATCH));
    shared = map(610 * P, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    part = map(20 * P, PROT_READ, MAP_SHARED, fd, HOLE_END + P);
    fill(shared + HOLE_END + P, 99 * P, 4);
    shared[SCRATCH - 1] = 7;
    must(unlink(data_path("scratch")));
    close(fd);

    volatile int *turn = (int *)(shared + 60 * P);
    pid_t child = must(fork());
    if (child == 0) {
        progress_as("child");
        while (!finishing()) {
            check_all();
            check(*turn >= 0);
            progress();
            sleep_ms(2);
        }
        for (int i = 1; i < 1000; i += 2) {
            while (*turn != i)
                sched_yield();
            *turn = i + 1;
        }
        fill(shared + HOLE, P, 9);
        _exit(0);
    }
    loop_until_finish(check_all());
    for (int i = 0; i < 1000; i += 2) {
        *turn = i + 1;
        while (*turn != i + 2)
            sched_yield();
    }
    wait_exited(child, 0);
    check_filled(shared + HOLE, P, 9, "what the child wrote");
    check(!readable(shared + 601 * P));
    /* What was never written is the file's, also after the own page is dropped. */
    must(madvise(data + P, P, MADV_DONTNEED));
    char expected[LIBRARY];
    fill(expected, LIBRARY, 1);
    check(memcmp(data + P, expected + 11 * P, P) == 0);
    /* The new library is nobody's business. */
    fd = must(open(data_path("library"), O_RDONLY | O_CLOEXEC));
    char now[LIBRARY];
    read_exactly(fd, now, sizeof now);
    close(fd);
    check_filled(now, sizeof now, 2, "the new library");
    done();
}
