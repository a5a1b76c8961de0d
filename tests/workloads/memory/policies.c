/* NUMA policies of memory (mbind(2)): every mode, with and without flags, of private memory, of a file's and of shared memory,
 * where a child sees what its parent has set. A kernel without NUMA has none: then there is only the loop.
 */
#include "../workload.h"
#include <linux/mempolicy.h>

enum { PAGE = 4096, PAGES = 16, WEIGHTED = 6 };
static const int MODES[] = { MPOL_DEFAULT, MPOL_BIND, MPOL_PREFERRED, MPOL_INTERLEAVE, MPOL_LOCAL, WEIGHTED,
    MPOL_PREFERRED_MANY, MPOL_BIND | MPOL_F_STATIC_NODES, MPOL_INTERLEAVE | MPOL_F_RELATIVE_NODES };
enum { COUNT = sizeof MODES / sizeof *MODES };
static char *private_memory, *shared, *file;
static int set[COUNT];
static bool numa = true;
static atomic_int *is_set;

static bool set_policy(char *at, size_t size, int mode)
{
    unsigned long first = 1;
    bool nodes = mode != MPOL_DEFAULT && mode != MPOL_LOCAL;
    if (syscall(SYS_mbind, at, size, mode, nodes ? &first : NULL, nodes ? 65 : 0, 0) == 0)
        return true;
    /* Newer modes than the kernel. */
    check(errno == EINVAL || errno == ENOSYS, "mbind: %s", strerror(errno));
    return false;
}

static void check_policy(char *at, int mode)
{
    unsigned long nodes[16] = { 0 };
    int now = -1;
    must(syscall(SYS_get_mempolicy, &now, nodes, 8 * sizeof nodes, at, MPOL_F_ADDR));
    check(now == mode, "the policy at %p is %#x, was %#x", at, now, mode);
    check(nodes[0] == (mode != MPOL_DEFAULT && mode != MPOL_LOCAL), "the nodes at %p are %#lx", at, nodes[0]);
}

static void check_all(void)
{
    check_filled(private_memory, PAGES * PAGE, 1, "private");
    check_filled(shared, PAGES * PAGE, 2, "shared");
    for (int i = 0; numa && i < COUNT; i++)
        check_policy(private_memory + i * PAGE, set[i]);
    for (int i = 0; numa && i < PAGES; i++) {
        check_policy(shared + i * PAGE, i < 2 || i >= PAGES - 3 ? MPOL_BIND : MPOL_DEFAULT);
        check_policy(file + i * PAGE, i < PAGES / 2 ? MPOL_PREFERRED : MPOL_DEFAULT);
    }
}

int main(int argc, char **argv)
{
    begin(argc, argv);
    int flags = MAP_ANONYMOUS, prot = PROT_READ | PROT_WRITE;
    private_memory = mmap(NULL, PAGES * PAGE, prot, MAP_PRIVATE | flags, -1, 0);
    shared = mmap(NULL, PAGES * PAGE, prot, MAP_SHARED | flags, -1, 0);
    int fd = must(open(data_path("file"), O_RDWR | O_CREAT, 0600));
    must(ftruncate(fd, PAGES * PAGE));
    file = mmap(NULL, PAGES * PAGE, prot, MAP_PRIVATE, fd, 0);
    check(private_memory != MAP_FAILED && shared != MAP_FAILED && file != MAP_FAILED);
    must(close(fd));
    fill(private_memory, PAGES * PAGE, 1);
    fill(shared, PAGES * PAGE, 2);
    numa = set_policy(private_memory, PAGE, MPOL_LOCAL);
    for (int i = 0; numa && i < COUNT; i++)
        set[i] = set_policy(private_memory + i * PAGE, PAGE, MODES[i]) ? MODES[i] : MPOL_DEFAULT;
    is_set = mmap(NULL, PAGE, prot, MAP_SHARED | flags, -1, 0);
    check(is_set != MAP_FAILED);
    /* The child maps the shared memory in one piece. */
    pid_t child = must(fork());
    if (child == 0) {
        while (numa && !atomic_load(is_set))
            sleep_ms(1);
        if (numa)
            set_policy(file, PAGES / 2 * PAGE, MPOL_PREFERRED);
        progress_as("child");
        while (!finishing()) {
            check_all();
            progress();
            sleep_ms(2);
        }
        check_all();
        _exit(0);
    }
    if (numa) {
        set_policy(shared, 2 * PAGE, MPOL_BIND);
        set_policy(shared + (PAGES - 3) * PAGE, 3 * PAGE, MPOL_BIND);
        set_policy(file, PAGES / 2 * PAGE, MPOL_PREFERRED);
        atomic_store(is_set, 1);
    }
    loop_until_finish(check_all());
    wait_exited(child, 0);
    done();
}
