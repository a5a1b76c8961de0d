/* What a process sets for all of its memory, and all of its threads: no huge pages, or only where advised; equal pages merged; no
 * memory made executable; registrations for memory barriers; permission for AMX, not used (prctl(2), membarrier(2), arch_prctl(2)).
 *
 * A child for each, beside one that has none of them.
 */
#include "../workload.h"
#include <linux/membarrier.h>

enum { PR_SET_MDWE_ = 65, PR_GET_MDWE_ = 66, PR_SET_MEMORY_MERGE_ = 67, PR_GET_MEMORY_MERGE_ = 68 };
enum { ARCH_GET_XCOMP_PERM = 0x1022, ARCH_REQ_XCOMP_PERM = 0x1023, XTILE_DATA = 18 };

struct state {
    long no_huge_pages, merge, executable, registrations;
    long barriers[5];
    uint64_t permission;
};

static void look(struct state *state)
{
    memset(state, 0, sizeof *state);
    state->no_huge_pages = must(prctl(PR_GET_THP_DISABLE, 0, 0, 0, 0));
    state->merge = prctl(PR_GET_MEMORY_MERGE_, 0, 0, 0, 0);
    state->executable = prctl(PR_GET_MDWE_, 0, 0, 0, 0);
    state->registrations = syscall(SYS_membarrier, 1 << 9 /* MEMBARRIER_CMD_GET_REGISTRATIONS */, 0, 0);
    const int commands[] = { MEMBARRIER_CMD_GLOBAL_EXPEDITED, MEMBARRIER_CMD_PRIVATE_EXPEDITED, MEMBARRIER_CMD_PRIVATE_EXPEDITED_SYNC_CORE,
                             1 << 7 /* MEMBARRIER_CMD_PRIVATE_EXPEDITED_RSEQ */ };
    for (int i = 0; i < 4; i++)
        state->barriers[i] = syscall(SYS_membarrier, commands[i], 0, 0);
    syscall(SYS_arch_prctl, ARCH_GET_XCOMP_PERM, &state->permission);
    /* Whether the rule is kept. */
    void *page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    check(page != MAP_FAILED);
    int result = mprotect(page, 4096, PROT_READ | PROT_EXEC);
    check((result == -1) == (state->executable > 0));
    must(munmap(page, 4096));
}

static void have_none(void) { }
static void have_no_huge_pages(void) { must(prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0)); }
static void have_advised_ones(void) { prctl(PR_SET_THP_DISABLE, 1, 2 /* PR_THP_DISABLE_EXCEPT_ADVISED */, 0, 0); }
static void merge_all(void) { prctl(PR_SET_MEMORY_MERGE_, 1, 0, 0, 0); }
static void merge_all_but_some(void)
{
    merge_all();
    char *apart = mmap(NULL, 8 * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    check(apart != MAP_FAILED);
    memset(apart, 1, 8 * 4096);
    madvise(apart, 4 * 4096, MADV_UNMERGEABLE);
}
static void merge_some(void)
{
    char *some = mmap(NULL, 8 * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    check(some != MAP_FAILED);
    memset(some, 1, 8 * 4096);
    madvise(some, 4 * 4096, MADV_MERGEABLE);
}
static void gain_no_code(void) { prctl(PR_SET_MDWE_, 1, 0, 0, 0); }
static void gain_no_code_alone(void) { prctl(PR_SET_MDWE_, 3, 0, 0, 0); }
static void be_registered(void) { must(syscall(SYS_membarrier, MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED, 0, 0)); }
static void be_registered_for_all(void)
{
    must(syscall(SYS_membarrier, MEMBARRIER_CMD_REGISTER_GLOBAL_EXPEDITED, 0, 0));
    must(syscall(SYS_membarrier, MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED_SYNC_CORE, 0, 0));
    syscall(SYS_membarrier, 1 << 8 /* MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED_RSEQ */, 0, 0);
}
static void be_permitted_tiles(void) { syscall(SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XTILE_DATA); }

static const struct {
    const char *name;
    void (*set)(void);
} settings[] = {
    { "none", have_none },
    { "no-huge", have_no_huge_pages },
    { "advised", have_advised_ones },
    { "merge", merge_all },
    { "merge-most", merge_all_but_some },
    { "merge-some", merge_some },
    { "no-gain", gain_no_code },
    { "no-gain-alone", gain_no_code_alone },
    { "barrier", be_registered },
    { "barriers", be_registered_for_all },
    { "tiles", be_permitted_tiles },
};
enum { COUNT = sizeof settings / sizeof *settings };

int main(int argc, char **argv)
{
    begin(argc, argv);
    pid_t children[COUNT];
    for (int i = 0; i < COUNT; i++) {
        children[i] = must(fork());
        if (children[i] == 0) {
            struct state before, now;
            settings[i].set();
            look(&before);
            progress_as(settings[i].name);
            while (!finishing()) {
                look(&now);
                check(memcmp(&now, &before, sizeof now) == 0, "%s isn't as it was", settings[i].name);
                progress();
                sleep_ms(2);
            }
            _exit(0);
        }
        wait_until_shown(settings[i].name);
    }
    loop_until_finish((void)0);
    for (int i = 0; i < COUNT; i++)
        wait_exited(children[i], 0);
    done();
}
