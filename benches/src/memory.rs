//! Pauses, and the time that memory takes: small, 100 MiB and 1 GiB processes.
//!
//! The pause is the target's own: the longest gap between two readings of its clock. The restart to the first instruction ends
//! with the first reading after it. bardo puts all memory back before anything runs; so that this stays true to a restart that
//! doesn't, "all memory present" adds what it takes the program to touch every page.

use crate::reference;
use crate::subject::Subject;
use crate::table::{Figure, Goal, Table, Unit};
use crate::tool::Tool;
use crate::{Bench, Result};

/// Measures.
pub fn measure(bench: &Bench) -> Result<Vec<Table>> {
    let mut sizes = vec![1 << 20, 100 << 20, bench.largest];
    sizes.retain(|size| *size <= bench.largest);
    sizes.dedup();
    let mut pauses = Vec::new();
    let mut images = Vec::new();
    let mut restarts = Vec::new();
    for size in sizes {
        for tool in &bench.tools {
            eprintln!("memory: {} of {}", tool.name(), Unit::Size.spell(size as f64));
            let samples = sample(bench, tool, size)?;
            let name = format!("{}, {}", Unit::Size.spell(size as f64), tool.name());
            let goal = (size == bench.largest).then_some(Goal::Ratio(1.3));
            let time = |name: String, samples: &[f64], reference: (&'static str, &[f64]), goal| Figure {
                name,
                samples: samples.to_vec(),
                reference: Some((reference.0, reference.1.to_vec())),
                unit: Unit::Time,
                goal,
            };
            pauses.push(time(name.clone(), &samples.pause, ("memcpy", &samples.copy), None));
            if !samples.reported.is_empty() {
                let reported = ("as reported", &samples.reported[..]);
                pauses.push(time(format!("{name}, and what it says"), &samples.pause, reported, None));
            }
            images.push(time(
                format!("{name}, on tmpfs"),
                &samples.sealed_memory,
                ("write", &samples.write_memory),
                goal,
            ));
            images.push(time(
                format!("{name}, on disk"),
                &samples.sealed_disk,
                ("write + fsync", &samples.write_disk),
                goal,
            ));
            restarts.push(time(
                format!("{name}: first instruction"),
                &samples.first,
                ("populate + read", &samples.read),
                goal,
            ));
            restarts.push(time(
                format!("{name}: all memory present"),
                &samples.present,
                ("populate + read", &samples.read),
                goal,
            ));
        }
    }
    Ok(vec![
        Table::of("The pause, by the target's own clock (image on tmpfs; the tree runs on)", &pauses),
        Table::of("From the command to the sealed, durable image (the tree runs on)", &images),
        Table::of("From the command to the restarted program (image on tmpfs)", &restarts),
    ])
}

/// Nanoseconds, one of each a round.
#[derive(Debug, Default)]
struct Samples {
    pause: Vec<f64>,
    reported: Vec<f64>,
    copy: Vec<f64>,
    write_memory: Vec<f64>,
    sealed_memory: Vec<f64>,
    write_disk: Vec<f64>,
    sealed_disk: Vec<f64>,
    read: Vec<f64>,
    first: Vec<f64>,
    present: Vec<f64>,
}

fn sample(bench: &Bench, tool: &Tool, size: u64) -> Result<Samples> {
    let mut samples = Samples::default();
    // A clock that is read all the time keeps a processor busy: what writes isn't measured beside it.
    let holder = Subject::start("hold", size, &bench.tmpfs)?;
    for round in 0..bench.rounds {
        samples.copy.push(reference::copy(size)? as f64);
        for (place, written, sealed) in [
            (&bench.tmpfs, &mut samples.write_memory, &mut samples.sealed_memory),
            (&bench.disk, &mut samples.write_disk, &mut samples.sealed_disk),
        ] {
            in_turn(
                round,
                size,
                || {
                    written.push(reference::write(&place.fresh("written")?, size)? as f64);
                    place.fresh("written").map(drop)
                },
                || {
                    let image = place.fresh("image")?;
                    sealed.push(tool.checkpoint(holder.root(), &image, false)?.took_ns as f64);
                    place.fresh("image").map(drop)
                },
            )?;
        }
        clocked(bench, tool, size, round, &mut samples)?;
    }
    holder.end()?;
    Ok(samples)
}

/// One first, then the other; in the next round the other way round: who comes second may find a disk that still works for
/// the first. Both find memory that was just touched and let go, so that neither waits for the host to give it.
fn in_turn(
    round: u32,
    size: u64,
    one: impl FnOnce() -> Result<()>,
    other: impl FnOnce() -> Result<()>,
) -> Result<()> {
    let mut turns: [Box<dyn FnOnce() -> Result<()> + '_>; 2] = [Box::new(one), Box::new(other)];
    if !round.is_multiple_of(2) {
        turns.reverse();
    }
    for turn in turns {
        reference::warm(size.saturating_mul(2))?;
        turn()?;
    }
    Ok(())
}

fn clocked(bench: &Bench, tool: &Tool, size: u64, round: u32, samples: &mut Samples) -> Result<()> {
    let clock = Subject::start("clock", size, &bench.tmpfs)?;
    let image = bench.tmpfs.fresh("image")?;
    reference::warm(size.saturating_mul(2))?;
    let run = tool.checkpoint(clock.root(), &image, false)?;
    let pause_ns = clock.gaps()?.longest_ns(run.begun_ns, run.begun_ns + run.took_ns)?;
    samples.pause.push(pause_ns as f64);
    samples.reported.extend(run.pause_ns.map(|ns| ns as f64));

    let bytes = bench.tmpfs.fresh("bytes")?;
    reference::write(&bytes, size)?;
    let image = bench.tmpfs.fresh("image")?;
    tool.checkpoint(clock.root(), &image, true)?;
    clock.wait_gone()?;
    let Samples { read, first, present, .. } = samples;
    in_turn(
        round,
        size,
        || {
            read.push(reference::read(&bytes, size)? as f64);
            Ok(())
        },
        || {
            let run = tool.restart(&image)?;
            let gaps = clock.gaps()?;
            let first_ns = gaps.end_ns(run.begun_ns)? - run.begun_ns;
            first.push(first_ns as f64);
            present.push((first_ns + gaps.touched_ns) as f64);
            clock.end()
        },
    )?;
    bench.tmpfs.fresh("image")?;
    bench.tmpfs.fresh("bytes")?;
    Ok(())
}
