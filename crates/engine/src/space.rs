//! In which namespaces a tree comes back: pid, user and time.
//!
//! Choosing the pid of a new process (clone3(2), `set_tid`) needs CAP_CHECKPOINT_RESTORE or CAP_SYS_ADMIN over the pid
//! namespace. Who has neither makes a pid namespace of his own, in a user namespace of his own: there he may. Its first
//! process is a small init of ours: it is the root's parent, reaps what the tree leaves behind, and ends as the root ends.
//!
//! A time namespace is made where the tree's clocks need it ([`crate::resource::task::clock`]): by CAP_SYS_ADMIN and
//! CAP_SYS_TIME, or within such a user namespace.

use std::cell::{Cell, OnceCell};

use bardo_kernel::namespace::{self, Init};
use bardo_kernel::procfs::{status, timens_offsets};
use bardo_kernel::shelf::{CloneArgs, Shelf};

use crate::error::{Doing, Error, Failure, Refusal, Result, Who};
use crate::plan::Plan;
use crate::resource::task::clock::{self, Ahead, Clocks};
use crate::restart::PidSpace;

const CAP_SYS_ADMIN: u32 = 21;
const CAP_SYS_TIME: u32 = 25;
const CAP_CHECKPOINT_RESTORE: u32 = 40;

/// The namespaces that a tree is made in.
#[derive(Debug)]
pub struct Space {
    pids: Pids,
    /// The clocks from which it goes on in a time namespace, and why.
    clocks: Option<(Clocks, String)>,
    /// How far its clocks are ahead of ours, once there is such a namespace.
    ahead: Cell<Ahead>,
    capabilities: u64,
}

/// The pid namespace.
#[derive(Debug)]
enum Pids {
    /// Ours. Whether we may set the program's file there.
    Ours {
        /// CAP_CHECKPOINT_RESTORE or CAP_SYS_ADMIN.
        privileged: bool,
    },
    /// A new one, with its init once the tree's first process was made.
    New {
        /// Whether a user namespace is made too.
        user: bool,
        /// The init.
        init: OnceCell<Init>,
    },
}

/// Our effective capabilities. What can't be read isn't taken for a no: the tree would come back in another pid namespace
/// than the one it was asked for in.
pub fn capabilities() -> Result<u64> {
    let status = status::read(std::process::id() as i32).doing("reading our own capabilities", None)?;
    Ok(status.cap_eff)
}

impl Space {
    /// Chooses them for a request, and for a tree that goes on from these clocks, if it doesn't by the host's.
    ///
    /// # Errors
    /// Our capabilities can't be read.
    pub fn choose(wanted: PidSpace, clocks: Option<(Clocks, String)>) -> Result<Space> {
        let capabilities = capabilities()?;
        let has = |capability: u32| capabilities & 1 << capability != 0;
        let privileged = has(CAP_SYS_ADMIN) || has(CAP_CHECKPOINT_RESTORE);
        let user = !has(CAP_SYS_ADMIN) || clocks.is_some() && !has(CAP_SYS_TIME);
        let pids = match wanted {
            PidSpace::Auto if privileged => Pids::Ours { privileged },
            PidSpace::Callers => Pids::Ours { privileged },
            PidSpace::Auto | PidSpace::New => Pids::New { user, init: OnceCell::new() },
        };
        Ok(Space { pids, clocks, ahead: Cell::default(), capabilities })
    }

    /// Whether the pid namespace is a new one, so that no pid can be taken.
    pub fn is_new(&self) -> bool {
        matches!(self.pids, Pids::New { .. })
    }

    /// How far the tree's clocks are ahead of ours.
    pub fn ahead(&self) -> Ahead {
        self.ahead.get()
    }

    /// What stands in the way of a tree in them.
    ///
    /// # Errors
    /// What this kernel has can't be looked at.
    pub fn check(&self, plan: &Plan) -> Result<Vec<Refusal>> {
        Ok(self.check_init(plan).into_iter().chain(self.check_time()?).collect())
    }

