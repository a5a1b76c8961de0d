//! The survey of a frozen tree's files: what the image will say, and what stands in the way. It writes nothing.

use std::collections::BTreeMap;
use std::io::{self, Write};

use bardo_image::{Value, Writer};
use bardo_kernel::kcmp;
use serde::Serialize;

use super::gone::{self, Numbers};
use super::scene::{Entry, Holder, Scene, Seen};
use super::{KINDS, external, lock, owner, table};
use crate::error::{Doing, Error, Refusal, Result, Who};
use crate::resource::memory::Shared;
use crate::subject::Subject;

/// What the kinds gather.
#[derive(Debug, Default)]
pub struct Collected {
    records: Vec<(&'static str, u64, Value)>,
    refusals: Vec<Refusal>,
    externals: Vec<String>,
    late: Vec<(&'static str, u64, Value)>,
    /// Removed directories.
    pub gone: Numbers,
}

impl Collected {
    /// Adds a record.
    ///
    /// # Errors
    /// [`Error::Bug`] where serde can't write it.
    pub fn record<T: Serialize>(&mut self, kind: &'static str, id: u64, body: &T) -> Result<()> {
        let body = Value::serialized(body).map_err(|e| Error::Bug(format!("the record {kind} {id}: {e}")))?;
        self.records.push((kind, id, body));
        Ok(())
    }

    /// Adds a record that comes after those of all open files and tables, for it names some. These are numbered from 1.
    ///
    /// # Errors
    /// [`Error::Bug`] where serde can't write it.
    pub fn record_late<T: Serialize>(&mut self, kind: &'static str, body: &T) -> Result<()> {
        let id = self.late.len() as u64 + 1;
        let body = Value::serialized(body).map_err(|e| Error::Bug(format!("the record {kind} {id}: {e}")))?;
        self.late.push((kind, id, body));
        Ok(())
    }

    /// Refuses an open file, at the first descriptor that leads to it.
    pub fn refuse(
        &mut self,
        scene: &Scene<'_>,
        file: &Seen,
        code: &'static str,
        what: impl Into<String>,
        why: &str,
        remedy: &str,
    ) {
        self.refuse_at(scene, file.holders[0], code, what, why, remedy);
    }

    /// Refuses a descriptor.
    pub fn refuse_at(
        &mut self,
        scene: &Scene<'_>,
        holder: Holder,
        code: &'static str,
        what: impl Into<String>,
        why: &str,
        remedy: &str,
    ) {
        self.refusals.push(scene.subjects[holder.subject].refusal(code, Some(holder.fd), what, why, remedy));
    }

    /// Whether this open file belongs to the outside.
    pub(super) fn is_external(&self, id: u64) -> bool {
        self.records.iter().any(|(kind, of, _)| *kind == external::NAME && *of == id)
    }

    /// Refuses a process, by its index, for what isn't a descriptor of its.
    pub fn refuse_process(
        &mut self,
        scene: &Scene<'_>,
        subject: usize,
        code: &'static str,
        what: impl Into<String>,
        why: &str,
        remedy: &str,
    ) {
        self.refusals.push(scene.subjects[subject].refusal(code, None, what, why, remedy));
    }

    /// Names something that belongs to the outside; several open files of it have one name.
    pub fn external(&mut self, name: String) {
        if !self.externals.contains(&name) {
            self.externals.push(name);
        }
    }
}

/// All that an image says about a tree's files.
#[derive(Debug)]
pub struct Files {
    records: Vec<(&'static str, u64, Value)>,
    externals: Vec<String>,
    descriptors: u64,
    open_files: u64,
    held: BTreeMap<(u64, u64), (Who, i32)>,
}

impl Files {
    /// Writes the records: open files first, then the tables that name them.
    ///
    /// # Errors
    /// Those of the sink.
    pub fn write<W: Write>(&self, image: &mut Writer<W>) -> io::Result<()> {
        self.records.iter().try_for_each(|(kind, id, body)| image.record(kind, *id, body))
    }

    /// How many descriptors the tree has.
    pub fn descriptors(&self) -> u64 {
        self.descriptors
    }

    /// How many open files they lead to.
    pub fn open_files(&self) -> u64 {
        self.open_files
    }

    /// What belongs to the outside, as it is named for `--external`.
    pub fn externals(&self) -> &[String] {
        &self.externals
    }

    /// Who in the tree has this inode open, and as which descriptor: an image isn't written to a pipe or a file of the
    /// tree itself.
    pub fn holds(&self, dev: u64, ino: u64) -> Option<(Who, i32)> {
        self.held.get(&(dev, ino)).cloned()
    }

    #[cfg(test)]
    pub(super) fn records(&self) -> &[(&'static str, u64, Value)] {
        &self.records
    }
}

/// Looks at the files of a frozen tree, the root first among the subjects. `vouched` names what may belong to the outside,
/// as refusals spell it: a link's text (`pipe:[4711]`, `/dev/pts/3`, `socket:[99]`) or `fd:PID:NUMBER`. Inodes without a name
/// go to `shared`.
///
/// What stands in the way is added to `refusals`; the result is good to write only where nothing was.
///
/// # Errors
/// Where looking failed.
pub fn survey(
    subjects: &[&Subject],
    vouched: &[String],
    shared: &mut Shared,
    refusals: &mut Vec<Refusal>,
) -> Result<Files> {
    refuse_own_tables(subjects, refusals)?;
    let scene = Scene::look(subjects, vouched, shared)?;
    let mut out = Collected::default();
    for file in &scene.files {
        let kind = KINDS.iter().find(|kind| kind.claims(file, &scene));
        let kind = kind.ok_or_else(|| Error::Bug(format!("no kind of file claims {}", file.show())))?;
        kind.collect(file, &scene, &mut out)?;
    }
    table::collect(&scene, &mut out)?;
    let late = std::mem::take(&mut out.late);
    out.records.extend(late);
    owner::collect(&scene, &mut out)?;
    lock::collect(&scene, &mut out)?;
    gone::collect_cwds(&scene, &mut out)?;
    refusals.append(&mut out.refusals);
    let mut held = BTreeMap::new();
    for file in &scene.files {
        let holder = file.holders[0];
        let who = || (subjects[holder.subject].who.clone(), holder.fd);
        held.entry((file.stat.dev, file.stat.ino)).or_insert_with(who);
    }
    Ok(Files {
        records: out.records,
        externals: out.externals,
        descriptors: scene.entries.len() as u64,
        open_files: scene.files.len() as u64,
        held,
    })
}

/// Refuses threads with a table of their own (unshare(2)).
fn refuse_own_tables(subjects: &[&Subject], refusals: &mut Vec<Refusal>) -> Result<()> {
    let compare = |one: i32, other: i32, who: &Who| {
        kcmp::compare(one, other, kcmp::What::Files).doing("comparing descriptor tables", Some(who))
    };
    for subject in subjects {
        for tid in subject.tids.iter().filter(|tid| **tid != subject.door) {
            if !compare(subject.door, *tid, &subject.who)?.is_same() {
                refusals.push(subject.refusal(
                    "task/own-files",
                    None,
                    format!("thread {tid} has a descriptor table of its own"),
                    "only one table per process is saved (the thread called unshare(2) with CLONE_FILES)",
                    "a later version of bardo will save it; until then checkpoint before the thread does that",
                ));
            }
        }
    }
    Ok(())
}

/// The descriptors of each process, by its index.
pub(super) fn by_process(entries: &[Entry]) -> impl Iterator<Item = (usize, &[Entry])> {
    entries
        .chunk_by(|a, b| a.holder.subject == b.holder.subject)
        .map(|chunk| (chunk[0].holder.subject, chunk))
}
