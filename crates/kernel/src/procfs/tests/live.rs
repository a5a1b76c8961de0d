//! The parsers against what this kernel says of processes that were made for it.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::process::CommandExt;

use super::Child;
use crate::fs;
use crate::procfs::limits::{Limit, Resource};
use crate::procfs::stat::State;
use crate::procfs::syscall::Syscall;
use crate::procfs::*;

fn me() -> i32 {
    std::process::id() as i32
}

/// A name that holds whatever might confuse a parser, of all the bytes that the kernel keeps.
const HOSTILE: &std::ffi::CStr = c") R 1\n\\n(x\t:Uid";

#[test]
fn all_that_is_said_of_a_child() {
    let child = Child::start();
    let pid = child.pid();
    let stat = stat::read(pid).unwrap();
    let status = status::read(pid).unwrap();
    assert_eq!((stat.pid, stat.ppid, stat.comm.as_os_str()), (pid, me(), OsStr::new("cat")));
    assert_eq!((status.pid, status.ppid, status.name), (pid, me(), stat.comm.clone()));
    assert_eq!((status.tgid, status.threads, stat.num_threads), (pid, 1, 1));
    assert_eq!(status.ns_pid.last(), status.ns_tgid.last());
    assert_eq!(comm(pid).unwrap(), "cat");
    assert_eq!(cmdline(pid).unwrap(), ["cat"]);
    assert_eq!(stat::read_thread(pid, pid).unwrap().starttime, stat.starttime);
    assert_eq!(status::read_thread(pid, pid).unwrap().sig_cgt, status.sig_cgt);

    assert!(processes().unwrap().contains(&pid));
    assert_eq!(threads(pid).unwrap(), [pid]);
    assert!(descriptors(pid).unwrap().starts_with(&[0, 1, 2]));
    assert!(children::read(me()).unwrap().contains(&pid));
    assert_eq!(children::read(pid).unwrap(), [] as [i32; 0]);
    assert_eq!(ns::read(pid).unwrap(), ns::read(me()).unwrap());
    assert_eq!(ns::read_thread(pid, pid).unwrap(), ns::read(pid).unwrap());
    assert_eq!(cgroup::read(pid).unwrap(), cgroup::read(me()).unwrap());
    assert_eq!(mountinfo::read(pid).unwrap(), mountinfo::read(me()).unwrap());
    assert_eq!(limits::read(pid).unwrap(), limits::read(me()).unwrap());
    assert_eq!(timers::read(pid).unwrap(), []);
    assert!(sched::read(pid).unwrap().nr_switches >= 1);
    assert_eq!(single::personality(pid).unwrap(), single::personality(me()).unwrap());
    assert_eq!(single::oom_score_adj(pid).unwrap(), single::oom_score_adj(me()).unwrap());
    assert_eq!(single::loginuid(pid).unwrap(), single::loginuid(me()).unwrap());
    assert_eq!(single::coredump_filter(pid).unwrap(), single::coredump_filter(me()).unwrap());
    assert_eq!(boot_id().unwrap(), boot_id().unwrap());
    single::wchan(pid, pid).unwrap();
    // Privileged but of the very thread that asks.
    single::timerslack_ns(crate::mmap::gettid().unwrap() as i32).unwrap();
}

