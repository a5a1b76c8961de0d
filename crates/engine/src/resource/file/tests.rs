//! Descriptors of living processes, surveyed, written into an image, read back, and put into a new process by real steps;
//! then the new process is surveyed as the old one was, and both must say the same.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Seek, SeekFrom, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};

use bardo_image::{Record, Value};
use bardo_kernel::{fcntl, fs, pidfd};

use super::rig::{
    Dir, Sleeper, accepted, assert_same_after_restart, codes, is_alone, look, through_an_image,
};
use super::*;
use crate::error::Error;
use crate::resource::memory::MappedFiles;

#[test]
fn files_of_every_kind_come_back_in_every_place() {
    if !is_alone() {
        return;
    }
    let dir = Dir::new();
    let (one, two) = (dir.file("one", b"0123456789"), dir.file("two words", b""));
    let home = dir.0.to_str().unwrap();
    let sleeper = Sleeper::quiet(&format!(
        "exec 3<{one} 4<>{one} 5>>'{two}' 6<{home} 7<&3 8</dev/zero 9>/dev/full; read -r x <&4 || true; exec 2>&4"
    ));
    let files = accepted(&[&sleeper.subject]);
    assert_eq!((files.descriptors(), files.open_files()), (10, 8));
    assert_eq!(files.externals(), &[] as &[String]);
    let stat = fs::stat(&one).unwrap();
    assert_eq!(files.holds(stat.dev, stat.ino).unwrap().0.pid, sleeper.pid());
    assert_eq!(files.holds(stat.dev, u64::MAX), None);
    let revived = assert_same_after_restart(&[&sleeper.subject]);
    // The offset that `read` left, and that 2 shares with 4.
    let pidfd = pidfd::open(revived.pids[0]).unwrap();
    let mut four = File::from(pidfd::getfd(pidfd.as_fd(), 4).unwrap());
    assert_eq!(four.stream_position().unwrap(), 10);
    four.seek(SeekFrom::Start(3)).unwrap();
    let mut two = File::from(pidfd::getfd(pidfd.as_fd(), 2).unwrap());
    assert_eq!(two.stream_position().unwrap(), 3);
}

#[test]
fn what_relatives_share_they_share_again() {
    if !is_alone() {
        return;
    }
    let dir = Dir::new();
    let shared = File::open(dir.file("shared", b"content")).unwrap();
    let end = || Stdio::from(shared.try_clone().unwrap());
    let own = format!("exec 5<{}", dir.0.join("shared").display());
    let one = Sleeper::new(&own, [end(), Stdio::null(), Stdio::null()]);
    let two = Sleeper::new(&own, [Stdio::null(), end(), end()]);
    let subjects = [&one.subject, &two.subject];
    assert_eq!(accepted(&subjects).open_files(), 1 + 2 * 2 + 1);
    assert_same_after_restart(&subjects);
}

#[test]
fn a_process_without_descriptors_and_one_with_many() {
    if !is_alone() {
        return;
    }
    let dir = Dir::new();
    let path = dir.file("many", b"x");
    let none = Sleeper::quiet("exec <&- >&- 2>&-");
    let mut redirections = String::new();
    for fd in 3..10 {
        redirections += &format!("exec {fd}<{path}\n");
    }
    let many = Sleeper::quiet(&redirections);
    assert_same_after_restart(&[&none.subject, &many.subject]);
}

#[test]
fn steps_fit_and_leave_nothing_else_open() {
    if !is_alone() {
        return;
    }
    let dir = Dir::new();
    let sleeper = Sleeper::quiet(&format!("exec 4<{} 9<&4", dir.file("x", b"")));
    let image = through_an_image(&accepted(&[&sleeper.subject]));
    let pool = image.open_all(&[], &MappedFiles::default(), 100).unwrap();
    assert!(image.open_all(&[], &MappedFiles::default(), 9).is_err(), "a base within the tables");
    let lines: Vec<String> = image.steps(sleeper.subject.own_pid, &pool, 4096)[0].lines().collect();
    let closes: Vec<&str> =
        lines.iter().map(String::as_str).filter(|l| l.starts_with("close_range")).collect();
    assert_eq!(closes, ["close_range(3, 3)", "close_range(5, 8)", "close_range(10, 0xffffffff)"]);
    let lines: Vec<String> = image.steps(0, &pool, 4096)[0].lines().collect();
    assert_eq!(lines, ["close_range(0, 0xffffffff)"]);
    let small = image.steps(sleeper.subject.own_pid, &pool, 300);
    assert!(small.len() > 2 && small.iter().all(|batch| batch.room() <= 300));
    assert!(pool.len() == image.open_files() && !pool.is_empty());
}

