//! Measures what a checkpoint and a restart cost, each figure against a reference of the same run.
//!
//! `cargo run --release -p bardo-bench` prints tables; `--markdown` prints them for `docs/benchmarks.md`.
//!
//! A shared machine is never quiet, and no absolute time on it means much. So every figure stands beside a reference that
//! does the least that could be done (write(2) of the same bytes, fork(2) of as many processes, …), both are measured in
//! turn, round after round, and what counts is the ratio within a round: its median, and its least and greatest. Nothing
//! here passes or fails by time.
//!
//! `subject.rs` starts what is checkpointed, `tool.rs` runs bardo and CRIU, `reference.rs` the references; `memory.rs`,
//! `idle.rs` and `count.rs` are the three groups of figures.

#![forbid(unsafe_code)]

mod count;
mod idle;
mod machine;
mod memory;
mod place;
mod reference;
mod subject;
mod table;
mod tool;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, ValueEnum};

use crate::place::Place;
use crate::tool::Tool;

/// Whatever goes wrong ends the run; nobody looks at which of it did.
type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// Measures bardo against the physical limit, and against CRIU where there is one.
#[derive(Debug, Parser)]
struct Arguments {
    /// Print the tables for docs/benchmarks.md
    #[arg(long)]
    markdown: bool,
    /// How often everything is measured
    #[arg(long, value_name = "N", default_value_t = 7, value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: u32,
    /// Only these groups
    #[arg(long, value_enum, value_delimiter = ',')]
    only: Vec<Group>,
    /// A directory on a disk [default: the directory for temporary files]
    #[arg(long, value_name = "DIR")]
    disk: Option<PathBuf>,
    /// A directory in memory
    #[arg(long, value_name = "DIR", default_value = "/dev/shm")]
    tmpfs: PathBuf,
    /// How many processes, threads, areas and descriptors at most
    #[arg(long, value_name = "N", default_value_t = 1000)]
    most: u64,
    /// The largest process, in MiB
    #[arg(long, value_name = "MIB", default_value_t = 1024)]
    largest: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Group {
    /// Pauses, and the time that memory takes
    Memory,
    /// A process that does nothing: its image, its times
    Idle,
    /// Cost per process, thread, area and descriptor
    Count,
}

/// What every group measures with.
#[derive(Debug)]
struct Bench {
    /// bardo first.
    tools: Vec<Tool>,
    tmpfs: Place,
    disk: Place,
    rounds: u32,
    most: u64,
    largest: u64,
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bardo-bench: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<()> {
    subject::adopt_orphans()?;
    let (tools, absent) = tool::all()?;
    let bench = Bench {
        tools,
        tmpfs: Place::new(&arguments.tmpfs)?,
        disk: Place::new(&arguments.disk.clone().unwrap_or_else(std::env::temp_dir))?,
        rounds: arguments.rounds,
        most: arguments.most,
        largest: arguments.largest << 20,
    };
    let wanted = |group| arguments.only.is_empty() || arguments.only.contains(&group);
    if wanted(Group::Memory) {
        eprintln!("touching memory, so that the host has given it before it is measured");
        reference::warm(bench.largest.saturating_mul(4))?;
    }
    let mut tables = Vec::new();
    for (group, measure) in [
        (Group::Memory, memory::measure as fn(&Bench) -> Result<Vec<table::Table>>),
        (Group::Idle, idle::measure),
        (Group::Count, count::measure),
    ] {
        if wanted(group) {
            tables.extend(measure(&bench)?);
        }
    }
    let mut notes = vec![machine::describe(&bench)];
    notes.extend(absent);
    print!("{}", table::print(&tables, &notes, arguments.markdown));
    Ok(())
}
