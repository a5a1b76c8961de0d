//! `bardo restart` in the foreground stands in for the tree's root, as a shell's child: signals that bardo gets go on to the
//! root, the terminal's job control works, and bardo ends as the root ends.
//!
//! - A signal from the terminal driver (Ctrl-C, a new window size) goes to a whole process group. If the root is in ours it
//!   has the signal already, and passing it on would deliver it twice; if not, it is passed on.
//! - A root with a process group of its own would be a background job of the terminal, and stop when it reads from it
//!   (SIGTTIN). So bardo makes that group the foreground one, as a shell would, and takes the terminal back at the end.
//! - When the root stops (Ctrl-Z), bardo stops too, so that the shell notices; continued, it continues the root.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::OwnedFd;

use bardo_engine::restart::Restarted;
use nix::sys::signal::{SigSet, Signal as NixSignal};
use rustix::process::{
    DumpableBehavior, Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, getpgid, getpgrp, getsid,
    kill_process_group, pidfd_open, pidfd_send_signal, set_dumpable_behavior, waitid,
};
use rustix::termios::{tcgetpgrp, tcsetpgrp};
use signal_hook::iterator::SignalsInfo;
use signal_hook::iterator::exfiltrator::origin::{Origin, WithOrigin};
use signal_hook::low_level::{emulate_default_handler, raise, siginfo::Cause};

use crate::ending::Exit;
use crate::interrupt::{Interrupt, ignored_signals};

/// What is passed on to the root. SIGTTIN and SIGTTOU concern only whoever touched the terminal.
const FORWARDED: [Signal; 9] = [
    Signal::TERM,
    Signal::INT,
    Signal::HUP,
    Signal::QUIT,
    Signal::USR1,
    Signal::USR2,
    Signal::CONT,
    Signal::TSTP,
    Signal::WINCH,
];

/// The tree's root, and whom to wait for.
struct Tree {
    /// Signals go through a descriptor, so that they can't reach a stranger who got the number later.
    root: Option<OwnedFd>,
    root_pid: Option<Pid>,
    wait_for: Pid,
    shown: bool,
}

/// Signals for the root, kept from before it exists.
pub struct Foreground {
    signals: SignalsInfo<WithOrigin>,
}

impl Foreground {
    /// Begins to keep signals. That must be before anybody can know of the tree: a signal to bardo would kill it, or be lost,
    /// if it came between the tree's first instruction and its handler. What was ignored from the start stays so.
    ///
    /// # Errors
    /// sigaction(2) or /proc fails.
    pub fn begin() -> io::Result<Foreground> {
        let ignored = ignored_signals()?;
        let caught = FORWARDED.iter().map(|s| s.as_raw()).filter(|s| !ignored.contains(*s));
        Ok(Foreground { signals: SignalsInfo::new(caught)? })
    }

    /// Stands in for the tree until its root ends.
    ///
    /// # Errors
    /// SIGCHLD can't be caught, or the tree can't be waited for.
    pub fn accompany(self, tree: &Restarted, interrupt: Interrupt) -> io::Result<Exit> {
        let wait_for = Pid::from_raw(tree.wait_for).ok_or_else(|| io::Error::other("the tree has no pid"))?;
        let root_pid = Pid::from_raw(tree.root);
        let root = root_pid.and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok());
        let tree = Tree { root, root_pid, wait_for, shown: root_pid == Some(wait_for) };
        self.signals.add_signal(Signal::CHILD.as_raw())?;
        // From here on, a second Ctrl-C is the root's too.
        drop(interrupt);
        attend(&tree, self.signals)
    }
}

