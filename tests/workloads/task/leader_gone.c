/* Processes whose first thread has ended while others work on: the root, with memory, files, timers and a child that it made
 * before; and a child whose threads end one by one.
 */
#include "../workload.h"

static pid_t pid, children[2], pair[2];
static int ends[2];
static char *block;
static _Atomic int ticks;

static void tick(int number)
{
    (void)number;
    ticks++;
}

/* Ends one thread, and nothing else. */
static _Noreturn void end_thread(int status)
{
    for (;;)
        syscall(SYS_exit, status);
}

static void *end_alone(void *unused)
{
    (void)unused;
    pair[1] = gettid();
    progress_as("child");
    while (!finishing()) {
        check(getpid() == pair[0] && gettid() == pair[1]);
        progress();
        sleep_ms(2);
    }
    end_thread(42); /* the last one gives the process its status */
}

static void look(void)
{
    check(getppid() > 0 && getpid() == pid && gettid() != pid);
    check(kill(pid, 0) == 0);
}

static void *work(void *argument)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGALRM);
    must_pthread(pthread_sigmask(SIG_BLOCK, &set, NULL));
    while (access(argument, F_OK) == -1) /* the other thread is there */
        usleep(1000);
    char path[64], state[512] = "";
    snprintf(path, sizeof path, "/proc/self/task/%d/stat", pid);
    while (!strstr(state, ") Z ")) {
        memset(state, 0, sizeof state);
        slurp(path, state, sizeof state - 1);
    }
    loop_until_finish({
        look();
        check_filled(block, 1 << 20, 7, "block");
        write_exactly(ends[1], "x", 1);
        char byte;
        read_exactly(ends[0], &byte, 1);
    });
    wait_exited(children[0], 42);
    wait_exited(children[1], 5);
    int before = ticks;
    while (ticks == before)
        usleep(1000);
    done();
}

static void *take_alarms(void *argument)
{
    close(must(open(argument, O_WRONLY | O_CREAT | O_CLOEXEC, 0644)));
    for (;;)
        pause();
}

int main(int argc, char **argv)
{
    begin(argc, argv);
    pid = getpid();
    if ((children[0] = must(fork())) == 0) {
        pthread_t thread;
        pair[0] = getpid();
        must(prctl(PR_SET_NAME, "first"));
        must_pthread(pthread_create(&thread, NULL, end_alone, NULL));
        end_thread(3);
    }
    if ((children[1] = must(fork())) == 0) {
        progress_as("plain");
        while (!finishing()) {
            check(getppid() == pid);
            progress();
            sleep_ms(2);
        }
        _exit(5);
    }
    must(pipe(ends));
    block = must(mmap(NULL, 1 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    fill(block, 1 << 20, 7);
    struct sigaction action = { .sa_handler = tick, .sa_flags = SA_RESTART };
    must(sigaction(SIGALRM, &action, NULL));
    struct itimerval every = { { 0, 20000 }, { 0, 20000 } };
    static char there[1024];
    snprintf(there, sizeof there, "%s", data_path("there"));
    pthread_t threads[2];
    must_pthread(pthread_create(&threads[0], NULL, work, there));
    must_pthread(pthread_create(&threads[1], NULL, take_alarms, there));
    must(setitimer(ITIMER_REAL, &every, NULL));
    must(prctl(PR_SET_NAME, "gone"));
    end_thread(9);
}
