//! Pipes of living processes: what is in them, buffer by buffer, who is at their ends, and what comes out after a restart.

use std::process::Stdio;

use super::super::rig::{
    Revived, Sleeper, accepted, assert_same_after_restart, codes, is_alone, look, said, through_an_image,
};
use super::*;
use crate::resource::file::Files;
use crate::resource::memory::MappedFiles;
use bardo_kernel::pidfd;

/// Two processes, one with the reading end as 0, one with the writing end as 1; nobody else has any.
fn pair(made: pipe::Pipe) -> (Sleeper, Sleeper) {
    let reader = Sleeper::new("", [Stdio::from(made.read), Stdio::null(), Stdio::null()]);
    let writer = Sleeper::new("", [Stdio::null(), Stdio::from(made.write), Stdio::null()]);
    (reader, writer)
}

fn pipe_record(files: &Files) -> PipeRecord {
    let (_, _, body) = files.records().iter().find(|(kind, _, _)| *kind == NAME).unwrap();
    body.deserialized().unwrap()
}

fn write(made: &pipe::Pipe, len: usize, start: u8) {
    let bytes: Vec<u8> = (0..len).map(|i| start.wrapping_add(i as u8)).collect();
    assert_eq!(fs::write(made.write.as_fd(), &bytes).unwrap(), len);
}

/// Reads what a process can read from its descriptor 0, which must end, or have no writer waiting.
fn drain(pid: i32) -> Vec<u8> {
    let pidfd = pidfd::open(pid).unwrap();
    let fd = pidfd::getfd(pidfd.as_fd(), 0).unwrap();
    let mut bytes = vec![0; pipe::readable(fd.as_fd()).unwrap()];
    let mut at = 0;
    while at < bytes.len() {
        at += fs::read(fd.as_fd(), &mut bytes[at..]).unwrap();
    }
    bytes
}

#[test]
fn data_comes_back_in_order_and_the_original_keeps_it() {
    if !is_alone() {
        return;
    }
    let made = pipe::make(0).unwrap();
    pipe::set_capacity(made.write.as_fd(), 1 << 18).unwrap();
    write(&made, 100_000, 3);
    let mut eaten = [0; 777];
    fs::read(made.read.as_fd(), &mut eaten).unwrap();
    let (reader, writer) = pair(made);
    let subjects = [&reader.subject, &writer.subject];
    let record = pipe_record(&accepted(&subjects));
    assert_eq!((record.capacity, record.buffers[0], record.buffers.len()), (1 << 18, 4096 - 777, 25));
    let revived = assert_same_after_restart(&subjects);
    let expected: Vec<u8> = (777..100_000).map(|i| 3u8.wrapping_add(i as u8)).collect();
    assert_eq!(drain(revived.pids[0]), expected);
    assert_eq!(drain(reader.pid()), expected, "the tree's own pipe was touched");
}

#[test]
fn small_buffers_stay_apart_and_a_full_pipe_stays_full() {
    if !is_alone() {
        return;
    }
    let made = pipe::make(libc::O_NONBLOCK).unwrap();
    pipe::set_capacity(made.write.as_fd(), 4 * PAGE).unwrap();
    // Half read, so that the next fits behind it by its length, but not at its place.
    write(&made, 4000, 0);
    fs::read(made.read.as_fd(), &mut [0; 3000]).unwrap();
    write(&made, 500, 10);
    write(&made, 4000, 20);
    write(&made, 3000, 30);
    // Its odd part, 2000 bytes, finds no room behind 3000.
    assert!(fs::write(made.write.as_fd(), &[0; 6096]).unwrap_err().is(libc::EAGAIN));
    let (reader, writer) = pair(made);
    let subjects = [&reader.subject, &writer.subject];
    assert_eq!(pipe_record(&accepted(&subjects)).buffers, [1000, 500, 4000, 3000]);
    let revived = assert_same_after_restart(&subjects);
    let pidfd = pidfd::open(revived.pids[1]).unwrap();
    let fd = pidfd::getfd(pidfd.as_fd(), 1).unwrap();
    assert!(fs::write(fd.as_fd(), &[0; 6096]).unwrap_err().is(libc::EAGAIN), "it has become emptier");
    assert_eq!(drain(revived.pids[0]), drain(reader.pid()));
}

