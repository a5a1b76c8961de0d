/* Registers: threads hold known values in every register, spinning and blocked in a system call, and compare.
 *
 * hold() loads all general registers, the x87 state, MXCSR and the vector registers that this CPU has, fills the red zone
 * under the stack pointer, then either spins or makes one raw system call, then stores everything for comparison. A system
 * call may change rax, rcx and r11 alone (the x86-64 ABI).
 */
#include "../workload.h"
#include <asm/prctl.h>
#include <cpuid.h>

struct registers {
    uint64_t general[15]; /* rax rbx rcx rdx rsi rdi rbp r8..r15 */
    uint64_t opmask[8];
    uint64_t red_zone[16];
    unsigned char fx[512] __attribute__((aligned(64)));
    unsigned char vector[32][64] __attribute__((aligned(64)));
};
_Static_assert(offsetof(struct registers, opmask) == 120, "assembly below");
_Static_assert(offsetof(struct registers, red_zone) == 184, "assembly below");
_Static_assert(offsetof(struct registers, fx) == 320, "assembly below");
_Static_assert(offsetof(struct registers, vector) == 832, "assembly below");

enum { SSE, AVX, AVX512 };

void hold(struct registers *in, struct registers *out, uint64_t spins, uint64_t vectors, uint64_t call);
__asm__(
    ".text\n.globl hold\n.type hold,@function\nhold:\n"
    "push %rbx\n push %rbp\n push %r12\n push %r13\n push %r14\n push %r15\n sub $56,%rsp\n"
    "mov %rdi,0(%rsp)\n mov %rsi,8(%rsp)\n mov %rdx,16(%rsp)\n mov %rcx,24(%rsp)\n mov %r8,32(%rsp)\n"
    "mov %rdi,%rax\n fxrstor64 320(%rax)\n"
    "cmp $1,%rcx\n jb 2f\n ja 1f\n"
    ".irp n,0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15\n vmovdqu 832+64*\\n(%rax),%ymm\\n\n .endr\n jmp 2f\n"
    "1:\n"
    ".irp n,0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31\n"
    " vmovdqu64 832+64*\\n(%rax),%zmm\\n\n .endr\n"
    ".irp n,0,1,2,3,4,5,6,7\n kmovq 120+8*\\n(%rax),%k\\n\n .endr\n"
    "2:\n"
    ".irp n,0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15\n mov 184+8*\\n(%rax),%rbx\n mov %rbx,-8-8*\\n(%rsp)\n .endr\n"
    "mov 8(%rax),%rbx\n mov 16(%rax),%rcx\n mov 24(%rax),%rdx\n mov 32(%rax),%rsi\n mov 40(%rax),%rdi\n mov 48(%rax),%rbp\n"
    "mov 56(%rax),%r8\n mov 64(%rax),%r9\n mov 72(%rax),%r10\n mov 80(%rax),%r11\n mov 88(%rax),%r12\n mov 96(%rax),%r13\n"
    "mov 104(%rax),%r14\n mov 112(%rax),%r15\n mov 0(%rax),%rax\n"
    "cmpq $0,32(%rsp)\n jne 4f\n"
    "3: decq 16(%rsp)\n jnz 3b\n jmp 5f\n"
    "4: syscall\n"
    "5: push %rax\n mov 16(%rsp),%rax\n"
    "mov %rbx,8(%rax)\n mov %rcx,16(%rax)\n mov %rdx,24(%rax)\n mov %rsi,32(%rax)\n mov %rdi,40(%rax)\n mov %rbp,48(%rax)\n"
    "mov %r8,56(%rax)\n mov %r9,64(%rax)\n mov %r10,72(%rax)\n mov %r11,80(%rax)\n mov %r12,88(%rax)\n mov %r13,96(%rax)\n"
    "mov %r14,104(%rax)\n mov %r15,112(%rax)\n"
    "pop %rbx\n mov %rbx,0(%rax)\n"
    ".irp n,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15\n mov -8-8*\\n(%rsp),%rbx\n mov %rbx,184+8*\\n(%rax)\n .endr\n"
    "fxsave64 320(%rax)\n mov 24(%rsp),%rcx\n cmp $1,%rcx\n jb 7f\n ja 6f\n"
    ".irp n,0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15\n vmovdqu %ymm\\n,832+64*\\n(%rax)\n .endr\n vzeroupper\n jmp 7f\n"
    "6:\n"
    ".irp n,0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31\n"
    " vmovdqu64 %zmm\\n,832+64*\\n(%rax)\n .endr\n"
    ".irp n,0,1,2,3,4,5,6,7\n kmovq %k\\n,120+8*\\n(%rax)\n .endr\n vzeroupper\n"
    "7: fninit\n movl $0x1f80,(%rsp)\n ldmxcsr (%rsp)\n"
    "add $56,%rsp\n pop %r15\n pop %r14\n pop %r13\n pop %r12\n pop %rbp\n pop %rbx\n ret\n"
    ".size hold,.-hold\n");

