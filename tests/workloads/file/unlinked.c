/* Files without a name: one that was unlinked, with two openings, a shared offset, a mapping, a hole and a lock; one to append to; one
 * in a directory that is gone too; and one that O_TMPFILE made, which can still be given a name.
 */
#include "../workload.h"
#include <sys/file.h>

enum { P = 4096, SIZE = 40 * P + 77, FAR = 1 << 30 };

static int fd, again, log_fd, orphan, temporary;
static char *map;
static int flags[5];
static mode_t modes[5];

static void check_all(void)
{
    static char block[SIZE];
    int all[] = { fd, again, log_fd, orphan, temporary };
    for (int i = 0; i < 5; i++) {
        struct stat status;
        check(must(fcntl(all[i], F_GETFL)) == flags[i], "%d: flags %#o, were %#o", i, fcntl(all[i], F_GETFL), flags[i]);
        must(fstat(all[i], &status));
        check(status.st_nlink == 0 && status.st_mode == modes[i], "%d: mode %#o", i, status.st_mode);
    }
    check(must(lseek(fd, 0, SEEK_CUR)) == 100 && must(lseek(again, 0, SEEK_CUR)) == 5 * P);
    check(must(pread(again, block, SIZE, 0)) == SIZE);
    check_filled(block, SIZE, 1, "the unlinked file");
    check(memcmp(map, block + P, 10 * P) == 0);
    struct stat one, other;
    must(fstat(fd, &one));
    must(fstat(again, &other));
    check(one.st_ino == other.st_ino && one.st_dev == other.st_dev && one.st_size == FAR + 3);
    check(one.st_blocks < 2048, "%ld blocks", (long)one.st_blocks);
    check(must(pread(orphan, block, 10, 0)) == 6 && memcmp(block, "orphan", 6) == 0);
    check(must(pread(temporary, block, SIZE, 0)) == P);
    check_filled(block, P, 9, "the temporary file");
}

static int make(const char *name, int mode)
{
    int made = must(open(data_path(name), mode | O_CREAT | O_TRUNC, 0640));
    must(unlink(data_path(name)));
    return made;
}

int main(int argc, char **argv)
{
    begin(argc, argv);
    static char block[SIZE];
    fill(block, SIZE, 1);
    fd = must(open(data_path("scratch"), O_RDWR | O_CREAT | O_TRUNC, 0640));
    again = must(open(data_path("scratch"), O_RDONLY | O_NONBLOCK));
    must(unlink(data_path("scratch")));
    write_exactly(fd, block, SIZE);
    check(must(pwrite(fd, "far", 3, FAR)) == 3);
    map = mmap(NULL, 10 * P, PROT_READ | PROT_WRITE, MAP_SHARED, fd, P);
    check(map != MAP_FAILED);
    must(lseek(fd, 100, SEEK_SET));
    must(lseek(again, 5 * P, SEEK_SET));
    must(flock(fd, LOCK_EX));
    log_fd = make("log", O_WRONLY | O_APPEND | O_SYNC);
    write_exactly(log_fd, "first\n", 6);
    must(mkdir(data_path("gone"), 0700));
    orphan = make("gone/orphan", O_RDWR);
    must(rmdir(data_path("gone")));
    write_exactly(orphan, "orphan", 6);
    temporary = must(open(data_path("."), O_TMPFILE | O_RDWR, 0604));
    fill(block, P, 9);
    write_exactly(temporary, block, P);
    int all[] = { fd, again, log_fd, orphan, temporary };
    for (int i = 0; i < 5; i++) {
        struct stat status;
        flags[i] = must(fcntl(all[i], F_GETFL));
        must(fstat(all[i], &status));
        modes[i] = status.st_mode;
    }
    check(flags[4] & (O_TMPFILE & ~O_DIRECTORY), "%#o", flags[4]);
    pid_t child = must(fork());
    if (child == 0) {
        progress_as("child");
        while (!finishing()) {
            check_all();
            progress();
            sleep_ms(2);
        }
        /* What one writes, all others see: by the offset that the parent has too, by the other opening, and in memory. */
        write_exactly(fd, "written by the child", 20);
        check(must(pwrite(fd, "mapped", 6, 2 * P)) == 6);
        _exit(0);
    }
    ready();
    while (!finishing()) {
        check_all();
        progress();
        sleep_ms(2);
    }
    wait_exited(child, 0);
    check(must(lseek(fd, 0, SEEK_CUR)) == 120);
    check(must(pread(again, block, 20, 100)) == 20 && memcmp(block, "written by the child", 20) == 0);
    check(memcmp(map + P, "mapped", 6) == 0);
    memcpy(map, "from memory", 11);
    check(must(pread(again, block, 11, P)) == 11 && memcmp(block, "from memory", 11) == 0);
    check(write(again, block, 1) == -1 && errno == EBADF);
    check(must(pread(fd, block, 10, FAR)) == 3 && memcmp(block, "far", 3) == 0);
    write_exactly(log_fd, "second\n", 7);
    char path[64];
    snprintf(path, sizeof path, "/proc/self/fd/%d", log_fd);
    check(slurp(path, block, 100) == 13 && memcmp(block, "first\nsecond\n", 13) == 0);
    /* The lock is still there. */
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    int other = must(open(path, O_RDONLY));
    check(flock(other, LOCK_SH | LOCK_NB) == -1 && errno == EWOULDBLOCK);
    check(linkat(AT_FDCWD, path, AT_FDCWD, data_path("named"), AT_SYMLINK_FOLLOW) == -1 && errno == ENOENT);
    snprintf(path, sizeof path, "/proc/self/fd/%d", temporary);
    must(linkat(AT_FDCWD, path, AT_FDCWD, data_path("named"), AT_SYMLINK_FOLLOW));
    check(slurp(data_path("named"), block, SIZE) == P);
    must(unlink(data_path("named")));
    done();
}
