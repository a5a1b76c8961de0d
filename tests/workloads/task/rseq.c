/* Restartable sequences: four threads count in per-CPU counters without atomics, which is only right if the kernel aborts
 * a sequence at every preemption; and each thread's registration (rseq(2)) is still the one glibc made.
 */
#include "../workload.h"
#include <sys/rseq.h>

enum { THREADS = 4, CPUS = 1024 };
static uint64_t counters[CPUS];
static atomic_ulong total;
static atomic_int turns[THREADS];
static atomic_bool stop;

/* Adds one to this CPU's counter unless the sequence is aborted. The loop in it makes an abort likely. */
static int try_count(struct rseq *rseq)
{
    int counted;
    __asm__ volatile(".pushsection __rseq_cs,\"aw\"\n .balign 32\n"
                     "3: .long 0,0\n .quad 1f,2f-1f,4f\n .popsection\n"
                     "movl $0,%[counted]\n"
                     "leaq 3b(%%rip),%%rax\n movq %%rax,8(%[rseq])\n"
                     "1: movl 4(%[rseq]),%%ecx\n"
                     "movq (%[base],%%rcx,8),%%rax\n"
                     "movl $3000,%%edx\n 5: decl %%edx\n jnz 5b\n"
                     "incq %%rax\n"
                     "movq %%rax,(%[base],%%rcx,8)\n"
                     "2: movl $1,%[counted]\n jmp 6f\n"
                     ".byte 0x0f,0xb9,0x3d\n .long 0x53053053\n"
                     "4:\n"
                     "6:\n"
                     : [counted] "=&r"(counted)
                     : [rseq] "r"(rseq), [base] "r"(counters)
                     : "rax", "rcx", "rdx", "memory", "cc");
    return counted;
}

static void *work(void *argument)
{
    int number = (intptr_t)argument;
    struct rseq *rseq = (struct rseq *)((char *)__builtin_thread_pointer() + __rseq_offset);
    while (!stop) {
        check((int)rseq->cpu_id >= 0, "cpu_id %d: not registered", (int)rseq->cpu_id);
        for (int i = 0; i < 500; i++) {
            while (!try_count(rseq))
                ;
            total++;
        }
        /* The same registration again is EBUSY; anything else means it was lost or changed. */
        unsigned size = __rseq_size < 32 ? 32 : __rseq_size;
        check(syscall(SYS_rseq, rseq, size, 0, 0x53053053) == -1 && errno == EBUSY);
        turns[number]++;
    }
    return NULL;
}

int main(int argc, char **argv)
{
    begin(argc, argv);
    if (__rseq_size == 0) { /* switched off by GLIBC_TUNABLES or an old kernel */
        loop_until_finish();
        done();
    }
    pthread_t threads[THREADS];
    for (intptr_t i = 0; i < THREADS; i++)
        must_pthread(pthread_create(&threads[i], NULL, work, (void *)i));
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
    for (int i = 0; i < THREADS; i++)
        must_pthread(pthread_join(threads[i], NULL));
    uint64_t sum = 0;
    for (int i = 0; i < CPUS; i++)
        sum += counters[i];
    check(sum == total, "counted %lu of %lu", sum, (unsigned long)total);
    done();
}
