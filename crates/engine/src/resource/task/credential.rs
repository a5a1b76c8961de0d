//! Credentials: user and group ids, groups, capabilities, the bits that go with them (credentials(7), capabilities(7)).
//!
//! **In the kernel**: each thread has its own; libc keeps them equal within a process.
//!
//! **In the image**: with the thread's record.
//!
//! **Taken how**: `/proc/PID/task/TID/status`; securebits and keepcaps by prctl(2) inside.
//!
//! **Put back how**: inside the thread, and only where they differ from what it has: groups, gids, bounding set, uids with the
//! capabilities kept over the change, ambient set, securebits, then capset(2). The kernel's own checks on the caller decide: an
//! image gives nobody a right.
//!
//! **Not saved**: keyrings, LSM labels (a restarted thread has the restarter's).

use bardo_kernel::Sysno;
use bardo_kernel::procfs::status::Status;
use bardo_kernel::stub::{Arg, Batch, StepId};
use serde::{Deserialize, Serialize};

/// SECBIT_KEEP_CAPS, which PR_SET_KEEPCAPS sets too.
const KEEP_CAPS: u32 = 1 << 4;

/// The credentials of a thread.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Credentials {
    /// Real, effective, saved, file system (status, Uid).
    pub uid: [u32; 4],
    /// The same (status, Gid).
    pub gid: [u32; 4],
    /// Supplementary groups (status, Groups).
    pub groups: Vec<u32>,
    /// Inheritable, permitted, effective, bounding, ambient (status, Cap…).
    pub capabilities: [u64; 5],
    /// PR_SET_NO_NEW_PRIVS.
    #[serde(default)]
    pub no_new_privs: bool,
    /// PR_GET_SECUREBITS.
    #[serde(default)]
    pub securebits: u32,
    /// PR_GET_KEEPCAPS.
    #[serde(default)]
    pub keepcaps: bool,
}

/// The questions for [`Credentials::take`].
#[derive(Debug)]
pub struct CredentialsAsked {
    securebits: StepId,
    keepcaps: StepId,
}

impl Credentials {
    /// Reads them; what `/proc` doesn't show was asked inside.
    pub fn take(status: &Status, asked: Option<(&CredentialsAsked, &Batch)>) -> Credentials {
        let answer = |step: fn(&CredentialsAsked) -> StepId| {
            asked.and_then(|(asked, batch)| batch.result(step(asked)).ok()).unwrap_or(0) as u32
        };
        let ids = |ids: bardo_kernel::procfs::status::Ids| [ids.real, ids.effective, ids.saved, ids.fs];
        Credentials {
            uid: ids(status.uid),
            gid: ids(status.gid),
            groups: status.groups.clone(),
            capabilities: [status.cap_inh, status.cap_prm, status.cap_eff, status.cap_bnd, status.cap_amb],
            no_new_privs: status.no_new_privs,
            securebits: answer(|a| a.securebits),
            keepcaps: answer(|a| a.keepcaps) != 0,
        }
    }

    /// Asks for what `/proc` doesn't show.
    pub fn ask(batch: &mut Batch) -> CredentialsAsked {
        let mut get = |option: i32| batch.attempt(Sysno::prctl, [Arg::Value(option as u64)]);
        CredentialsAsked { securebits: get(libc::PR_GET_SECUREBITS), keepcaps: get(libc::PR_GET_KEEPCAPS) }
    }

