//! What this kernel and these privileges allow, found by trying.

use bardo_kernel::probe;

/// One line of the doctor's answer.
#[derive(Debug, Clone)]
pub struct Finding {
    /// What was tried: `choose the pid of a new process`.
    pub what: String,
    /// The interface: `clone3 set_tid`.
    pub interface: String,
    /// Whether it works.
    pub works: bool,
    /// What follows where it doesn't, and what would give it: `CAP_CHECKPOINT_RESTORE, or an own pid namespace`.
    pub note: String,
}

type Probe = fn() -> bardo_kernel::Result<()>;

/// What is tried, by which interface, and what follows where it doesn't work.
const PROBES: &[(&str, &str, Probe, &str)] = &[
    ("trace own processes", "ptrace(2), PTRACE_SEIZE", probe::trace, "nothing works without it"),
    ("take over from a bardo that dies", "futex_waitv(2)", probe::futex_waitv, "needs Linux 5.16"),
    (
        "list a process's children",
        "/proc/PID/task/TID/children",
        probe::children,
        "needs CONFIG_PROC_CHILDREN",
    ),
    (
        "ask what a thread clears when it ends",
        "PR_GET_TID_ADDRESS",
        probe::tid_address,
        "needs CONFIG_CHECKPOINT_RESTORE",
    ),
    ("see who shares what", "kcmp(2)", probe::compare, "needs CONFIG_KCMP; a seccomp filter may forbid it"),
    ("look at descriptors of a process", "pidfd_getfd(2)", probe::take_descriptor, "needs Linux 5.6"),
    (
        "find present pages by one call",
        "PAGEMAP_SCAN",
        probe::pagemap_scan,
        "needs Linux 6.7; else page by page, slower",
    ),
    ("set a process's memory layout", "PR_SET_MM_MAP", probe::set_mm, "needs CONFIG_CHECKPOINT_RESTORE"),
    (
        "choose pids in this pid namespace",
        "clone3(2), set_tid",
        probe::choose_pid,
        "needs CAP_CHECKPOINT_RESTORE or CAP_SYS_ADMIN; without, a restart makes a pid namespace of its own",
    ),
    (
        "restart in a pid namespace of its own",
        "user_namespaces(7)",
        probe::own_namespace,
        "this system lets users make none; CAP_CHECKPOINT_RESTORE would do instead",
    ),
    (
        "open what a process has mapped",
        "/proc/PID/map_files",
        probe::map_files,
        "needs CAP_CHECKPOINT_RESTORE; without, shared memory is read through its mappings, slower",
    ),
    ("see which pages are shared", "/proc/PID/pagemap", probe::page_numbers, "needs CAP_SYS_ADMIN"),
    (
        "raise hard limits",
        "prlimit(2)",
        probe::raise_limits,
        "needs CAP_SYS_RESOURCE; without, a hard limit above ours comes back as ours",
    ),
];

/// Tries every interface that checkpoint and restart rest on.
pub fn findings() -> Vec<Finding> {
    PROBES
        .iter()
        .map(|(what, interface, probe, note)| {
            let result = probe();
            Finding {
                what: (*what).to_owned(),
                interface: (*interface).to_owned(),
                works: result.is_ok(),
                note: result.map_or_else(|e| format!("{note} ({})", e.errno.name()), |()| String::new()),
            }
        })
        .collect()
}
