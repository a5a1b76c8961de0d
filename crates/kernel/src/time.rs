//! Clocks (clock_gettime(2)) and short sleeps (clock_nanosleep(2)). Privilege: none.

use syscalls::Sysno;

use crate::error::Result;
use crate::gate::syscall;

/// CLOCK_MONOTONIC, in nanoseconds.
pub fn monotonic_ns() -> u64 {
    always_ns(libc::CLOCK_MONOTONIC)
}

/// CLOCK_REALTIME, in nanoseconds since the epoch.
pub fn realtime_ns() -> u64 {
    always_ns(libc::CLOCK_REALTIME)
}

/// A clock whose reading can't fail, but by the gate: so it is read again.
fn always_ns(clock: i32) -> u64 {
    loop {
        if let Ok(ns) = clock_ns(clock) {
            return ns;
        }
    }
}

/// Any clock, in nanoseconds.
///
/// # Errors
/// EINVAL: there is no such clock.
pub fn clock_ns(clock: i32) -> Result<u64> {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the time lives over the call.
    unsafe { syscall(Sysno::clock_gettime, [clock as usize, &raw mut time as usize, 0, 0, 0, 0]) }
        .map_err(|e| e.of(format!("clock_gettime({clock})")))?;
    Ok(time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64)
}

/// Sleeps this long, or less where a signal comes.
pub fn sleep_ns(nanoseconds: u64) {
    let time = libc::timespec {
        tv_sec: (nanoseconds / 1_000_000_000) as i64,
        tv_nsec: (nanoseconds % 1_000_000_000) as i64,
    };
    // SAFETY: the time lives over the call.
    let _ = unsafe {
        syscall(
            Sysno::clock_nanosleep,
            [libc::CLOCK_MONOTONIC as usize, 0, &raw const time as usize, 0, 0, 0],
        )
    };
}

/// Gives the processor to whoever waits for it (sched_yield(2)).
pub fn give_way() {
    // SAFETY: no memory is touched.
    let _ = unsafe { syscall(Sysno::sched_yield, [0; 6]) };
}

/// Waiting for somebody who needs a processor, in steps that grow: who has to share one gets further in a longer step.
#[derive(Debug)]
pub struct Patience {
    until_ns: u64,
    steps: u32,
}

impl Patience {
    /// This much of it.
    pub fn of(nanoseconds: u64) -> Patience {
        Patience { until_ns: monotonic_ns().saturating_add(nanoseconds), steps: 0 }
    }

    /// Waits a step; false where there was enough waiting.
    pub fn wait(&mut self) -> bool {
        self.steps += 1;
        match self.steps {
            ..20 => give_way(),
            20..100 => sleep_ns(50_000),
            _ => sleep_ns(2_000_000),
        }
        monotonic_ns() < self.until_ns
    }
}
