/* System V objects that nothing ties to a process: a semaphore set with a key, whose second semaphore a child waits for, a message
 * queue with messages of several types, and a segment that is no longer attached. They are made, and DIR/data/ids names
 * them as `--external` does; whoever removes them in the end is the program itself.
 */
#include "../workload.h"
#include <sys/ipc.h>
#include <sys/msg.h>
#include <sys/sem.h>
#include <sys/shm.h>

static int set, queue, segment;
struct message {
    long type;
    char text[64];
};

static void operate(int semaphore, int by)
{
    struct sembuf operation = { semaphore, by, 0 };
    must(semop(set, &operation, 1));
}

static void check_all(void)
{
    operate(0, 1);
    check(must(semctl(set, 0, GETVAL)) == 8);
    operate(0, -1);
    check(must(semctl(set, 0, GETVAL)) == 7);
    check(must(semctl(set, 1, GETVAL)) == 0);
    struct msqid_ds now;
    must(msgctl(queue, IPC_STAT, &now));
    check(now.msg_qnum == 3, "%lu messages", (unsigned long)now.msg_qnum);
}

int main(int argc, char **argv)
{
    begin(argc, argv);
    key_t key = ftok(data_path(""), 'b');
    check(key != -1);
    set = must(semget(key, 2, IPC_CREAT | IPC_EXCL | 0600));
    queue = must(msgget(IPC_PRIVATE, 0600));
    segment = must(shmget(IPC_PRIVATE, 100000, 0600));
    must(semctl(set, 0, SETVAL, 7));
    must(semctl(set, 1, SETVAL, 0));
    for (int i = 0; i < 3; i++) {
        struct message message = { 3 - i, "" };
        fill(message.text, sizeof message.text, i);
        must(msgsnd(queue, &message, sizeof message.text - i, 0));
    }
    char *at = shmat(segment, NULL, 0);
    check(at != (void *)-1);
    fill(at, 100000, 9);
    must(shmdt(at));
    FILE *ids = fopen(data_path("ids"), "w");
    check(ids && fprintf(ids, "sem:%d msg:%d shm:%d\n", set, queue, segment) > 0 && fclose(ids) == 0);

    pid_t child = must(fork());
    if (child == 0) {
        operate(1, -1);
        _exit(0);
    }
    /* It waits. */
    while (must(semctl(set, 1, GETNCNT)) != 1)
        sched_yield();
    loop_until_finish(check_all());
    check(must(semctl(set, 1, GETNCNT)) == 1);
    operate(1, 1);
    wait_exited(child, 0);
    for (int i = 0; i < 3; i++) {
        struct message message;
        check(must(msgrcv(queue, &message, sizeof message.text, i + 1, IPC_NOWAIT)) == (ssize_t)sizeof message.text - 2 + i);
        check_filled(message.text, sizeof message.text - 2 + i, 2 - i, "message");
    }
    at = shmat(segment, NULL, SHM_RDONLY);
    check(at != (void *)-1);
    check_filled(at, 100000, 9, "segment");
    must(shmdt(at));
    must(semctl(set, 0, IPC_RMID));
    must(msgctl(queue, IPC_RMID, NULL));
    must(shmctl(segment, IPC_RMID, NULL));
    done();
}
