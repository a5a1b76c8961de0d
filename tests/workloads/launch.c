/* Starts a program with nothing inherited but stdin, stdout and stderr: `launch PROGRAM [ARGUMENT...]`.
 *
 * Whoever runs the tests may have left descriptors open, and signals ignored or blocked; none of that is to be part of a tree.
 */
#define _GNU_SOURCE
#include <signal.h>
#include <stdio.h>
#include <unistd.h>

int main(int argc, char **argv)
{
    if (argc < 2)
        return 2;
    for (int number = 1; number < 65; number++)
        signal(number, SIG_DFL);
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    if (close_range(3, ~0u, 0) == -1) {
        perror("close_range");
        return 2;
    }
    execvp(argv[1], argv + 1);
    perror(argv[1]);
    return 2;
}
