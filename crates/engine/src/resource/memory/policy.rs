//! NUMA policies of memory: mbind(2).
//!
//! **In the kernel**: an area may have a policy of its own, which says on which nodes its pages are to lie; without one that of
//! the thread holds. Shared memory keeps its policies itself, page by page, for whoever maps it.
//!
//! **In the image**: in `memory/space`: the stretches that have one, each with its mode, flags and nodes.
//!
//! **Taken how**: get_mempolicy(2) inside, for each area; of a shared one for its first and last page, and for every page where
//! either has a policy. Where seccomp filters judge calls, `/proc/PID/numa_maps` says whether there is anything to ask.
//!
//! **Put back how**: mbind(2) of each stretch, once all processes are made, with the pages that are there moved. Beforehand each
//! policy is tried out: a host that lacks its nodes can't run the image.
//!
//! **Not saved**: home nodes (set_mempolicy_home_node(2)), which nothing tells; in shared memory the policies that lie within
//! what every process maps in one piece, its ends having none, or of more than 64 MiB.

use std::os::unix::ffi::OsStrExt;

use bardo_kernel::procfs::{self, maps};
use bardo_kernel::stub::{Arg, Batch, StepId};
use bardo_kernel::{Sysno, fs, numa};
use serde::{Deserialize, Serialize};

use super::area::{PAGE, Span, USER_MAX};
use crate::error::Refusal;
use crate::make::is_kernels;
use crate::resource::task::signal::offset;

/// The record's part: a stretch of memory and its policy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Policy {
    /// Where.
    pub span: Span,
    /// MPOL_ mode, with the flags that belong to it.
    pub mode: u32,
    /// The nodes, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub nodes: Vec<u32>,
}

/// MPOL_F_STATIC_NODES, MPOL_F_RELATIVE_NODES, MPOL_F_NUMA_BALANCING.
const MODE_FLAGS: u32 = 7 << 13;
/// MPOL_WEIGHTED_INTERLEAVE, the last mode there is (Linux 6.9).
const LAST_MODE: u32 = 6;
/// How many pages of a shared area are asked for one by one.
const PAGES_MAX: u64 = 16 << 10;
/// What a question takes of a batch: a step and its answer.
const QUESTION: usize = 80 + 64 + ANSWER;
/// An answer: the nodes, then the mode.
const ANSWER: usize = numa::MASK_LEN + 64;

impl Policy {
    /// The first rule that it breaks, as no policy of a real process does.
    pub(super) fn fault(&self) -> Option<String> {
        let mode = self.mode & !MODE_FLAGS;
        if !self.span.is_sound() || !(1..=LAST_MODE).contains(&mode) {
            return Some(format!("the policy {:#x} of {}", self.mode, self.span));
        }
        let in_order = self.nodes.windows(2).all(|pair| pair[0] < pair[1]);
        let known = self.nodes.last().is_none_or(|node| *node < numa::MASK_LEN as u32 * 8);
        (!in_order || !known).then(|| format!("a policy for the nodes {:?}", self.nodes))
    }

    fn mask(&self) -> numa::Mask {
        let mut mask = [0; numa::MASK_LEN];
        for node in &self.nodes {
            mask[*node as usize / 8] |= 1 << (node % 8);
        }
        mask
    }

    /// What keeps this host from it.
    pub(super) fn check(&self) -> Option<Refusal> {
        let why = match numa::try_out(self.mode, &self.mask()) {
            Ok((mode, mask)) if (mode, mask) == (self.mode, self.mask()) => return None,
            Ok(_) => "this host has only some of these nodes, or may use only some".into(),
            Err(failed) => format!("this host can't have it: {}", failed.errno),
        };
        Some(Refusal {
            who: None,
            fd: None,
            what: format!("memory with the NUMA policy {:#x} for the nodes {:?}", self.mode, self.nodes),
            code: "host/numa",
            why,
            remedy: "restart it where these nodes are (numactl --hardware), and may be used (cpuset(7))"
                .into(),
        })
    }

