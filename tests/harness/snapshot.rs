//! Everything `/proc` shows of a stopped tree, as text facts by name (man 5 proc).
//!
//! A fact's name is `PID FILE FIELD`, or `PID/TID FILE FIELD` for a thread's own. Numbers that only name something
//! (a pipe's inode, a shared memory's, a deleted file's) are replaced by what they tell: which is the same as which other. Neighbouring
//! areas of equal kind are one area here: the kernel may merge them, and a program can't tell.
//!
//! Not looked at, because it shows no state but a moment or the machine: `stack`, `syscall`, `wchan`, `sched`,
//! `schedstat`, `io`, `arch_status`, `pagemap` (its bits are physical), `mountinfo` and the like (the namespace's inode
//! says the same), the counters of `smaps`.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use crate::process::{descendants, is_stopped};
use crate::wait::until;

/// Facts about a tree.
#[derive(Debug, Clone)]
pub struct Snapshot {
    /// The root's pid.
    pub root: i32,
    /// What is known, by name.
    pub facts: BTreeMap<String, String>,
}

/// Gives names to inode numbers in the order in which they come up.
#[derive(Debug, Default)]
struct Names {
    known: BTreeMap<String, String>,
}

impl Names {
    fn name(&mut self, what: &str, number: &str) -> String {
        let count = self.known.len();
        self.known.entry(format!("{what} {number}")).or_insert_with(|| format!("{what} #{count}")).clone()
    }
}

/// One area of a memory map.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Area {
    start: u64,
    end: u64,
    permissions: String,
    offset: u64,
    backing: String,
    flags: String,
}

impl Area {
    /// Whether the other one goes on where this one ends, with nothing else different.
    fn goes_on_in(&self, next: &Area) -> bool {
        let offset_goes_on = self.backing.is_empty() || self.offset + (self.end - self.start) == next.offset;
        self.end == next.start
            && offset_goes_on
            && self.permissions == next.permissions
            && self.backing == next.backing
            && self.flags == next.flags
    }
}

/// What `status` still shows of a zombie, and nobody can use any more: its parent fetches the exit status and the times.
const OF_THE_LIVING: &[&str] =
    &["Sig", "ShdPnd", "Cpus_allowed", "Mems_allowed", "Cap", "Seccomp", "NoNewPrivs", "Speculation"];

impl Snapshot {
    /// Looks at a process and all its descendants, once all of them are stopped: a thread that runs stops when it is
    /// next interrupted.
    pub fn of_stopped(root: i32) -> Snapshot {
        until("every thread of the tree is stopped", || is_stopped(root));
        Snapshot::of(root)
    }

    /// Looks at a process and all its descendants.
    fn of(root: i32) -> Snapshot {
        let mut snapshot = Snapshot { root, facts: BTreeMap::new() };
        let mut names = Names::default();
        for pid in descendants(root) {
            snapshot.process(pid, &mut names);
        }
        snapshot
    }

    fn fact(&mut self, name: String, value: impl Into<String>) {
        self.facts.insert(name, value.into());
    }

    fn process(&mut self, pid: i32, names: &mut Names) {
        let directory = format!("/proc/{pid}");
        let directory = Path::new(&directory);
        for file in [
            "comm",
            "cmdline",
            "environ",
            "auxv",
            "personality",
            "oom_score_adj",
            "coredump_filter",
            "loginuid",
            "sessionid",
            "timerslack_ns",
            "cgroup",
            "cpuset",
            "uid_map",
            "gid_map",
            "setgroups",
            "limits",
            "timers",
        ] {
            // An unreadable file is a fact too: its error must be the same before and after.
            let text = match std::fs::read(directory.join(file)) {
                Ok(bytes) => bytes.escape_ascii().to_string(),
                Err(e) => format!("{:?}", e.kind()),
            };
            for (i, line) in text.split("\\n").enumerate().filter(|(_, l)| !l.is_empty()) {
                self.fact(format!("{pid} {file} {i}"), line);
            }
        }
        for link in ["exe", "cwd", "root"] {
            self.fact(format!("{pid} {link}"), link_text(&directory.join(link)));
        }
        for entry in listing(&directory.join("ns")) {
            self.fact(format!("{pid} ns {entry}"), link_text(&directory.join("ns").join(&entry)));
        }
        self.descriptors(pid, directory, names);
        self.areas(pid, directory, names);
        let mut threads = listing(&directory.join("task"));
        threads.sort_by_key(|t| t.parse::<i32>().unwrap_or(0));
        for thread in threads {
            self.thread(pid, &thread, &directory.join("task").join(&thread));
        }
    }

