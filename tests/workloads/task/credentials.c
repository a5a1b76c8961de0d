/* Credentials and what else a process is limited and placed by: user and group ids, supplementary groups, capabilities, umask,
 * resource limits, nice value, affinity, working directory (credentials(7), capabilities(7), getrlimit(2)).
 *
 * A child gives its rights up as far as it has any to give; started by an ordinary user, it compares what it has.
 */
#include "../workload.h"
#include <grp.h>
#include <linux/capability.h>
#include <linux/securebits.h>
#include <sys/fsuid.h>

static struct state {
    uid_t uid[4];
    gid_t gid[4];
    int group_count;
    gid_t groups[64];
    struct __user_cap_data_struct capabilities[2];
    int bounding[64], ambient[64], no_new_privs, keep, securebits;
    mode_t mask;
    struct rlimit limits[RLIM_NLIMITS];
    int nice;
    cpu_set_t cpus;
    char directory[1024];
} before;

static void look(struct state *state)
{
    memset(state, 0, sizeof *state);
    must(getresuid(&state->uid[0], &state->uid[1], &state->uid[2]));
    must(getresgid(&state->gid[0], &state->gid[1], &state->gid[2]));
    state->uid[3] = setfsuid(-1);
    state->gid[3] = setfsgid(-1);
    state->group_count = must(getgroups(64, state->groups));
    struct __user_cap_header_struct header = { _LINUX_CAPABILITY_VERSION_3, 0 };
    must(syscall(SYS_capget, &header, state->capabilities));
    for (int i = 0; i < 64; i++) {
        state->bounding[i] = prctl(PR_CAPBSET_READ, i);
        state->ambient[i] = prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_IS_SET, i, 0, 0);
    }
    state->no_new_privs = must(prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0));
    state->keep = must(prctl(PR_GET_KEEPCAPS));
    state->securebits = must(prctl(PR_GET_SECUREBITS));
    state->mask = umask(0);
    umask(state->mask);
    for (int i = 0; i < (int)RLIM_NLIMITS; i++)
        must(getrlimit(i, &state->limits[i]));
    state->nice = getpriority(PRIO_PROCESS, 0);
    must(sched_getaffinity(0, sizeof state->cpus, &state->cpus));
    check(getcwd(state->directory, sizeof state->directory) != NULL);
}

#define same(field) check(memcmp(&before.field, &now.field, sizeof now.field) == 0)
static void compare(void)
{
    struct state now;
    look(&now);
    same(uid);
    same(gid);
    same(group_count);
    same(groups);
    same(capabilities);
    same(bounding);
    same(ambient);
    same(no_new_privs);
    same(keep);
    same(securebits);
    check(now.mask == before.mask, "umask %o", now.mask);
    for (int i = 0; i < (int)RLIM_NLIMITS; i++)
        check(memcmp(&now.limits[i], &before.limits[i], sizeof now.limits[i]) == 0, "limit %d: %lu %lu, was %lu %lu", i,
              now.limits[i].rlim_cur, now.limits[i].rlim_max, before.limits[i].rlim_cur, before.limits[i].rlim_max);
    check(now.nice == before.nice, "nice %d", now.nice);
    check(CPU_EQUAL(&now.cpus, &before.cpus));
    check(strcmp(now.directory, before.directory) == 0, "%s", now.directory);
    struct stat here, there;
    must(stat(".", &here));
    must(stat(before.directory, &there));
    check(here.st_ino == there.st_ino && here.st_dev == there.st_dev);
}

static void lower(int which, rlim_t soft, rlim_t hard)
{
    struct rlimit limit;
    must(getrlimit(which, &limit));
    limit.rlim_max = hard < limit.rlim_max ? hard : limit.rlim_max;
    limit.rlim_cur = soft < limit.rlim_max ? soft : limit.rlim_max;
    must(setrlimit(which, &limit));
}