    /// Whether a time namespace is needed that can't be made.
    fn check_time(&self) -> Result<Option<Refusal>> {
        let Some((_, reason)) = &self.clocks else { return Ok(None) };
        let me = std::process::id() as i32;
        let lacking: Vec<&str> = [(CAP_SYS_ADMIN, "CAP_SYS_ADMIN"), (CAP_SYS_TIME, "CAP_SYS_TIME")]
            .into_iter()
            .filter(|(capability, _)| !self.is_new() && self.capabilities & 1 << capability == 0)
            .map(|(_, name)| name)
            .collect();
        let (why, remedy) = if timens_offsets::read(me).doing("looking for time namespaces", None)?.is_none()
        {
            ("this kernel has no time namespaces (Linux 5.6, CONFIG_TIME_NS)".into(), "")
        } else if !lacking.is_empty() {
            (
                format!("bardo may make none: it lacks {}", lacking.join(" and ")),
                "--pid-space new, which makes one too, or ",
            )
        } else {
            return Ok(None);
        };
        Ok(Some(Refusal {
            who: None,
            fd: None,
            what: format!("the tree needs a time namespace: {reason}"),
            code: clock::NAME,
            why,
            remedy: format!("{remedy}--clocks host: programs may not expect what their clocks do then"),
        }))
    }

    fn check_init(&self, plan: &Plan) -> Option<Refusal> {
        let init = plan.members.iter().find(|member| self.is_new() && member.pid == 1)?;
        Some(Refusal {
            who: Some(Who { pid: init.pid, name: init.name.clone() }),
            fd: None,
            what: "it is the init of its pid namespace".into(),
            code: "task/init",
            why: "a new pid namespace has an init of bardo's own, and bardo may not choose pids in the one that is here".into(),
            remedy: "restart it as root or with CAP_CHECKPOINT_RESTORE, where pid 1 is free".into(),
        })
    }

    /// Makes the tree's first process in it.
    pub fn seed(&self, shelf: &Shelf, slot: usize, clone: &CloneArgs, who: &Who) -> Result<i32> {
        let denied = |error, remedy: &str| match error {
            Error::Permission(failure) => Error::Permission(Failure {
                left: "nothing was made".into(),
                remedy: Some(remedy.into()),
                ..failure
            }),
            other => other,
        };
        let time = match &self.clocks {
            None => None,
            Some((clocks, _)) => {
                let (offsets, ahead) = clocks.offsets().doing("reading the clocks", None)?;
                self.ahead.set(ahead);
                Some(offsets)
            }
        };
        match &self.pids {
            Pids::Ours { .. } => {
                let seeded = match time {
                    None => shelf.seed(slot, clone).doing("making the first process", Some(who)),
                    Some(time) => namespace::seed_in_time(time, shelf, slot, clone)
                        .doing("making a time namespace and the first process in it", Some(who)),
                };
                seeded.map_err(|e| {
                    denied(
                        e,
                        "choosing a pid needs CAP_CHECKPOINT_RESTORE (`setcap cap_checkpoint_restore+ep`, or root), or \
                         an own pid namespace: --pid-space new",
                    )
                })
            }
            Pids::New { user, init } => {
                let made = Init::make(*user, time, shelf, slot, clone)
                    .doing("making a pid namespace and the first process in it", Some(who))
                    .map_err(|e| {
                        denied(
                            e,
                            "this system lets ordinary users make no namespaces (see sysctl user.max_user_namespaces, \
                             kernel.unprivileged_userns_clone); give bardo CAP_CHECKPOINT_RESTORE instead",
                        )
                    })?;
                let root = made.root();
                init.set(made).map_err(|_| Error::Bug("a tree has one root".into()))?;
                Ok(root)
            }
        }
    }

    /// Whether `/proc/PID/exe` can be set (PR_SET_MM_MAP with a file).
    pub fn may_set_exe(&self) -> bool {
        match self.pids {
            Pids::Ours { privileged } => privileged,
            Pids::New { .. } => true,
        }
    }

    /// The tree goes: whom to wait for, if it isn't the root.
    pub fn commit(self) -> Result<Option<i32>> {
        match self.pids {
            Pids::Ours { .. } => Ok(None),
            Pids::New { init, .. } => init
                .into_inner()
                .map(Init::release)
                .transpose()
                .doing("letting the namespace outlive us", None),
        }
    }
}
