/* Calls that wait without end, one per thread: none may return before what it waits for has come, and then each must.
 *
 * The waits that a signal ends run its handler exactly once; for them EINTR is right, and only then.
 */
#include "../workload.h"
#include <linux/futex.h>
#include <semaphore.h>
#include <sys/select.h>

enum { PAUSE, SIGSUSPEND, SIGWAITINFO, READ, WRITE, FUTEX, POLL, SELECT, PPOLL, SEMAPHORE, CONDITION, WAIT, KINDS };
static const char *names[] = { "pause", "sigsuspend", "sigwaitinfo", "read", "write to a full pipe", "futex", "poll", "select", "ppoll",
                               "sem_wait", "pthread_cond_wait", "wait4" };
static atomic_int waiting[KINDS], returned[KINDS], released[KINDS];
static atomic_int handled[65];
static pthread_t threads[KINDS];
static int empty[2], full[2], polled[2], selected[2];
static int word;
static sem_t semaphore;
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t condition = PTHREAD_COND_INITIALIZER;
static bool condition_set;
static pid_t child;

static void handle(int number) { handled[number]++; }

static void *work(void *argument)
{
    int kind = (intptr_t)argument;
    char byte = 0;
    sigset_t set;
    sigfillset(&set);
    must_pthread(pthread_sigmask(SIG_SETMASK, &set, NULL));
    waiting[kind] = gettid();
    switch (kind) {
    case PAUSE:
        sigemptyset(&set);
        sigaddset(&set, SIGUSR1);
        must_pthread(pthread_sigmask(SIG_UNBLOCK, &set, NULL));
        check(pause() == -1 && errno == EINTR);
        check(handled[SIGUSR1] == 1, "EINTR without a handler");
        break;
    case SIGSUSPEND:
        sigdelset(&set, SIGUSR2);
        check(sigsuspend(&set) == -1 && errno == EINTR);
        check(handled[SIGUSR2] == 1, "EINTR without a handler");
        sigset_t now;
        must_pthread(pthread_sigmask(SIG_SETMASK, NULL, &now));
        check(sigismember(&now, SIGUSR2), "sigsuspend left its own mask behind");
        break;
    case SIGWAITINFO: {
        siginfo_t info;
        sigemptyset(&set);
        sigaddset(&set, SIGRTMIN + 4);
        check(must(uninterrupted(sigwaitinfo(&set, &info))) == SIGRTMIN + 4);
        check(info.si_value.sival_int == 8);
        break;
    }
    case READ:
        check(must(read(empty[0], &byte, 1)) == 1 && byte == 'r');
        break;
    case WRITE:
        check(must(write(full[1], "w", 1)) == 1);
        break;
    case FUTEX:
        must(syscall(SYS_futex, &word, FUTEX_WAIT_PRIVATE, 0, NULL, NULL, 0));
        break;
    case POLL: {
        struct pollfd fd = { polled[0], POLLIN, 0 };
        check(must(poll(&fd, 1, -1)) == 1 && fd.revents == POLLIN);
        break;
    }
    case SELECT: {
        fd_set fds;
        FD_ZERO(&fds);
        FD_SET(selected[0], &fds);
        check(must(select(selected[0] + 1, &fds, NULL, NULL, NULL)) == 1 && FD_ISSET(selected[0], &fds));
        break;
    }
    case PPOLL: {
        sigset_t mask;
        sigfillset(&mask);
        sigdelset(&mask, SIGTERM);
        check(ppoll(NULL, 0, NULL, &mask) == -1 && errno == EINTR);
        check(handled[SIGTERM] == 1, "EINTR without a handler");
        break;
    }
    case SEMAPHORE:
        must(sem_wait(&semaphore));
        break;
    case CONDITION:
        must_pthread(pthread_mutex_lock(&mutex));
        while (!condition_set)
            must_pthread(pthread_cond_wait(&condition, &mutex));
        must_pthread(pthread_mutex_unlock(&mutex));
        break;
    case WAIT:
        wait_exited(child, 9);
        break;
    }
    check(released[kind], "%s returned before it was released", names[kind]);
    returned[kind] = 1;
    return NULL;
}

static void check_waiting(void)
{
    for (int i = 0; i < KINDS; i++)
        check(!returned[i], "%s", names[i]);
}

int main(int argc, char **argv)
{
    begin(argc, argv);
    struct sigaction action = { .sa_handler = handle };
    must(sigaction(SIGUSR1, &action, NULL));
    must(sigaction(SIGUSR2, &action, NULL));
    must(sigaction(SIGTERM, &action, NULL));
    must(pipe(empty));
    must(pipe(full));
    must(pipe(polled));
    must(pipe(selected));
    must(fcntl(full[1], F_SETFL, O_NONBLOCK));
    while (write(full[1], "fffffffffffffffffffffffffffffffff", 33) > 0)
        ;
    while (write(full[1], "f", 1) > 0)
        ;
    must(fcntl(full[1], F_SETFL, 0));
    int ends[2];
    must(pipe(ends));
    child = must(fork());
    if (child == 0) {
        char byte;
        read_exactly(ends[0], &byte, 1);
        _exit(byte);
    }
    sigset_t all;
    sigfillset(&all);
    must(sigprocmask(SIG_SETMASK, &all, NULL));
    for (intptr_t i = 0; i < KINDS; i++)
        must_pthread(pthread_create(&threads[i], NULL, work, (void *)i));
    /* Blocked for sure: the kernel shows them asleep. */
    for (int i = 0; i < KINDS; i++) {
        char path[64], text[256];
        do {
            sleep_ms(1);
            snprintf(path, sizeof path, "/proc/self/task/%d/stat", waiting[i]);
            text[waiting[i] ? slurp(path, text, sizeof text - 1) : 0] = 0;
        } while (!waiting[i] || !strstr(text, ") S"));
    }
    loop_until_finish(check_waiting());
    for (int i = 0; i < KINDS; i++)
        released[i] = 1;
    must_pthread(pthread_kill(threads[PAUSE], SIGUSR1));
    must_pthread(pthread_kill(threads[SIGSUSPEND], SIGUSR2));
    must_pthread(pthread_kill(threads[PPOLL], SIGTERM));
    union sigval value = { .sival_int = 8 };
    must_pthread(pthread_sigqueue(threads[SIGWAITINFO], SIGRTMIN + 4, value));
    write_exactly(empty[1], "r", 1);
    write_exactly(polled[1], "p", 1);
    write_exactly(selected[1], "s", 1);
    char page[65536];
    check(must(read(full[0], page, sizeof page)) > 0);
    check(must(syscall(SYS_futex, &word, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0)) == 1, "nobody waits on the futex");
    must(sem_post(&semaphore));
    must_pthread(pthread_mutex_lock(&mutex));
    condition_set = true;
    must_pthread(pthread_cond_signal(&condition));
    must_pthread(pthread_mutex_unlock(&mutex));
    write_exactly(ends[1], "\x09", 1);
    for (int i = 0; i < KINDS; i++)
        must_pthread(pthread_join(threads[i], NULL));
    done();
}
