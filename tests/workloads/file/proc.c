/* Files of proc and sysfs: those of a process itself, of a thread, of its child; of the system; directories, in the middle of a
 * read; duplicates with one offset.
 */
#include "../workload.h"
#include <dirent.h>

enum { FILES = 10 };
static struct {
    const char *name;
    int flags;
    off_t offset;
    int fd;
} files[FILES] = {
    { "/proc/self/auxv", O_RDONLY, 32, 0 },
    { "/proc/self/status", O_RDONLY | O_CLOEXEC, 0, 0 },
    { "/proc/self/maps", O_RDONLY | O_NONBLOCK, 0, 0 },
    { "/proc/self/mem", O_RDWR, 0, 0 },
    { "/proc/self/fd", O_RDONLY | O_DIRECTORY, 0, 0 },
    { "/proc/thread-self/comm", O_RDWR, 3, 0 },
    { "/proc/meminfo", O_RDONLY, 100, 0 },
    { "/proc/sys/kernel/ostype", O_RDONLY, 2, 0 },
    { "/proc", O_RDONLY | O_DIRECTORY, 0, 0 },
    { "/sys/devices/system/cpu/online", O_RDONLY, 1, 0 },
};
static int duplicate, of_child;
static char auxv[4096];
static ssize_t auxv_size;
static volatile long in_memory = 0x1234567;

static void check_all(void)
{
    char text[8192];
    for (int i = 0; i < FILES; i++) {
        check(must(lseek(files[i].fd, 0, SEEK_CUR)) == files[i].offset, "%s", files[i].name);
        int differs = (must(fcntl(files[i].fd, F_GETFL)) ^ files[i].flags) & (O_ACCMODE | O_NONBLOCK | O_DIRECTORY);
        check(differs == 0, "%s: %#o", files[i].name, differs);
        check(must(fcntl(files[i].fd, F_GETFD)) == (files[i].flags & O_CLOEXEC ? FD_CLOEXEC : 0));
    }
    check(must(pread(files[0].fd, text, sizeof text, 0)) == auxv_size && memcmp(text, auxv, auxv_size) == 0);
    long found;
    check(must(pread(files[3].fd, &found, sizeof found, (off_t)&in_memory)) == sizeof found && found == in_memory);
    ssize_t n = must(pread(files[1].fd, text, sizeof text - 1, 0));
    text[n] = 0;
    char expected[32];
    snprintf(expected, sizeof expected, "\nPid:\t%d\n", getpid());
    check(strstr(text, expected) != NULL, "%s", text);
    n = must(pread(of_child, text, sizeof text - 1, 0));
    text[n] = 0;
    snprintf(expected, sizeof expected, "\nPPid:\t%d\n", getpid());
    check(strstr(text, expected) != NULL, "%s", text);
    check(must(pread(files[7].fd, text, 10, 0)) == 6 && memcmp(text, "Linux\n", 6) == 0);
}

/* How many entries a directory has; closes it. */
static int count(int fd)
{
    DIR *directory = fdopendir(fd);
    check(directory != NULL);
    int entries = 0;
    for (struct dirent *entry; (entry = readdir(directory));)
        entries += entry->d_name[0] != '.';
    closedir(directory);
    return entries;
}

int main(int argc, char **argv)
{
    begin(argc, argv);
    pid_t child = must(fork());
    if (child == 0) {
        progress_as("child");
        while (!finishing()) {
            progress();
            sleep_ms(2);
        }
        _exit(0);
    }
    for (int i = 0; i < FILES; i++) {
        files[i].fd = must(open(files[i].name, files[i].flags));
        if (files[i].offset)
            must(lseek(files[i].fd, files[i].offset, SEEK_SET));
    }
    auxv_size = must(pread(files[0].fd, auxv, sizeof auxv, 0));
    duplicate = must(dup(files[0].fd));
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/status", child);
    of_child = must(open(path, O_RDONLY));
    /* A number below all of these is free. */
    must(close(0));
    int again = must(open("/proc/self/fd", O_RDONLY | O_DIRECTORY));
    int descriptors = count(again) - 1;
    loop_until_finish({
        if (!finishing())
            check_all();
    });
    char text[8192];
    read_exactly(duplicate, text, 48);
    check(memcmp(text, auxv + 32, 48) == 0);
    check(must(lseek(files[0].fd, 0, SEEK_CUR)) == 80);
    check(must(pwrite(files[3].fd, "\x7f", 1, (off_t)&in_memory)) == 1);
    check(in_memory == 0x123457f, "%lx", in_memory);
    check(must(read(files[5].fd, text, 100)) > 0);
    must(lseek(files[5].fd, 0, SEEK_SET));
    write_exactly(files[5].fd, "new name", 8);
    check(slurp("/proc/self/comm", text, 100) == 9 && memcmp(text, "new name\n", 9) == 0);
    check(count(files[4].fd) == descriptors);
    wait_exited(child, 0);
    /* It stood for the child, not for its number. */
    check(pread(of_child, text, 1, 0) == -1 && errno == ESRCH);
    done();
}
