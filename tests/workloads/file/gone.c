/* Directories that were removed: one that is open twice, by O_PATH too, and that two processes work in; one that is half read; and
 * O_PATH descriptors of a symbolic link and of a file that was unlinked.
 */
#include "../workload.h"
#include <dirent.h>

static int open_one, again, path_only, read_one, of_link, of_unlinked;

static void check_gone(int fd, mode_t mode)
{
    struct stat status;
    must(fstat(fd, &status));
    check(S_ISDIR(status.st_mode) && (status.st_mode & 07777) == mode && status.st_nlink == 0, "%#o", status.st_mode);
}

static void check_all(void)
{
    struct stat one, other;
    char text[512];
    check_gone(open_one, 0751);
    check_gone(again, 0751);
    check_gone(path_only, 0751);
    check_gone(read_one, 0700);
    must(fstat(open_one, &one));
    must(stat(".", &other));
    check(one.st_ino == other.st_ino && one.st_dev == other.st_dev);
    must(fstat(path_only, &other));
    check(one.st_ino == other.st_ino);
    check(getcwd(text, sizeof text) == NULL && errno == ENOENT);
    check(open("name", O_CREAT | O_RDWR, 0600) == -1 && errno == ENOENT);
    check(openat(open_one, "name", O_RDONLY) == -1 && errno == ENOENT);
    check(must(fcntl(path_only, F_GETFL)) == (O_PATH | O_DIRECTORY));
    must(fstatat(of_link, "", &one, AT_EMPTY_PATH));
    check(S_ISLNK(one.st_mode));
    check(must(readlinkat(of_link, "", text, sizeof text)) == 7 && memcmp(text, "nowhere", 7) == 0);
    must(fstat(of_unlinked, &one));
    check(one.st_nlink == 0 && one.st_size == 5);
    check(read(of_unlinked, text, 1) == -1 && errno == EBADF);
}

int main(int argc, char **argv)
{
    begin(argc, argv);
    char path[1024];
    snprintf(path, sizeof path, "%s", data_path("removed"));
    must(mkdir(path, 0700));
    must(chmod(path, 0751));
    open_one = must(open(path, O_RDONLY | O_DIRECTORY));
    again = must(open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC));
    path_only = must(open(path, O_PATH | O_DIRECTORY));
    must(chdir(path));
    must(rmdir(path));
    /* Another has the name now. */
    must(mkdir(path, 0711));
    snprintf(path, sizeof path, "%s", data_path("read"));
    must(mkdir(path, 0700));
    read_one = must(open(path, O_RDONLY | O_DIRECTORY));
    char entries[1024];
    check(must(syscall(SYS_getdents64, read_one, entries, sizeof entries)) > 0);
    must(rmdir(path));
    unlink(data_path("link"));
    must(symlink("nowhere", data_path("link")));
    of_link = must(open(data_path("link"), O_PATH | O_NOFOLLOW));
    int fd = must(open(data_path("file"), O_RDWR | O_CREAT | O_TRUNC, 0600));
    write_exactly(fd, "bytes", 5);
    of_unlinked = must(open(data_path("file"), O_PATH));
    must(unlink(data_path("file")));
    must(close(fd));
    pid_t child = must(fork());
    if (child == 0) {
        progress_as("child");
        while (!finishing()) {
            check_all();
            progress();
            sleep_ms(2);
        }
        _exit(0);
    }
    loop_until_finish({
        if (!finishing())
            check_all();
    });
    wait_exited(child, 0);
    check(syscall(SYS_getdents64, open_one, entries, sizeof entries) == -1 && errno == ENOENT);
    snprintf(path, sizeof path, "/proc/self/fd/%d", of_unlinked);
    check(slurp(path, entries, sizeof entries) == 5 && memcmp(entries, "bytes", 5) == 0);
    rmdir(data_path("removed")); /* that of the same name; of two that end one finds it */
    must(chdir("/"));
    must(fchdir(again));
    check(getcwd(path, sizeof path) == NULL && errno == ENOENT);
    done();
}
