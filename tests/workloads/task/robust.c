/* Robust lists: a mutex whose owner dies is handed on with EOWNERDEAD, for a thread and for a child process
 * (get_robust_list(2)). The owners take the mutexes before the checkpoint and die after it.
 */
#include "../workload.h"

static struct shared {
    pthread_mutex_t of_thread, of_child;
    atomic_int taken, go;
} *shared;

static void *own(void *argument)
{
    must_pthread(pthread_mutex_lock(&shared->of_thread));
    shared->taken++;
    while (!shared->go)
        sleep_ms(2);
    return argument; /* without unlocking */
}

int main(int argc, char **argv)
{
    begin(argc, argv);
    shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    check(shared != MAP_FAILED);
    pthread_mutexattr_t attributes;
    pthread_mutexattr_init(&attributes);
    pthread_mutexattr_setrobust(&attributes, PTHREAD_MUTEX_ROBUST);
    pthread_mutexattr_setpshared(&attributes, PTHREAD_PROCESS_SHARED);
    must_pthread(pthread_mutex_init(&shared->of_thread, &attributes));
    must_pthread(pthread_mutex_init(&shared->of_child, &attributes));
    pid_t child = must(fork());
    if (child == 0) {
        must_pthread(pthread_mutex_lock(&shared->of_child));
        shared->taken++;
        for (;;)
            sleep_ms(5);
    }
    pthread_t thread;
    must_pthread(pthread_create(&thread, NULL, own, NULL));
    while (shared->taken < 2)
        sleep_ms(1);
    void *head, *head_now;
    size_t size, size_now;
    must(syscall(SYS_get_robust_list, 0, &head, &size));
    loop_until_finish({
        must(syscall(SYS_get_robust_list, 0, &head_now, &size_now));
        check(head == head_now && size == size_now);
        check(pthread_mutex_trylock(&shared->of_thread) == EBUSY);
        check(pthread_mutex_trylock(&shared->of_child) == EBUSY);
    });
    shared->go = 1;
    check(pthread_mutex_lock(&shared->of_thread) == EOWNERDEAD);
    must_pthread(pthread_mutex_consistent(&shared->of_thread));
    must_pthread(pthread_mutex_unlock(&shared->of_thread));
    must_pthread(pthread_join(thread, NULL));
    must(kill(child, SIGKILL));
    check(pthread_mutex_lock(&shared->of_child) == EOWNERDEAD);
    int status;
    check(must(waitpid(child, &status, 0)) == child && WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
    done();
}
