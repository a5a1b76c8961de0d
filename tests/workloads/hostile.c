/* Trees that are hard to catch, named by the second argument: they fork, exec, spawn threads or die while they are being frozen.
 * Also one that
 * exits with a status of its own when it is told to by a signal. All are bounded, all check themselves, and go on until they are told to finish (or, for "dies", die).
 */
#include "workload.h"

static atomic_int threads_alive;
static void *short_lived(void *argument)
{
    sleep_ms(1 + (intptr_t)argument % 3);
    threads_alive--;
    return NULL;
}

static void on_signal(int number)
{
    if (number == SIGTERM)
        _exit(42);
    char path[1024];
    snprintf(path, sizeof path, "%s/seen", workload_dir);
    close(must(open(path, O_WRONLY | O_CREAT, 0644)));
}

int main(int argc, char **argv)
{
    begin(argc, argv);
    check(argc >= 3);
    const char *what = argv[2];
    if (strcmp(what, "forks") == 0) {
        /* Eight at a time; each child forks once more. */
        int alive = 0, turn = 0, status;
        ready();
        while (!finishing()) {
            while (alive < 8) {
                pid_t child = must(fork());
                if (child == 0) {
                    pid_t grandchild = must(fork());
                    if (grandchild == 0)
                        _exit(9);
                    wait_exited(grandchild, 9);
                    _exit(7);
                }
                alive++;
            }
            must(wait(&status));
            check(WIFEXITED(status) && WEXITSTATUS(status) == 7, "%#x", status);
            alive--;
            if (turn++ % 4 == 0)
                progress();
        }
        while (alive--) {
            must(wait(&status));
            check(WIFEXITED(status) && WEXITSTATUS(status) == 7, "%#x", status);
        }
        done();
    }
    if (strcmp(what, "execs") == 0) {
        /* The same process, again and again; the third argument is the count it has come to. */
        progress_count = argc > 3 ? atol(argv[3]) : 0;
        if (progress_count == 0)
            ready();
        progress();
        char count[32];
        snprintf(count, sizeof count, "%ld", progress_count);
        if (finishing())
            done();
        execl("/proc/self/exe", argv[0], argv[1], "execs", count, NULL);
        fail("exec");
    }
    if (strcmp(what, "threads") == 0) {
        ready();
        pthread_attr_t attributes;
        pthread_attr_init(&attributes);
        pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
        pthread_attr_setstacksize(&attributes, 65536);
        for (intptr_t i = 0; !finishing(); i++) {
            while (threads_alive >= 20)
                sched_yield();
            threads_alive++;
            pthread_t thread;
            must_pthread(pthread_create(&thread, &attributes, short_lived, (void *)i));
            if (i % 8 == 0)
                progress();
        }
        while (threads_alive)
            sleep_ms(1);
        done();
    }
    if (strcmp(what, "thread-execs") == 0) {
        /* Exec by a thread other than the first: all others vanish and the pid changes hands. */
        progress_count = argc > 3 ? atol(argv[3]) : 0;
        if (progress_count == 0)
            ready();
        progress();
        if (finishing())
            done();
        static char *arguments[5];
        static char count[32];
        snprintf(count, sizeof count, "%ld", progress_count);
        arguments[0] = argv[0], arguments[1] = argv[1], arguments[2] = "thread-execs", arguments[3] = count;
        extern void *exec_again(void *);
        pthread_t thread;
        must_pthread(pthread_create(&thread, NULL, exec_again, arguments));
        for (;;)
            pause();
    }
    if (strcmp(what, "exits") == 0) {
        /* With 42, at SIGTERM. SIGUSR1 is written down. */
        struct sigaction action = { .sa_handler = on_signal };
        must(sigaction(SIGTERM, &action, NULL));
        must(sigaction(SIGUSR1, &action, NULL));
        ready();
        for (;;)
            progress();
    }
    if (strcmp(what, "outlived") == 0) {
        /* A child leads a session. Somebody lives on in it, in its group or not, who is none of this tree. */
        pid_t leader = must(fork());
        if (leader == 0) {
            must(setsid());
            if (must(fork()) == 0) {
                pid_t outsider = must(fork());
                if (outsider == 0) {
                    for (;;)
                        pause();
                }
                if (strcmp(argv[3], "session") == 0)
                    must(setpgid(outsider, outsider));
                char path[4096];
                snprintf(path, sizeof path, "%s/outsider", workload_dir);
                FILE *file = fopen(path, "w");
                check(file && fprintf(file, "%d %d", getppid(), outsider) > 0 && fclose(file) == 0);
                _exit(0);
            }
            must(wait(NULL));
            progress_as("leader");
            ready();
        }
        while (!finishing()) {
            progress();
            sleep_ms(1);
        }
        if (leader == 0)
            _exit(0);
        wait_exited(leader, 0);
        done();
    }
    if (strcmp(what, "dies") == 0) {
        /* After the given number of milliseconds, all of it: four processes. */
        long ms = atol(argv[3]);
        for (int i = 0; i < 3; i++)
            if (must(fork()) == 0)
                break;
        ready();
        sleep_ms(ms);
        _exit(17);
    }
    fprintf(stderr, "unknown: %s\n", what);
    return 2;
}

void *exec_again(void *argument)
{
    execv("/proc/self/exe", argument);
    fail("exec");
}