#[test]
fn a_hostile_name_is_read_back_everywhere() {
    let (tell, told) = std::sync::mpsc::channel();
    let (finish, finished) = std::sync::mpsc::channel::<()>();
    let thread = std::thread::spawn(move || {
        // SAFETY: PR_SET_NAME reads a string that ends in NUL.
        assert_eq!(unsafe { libc::prctl(libc::PR_SET_NAME, HOSTILE.as_ptr()) }, 0);
        tell.send(crate::mmap::gettid().unwrap() as i32).unwrap();
        // Ends when the other end is dropped.
        let _ = finished.recv();
    });
    let tid = told.recv().unwrap();
    let name = OsStr::new(HOSTILE.to_str().unwrap());
    assert_eq!(name.len(), 15, "not what the kernel keeps");
    assert_eq!(single::comm_thread(me(), tid).unwrap(), name);
    // A thread has a directory of its own under /proc too, though none that is listed.
    assert_eq!(comm(tid).unwrap(), name);
    for stat in [stat::read_thread(me(), tid).unwrap(), stat::read(tid).unwrap()] {
        assert_eq!((stat.pid, stat.comm.as_os_str(), stat.pgrp), (tid, name, stat::read(me()).unwrap().pgrp));
    }
    let status = status::read_thread(me(), tid).unwrap();
    assert_eq!((status.pid, status.tgid, status.name.as_os_str()), (tid, me(), name));
    assert!(sched::read_thread(me(), tid).unwrap().exec_start_ns > 0);
    drop(finish);
    thread.join().unwrap();
}

#[test]
fn areas_agree_with_the_files_they_map() {
    let child = Child::start();
    let areas = maps::read(child.pid()).unwrap();
    let entries = smaps::read(child.pid()).unwrap();
    assert!(areas.windows(2).all(|pair| pair[0].end <= pair[1].start));
    assert_eq!(areas, entries.iter().map(|e| e.area.clone()).collect::<Vec<_>>());
    assert!(entries.iter().all(|e| e.vm_flags.unknown.is_empty()), "{entries:#?}");
    assert!(entries.iter().any(|e| e.vm_flags.has(smaps::VmFlag::GrowsDown)));
    let file =
        areas.iter().find(|a| a.path.as_os_str().to_str().is_some_and(|p| p.ends_with("/cat"))).unwrap();
    let stat = fs::stat(&file.path).unwrap();
    assert_eq!(file.inode, stat.ino);
    let vdso = auxv::read(child.pid()).unwrap().get(libc::AT_SYSINFO_EHDR).unwrap();
    assert_eq!(areas.iter().find(|a| a.start == vdso).unwrap().special, Some(maps::Special::Vdso));
    let stack = areas.iter().find(|a| a.special == Some(maps::Special::Stack)).unwrap();
    assert!(stack.contains(stat::read(child.pid()).unwrap().start_stack));
}

#[test]
fn an_area_of_our_own_is_named_in_full() {
    // A path longer than a page once escaped: 4 directories of 250 newlines each.
    let root = std::env::temp_dir().join(format!("maps-{}", me()));
    let mut dir = root.clone();
    for _ in 0..5 {
        dir = dir.join("\n".repeat(250));
    }
    std::fs::create_dir_all(&dir).unwrap();
    let path = dir.join("a\\012b (deleted)");
    std::fs::write(&path, [1; 4096]).unwrap();
    let path = std::fs::canonicalize(&path).unwrap();
    let file = std::fs::File::open(&path).unwrap();
    let pages =
        crate::mmap::SharedPages::map_at(file.as_fd(), 0, 4096, 0x6_5432_1000, libc::PROT_READ).unwrap();
    let find = || maps::read(me()).unwrap().into_iter().find(|a| a.start == pages.address()).unwrap();
    let alive = find();
    assert_eq!((alive.inode, alive.end), (fs::fstat(file.as_fd()).unwrap().ino, pages.address() + 4096));
    std::fs::remove_dir_all(&root).unwrap();
    let dead = find();
    // As the module says: the suffix and an escape in a name can't be told from the kernel's own.
    let read_as = path.to_str().unwrap().replace("\\012", "\n");
    assert!(alive.deleted && dead.deleted);
    assert_eq!(alive.path.to_str(), read_as.strip_suffix(" (deleted)"));
    assert_eq!(dead.path.to_str(), Some(read_as.as_str()));
}

