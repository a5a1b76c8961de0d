//! The flow of a checkpoint. Read this file first.
//!
//! Each step is a value that only the step before can make: an open sink, a frozen tree, a survey without refusals, an
//! image under way, a sealed image. Nothing is written before the survey is through; whatever fails, the frozen tree is
//! a guard that thaws and the sink a guard that removes what isn't finished.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;

use bardo_image::{Header, Value, Writer};
use bardo_kernel::{fs, procfs, time};

use crate::error::{Doing, Error, Refusal, Result};
use crate::freeze::Frozen;
use crate::host;
use crate::resource::file::inotify;
use crate::resource::memory;
use crate::resource::task::clock;
use crate::sink::{Output, write_failed};
use crate::subject::Subject;
use crate::survey::{self, Survey};
use crate::watch::{Stage, Watch};

/// What becomes of the tree once its state is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum After {
    /// It runs on.
    #[default]
    Run,
    /// It is ended by SIGKILL, once the image is sealed and durable.
    Kill,
    /// It is stopped as by SIGSTOP, once the image is sealed and durable.
    Stop,
}

/// Where the image goes.
#[derive(Debug)]
pub enum Sink {
    /// A file: written to a temporary name beside it, synced, then renamed.
    File {
        /// The final name.
        path: PathBuf,
        /// Replace a file that is there.
        force: bool,
    },
    /// A stream that is already open (standard output, a pipe, a socket).
    Stream(std::os::fd::OwnedFd),
}

/// What to checkpoint, and how.
#[derive(Debug)]
pub struct Request {
    /// The root of the tree.
    pub pid: i32,
    /// Where the image goes.
    pub sink: Sink,
    /// What becomes of the tree.
    pub after: After,
    /// Resources outside the tree that the user vouches for, as a refusal spells them (`pipe:[4711]`, `/dev/pts/3`).
    pub external: Vec<String>,
    /// zstd level for pages; none: stored raw.
    pub compress: Option<i32>,
}

/// What a checkpoint did.
#[derive(Debug, Clone, Default)]
pub struct Report {
    /// The image's identity, 32 hexadecimal digits.
    pub identity: String,
    /// How many processes, zombies included.
    pub processes: u64,
    /// How many threads.
    pub threads: u64,
    /// How many memory areas.
    pub areas: u64,
    /// How many descriptors.
    pub descriptors: u64,
    /// Bytes of pages stored.
    pub page_bytes: u64,
    /// Bytes of pages elided because they hold only zeros.
    pub zero_bytes: u64,
    /// Bytes of the image.
    pub image_bytes: u64,
    /// How long the tree stood still, in microseconds.
    pub pause_us: u64,
    /// From the call to the sealed image, in microseconds.
    pub total_us: u64,
    /// What belongs to the outside, as it is named for `--external`.
    pub externals: Vec<String>,
    /// What was found and put right of an earlier bardo that died (`pid 4127: a mapping of an unfinished checkpoint`).
    pub cleaned: Vec<String>,
}

/// Checkpoints a tree.
///
/// # Errors
/// See [`crate::Error`]. Whatever it is, the tree goes on unharmed and the image is whole or absent.
pub fn checkpoint(request: Request, watch: &dyn Watch) -> Result<Report> {
    let begun_ns = time::monotonic_ns();
    let mut report = Report::default();
    watch.stage(Stage::Probe);
    let needs = host::Needs::of_this_host()?;
    let output = Output::open(request.sink, &mut report.cleaned)?;

    let (frozen, survey) = freeze_and_look(request.pid, &request.external, watch)?;
    let since_ns = frozen.since_ns;
    refuse_own_sink(&survey, output.fd())?;

    watch.stage(Stage::Collect);
    let header = header(frozen.door(), &needs, &survey)?;
    report.identity = header.identity.to_string();
    let mut image = Writer::begin(output, &header).map_err(|e| write_failed(&e))?;
    write_records(&survey, &mut image).map_err(|e| write_failed(&e))?;

    watch.stage(Stage::Pages);
    let subjects = frozen.processes.iter().map(|process| &process.subject).collect::<Vec<&Subject>>();
    let spaces: Vec<_> = survey.spaces.iter().map(|(index, space)| (subjects[*index], space)).collect();
    let taken =
        match memory::take(&spaces, &survey.shared, &survey.commons, &mut image, request.compress, watch) {
            Ok(taken) => taken,
            Err(error) => {
                // A stream's reader learns from the image itself why it ends here.
                let _ = image.fail(&crate::error::headline(&error));
                return Err(error);
            }
        };

    // The state is taken. A tree that runs on needn't wait for the disk; one that is to end must, for the image could
    // still fail.
    let mut kept = Some(frozen);
    if request.after == After::Run {
        watch.stage(Stage::Release);
        drop(kept.take());
        report.pause_us = time::monotonic_ns().saturating_sub(since_ns) / 1000;
    }
    watch.stage(Stage::Seal);
    let (output, sealed) = image.seal().map_err(|e| write_failed(&e))?;
    output.finish()?;
    if let Some(frozen) = kept {
        watch.stage(Stage::Release);
        match request.after {
            After::Kill => frozen.kill()?,
            _ => frozen.stop()?,
        }
        report.pause_us = time::monotonic_ns().saturating_sub(since_ns) / 1000;
    }

    report.processes = survey.processes.len() as u64;
    report.threads = survey.threads.len() as u64;
    report.areas = survey.spaces.iter().map(|(_, space)| space.areas() as u64).sum();
    report.descriptors = survey.files.descriptors();
    report.page_bytes = taken.stored;
    report.zero_bytes = taken.zero;
    report.image_bytes = sealed.bytes;
    report.total_us = time::monotonic_ns().saturating_sub(begun_ns) / 1000;
    report.externals = survey.files.externals().to_vec();
    report.externals.extend(survey.sysv.externals());
    report.cleaned.extend(survey.cleaned);
    Ok(report)
}

