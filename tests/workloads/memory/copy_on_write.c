/* Private memory shared copy-on-write between relatives: equal where nobody wrote, each one's own where somebody did, and
 * writes after the checkpoint stay with the writer.
 */
#include "../workload.h"

enum { PAGES = 512 };
static char *pages;

static void compare(int self)
{
    for (int i = 0; i < PAGES; i++)
        check_filled(pages + i * 4096, 64, i % 7 == self ? i * 10 + self : i, "page");
}

static void work(int self)
{
    for (int i = 0; i < PAGES; i++)
        if (i % 7 == self)
            fill(pages + i * 4096, 4096, i * 10 + self);
}

int main(int argc, char **argv)
{
    begin(argc, argv);
    pages = mmap(NULL, PAGES * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    check(pages != MAP_FAILED);
    for (int i = 0; i < PAGES; i++)
        fill(pages + i * 4096, 4096, i);
    pid_t children[3];
    for (int i = 0; i < 3; i++)
        if ((children[i] = must(fork())) == 0) {
            char name[16];
            snprintf(name, sizeof name, "%d", i + 1);
            progress_as(name);
            work(i + 1);
            while (!finishing()) {
                compare(i + 1);
                progress();
                sleep_ms(2);
            }
            fill(pages + 7 * 4096, 4096, 1000 + i);
            sleep_ms(20);
            check_filled(pages + 7 * 4096, 4096, 1000 + i, "own page");
            _exit(0);
        }
    work(0);
    loop_until_finish(compare(0));
    for (int i = 0; i < 3; i++)
        wait_exited(children[i], 0);
    compare(0);
    done();
}
