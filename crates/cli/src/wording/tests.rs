//! Each kind of message, whole. A change of wording shows here, and nowhere else.

use bardo_kernel::{Errno, Failed};

use super::*;

fn nginx() -> Option<Who> {
    Some(Who { pid: 4127, name: "nginx".into() })
}

fn tcp(fd: i32) -> Refusal {
    Refusal {
        who: nginx(),
        fd: Some(fd),
        what: "tcp 10.0.0.5:443 to 10.0.0.9:51244, established".into(),
        code: "tcp/established",
        why: "its peer would wait for it for as long as it is stopped".into(),
        remedy: "--tcp keep   to save it, or   --tcp close   to restart it closed".into(),
    }
}

fn failure(call: &str, errno: i32) -> Failure {
    Failure {
        doing: "reading the memory map".into(),
        who: nginx(),
        call: Some(Failed { call: call.into(), errno: Errno(errno) }),
        left: String::new(),
        remedy: None,
    }
}

#[test]
fn refused() {
    let uring = Refusal {
        who: Some(Who { pid: 4130, name: "a\u{1b}[2J\nb".into() }),
        fd: None,
        what: "a thread under another tracer, pid 99 (gdb)".into(),
        code: "process/traced",
        why: "the kernel allows one tracer".into(),
        remedy: "detach gdb".into(),
    };
    let host = Refusal {
        who: None,
        fd: None,
        what: "the clock of this host".into(),
        code: "host/clock",
        why: "it stands still".into(),
        remedy: "set it".into(),
    };
    assert_eq!(
        message(&Error::Refused(vec![tcp(9), tcp(12), uring, host]), During::Checkpoint, None),
        "\
refused: 4 resources of this tree can't be checkpointed. It runs on, untouched; nothing was written.

  pid 4127 (nginx)          fd 9   tcp 10.0.0.5:443 to 10.0.0.9:51244, established   [tcp/established]
    why  its peer would wait for it for as long as it is stopped
    do   --tcp keep   to save it, or   --tcp close   to restart it closed

  pid 4127 (nginx)          fd 12  tcp 10.0.0.5:443 to 10.0.0.9:51244, established   [tcp/established]
    why  its peer would wait for it for as long as it is stopped
    do   --tcp keep   to save it, or   --tcp close   to restart it closed

  pid 4130 (a\\u{1b}[2J\\nb)         a thread under another tracer, pid 99 (gdb)   [process/traced]
    why  the kernel allows one tracer
    do   detach gdb

  the clock of this host   [host/clock]
    why  it stands still
    do   set it
"
    );
}

#[test]
fn refused_at_a_restart() {
    let text = message(&Error::Refused(vec![tcp(9)]), During::Restart, None);
    assert!(
        text.starts_with(
            "refused: 1 resource of this image can't be restarted. Nothing was started.\n\n  pid 4127"
        ),
        "{text}"
    );
}

#[test]
fn failed() {
    let mut failure = failure("openat(\"/proc/4127/maps\", O_RDONLY)", 2);
    failure.remedy = Some("try again".into());
    assert_eq!(
        message(&Error::Failed(failure), During::Checkpoint, None),
        "\
failed: reading the memory map

  pid 4127 (nginx)
    call  openat(\"/proc/4127/maps\", O_RDONLY): ENOENT (No such file or directory)
    left  the tree runs on, untouched; nothing was written
    do    try again
"
    );
}

#[test]
fn a_failure_s_own_state_goes_before_the_promised_one() {
    let failure =
        Failure { left: "the image is whole; the tree is stopped".into(), who: None, ..failure("fsync", 5) };
    let text = message(&Error::Failed(failure), During::Checkpoint, None);
    assert!(text.contains("\n    left  the image is whole; the tree is stopped\n"), "{text}");
    assert!(!text.contains("runs on"), "{text}");
}

#[test]
fn permission_names_the_capability() {
    let failed = failure("ptrace(PTRACE_SEIZE, 4127)", 1);
    assert_eq!(
        message(&Error::Permission(failed), During::Checkpoint, None),
        "\
no permission: reading the memory map

  pid 4127 (nginx)
    call   ptrace(PTRACE_SEIZE, 4127): EPERM (Operation not permitted)
    needs  to be the same user as the process, or CAP_SYS_PTRACE (and kernel.yama.ptrace_scope below 2)
    left   the tree runs on, untouched; nothing was written
"
    );
    for (call, capability) in [
        ("clone3({set_tid: [4127]})", "CAP_CHECKPOINT_RESTORE"),
        ("open(\"/proc/4127/mem\", 0)", "CAP_SYS_PTRACE"),
        ("kill(4127, 9)", "CAP_KILL"),
        ("unshare(CLONE_NEWPID)", "CAP_SYS_ADMIN"),
        ("setresuid(0, 0, 0)", "CAP_SETUID"),
        ("setgroups(3, …)", "CAP_SETGID"),
        ("prlimit64(0, RLIMIT_NOFILE)", "CAP_SYS_RESOURCE"),
        ("setpriority(0, 4127, -5)", "CAP_SYS_NICE"),
        ("something_new()", "CAP_CHECKPOINT_RESTORE"),
    ] {
        let needs = missing(&failure(call, 1), During::Restart);
        assert!(needs.contains(capability), "{call}: {needs}");
    }
}

#[test]
fn unfit() {
    let amx = Refusal {
        who: None,
        fd: None,
        what: "AMX tile data".into(),
        code: "cpu/amx",
        why: "this processor lacks it, and the tree had used it".into(),
        remedy: "restart on a host with amx_tile in /proc/cpuinfo".into(),
    };
    assert_eq!(
        message(&Error::Unfit(vec![amx]), During::Restart, None),
        "\
unfit: this host can't run this image, for 1 reason. Nothing was started.

  AMX tile data   [cpu/amx]
    why  this processor lacks it, and the tree had used it
    do   restart on a host with amx_tile in /proc/cpuinfo
"
    );
}

#[test]
fn conflict() {
    let pid = Refusal {
        who: Some(Who { pid: 4127, name: "vim".into() }),
        fd: None,
        what: "pid 4127".into(),
        code: "pid/taken",
        why: "the image's pid 4127 (nginx) needs this number".into(),
        remedy: "--pid-space new".into(),
    };
    assert_eq!(
        message(&Error::Conflict(vec![pid.clone()]), During::Restart, None),
        "\
conflict: 1 thing that this image needs is taken. Nothing was started.

  pid 4127 (vim)  pid 4127   [pid/taken]
    why  the image's pid 4127 (nginx) needs this number
    do   --pid-space new
"
    );
    let text = message(&Error::Conflict(vec![pid.clone(), pid]), During::Checkpoint, None);
    assert!(
        text.starts_with(
            "conflict: 2 things that this checkpoint needs are taken. The tree runs on, untouched; nothing was written.\n"
        ),
        "{text}"
    );
}

#[test]
fn bug() {
    assert_eq!(
        message(&Error::Bug("a thread had no registers".into()), During::Checkpoint, None),
        "\
bug: a thread had no registers

    left  the tree runs on, untouched
    do    this is a mistake in bardo, not yours. Please report it, with this text and what these print:
          bardo --version;  uname -srm;  bardo doctor
"
    );
}

#[test]
fn figures() {
    assert_eq!(bytes(0), "0 B");
    assert_eq!(bytes(1023), "1023 B");
    assert_eq!(bytes(1024), "1.0 KiB");
    assert_eq!(bytes(1024 * 1024 - 1), "1.0 MiB");
    assert_eq!(bytes(34 << 20), "34.0 MiB");
    assert_eq!(bytes(u64::MAX), "16.0 EiB");
    assert_eq!(micros(850), "850 µs");
    assert_eq!(micros(3_210), "3.21 ms");
    assert_eq!(micros(1_500_000), "1.50 s");
    assert_eq!(count(1, "process", "processes"), "1 process");
    assert_eq!(count(0, "process", "processes"), "0 processes");
}
