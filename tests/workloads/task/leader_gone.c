/* A process whose first thread has ended while another works on: the leader is a zombie, its thread group is not. */
#include "../workload.h"

static void *work(void *argument)
{
    pid_t pid = getpid(), tid = gettid();
    check(pid != tid);
    loop_until_finish(check(getpid() == pid && gettid() == tid));
    done();
    return argument;
}

int main(int argc, char **argv)
{
    begin(argc, argv);
    pthread_t thread;
    must_pthread(pthread_create(&thread, NULL, work, NULL));
    pthread_exit(NULL);
}
