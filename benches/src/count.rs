//! What one more process, thread, area or descriptor costs: trees of 1, 10, 100 and 1000 of each.
//!
//! The reference is the program's own time to make them: fork(2), pthread_create(3), mprotect(2) with a touched page, open(2).
//! The last column is the slope: what the largest took more than the smallest, for each that it has more.

use crate::subject::Subject;
use crate::table::{Figure, Goal, Table, Unit, median};
use crate::tool::Tool;
use crate::{Bench, Result};

/// Measures.
pub fn measure(bench: &Bench) -> Result<Vec<Table>> {
    let counts: Vec<u64> = [1, 10, 100, 1000].into_iter().filter(|n| *n <= bench.most).collect();
    let mut slopes = Vec::new();
    let mut goals = Vec::new();
    for role in ["processes", "threads", "vmas", "fds"] {
        for tool in &bench.tools {
            let mut all = Vec::new();
            for &count in &counts {
                eprintln!("count: {} of {count} {role}", tool.name());
                all.push(sample(bench, tool, role, count)?);
            }
            for (what, pick) in [("made", 0), ("checkpoint", 1), ("restart", 2)] {
                if what == "made" && !matches!(tool, Tool::Bardo(_)) {
                    continue;
                }
                let medians: Vec<f64> = all.iter().map(|s| median(&s[pick])).collect();
                let who = if what == "made" { "by the program" } else { tool.name() };
                let mut row = vec![format!("{role}: {what}, {who}")];
                row.extend(medians.iter().map(|ns| Unit::Time.spell(*ns)));
                row.push(slope(&counts, &medians).map_or(String::new(), |ns| Unit::Time.spell(ns)));
                slopes.push(row);
            }
            if let (Some(&most), Some(last)) = (counts.last(), all.last()) {
                for (what, pick) in [("checkpoint", 1), ("restart", 2)] {
                    goals.push(Figure {
                        name: format!("{most} {role}, {}: {what}", tool.name()),
                        samples: last[pick].clone(),
                        reference: Some(("to make them", last[0].clone())),
                        unit: Unit::Time,
                        goal: (role == "processes" && most == 1000).then_some(Goal::Value(2e9)),
                    });
                }
            }
        }
    }
    let mut head = vec![String::new()];
    head.extend(counts.iter().map(u64::to_string));
    head.push("each one more".into());
    Ok(vec![
        Table::of("Many of a kind (image on tmpfs)", &goals),
        Table { title: "Cost per process, thread, area and descriptor (medians)".into(), head, rows: slopes },
    ])
}

fn slope(counts: &[u64], medians: &[f64]) -> Option<f64> {
    let more = counts.last()? - counts.first()?;
    (more > 0).then_some((medians.last()? - medians.first()?) / more as f64)
}

/// Made, checkpoint, restart: nanoseconds, one of each a round.
fn sample(bench: &Bench, tool: &Tool, role: &str, count: u64) -> Result<[Vec<f64>; 3]> {
    let mut samples: [Vec<f64>; 3] = Default::default();
    for _ in 0..bench.rounds {
        let subject = Subject::start(role, count, &bench.tmpfs)?;
        samples[0].push(subject.made_ns as f64);
        let image = bench.tmpfs.fresh("image")?;
        samples[1].push(tool.checkpoint(subject.root(), &image, true)?.took_ns as f64);
        subject.wait_gone()?;
        samples[2].push(tool.restart(&image)?.took_ns as f64);
        subject.end()?;
    }
    Ok(samples)
}