#[test]
fn packets_stay_packets() {
    if !is_alone() {
        return;
    }
    let made = pipe::make(libc::O_DIRECT).unwrap();
    for len in [1, 100, 4096, 1, 2] {
        write(&made, len, 1);
    }
    let (reader, writer) = pair(made);
    let subjects = [&reader.subject, &writer.subject];
    assert_eq!(pipe_record(&accepted(&subjects)).buffers, [-1, -100, -4096, -1, -2]);
    let revived = assert_same_after_restart(&subjects);
    let pidfd = pidfd::open(revived.pids[0]).unwrap();
    let fd = pidfd::getfd(pidfd.as_fd(), 0).unwrap();
    let lens: Vec<usize> = (0..5).map(|_| fs::read(fd.as_fd(), &mut [0; 9000]).unwrap()).collect();
    assert_eq!(lens, [1, 100, 4096, 1, 2]);
}

#[test]
fn packets_among_plain_data_are_told_apart() {
    if !is_alone() {
        return;
    }
    let made = pipe::make(0).unwrap();
    let packets = |on: bool| {
        fcntl::set_status_flags(made.write.as_fd(), if on { libc::O_DIRECT } else { 0 }).unwrap();
    };
    write(&made, 3000, 1);
    packets(true);
    // 2000 don't fit behind 3000.
    write(&made, 2000, 2);
    packets(false);
    write(&made, 1, 3);
    packets(true);
    write(&made, 4096, 4);
    packets(false);
    let (reader, writer) = pair(made);
    let subjects = [&reader.subject, &writer.subject];
    assert_eq!(pipe_record(&accepted(&subjects)).buffers, [3000, -2000, 1, -4096]);
    assert_same_after_restart(&subjects);
}

#[test]
fn half_closed_pipes_stay_half_closed() {
    if !is_alone() {
        return;
    }
    let made = pipe::make(0).unwrap();
    write(&made, 10, 5);
    let no_reader = pipe::make(0).unwrap();
    let stdio = [Stdio::from(made.read), Stdio::from(no_reader.write), Stdio::null()];
    drop((made.write, no_reader.read));
    let sleeper = Sleeper::new("", stdio);
    let files = accepted(&[&sleeper.subject]);
    assert_eq!(files.externals(), &[] as &[String], "nobody outside has an end");
    let revived = assert_same_after_restart(&[&sleeper.subject]);
    let pidfd = pidfd::open(revived.pids[0]).unwrap();
    let (read, write) = (pidfd::getfd(pidfd.as_fd(), 0).unwrap(), pidfd::getfd(pidfd.as_fd(), 1).unwrap());
    assert_eq!(poll::now(read.as_fd(), libc::POLLIN).unwrap(), libc::POLLIN | libc::POLLHUP);
    assert_eq!(poll::now(write.as_fd(), 0).unwrap(), libc::POLLERR);
    let mut bytes = [0; 20];
    assert_eq!(fs::read(read.as_fd(), &mut bytes).unwrap(), 10);
    assert_eq!(fs::read(read.as_fd(), &mut bytes).unwrap(), 0);
}

#[test]
fn more_openings_of_an_end_keep_their_own_flags() {
    if !is_alone() {
        return;
    }
    let made = pipe::make(0).unwrap();
    let both = [Stdio::from(made.read), Stdio::from(made.write), Stdio::null()];
    let sleeper = Sleeper::new("exec 4</proc/self/fd/0 5>/proc/self/fd/1 6<>/proc/self/fd/0 7<&4", both);
    assert_eq!(accepted(&[&sleeper.subject]).open_files(), 6);
    // The open file that 4 and 7 share, but not 0.
    let pidfd = pidfd::open(sleeper.pid()).unwrap();
    let four = pidfd::getfd(pidfd.as_fd(), 4).unwrap();
    fcntl::set_status_flags(four.as_fd(), libc::O_NONBLOCK).unwrap();
    assert_same_after_restart(&[&sleeper.subject]);
}

#[test]
fn the_other_end_outside_is_external_as_stdio_and_refused_else() {
    if !is_alone() {
        return;
    }
    let made = pipe::make(0).unwrap();
    let end = Stdio::from(made.read.try_clone().unwrap());
    let sleeper = Sleeper::new("", [end, Stdio::null(), Stdio::null()]);
    assert_eq!(accepted(&[&sleeper.subject]).externals().len(), 1);
    drop(sleeper);
    let end = Stdio::from(made.read.try_clone().unwrap());
    let sleeper = Sleeper::new("exec 6<&0 0</dev/null", [end, Stdio::null(), Stdio::null()]);
    assert_eq!(codes(&sleeper), [(6, "pipe/outside")]);
    let name = format!("pipe:[{}]", fs::fstat(made.read.as_fd()).unwrap().ino);
    let (files, refusals) = look(&[&sleeper.subject], &[&name]);
    assert_eq!((refusals, files.externals()), (vec![], &[name.clone()][..]));
    let image = through_an_image(&files);
    let unconnected = image.check(crate::restart::Files::MustMatch, &[]);
    assert_eq!(unconnected[0].code, "external/unconnected");
    Revived::new(&image, &[sleeper.subject.own_pid], &[&format!("{name}=/dev/null")]);
}

