//! How a tree of processes can be made again: who is born when, of whom, in which session, in which group.
//!
//! A child inherits session and group from its parent at the moment of its birth; setsid(2) makes the caller the leader
//! of a new session, and nobody can join a session later. So a child that belongs to the session its parent was born
//! into must be born before the parent calls setsid, and one whose session its parent never was in, of somebody else
//! ([`adoption`]). Groups can be joined any time, within a session, as long as one of their members lives; where the leader
//! is dead, a stand-in with its pid lives until all have joined.
//!
//! The survey asks this module whether a tree can be made; the restart follows the answer.

pub mod adoption;
pub mod sharing;

use std::collections::{BTreeMap, HashMap, VecDeque};

use adoption::Adoption;

use crate::resource::task::process::Process;

/// How a tree is made.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Births {
    /// The processes in the order in which they are made: the root first, parents before their children, and whoever
    /// takes part in an adoption before those who are adopted.
    pub births: Vec<Birth>,
    /// Those who aren't born of their parents.
    pub adoptions: Vec<Adoption>,
}

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
    /// The adoption by which it comes to its parent; none: the parent makes it.
    pub adopted: Option<usize>,
    /// Whether it makes a group for others that it isn't in itself any more, before it goes to its own.
    pub leads_others: bool,
    /// The flags of clone(2) for what it shares with its parent.
    pub shares: u64,
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
    /// It is in the group of a dead session leader, in which it is born.
    Born,
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

/// What the planning knows of a tree.
struct Tree<'a> {
    processes: &'a [Process],
    by_pid: BTreeMap<i32, usize>,
    parents: Vec<Option<usize>>,
    /// The session that the restarter is in, for the tree: none of its own.
    outside: Option<i32>,
    /// The group that the restarter is in.
    outside_group: Option<i32>,
}

impl Tree<'_> {
    fn leads(&self, index: usize) -> bool {
        self.processes[index].session == self.processes[index].pid
    }

    /// A process and all that are above it.
    fn line(&self, index: usize) -> impl Iterator<Item = usize> + '_ {
        std::iter::successors(Some(index), |at| self.parents[*at])
    }

    /// The sessions that processes must be born into, by their index: their own, or, for a leader, that of children who
    /// were born before it called setsid. And those whose session is nowhere among those who made them.
    fn born_into(&self) -> (HashMap<usize, i32>, Vec<usize>) {
        let mut needed: HashMap<usize, i32> = HashMap::new();
        let mut strays = Vec::new();
        for index in (0..self.processes.len()).filter(|index| !self.leads(*index)) {
            let session = self.processes[index].session;
            let mut between = Vec::new();
            let mut found = index == 0;
            for above in self.line(index).skip(1) {
                let known = needed.get(&above).copied();
                found = self.processes[above].session == session
                    || known == Some(session)
                    || (above == 0 && self.outside == Some(session));
                if found || known.is_some() || !self.leads(above) || above == 0 {
                    break;
                }
                between.push(above);
            }
            if found {
                needed.extend(between.into_iter().map(|above| (above, session)));
                needed.insert(index, session);
            } else {
                strays.push(index);
            }
        }
        (needed, strays)
    }

    /// Which processes have made a group that others are in, and have gone to another one since.
    fn leads_others(&self, hindrances: &mut Vec<Hindrance>) -> Vec<bool> {
        let mut left = vec![false; self.processes.len()];
        for process in self.processes {
            if let Some(&leader) = self.by_pid.get(&process.group) {
                let it = &self.processes[leader];
                left[leader] |= it.group != it.pid && it.session == process.session;
            }
        }
        for index in (0..left.len()).filter(|index| left[*index]) {
            // Somebody must be in the group that it goes to, from before until after.
            let group = self.processes[index].group;
            let stays = |(at, other): (usize, &Process)| other.group == group && !left[at];
            let is_theirs = self.by_pid.contains_key(&group) || self.outside_group != Some(group);
            if !is_theirs || !self.processes.iter().enumerate().any(stays) {
                hindrances.push(Hindrance {
                    process: index,
                    code: "task/group",
                    what: format!("it made the group that others are in, and has gone to group {group} itself"),
                    why: "nobody holds that one until it can go there: its leader is dead or outside the tree, or has \
                          gone elsewhere too",
                });
            }
        }
        left
    }

    fn group(&self, index: usize, revived: bool) -> Group {
        let process = &self.processes[index];
        let leader = self.by_pid.get(&process.group).map(|leader| &self.processes[*leader]);
        let leader = leader.filter(|leader| leader.session == process.session);
        if self.leads(index) {
            Group::Session
        } else if process.group == process.pid {
            Group::Lead
        } else if leader.is_some() {
            Group::Join(process.group)
        } else if self.outside == Some(process.session) && self.outside_group == Some(process.group) {
            Group::Outside
        } else if revived && process.group == process.session {
            Group::Born
        } else {
            Group::Revive(process.group)
        }
    }
}

