/* Open memfds: one with two openings, an offset that a child has too, and a mapping; one that is huge and nearly empty, and
 * that nobody maps; one with seals, one that was sealed against future writers while it was mapped to write.
 */
#include "../workload.h"

enum { P = 4096, SIZE = 20 * P + 5 };
static const off_t HUGE = 1l << 40;

static int fd, again, huge, sealed, future;
static char *map, *window;

static void check_link(int number, const char *name)
{
    char path[64], link[256] = "";
    snprintf(path, sizeof path, "/proc/self/fd/%d", number);
    must(readlink(path, link, sizeof link - 1));
    check(strcmp(link, name) == 0, "%s", link);
}

static void check_all(void)
{
    char block[SIZE];
    check(must(lseek(fd, 0, SEEK_CUR)) == 11 && must(lseek(again, 0, SEEK_CUR)) == P);
    check(must(pread(again, block, SIZE, 0)) == SIZE);
    check_filled(block, SIZE, 1, "the memfd");
    check(memcmp(map, block + P, 2 * P) == 0);
    check_link(fd, "/memfd:a name (deleted)");
    check_link(again, "/memfd:a name (deleted)");
    check(must(fcntl(fd, F_GET_SEALS)) == F_SEAL_SEAL);
    struct stat status;
    must(fstat(huge, &status));
    check(status.st_size == HUGE && status.st_blocks <= 64, "%ld blocks", (long)status.st_blocks);
    check(must(pread(huge, block, 10, HUGE - 4)) == 4 && memcmp(block, "last", 4) == 0);
    check(must(pread(huge, block, 2, HUGE / 2)) == 2 && memcmp(block, "\0\0", 2) == 0);
    check(must(fcntl(huge, F_GET_SEALS)) == 0);
    must(fstat(sealed, &status));
    check((status.st_mode & 07777) == 0500, "mode %#o", status.st_mode);
    check(must(fcntl(sealed, F_GET_SEALS)) == (F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE));
    check(must(pread(sealed, block, SIZE, 0)) == 12 && memcmp(block, "sealed text\n", 12) == 0);
    check(write(sealed, "x", 1) == -1 && errno == EPERM);
    check(must(fcntl(future, F_GET_SEALS)) == F_SEAL_FUTURE_WRITE);
    window[0]++;
    check(must(pread(future, block, 1, 0)) == 1 && block[0] == window[0]);
    check(write(future, "x", 1) == -1 && errno == EPERM);
}

int main(int argc, char **argv)
{
    begin(argc, argv);
    char block[SIZE], path[64];
    fill(block, SIZE, 1);
    fd = must(memfd_create("a name", 0));
    write_exactly(fd, block, SIZE);
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    again = must(open(path, O_RDONLY | O_CLOEXEC));
    map = mmap(NULL, 2 * P, PROT_READ | PROT_WRITE, MAP_SHARED, fd, P);
    check(map != MAP_FAILED);
    must(lseek(fd, 11, SEEK_SET));
    must(lseek(again, P, SEEK_SET));
    huge = must(memfd_create("", MFD_ALLOW_SEALING | MFD_CLOEXEC));
    must(ftruncate(huge, HUGE));
    check(must(pwrite(huge, "last", 4, HUGE - 4)) == 4);
    sealed = must(memfd_create("sealed", MFD_ALLOW_SEALING));
    write_exactly(sealed, "sealed text\n", 12);
    must(fchmod(sealed, 0500));
    must(fcntl(sealed, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE));
    future = must(memfd_create("future", MFD_ALLOW_SEALING));
    must(ftruncate(future, P));
    window = mmap(NULL, P, PROT_READ | PROT_WRITE, MAP_SHARED, future, 0);
    check(window != MAP_FAILED);
    if (fcntl(future, F_ADD_SEALS, F_SEAL_FUTURE_WRITE) == -1)
        fail("no F_SEAL_FUTURE_WRITE");
    pid_t child = must(fork());
    if (child == 0) {
        progress_as("child");
        while (!finishing()) {
            check(must(pread(fd, block, SIZE, 0)) == SIZE);
            check_filled(block, SIZE, 1, "the memfd, in the child");
            progress();
            sleep_ms(2);
        }
        write_exactly(fd, "by the child", 12);
        check(must(pwrite(fd, "mapped", 6, 2 * P)) == 6);
        _exit(0);
    }
    loop_until_finish({
        if (!finishing())
            check_all();
    });
    wait_exited(child, 0);
    check(must(lseek(fd, 0, SEEK_CUR)) == 23);
    check(must(pread(again, block, 12, 11)) == 12 && memcmp(block, "by the child", 12) == 0);
    check(memcmp(map + P, "mapped", 6) == 0);
    check(write(again, block, 1) == -1 && errno == EBADF);
    check(ftruncate(sealed, 5) == -1 && errno == EPERM);
    must(fcntl(sealed, F_ADD_SEALS, F_SEAL_SEAL));
    check(fcntl(sealed, F_ADD_SEALS, F_SEAL_SHRINK) == -1 && errno == EPERM);
    must(ftruncate(fd, P));
    struct stat status;
    must(fstat(again, &status));
    check(status.st_size == P);
    done();
}
