//! The family of tasks: processes, threads, and what belongs to them alone. One file per kernel object.

pub mod clock;
pub mod credential;
pub mod limit;
pub mod membarrier;
pub mod mm;
pub mod numa;
pub mod own_directory;
pub mod posix_timer;
pub mod process;
pub mod processor;
pub mod schedule;
pub mod seccomp;
pub mod signal;
pub mod sleep;
pub mod thread;
pub mod timer;

use crate::support::Support;

/// The table of the family.
pub fn support() -> Vec<Support> {
    let refused = REFUSED.iter().map(|(kind, not_kept)| Support {
        kind,
        kept: "",
        not_kept,
        privilege: "",
        workload: "",
    });
    let mut lines = kept();
    lines.extend(refused);
    lines
}

/// What is refused under a code of its own, and what it is.
const REFUSED: &[(&str, &str)] = &[
    ("task/traced", "a process that another one traces, such as a debugger"),
    (
        "task/user-dispatch",
        "a thread whose system calls are dispatched to itself (PR_SET_SYSCALL_USER_DISPATCH)",
    ),
    (
        "namespace/other",
        "a process in other namespaces than bardo's (all but pid, user and time): not saved yet",
    ),
    (
        "namespace/time",
        "processes in several time namespaces, or one whose children will be in another: checkpoint the part that is in one",
    ),
    ("task/root", "a process in another root directory (chroot(2)): run bardo in there"),
    (
        "task/session",
        "two orphans of a dead session whose parents aren't one below the other; one of a session that lives outside: a \
         session is only inherited, and orphans only go to ancestors",
    ),
    (
        "task/group",
        "the leader of a group that has gone to another one, which nobody else holds: groups are joined one by one",
    ),
    (
        "task/shared-memory",
        "processes that share their memory (CLONE_VM), but are joined by one that has left it or ended, for it is only \
         inherited; or with a process outside the tree",
    ),
    ("task/shared-handlers", "the same for those that share their signal handlers (CLONE_SIGHAND)"),
    ("task/shared-files", "the same for those that share their descriptors (CLONE_FILES)"),
    ("task/shared-fs", "the same for those that share their working directory and umask (CLONE_FS)"),
    ("task/own-files", "a thread with a table of descriptors of its own (unshare(2))"),
    (
        "task/own-fs",
        "a thread's own working directory that was removed, or that another process shares; a root of its own",
    ),
    ("task/vfork", "a parent in vfork(2): it can't be stopped before its child has called exec or ended"),
    (
        "task/uninterruptible",
        "a thread that sleeps in the kernel and can't be stopped, as a dead disk makes it",
    ),
    ("task/core-cookie", "threads that share a processor's core with some others only (PR_SCHED_CORE)"),
    ("task/segments", "segments of a process's or thread's own (modify_ldt(2), set_thread_area(2))"),
    ("task/shadow-stack", "threads with a shadow stack (arch_prctl(2), ARCH_SHSTK_ENABLE)"),
    ("task/tagged-addresses", "threads that use tagged addresses (ARCH_ENABLE_TAGGED_ADDR)"),
    ("task/compat", "32-bit code"),
    ("task/init", "pid 1 of bardo's own pid namespace; kernel threads; bardo itself and what it is below"),
];