int main(int argc, char **argv)
{
    begin(argc, argv);
    must(chmod(workload_dir, 0777));
    int ends[2];
    must(pipe(ends));
    umask(0);
    pid_t child = must(fork());
    if (child == 0) {
        progress_as("child");
        must(chmod(progress_path, 0666));
        must(mkdir(data_path("here"), 0777));
        must(chdir(data_path("here")));
        umask(0123);
        lower(RLIMIT_NOFILE, 100, 200);
        lower(RLIMIT_CORE, 4096, 8192);
        lower(RLIMIT_STACK, 4 << 20, 64 << 20);
        lower(RLIMIT_CPU, 10000, 20000);
        must(setpriority(PRIO_PROCESS, 0, 3));
        cpu_set_t cpus;
        must(sched_getaffinity(0, sizeof cpus, &cpus));
        for (int cpu = CPU_SETSIZE - 1; cpu >= 0 && CPU_COUNT(&cpus) > 1; cpu--)
            CPU_CLR(cpu, &cpus);
        must(sched_setaffinity(0, sizeof cpus, &cpus));
        if (geteuid() == 0) {
            gid_t groups[] = { 10, 20, 4000 };
            must(setgroups(3, groups));
            must(setresgid(2001, 2002, 2003));
            must(prctl(PR_CAPBSET_DROP, CAP_SYS_MODULE));
            must(prctl(PR_SET_KEEPCAPS, 1));
            must(setresuid(1001, 1002, 1003));
            struct __user_cap_header_struct header = { _LINUX_CAPABILITY_VERSION_3, 0 };
            struct __user_cap_data_struct data[2] = { 0 };
            data[0].permitted = 1 << CAP_NET_RAW | 1 << CAP_KILL;
            data[0].effective = 1 << CAP_KILL;
            data[0].inheritable = 1 << CAP_KILL;
            must(syscall(SYS_capset, &header, data));
            must(prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, CAP_KILL, 0, 0));
            /* Changing ids made it undumpable; that has a workload of its own. */
            must(prctl(PR_SET_DUMPABLE, 1));
        }
        must(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
        look(&before);
        check(write(ends[1], "", 1) == 1);
        while (!finishing()) {
            compare();
            progress();
            sleep_ms(2);
        }
        compare();
        int fd = must(open("made", O_CREAT | O_TRUNC | O_WRONLY, 0777));
        must(unlink("made"));
        struct stat status;
        must(fstat(fd, &status));
        check((status.st_mode & 0777) == (0777 & ~0123), "made with mode %o", status.st_mode);
        _exit(0);
    }
    pid_t bound = must(fork());
    if (bound == 0) {
        progress_as("bound");
        must(chmod(progress_path, 0666));
        if (geteuid() == 0) {
            /* Root that is no more than another user, for good, and whose ids change nothing. */
            struct __user_cap_header_struct header = { _LINUX_CAPABILITY_VERSION_3, 0 };
            struct __user_cap_data_struct data[2];
            must(syscall(SYS_capget, &header, data));
            data[0].inheritable |= 1 << CAP_KILL | 1 << CAP_NET_RAW;
            must(syscall(SYS_capset, &header, data));
            must(prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, CAP_NET_RAW, 0, 0));
            must(prctl(PR_SET_KEEPCAPS, 1));
            must(prctl(PR_SET_SECUREBITS, SECBIT_KEEP_CAPS | SECBIT_KEEP_CAPS_LOCKED | SECBIT_NOROOT | SECBIT_NOROOT_LOCKED |
                                              SECBIT_NO_SETUID_FIXUP | SECBIT_NO_CAP_AMBIENT_RAISE | SECBIT_NO_CAP_AMBIENT_RAISE_LOCKED));
            must(setresuid(0, 1002, 1003));
            must(syscall(SYS_capget, &header, data));
            data[0].permitted &= ~(1u << CAP_SYS_CHROOT);
            data[0].effective = 1 << CAP_KILL;
            must(syscall(SYS_capset, &header, data));
            must(prctl(PR_SET_DUMPABLE, 1));
        }
        look(&before);
        check(write(ends[1], "", 1) == 1);
        while (!finishing()) {
            compare();
            progress();
            sleep_ms(2);
        }
        compare();
        _exit(0);
    }
    must(chmod(data_path(""), 0777));
    char bytes[2];
    read_exactly(ends[0], bytes, 2);
    umask(027);
    look(&before);
    loop_until_finish(compare());
    wait_exited(child, 0);
    wait_exited(bound, 0);
    done();
}
