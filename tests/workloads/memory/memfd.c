/* Mapped memfds that nobody has open any more: shared between processes, written in one place and executed in another, privately
 * mapped, with a hole, with seals.
 */
#include "../workload.h"

enum { P = 4096 };

static char *map(size_t size, int prot, int flags, int fd, off_t offset)
{
    char *at = mmap(NULL, size, prot, flags, fd, offset);
    check(at != MAP_FAILED);
    return at;
}

static int make(const char *name, size_t size, unsigned flags)
{
    int fd = must(memfd_create(name, MFD_CLOEXEC | flags));
    must(ftruncate(fd, size));
    return fd;
}

/* Fails unless maps calls the area at this address so. */
static void check_name(const void *at, const char *name)
{
    char line[1024], start[32];
    snprintf(start, sizeof start, "%lx-", (unsigned long)at);
    FILE *maps = fopen("/proc/self/maps", "re");
    check(maps != NULL);
    while (fgets(line, sizeof line, maps))
        if (strncmp(line, start, strlen(start)) == 0)
            break;
    fclose(maps);
    check(strstr(line, name) != NULL, "%s", line);
}

int main(int argc, char **argv)
{
    begin(argc, argv);
    int fd = make("common", 300 * P, 0);
    char *common = map(300 * P, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    char *own = map(10 * P, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 2 * P);
    must(close(fd));
    fill(common, 20 * P, 1);
    fill(common + 290 * P, 10 * P, 2);
    fill(own + P, P, 3);

    /* mov $42, %eax; ret: as a compiler at run time does that never has a page writable and executable. */
    fd = make("code", P, 0);
    char *code = map(P, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    int (*run)(void) = (int (*)(void))map(P, PROT_READ | PROT_EXEC, MAP_SHARED, fd, 0);
    must(close(fd));
    memcpy(code, "\xb8\x2a\0\0\0\xc3", 6);

    fd = make("sealed", 3 * P + 7, MFD_ALLOW_SEALING);
    char *text = map(4 * P, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    fill(text, 3 * P + 7, 4);
    must(munmap(text, 4 * P));
    must(fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE | F_SEAL_SEAL));
    text = map(4 * P, PROT_READ, MAP_SHARED, fd, 0);
    must(close(fd));

    check_name(common, "/memfd:common (deleted)");
    volatile int *turn = (int *)(common + 100 * P);
    pid_t child = must(fork());
    if (child == 0) {
        progress_as("child");
        while (!finishing()) {
            check_filled(common, 20 * P, 1, "the common memfd, in the child");
            progress();
            sleep_ms(2);
        }
        while (*turn == 0)
            sched_yield();
        memcpy(code, "\xb8\x2b\0\0\0\xc3", 6);
        *turn = 2;
        _exit(0);
    }
    char expected[20 * P];
    fill(expected, sizeof expected, 1);
    loop_until_finish({
        check_filled(common, 20 * P, 1, "the common memfd");
        check_filled(common + 290 * P, 10 * P, 2, "the common memfd's end");
        check_filled(own + P, P, 3, "an own page");
        check(memcmp(own + 2 * P, expected + 4 * P, 8 * P) == 0);
        check_filled(text, 3 * P + 7, 4, "the sealed memfd");
        check(run() == 42);
    });
    *turn = 1;
    while (*turn == 1)
        sched_yield();
    wait_exited(child, 0);
    check(run() == 43);
    check_name(common, "/memfd:common (deleted)");
    check_name(text, "/memfd:sealed (deleted)");
    check(mprotect(text, P, PROT_READ | PROT_WRITE) == -1 && errno == EACCES);
    /* Another page of the private mapping is still the memfd's. */
    common[4 * P] ^= 1;
    check(own[2 * P] == common[4 * P]);
    done();
}
