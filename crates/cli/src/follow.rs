//! Following an operation for a person: a bar with a rate on a terminal, the steps and notes that were asked for, the log,
//! and the wish to stop.
//!
//! Whoever reads our standard error may be part of the tree that is frozen (a terminal multiplexer, `bardo … 2>&1 | less`
//! inside it); then a write would wait for a reader that can't read, and the tree would stay frozen with us. So during a
//! checkpoint a thread of its own does all the writing, and the thread that holds the tree never waits for it. A restart has
//! no frozen tree, but it clones processes, for which a second thread of ours would be a danger (it may hold the
//! allocator's lock at that moment): there, everything is written on the spot.

use std::io::IsTerminal;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bardo_engine::watch::{Stage, Watch};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;

use crate::session::{Session, json_line, talk, talk_raw};
use crate::wording::inline;

/// Work that is done sooner than this gets no bar.
const SHORT: Duration = Duration::from_millis(400);
/// How often a bar is drawn.
const REDRAW: Duration = Duration::from_millis(100);
/// What `Progress::total` holds while the total is unknown.
const UNKNOWN: u64 = u64::MAX;

/// Follows one operation until it is dropped.
pub struct Follow {
    progress: Arc<Progress>,
    writer: Writer,
    steps: bool,
    cancelled: Option<Arc<AtomicBool>>,
}

/// Bytes done and to do.
struct Progress {
    done: AtomicU64,
    total: AtomicU64,
}

/// Something to tell.
enum Said {
    Stage(Stage),
    Note(String),
    Step(i32, String),
}

enum Writer {
    /// A checkpoint's: the thread ends when the sender is gone.
    Apart(Option<(Sender<Said>, JoinHandle<()>)>),
    /// A restart's.
    Here(Mutex<Paper>),
}

impl Follow {
    /// Follows a checkpoint.
    pub fn checkpoint(session: &Session, cancelled: Arc<AtomicBool>) -> Follow {
        let progress = Arc::new(Progress::new());
        let mut paper = Paper::new(session);
        let (sender, receiver) = channel();
        let shared = Arc::clone(&progress);
        let thread = std::thread::Builder::new()
            .name("follow".into())
            .spawn(move || paper.write_all(&receiver, &shared))
            .map(|thread| (sender, thread));
        // Without a thread nothing is told, rather than told at the tree's risk.
        let writer = Writer::Apart(thread.ok());
        Follow { progress, writer, steps: session.common.steps || logged(), cancelled: Some(cancelled) }
    }

    /// Follows a restart.
    pub fn restart(session: &Session, cancelled: Arc<AtomicBool>) -> Follow {
        Follow {
            progress: Arc::new(Progress::new()),
            writer: Writer::Here(Mutex::new(Paper::new(session))),
            steps: session.common.steps || logged(),
            cancelled: Some(cancelled),
        }
    }

    fn tell(&self, said: Said) {
        match &self.writer {
            // The thread is there as long as we are.
            Writer::Apart(Some((sender, _))) => drop(sender.send(said)),
            Writer::Apart(None) => {}
            Writer::Here(paper) => paper.lock().unwrap_or_else(PoisonError::into_inner).write(said),
        }
    }
}

fn logged() -> bool {
    tracing::enabled!(tracing::Level::DEBUG)
}

impl Drop for Follow {
    fn drop(&mut self) {
        match &mut self.writer {
            Writer::Apart(thread) => {
                if let Some((sender, thread)) = thread.take() {
                    drop(sender);
                    // A panic of the thread has gone to the log; the operation itself is not concerned.
                    let _ = thread.join();
                }
            }
            Writer::Here(paper) => paper.get_mut().unwrap_or_else(PoisonError::into_inner).clear(),
        }
    }
}

impl Watch for Follow {
    fn stage(&self, stage: Stage) {
        tracing::info!("stage {}", stage_name(stage));
        self.progress.done.store(0, Ordering::Relaxed);
        self.progress.total.store(UNKNOWN, Ordering::Relaxed);
        self.tell(Said::Stage(stage));
    }

    fn bytes(&self, done: u64, total: Option<u64>) {
        self.progress.done.store(done, Ordering::Relaxed);
        self.progress.total.store(total.unwrap_or(UNKNOWN), Ordering::Relaxed);
        if let Writer::Here(paper) = &self.writer {
            paper.lock().unwrap_or_else(PoisonError::into_inner).draw(&self.progress);
        }
    }

    fn note(&self, text: &str) {
        tracing::info!("{text}");
        self.tell(Said::Note(text.to_owned()));
    }

    fn step(&self, pid: i32, text: &str) {
        tracing::debug!("step {pid} {text}");
        self.tell(Said::Step(pid, text.to_owned()));
    }

    fn wants_steps(&self) -> bool {
        self.steps
    }

    fn cancelled(&self) -> bool {
        self.cancelled.as_ref().is_some_and(|flag| flag.load(Ordering::SeqCst))
    }
}

impl Progress {
    fn new() -> Progress {
        Progress { done: AtomicU64::new(0), total: AtomicU64::new(UNKNOWN) }
    }
}

/// What is written on standard error, and the bar at its foot.
struct Paper {
    json: bool,
    verbose: bool,
    steps: bool,
    bar: Option<ProgressBar>,
    stage: &'static str,
    began: Instant,
    drawn: Option<Instant>,
}

