/* Flags of open files that others leave out: O_DIRECT from the beginning and set later, O_NOATIME set later, O_TMPFILE on a file
 * system in memory; and O_PATH in its variants: of a directory, a FIFO, a device, a symbolic link itself, and by another O_PATH.
 */
#include "../workload.h"

enum { FILES = 10 };
static int files[FILES], status[FILES];

static bool is(int fd, mode_t kind, const char *path)
{
    struct stat one, other;
    must(fstat(fd, &one));
    must(lstat(path, &other));
    return (one.st_mode & S_IFMT) == kind && one.st_dev == other.st_dev && one.st_ino == other.st_ino;
}

int main(int argc, char **argv)
{
    begin(argc, argv);
    char *page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    check(page != MAP_FAILED);
    fill(page, 4096, 1);
    int fd = must(open(data_path("file"), O_RDWR | O_CREAT | O_TRUNC, 0644));
    write_exactly(fd, page, 4096);
    must(close(fd));
    if (mkfifo(data_path("fifo"), 0600) == -1)
        check(errno == EEXIST);
    if (symlink("nowhere", data_path("link")) == -1)
        check(errno == EEXIST);
    char below[700];
    snprintf(below, sizeof below, "%s/data", workload_dir);

    files[0] = open(data_path("file"), O_RDWR | O_DIRECT);
    bool direct = files[0] != -1; /* not every file system knows it */
    if (!direct)
        files[0] = must(open(data_path("file"), O_RDWR));
    files[1] = must(open(data_path("file"), O_RDWR));
    must(fcntl(files[1], F_SETFL, (direct ? O_DIRECT : 0) | O_NOATIME | O_APPEND));
    files[2] = must(open("/dev/shm", O_TMPFILE | O_RDWR, 0600));
    write_exactly(files[2], "kept", 4);
    files[3] = must(open(below, O_PATH | O_DIRECTORY));
    files[4] = must(openat(files[3], "fifo", O_PATH));
    files[5] = must(open("/dev/null", O_PATH));
    files[6] = must(openat(files[3], "link", O_PATH | O_NOFOLLOW));
    files[7] = must(openat(files[3], "file", O_PATH | O_CLOEXEC));
    files[8] = must(open(below, O_RDONLY | O_DIRECTORY | O_NOFOLLOW));
    files[9] = must(open("/dev/null", O_RDWR | O_SYNC | O_APPEND | O_NONBLOCK));
    for (int i = 0; i < FILES; i++)
        status[i] = must(fcntl(files[i], F_GETFL));

    loop_until_finish({
        for (int i = 0; i < FILES; i++)
            check(must(fcntl(files[i], F_GETFL)) == status[i], "%d: %#o, was %#o", i, fcntl(files[i], F_GETFL), status[i]);
        check(is(files[3], S_IFDIR, below) && is(files[4], S_IFIFO, data_path("fifo")) && is(files[5], S_IFCHR, "/dev/null"));
        check(is(files[6], S_IFLNK, data_path("link")) && is(files[7], S_IFREG, data_path("file")));
        check(must(fcntl(files[7], F_GETFD)) == FD_CLOEXEC && must(fcntl(files[6], F_GETFD)) == 0);
    });

    /* What isn't aligned is refused by the file system, as long as the flag is there. */
    check(must(pread(files[0], page, 4096, 0)) == 4096);
    check_filled(page, 4096, 1, "the file");
    char target[32];
    check(must(readlinkat(files[6], "", target, sizeof target)) == 7 && memcmp(target, "nowhere", 7) == 0);
    check(read(files[4], target, 1) == -1 && errno == EBADF);
    fd = must(openat(files[3], "file", O_RDONLY));
    check(must(read(fd, page, 4096)) == 4096);
    check_filled(page, 4096, 1, "the file, by its directory");
    snprintf(target, sizeof target, "/proc/self/fd/%d", files[7]);
    must(close(must(open(target, O_RDWR))));
    check(must(pread(files[2], target, 4, 0)) == 4 && memcmp(target, "kept", 4) == 0);
    must(fchdir(files[3]));
    done();
}
