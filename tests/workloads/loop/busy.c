/* For the loops over every fault: a process that is busy in many threads and in any system call, and notices at once what a
 * checkpoint did to it: a register, a byte, an early or interrupted wait, a mapping or descriptor that came from nowhere.
 */
#include "../workload.h"
#include <dirent.h>
#include <linux/futex.h>

enum { COMPUTE, PING, PONG, SLEEP, WRITER, READER, MAPS, FORKS, POLLS, SIGNALS, FUTEX_TIMEOUT, KINDS };

static atomic_int turns[KINDS];
static atomic_bool stop;
static int word, ends[2];

/* Spins with known values in the registers that a compiler would never keep there for so long. */
static void compute(void)
{
    uint64_t a = 0x1111111111111111, b = 0x2222222222222222, count = 200000, lane[8], wide[8];
    fill(lane, sizeof lane, 5);
    __asm__ volatile("movdqu (%[in]),%%xmm7\n movdqu 16(%[in]),%%xmm15\n movq 32(%[in]),%%r8\n movq 40(%[in]),%%r15\n"
                     "movq %%r8,-64(%%rsp)\n"
                     "1: addq $3,%[a]\n addq $5,%[b]\n decq %[count]\n jnz 1b\n"
                     "movq -64(%%rsp),%%r9\n"
                     "movdqu %%xmm7,(%[out])\n movdqu %%xmm15,16(%[out])\n movq %%r9,32(%[out])\n movq %%r15,40(%[out])\n"
                     : [a] "+r"(a), [b] "+r"(b), [count] "+r"(count)
                     : [in] "r"(lane), [out] "r"(wide)
                     : "xmm7", "xmm15", "r8", "r9", "r15", "memory", "cc");
    check(a == 0x1111111111111111 + 600000 && b == 0x2222222222222222 + 1000000 && count == 0);
    check(memcmp(lane, wide, 48) == 0);
}

static void turn_word(int mine)
{
    while (__atomic_load_n(&word, __ATOMIC_SEQ_CST) % 2 != mine) {
        int now = __atomic_load_n(&word, __ATOMIC_SEQ_CST);
        if (now % 2 != mine && syscall(SYS_futex, &word, FUTEX_WAIT_PRIVATE, now, NULL, NULL, 0) == -1)
            check(errno == EAGAIN, "futex");
    }
    __atomic_add_fetch(&word, 1, __ATOMIC_SEQ_CST);
    must(syscall(SYS_futex, &word, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0));
}

static void maps(int turn)
{
    size_t size = (1 + turn % 13) * 4096;
    char *at = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    check(at != MAP_FAILED);
    fill(at, size, turn);
    at = mremap(at, size, size + 8192, MREMAP_MAYMOVE);
    check(at != MAP_FAILED);
    check_filled(at, size, turn, "mapping");
    must(munmap(at, size + 8192));
}

static void *work(void *argument)
{
    int kind = (intptr_t)argument;
    uint64_t sent = 0, got = 0;
    sigset_t set;
    for (int turn = 0; !stop; turn++) {
        switch (kind) {
        case COMPUTE:
            compute();
            break;
        case PING:
            turn_word(0);
            break;
        case PONG:
            turn_word(1);
            break;
        case SLEEP:
            sleep_ms(3);
            break;
        case WRITER:
            write_exactly(ends[1], &sent, sizeof sent);
            sent++;
            break;
        case READER: {
            uint64_t value;
            read_exactly(ends[0], &value, sizeof value);
            check(value == got, "%lu came, not %lu", value, got);
            got++;
            break;
        }
        case MAPS:
            maps(turn);
            break;
        case FORKS: {
            pid_t child = must(fork());
            if (child == 0)
                _exit(turn % 100);
            wait_exited(child, turn % 100);
            sleep_ms(1);
            break;
        }
        case POLLS:
            check(must(poll(NULL, 0, 2)) == 0);
            break;
        case SIGNALS: {
            sigemptyset(&set);
            sigaddset(&set, SIGUSR1);
            struct timespec t = { 0, 2000000 };
            check(uninterrupted(sigtimedwait(&set, NULL, &t)) == -1 && errno == EAGAIN, "sigtimedwait");
            break;
        }
        case FUTEX_TIMEOUT: {
            int own = 3;
            struct timespec t = { 0, 2000000 };
            check(syscall(SYS_futex, &own, FUTEX_WAIT_PRIVATE, 3, &t, NULL, 0) == -1 && errno == ETIMEDOUT, "futex time-out");
            break;
        }
        }
        turns[kind]++;
    }
    return NULL;
}

int main(int argc, char **argv)
{
    begin(argc, argv);
    must(pipe(ends));
    sigset_t all;
    sigfillset(&all);
    must(sigprocmask(SIG_BLOCK, &all, NULL));
    for (intptr_t i = 0; i < KINDS; i++) {
        pthread_t thread;
        must_pthread(pthread_create(&thread, NULL, work, (void *)i));
    }
    int seen[KINDS] = { 0 };
    ready();
    while (!finishing()) {
        for (int i = 0; i < KINDS; i++)
            while (turns[i] == seen[i] && !finishing())
                sleep_ms(1);
        for (int i = 0; i < KINDS; i++)
            seen[i] = turns[i];
        progress();
    }
    done();
}
