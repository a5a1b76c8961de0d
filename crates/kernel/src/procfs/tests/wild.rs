//! No text makes a parser panic: neither arbitrary bytes nor a recorded text with bytes changed, cut or doubled.

use proptest::prelude::*;

use crate::procfs::*;

/// The recorded texts, each a parser's best way into its depths.
const TEXTS: &[&[u8]] = &[
    include_bytes!("../fixtures/6.18-stat"),
    include_bytes!("../fixtures/6.18-status"),
    include_bytes!("../fixtures/6.1-status"),
    include_bytes!("../fixtures/6.18-maps"),
    include_bytes!("../fixtures/6.1-smaps"),
    include_bytes!("../fixtures/6.18-fdinfo-file"),
    include_bytes!("../fixtures/6.18-fdinfo-inotify"),
    include_bytes!("../fixtures/6.1-locks"),
    include_bytes!("../fixtures/6.18-limits"),
    include_bytes!("../fixtures/6.18-timers"),
    include_bytes!("../fixtures/6.18-timens_offsets"),
    include_bytes!("../fixtures/6.18-sched"),
    include_bytes!("../fixtures/6.18-syscall"),
    include_bytes!("../fixtures/6.18-cgroup"),
    include_bytes!("../fixtures/6.1-mountinfo"),
    include_bytes!("../fixtures/6.18-auxv"),
];

/// All parsers, whatever the text was meant for.
fn parse_all(text: &[u8]) {
    let _ = stat::parse(text);
    let _ = status::parse(text);
    let _ = status::NumberList::parse(text);
    // An area's numbers must be safe to compute with.
    for area in maps::parse(text).unwrap_or_default() {
        let _ = (area.len(), area.dev(), area.contains(0), area.has_file(), area.perms.prot());
    }
    let _ = smaps::parse(text);
    let _ = smaps::VmFlags::parse(text);
    let _ = fdinfo::parse(text);
    let _ = locks::parse(text);
    let _ = limits::parse(text);
    let _ = timers::parse(text);
    let _ = timens_offsets::parse(text);
    let _ = sched::parse(text);
    let _ = syscall::parse(text);
    let _ = children::parse(text);
    let _ = cgroup::parse(text);
    let _ = mountinfo::parse(text);
    let _ = auxv::parse(text);
    for kind in ns::Kind::ALL {
        let _ = ns::parse(kind, text);
    }
    let _ = single::parse_comm(text);
    let _ = single::parse_strings(text);
    let _ = single::parse_personality(text);
    let _ = single::parse_coredump_filter(text);
    let _ = single::parse_boot_id(text);
}

proptest! {
    #[test]
    fn arbitrary_bytes(text in proptest::collection::vec(any::<u8>(), 0..400)) {
        parse_all(&text);
    }

    #[test]
    fn arbitrary_lines(text in "([A-Za-z_]{0,12}:?[ \t]*[-0-9a-fA-Fx,/:() ]{0,24}\n){0,12}") {
        parse_all(text.as_bytes());
    }

    #[test]
    fn changed_texts(
        which in 0..TEXTS.len(),
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0u8..4), 1..8),
    ) {
        let mut text = TEXTS[which].to_vec();
        for (at, byte, how) in changes {
            if text.is_empty() {
                break;
            }
            let at = at.index(text.len());
            match how {
                0 => text[at] = byte,
                1 => text.insert(at, byte),
                2 => {
                    text.remove(at);
                }
                _ => text.truncate(at),
            }
        }
        parse_all(&text);
    }

    #[test]
    fn a_comm_of_any_bytes_is_found_again(comm in proptest::collection::vec(1u8..=255, 0..16)) {
        let recorded: &[u8] = include_bytes!("../fixtures/6.18-stat");
        let close = recorded.iter().rposition(|b| *b == b')').unwrap();
        let text = [b"17645 (", &comm[..], &recorded[close..]].concat();
        let read = stat::parse(&text).unwrap();
        let expected = stat::parse(recorded).unwrap();
        prop_assert_eq!(std::os::unix::ffi::OsStrExt::as_bytes(read.comm.as_os_str()), &comm[..]);
        prop_assert_eq!(stat::Stat { comm: Default::default(), ..read }, stat::Stat { comm: Default::default(), ..expected });
    }
}
