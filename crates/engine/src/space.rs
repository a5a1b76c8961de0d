//! In which pid namespace a tree comes back.
//!
//! Choosing the pid of a new process (clone3(2), `set_tid`) needs CAP_CHECKPOINT_RESTORE or CAP_SYS_ADMIN over the pid
//! namespace. Who has neither makes a pid namespace of his own, in a user namespace of his own: there he may. Its first
//! process is a small init of ours: it is the root's parent, reaps what the tree leaves behind, and ends as the root ends.

use std::cell::OnceCell;

use bardo_kernel::namespace::Init;
use bardo_kernel::procfs::status;
use bardo_kernel::shelf::{CloneArgs, Shelf};

use crate::error::{Doing, Error, Failure, Refusal, Result, Who};
use crate::plan::Plan;
use crate::restart::PidSpace;

const CAP_SYS_ADMIN: u32 = 21;
const CAP_CHECKPOINT_RESTORE: u32 = 40;

/// The pid namespace that a tree is made in.
#[derive(Debug)]
pub enum Space {
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
fn capabilities() -> Result<u64> {
    let status = status::read(std::process::id() as i32).doing("reading our own capabilities", None)?;
    Ok(status.cap_eff)
}

impl Space {
    /// Chooses one for a request.
    ///
    /// # Errors
    /// Our capabilities can't be read.
    pub fn choose(wanted: PidSpace) -> Result<Space> {
        let capabilities = capabilities()?;
        let admin = capabilities & 1 << CAP_SYS_ADMIN != 0;
        let privileged = admin || capabilities & 1 << CAP_CHECKPOINT_RESTORE != 0;
        Ok(match wanted {
            PidSpace::Auto if privileged => Space::Ours { privileged },
            PidSpace::Callers => Space::Ours { privileged },
            PidSpace::Auto | PidSpace::New => Space::New { user: !admin, init: OnceCell::new() },
        })
    }

    /// Whether it is a new one, so that no pid can be taken.
    pub fn is_new(&self) -> bool {
        matches!(self, Space::New { .. })
    }

    /// What stands in the way of a tree in it.
    pub fn check(&self, plan: &Plan) -> Option<Refusal> {
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
        match self {
            Space::Ours { .. } => shelf.seed(slot, clone).doing("making the first process", Some(who)).map_err(|e| {
                denied(
                    e,
                    "choosing a pid needs CAP_CHECKPOINT_RESTORE (`setcap cap_checkpoint_restore+ep`, or root), or an \
                     own pid namespace: --pid-space new",
                )
            }),
            Space::New { user, init } => {
                let made = Init::make(*user, shelf, slot, clone)
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
        match self {
            Space::Ours { privileged } => *privileged,
            Space::New { .. } => true,
        }
    }

    /// The tree goes: whom to wait for, if it isn't the root.
    pub fn commit(self) -> Result<Option<i32>> {
        match self {
            Space::Ours { .. } => Ok(None),
            Space::New { init, .. } => init
                .into_inner()
                .map(Init::release)
                .transpose()
                .doing("letting the namespace outlive us", None),
        }
    }
}
