/* What stdin, stdout and stderr belong to the outside: lines read from stdin are answered on stdout, with a count that shows
 * that it is still the same process; "end" ends it. Lines that were half read at the checkpoint are not lost: they are in memory.
 */
#include "../workload.h"

int main(int argc, char **argv)
{
    begin(argc, argv);
    char line[256];
    int count = 0;
    ready();
    size_t length = 0;
    for (;;) {
        ssize_t n = must(read(0, line + length, 1));
        if (n == 0)
            break;
        progress();
        if (line[length] != '\n') {
            check(++length < sizeof line - 1);
            continue;
        }
        line[length] = 0;
        dprintf(1, "%d: %s\n", ++count, line);
        if (strcmp(line, "end") == 0)
            break;
        length = 0;
    }
    dprintf(2, "ended after %d\n", count);
    done();
}
