//! Every kind's workload, in every mode. A line of the table here is all that a new workload needs.

use bardo_tests::{Allowed, Case, in_faults, left_running, natively, stopped_and_restarted, twenty_times};

/// Five tests for each line: natively, stopped and restarted, left running, twenty times over, under faults.
macro_rules! workloads {
    ($($test:ident: $name:literal $(, may differ $facts:literal because $why:literal)*;)*) => {$(
        mod $test {
            use super::*;

            const CASE: Case = Case {
                name: $name,
                arguments: &[],
                allowed: &[$(Allowed { facts: $facts, why: $why }),*],
            };

            #[test]
            fn runs_natively() {
                natively(CASE);
            }

            #[test]
            fn is_stopped_and_restarted() {
                stopped_and_restarted(CASE);
            }

            #[test]
            fn is_left_running() {
                left_running(CASE);
            }

            #[test]
            fn goes_on_twenty_times() {
                twenty_times(CASE);
            }

            #[test]
            fn survives_faults() {
                in_faults(CASE);
            }
        }
    )*};
}

workloads! {
    attributes: "task/attributes";
    blocked: "task/blocked";
    clocks: "task/clocks",
        may differ "* fdinfo * it_value" because "the timers run on while it is stopped",
        may differ "* fdinfo * ticks" because "as above",
        may differ "ROOT/* status SigPnd" because "a timer expires while it is stopped",
        may differ "ROOT/* stat 31" because "the pending signals, as above";
    credentials: "task/credentials";
    identity: "task/identity";
    leader_gone: "task/leader_gone",
        may differ "ROOT/* status ShdPnd" because "a timer expires while it is stopped",
        may differ "ROOT/* status SigBlk" because "it may be stopped at the start of a handler",
        may differ "ROOT/* stat 32" because "the blocked signals, as above";
    orphans: "task/orphans",
        may differ "ROOT/ROOT children" because "those whose session is dead come last; no order is promised among children";
    own_directory: "task/own_directory";
    pending: "task/pending";
    posix_timers: "task/posix_timers",
        may differ "ROOT/* status ShdPnd" because "timers expire while it is stopped",
        may differ "ROOT/* status SigPnd" because "as above, for the thread that is told",
        may differ "ROOT/* status SigBlk" because "it may be stopped at the start of a handler",
        may differ "ROOT/* stat 32" because "the blocked signals, as above";
    registers: "task/registers";
    robust: "task/robust";
    rseq: "task/rseq";
    rules: "task/rules";
    seccomp: "task/seccomp";
    shared_memory: "task/shared_memory";
    sharing: "task/sharing";
    signals: "task/signals";
    stopped: "task/stopped";
    thread_attributes: "task/thread_attributes";
    threads: "task/threads";
    timeouts: "task/timeouts";
    timers: "task/timers",
        may differ "ROOT/* status ShdPnd" because "timers expire while it is stopped",
        may differ "ROOT/* status SigBlk" because "it may be stopped at the start of a handler",
        may differ "ROOT/* stat 32" because "the blocked signals, as above";
    tree: "task/tree";
    undumpable: "task/undumpable";
    zombies: "task/zombies";

    anonymous: "memory/anonymous";
    areas: "memory/areas";
    churn: "memory/churn";
    copy_on_write: "memory/copy_on_write";
    dev_zero: "memory/dev_zero";
    deleted: "memory/deleted";
    deleted_program: "memory/deleted_program",
        may differ "ROOT exe *" because "the name of a deleted file is gone",
        may differ "ROOT exe" because "the name of a deleted file is gone";
    droppable: "memory/droppable";
    guards: "memory/guards";
    huge: "memory/huge";
    jit: "memory/jit";
    locked: "memory/locked";
    memfd: "memory/memfd";
    policies: "memory/policies";
    private_file: "memory/private_file";
    protections: "memory/protections";
    reservations: "memory/reservations";
    sealed: "memory/sealed";
    shared_anonymous: "memory/shared_anonymous";
    shared_file: "memory/shared_file";
    stack: "memory/stack";
    workers: "memory/workers";

    chain: "file/chain";
    devices: "file/devices";
    directory: "file/directory";
    locks: "file/locks";
    many: "file/many";
    epoll: "file/epoll";
    signalfd: "file/signalfd";
    owner: "file/owner";
    inotify: "file/inotify",
        may differ "* fdinfo 6 watch 6" because "what is watched has no name, and another inode";
    pidfd: "file/pidfd",
        may differ "* fdinfo * ino" because "a process's pidfds have an inode of this life";
    eventfd: "file/eventfd";
    timerfd: "file/timerfd",
        may differ "* fdinfo * it_value" because "the timers run on while it is stopped",
        may differ "* fdinfo * ticks" because "as above";
    open_memfd: "file/memfd";
    unlinked: "file/unlinked",
        may differ "* fdinfo * lock" because "it shows the number of an inode that has no name";
    other_link: "file/other_link",
        may differ "ROOT fd 3" because "the name that it was opened by is gone, and it has another",
        may differ "ROOT fd 4" because "as above";
    gone: "file/gone",
        may differ "* cwd" because "another directory has its name by now",
        may differ "* fdinfo 6 pos" because "ext4 knows no offset in a directory without a name";
    flags: "file/flags";
    fifo: "file/fifo",
        may differ "* fd 8" because "a FIFO without a name is a pipe now",
        may differ "* fdinfo 8 mnt_id" because "as above",
        may differ "* fdinfo 8 ino" because "as above";
    proc_file: "file/proc";
    pipe: "file/pipe";
    regular: "file/regular";
    shared: "file/shared";
    spliced: "file/spliced";
    tables: "file/tables";

    busy: "loop/busy";
    family: "loop/family";
    pipeful: "loop/pipeful";
}
