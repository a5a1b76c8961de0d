/* Signal dispositions: handler, flags, mask and restorer of every signal, the alternate stack, the blocked mask
 * (rt_sigaction(2), sigaltstack(2)). Each tick compares what the kernel says, and runs two handlers.
 */
#include "../workload.h"

struct kernel_sigaction {
    void *handler;
    unsigned long flags;
    void *restorer;
    uint64_t mask;
};
static struct kernel_sigaction before[65];
static char *stack;
enum { STACK = 64 << 10 };
static volatile int ran, on_stack, info_value;

static void plain(int number)
{
    char here;
    ran = number;
    on_stack = &here >= stack && &here < stack + STACK;
}

static void with_info(int number, siginfo_t *info, void *context)
{
    plain(number);
    check(context != NULL && info->si_pid == getpid());
    info_value = info->si_value.sival_int;
}

static void get(int number, struct kernel_sigaction *action)
{
    memset(action, 0, sizeof *action);
    must(syscall(SYS_rt_sigaction, number, NULL, action, 8));
}

static bool catchable(int number)
{
    return number != SIGKILL && number != SIGSTOP && number != 32 && number != 33;
}

static void compare(void)
{
    for (int number = 1; number < 65; number++) {
        struct kernel_sigaction now;
        get(number, &now);
        check(memcmp(&now, &before[number], sizeof now) == 0, "signal %d: handler %p flags %#lx restorer %p mask %#lx", number,
              now.handler, now.flags, now.restorer, now.mask);
    }
    stack_t got;
    must(sigaltstack(NULL, &got));
    check(got.ss_sp == stack && got.ss_size == STACK && got.ss_flags == 0);
    sigset_t mask;
    must(sigprocmask(SIG_SETMASK, NULL, &mask));
    check(sigismember(&mask, SIGHUP) && sigismember(&mask, SIGRTMAX) && !sigismember(&mask, SIGTERM));

    union sigval value = { .sival_int = 4711 };
    must(sigqueue(getpid(), SIGRTMIN + 5, value));
    check(ran == SIGRTMIN + 5 && on_stack == 1 && info_value == 4711, "ran %d on the alternate stack %d", ran, on_stack);
    must(raise(SIGRTMIN + 6));
    check(ran == SIGRTMIN + 6 && on_stack == 0, "ran %d on the alternate stack %d", ran, on_stack);
}

int main(int argc, char **argv)
{
    begin(argc, argv);
    stack = mmap(NULL, STACK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    stack_t altstack = { .ss_sp = stack, .ss_size = STACK };
    must(sigaltstack(&altstack, NULL));
    for (int number = 1; number < 65; number++) {
        if (!catchable(number) || number == SIGCHLD)
            continue;
        struct sigaction action = { 0 };
        switch (number % 4) {
        case 0: action.sa_handler = SIG_IGN; break;
        case 1: action.sa_handler = plain; break;
        case 2: action.sa_sigaction = with_info, action.sa_flags = SA_SIGINFO; break;
        case 3: action.sa_handler = SIG_DFL; break;
        }
        if (number % 3 == 0)
            action.sa_flags |= SA_RESTART;
        if (number % 5 == 0)
            action.sa_flags |= SA_NODEFER;
        if (number % 7 == 0)
            action.sa_flags |= SA_RESETHAND;
        sigemptyset(&action.sa_mask);
        sigaddset(&action.sa_mask, number % 60 + 1);
        must(sigaction(number, &action, NULL));
    }
    struct sigaction action = { .sa_sigaction = with_info, .sa_flags = SA_SIGINFO | SA_ONSTACK | SA_RESTART };
    sigfillset(&action.sa_mask);
    must(sigaction(SIGRTMIN + 5, &action, NULL));
    action = (struct sigaction){ .sa_handler = plain };
    must(sigaction(SIGRTMIN + 6, &action, NULL));
    must(sigaction(SIGTERM, &action, NULL));
    action = (struct sigaction){ .sa_handler = SIG_DFL, .sa_flags = SA_NOCLDSTOP };
    must(sigaction(SIGCHLD, &action, NULL));
    sigset_t mask;
    sigemptyset(&mask);
    sigaddset(&mask, SIGHUP);
    sigaddset(&mask, SIGRTMAX);
    must(sigprocmask(SIG_SETMASK, &mask, NULL));
    for (int number = 1; number < 65; number++)
        get(number, &before[number]);
    loop_until_finish(compare());
    must(kill(getpid(), SIGTERM));
    check(ran == SIGTERM);
    done();
}