fn attend(tree: &Tree, mut signals: SignalsInfo<WithOrigin>) -> io::Result<Exit> {
    let terminal = Terminal::lend(tree);
    loop {
        // Before each wait, so that a change of state that came with an earlier signal isn't missed.
        while let Some(status) = waitid(
            WaitId::Pid(tree.wait_for),
            WaitIdOptions::EXITED | WaitIdOptions::STOPPED | WaitIdOptions::NOHANG,
        )? {
            if let Some(code) = status.exit_status() {
                return Ok(Exit::Code(u8::try_from(code & 0xff).unwrap_or(u8::MAX)));
            }
            if let Some(signal) = status.terminating_signal() {
                return Ok(Exit::Signal(signal));
            }
            if status.stopping_signal().is_some()
                && tree.shown
                && let Some(terminal) = &terminal
            {
                terminal.stop_with(tree)?;
            }
        }
        for origin in signals.wait() {
            tree.forward(&origin, terminal.as_ref())?;
        }
    }
}

impl Tree {
    fn signal(&self, signal: Signal) {
        // ESRCH: it has ended, as the next wait will tell. EPERM: it has become another user's; like a shell, we can
        // only wait.
        if let Some(root) = &self.root {
            let _ = pidfd_send_signal(root, signal);
        }
    }

    fn group(&self) -> Option<Pid> {
        self.root_pid.and_then(|pid| getpgid(Some(pid)).ok())
    }

    fn forward(&self, origin: &Origin, terminal: Option<&Terminal>) -> io::Result<()> {
        let Some(signal) = Signal::from_named_raw(origin.signal).filter(|s| FORWARDED.contains(s)) else {
            return Ok(());
        };
        let has_it = origin.cause == Cause::Kernel && self.group() == Some(getpgrp());
        if !has_it {
            self.signal(signal);
        }
        // A root that isn't our child can't tell us that it stopped.
        if signal == Signal::TSTP
            && !self.shown
            && let Some(terminal) = terminal
        {
            terminal.stop_with(self)?;
        }
        Ok(())
    }
}

/// The controlling terminal, while its foreground process group is ours or lent to the tree.
struct Terminal {
    tty: File,
    ours: Pid,
}

impl Terminal {
    /// Makes the root's process group the terminal's foreground one. None where there is no terminal, where we don't have it ourselves.
    fn lend(tree: &Tree) -> Option<Terminal> {
        let tty = OpenOptions::new().read(true).write(true).open("/dev/tty").ok()?;
        let ours = getpgrp();
        if tcgetpgrp(&tty).ok()? != ours {
            return None;
        }
        // tcsetpgrp(3) from a background group stops the caller unless SIGTTOU is blocked or ignored.
        let mut blocked = SigSet::empty();
        blocked.add(NixSignal::SIGTTOU);
        blocked.thread_block().ok()?;
        let terminal = Terminal { tty, ours };
        terminal.lend_again(tree);
        Some(terminal)
    }

    fn lend_again(&self, tree: &Tree) {
        let same_session = tree.root_pid.is_some_and(
            |pid| matches!((getsid(Some(pid)), getsid(None)), (Ok(theirs), Ok(ours)) if theirs == ours),
        );
        if let Some(group) = tree.group().filter(|group| same_session && *group != self.ours) {
            // It fails where the root ended meanwhile; the wait tells.
            let _ = tcsetpgrp(&self.tty, group);
        }
    }

    fn take_back(&self) {
        // It fails where the terminal has hung up: then nobody needs it.
        let _ = tcsetpgrp(&self.tty, self.ours);
    }

    /// Stops as the root did, and continues it when we are continued.
    fn stop_with(&self, tree: &Tree) -> io::Result<()> {
        self.take_back();
        raise(Signal::STOP.as_raw())?;
        // Someone continued us: a shell's `fg`, or `bg`, where the terminal isn't ours to lend.
        if tcgetpgrp(&self.tty).is_ok_and(|front| front == self.ours) {
            self.lend_again(tree);
        }
        match tree.group() {
            Some(group) if group != self.ours => drop(kill_process_group(group, Signal::CONT)),
            _ => tree.signal(Signal::CONT),
        }
        Ok(())
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        self.take_back();
    }
}