    fn thread(&mut self, pid: i32, thread: &str, directory: &Path) {
        let read = |file: &str| std::fs::read_to_string(directory.join(file)).unwrap_or_default();
        self.fact(format!("{pid}/{thread} comm"), read("comm").trim_end());
        self.fact(format!("{pid}/{thread} children"), read("children").trim_end());
        let status = read("status");
        let zombie = status.lines().any(|l| l.starts_with("State:\tZ"));
        for line in status.lines() {
            let (field, value) = line.split_once(':').unwrap_or((line, ""));
            if zombie && OF_THE_LIVING.iter().any(|f| field.starts_with(f)) {
                continue;
            }
            let value = value.split_whitespace().collect::<Vec<_>>().join(" ");
            self.fact(format!("{pid}/{thread} status {field}"), value);
        }
        let stat = read("stat");
        let numbers = stat.rfind(')').map_or("", |at| &stat[at + 1..]);
        // 31 to 34 are the signals again.
        let shown = |i: &usize| !zombie || !(31..=34).contains(&(i + 3));
        for (i, value) in numbers.split_whitespace().enumerate().filter(|(i, _)| shown(i)) {
            self.fact(format!("{pid}/{thread} stat {}", i + 3), value);
        }
    }

    fn descriptors(&mut self, pid: i32, directory: &Path, names: &mut Names) {
        let mut numbers = listing(&directory.join("fd"));
        numbers.sort_by_key(|n| n.parse::<i32>().unwrap_or(0));
        for number in numbers {
            let link = link_text(&directory.join("fd").join(&number));
            let anonymous = link.strip_prefix("pipe:[").and_then(|l| l.strip_suffix(']'));
            let mut shown = anonymous.map_or_else(|| link.clone(), |inode| names.name("pipe", inode));
            // A file that has no name shows the one that it had. A memfd keeps its own.
            let mut nameless = false;
            if link.ends_with(" (deleted)")
                && let Ok(now) = std::fs::metadata(directory.join("fd").join(&number))
                && now.nlink() == 0
            {
                nameless = true;
                // As `maps` shows it.
                let (major, minor) = (now.dev() >> 8 & 0xfff, now.dev() & 0xff | now.dev() >> 12 & 0xfff00);
                let identity = format!("{major:02x}:{minor:02x} {}", now.ino());
                let name = names.name("inode without a name", &identity);
                shown = if link.starts_with("/memfd:") { format!("{link} {name}") } else { name };
            }
            self.fact(format!("{pid} fd {number}"), shown);
            // proc numbers its inodes as they are asked for.
            let unnumbered = anonymous.is_some() || nameless || link.starts_with("/proc/");
            let info = std::fs::read_to_string(directory.join("fdinfo").join(&number)).unwrap_or_default();
            for line in info.lines() {
                let (field, value) = line.split_once(':').unwrap_or((line, ""));
                if field == "tfd" {
                    // An epoll's entries stand in the order of kernel addresses; what they watch is shown by itself.
                    let (entry, _) = value.split_once("pos:").unwrap_or((value, ""));
                    let words: Vec<&str> = entry.split_whitespace().collect();
                    self.fact(format!("{pid} fdinfo {number} tfd {}", words.join(" ")), "");
                    continue;
                }
                if field == "inotify wd" {
                    let (watch, what) = value.split_once(' ').unwrap_or((value, ""));
                    self.fact(format!("{pid} fdinfo {number} watch {watch}"), what);
                    continue;
                }
                if field != "ino" || !unnumbered {
                    self.fact(format!("{pid} fdinfo {number} {field}"), value.trim());
                }
            }
        }
    }