    /// Puts them back into a thread that has `now`.
    ///
    /// What needs a capability comes while there are still those that the thread was born with: they are kept over the change
    /// of ids, made effective again, and reduced to what they shall be at the very end.
    pub fn put(&self, now: &Credentials, batch: &mut Batch) {
        let value = |v: u32| Arg::Value(u64::from(v));
        let control = |option: i32, argument: u64| [Arg::Value(option as u64), Arg::Value(argument)];
        let ids_differ = self.uid != now.uid || self.gid != now.gid || self.groups != now.groups;
        let bits_differ = (self.securebits ^ now.securebits) & !KEEP_CAPS != 0;
        let caps_differ = ids_differ || bits_differ || self.capabilities != now.capabilities;
        let [inheritable, permitted, effective, _, ambient] = self.capabilities;
        let [_, born, born_effective, ..] = now.capabilities;
        let mut kept = now.keepcaps;
        if caps_differ {
            // What is inheritable may be more than the bounding set is going to hold.
            put_capabilities([inheritable, born, born_effective], batch);
        }
        if self.uid != now.uid {
            // EPERM: a lock (SECBIT_KEEP_CAPS_LOCKED) that the restarter has.
            batch.attempt(Sysno::prctl, control(libc::PR_SET_KEEPCAPS, 1));
            kept = true;
        }
        if self.groups != now.groups {
            let groups: Vec<u8> = self.groups.iter().flat_map(|g| g.to_ne_bytes()).collect();
            let at = batch.data(&groups);
            batch.call(Sysno::setgroups, [Arg::Value(self.groups.len() as u64), at]);
        }
        if self.gid != now.gid {
            batch.call(Sysno::setresgid, [value(self.gid[0]), value(self.gid[1]), value(self.gid[2])]);
            batch.attempt(Sysno::setfsgid, [value(self.gid[3])]);
        }
        // The bounding set shrinks while CAP_SETPCAP is still there.
        for capability in 0..64u64 {
            let bit = 1 << capability;
            if now.capabilities[3] & bit != 0 && self.capabilities[3] & bit == 0 {
                batch.call(Sysno::prctl, control(libc::PR_CAPBSET_DROP, capability));
            }
        }
        if self.uid != now.uid {
            batch.call(Sysno::setresuid, [value(self.uid[0]), value(self.uid[1]), value(self.uid[2])]);
            batch.attempt(Sysno::setfsuid, [value(self.uid[3])]);
        }
        if caps_differ {
            put_capabilities([inheritable, born, born], batch);
            self.raise_ambient(ambient, batch);
            if kept != self.keepcaps {
                batch.attempt(Sysno::prctl, control(libc::PR_SET_KEEPCAPS, u64::from(self.keepcaps)));
                kept = self.keepcaps;
            }
            if bits_differ {
                batch.call(Sysno::prctl, control(libc::PR_SET_SECUREBITS, u64::from(self.securebits)));
            }
            put_capabilities([inheritable, permitted, effective], batch);
        }
        if kept != self.keepcaps {
            // A locked SECBIT_KEEP_CAPS forbids it; then it is as it was.
            batch.attempt(Sysno::prctl, control(libc::PR_SET_KEEPCAPS, u64::from(self.keepcaps)));
        }
        if self.no_new_privs && !now.no_new_privs {
            batch.call(
                Sysno::prctl,
                [Arg::Value(libc::PR_SET_NO_NEW_PRIVS as u64), Arg::Value(1), Arg::Value(0), Arg::Value(0)],
            );
        }
    }

    /// The ambient set, of capabilities that are permitted and inheritable by now.
    fn raise_ambient(&self, ambient: u64, batch: &mut Batch) {
        let set = |what: i32, capability: u64| {
            [libc::PR_CAP_AMBIENT as u64, what as u64, capability, 0, 0].map(Arg::Value)
        };
        batch.attempt(Sysno::prctl, set(libc::PR_CAP_AMBIENT_CLEAR_ALL, 0));
        for capability in (0..64u64).filter(|capability| ambient & 1 << capability != 0) {
            batch.call(Sysno::prctl, set(libc::PR_CAP_AMBIENT_RAISE, capability));
        }
    }
}

/// Sets the inheritable, permitted and effective capabilities (capset(2)).
fn put_capabilities([inheritable, permitted, effective]: [u64; 3], batch: &mut Batch) {
    // struct __user_cap_header_struct {version 3, pid 0}; struct __user_cap_data_struct[2] {effective, permitted,
    // inheritable}
    const LINUX_CAPABILITY_VERSION_3: u32 = 0x2008_0522;
    let header: Vec<u8> = [LINUX_CAPABILITY_VERSION_3, 0].iter().flat_map(|w| w.to_ne_bytes()).collect();
    let halves = [0, 32].map(|shift| [effective, permitted, inheritable].map(|set| (set >> shift) as u32));
    let data: Vec<u8> = halves.as_flattened().iter().flat_map(|w| w.to_ne_bytes()).collect();
    let (header, data) = (batch.data(&header), batch.data(&data));
    batch.call(Sysno::capset, [header, data]);
}
