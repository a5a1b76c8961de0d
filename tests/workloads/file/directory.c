/* Directories: opened, half read, and read on after the checkpoint: every name comes exactly once. Also O_PATH and fchdir(2). */
#include "../workload.h"
#include <dirent.h>

enum { NAMES = 300 };

int main(int argc, char **argv)
{
    begin(argc, argv);
    must(mkdir(data_path("names"), 0755));
    for (int i = 0; i < NAMES; i++) {
        char name[64];
        snprintf(name, sizeof name, "names/entry number %d", i);
        close(must(open(data_path(name), O_WRONLY | O_CREAT, 0600)));
    }
    int seen[NAMES] = { 0 }, count = 0;
    int fd = must(open(data_path("names"), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    int path = must(open(data_path("names"), O_PATH | O_DIRECTORY));
    /* Raw and with a small buffer: nothing is read ahead. */
    struct linux_dirent64 {
        uint64_t inode;
        int64_t offset;
        unsigned short length;
        unsigned char type;
        char name[];
    };
    char buffer[1024] __attribute__((aligned(8)));
    long n = 0;
    bool ready_said = false;
    off_t offset = 0;
    do {
        n = must(syscall(SYS_getdents64, fd, buffer, sizeof buffer));
        for (long at = 0; at < n;) {
            struct linux_dirent64 *entry = (void *)(buffer + at);
            int number;
            if (sscanf(entry->name, "entry number %d", &number) == 1) {
                check(number >= 0 && number < NAMES && !seen[number], "%s came twice", entry->name);
                seen[number] = 1;
                count++;
            }
            at += entry->length;
        }
        if (count > NAMES / 2 && !ready_said) {
            ready_said = true;
            offset = must(lseek(fd, 0, SEEK_CUR));
            loop_until_finish({
                check(must(lseek(fd, 0, SEEK_CUR)) == offset);
                check(must(fcntl(path, F_GETFL)) & O_PATH);
            });
        }
    } while (n > 0);
    check(count == NAMES, "%d of %d names", count, NAMES);
    must(fchdir(path));
    check(access("entry number 7", F_OK) == 0);
    done();
}
