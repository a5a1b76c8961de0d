//! What can't be saved is refused by name, and what fails while pages are taken says so.

use std::collections::BTreeSet;

use super::*;
use crate::resource::memory::pages::FRAME;

#[test]
fn memory_that_cannot_be_saved_is_refused_by_name() {
    let scratch = Scratch::new("odd");
    let mut command = compiled(&scratch, "odd");
    command.arg(&scratch.0);
    let mut target = Target(command.stdout(Stdio::piped()).spawn().unwrap());
    let mut lines = BufReader::new(target.0.stdout.as_mut().unwrap()).lines();
    let expected = lines.next().unwrap().unwrap();
    assert_eq!(lines.next().unwrap().unwrap(), "ready");

    let subject = subject(target.pid());
    let mut refusals = Vec::new();
    let mut shared = Shared::new().unwrap();
    survey(&subject, inside(target.pid()), &mut shared, &mut refusals).unwrap();
    shared.complete(&[&subject], &mut refusals).unwrap();
    let expected: BTreeSet<&str> = expected.split_whitespace().collect();
    assert!(expected.len() >= 2, "{expected:?}");
    assert_eq!(refusals.iter().map(|r| r.code).collect::<BTreeSet<_>>(), expected, "{refusals:#?}");
    assert!(refusals.iter().all(|r| r.who.as_ref().is_some_and(|w| w.pid == target.pid())));
    // And again the same: the first look has changed nothing.
    let mut again = Vec::new();
    let mut shared = Shared::new().unwrap();
    survey(&subject, inside(target.pid()), &mut shared, &mut again).unwrap();
    shared.complete(&[&subject], &mut again).unwrap();
    assert_eq!(again, refusals);
}

#[test]
fn a_survey_brings_no_page_into_being() {
    let scratch = Scratch::new("untouched");
    let target = zoo(&scratch, false);
    let count = || -> Vec<(u64, u64)> {
        smaps::read(target.pid()).unwrap().iter().map(|e| (e.rss, e.anonymous)).collect()
    };
    let before = count();
    let mut refusals = Vec::new();
    image_of(&[target.pid()], &mut refusals, None);
    assert_eq!(count(), before);
}

/// A sink that takes so many bytes and no more.
struct Small(usize);

impl std::io::Write for Small {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let n = bytes.len().min(self.0);
        self.0 -= n;
        if n == 0 { Err(std::io::Error::from_raw_os_error(libc::ENOSPC)) } else { Ok(n) }
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Somebody who asks to stop.
struct Impatient;

impl crate::watch::Watch for Impatient {
    fn cancelled(&self) -> bool {
        true
    }
}

/// The failure of taking the zoo's pages, in this many bytes, watched so.
fn failure(
    room: usize,
    watch: &dyn crate::watch::Watch,
    before: impl FnOnce(&mut Target),
) -> crate::error::Failure {
    let scratch = Scratch::new(&format!("failure-{room}"));
    let mut target = zoo(&scratch, false);
    let subject = subject(target.pid());
    let mut shared = Shared::new().unwrap();
    let mut refusals = Vec::new();
    let space = survey(&subject, inside(target.pid()), &mut shared, &mut refusals).unwrap();
    shared.complete(&[&subject], &mut refusals).unwrap();
    before(&mut target);
    let mut image = Writer::begin(Small(room), &header()).unwrap();
    match take(&[(&subject, &space)], &shared, &Commons::default(), &mut image, None, watch) {
        Err(Error::Failed(failure)) => failure,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_full_disk_ends_the_taking_with_its_errno() {
    for room in [4096, FRAME, 3 * FRAME + 7] {
        let failure = failure(room, &Silent, |_| {});
        assert!(failure.call.as_ref().is_some_and(|c| c.is(libc::ENOSPC)), "{failure:?}");
    }
}

#[test]
fn who_asks_to_stop_is_heard() {
    assert!(failure(1 << 30, &Impatient, |_| {}).call.is_some_and(|c| c.is(libc::EINTR)));
}

#[test]
fn a_process_that_dies_under_our_hands_is_a_failure_and_not_zeros() {
    let failure = failure((1 << 30) + 1, &Silent, |target| {
        target.0.kill().unwrap();
        target.0.wait().unwrap();
    });
    assert!(failure.call.as_ref().is_some_and(|c| c.is(libc::ESRCH)), "{failure:?}");
}