    /// Adds the step that sets it.
    pub(super) fn put(&self, batch: &mut Batch) {
        let (mask, bits) = match self.nodes.is_empty() {
            true => (Arg::Value(0), 0),
            false => (batch.data(&self.mask()), numa::MASK_BITS),
        };
        let span = [self.span.start, self.span.len(), self.mode.into()].map(Arg::Value);
        let [at, len, mode] = span;
        batch.call_for(Sysno::mbind, [at, len, mode, mask, Arg::Value(bits), Arg::Value(numa::MOVE)], 0);
    }
}

/// A stretch whose policy its page at `at` tells.
#[derive(Debug, Clone, Copy)]
struct Question {
    span: Span,
    at: u64,
}

/// Where the answer to a question is.
#[derive(Debug)]
struct Answer {
    span: Span,
    at: Arg,
    step: StepId,
}

/// The questions for [`PoliciesAsked::take`].
#[derive(Debug, Default)]
pub struct PoliciesAsked {
    batches: Vec<(Batch, Vec<Answer>)>,
}

/// Whether anything of a process's memory may have a policy, as seen from outside.
///
/// # Errors
/// The file can't be read.
pub fn may_have_any(pid: i32) -> bardo_kernel::Result<bool> {
    let text = match fs::read_all(procfs::path(pid, "numa_maps")) {
        // No CONFIG_NUMA.
        Err(e) if e.is(libc::ENOENT) => return Ok(false),
        other => other?,
    };
    let mut lines = text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    Ok(lines.any(|line| line.split(|byte| *byte == b' ').nth(1) != Some(b"default")))
}

impl PoliciesAsked {
    /// Asks for all areas, in batches of this room at most.
    pub fn ask(areas: &[maps::Area], room: usize) -> PoliciesAsked {
        let ours = |area: &&maps::Area| area.path.as_bytes() == b"/memfd:bardo";
        let areas = areas.iter().filter(|a| a.end <= USER_MAX && !is_kernels(a) && !ours(a));
        let questions = areas.flat_map(|area| {
            let span = Span { start: area.start, end: area.end };
            let last = area.end.saturating_sub(PAGE).max(area.start);
            let ends = [area.start, last].map(|at| Question { span, at });
            // Private areas have one policy.
            ends.into_iter().take(if area.perms.shared && last > area.start { 2 } else { 1 })
        });
        PoliciesAsked::of(questions, room)
    }

    fn of(questions: impl Iterator<Item = Question>, room: usize) -> PoliciesAsked {
        let mut asked = PoliciesAsked::default();
        for question in questions {
            if asked.batches.last().is_none_or(|(batch, _)| batch.room() + QUESTION > room) {
                asked.batches.push((Batch::new(), Vec::new()));
            }
            let Some((batch, answers)) = asked.batches.last_mut() else { break };
            let answer = batch.room_for(ANSWER);
            let args = [
                offset(answer, numa::MASK_LEN),
                answer,
                Arg::Value(numa::MASK_BITS),
                Arg::Value(question.at),
                Arg::Value(numa::AT_ADDRESS),
            ];
            let step = batch.attempt(Sysno::get_mempolicy, args);
            answers.push(Answer { span: question.span, at: answer, step });
        }
        asked
    }

    /// What is to be run inside.
    pub fn batches(&mut self) -> impl Iterator<Item = &mut Batch> {
        self.batches.iter_mut().map(|(batch, _)| batch)
    }

    fn answers(&self) -> impl Iterator<Item = Policy> {
        self.batches.iter().flat_map(|(batch, answers)| {
            answers.iter().map(|answer| {
                let bytes = batch.output(answer.at, ANSWER);
                let (mask, mode) = bytes.split_at(numa::MASK_LEN);
                let nodes = (0..numa::MASK_LEN as u32 * 8)
                    .filter(|node| mask[*node as usize / 8] & 1 << (node % 8) != 0)
                    .collect();
                let mode = u32::from_ne_bytes([mode[0], mode[1], mode[2], mode[3]]);
                Policy { span: answer.span, mode, nodes }
            })
        })
    }

