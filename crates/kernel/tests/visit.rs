//! A visit leaves its target as it was, whoever dies.

use std::os::fd::AsFd;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use bardo_kernel::mmap::find_hole;
use bardo_kernel::procfs::syscall::{self, Syscall};
use bardo_kernel::procfs::{self, maps};
use bardo_kernel::ptrace::{Running, Waited};
use bardo_kernel::remote::{AREA_LEN, Candidate, Held, Place, Visit};
use bardo_kernel::stub::{Arg, Batch};
use bardo_kernel::{Sysno, fs, pidfd};

/// A child that is ended when the test is over.
struct Target(Child);

impl Drop for Target {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn stop(tid: i32) -> Held {
    let running = Running::seize(tid).unwrap();
    running.interrupt().unwrap();
    let Waited::Stopped(thread) = running.wait().unwrap() else { panic!("{tid} is gone") };
    Held { registers: thread.registers().unwrap(), mask: thread.signal_mask().unwrap(), thread }
}

/// Waits until it is in its call. `wchan` would be misleading: where a continued sleep waits has another name.
fn wait_until_in(pid: i32, call: Sysno) {
    let began = Instant::now();
    while !matches!(syscall::read_thread(pid, pid), Ok(Syscall::Inside { nr, .. }) if nr == call.id() as u64)
    {
        assert!(began.elapsed() < Duration::from_secs(60), "never in {call}");
        std::thread::yield_now();
    }
}

#[test]
fn a_visit_runs_calls_and_leaves_no_trace() {
    let target = Target(Command::new("sleep").arg("1000").stdout(Stdio::null()).spawn().unwrap());
    let pid = target.0.id() as i32;
    wait_until_in(pid, Sysno::clock_nanosleep);
    let held = stop(pid);
    let before = (held.registers, held.mask);
    let descriptors = procfs::descriptors(pid).unwrap();
    let areas = maps::read(pid).unwrap();
    let vdso = areas.iter().find(|a| a.special == Some(maps::Special::Vdso)).unwrap();
    let mem = fs::open(&procfs::path(pid, "mem"), 2, 0).unwrap();
    let place = Place::find(mem.as_fd(), &[Candidate { start: vdso.start, end: vdso.end }]).unwrap();
    let ranges: Vec<_> = areas.iter().map(|a| (a.start, a.end)).collect();
    let hole = find_hole(&ranges, AREA_LEN as u64, 0x10000, 0x7fff_ffff_f000).unwrap();
    let pidfd = pidfd::open(pid).unwrap();

    let mut visit = Visit::enter(held, mem.as_fd(), pidfd.as_fd(), place, hole, false).unwrap();
    for _ in 0..100 {
        let mut batch = Batch::new();
        let me = batch.call(Sysno::getpid, []);
        let bad = batch.attempt(Sysno::close, [Arg::Value(9999)]);
        let name = batch.room_for(16);
        batch.call(Sysno::prctl, [Arg::Value(16), name]);
        visit.run(&mut batch).unwrap();
        assert_eq!(batch.result(me).unwrap(), pid as u64);
        assert!(batch.result(bad).unwrap_err().is(9));
        assert_eq!(&batch.output(name, 6), b"sleep\0");
    }
    let mut batch = Batch::new();
    batch.call(Sysno::close, [Arg::Value(9999)]);
    let never = batch.call(Sysno::getpid, []);
    assert!(visit.run(&mut batch).unwrap_err().is(9));
    assert!(batch.result(never).is_err());
    let held = visit.leave().unwrap();

    assert_eq!((held.thread.registers().unwrap(), held.thread.signal_mask().unwrap()), before);
    let after = maps::read(pid).unwrap();
    assert_eq!(after, areas);
    let mut tail = vec![1; 1024];
    fs::pread(mem.as_fd(), &mut tail, vdso.end - 1024).unwrap();
    assert!(tail.iter().all(|b| *b == 0));
    assert_eq!(procfs::descriptors(pid).unwrap(), descriptors);
    held.thread.detach(0).unwrap();
    wait_until_in(pid, Sysno::restart_syscall);
}