#[test]
fn a_pipe_that_somebody_outside_has_too_is_a_leak() {
    if !is_alone() {
        return;
    }
    let made = pipe::make(0).unwrap();
    let (read, write) = (made.read.try_clone().unwrap(), made.write.try_clone().unwrap());
    let outsider = Sleeper::new("", [Stdio::from(read), Stdio::null(), Stdio::null()]);
    let name = format!("pipe:[{}]", fs::fstat(made.read.as_fd()).unwrap().ino);
    let sleeper = Sleeper::new("", [Stdio::from(made.read), Stdio::from(write), Stdio::null()]);
    drop(made.write);
    assert_eq!(codes(&sleeper), [(0, "pipe/leak")]);
    let (_, refusals) = look(&[&sleeper.subject], &[]);
    assert!(refusals[0].what.contains(&outsider.subject.who.to_string()), "{}", refusals[0].what);
    let (vouched, refusals) = look(&[&sleeper.subject], &[&name]);
    assert_eq!(refusals, []);
    drop(outsider);
    assert_eq!(said(&accepted(&[&sleeper.subject])), said(&vouched));
}

#[test]
fn hostile_pipes_are_errors() {
    if !is_alone() {
        return;
    }
    use bardo_image::Value;
    let record = |kind: &str, body: Vec<(&str, Value)>| Record {
        kind: kind.into(),
        id: 1,
        body: Value::Map(body.into_iter().map(|(name, value)| (name.into(), value)).collect()),
        extra: Default::default(),
        at: 0,
        frame: 0,
    };
    let pipe = |capacity: i64, buffers: &[i64]| {
        let buffers = Value::Array(buffers.iter().map(|b| Value::from(*b)).collect());
        record(NAME, vec![("capacity", capacity.into()), ("buffers", buffers)])
    };
    let data = |len: usize| record(DATA, vec![("data", Value::Bytes(vec![0; len]))]);
    let end = |flags: i32| record(END, vec![("pipe", 1.into()), ("flags", flags.into())]);
    for wrong in [
        vec![pipe(0, &[])],
        vec![pipe(1 << 40, &[])],
        vec![pipe(4096, &[4096, 1])],
        vec![pipe(65536, &[0])],
        vec![pipe(65536, &[-4097])],
        vec![pipe(65536, &[i64::MIN])],
        vec![pipe(65536, &[i64::MAX, i64::MAX])],
        vec![pipe(4096, &[]), pipe(4096, &[])],
        vec![data(1)],
        vec![pipe(4096, &[10]), data(11)],
        vec![pipe(4096, &[10]), data(6), data(5)],
        vec![pipe(4096, &[]), end(libc::O_ACCMODE)],
        vec![pipe(4096, &[]), end(libc::O_CREAT)],
    ] {
        let mut image = FilesImage::default();
        let (last, first) = wrong.split_last().unwrap();
        first.iter().for_each(|record| assert!(image.take(record).unwrap()));
        let failed = image.take(last);
        assert!(matches!(failed, Err(Error::Image(_))), "{wrong:?}: {failed:?}");
    }
    // Content that is missing, a capacity nobody may have, and more buffers than there is room for, are found later.
    let check = |records: &[Record]| {
        let mut image = FilesImage::default();
        records.iter().for_each(|record| assert!(image.take(record).unwrap()));
        (
            image.check(crate::restart::Files::MustMatch, &[]).first().map(|r| r.code),
            image.open_all(&[], &MappedFiles::default(), 100).is_ok(),
        )
    };
    assert_eq!(check(&[pipe(4096, &[10]), end(0)]), (Some("pipe/incomplete"), false));
    assert_eq!(check(&[pipe(1 << 31, &[]), end(0)]), (Some("pipe/size"), false));
    assert!(!check(&[pipe(4096, &[-10, -10]), data(20), end(0)]).1);
    assert_eq!(check(&[pipe(4096, &[10]), data(10), end(0)]), (None, true));
}