#[test]
fn a_stopped_child_is_stopped() {
    let child = Child::start();
    let pidfd = crate::pidfd::open(child.pid()).unwrap();
    crate::pidfd::send_signal(pidfd.as_fd(), libc::SIGSTOP).unwrap();
    // SAFETY: waits for our own child; no memory is handed over but a null pointer.
    let got = unsafe { libc::waitpid(child.pid(), std::ptr::null_mut(), libc::WUNTRACED) };
    assert_eq!(got, child.pid());
    assert_eq!(stat::read(child.pid()).unwrap().state, State::Stopped);
    assert_eq!(status::read(child.pid()).unwrap().state, State::Stopped);
    assert_ne!(syscall::read(child.pid()).unwrap(), Syscall::Running);
}

#[test]
fn the_system_call_of_a_waiting_thread() {
    let pipe = crate::pipe::make(0).unwrap();
    let fd = pipe.read.as_raw_fd();
    let (tell, told) = std::sync::mpsc::channel();
    let thread = std::thread::spawn(move || {
        tell.send(crate::mmap::gettid().unwrap() as i32).unwrap();
        let mut byte = [0];
        fs::read(pipe.read.as_fd(), &mut byte).unwrap()
    });
    let tid = told.recv().unwrap();
    // It may still be on its way into read(2). Nothing but our end of the pipe lets it out again.
    let (args, sp, pc) = loop {
        match syscall::read_thread(me(), tid).unwrap() {
            Syscall::Inside { nr, args, sp, pc } if nr == libc::SYS_read as u64 => break (args, sp, pc),
            _ => std::thread::yield_now(),
        }
    };
    assert_eq!((args[0], args[2]), (fd as u64, 1));
    let areas = maps::read(me()).unwrap();
    let at = |addr| areas.iter().find(|a| a.contains(addr)).unwrap();
    assert!(at(pc).perms.exec && at(sp).perms.write && at(args[1]).perms.write);
    drop(pipe.write);
    assert_eq!(thread.join().unwrap(), 0);
}

#[test]
fn a_zombie_has_a_stat_and_a_status_and_no_memory() {
    let mut child = Child::start();
    let pidfd = crate::pidfd::open(child.pid()).unwrap();
    child.0.kill().unwrap();
    assert!(crate::pidfd::wait_end(pidfd.as_fd(), -1).unwrap());
    let pid = child.pid();
    assert_eq!(stat::read(pid).unwrap().state, State::Zombie);
    assert_eq!(stat::read(pid).unwrap().exit_code, libc::SIGKILL);
    assert!(status::read(pid).unwrap().is_dead());
    assert_eq!(maps::read(pid).unwrap(), []);
    assert_eq!(smaps::read(pid).unwrap(), []);
    // Nothing, or ESRCH from newer kernels; EACCES without privilege, for files of a process without memory that only
    // the owner may read are root's.
    match auxv::read(pid) {
        Ok(auxv) => assert_eq!(auxv.0, []),
        Err(e) => assert!(e.is(libc::ESRCH) || e.is(libc::EACCES), "{e}"),
    }
    assert_eq!(cmdline(pid).unwrap(), [] as [&str; 0]);
    assert_eq!(single::coredump_filter(pid).unwrap(), None);
    child.0.wait().unwrap();
    let gone = stat::read(pid).unwrap_err();
    assert!(gone.is(libc::ENOENT) && gone.call.contains(&format!("/proc/{pid}/stat")), "{gone}");
    assert!(ns::read(pid).unwrap_err().is(libc::ENOENT));
    assert!(children::read(pid).unwrap_err().is(libc::ENOENT));
}

#[test]
fn limits_of_a_child_are_its_own() {
    // Never above what we have: raising it back takes a privilege.
    let hard = limits::read(me()).unwrap().get(Resource::FileSize).hard.min(1 << 20);
    let soft = hard.min(12345);
    let child = Child::start_with(|command| {
        // SAFETY: between fork and exec only setrlimit(2) is called, which is async-signal-safe.
        unsafe {
            command.pre_exec(move || {
                let limit = libc::rlimit { rlim_cur: soft, rlim_max: hard };
                if libc::setrlimit(libc::RLIMIT_FSIZE, &raw const limit) != 0 {
                    return Err(std::io::Error::last_os_error());
                }
                Ok(())
            });
        }
    });
    assert_eq!(limits::read(child.pid()).unwrap().get(Resource::FileSize), Limit { soft, hard });
}

