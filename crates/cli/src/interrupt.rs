//! Ctrl-C during an operation. The first SIGINT, SIGTERM or SIGHUP only raises a flag: the engine asks for it between its
//! stages, puts everything back and returns. A second one of the same kind has its default action, because even a
//! killed bardo leaves its target unharmed. A signal that was ignored when bardo started stays so (nohup(1)).
//!
//! SIGTSTP must not stop bardo while a tree is frozen, because the tree would stay frozen with it: it is swallowed.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use rustix::process::Signal;
use signal_hook::SigId;
use signal_hook::{flag, low_level};

use crate::ending::Ending;
use crate::session::failed;

/// Catches interruptions until it is dropped.
#[derive(Debug)]
pub struct Interrupt {
    raised: Arc<AtomicBool>,
    signal: Arc<AtomicUsize>,
    registered: Vec<SigId>,
}

impl Interrupt {
    /// Begins to catch.
    ///
    /// # Errors
    /// sigaction(2) or /proc fails.
    pub fn catch() -> Result<Interrupt, Ending> {
        Interrupt::try_catch().map_err(|e| failed("catching signals", "sigaction()", &e))
    }

    fn try_catch() -> io::Result<Interrupt> {
        let mut this = Interrupt { raised: Arc::default(), signal: Arc::default(), registered: Vec::new() };
        let ignored = ignored_signals()?;
        for signal in [Signal::INT, Signal::TERM, Signal::HUP] {
            let signal = signal.as_raw();
            if ignored.contains(signal) {
                continue;
            }
            // Handlers run in this order: the first signal finds the flag down and raises it.
            this.registered.push(flag::register_conditional_default(signal, Arc::clone(&this.raised))?);
            this.registered.push(flag::register(signal, Arc::clone(&this.raised))?);
            this.registered.push(flag::register_usize(signal, Arc::clone(&this.signal), signal as usize)?);
        }
        if !ignored.contains(Signal::TSTP.as_raw()) {
            this.registered.push(flag::register(Signal::TSTP.as_raw(), Arc::default())?);
        }
        Ok(this)
    }

    /// The flag, for whoever watches the operation.
    pub fn flag(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.raised)
    }

    /// The signal that came, if one did.
    pub fn signal(&self) -> Option<i32> {
        i32::try_from(self.signal.load(Ordering::SeqCst)).ok().filter(|s| *s != 0)
    }
}

impl Drop for Interrupt {
    fn drop(&mut self) {
        for id in self.registered.drain(..) {
            low_level::unregister(id);
        }
    }
}

/// A set of signals as /proc/PID/status prints it: bit N - 1 stands for signal N (proc(5)).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SignalSet(u64);

impl SignalSet {
    /// Whether this signal is in it.
    pub fn contains(self, signal: i32) -> bool {
        (1..=64).contains(&signal) && self.0 >> (signal - 1) & 1 == 1
    }
}

/// The signals that this process ignores.
pub fn ignored_signals() -> io::Result<SignalSet> {
    parse_ignored(&std::fs::read_to_string("/proc/self/status")?)
        .ok_or_else(|| io::Error::other("/proc/self/status has no SigIgn"))
}

fn parse_ignored(status: &str) -> Option<SignalSet> {
    let line = status.lines().find_map(|line| line.strip_prefix("SigIgn:"))?;
    u64::from_str_radix(line.trim(), 16).ok().map(SignalSet)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ignored_signals_are_read_from_status() {
        let set = parse_ignored("Name:\tx\nSigIgn:\t0000000000001001\n").expect("a set");
        assert!(set.contains(1) && set.contains(13));
        assert!(!set.contains(2) && !set.contains(0) && !set.contains(65));
        assert_eq!(parse_ignored("SigIgn:\tx\n"), None);
        assert_eq!(parse_ignored(""), None);
    }
}
