/* Threads: sixteen of them, each with its own tid, name, TLS, signal mask, alternate stack, affinity and nice value.
 *
 * In the end each is joined: pthread_join waits on the word that clear_child_tid makes the kernel clear and wake.
 */
#include "../workload.h"

#ifndef SS_AUTODISARM
#define SS_AUTODISARM (1u << 31)
#endif

enum { THREADS = 16 };
static __thread uint64_t local[64];
static __thread char filler = 7;
static atomic_int turns[THREADS], started;
static atomic_bool stop;
static pthread_t threads[THREADS];

static void *work(void *argument)
{
    int number = (intptr_t)argument;
    pid_t tid = gettid();
    char name[16], expected[16];
    snprintf(expected, sizeof expected, "worker %d", number);
    must(prctl(PR_SET_NAME, expected));
    fill(local, sizeof local, number);
    sigset_t mask, now;
    sigemptyset(&mask);
    sigaddset(&mask, SIGRTMIN + number);
    must_pthread(pthread_sigmask(SIG_SETMASK, &mask, NULL));
    stack_t stack = { .ss_sp = malloc(65536), .ss_size = 65536, .ss_flags = number % 2 ? SS_AUTODISARM : 0 }, got;
    must(sigaltstack(&stack, NULL));
    cpu_set_t cpus, cpus_now;
    must(sched_getaffinity(0, sizeof cpus, &cpus));
    if (number % 3 == 0 && CPU_COUNT(&cpus) > 1)
        for (int cpu = CPU_SETSIZE - 1, first = 1; cpu >= 0; cpu--)
            if (CPU_ISSET(cpu, &cpus)) {
                if (!first)
                    CPU_CLR(cpu, &cpus);
                first = 0;
            }
    must(sched_setaffinity(0, sizeof cpus, &cpus));
    must(setpriority(PRIO_PROCESS, tid, number % 5));
    void *self = (void *)pthread_self();
    started++;
    while (!stop) {
        check(gettid() == tid);
        check((void *)pthread_self() == self);
        check_filled(local, sizeof local, number, "TLS");
        check(filler == 7);
        must(prctl(PR_GET_NAME, name));
        check(strcmp(name, expected) == 0, "name %s", name);
        must_pthread(pthread_sigmask(SIG_SETMASK, NULL, &now));
        check(memcmp(&mask, &now, 8) == 0, "signal mask");
        must(sigaltstack(NULL, &got));
        check(got.ss_sp == stack.ss_sp && got.ss_size == stack.ss_size && got.ss_flags == stack.ss_flags);
        must(sched_getaffinity(0, sizeof cpus_now, &cpus_now));
        check(CPU_EQUAL(&cpus, &cpus_now), "affinity");
        errno = 0;
        check(getpriority(PRIO_PROCESS, 0) == number % 5 && errno == 0, "nice");
        turns[number]++;
        sleep_ms(1 + number % 4);
    }
    return (void *)(intptr_t)(number + 100);
}

int main(int argc, char **argv)
{
    begin(argc, argv);
    for (intptr_t i = 0; i < THREADS; i++)
        must_pthread(pthread_create(&threads[i], NULL, work, (void *)i));
    while (started < THREADS)
        sleep_ms(1);
    int seen[THREADS] = { 0 };
    ready();
    while (!finishing()) {
        for (int i = 0; i < THREADS; i++)
            while (turns[i] == seen[i] && !finishing())
                sleep_ms(1);
        for (int i = 0; i < THREADS; i++)
            seen[i] = turns[i];
        progress();
    }
    stop = true;
    for (int i = 0; i < THREADS; i++) {
        void *value;
        must_pthread(pthread_join(threads[i], &value));
        check((intptr_t)value == i + 100);
    }
    /* New threads can still be made. */
    stop = true;
    pthread_t more;
    must_pthread(pthread_create(&more, NULL, work, (void *)3));
    must_pthread(pthread_join(more, NULL));
    done();
}