#[test]
fn changes_since_are_reported_before_anything_is_made() {
    if !is_alone() {
        return;
    }
    let dir = Dir::new();
    let (path, other, gone) = (dir.file("path", b"1"), dir.file("other", b"2"), dir.file("gone", b"3"));
    let sleeper = Sleeper::quiet(&format!("exec 3<{path} 4>>{other} 5<{gone} 6<{}", dir.0.display()));
    let image = through_an_image(&accepted(&[&sleeper.subject]));
    File::options().append(true).open(&path).unwrap().write_all(b"more").unwrap();
    std::fs::rename(dir.file("new", b"2"), &other).unwrap();
    std::fs::remove_file(&gone).unwrap();
    let codes = |policy| -> Vec<(i32, &'static str)> {
        image.check(policy, &[]).iter().map(|r| (r.fd.unwrap(), r.code)).collect()
    };
    let all = [(3, "file/changed"), (4, "file/changed"), (5, "file/missing")];
    assert_eq!(codes(restart::Files::MustMatch), all);
    assert_eq!(codes(restart::Files::IgnoreChanges), all[2..]);
    let what = &image.check(restart::Files::MustMatch, &[])[0].what;
    assert!(what.contains("size 1 → 5") && what.contains("descriptor 3 of process"), "{what}");
    std::fs::create_dir(&gone).unwrap();
    assert_eq!(codes(restart::Files::IgnoreChanges), all[2..], "a directory in a file's place");
}

#[test]
fn what_cannot_be_saved_is_refused_by_name() {
    if !is_alone() {
        return;
    }
    let dir = Dir::new();
    let path = dir.file("path", b"x");
    let fifo = dir.0.join("fifo");
    assert!(Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    let sleeper =
        Sleeper::quiet(&format!("exec 4</proc/1/status 5<>{} 6<>/dev/ptmx 7</proc/self", fifo.display()));
    let expected = [(4, "file/proc"), (6, "terminal/master")];
    assert_eq!(codes(&sleeper), expected);

    // What a shell can't open comes as stdio that isn't the root's.
    let (ours, _theirs) = UnixStream::pair().unwrap();
    let socket = Sleeper::new("", [Stdio::from(OwnedFd::from(ours)), Stdio::null(), Stdio::null()]);
    let root = Sleeper::quiet("");
    let (_, refusals) = look(&[&root.subject, &socket.subject], &[]);
    assert_eq!(refusals.len(), 1);
    assert_eq!((refusals[0].code, refusals[0].fd), ("socket/unix", Some(0)));
    assert!(refusals[0].what.starts_with("Unix stream socket (socket:["), "{}", refusals[0].what);

    let leased = File::open(&path).unwrap();
    fcntl::set_lease(leased.as_fd(), libc::F_RDLCK).unwrap();
    let sleeper = Sleeper::new("", [Stdio::from(leased.try_clone().unwrap()), Stdio::null(), Stdio::null()]);
    // Who takes a lease becomes its owner.
    assert_eq!(codes(&sleeper), [(0, "file/lease"), (0, "file/owner")]);
    fcntl::set_lease(leased.as_fd(), libc::F_UNLCK).unwrap();
    fcntl::set_owner(leased.as_fd(), fcntl::Owner::None).unwrap();
    assert_eq!(codes(&sleeper), []);
    fcntl::set_signal(leased.as_fd(), libc::SIGUSR1).unwrap();
    assert_eq!(codes(&sleeper), [(0, "file/owner")]);
    fcntl::set_signal(leased.as_fd(), 0).unwrap();
    fcntl::set_owner(leased.as_fd(), fcntl::Owner::Process(sleeper.pid())).unwrap();
    assert_eq!(codes(&sleeper), [(0, "file/owner")]);
}

#[test]
fn a_file_whose_name_looks_deleted_is_none() {
    if !is_alone() {
        return;
    }
    let dir = Dir::new();
    let path = dir.file("here (deleted)", b"x");
    let sleeper = Sleeper::quiet(&format!("exec 3<'{path}'"));
    assert_same_after_restart(&[&sleeper.subject]);
    // Another file has the name: the one that is open has none.
    std::fs::rename(dir.file("new", b"x"), &path).unwrap();
    let (kept, refusals) = look(&[&sleeper.subject], &[]);
    assert!(refusals.is_empty() && kept.records().iter().any(|(kind, _, _)| *kind == unlinked::NAME));
    let hard = dir.file("hard", b"x");
    let sleeper = Sleeper::quiet(&format!("exec 3<'{hard}'; ln {hard} {hard}er; rm {hard}"));
    let (kept, refusals) = look(&[&sleeper.subject], &[]);
    assert!(refusals.is_empty() && !kept.records().iter().any(|(kind, _, _)| *kind == unlinked::NAME));
}

#[test]
fn every_code_of_the_table_is_there_once() {
    let all = support();
    let mut names: Vec<&str> = all.iter().map(|line| line.kind).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), all.len());
    assert!(all.iter().all(|line| line.kept.is_empty() == line.workload.is_empty()));
}