#[test]
fn environment_and_arguments_come_back() {
    let child = Child::start_with(|command| {
        command.env_clear().env("EMPTY", "").env("LINES", "a\nb=c").arg("-u").arg("-");
    });
    let environ: BTreeSet<_> = environ(child.pid()).unwrap().into_iter().collect();
    assert_eq!(environ, ["EMPTY=", "LINES=a\nb=c"].map(Into::into).into());
    assert_eq!(cmdline(child.pid()).unwrap(), ["cat", "-u", "-"]);
}

#[test]
fn descriptors_of_our_own_tell_what_they_are() {
    // SAFETY: a call without pointers; the new descriptor is owned from here on.
    let event = unsafe { OwnedFd::from_raw_fd(libc::eventfd(7, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK)) };
    let info = fdinfo::read(me(), event.as_raw_fd()).unwrap();
    assert_eq!(info.get("eventfd-count"), Some("7"));
    assert_eq!(info.flags as i32 & libc::O_NONBLOCK, libc::O_NONBLOCK);
    assert_eq!(info.flags as i32 & libc::O_CLOEXEC, libc::O_CLOEXEC);
    assert_eq!(info.ino, Some(fs::fstat(event.as_fd()).unwrap().ino));

    let path = std::env::temp_dir().join(format!("fdinfo-{}", me()));
    let file = fs::open(&path, libc::O_RDWR | libc::O_CREAT | libc::O_EXCL, 0o600).unwrap();
    fs::write(file.as_fd(), b"12345").unwrap();
    // SAFETY: flock(2) touches no memory.
    assert_eq!(unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_EX) }, 0);
    let info = fdinfo::read_thread(me(), me(), file.as_raw_fd()).unwrap();
    let stat = fs::fstat(file.as_fd()).unwrap();
    assert_eq!((info.pos, info.ino), (5, Some(stat.ino)));
    assert_eq!(info.locks.len(), 1);
    assert_eq!(
        (&info.locks[0].kind, info.locks[0].inode, info.locks[0].pid),
        (&locks::Kind::Flock, stat.ino, me())
    );
    assert!(locks::read().unwrap().iter().any(|l| l.inode == stat.ino && l.dev() == info.locks[0].dev()));
    assert!(mountinfo::read(me()).unwrap().iter().any(|m| m.id == info.mnt_id));
    std::fs::remove_file(&path).unwrap();
    let failed = fdinfo::read(me(), 99999).unwrap_err();
    assert!(failed.is(libc::ENOENT) && failed.call.contains("/fdinfo/99999"), "{failed}");
}

#[test]
fn a_posix_timer_is_listed() {
    // SAFETY: the event and the id live over the calls; the timer is deleted by its id.
    unsafe {
        let mut event: libc::sigevent = std::mem::zeroed();
        event.sigev_notify = libc::SIGEV_NONE;
        event.sigev_signo = libc::SIGUSR2;
        event.sigev_value.sival_ptr = 0x1234_5678_9abc as *mut libc::c_void;
        let mut id: libc::timer_t = std::ptr::null_mut();
        assert_eq!(libc::timer_create(libc::CLOCK_BOOTTIME, &raw mut event, &raw mut id), 0);
        let timers = timers::read(me()).unwrap();
        let timer = timers.iter().find(|t| t.value == 0x1234_5678_9abc).expect("the timer isn't listed");
        assert_eq!((timer.notify, timer.clock), (timers::Notify::None, libc::CLOCK_BOOTTIME));
        assert_eq!(libc::timer_delete(id), 0);
    }
}
