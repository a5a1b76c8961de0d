/* What a thread sets for itself alone and no file shows: whether rdtsc and cpuid fault, how it speculates, on which memory nodes
 * its pages go, its personality, its slice, its deadline (prctl(2), arch_prctl(2), set_mempolicy(2), sched_setattr(2)).
 *
 * One thread for each, which looks again and again; what this kernel or this user may not set stays as it is.
 */
#include "../workload.h"
#include <sys/personality.h>
#include <ucontext.h>

enum { ARCH_GET_CPUID = 0x1011, ARCH_SET_CPUID = 0x1012 };

struct attributes {
    uint32_t size, policy;
    uint64_t flags;
    int32_t nice;
    uint32_t priority;
    uint64_t runtime, deadline, period;
};

struct state {
    int tsc, machine_check, personality;
    long cpuid, speculation[3];
    int mode;
    unsigned long nodes[16];
    struct attributes scheduling;
    long io_priority, slack;
};

static __thread volatile int faults;

/* Goes on behind an instruction of two bytes that isn't allowed. */
static void skip(int signal, siginfo_t *info, void *context)
{
    (void)signal;
    (void)info;
    faults++;
    ((ucontext_t *)context)->uc_mcontext.gregs[REG_RIP] += 2;
}

static void look(struct state *state)
{
    memset(state, 0, sizeof *state);
    must(prctl(PR_GET_TSC, &state->tsc));
    state->machine_check = must(prctl(PR_MCE_KILL_GET, 0, 0, 0, 0));
    state->personality = personality(0xffffffff);
    state->cpuid = syscall(SYS_arch_prctl, ARCH_GET_CPUID, 0);
    for (int kind = 0; kind < 3; kind++)
        state->speculation[kind] = prctl(PR_GET_SPECULATION_CTRL, kind, 0, 0, 0);
    syscall(SYS_get_mempolicy, &state->mode, state->nodes, 1024, NULL, 0);
    must(syscall(SYS_sched_getattr, 0, &state->scheduling, sizeof state->scheduling, 0));
    state->io_priority = must(syscall(SYS_ioprio_get, 1, 0));
    state->slack = must(prctl(PR_GET_TIMERSLACK));
    faults = 0;
    unsigned low, high;
    __asm__ volatile("rdtsc" : "=a"(low), "=d"(high));
    check(faults == (state->tsc == PR_TSC_SIGSEGV));
    faults = 0;
    unsigned a = 0, b, c = 0, d;
    __asm__ volatile("cpuid" : "+a"(a), "=b"(b), "+c"(c), "=d"(d));
    check(faults == (state->cpuid == 0));
}

static void schedule(struct attributes attributes)
{
    attributes.size = sizeof attributes;
    attributes.nice = getpriority(PRIO_PROCESS, 0);
    if (syscall(SYS_sched_setattr, 0, &attributes, 0) == -1)
        check(errno == EPERM || errno == EBUSY);
}

static void forbid_rdtsc(void) { must(prctl(PR_SET_TSC, PR_TSC_SIGSEGV)); }
static void forbid_cpuid(void) { syscall(SYS_arch_prctl, ARCH_SET_CPUID, 0); }
static void forbid_bypass(void) { prctl(PR_SET_SPECULATION_CTRL, PR_SPEC_STORE_BYPASS, PR_SPEC_DISABLE, 0, 0); }
static void forbid_branches(void) { prctl(PR_SET_SPECULATION_CTRL, PR_SPEC_INDIRECT_BRANCH, PR_SPEC_FORCE_DISABLE, 0, 0); }
static void bind_to_node(void)
{
    unsigned long nodes = 1;
    /* MPOL_BIND */
    syscall(SYS_set_mempolicy, 2, &nodes, 65);
}
static void be_local(void) { syscall(SYS_set_mempolicy, 4 /* MPOL_LOCAL */, NULL, 0); }
static void be_another_person(void) { must(personality(ADDR_NO_RANDOMIZE | SHORT_INODE)); }
static void take_slices(void) { schedule((struct attributes) { .runtime = 5000000 }); }
static void take_idle_time(void) { schedule((struct attributes) { .policy = SCHED_IDLE }); }
static void be_reset_on_fork(void) { schedule((struct attributes) { .policy = SCHED_BATCH, .flags = 1 }); }
static void have_a_deadline(void)
{
    schedule((struct attributes) { .policy = 6 /* SCHED_DEADLINE */,
                                   .runtime = 10000000,
                                   .deadline = 150000000,
                                   .period = 200000000 });
}
static void be_told_late(void) { must(prctl(PR_MCE_KILL, PR_MCE_KILL_SET, PR_MCE_KILL_LATE, 0, 0)); }
static void read_when_idle(void) { must(syscall(SYS_ioprio_set, 1, 0, 3 << 13)); }
static void be_slack(void) { must(prctl(PR_SET_TIMERSLACK, 777777)); }

static void (*const settings[])(void) = {
    forbid_rdtsc,   forbid_cpuid,     forbid_bypass,   forbid_branches, bind_to_node,   be_local, be_another_person, take_slices,
    take_idle_time, be_reset_on_fork, have_a_deadline, be_told_late,    read_when_idle, be_slack,
};
enum { COUNT = sizeof settings / sizeof *settings };

static atomic_long rounds[COUNT];
static atomic_bool over;

static void *hold(void *argument)
{
    long which = (long)argument;
    struct state before, now;
    settings[which]();
    look(&before);
    while (!atomic_load(&over)) {
        look(&now);
        check(memcmp(&now, &before, sizeof now) == 0, "thread %ld isn't as it was", which);
        atomic_fetch_add(&rounds[which], 1);
        /* What sleep_ms() asks for the time may need rdtsc. */
        must(nanosleep(&(struct timespec) { 0, 2000000 }, NULL));
    }
    return NULL;
}

static void wait_for_all(void)
{
    for (int i = 0; i < COUNT; i++)
        for (long seen = atomic_load(&rounds[i]); atomic_load(&rounds[i]) == seen;)
            sleep_ms(1);
}

int main(int argc, char **argv)
{
    begin(argc, argv);
    struct sigaction action = { .sa_sigaction = skip, .sa_flags = SA_SIGINFO };
    must(sigaction(SIGSEGV, &action, NULL));
    pthread_t threads[COUNT];
    for (long i = 0; i < COUNT; i++)
        must_pthread(pthread_create(&threads[i], NULL, hold, (void *)i));
    struct state before, now;
    look(&before);
    wait_for_all();
    loop_until_finish({
        look(&now);
        check(memcmp(&now, &before, sizeof now) == 0);
        wait_for_all();
    });
    atomic_store(&over, true);
    for (int i = 0; i < COUNT; i++)
        must_pthread(pthread_join(threads[i], NULL));
    done();
}
