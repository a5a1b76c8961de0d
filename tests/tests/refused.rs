//! What can't be saved yet is refused by name, with a reason and a way out, before anything is written; and the program
//! that holds it never notices.
//!
//! Each of these is a kind that a later version may save: then its line moves to the table of workloads.

use bardo_tests::{Residue, Workload};

/// Starts the holder, has it refused, and lets it finish. `words` are what the refusal says.
#[track_caller]
fn is_refused(what: &'static str, words: &[&str]) {
    let Some(workload) = Workload::start_if_possible("refused", &[what]) else {
        eprintln!("this kernel has no {what}");
        return;
    };
    expect_refusal(workload, words);
}

#[track_caller]
fn expect_refusal(mut workload: Workload, words: &[&str]) {
    if let Ok(pid) = workload.place().read("data/pid").trim().parse() {
        workload.look_at(pid);
    }
    let pid = workload.pid().to_string();
    expect_refusal_below(workload, &[&[pid.as_str()], words].concat());
}

/// The same, where it is some process of the tree that stands in the way.
#[track_caller]
fn expect_refusal_below(mut workload: Workload, words: &[&str]) {
    workload.wait_progress();
    let residue = Residue::of(workload.pid());
    let output = workload.on(workload.checkpoint("image")).expect(3).nothing_left();
    output.says(&["refused", "why", "do"]).says(words);
    assert!(!workload.place().names().iter().any(|n| n.contains("image")), "{:?}", workload.place().names());
    residue.expect_nothing_new();
    workload.wait_progress();
    workload.finish();
}

macro_rules! refusals {
    ($($test:ident: $what:literal, $words:expr;)*) => {$(
        #[test]
        fn $test() {
            is_refused($what, &$words);
        }
    )*};
}

refusals! {
    eventfd_with_outside: "eventfd-outside", ["eventfd", "fd 3", "leak"];
    epoll_of_signals_that_several_have: "epoll-signalfd", ["epoll that watches anon_inode:[signalfd]", "whose signals"];
    epoll_of_what_is_open_outside: "epoll-outside", ["epoll that watches what was descriptor 3", "EPOLL_CTL_DEL"];
    epoll_with_an_entry_that_is_stuck: "epoll-fired", ["epoll with an entry that has fired", "another moment"];
    inotify_that_is_not_read: "inotify-unread", ["bytes of events that it", "file/inotify-unread"];
    inotify_of_what_is_not_found: "inotify-lost", ["inotify that watches inode", "no path that leads to it"];
    huge_memfd: "huge-memfd", ["memfd", "huge pages"];
    memfd_with_outside: "memfd-outside", ["memfd", "leak"];
    pidfd_of_outside: "pidfd-outside", ["pidfd of process 1", "isn't part of the tree"];
    pidfd_shared: "pidfd-shared", ["pidfd that several processes have"];
    owner_outside: "owner-outside", ["sends signal 0", "isn't part of the tree"];
    owner_of_directory: "owner-directory", ["F_NOTIFY"];
    socketpair: "socketpair", ["unix"];
    udp: "udp", ["udp"];
    tcp_listening: "tcp-listening", ["tcp"];
    deleted_file_with_outside: "deleted-outside", ["deleted", "leak"];
    deleted_file_with_another_name: "other-name", ["deleted", "file/other-name"];
    fifo_with_outside: "fifo-outside", ["fifo", "leak"];
    fifo_that_nobody_reads: "fifo-unread", ["FIFO", "nobody reads"];
    pty: "pty", ["ptmx"];
    timer_on_time_of_outside: "posix-timer-outside", ["timer 0 counts the CPU time"];
    timer_on_time_of_unknown_thread: "posix-timer-thread", ["timer 0 is on the CPU time", "isn't set"];
    segments: "segments", ["a table of segments of its own"];
    core_scheduling: "core-cookie", ["PR_SCHED_CORE"];
    lease: "lease", ["lease"];
    system_v_memory: "shm", ["SysV"];
    aio_ring: "aio", ["AIO"];
    huge_page_of_the_pool: "hugetlb", ["hugetlbfs"];
    mapped_device: "perf", ["perf"];
    message_queue: "mqueue", ["mqueue"];
    seccomp_strict_mode: "seccomp-strict", ["strict mode"];
    seccomp_that_kills: "seccomp-kill", ["seccomp filters of thread", "munmap"];
    seccomp_that_asks: "seccomp-notify", ["to another process to answer"];
    user_dispatch: "user-dispatch", ["PR_SET_SYSCALL_USER_DISPATCH"];
    io_uring: "io_uring", ["io_uring"];
    userfaultfd: "userfaultfd", ["userfaultfd"];
    proc_file_of_outside: "proc-file-outside", ["/proc/", "file/proc"];
    proc_file_that_is_shared: "proc-file-shared", ["/proc/", "several processes"];
    memfd_secret: "memfd-secret", ["secret"];
    shared_memory_with_outside: "shared-memory-outside", ["shared"];
    pipe_with_outside: "pipe-outside", ["pipe"];
    memory_shared_with_outside: "memory-shared-outside", ["shares its memory with pid", "isn't of the tree"];
    own_directory_shared_with_child: "own-directory-shared", ["shares a working directory", "task/own-fs"];
    own_directory_that_is_removed: "own-directory-removed", ["works in", "has no name any more"];
    other_namespace: "namespace", ["uts"];
    vfork_parent: "vfork", ["vfork"];
}

#[test]
fn vfork_of_a_moment_is_waited_for() {
    let mut workload = Workload::start("refused", &["vfork-moment"]);
    for _ in 0..10 {
        workload.on(workload.checkpoint("image").arg("--force")).ok();
        workload.wait_progress();
    }
    workload.finish();
}

#[test]
fn sessions_orphans_side_by_side() {
    let workload = Workload::start("refused", &["session-apart"]);
    expect_refusal_below(workload, &["it is in session", "task/session"]);
}

#[test]
fn shared_memory_of_one_who_left_it() {
    let workload = Workload::start("refused", &["memory-shared-apart"]);
    expect_refusal_below(workload, &["it shares its memory", "task/shared-memory"]);
}

#[test]
fn shared_directory_of_one_who_left_it() {
    let workload = Workload::start("refused", &["shared-directory-apart"]);
    expect_refusal_below(workload, &["it shares its working directory", "task/shared-fs"]);
}
