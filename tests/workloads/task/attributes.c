/* What prctl(2), personality(2), sched_setscheduler(2), ioprio_set(2) and /proc/PID set for a process and no file or memory
 * shows: dumpable, parent-death signal, subreaper, timer slack, huge pages off, scheduling policy, I/O priority, personality,
 * oom_score_adj, coredump_filter.
 */
#include "../workload.h"
#include <sys/personality.h>

enum { COUNT = 11 };
static const char *names[COUNT] = { "dumpable", "parent-death signal", "subreaper", "timer slack", "THP disabled", "scheduler", "I/O priority",
                                    "personality", "oom_score_adj", "coredump_filter", "machine-check policy" };

static long number_in(const char *path)
{
    char text[64];
    ssize_t n = slurp(path, text, sizeof text - 1);
    text[n] = 0;
    return strtol(text, NULL, strcmp(path, "/proc/self/coredump_filter") ? 10 : 16);
}

static void look(long *values)
{
    int value = 0;
    values[0] = must(prctl(PR_GET_DUMPABLE));
    must(prctl(PR_GET_PDEATHSIG, &value));
    values[1] = value;
    must(prctl(PR_GET_CHILD_SUBREAPER, &value));
    values[2] = value;
    values[3] = must(prctl(PR_GET_TIMERSLACK));
    values[4] = must(prctl(PR_GET_THP_DISABLE, 0, 0, 0, 0));
    values[5] = must(sched_getscheduler(0));
    values[6] = must(syscall(SYS_ioprio_get, 1, 0));
    values[7] = personality(0xffffffff);
    values[8] = number_in("/proc/self/oom_score_adj");
    values[9] = number_in("/proc/self/coredump_filter");
    values[10] = must(prctl(PR_MCE_KILL_GET, 0, 0, 0, 0));
}

static void put(const char *path, const char *text)
{
    int fd = must(open(path, O_WRONLY | O_CLOEXEC));
    check(must(write(fd, text, strlen(text))) == (ssize_t)strlen(text));
    must(close(fd));
}

static void compare(const long *before)
{
    long now[COUNT];
    look(now);
    for (int i = 0; i < COUNT; i++)
        check(now[i] == before[i], "%s: %ld, was %ld", names[i], now[i], before[i]);
}

int main(int argc, char **argv)
{
    begin(argc, argv);
    long before[COUNT];
    pid_t child = must(fork());
    if (child == 0) {
        progress_as("child");
        must(prctl(PR_SET_PDEATHSIG, SIGUSR1));
        must(prctl(PR_SET_TIMERSLACK, 123456));
        must(prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0));
        struct sched_param none = { 0 };
        must(sched_setscheduler(0, SCHED_BATCH | SCHED_RESET_ON_FORK, &none));
        must(syscall(SYS_ioprio_set, 1, 0, 2 << 13 | 6));
        must(personality(ADDR_NO_RANDOMIZE));
        put("/proc/self/oom_score_adj", "500");
        put("/proc/self/coredump_filter", "0x13");
        must(prctl(PR_MCE_KILL, PR_MCE_KILL_SET, PR_MCE_KILL_EARLY, 0, 0));
        look(before);
        while (!finishing()) {
            compare(before);
            progress();
            sleep_ms(2);
        }
        compare(before);
        _exit(0);
    }
    must(prctl(PR_SET_CHILD_SUBREAPER, 1));
    look(before);
    loop_until_finish(compare(before));
    wait_exited(child, 0);
    done();
}
