/* Shared anonymous memory between relatives: a parent and two children pass a token around in it by atomics and futexes, each
 * through its own mapping, one of them a part at an offset; and a second area that only the two children hold.
 */
#include "../workload.h"
#include <linux/futex.h>

struct shared {
    atomic_int token;
    atomic_ulong rounds;
    atomic_int finish;
    char pages[64 * 4096] __attribute__((aligned(4096)));
};
static struct shared *shared;
static atomic_ulong *between;

static void pass(int self)
{
    for (;;) {
        int token = shared->token;
        if (token == self)
            break;
        if (shared->finish == 2)
            return;
        struct timespec limit = { 10, 0 };
        if (syscall(SYS_futex, &shared->token, FUTEX_WAIT, token, &limit, NULL, 0) == -1)
            check(errno == EAGAIN, "futex wait");
    }
    shared->rounds++;
    shared->token = (self + 1) % 3;
    must(syscall(SYS_futex, &shared->token, FUTEX_WAKE, INT_MAX, NULL, NULL, 0));
}

int main(int argc, char **argv)
{
    begin(argc, argv);
    shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    check(shared != MAP_FAILED);
    fill(shared->pages, 20 * 4096, 3);
    between = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    pid_t children[2];
    for (int i = 0; i < 2; i++)
        if ((children[i] = must(fork())) == 0) {
            progress_as(i ? "second" : "first");
            /* The second child keeps a few pages only, at another address. */
            if (i) {
                char *part = mremap(shared->pages + 8 * 4096, 4 * 4096, 4 * 4096, MREMAP_MAYMOVE | MREMAP_FIXED,
                                    mmap(NULL, 4 * 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
                check(part != MAP_FAILED);
            }
            unsigned long last = 0;
            while (shared->finish != 2) {
                pass(i + 1);
                unsigned long now = ++*between;
                check(now > last);
                last = now;
                progress();
                sleep_ms(1);
            }
            shared->pages[30 * 4096 + i] = 'a' + i;
            _exit(0);
        }
    must(munmap(between, 4096));
    unsigned long rounds = 0;
    loop_until_finish({
        pass(0);
        check(shared->rounds > rounds);
        rounds = shared->rounds;
        check_filled(shared->pages, 20 * 4096, 3, "shared pages");
    });
    shared->finish = 2;
    must(syscall(SYS_futex, &shared->token, FUTEX_WAKE, INT_MAX, NULL, NULL, 0));
    wait_exited(children[0], 0);
    wait_exited(children[1], 0);
    check(shared->pages[30 * 4096] == 'a' && shared->pages[30 * 4096 + 1] == 'b');
    done();
}