    fn areas(&mut self, pid: i32, directory: &Path, names: &mut Names) {
        let text = std::fs::read(directory.join("smaps")).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let mut areas: Vec<Area> = Vec::new();
        for line in text.lines() {
            if let Some(flags) = line.strip_prefix("VmFlags:") {
                if let Some(area) = areas.last_mut() {
                    let flags = flags.trim();
                    // Without `mw` it says only by which descriptor a mapping was made that can't be written anyhow.
                    area.flags =
                        if flags.contains("mw") { flags.to_owned() } else { flags.replace("sh ", "") };
                }
            } else if let Some(area) = parse_area(line, names) {
                areas.push(area);
            }
        }
        let mut merged: Vec<Area> = Vec::new();
        for area in areas {
            match merged.last_mut() {
                Some(last) if last.goes_on_in(&area) => last.end = area.end,
                _ => merged.push(area),
            }
        }
        for a in merged {
            let name = format!("{pid} maps {:012x}-{:012x}", a.start, a.end);
            self.fact(name, format!("{} {:x} {} [{}]", a.permissions, a.offset, a.backing, a.flags));
        }
    }
}

/// An area's first line, as in `maps`; none if the line isn't one.
fn parse_area(line: &str, names: &mut Names) -> Option<Area> {
    let mut words = line.split_whitespace();
    let (start, end) = words.next()?.split_once('-')?;
    let (start, end) = (u64::from_str_radix(start, 16).ok()?, u64::from_str_radix(end, 16).ok()?);
    let permissions = words.next()?.to_owned();
    let offset = u64::from_str_radix(words.next()?, 16).ok()?;
    let (device, inode) = (words.next()?, words.next()?);
    let path = words.collect::<Vec<_>>().join(" ");
    let shared_memory = permissions.ends_with('s') && path == "/dev/zero (deleted)";
    let identity = format!("{device} {inode}");
    let backing = match inode {
        "0" => path,
        _ if shared_memory => names.name("shared memory", &identity),
        // Its name is gone, if it had one (a memfd never does), and so is its inode once the tree is.
        _ if path.ends_with(" (deleted)") => names.name("inode without a name", &identity),
        _ => format!("{identity} {path}"),
    };
    let offset = if backing.is_empty() { 0 } else { offset };
    Some(Area { start, end, permissions, offset, backing, flags: String::new() })
}

fn listing(directory: &Path) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(directory) else { return Vec::new() };
    let mut names: Vec<_> =
        entries.filter_map(|e| Some(e.ok()?.file_name().to_string_lossy().into_owned())).collect();
    names.sort();
    names
}

fn link_text(path: &Path) -> String {
    std::fs::read_link(path).map_or_else(|e| format!("{:?}", e.kind()), |p| p.to_string_lossy().into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_of_one_kind_are_one_area() {
        let mut names = Names::default();
        let first = parse_area("1000-2000 rw-p 00000000 00:00 0", &mut names).unwrap();
        let second = parse_area("2000-3000 rw-p 00000000 00:00 0", &mut names).unwrap();
        let third = parse_area("3000-4000 r--p 00000000 00:00 0", &mut names).unwrap();
        assert!(first.goes_on_in(&second));
        assert!(!second.goes_on_in(&third));
        assert!(!first.goes_on_in(&third));
        assert!(parse_area("Rss:     4 kB", &mut names).is_none());
    }

    #[test]
    fn shared_memory_is_named_by_who_shares_it() {
        let mut names = Names::default();
        let text = "1000-2000 rw-s 00000000 00:01 77                        /dev/zero (deleted)";
        let one = parse_area(text, &mut names).unwrap();
        let same = parse_area(&text.replace("1000-2000", "8000-9000"), &mut names).unwrap();
        let other = parse_area(&text.replace("77", "78"), &mut names).unwrap();
        assert_eq!(one.backing, same.backing);
        assert_ne!(one.backing, other.backing);
    }

    #[test]
    fn this_process_is_seen() {
        let me = std::process::id() as i32;
        let snapshot = Snapshot::of(me);
        assert!(snapshot.facts.contains_key(&format!("{me} exe")));
        assert!(snapshot.facts.keys().any(|k| k.starts_with(&format!("{me} maps "))));
        assert_eq!(snapshot.facts[&format!("{me}/{me} status Pid")], me.to_string());
    }
}
