//! The family on real processes: a zoo of areas is surveyed, taken, and built anew in a process that the kernel crate's
//! shelf makes; what `/proc` shows of the two, and every byte of their memory, must be the same.

mod hostile;
mod refused;

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use bardo_image::{Frame, Header, Reader, Writer};
use bardo_kernel::mmap::find_hole;
use bardo_kernel::procfs::{self, maps, smaps, stat, status};
use bardo_kernel::ptrace::{Running, Waited};
use bardo_kernel::shelf::{CloneArgs, Layout, Shelf};
use bardo_kernel::stub::{Arg, Batch};
use bardo_kernel::{Failed, Sysno, fs, pidfd, process_vm};

use super::area::{PAGE, USER_MAX, USER_MIN};
use super::restore::{MemoryImage, Site};
use super::{Places, Shared, Space, survey, take};
use crate::error::{Error, Refusal, Who};
use crate::resource::memory::{Commons, Inside};
use crate::restart::Files;
use crate::subject::Subject;
use crate::watch::Silent;

/// A directory that goes when its owner does.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Scratch {
        let dir = std::env::temp_dir().join(format!("bardo-memory-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        Scratch(dir)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A process that is stopped, and killed in the end.
struct Target(Child);

impl Target {
    fn start(command: &mut Command) -> Target {
        let mut target = Target(command.stdout(Stdio::piped()).spawn().unwrap());
        let mut line = String::new();
        BufReader::new(target.0.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n");
        settle(target.pid(), libc::SYS_pause);
        target
    }

    fn pid(&self) -> i32 {
        self.0.id() as i32
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Waits until a process waits in this call, where it changes nothing any more.
fn settle(pid: i32, call: i64) {
    let call = format!("{call} ");
    while !fs::read_text(procfs::path(pid, "syscall")).unwrap().starts_with(&call) {
        std::thread::yield_now();
    }
}

/// A program of ours, compiled.
fn compiled(scratch: &Scratch, name: &str) -> Command {
    let program = scratch.0.join(name);
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("src/resource/memory/tests/{name}.c"));
    let cc = std::env::var("CC").unwrap_or_else(|_| "cc".into());
    assert!(Command::new(cc).arg("-O1").arg("-o").arg(&program).arg(source).status().unwrap().success());
    Command::new(program)
}

fn zoo(scratch: &Scratch, with_child: bool) -> Target {
    let file = scratch.0.join("file");
    std::fs::write(&file, (0..16 * PAGE).map(|n| (n % 251) as u8).collect::<Vec<_>>()).unwrap();
    let mut command = compiled(scratch, "zoo");
    command.arg(file);
    if with_child {
        command.arg("child");
    }
    Target::start(&mut command)
}

/// The process as a survey gets it. It waits in pause(2), which is as good as frozen here.
fn subject(pid: i32) -> Subject {
    let name = procfs::comm(pid).unwrap().to_string_lossy().into_owned();
    Subject {
        who: Who { pid, name },
        own_pid: pid,
        pidfd: pidfd::open(pid).unwrap(),
        mem: Some(process_vm::open_mem(pid, true).unwrap()),
        stat: stat::read(pid).unwrap(),
        status: status::read(pid).unwrap(),
        door: pid,
        tids: vec![pid],
        zombie: false,
    }
}

/// The program break, as far as it shows from outside: the heap's end, to the page.
fn inside(pid: i32) -> Inside {
    let areas = maps::read(pid).unwrap();
    let heap = areas.iter().filter(|a| a.special == Some(maps::Special::Heap)).map(|a| a.end).max();
    Inside { brk: heap.unwrap_or(stat::read(pid).unwrap().start_brk), lock_future: 0, policies: Vec::new() }
}

fn header() -> Header {
    Header::new("test").unwrap()
}

fn image_of(pids: &[i32], refusals: &mut Vec<Refusal>, level: Option<i32>) -> Vec<u8> {
    image_with(pids, refusals, level, |_| {})
}

fn image_with(
    pids: &[i32],
    refusals: &mut Vec<Refusal>,
    level: Option<i32>,
    change: impl FnOnce(&mut Shared),
) -> Vec<u8> {
    let subjects: Vec<Subject> = pids.iter().map(|pid| subject(*pid)).collect();
    let mut shared = Shared::new().unwrap();
    let spaces: Vec<Space> =
        subjects.iter().map(|s| survey(s, inside(s.pid()), &mut shared, refusals).unwrap()).collect();
    let tree: Vec<&Subject> = subjects.iter().collect();
    shared.complete(&tree, refusals).unwrap();
    change(&mut shared);
    let mut image = Writer::begin(Vec::new(), &header()).unwrap();
    shared.write(&mut image).unwrap();
    for space in &spaces {
        space.write(&mut image).unwrap();
    }
    let pairs: Vec<(&Subject, &Space)> = subjects.iter().zip(&spaces).collect();
    take(&pairs, &shared, &Commons::default(), &mut image, level, &Silent).unwrap();
    image.seal().unwrap().0
}

/// Processes in which an image's spaces are built, killed in the end.
struct Built(BTreeMap<u64, i32>, Shelf);

impl Drop for Built {
    fn drop(&mut self) {
        for pid in self.0.values() {
            let fd = pidfd::open(*pid).unwrap();
            pidfd::send_signal(fd.as_fd(), libc::SIGKILL).unwrap();
            pidfd::wait_end(fd.as_fd(), 10_000).unwrap();
        }
    }
}

fn here(space: u64, what: &str) -> impl FnMut() -> bardo_kernel::Result<()> {
    let text = format!("{what} in {space}");
    let mut patience = 2000;
    move || {
        patience -= 1;
        if patience > 0 { Ok(()) } else { Err(Failed::unexpected(text.clone())) }
    }
}

fn build(bytes: &[u8]) -> Result<Built, Error> {
    let mut reader = Reader::open(bytes).map_err(Error::Image)?;
    let mut image = MemoryImage::default();
    let first = loop {
        match reader.next().map_err(Error::Image)? {
            Some(Frame::Record(record)) => assert!(image.take(&record)?, "{}", record.kind),
            Some(Frame::Pages(pages)) => break Some(pages),
            None => break None,
        }
    };
    assert_eq!(image.check(Files::MustMatch)?, []);
    let files = image.open_all(500, Files::MustMatch)?;
    let ids: Vec<u64> = image.spaces().collect();
    let layout = Layout { slots: ids.len(), arena: 16 << 10 };
    let mut taken = image.taken_ranges();
    let ours = maps::read(std::process::id() as i32).unwrap();
    taken.extend(ours.iter().filter(|a| a.start < USER_MAX).map(|a| (a.start, a.end)));
    taken.sort_unstable();
    let len = (layout.len() as u64).next_multiple_of(PAGE);
    let hole = find_hole(&taken, len + PAGE + image.shared_len(), USER_MIN, USER_MAX).unwrap();
    let shared_at = hole + len + PAGE;
    let shelf = Shelf::build(hole, layout).unwrap();
    let mut built = Built(BTreeMap::new(), shelf);
    let shelf = &built.1;
    let keep = [shelf.range()].map(|(start, len)| (start, start + len));
    let fork = || CloneArgs { exit_signal: libc::SIGCHLD as u64, ..CloneArgs::default() };
    let slots: Vec<usize> = (0..ids.len()).collect();
    // The first makes the shared objects, and the others.
    let pid = shelf.seed(0, &fork()).unwrap();
    built.0.insert(ids[0], pid);
    // It still has our libc's area for restartable sequences, which the kernel writes to.
    let running = Running::seize(pid).unwrap();
    running.interrupt().unwrap();
    let Waited::Stopped(stopped) = running.wait().unwrap() else { panic!("the first process is gone") };
    let rseq = stopped.rseq().unwrap();
    stopped.detach(0).unwrap();
    if let Some(rseq) = rseq {
        let mut batch = Batch::new();
        let args = [rseq.address, rseq.size.into(), 1, rseq.signature.into()];
        batch.call(Sysno::rseq, args.map(Arg::Value));
        built.1.run(0, &mut batch, here(0, "rseq")).unwrap();
    }
    let mut clear = MemoryImage::clear_steps(&maps::read(pid).unwrap(), &keep);
    built.1.run(0, &mut clear, here(0, "clearing")).unwrap();
    let mut objects = image.shared_steps(shared_at);
    built.1.run(0, &mut objects, here(0, "shared objects")).unwrap();
    for slot in &slots[1..] {
        let mut batch = Batch::new();
        let step = batch.clone3(&fork(), built.1.open(*slot));
        built.1.run(0, &mut batch, here(0, "forking")).unwrap();
        built.0.insert(ids[*slot], batch.result(step).unwrap() as i32);
    }
    let site = Site { shared_at, may_set_exe: true, room: built.1.room() };
    for slot in &slots {
        let pid = built.0[&ids[*slot]];
        let old = maps::read(pid).unwrap();
        for mut batch in image.map_steps(ids[*slot], &files, site, &old, &keep)? {
            assert!(batch.room() <= site.room);
            built.1.run(*slot, &mut batch, here(ids[*slot], "mapping")).unwrap();
        }
        for mut batch in image.huge_steps(ids[*slot], site.room)? {
            built.1.run(*slot, &mut batch, here(ids[*slot], "huge pages")).unwrap();
        }
    }
    let pids = built.0.iter().map(|(id, pid)| (*id, *pid)).collect();
    let places = Places { pids, shared_pid: built.0[&ids[0]], shared_at };
    image
        .put(first, &mut reader, &places, &files, &Silent, |record| panic!("{} after pages", record.kind))?;
    files.settle()?;
    for slot in &slots {
        for mut batch in image.finish_steps(ids[*slot], &files, site)? {
            assert!(batch.room() <= site.room);
            built.1.run(*slot, &mut batch, here(ids[*slot], "finishing")).unwrap();
        }
    }
    Ok(built)
}

/// An area without what may differ: counts, and inodes of shared anonymous memory.
#[derive(Debug, Clone, PartialEq)]
struct Shown {
    area: maps::Area,
    flags: Vec<String>,
}

fn shown(pid: i32, without: &[(u64, u64)]) -> Vec<Shown> {
    let entries = smaps::read(pid).unwrap();
    let mut shown: Vec<Shown> = entries
        .into_iter()
        .filter(|e| without.iter().all(|(start, end)| e.area.end <= *start || e.area.start >= *end))
        .map(|e| {
            let mut area = e.area;
            if area.deleted {
                // Nameless, and not the same inode.
                (area.inode, area.major, area.minor) = (1, 0, 0);
                area.path = if area.path == "/dev/zero" { area.path } else { "".into() };
            }
            let flags = e.vm_flags.codes().into_iter().filter(|c| *c != "sd").map(String::from).collect();
            Shown { area, flags }
        })
        .collect();
    // Neighbours that differ in nothing are one area or several, as the kernel likes; guard pages in one of several are in
    // the one.
    shown.dedup_by(|next, last| {
        let is_guard = |code: &String| code == "gu";
        let guarded = next.flags.iter().chain(&last.flags).any(is_guard);
        let plain = |s: &Shown| maps::Area { start: 0, end: 0, ..s.area.clone() };
        let flags = |s: &Shown| s.flags.iter().filter(|f| !is_guard(f)).cloned().collect::<Vec<_>>();
        let alike = !next.area.has_file() && flags(next) == flags(last) && plain(next) == plain(last);
        let merge = alike && last.area.end == next.area.start;
        if merge {
            last.flags = flags(last);
            last.flags.extend(guarded.then(|| "gu".into()));
            last.area.end = next.area.end;
        }
        merge
    });
    shown
}

/// All bytes of an area that can be read, page by page; none for a page that can't.
fn content(pid: i32, area: &maps::Area) -> Vec<Option<Vec<u8>>> {
    let mem = process_vm::open_mem(pid, false).unwrap();
    (area.start..area.end)
        .step_by(PAGE as usize)
        .map(|at| {
            let mut page = vec![0; PAGE as usize];
            let n = process_vm::read_mem(mem.as_fd(), at, &mut page).ok()?;
            (n == page.len()).then_some(page)
        })
        .collect()
}

fn compare(old: i32, new: i32, shelf: &[(u64, u64)]) {
    let (before, after) = (shown(old, &[]), shown(new, shelf));
    let differences: Vec<_> = before.iter().zip(&after).filter(|(b, a)| b != a).collect();
    assert!(differences.is_empty(), "{differences:#?}");
    assert_eq!(before.len(), after.len());
    for Shown { area, .. } in before.iter().filter(|s| s.area.special.as_ref().is_none_or(has_content)) {
        // Of a large area only what is there, or a page would be made for each of its holes.
        if area.len() < 64 << 20 {
            assert!(content(old, area) == content(new, area), "{area:?}");
        }
    }
    let (b, a) = (stat::read(old).unwrap(), stat::read(new).unwrap());
    let fields = |s: &stat::Stat| {
        [
            s.start_code,
            s.end_code,
            s.start_data,
            s.end_data,
            s.start_brk,
            s.start_stack,
            s.arg_start,
            s.arg_end,
            s.env_start,
            s.env_end,
        ]
    };
    assert_eq!(fields(&b), fields(&a));
    for name in ["auxv", "cmdline", "environ"] {
        assert_eq!(
            fs::read_all(procfs::path(old, name)).unwrap(),
            fs::read_all(procfs::path(new, name)).unwrap()
        );
    }
    assert_eq!(
        fs::read_link(procfs::path(old, "exe")).unwrap(),
        fs::read_link(procfs::path(new, "exe")).unwrap()
    );
}

fn has_content(special: &maps::Special) -> bool {
    matches!(special, maps::Special::Heap | maps::Special::Stack | maps::Special::Vdso)
}

fn shelf_of(built: &Built) -> [(u64, u64); 1] {
    let (start, len) = built.1.range();
    [(start, start + len)]
}

#[test]
fn a_zoo_of_areas_comes_back_the_same() {
    let scratch = Scratch::new("zoo");
    let target = zoo(&scratch, false);
    for level in [None, Some(1)] {
        let mut refusals = Vec::new();
        let image = image_of(&[target.pid()], &mut refusals, level);
        assert_eq!(refusals, []);
        let built = build(&image).unwrap();
        compare(target.pid(), built.0[&(target.pid() as u64)], &shelf_of(&built));
    }
}

#[test]
fn a_program_that_nobody_here_wrote_comes_back_the_same() {
    let target = Target(Command::new("sleep").arg("1000").spawn().unwrap());
    // Until it has become sleep(1), it is a copy of us.
    settle(target.pid(), libc::SYS_clock_nanosleep);
    let mut refusals = Vec::new();
    let image = image_of(&[target.pid()], &mut refusals, None);
    assert_eq!(refusals, []);
    assert!(image.len() < 300 << 10, "{} bytes", image.len());
    let built = build(&image).unwrap();
    compare(target.pid(), built.0[&(target.pid() as u64)], &shelf_of(&built));
}

/// The zoo, and the child it made.
fn family(scratch: &Scratch) -> (Target, i32) {
    let target = zoo(scratch, true);
    let children = fs::read_text(procfs::thread_path(target.pid(), target.pid(), "children")).unwrap();
    let child = children.trim().parse().unwrap();
    settle(child, libc::SYS_pause);
    (target, child)
}

#[test]
fn relatives_share_memory_again() {
    let scratch = Scratch::new("family");
    let (target, child) = family(&scratch);
    let pids = [target.pid(), child];
    for closed in [false, true] {
        let mut refusals = Vec::new();
        let image = image_with(&pids, &mut refusals, None, |shared| {
            if closed {
                shared.forget_files();
            }
        });
        assert_eq!(refusals, []);
        let built = build(&image).unwrap();
        for pid in pids {
            compare(pid, built.0[&(pid as u64)], &shelf_of(&built));
        }
        // What one writes the other reads, in the new pair as in the old, and the two pairs are apart.
        let new = pids.map(|pid| built.0[&(pid as u64)]);
        let area = maps::read(new[0])
            .unwrap()
            .into_iter()
            .find(|a| a.path == "/dev/zero" && a.perms.write && a.perms.shared);
        let at = area.unwrap().start + 5 * PAGE;
        let range = |len| [process_vm::Range { addr: at, len }];
        process_vm::writev(new[0], &range(5), b"hello").unwrap();
        let read = |pid| {
            let mut bytes = [0; 5];
            process_vm::readv(pid, &range(5), &mut bytes).unwrap();
            bytes
        };
        assert_eq!(&read(new[1]), b"hello");
        assert_ne!(&read(pids[0]), b"hello");
    }
}

#[test]
fn memory_shared_with_an_outsider_is_refused() {
    let scratch = Scratch::new("leak");
    let (target, child) = family(&scratch);
    let mut refusals = Vec::new();
    image_of(&[target.pid()], &mut refusals, None);
    assert!(!refusals.is_empty());
    assert!(
        refusals.iter().all(|r| r.code == "memory/leak" && r.what.contains(&child.to_string())),
        "{refusals:?}"
    );
}