static int vectors;
static atomic_int turns[4];

static void prepare(struct registers *in, uint64_t seed)
{
    fill(in, sizeof *in, seed);
    memset(in->fx, 0, sizeof in->fx);
    uint16_t control = 0x0c7f; /* round to zero, double precision, all exceptions masked: not the default */
    uint16_t status = 0x0041;  /* sticky flags, stack top 0 */
    uint32_t mxcsr = 0x1f80 | 0x6000 | 0x8000 | 0x0021;
    memcpy(in->fx, &control, 2);
    memcpy(in->fx + 2, &status, 2);
    in->fx[4] = 0xff; /* all eight x87 registers are in use */
    memcpy(in->fx + 24, &mxcsr, 4);
    for (int i = 0; i < 8; i++) {
        fill(in->fx + 32 + 16 * i, 8, seed + i);
        in->fx[32 + 16 * i + 7] |= 0x80; /* a normal number: the explicit integer bit is set */
        in->fx[32 + 16 * i + 8] = i;
        in->fx[32 + 16 * i + 9] = 0x40;
    }
    for (int i = 0; i < 16; i++)
        memcpy(in->fx + 160 + 16 * i, in->vector[i], 16);
}

static void compare(const struct registers *in, const struct registers *out, bool call)
{
    static const char *names[] = { "rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rbp", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15" };
    for (int i = 0; i < 15; i++)
        if (!call || (i != 0 && i != 2 && i != 10))
            check(in->general[i] == out->general[i], "%s was %#lx, is %#lx, in a call: %d", names[i], in->general[i], out->general[i], call);
    for (int i = 1; i < 16; i++)
        check(in->red_zone[i] == out->red_zone[i], "red zone, %d", -8 - 8 * i);
    check(memcmp(in->fx, out->fx, 5) == 0, "x87 control %02x%02x status %02x%02x tags %02x", out->fx[1], out->fx[0], out->fx[3], out->fx[2], out->fx[4]);
    check(memcmp(in->fx + 24, out->fx + 24, 4) == 0, "MXCSR");
    for (int i = 0; i < 8; i++)
        check(memcmp(in->fx + 32 + 16 * i, out->fx + 32 + 16 * i, 10) == 0, "st%d", i);
    for (int i = 0; i < 16; i++)
        check(memcmp(in->fx + 160 + 16 * i, out->fx + 160 + 16 * i, 16) == 0, "xmm%d, in a call: %d", i, call);
    int size = vectors == AVX512 ? 64 : 32;
    for (int i = 0; vectors != SSE && i < (vectors == AVX512 ? 32 : 16); i++)
        check(memcmp(in->vector[i], out->vector[i], size) == 0, "vector register %d, in a call: %d", i, call);
    for (int i = 0; vectors == AVX512 && i < 8; i++)
        check(in->opmask[i] == out->opmask[i], "k%d", i);
}

static void *spin(void *argument)
{
    int number = (intptr_t)argument;
    static __thread struct registers in, out;
    uint64_t gs;
    must(syscall(SYS_arch_prctl, ARCH_SET_GS, (unsigned long)&in));
    for (uint64_t seed = number * 1000;; seed++) {
        prepare(&in, seed);
        hold(&in, &out, 2000000, vectors, 0);
        compare(&in, &out, false);
        must(syscall(SYS_arch_prctl, ARCH_GET_GS, &gs));
        check(gs == (uint64_t)&in);
        uint64_t first;
        __asm__ volatile("mov %%gs:0,%0" : "=r"(first));
        check(first == in.general[0]);
        turns[number]++;
    }
}

static void *blocked(void *argument)
{
    int number = (intptr_t)argument;
    static __thread struct registers in, out;
    static __thread struct timespec t = { 0, 15000000 };
    for (uint64_t seed = number * 1000;; seed++) {
        prepare(&in, seed);
        in.general[0] = SYS_nanosleep;
        in.general[5] = (uint64_t)&t;
        in.general[4] = 0;
        uint64_t start = now_ns();
        hold(&in, &out, 1, vectors, 1);
        check(out.general[0] == 0, "nanosleep returned %ld", (long)out.general[0]);
        check(now_ns() - start >= 15000000);
        compare(&in, &out, true);
        turns[number]++;
    }
}

/* AMX tiles, where the CPU has them and the kernel gives the permission. The compiler never touches a tile. */
static bool amx;
static void *tiles(void *argument)
{
    int number = (intptr_t)argument;
    static unsigned char config[64] __attribute__((aligned(64))), in[8][1024], out[8][1024];
    if (!amx) {
        for (;;) {
            turns[number]++;
            sleep_ms(5);
        }
    }
    config[0] = 1;
    for (int i = 0; i < 8; i++) {
        config[16 + 2 * i] = 64;
        config[48 + i] = 16;
        fill(in[i], sizeof in[i], i);
    }
    __asm__ volatile("ldtilecfg %0" ::"m"(config));
#define TILES(do) do(0) do(1) do(2) do(3) do(4) do(5) do(6) do(7)
#define LOAD(n) __asm__ volatile("tileloadd (%0,%1,1),%%tmm" #n ::"r"(in[n]), "r"(64L) : "memory");
#define STORE(n) __asm__ volatile("tilestored %%tmm" #n ",(%0,%1,1)" ::"r"(out[n]), "r"(64L) : "memory");
    TILES(LOAD)
    for (;;) {
        sleep_ms(3);
        for (volatile long i = 0; i < 2000000; i++)
            ;
        memset(out, 0, sizeof out);
        TILES(STORE)
        for (int i = 0; i < 8; i++)
            check(memcmp(in[i], out[i], sizeof in[i]) == 0, "tmm%d", i);
        turns[number]++;
    }
}

int main(int argc, char **argv)
{
    begin(argc, argv);
    __builtin_cpu_init();
    vectors = __builtin_cpu_supports("avx512bw") ? AVX512 : __builtin_cpu_supports("avx") ? AVX : SSE;
    unsigned a, b, c, d;
    amx = __get_cpuid_count(7, 0, &a, &b, &c, &d) && (d >> 24 & 1) &&
          syscall(SYS_arch_prctl, 0x1023 /* ARCH_REQ_XCOMP_PERM */, 18 /* XTILEDATA */) == 0;
    pthread_t thread;
    must_pthread(pthread_create(&thread, NULL, spin, (void *)0));
    must_pthread(pthread_create(&thread, NULL, spin, (void *)1));
    must_pthread(pthread_create(&thread, NULL, blocked, (void *)2));
    must_pthread(pthread_create(&thread, NULL, tiles, (void *)3));
    int seen[4] = { 0 };
    ready();
    while (!finishing()) {
        for (int i = 0; i < 4; i++)
            while (turns[i] == seen[i] && !finishing())
                sleep_ms(1);
        for (int i = 0; i < 4; i++)
            seen[i] = turns[i];
        progress();
    }
    done();
}