    /// Once they were run: asks for the pages of shared areas that have a policy at one end or the other.
    ///
    /// # Errors
    /// An area that can't be asked for.
    pub fn ask_pages(&self, room: usize) -> bardo_kernel::Result<PoliciesAsked> {
        for (batch, answers) in &self.batches {
            for answer in answers {
                match batch.result(answer.step) {
                    // No CONFIG_NUMA: the answers are as if there were no policy.
                    Err(e) if !e.is(libc::ENOSYS) => return Err(e),
                    _ => {}
                }
            }
        }
        let pages = self.shared().filter(|(first, last)| first.mode != 0 || last.mode != 0);
        let pages = pages.filter(|(first, _)| first.span.len() / PAGE <= PAGES_MAX).flat_map(|(first, _)| {
            (first.span.start..first.span.end)
                .step_by(PAGE as usize)
                .map(|at| Question { span: Span { start: at, end: at + PAGE }, at })
        });
        Ok(PoliciesAsked::of(pages, room))
    }

    /// What the first and the last page of each shared area said.
    fn shared(&self) -> impl Iterator<Item = (Policy, Policy)> {
        let mut answers = self.answers().peekable();
        std::iter::from_fn(move || {
            loop {
                let first = answers.next()?;
                if let Some(last) = answers.next_if(|next| next.span == first.span) {
                    return Some((first, last));
                }
            }
        })
    }

    /// A shared area that is too large to ask for every page, and has more than one policy.
    pub fn unclear(&self) -> Option<Span> {
        let differ =
            |(first, last): &(Policy, Policy)| (first.mode, &first.nodes) != (last.mode, &last.nodes);
        let large = |(first, _): &(Policy, Policy)| first.span.len() / PAGE > PAGES_MAX;
        self.shared().find(|ends| differ(ends) && large(ends)).map(|(first, _)| first.span)
    }

    /// All policies, in order; `pages` is what [`PoliciesAsked::ask_pages`] asked.
    pub fn take(&self, pages: &PoliciesAsked) -> Vec<Policy> {
        let one_by_one: Vec<Policy> = pages.answers().collect();
        let asked_again = |span: Span| {
            let at = one_by_one.partition_point(|page| page.span.end <= span.start);
            one_by_one.get(at).is_some_and(|page| span.holds(page.span))
        };
        let wholes = self.answers().filter(|policy| !asked_again(policy.span));
        let mut all: Vec<Policy> = wholes.chain(one_by_one.iter().cloned()).filter(|p| p.mode != 0).collect();
        all.sort_by_key(|policy| policy.span);
        all.dedup_by(|next, last| {
            let same = (next.mode, &next.nodes) == (last.mode, &last.nodes);
            let goes_on = same && (last.span.end == next.span.start || last.span == next.span);
            if goes_on {
                last.span.end = next.span.end;
            }
            goes_on || last.span == next.span
        });
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(mode: u32, nodes: &[u32]) -> Policy {
        Policy { span: Span { start: 0x10000, end: 0x12000 }, mode, nodes: nodes.to_vec() }
    }

    #[test]
    fn only_what_the_kernel_tells_is_sound() {
        assert_eq!(policy(2 | 1 << 15, &[0, 3, 1023]).fault(), None);
        assert_eq!(policy(4, &[]).fault(), None);
        for wrong in [policy(0, &[]), policy(7, &[0]), policy(1 << 16 | 1, &[0]), policy(2, &[1024])] {
            assert!(wrong.fault().is_some(), "{wrong:?}");
        }
        assert!(policy(2, &[3, 3]).fault().is_some());
        let odd = Span { start: 0x10001, end: 0x12000 };
        assert!(Policy { span: odd, ..policy(2, &[0]) }.fault().is_some());
    }

    #[test]
    fn a_host_without_the_nodes_is_told_so() {
        // No machine has as many.
        let refusal = policy(2, &[1023]).check().expect("no such node");
        assert_eq!(refusal.code, "host/numa");
    }
}