fn record(kind: &str, id: u64, body: &[(&str, Value)]) -> Record {
    let fields = body.iter().map(|(name, value)| (Value::from(*name), value.clone())).collect();
    let body = Value::Map(fields);
    Record { kind: kind.into(), id, body, extra: Default::default(), at: 0, frame: 0 }
}

fn entry(fd: i64, file: u64) -> Value {
    Value::Map(vec![("fd".into(), fd.into()), ("file".into(), file.into())])
}

#[test]
fn records_that_say_what_cannot_be_are_errors() {
    let place = |path: &str, flags: i32, mode: u32| {
        let number = |name: &'static str| (name, Value::from(0));
        let path = ("path", Value::Bytes(path.as_bytes().to_vec()));
        let mut all = vec![path, ("flags", flags.into()), ("mode", mode.into())];
        all.extend([number("dev"), number("ino"), number("size"), number("mtime_ns"), number("offset")]);
        all
    };
    let with = |mut fields: Vec<(&'static str, Value)>, name: &'static str, value: Value| {
        fields.retain(|(n, _)| *n != name);
        fields.push((name, value));
        fields
    };
    let regular = place("/x", 0, libc::S_IFREG);
    let device = with(place("/dev/null", 0, libc::S_IFCHR), "major", 1.into());
    let external = |names: &[&str], stdio: &[i64]| {
        vec![
            ("names", Value::Array(names.iter().map(|n| Value::from(*n)).collect())),
            ("was", "pipe".into()),
            ("stdio", Value::Array(stdio.iter().map(|n| Value::from(*n)).collect())),
            ("flags", 0.into()),
        ]
    };
    let eventfd = |count: u64, flags: i32| {
        [("count", Value::from(count)), ("semaphore", true.into()), ("flags", flags.into())]
    };
    let timerfd = |clock: i32, settime_flags: i32| {
        let zero = |name: &'static str| (name, Value::from(0));
        let all = [("clock", clock.into()), ("settime_flags", settime_flags.into()), zero("ticks")];
        [&all[..], &[("remaining_ns", Value::Null), zero("interval_ns"), zero("flags")]].concat()
    };
    let table = |pid: i64, entries: Vec<Value>| {
        record("file/table", 1, &[("pid", pid.into()), ("entries", Value::Array(entries))])
    };
    let wrong = [
        record("file/regular", 2, &place("x", 0, libc::S_IFREG)),
        record("file/regular", 2, &place("/x\0y", 0, libc::S_IFREG)),
        record("file/regular", 2, &place(&"/x".repeat(3000), 0, libc::S_IFREG)),
        record("file/regular", 2, &place("/x", libc::O_TRUNC, libc::S_IFREG)),
        record("file/regular", 2, &place("/x", libc::O_CREAT, libc::S_IFREG)),
        record("file/regular", 2, &place("/x", 0, libc::S_IFIFO)),
        record("file/regular", 2, &with(regular.clone(), "offset", (-1).into())),
        record("file/regular", 2, &regular[1..]),
        record("file/regular", 1, &regular),
        record("file/directory", 2, &regular),
        record("file/path-only", 2, &regular),
        record("file/device", 2, &with(device.clone(), "minor", 1.into())),
        record("file/external", 2, &external(&[], &[])),
        record("file/external", 2, &external(&[""], &[])),
        record("file/external", 2, &external(&["x"], &[3])),
        record("file/external", 2, &external(&["x"], &[0, 0])),
        record("file/pipe-end", 2, &[("pipe", 1.into()), ("flags", 0.into())]),
        record("file/eventfd", 2, &eventfd(u64::MAX, libc::O_RDWR)),
        record("file/eventfd", 2, &eventfd(0, libc::O_RDWR | libc::O_TRUNC)),
        record("file/timerfd", 2, &timerfd(2, 0)),
        record("file/timerfd", 2, &timerfd(1, 4)),
        table(0, vec![]),
        table(1, vec![entry(-1, 1)]),
        table(1, vec![entry(1 << 30, 1)]),
        table(1, vec![entry(3, 1), entry(3, 1)]),
        table(1, vec![entry(3, 7)]),
        record("file/table", 1, &[("pid", 1.into())]),
    ];
    for record in wrong {
        let mut image = FilesImage::default();
        image.take(&self::record("file/regular", 1, &regular)).unwrap();
        let failed = image.take(&record);
        assert!(matches!(failed, Err(Error::Image(_))), "{record:?}: {failed:?}");
    }
    let mut image = FilesImage::default();
    assert!(image.take(&record("file/regular", 1, &regular)).unwrap());
    assert!(image.take(&record("file/device", 2, &with(device, "minor", 3.into()))).unwrap());
    assert!(image.take(&table(1, vec![entry(0, 1), entry(70_000, 2)])).unwrap());
    assert!(image.take(&table(1, vec![entry(70_001, 2)])).unwrap(), "a table in two records");
    assert!(
        matches!(image.take(&table(1, vec![entry(5, 2)])), Err(Error::Image(_))),
        "a second part that goes back"
    );
    assert!(!image.take(&record("memory/space", 1, &[])).unwrap());
    assert_eq!((image.highest_fd(), image.open_files(), image.descriptors()), (70_001, 2, 3));
}

#[test]
fn a_limit_that_is_too_low_is_found_before() {
    if !is_alone() {
        return;
    }
    let mut image = FilesImage::default();
    let null = File::open("/dev/null").unwrap();
    let sleeper = Sleeper::new("", [Stdio::from(null), Stdio::null(), Stdio::null()]);
    for (kind, id, body) in accepted(&[&sleeper.subject]).records() {
        let kind = (*kind).to_owned();
        let record = Record { kind, id: *id, body: body.clone(), extra: Default::default(), at: 0, frame: 0 };
        image.take(&record).unwrap();
    }
    let high = Value::Array(vec![entry(table::FD_MAX.into(), 1)]);
    image.take(&record("file/table", 9, &[("pid", 77.into()), ("entries", high)])).unwrap();
    let codes: Vec<&str> = image.check(restart::Files::MustMatch, &[]).iter().map(|r| r.code).collect();
    assert_eq!(codes, ["file/limit"]);
}

#[test]
fn a_merge_sort_joins_what_is_equal() {
    let members: Vec<usize> = (0..1000).collect();
    let classes = scene::unite(members, &|a, b| Ok((a * 7 % 13).cmp(&(b * 7 % 13)))).unwrap();
    assert_eq!(classes.len(), 13);
    let mut of: BTreeMap<usize, usize> = BTreeMap::new();
    for (number, class) in classes.iter().enumerate() {
        assert!(class.is_sorted());
        of.extend(class.iter().map(|member| (*member, number)));
    }
    assert!((0..1000).all(|member| of[&member] == of[&(member % 13)]));
    assert!(scene::unite(vec![1, 2], &|_, _| Err(Error::Bug("x".into()))).is_err());
    assert_eq!(scene::unite(vec![], &|_, _| Err(Error::Bug("x".into()))).unwrap().len(), 0);
}