/// Freezes the tree and looks at it. Where nothing stands in the way but what the tree itself is about to do, it runs on for a
/// moment, and is frozen and looked at again.
fn freeze_and_look(pid: i32, external: &[String], watch: &dyn Watch) -> Result<(Frozen, Survey)> {
    const PAUSES_MS: [u64; 8] = [1, 3, 10, 30, 100, 100, 100, 100];
    let mut pauses = PAUSES_MS.into_iter();
    loop {
        watch.stage(Stage::Freeze);
        let mut frozen = Frozen::freeze(pid)?;
        watch.stage(Stage::Survey);
        match survey::look(&mut frozen, external, watch) {
            Ok(survey) => return Ok((frozen, survey)),
            Err(Error::Refused(refusals)) if refusals.iter().all(|r| r.code == inotify::UNREAD) => {
                let Some(pause_ms) = pauses.next() else { return Err(Error::Refused(refusals)) };
                drop(frozen);
                time::sleep_ns(pause_ms * 1_000_000);
            }
            Err(error) => return Err(error),
        }
    }
}

/// Says everything that stands in the way of a checkpoint without making one: freezes, looks, thaws.
///
/// # Errors
/// As [`checkpoint`]; the refusals are the result here.
pub fn rehearse(pid: i32, external: &[String], watch: &dyn Watch) -> Result<Vec<Refusal>> {
    match freeze_and_look(pid, external, watch) {
        Ok(_) => Ok(Vec::new()),
        Err(Error::Refused(refusals)) => Ok(refusals),
        Err(error) => Err(error),
    }
}

/// An image written into a pipe, a socket or a file that the tree itself holds would wait for itself for ever, or change
/// what it has just saved.
fn refuse_own_sink(survey: &Survey, sink: &OwnedFd) -> Result<()> {
    let stat = fs::fstat(sink.as_fd()).doing("looking at the image's sink", None)?;
    let Some((who, fd)) = survey.files.holds(stat.dev, stat.ino) else { return Ok(()) };
    Err(Error::Refused(vec![Refusal {
        who: Some(who),
        fd: Some(fd),
        what: "the image would be written to what this process has open".into(),
        code: "image/own-sink",
        why: "it stands still while the image is written, so a pipe to it would never be emptied".into(),
        remedy: "write the image to a file, or to a process outside the tree".into(),
    }]))
}

fn header(door: i32, needs: &host::Needs, survey: &Survey) -> Result<Header> {
    let mut header = Header::new(concat!("bardo ", env!("CARGO_PKG_VERSION")))
        .map_err(|e| Error::Bug(format!("no random identity: {e}")))?;
    header.created_unix_ns = time::realtime_ns();
    let words = procfs::cmdline(door).unwrap_or_default();
    let words: Vec<String> = words.iter().map(|word| word.to_string_lossy().into_owned()).collect();
    header.command = words.join(" ").chars().take(4096).collect();
    needs.describe(&mut header.host);
    let threads = |pid: i32| survey.threads.iter().filter(|t| t.pid == pid).count();
    let tree = survey.processes.iter().take(1000).map(|process| {
        Value::Map(vec![
            ("pid".into(), process.pid.into()),
            ("parent".into(), process.parent.into()),
            ("name".into(), String::from_utf8_lossy(&process.name).into_owned().into()),
            ("threads".into(), (threads(process.pid) as u64).into()),
        ])
    });
    header.summary = BTreeMap::from([
        ("processes".into(), (survey.processes.len() as u64).into()),
        ("threads".into(), (survey.threads.len() as u64).into()),
        ("descriptors".into(), survey.files.descriptors().into()),
        ("tree".into(), Value::Array(tree.collect())),
    ]);
    Ok(header)
}

/// Everything but the pages; what is shared comes before those who share it.
fn write_records(survey: &Survey, image: &mut Writer<Output>) -> std::io::Result<()> {
    image.record(clock::NAME, 0, &survey.clocks)?;
    for process in &survey.processes {
        image.record("task/process", process.pid as u64, process)?;
    }
    for thread in &survey.threads {
        image.record("task/thread", thread.tid as u64, thread)?;
    }
    survey.files.write(image)?;
    survey.sysv.write(image)?;
    survey.shared.write(image)?;
    for (_, space) in &survey.spaces {
        space.write(image)?;
    }
    survey.commons.write(image)
}