/// Plans the births of a tree, whose root is its first process.
///
/// # Errors
/// Everything that stands in the way.
pub fn plan(processes: &[Process]) -> Result<Births, Vec<Hindrance>> {
    let by_pid: BTreeMap<i32, usize> = processes.iter().enumerate().map(|(i, p)| (p.pid, i)).collect();
    if by_pid.len() != processes.len() || processes.is_empty() {
        return Err(vec![Hindrance {
            process: 0,
            code: "task/process",
            what: format!("{} processes with {} pids", processes.len(), by_pid.len()),
            why: "a tree has a root, and every process a pid of its own",
        }]);
    }
    let parents: Vec<Option<usize>> = processes
        .iter()
        .enumerate()
        .map(|(index, process)| by_pid.get(&process.parent).copied().filter(|parent| *parent < index))
        .collect();
    let orphans = (1..processes.len()).filter(|index| parents[*index].is_none());
    let mut hindrances: Vec<Hindrance> = orphans
        .map(|index| Hindrance {
            process: index,
            code: "task/parent",
            what: format!("its parent {} isn't before it in the tree", processes[index].parent),
            why: "a process is made by its parent",
        })
        .collect();
    if !hindrances.is_empty() {
        return Err(hindrances);
    }
    // The session the tree was born into: where the root leads one, that of children who were born before.
    let root = &processes[0];
    let born =
        if root.session == root.pid { processes.iter().find(|p| p.session_outside) } else { Some(root) };
    let (outside, outside_group) = (born.map(|p| p.session), born.map(|p| p.group));
    let tree = Tree { processes, by_pid, parents, outside, outside_group };

    let (needed, strays) = tree.born_into();
    let adoptions = adoption::plan(&tree, &strays, &mut hindrances);
    let leads_others = tree.leads_others(&mut hindrances);
    if !hindrances.is_empty() {
        return Err(hindrances);
    }
    let mut births: Vec<Birth> = (0..processes.len())
        .map(|index| {
            let parent = tree.parents[index];
            // Its parent leads a session that it doesn't belong to.
            let early = parent.is_some_and(|parent| {
                let needed = needed.get(&index);
                tree.leads(parent) && needed.is_some_and(|needed| *needed != processes[parent].session)
            });
            let revived = !tree.by_pid.contains_key(&processes[index].session)
                && tree.outside != Some(processes[index].session);
            Birth {
                process: index,
                parent,
                early,
                leads_session: tree.leads(index),
                adopted: None,
                leads_others: leads_others[index],
                shares: 0,
                group: tree.group(index, revived),
            }
        })
        .collect();
    for (number, adoption) in adoptions.iter().enumerate() {
        for child in &adoption.children {
            births[*child].adopted = Some(number);
            births[*child].early = false;
        }
    }
    sharing::plan(&tree, &mut births, &mut hindrances);
    if !hindrances.is_empty() {
        return Err(hindrances);
    }
    in_order(births, adoptions)
}

