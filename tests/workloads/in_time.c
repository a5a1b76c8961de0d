/* Starts a program in a time namespace of its own: `in_time SECONDS PROGRAM [ARGUMENT...]`. There CLOCK_MONOTONIC and
 * CLOCK_BOOTTIME are that far ahead, as on a machine that has been up for longer. Exit code 77: that isn't allowed here.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#ifndef CLONE_NEWTIME
#define CLONE_NEWTIME 0x80
#endif

int main(int argc, char **argv)
{
    if (argc < 3)
        return 2;
    if (unshare(CLONE_NEWTIME) == -1)
        return errno == EPERM || errno == EINVAL ? 77 : 2;
    char offsets[128];
    long seconds = atol(argv[1]);
    int n = snprintf(offsets, sizeof offsets, "monotonic %ld 0\nboottime %ld 5\n", seconds, seconds + 5000);
    int fd = open("/proc/self/timens_offsets", O_WRONLY | O_CLOEXEC);
    if (fd == -1 || write(fd, offsets, n) != n) {
        perror("timens_offsets");
        return 2;
    }
    /* Who executes a program enters the namespace that was made for its children. */
    execvp(argv[2], argv + 2);
    perror(argv[2]);
    return 2;
}