fn kept() -> Vec<Support> {
    vec![
        Support {
            kind: "task/process",
            kept: "pid, parent, group, session, exit status of zombies, job control stops, umask, working directory",
            not_kept: "CPU times and start time; that a process which was killed left a core file (WCOREDUMP)",
            privilege: "CAP_CHECKPOINT_RESTORE to choose pids, or an own pid namespace",
            workload: "task/tree",
        },
        Support {
            kind: "task/dead-leader",
            kept: "processes whose first thread has ended while others live on: its tid, name and exit status",
            not_kept: "its credentials: it gets those of the first thread that lives; before Linux 6.9, which gives nobody \
                       its descriptors, and where job control has stopped the process, which hides that status: refused",
            privilege: "",
            workload: "task/leader_gone",
        },
        Support {
            kind: "task/sharing",
            kept: "processes that share their memory, signal handlers, descriptors, or working directory and umask (clone(2))",
            not_kept: "those that are joined by one that has left it or ended, or share with one outside the tree: refused",
            privilege: "",
            workload: "task/shared_memory",
        },
        Support {
            kind: "task/orphan",
            kept: "processes that a child subreaper or an init looks after; sessions and groups whose leaders are dead; \
                   subreapers",
            not_kept: "the order in which wait(2) finds children that have ended",
            privilege: "",
            workload: "task/orphans",
        },
        Support {
            kind: "task/thread",
            kept: "tid, registers, x87 to AMX, fs and gs base, rseq, robust list, clear_child_tid, name",
            not_kept: "debug registers (only a tracer sets them)",
            privilege: "",
            workload: "task/threads",
        },
        Support {
            kind: "task/own-directory",
            kept: "threads that have a working directory and umask of their own, and share them (unshare(2), CLONE_FS)",
            not_kept: "those that were removed, or are shared with another process: refused",
            privilege: "",
            workload: "task/own_directory",
        },
        Support {
            kind: clock::NAME,
            kept: "CLOCK_MONOTONIC and CLOCK_BOOTTIME never go back: they go on by the host's, or in a time namespace where \
                   those are behind, or where the tree had one of its own",
            not_kept: "how far CLOCK_MONOTONIC_RAW is from CLOCK_MONOTONIC; processes in several time namespaces: refused",
            privilege: "for a time namespace CAP_SYS_ADMIN and CAP_SYS_TIME, or an own pid namespace",
            workload: "task/clocks",
        },
        Support {
            kind: "task/signal",
            kept: "dispositions, masks, alternate stacks, both queues with their whole siginfo in order",
            not_kept: "",
            privilege: "",
            workload: "task/signals",
        },
        Support {
            kind: "task/timer",
            kept: "interval timers: what remains and the interval",
            not_kept: "",
            privilege: "",
            workload: "task/timers",
        },
        Support {
            kind: "task/posix-timer",
            kept: "POSIX timers: id, clock, whom they tell, what remains, the interval, overruns that were told, signals \
                   that wait",
            not_kept: "that a time was an absolute date; how often a timer expired whose signal waits; on the CPU time of \
                       a process outside the tree: refused",
            privilege: "CAP_WAKE_ALARM for clocks that wake the machine",
            workload: "task/posix_timers",
        },
        Support {
            kind: "task/sleep",
            kept: "nanosleep, clock_nanosleep, poll and futex go on with the time that remained",
            not_kept: "where another tracer stopped the thread before: the whole time again",
            privilege: "",
            workload: "task/timeouts",
        },
        Support {
            kind: "task/credential",
            kept: "ids, groups, capabilities, securebits, no_new_privs",
            not_kept: "keyrings, LSM labels",
            privilege: "CAP_SETUID, CAP_SETGID, CAP_SETPCAP where they differ from the restarter's",
            workload: "task/credentials",
        },
        Support {
            kind: "task/seccomp",
            kept: "filters of each thread in their order, with SECCOMP_FILTER_FLAG_LOG; what the threads of a process share",
            not_kept: "that processes share a filter. Refused: strict mode, SECCOMP_RET_USER_NOTIF, and filters that \
                       would end the thread for a call that bardo makes in it, were bardo killed just then",
            privilege: "CAP_SYS_ADMIN, in the first user namespace, for the checkpoint too",
            workload: "task/seccomp",
        },
        Support {
            kind: "task/limit",
            kept: "all sixteen resource limits",
            not_kept: "a hard limit above the restarter's, without CAP_SYS_RESOURCE: lowered",
            privilege: "CAP_SYS_RESOURCE to raise hard limits",
            workload: "task/credentials",
        },
        Support {
            kind: "task/schedule",
            kept: "nice value, policy and priority, deadline, slice, SCHED_RESET_ON_FORK, utilisation clamps, processors, I/O \
                   priority, timer slack; the nice value of a session's autogroup",
            not_kept: "what a thread had left of its runtime; deadlines that this host doesn't admit: told beforehand",
            privilege: "CAP_SYS_NICE for a lower nice value, a real-time policy or a deadline",
            workload: "task/attributes",
        },
        Support {
            kind: "task/processor",
            kept: "whether rdtsc and cpuid fault (PR_SET_TSC, ARCH_SET_CPUID), kinds of speculation that are turned off",
            not_kept: "a kind of speculation that the restarter has forced off stays off",
            privilege: "",
            workload: "task/thread_attributes",
        },
        Support {
            kind: "task/memory-policy",
            kept: "on which NUMA nodes a thread's new pages go (set_mempolicy(2))",
            not_kept: "where an interleaving policy stands in its round; nodes that this host doesn't have",
            privilege: "",
            workload: "task/thread_attributes",
        },
        Support {
            kind: "task/rules",
            kept: "what holds for all of a process's memory: huge pages off, merging of equal pages, no gain of executable \
                   memory (PR_SET_THP_DISABLE, PR_SET_MEMORY_MERGE, PR_SET_MDWE)",
            not_kept: "which pages were merged",
            privilege: "",
            workload: "task/rules",
        },
        Support {
            kind: "task/membarrier",
            kept: "registrations for expedited memory barriers (membarrier(2))",
            not_kept: "before Linux 6.3 that for MEMBARRIER_CMD_GLOBAL_EXPEDITED, of which nothing tells; any, where seccomp filters forbid \
                       to ask",
            privilege: "",
            workload: "task/rules",
        },
        Support {
            kind: "task/attributes",
            kept: "dumpable, parent death signal, machine check policy, personality, oom_score_adj, core dump filter, login, \
                   permission for AMX, PR_SET_IO_FLUSHER",
            not_kept: "what the restarter may not set (a lower oom_score_adj, another login): told; PR_SET_PTRACER",
            privilege: "CAP_SYS_RESOURCE for PR_SET_IO_FLUSHER and a lower oom_score_adj",
            workload: "task/attributes",
        },
    ]
}
