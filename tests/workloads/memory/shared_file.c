/* Shared mappings of a file: what is written there is in the file, and what is written to the file is there; in two processes,
 * and through a read-only mapping.
 */
#include "../workload.h"

int main(int argc, char **argv)
{
    begin(argc, argv);
    static char block[16 * 4096];
    int fd = must(open(data_path("shared"), O_RDWR | O_CREAT | O_TRUNC, 0644));
    fill(block, sizeof block, 6);
    write_exactly(fd, block, sizeof block);
    char *shared = mmap(NULL, sizeof block, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    char *view = mmap(NULL, 4096, PROT_READ, MAP_SHARED, fd, 8 * 4096);
    check(shared != MAP_FAILED && view != MAP_FAILED);
    fill(shared + 8 * 4096, 4096, 77);
    fill(block + 8 * 4096, 4096, 77);
    pid_t child = must(fork());
    if (child == 0) {
        progress_as("child");
        while (!finishing()) {
            check(memcmp(shared, block, sizeof block) == 0);
            progress();
            sleep_ms(2);
        }
        /* The parent writes a word after finishing(); wait for it, then answer. */
        while (((volatile char *)shared)[0] != 'P')
            sleep_ms(1);
        shared[4096] = 'C';
        _exit(0);
    }
    loop_until_finish({
        if (!finishing())
            check(memcmp(shared, block, sizeof block) == 0);
        check(memcmp(view, block + 8 * 4096, 4096) == 0);
    });
    sleep_ms(10);
    shared[0] = 'P';
    wait_exited(child, 0);
    char byte;
    int again = must(open(data_path("shared"), O_RDWR));
    check(must(pread(again, &byte, 1, 4096)) == 1 && byte == 'C', "a write through the mapping isn't in the file");
    check(must(pread(fd, &byte, 1, 0)) == 1 && byte == 'P');
    must(pwrite(again, "F", 1, 8 * 4096));
    check(view[0] == 'F' && shared[8 * 4096] == 'F', "a write to the file isn't in the mapping");
    must(ftruncate(again, 20 * 4096));
    done();
}
