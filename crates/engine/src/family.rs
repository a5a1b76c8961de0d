//! How a tree of processes can be made again: who is born when, in which session, in which group.
//!
//! A child inherits session and group from its parent at the moment of its birth; setsid(2) makes the caller the leader
//! of a new session, and nobody can join a session later. So a child that belongs to the session its parent was born
//! into must be born before the parent calls setsid. Groups can be joined any time, within a session, as long as one of
//! their members lives; where the leader is dead, a stand-in with its pid lives until all have joined.
//!
//! The survey asks this module whether a tree can be made; the restart follows the answer.

use std::collections::BTreeMap;

use crate::resource::task::process::Process;

/// How one process is made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Birth {
    /// Its index among the processes.
    pub process: usize,
    /// Its parent's; none for the root.
    pub parent: Option<usize>,
    /// Whether it is born before its parent calls setsid.
    pub early: bool,
    /// Whether it calls setsid itself.
    pub leads_session: bool,
    /// What it does about its group.
    pub group: Group,
}

/// What a process does about its group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Group {
    /// Nothing: it leads a session, and so a group.
    Session,
    /// It makes one of its own.
    Lead,
    /// It joins this one, whose leader is in the tree.
    Join(i32),
    /// It joins this one, whose leader is dead: a stand-in is needed.
    Revive(i32),
    /// It is in the group that the restarter is in.
    Outside,
}

/// Why a tree can't be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hindrance {
    /// Index of the process.
    pub process: usize,
    /// A refusal's code.
    pub code: &'static str,
    /// What it is.
    pub what: String,
    /// Why it can't be made.
    pub why: &'static str,
}

/// Plans the births of a tree: parents before their children, in the order in which they are made.
///
/// # Errors
/// Everything that stands in the way.
pub fn plan(processes: &[Process]) -> Result<Vec<Birth>, Vec<Hindrance>> {
    let by_pid: BTreeMap<i32, usize> = processes.iter().enumerate().map(|(i, p)| (p.pid, i)).collect();
    let mut hindrances = Vec::new();
    if by_pid.len() != processes.len() || processes.is_empty() {
        return Err(vec![Hindrance {
            process: 0,
            code: "task/process",
            what: format!("{} processes with {} pids", processes.len(), by_pid.len()),
            why: "a tree has a root, and every process a pid of its own",
        }]);
    }
    let root = &processes[0];
    let leads = |p: &Process| p.session == p.pid;
    // The session the tree was born into: none of its own.
    let outside = if leads(root) { None } else { Some(root.session) };
    let mut births: Vec<Option<Birth>> = vec![None; processes.len()];
    let mut born_into: Vec<Option<i32>> = vec![None; processes.len()];
    let mut order = Vec::with_capacity(processes.len());
    for (index, process) in processes.iter().enumerate() {
        let mut hinder =
            |code, what: String, why| hindrances.push(Hindrance { process: index, code, what, why });
        let parent = by_pid.get(&process.parent).copied().filter(|parent| *parent < index);
        let early = match parent {
            None if index == 0 => {
                born_into[index] = outside;
                false
            }
            None => {
                hinder(
                    "task/parent",
                    format!("its parent {} isn't before it in the tree", process.parent),
                    "a process is made by its parent",
                );
                continue;
            }
            Some(parent) => {
                let (before, after) = (born_into[parent], Some(processes[parent].session));
                // Which session must it be born into? Its own, or, for a leader, that of its children born early.
                let needed = if leads(process) {
                    processes
                        .iter()
                        .filter(|c| c.parent == process.pid && !leads(c) && c.session != process.pid)
                        .map(|c| c.session)
                        .next()
                } else {
                    Some(process.session)
                };
                match needed {
                    None => {
                        born_into[index] = after;
                        false
                    }
                    Some(session) if after == Some(session) => {
                        born_into[index] = after;
                        false
                    }
                    Some(session) if before == Some(session) => {
                        born_into[index] = before;
                        true
                    }
                    Some(session) => {
                        hinder(
                            "task/session",
                            format!("it is in session {session}, which its parent never was in"),
                            "the leader of the session has ended, or the process was handed to another parent: a \
                             session can't be joined, only inherited",
                        );
                        continue;
                    }
                }
            }
        };
        let group = if leads(process) {
            Group::Session
        } else if process.group == process.pid {
            Group::Lead
        } else if by_pid.get(&process.group).is_some_and(|leader| {
            let leader = &processes[*leader];
            leader.group == process.group && leader.session == process.session
        }) {
            Group::Join(process.group)
        } else if outside == Some(process.session) && process.group == root.group {
            Group::Outside
        } else {
            Group::Revive(process.group)
        };
        births[index] = Some(Birth { process: index, parent, early, leads_session: leads(process), group });
        order.push(index);
    }
    if !hindrances.is_empty() {
        return Err(hindrances);
    }
    Ok(births.into_iter().flatten().collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use bardo_image::Blob;

    fn process(pid: i32, parent: i32, group: i32, session: i32) -> Process {
        Process {
            pid,
            parent,
            parent_thread: 0,
            group,
            session,
            name: Blob(b"x".to_vec()),
            exit_signal: 17,
            ended: None,
            stopped_by: None,
            stop_told: false,
            life: None,
        }
    }

    #[test]
    fn a_script_with_a_pipeline() {
        let tree = [process(10, 1, 10, 5), process(11, 10, 10, 5), process(12, 10, 10, 5)];
        let births = plan(&tree).unwrap();
        assert_eq!(births[0].group, Group::Lead);
        assert_eq!(births[1].group, Group::Join(10));
        assert!(births.iter().all(|b| !b.early && !b.leads_session));
    }

    #[test]
    fn a_child_of_the_old_session_is_born_early() {
        let tree =
            [process(10, 1, 5, 5), process(11, 10, 11, 11), process(12, 11, 5, 5), process(13, 11, 11, 11)];
        let births = plan(&tree).unwrap();
        assert!(births[2].early && !births[3].early);
        assert_eq!(births[2].group, Group::Outside);
        assert_eq!(births[1].group, Group::Session);
    }

    #[test]
    fn a_dead_group_leader_gets_a_stand_in_and_a_dead_session_leader_is_refused() {
        let tree = [process(10, 1, 10, 10), process(12, 10, 11, 10)];
        assert_eq!(plan(&tree).unwrap()[1].group, Group::Revive(11));
        let tree = [process(10, 1, 10, 10), process(12, 10, 12, 11)];
        assert_eq!(plan(&tree).unwrap_err()[0].code, "task/session");
    }

    #[test]
    fn hostile_trees_are_hindrances() {
        assert!(plan(&[]).is_err());
        assert!(plan(&[process(10, 1, 10, 10), process(10, 10, 10, 10)]).is_err());
        assert!(plan(&[process(10, 1, 10, 10), process(11, 12, 10, 10), process(12, 11, 10, 10)]).is_err());
    }
}
