/* For the loops over every fault: pipes that are always full, with three writers and two readers each in processes of their own.
 * Every number a writer sends carries its name and count, in one atomic write: the readers' logs, in shared memory, say at the
 * end that each came exactly once.
 */
#include "../workload.h"

enum { WRITERS = 3, READERS = 2, MOST = 1 << 22 };
static struct shared {
    atomic_ulong sent[WRITERS], got[READERS];
    atomic_uchar seen[WRITERS][MOST / 8];
} *shared;

struct message {
    uint32_t writer, number;
    unsigned char filling[504];
};

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
            for (uint32_t number = 0; number < MOST && !finishing(); number++) {
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
            check(n == sizeof message && message.writer < WRITERS && message.number < MOST, "%zd bytes", n);
            for (size_t at = 0; at < sizeof message.filling; at++)
                check(message.filling[at] == (unsigned char)message.number);
            unsigned char bit = 1 << message.number % 8;
            check(!(atomic_fetch_or(&shared->seen[message.writer][message.number / 8], bit) & bit), "%u of writer %u came twice",
                  message.number, message.writer);
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
        for (uint64_t n = 0; n < shared->sent[i]; n++)
            check(shared->seen[i][n / 8] >> n % 8 & 1, "%lu of writer %d is lost", n, i);
    }
    for (int i = 0; i < READERS; i++)
        got += shared->got[i];
    check(sent == got, "%lu sent, %lu came", sent, got);
    done();
}