/// Puts births in an order in which they can happen.
fn in_order(births: Vec<Birth>, adoptions: Vec<Adoption>) -> Result<Births, Vec<Hindrance>> {
    let mut waits_for = vec![0u8; births.len()];
    let mut next: HashMap<usize, Vec<usize>> = HashMap::new();
    for birth in &births {
        let maker = birth.adopted.map(|adoption| adoptions[adoption].maker);
        for before in birth.parent.into_iter().chain(maker) {
            waits_for[birth.process] += 1;
            next.entry(before).or_default().push(birth.process);
        }
    }
    let mut order = Vec::with_capacity(births.len());
    let mut ready = VecDeque::from([0]);
    while let Some(index) = ready.pop_front() {
        order.push(births[index].clone());
        for after in next.remove(&index).unwrap_or_default() {
            waits_for[after] -= 1;
            if waits_for[after] == 0 {
                ready.push_back(after);
            }
        }
    }
    if order.len() < births.len() {
        let left = (0..births.len()).filter(|index| waits_for[*index] > 0);
        return Err(left.map(adoption::circle).collect());
    }
    Ok(Births { births: order, adoptions })
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
            session_outside: false,
            leader_ended: None,
            files_with: None,
            directory_with: None,
            memory_with: None,
            handlers_with: None,
            life: None,
        }
    }

    #[test]
    fn a_script_with_a_pipeline() {
        let tree = [process(10, 1, 10, 5), process(11, 10, 10, 5), process(12, 10, 10, 5)];
        let births = plan(&tree).unwrap().births;
        assert_eq!(births[0].group, Group::Lead);
        assert_eq!(births[1].group, Group::Join(10));
        assert!(births.iter().all(|b| !b.early && !b.leads_session));
    }

    #[test]
    fn a_child_of_the_old_session_is_born_early() {
        let tree =
            [process(10, 1, 5, 5), process(11, 10, 11, 11), process(12, 11, 5, 5), process(13, 11, 11, 11)];
        let births = plan(&tree).unwrap().births;
        assert!(births[2].early && !births[3].early);
        assert_eq!(births[2].group, Group::Outside);
        assert_eq!(births[1].group, Group::Session);
    }

    #[test]
    fn a_dead_group_leader_gets_a_stand_in() {
        let tree = [process(10, 1, 10, 10), process(12, 10, 11, 10)];
        assert_eq!(plan(&tree).unwrap().births[1].group, Group::Revive(11));
    }

    #[test]
    fn a_group_leader_can_be_in_another_group() {
        let tree = [
            process(10, 1, 10, 10),
            process(11, 10, 13, 10),
            process(12, 10, 11, 10),
            process(13, 10, 13, 10),
        ];
        let births = plan(&tree).unwrap().births;
        assert!(births[1].leads_others && births[1].group == Group::Join(13));
        assert!(!births[2].leads_others && births[2].group == Group::Join(11));
        let swapped = [process(10, 1, 10, 10), process(11, 10, 12, 10), process(12, 10, 11, 10)];
        assert_eq!(plan(&swapped).unwrap_err()[0].code, "task/group");
    }

    #[test]
    fn a_dead_session_leader_gets_a_stand_in_that_makes_its_orphans() {
        let tree = [
            process(10, 1, 10, 10),
            process(12, 10, 11, 11),
            process(13, 12, 13, 11),
            process(14, 10, 13, 11),
            process(15, 13, 15, 15),
            process(16, 15, 9, 11),
        ];
        let made = plan(&tree).unwrap();
        let adoption = Adoption { session: 11, revives: true, maker: 0, parent: 0, children: vec![1, 3] };
        assert_eq!(made.adoptions, [adoption]);
        assert_eq!(made.births[1].group, Group::Born);
        let born = |pid: i32| made.births.iter().find(|birth| tree[birth.process].pid == pid).unwrap();
        assert_eq!((born(13).adopted, born(13).group), (None, Group::Lead));
        assert_eq!((born(14).adopted, born(14).group), (Some(0), Group::Join(13)));
        assert_eq!((born(15).early, born(16).early, born(16).group), (false, true, Group::Revive(9)));
    }

    #[test]
    fn children_of_a_living_leader_can_have_gone_up() {
        // 12 leads a session below 11, and a child of its own went to the root when the one between them ended.
        let tree = [
            process(10, 1, 10, 10),
            process(14, 10, 14, 12),
            process(11, 10, 11, 10),
            process(12, 11, 12, 12),
        ];
        let made = plan(&tree).unwrap();
        let order: Vec<i32> = made.births.iter().map(|birth| tree[birth.process].pid).collect();
        assert_eq!(order, [10, 11, 12, 14]);
        let adoption = Adoption { session: 12, revives: false, maker: 3, parent: 0, children: vec![1] };
        assert_eq!(made.adoptions, [adoption]);
    }

    #[test]
    fn orphans_of_one_dead_session_go_to_two_parents_if_one_is_above_the_other() {
        let tree =
            [process(10, 1, 10, 10), process(14, 10, 9, 9), process(11, 10, 11, 11), process(12, 11, 9, 9)];
        let made = plan(&tree).unwrap();
        assert_eq!(
            made.adoptions,
            [
                Adoption { session: 9, revives: true, maker: 2, parent: 2, children: vec![3] },
                Adoption { session: 9, revives: false, maker: 3, parent: 0, children: vec![1] },
            ]
        );
        let tree = [
            process(10, 1, 10, 10),
            process(11, 10, 11, 11),
            process(12, 10, 12, 12),
            process(13, 11, 9, 9),
            process(14, 12, 9, 9),
        ];
        assert_eq!(plan(&tree).unwrap_err()[0].code, "task/session");
    }

    #[test]
    fn children_of_a_session_that_lives_outside_are_born_before_the_root_makes_its_own() {
        let mut tree = [process(10, 1, 10, 10), process(12, 10, 5, 5), process(13, 10, 13, 13)];
        tree[1].session_outside = true;
        let made = plan(&tree).unwrap();
        assert!(made.births[1].early && made.adoptions.is_empty());
    }

    #[test]
    fn tables_are_shared_with_parents_alone() {
        let mut tree = [process(10, 1, 10, 10), process(11, 10, 10, 10), process(12, 11, 10, 10)];
        tree[1].files_with = Some(10);
        tree[2].files_with = Some(10);
        tree[2].directory_with = Some(11);
        let shares: Vec<u64> = plan(&tree).unwrap().births.iter().map(|birth| birth.shares).collect();
        let (files, fs) = (libc::CLONE_FILES as u64, libc::CLONE_FS as u64);
        assert_eq!(shares, [0, files, files | fs]);
        tree[1].files_with = None;
        assert_eq!(plan(&tree).unwrap_err()[0].code, "task/shared-files");
    }

    #[test]
    fn memory_is_shared_along_a_chain_and_handlers_only_with_it() {
        let mut tree = [process(10, 1, 10, 10), process(11, 10, 10, 10), process(12, 11, 12, 12)];
        for index in [1, 2] {
            tree[index].memory_with = Some(10);
        }
        tree[2].handlers_with = Some(11);
        let shares: Vec<u64> = plan(&tree).unwrap().births.iter().map(|birth| birth.shares).collect();
        let (memory, handlers) = (libc::CLONE_VM as u64, libc::CLONE_SIGHAND as u64);
        assert_eq!(shares, [0, memory, memory | handlers]);
        tree[2].memory_with = None;
        assert_eq!(plan(&tree).unwrap_err()[0].code, "task/shared-handlers");
        (tree[1].memory_with, tree[2].memory_with, tree[2].handlers_with) = (None, Some(10), None);
        assert_eq!(plan(&tree).unwrap_err()[0].code, "task/shared-memory");
    }

    #[test]
    fn hostile_trees_are_hindrances() {
        assert!(plan(&[]).is_err());
        assert!(plan(&[process(10, 1, 10, 10), process(10, 10, 10, 10)]).is_err());
        assert!(plan(&[process(10, 1, 10, 10), process(11, 12, 10, 10), process(12, 11, 10, 10)]).is_err());
    }
}
