/* For the loops over every fault: a family of five processes in two groups, two of them with a second thread, that pass tokens
 * through pipes and shared memory; a zombie and a stopped child stand by.
 */
#include "../workload.h"

static atomic_ulong *counts;

static void *second(void *argument)
{
    int self = (intptr_t)argument;
    for (;;) {
        sleep_ms(2);
        counts[8 + self]++;
    }
    return NULL;
}

static void pass(int self, int in, int out, pid_t parent)
{
    char name[16];
    snprintf(name, sizeof name, "%d", self);
    if (self)
        progress_as(name);
    pid_t pid = getpid();
    if (self % 2) {
        pthread_t thread;
        must_pthread(pthread_create(&thread, NULL, second, (void *)(intptr_t)self));
    }
    for (;;) {
        uint64_t token;
        read_exactly(in, &token, sizeof token);
        check(getpid() == pid && (self == 0 || getppid() == parent));
        if (token == UINT64_MAX) {
            write_exactly(out, &token, sizeof token);
            return;
        }
        check(token % 5 == (uint64_t)self, "token %lu came to %d", token, self);
        check(++counts[self] == token / 5 + 1, "%lu rounds, token %lu", counts[self], token);
        token++;
        progress();
        if (self == 0) {
            sleep_ms(1);
            if (finishing())
                token = UINT64_MAX;
        }
        write_exactly(out, &token, sizeof token);
        if (token == UINT64_MAX && self == 0) {
            read_exactly(in, &token, sizeof token);
            check(token == UINT64_MAX);
            return;
        }
    }
}

int main(int argc, char **argv)
{
    begin(argc, argv);
    counts = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    check(counts != MAP_FAILED);
    int ring[5][2];
    for (int i = 0; i < 5; i++)
        must(pipe(ring[i]));
    pid_t parent = getpid(), children[5] = { 0 }, zombie, stopped;
    for (int i = 1; i < 5; i++)
        if ((children[i] = must(fork())) == 0) {
            if (i >= 3)
                must(setpgid(0, i == 3 ? 0 : children[3]));
            pass(i, ring[i][0], ring[(i + 1) % 5][1], parent);
            _exit(0);
        } else if (i == 3) {
            must(setpgid(children[3], children[3])); /* before the next one joins its group */
        }
    if ((zombie = must(fork())) == 0)
        _exit(33);
    if ((stopped = must(fork())) == 0) {
        raise(SIGSTOP);
        _exit(44);
    }
    siginfo_t info;
    must(waitid(P_PID, zombie, &info, WEXITED | WNOWAIT));
    int status;
    check(must(waitpid(stopped, &status, WUNTRACED)) == stopped && WIFSTOPPED(status));
    uint64_t token = 0;
    write_exactly(ring[0][1], &token, sizeof token);
    ready();
    pass(0, ring[0][0], ring[1][1], 0);
    wait_exited(zombie, 33);
    must(kill(stopped, SIGCONT));
    wait_exited(stopped, 44);
    for (int i = 1; i < 5; i++)
        wait_exited(children[i], 0);
    done();
}
