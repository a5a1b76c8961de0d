//! A process that does nothing: the size of its image, and how long it takes each way.
//!
//! The reference is the start of a program that does nothing: what any command costs on this machine at this moment.

use crate::reference;
use crate::subject::Subject;
use crate::table::{Figure, Goal, Table, Unit};
use crate::{Bench, Result};

/// Measures.
pub fn measure(bench: &Bench) -> Result<Vec<Table>> {
    let programs: [(&str, &[&str]); 2] = [
        ("sleep", &["sleep", "1000000"]),
        ("python3", &["python3", "-S", "-c", "import time; time.sleep(1000000)"]),
    ];
    let mut figures = Vec::new();
    for (name, words) in programs {
        for tool in &bench.tools {
            eprintln!("idle: {} of {name}", tool.name());
            let mut samples: [Vec<f64>; 4] = Default::default();
            let [sizes, checkpoints, restarts, spawns] = &mut samples;
            let subject = Subject::idle(words, &bench.tmpfs)?;
            // Short runs: many of them are cheap.
            for _ in 0..bench.rounds * 5 {
                spawns.push(reference::spawn()? as f64);
                let image = bench.tmpfs.fresh("image")?;
                checkpoints.push(tool.checkpoint(subject.root(), &image, true)?.took_ns as f64);
                subject.wait_gone()?;
                sizes.push(tool.size(&image)? as f64);
                restarts.push(tool.restart(&image)?.took_ns as f64);
            }
            subject.end()?;
            let [sizes, checkpoints, restarts, spawns] = samples;
            // The goals are for the least there is; python3 is there to compare.
            let goal = |goal| (name == "sleep").then_some(Goal::Value(goal));
            let time = |what: &str, samples| Figure {
                name: format!("{name}, {}: {what}", tool.name()),
                samples,
                reference: Some(("start of `true`", spawns.clone())),
                unit: Unit::Time,
                goal: goal(10e6),
            };
            figures.push(time("checkpoint --kill", checkpoints));
            figures.push(time("restart --detach", restarts));
            figures.push(Figure {
                name: format!("{name}, {}: image", tool.name()),
                samples: sizes,
                reference: None,
                unit: Unit::Size,
                goal: goal(300.0 * 1024.0),
            });
        }
    }
    Ok(vec![Table::of("An idle process", &figures)])
}
