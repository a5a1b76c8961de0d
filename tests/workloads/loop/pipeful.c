/* For the loops over every fault: pipes that are always full, with three writers and two readers each in processes of their own.
 * Every message a writer sends carries its name and number, in one atomic write. The readers keep a log in shared memory, a ring
 * for each writer: a message's number takes the place of the one a whole round before it, so that each came exactly once, in
 * however many rounds.
 */
#include "../workload.h"

enum { WRITERS = 3, READERS = 2, RING = 1 << 12 };
static struct shared {
    atomic_ulong sent[WRITERS], got[READERS];
    atomic_ulong log[WRITERS][RING];
} *shared;

struct message {
    uint64_t writer, number;
    unsigned char filling[496];
};

/* What the log holds in a message's place: numbers count from 1. */
static uint64_t before(uint64_t number)
{
    return number > RING ? number - RING : 0;
}

/* Enters a message into the log. The other reader may have read one of a round before and not have entered it yet. */
static void enter(uint64_t writer, uint64_t number)
{
    for (;;) {
        uint64_t there = before(number);
        if (atomic_compare_exchange_strong(&shared->log[writer][number % RING], &there, number))
            return;
        check(there < before(number), "%lu of writer %lu came after %lu", number, writer, there);
        sleep_ms(1);
    }
}

int main(int argc, char **argv)
{
    begin(argc, argv);
    shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    check(shared != MAP_FAILED);
    int ends[2];
    must(pipe(ends));
    pid_t children[WRITERS + READERS];
    for (int i = 0; i < WRITERS + READERS; i++) {
        if ((children[i] = must(fork())) != 0)
            continue;
        char name[16];
        snprintf(name, sizeof name, "%s%d", i < WRITERS ? "writer" : "reader", i);
        progress_as(name);
        struct message message = { 0 };
        if (i < WRITERS) {
            close(ends[0]);
            for (uint64_t number = 1; !finishing(); number++) {
                message.writer = i;
                message.number = number;
                memset(message.filling, number, sizeof message.filling);
                check(must(write(ends[1], &message, sizeof message)) == sizeof message);
                shared->sent[i]++;
                if (number % 64 == 0)
                    progress();
            }
            _exit(0);
        }
        close(ends[1]);
        for (;;) {
            /* A write of at most PIPE_BUF bytes is atomic, and so is a read of the same size while all are equal. */
            ssize_t n = must(read(ends[0], &message, sizeof message));
            if (n == 0)
                _exit(0);
            check(n == sizeof message && message.writer < WRITERS && message.number > 0, "%zd bytes", n);
            for (size_t at = 0; at < sizeof message.filling; at++)
                check(message.filling[at] == (unsigned char)message.number);
            enter(message.writer, message.number);
            shared->got[i - WRITERS]++;
            if (message.number % 64 == 0) {
                progress();
                sleep_ms(1); /* so that the pipe stays full */
            }
        }
    }
    must(close(ends[0]));
    must(close(ends[1]));
    loop_until_finish();
    for (int i = 0; i < WRITERS + READERS; i++)
        wait_exited(children[i], 0);
    uint64_t sent = 0, got = 0;
    for (int i = 0; i < WRITERS; i++) {
        sent += shared->sent[i];
        /* The last round is there, and each number in it has come after the one of the round before. */
        for (uint64_t n = before(shared->sent[i]) + 1; n <= shared->sent[i]; n++)
            check(shared->log[i][n % RING] == n, "%lu of writer %d: the log has %lu", n, i, shared->log[i][n % RING]);
    }
    for (int i = 0; i < READERS; i++)
        got += shared->got[i];
    check(sent == got, "%lu sent, %lu came", sent, got);
    done();
}
