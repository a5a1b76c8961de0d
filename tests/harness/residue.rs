//! What bardo could leave behind in a tree: mappings, descriptors, threads, a tracer, a stop.

use std::collections::BTreeMap;

use crate::process::{descendants, is_dead, state};
use crate::wait::until;

/// What one process has of the things that bardo could have left there.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Belongings {
    mappings: Vec<String>,
    descriptors: Vec<String>,
    tracer: String,
    stopped: bool,
}

/// What the processes of a tree have, at a moment when bardo has never touched them.
#[derive(Debug)]
pub struct Residue {
    exact: bool,
    before: BTreeMap<i32, Belongings>,
}

impl Residue {
    /// Looks at a tree that may be running, and whose processes map and unmap memory as they please: only what is
    /// mapped from a file, a memfd or a device counts.
    pub fn of(root: i32) -> Residue {
        Residue::look(root, false)
    }

    /// The same for a tree that doesn't change its memory map: every area counts, with its address.
    pub fn exactly_of(root: i32) -> Residue {
        Residue::look(root, true)
    }

    fn look(root: i32, exact: bool) -> Residue {
        let before =
            descendants(root).into_iter().filter_map(|pid| Some((pid, belongings(pid, exact)?))).collect();
        Residue { exact, before }
    }

    /// Waits until the processes that are still there have exactly what they had then. What a bardo that was killed
    /// leaves is taken away by the tree itself, or by the next bardo: that takes a moment, not for ever.
    #[track_caller]
    pub fn expect_nothing_new(&self) {
        for (pid, before) in &self.before {
            let mut now = None;
            let what = format!("pid {pid} has what it had before: {before:#?}");
            until(&what, || {
                let look = belongings(*pid, self.exact);
                let same = look.as_ref().is_none_or(|b| b == before);
                if !same && now != look {
                    now = look;
                    eprintln!("pid {pid} now: {now:#?}");
                }
                same
            });
        }
    }
}

fn belongings(pid: i32, exact: bool) -> Option<Belongings> {
    let read = |file: &str| std::fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap_or_default();
    let maps = read("maps");
    let mut mappings: Vec<String> = if exact {
        maps.lines().filter(|l| !l.ends_with("[stack]")).map(str::to_owned).collect()
    } else {
        maps.lines().filter_map(|l| l.split_whitespace().nth(5)).map(str::to_owned).collect()
    };
    mappings.sort();
    mappings.dedup();
    let mut descriptors: Vec<String> = std::fs::read_dir(format!("/proc/{pid}/fd"))
        .map_or(Vec::new(), |entries| {
            entries.filter_map(|e| Some(e.ok()?.file_name().to_string_lossy().into_owned())).collect()
        });
    descriptors.sort();
    let status = read("status");
    let tracer = status.lines().find(|l| l.starts_with("TracerPid")).unwrap_or_default().to_owned();
    let stopped = matches!(state(pid), Some('T' | 't'));
    // Gone meanwhile, or a zombie by now: nothing to compare.
    (!is_dead(pid)).then_some(Belongings { mappings, descriptors, tracer, stopped })
}