/// One line of `--json --verbose`.
#[derive(Serialize)]
#[serde(rename_all = "lowercase")]
enum Line<'a> {
    Stage(&'a str),
    Note(&'a str),
    Step { pid: i32, text: &'a str },
}

impl Paper {
    fn new(session: &Session) -> Paper {
        let common = &session.common;
        let bar = !common.quiet && !common.json && std::io::stderr().is_terminal();
        Paper {
            json: common.json,
            verbose: common.verbose,
            steps: common.steps,
            bar: bar.then(|| ProgressBar::with_draw_target(None, ProgressDrawTarget::hidden())),
            stage: "",
            began: Instant::now(),
            drawn: None,
        }
    }

    /// Writes what comes until nothing can come any more, and draws in between.
    fn write_all(&mut self, receiver: &Receiver<Said>, progress: &Progress) {
        loop {
            match receiver.recv_timeout(REDRAW) {
                Ok(said) => self.write(said),
                Err(RecvTimeoutError::Timeout) => self.draw(progress),
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        self.clear();
    }

    fn write(&mut self, said: Said) {
        match said {
            Said::Stage(stage) => {
                self.stage = stage_name(stage);
                // The new stage's figures begin a new rate.
                if let Some(bar) = &self.bar {
                    bar.reset();
                }
                if self.verbose {
                    self.line(&Line::Stage(self.stage), || format!("-- {}", stage_name(stage)));
                }
            }
            Said::Note(text) if self.verbose => self.line(&Line::Note(&text), || inline(&text)),
            Said::Step(pid, text) if self.steps => {
                self.line(&Line::Step { pid, text: &text }, || format!("step  {pid}  {}", inline(&text)));
            }
            Said::Note(_) | Said::Step(..) => {}
        }
    }

    fn line(&self, line: &Line<'_>, text: impl FnOnce() -> String) {
        if self.json {
            talk_raw(&json_line(line));
            return;
        }
        match &self.bar {
            Some(bar) => bar.suspend(|| talk(&text())),
            None => talk(&text()),
        }
    }

    fn draw(&mut self, progress: &Progress) {
        let now = Instant::now();
        if now - self.began < SHORT || self.drawn.is_some_and(|last| now - last < REDRAW) {
            return;
        }
        let Some(bar) = &self.bar else { return };
        if self.drawn.is_none() {
            bar.set_draw_target(ProgressDrawTarget::stderr());
        }
        self.drawn = Some(now);
        let done = progress.done.load(Ordering::Relaxed);
        let total = progress.total.load(Ordering::Relaxed);
        let form = match (done, total) {
            (0, UNKNOWN) => "{msg:10} {elapsed}",
            (_, UNKNOWN) => "{msg:10} {binary_bytes:>10}  {binary_bytes_per_sec}",
            _ => {
                "{msg:10} {wide_bar} {binary_bytes:>10} of {binary_total_bytes}  {binary_bytes_per_sec}  {eta}"
            }
        };
        // The forms above are right, as a test shows.
        if let Ok(style) = ProgressStyle::with_template(form) {
            bar.set_style(style.progress_chars("━╸─"));
        }
        bar.set_message(self.stage);
        match total {
            UNKNOWN => bar.unset_length(),
            total => bar.set_length(total),
        }
        bar.set_position(done);
        bar.tick();
    }

    fn clear(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }
}

/// A stage as a word.
fn stage_name(stage: Stage) -> &'static str {
    match stage {
        Stage::Probe => "probe",
        Stage::Freeze => "freeze",
        Stage::Survey => "survey",
        Stage::Collect => "collect",
        Stage::Pages => "pages",
        Stage::Release => "release",
        Stage::Seal => "seal",
        Stage::Open => "open",
        Stage::Processes => "processes",
        Stage::Files => "files",
        Stage::Memory => "memory",
        Stage::Go => "go",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arguments::Common;

    fn session() -> Session {
        Session { common: Common { quiet: true, ..Common::default() } }
    }

    #[test]
    fn cancelled_is_the_flag() {
        let flag = Arc::new(AtomicBool::new(false));
        let follow = Follow::checkpoint(&session(), Arc::clone(&flag));
        follow.stage(Stage::Freeze);
        follow.bytes(1, Some(2));
        assert!(!follow.cancelled());
        flag.store(true, Ordering::SeqCst);
        assert!(follow.cancelled());
        assert!(!follow.wants_steps());
    }

    /// Every form of the bar is one that indicatif accepts and draws.
    #[test]
    fn the_bar_draws_every_form() {
        let mut paper = Paper::new(&session());
        let terminal = indicatif::InMemoryTerm::new(4, 100);
        let bar =
            ProgressBar::with_draw_target(None, ProgressDrawTarget::term_like(Box::new(terminal.clone())));
        paper.bar = Some(bar);
        paper.stage = "pages";
        for (done, total, sign) in
            [(0, UNKNOWN, "0s"), (7 << 20, UNKNOWN, "7.00 MiB"), (1 << 20, 4 << 20, "of 4.00 MiB")]
        {
            paper.began = Instant::now() - 2 * SHORT;
            // A drawing target was chosen already: `drawn` is some, and long ago.
            paper.drawn = Some(Instant::now() - 2 * REDRAW);
            paper.draw(&Progress { done: AtomicU64::new(done), total: AtomicU64::new(total) });
            let seen = terminal.contents();
            assert!(seen.contains("pages") && seen.contains(sign), "{sign} not in {seen:?}");
        }
    }
}
