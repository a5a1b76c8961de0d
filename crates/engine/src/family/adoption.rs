//! Children whose parent didn't make them: whose session it never was in.
//!
//! A process whose parent ends goes to the nearest of its ancestors that is a child subreaper (prctl(2)), or to the init of
//! its pid namespace; it stays in its session, also when the session's leader has ended. Daemons come about so, and
//! whatever a container's first process looks after.
//!
//! They are made by the kernel's own rules again. The parent-to-be is a subreaper for a moment; below it a stand-in is
//! made, in the session in question, which makes the children and ends. Where the leader of the session is dead, the
//! stand-in has its pid and makes the session; else somebody of the session makes the stand-in.
//!
//! What can't be made so isn't the work of any program that was seen: an orphan only ever goes to an ancestor, so
//! whoever is left of a session stands on one line with those that its orphans went to.

use std::collections::BTreeMap;

use super::{Hindrance, Tree};

/// The signal that a parent gets at the end of a child which it didn't make: forget_original_parent() sees to that.
const ORPHANS_SIGNAL: i32 = libc::SIGCHLD;

/// Children of one session that go to one parent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Adoption {
    /// The session.
    pub session: i32,
    /// Whether the stand-in makes the session, whose leader is dead: it has the leader's pid then.
    pub revives: bool,
    /// Index of the process that makes the stand-in.
    pub maker: usize,
    /// Index of the process that they come to.
    pub parent: usize,
    /// Their indices.
    pub children: Vec<usize>,
}

/// Plans the adoptions of all strays.
pub(super) fn plan(tree: &Tree<'_>, strays: &[usize], hindrances: &mut Vec<Hindrance>) -> Vec<Adoption> {
    let mut by_session: BTreeMap<i32, BTreeMap<usize, Vec<usize>>> = BTreeMap::new();
    for stray in strays {
        let process = &tree.processes[*stray];
        let signal = process.exit_signal;
        if signal != ORPHANS_SIGNAL {
            hindrances.push(Hindrance {
                process: *stray,
                code: "task/session",
                what: format!("its parent never was in its session {}, and gets signal {signal} when it ends", process.session),
                why: "whoever didn't make a process gets SIGCHLD from it: such a child is made by clone(2) with CLONE_PARENT \
                      alone",
            });
        } else if let Some(parent) = tree.parents[*stray] {
            by_session.entry(process.session).or_default().entry(parent).or_default().push(*stray);
        }
    }
    let mut adoptions = Vec::new();
    for (session, by_parent) in by_session {
        match tree.by_pid.get(&session) {
            Some(leader) => from_leader(tree, session, *leader, by_parent, hindrances, &mut adoptions),
            None => from_stand_in(tree, session, by_parent, hindrances, &mut adoptions),
        }
    }
    adoptions
}

/// The leader of the session is in the tree, perhaps as a zombie. It makes the stand-in.
fn from_leader(
    tree: &Tree<'_>,
    session: i32,
    leader: usize,
    by_parent: BTreeMap<usize, Vec<usize>>,
    hindrances: &mut Vec<Hindrance>,
    adoptions: &mut Vec<Adoption>,
) {
    for (parent, children) in by_parent {
        if tree.leads(leader) && tree.line(leader).skip(1).any(|above| above == parent) {
            adoptions.push(Adoption { session, revives: false, maker: leader, parent, children });
        } else {
            hindrances.extend(children.iter().map(|child| apart(tree, *child)));
        }
    }
}

/// The leader is dead. Its stand-in is made by the lowest of the parents, and those of the others by one of its children.
fn from_stand_in(
    tree: &Tree<'_>,
    session: i32,
    mut by_parent: BTreeMap<usize, Vec<usize>>,
    hindrances: &mut Vec<Hindrance>,
    adoptions: &mut Vec<Adoption>,
) {
    let lives_outside =
        |child: &usize| tree.outside != Some(session) && tree.processes[*child].session_outside;
    let Some(lowest) = by_parent.keys().copied().max_by_key(|parent| tree.line(*parent).count()) else {
        return;
    };
    let Some(children) = by_parent.remove(&lowest) else { return };
    let Some(first) = children.first().copied() else { return };
    if tree.outside == Some(session) || children.iter().chain(by_parent.values().flatten()).any(lives_outside)
    {
        let all = children.iter().chain(by_parent.values().flatten());
        hindrances.extend(all.map(|child| Hindrance {
            process: *child,
            code: "task/session",
            what: format!("it is in session {session}, whose leader is outside the tree, and its parent isn't"),
            why: "after a restart what was in a session of the outside is in bardo's, which is only inherited: by the root, \
                  and by what was born before it made a session of its own",
        }));
        return;
    }
    adoptions.push(Adoption { session, revives: true, maker: lowest, parent: lowest, children });
    for (parent, children) in by_parent {
        if tree.line(lowest).any(|above| above == parent) {
            adoptions.push(Adoption { session, revives: false, maker: first, parent, children });
        } else {
            hindrances.extend(children.iter().map(|child| apart(tree, *child)));
        }
    }
}

fn apart(tree: &Tree<'_>, child: usize) -> Hindrance {
    Hindrance {
        process: child,
        code: "task/session",
        what: format!(
            "it is in session {}, and nobody else of it is below its parent",
            tree.processes[child].session
        ),
        why: "a session is only inherited, and an orphan only goes to one of its ancestors: its parent must have got \
              another parent since",
    }
}

/// Of a process whose birth would have to come before itself.
pub(super) fn circle(process: usize) -> Hindrance {
    Hindrance {
        process,
        code: "task/session",
        what: "it would have to be born before itself".into(),
        why: "whoever makes it in its session is below it",
    }
}
