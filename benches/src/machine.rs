//! Where the figures come from: a sentence on the machine.

use crate::Bench;

/// Processors, memory, kernel, file systems.
pub fn describe(bench: &Bench) -> String {
    let processor = field("/proc/cpuinfo", "model name").unwrap_or_else(|| "unknown processor".into());
    let count = std::thread::available_parallelism().map_or(1, |n| n.get());
    let kib = field("/proc/meminfo", "MemTotal").and_then(|m| m.split(' ').next()?.parse::<u64>().ok());
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    format!(
        "{count} × {processor}, {} GiB, Linux {}; {} in memory, {} on disk; {} rounds; bardo {}.",
        kib.unwrap_or(0).div_ceil(1 << 20),
        kernel.trim(),
        bench.tmpfs.kind(),
        bench.disk.kind(),
        bench.rounds,
        env!("CARGO_PKG_VERSION"),
    )
}

fn field(file: &str, name: &str) -> Option<String> {
    let text = std::fs::read_to_string(file).ok()?;
    let line = text.lines().find(|line| line.starts_with(name))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}