/// Dies as the root died, so that whoever waits for us sees it; without a core, which would be bardo's and not the tree's.
pub fn die_of(signal: i32) -> ! {
    // core(5): a process that isn't dumpable leaves none, not even to a pipe.
    let _ = set_dumpable_behavior(DumpableBehavior::NotDumpable);
    if emulate_default_handler(signal).is_err() {
        // One that signal-hook has no name for, such as a real-time signal: its disposition is still the default.
        let _ = raise(signal);
    }
    // Only a signal that doesn't kill comes here; the shells' convention for the rest.
    std::process::exit(128 + (signal & 0x7f))
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::unix::process::CommandExt;
    use std::process::{Child, Command, Stdio};
    use std::sync::atomic::Ordering;

    use super::*;

    /// A shell that stands for a restarted tree, in a process group of its own, ready when it has said so.
    fn tree(script: &str) -> (Child, Restarted) {
        let mut shell = Command::new("sh");
        shell.args(["-c", script]).stdin(Stdio::piped()).stdout(Stdio::piped()).process_group(0);
        let mut child = shell.spawn().expect("a shell");
        let mut ready = [0];
        child.stdout.as_mut().expect("its output").read_exact(&mut ready).expect("it is ready");
        let pid = child.id() as i32;
        let tree = Restarted {
            root: pid,
            wait_for: pid,
            processes: 1,
            threads: 1,
            page_bytes: 0,
            lessened: Vec::new(),
            total_us: 0,
        };
        (child, tree)
    }

    fn accompany(tree: &Restarted) -> Exit {
        let foreground = Foreground::begin().expect("handlers");
        foreground.accompany(tree, Interrupt::catch().expect("handlers")).expect("waited")
    }

    /// One test, because signals and their handlers belong to the whole process.
    #[test]
    fn signals_go_to_the_root_and_its_end_is_ours() {
        let (_shell, exits) = tree("echo; exit 7");
        assert_eq!(accompany(&exits), Exit::Code(7));

        let (_shell, dies) = tree("echo; kill -SEGV $$");
        assert_eq!(accompany(&dies), Exit::Signal(11));

        // A signal that came while the tree was being made isn't lost.
        let interrupt = Interrupt::catch().expect("handlers");
        let foreground = Foreground::begin().expect("handlers");
        assert!(!interrupt.flag().load(Ordering::SeqCst));
        raise(Signal::HUP.as_raw()).expect("raise");
        assert!(interrupt.flag().load(Ordering::SeqCst));
        let (_shell, early) = tree("trap 'exit 8' HUP; echo; while read line || kill -0 $PPID; do :; done");
        assert_eq!(foreground.accompany(&early, interrupt).expect("waited"), Exit::Code(8));

        // Sent by a stranger at any time. (Not the ones that Interrupt catches: sent twice before the tree runs, they kill.
        // The handlers of the rest are there since the first call, and stay.)
        for (name, code) in [("USR1", 1), ("QUIT", 2), ("WINCH", 3)] {
            let script = format!(
                "trap 'exit {code}' {name}; trap 'kill -{name} $PPID' USR2; echo; while read line || kill -0 $PPID; do :; done"
            );
            let (mut shell, root) = tree(&script);
            let pid = Pid::from_raw(shell.id() as i32).expect("a pid");
            let shell_fd = pidfd_open(pid, PidfdFlags::empty()).expect("a pidfd");
            let waiting = std::thread::spawn(move || accompany(&root));
            // Again until it arrives: the first may come before anybody listens.
            while !waiting.is_finished() {
                let _ = pidfd_send_signal(&shell_fd, Signal::USR2);
                std::thread::yield_now();
            }
            let exit = waiting.join().expect("no panic");
            assert_eq!(exit, Exit::Code(code), "{name}");
            drop(shell.stdin.take());
        }
    }
}
