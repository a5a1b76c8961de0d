//! What may differ between two looks at a tree, before its checkpoint and after its restart, and why.

use crate::snapshot::Snapshot;

/// A difference that is no loss.
#[derive(Debug)]
pub struct Allowed {
    /// Which facts: `*` stands for any text, `ROOT` for the root's pid.
    pub facts: &'static str,
    /// Why it may differ.
    pub why: &'static str,
}

const fn allow(facts: &'static str, why: &'static str) -> Allowed {
    Allowed { facts, why }
}

const USAGE: &str = "what was used so far, by this life of the process; starts anew";
const RESIDENT: &str = "which pages are in memory is the kernel's business, not the program's";

/// All differences that are allowed. Everything else that differs fails a test.
pub const ALLOWED: &[Allowed] = &[
    allow("ROOT/* status PPid", "the root's parent is bardo, or who adopted it from bardo"),
    allow("ROOT/* stat 4", "the root's parent, as above"),
    allow("*/* stat 9", "the kernel's own flags; the one for forked-but-not-execed is set by every fork"),
    allow("*/* stat 10", USAGE),
    allow("*/* stat 11", USAGE),
    allow("*/* stat 12", USAGE),
    allow("*/* stat 13", USAGE),
    allow("*/* stat 14", USAGE),
    allow("*/* stat 15", USAGE),
    allow("*/* stat 16", USAGE),
    allow("*/* stat 17", USAGE),
    allow("*/* stat 22", "the start time is that of this life"),
    allow("*/* stat 24", RESIDENT),
    allow("*/* stat 35", "whether it waits, at this moment"),
    allow("*/* stat 39", "the CPU it ran on last"),
    allow("*/* stat 42", USAGE),
    allow(
        "*/* status FDSize",
        "how many slots the table has grown to; it never shrinks, and shows nothing else",
    ),
    allow(
        "*/* status SigQ",
        "counts the signals of all processes of the user; the limit is compared with the limits",
    ),
    allow("*/* status VmPeak", "the high-water mark of this life"),
    allow("*/* status VmHWM", "the high-water mark of this life"),
    allow("*/* status VmRSS", RESIDENT),
    allow("*/* status RssAnon", RESIDENT),
    allow("*/* status RssFile", RESIDENT),
    allow("*/* status RssShmem", RESIDENT),
    allow("*/* status VmPTE", RESIDENT),
    allow("*/* status VmSwap", RESIDENT),
    allow("*/* status voluntary_ctxt_switches", USAGE),
    allow("*/* status nonvoluntary_ctxt_switches", USAGE),
    allow("* fdinfo * eventfd-id", "a number of this boot, by which /proc alone tells eventfds apart"),
    allow("* fdinfo 1 pos", "stdout is what the caller of the restart gave"),
    allow("* fdinfo 2 pos", "stderr is what the caller of the restart gave"),
];

/// Whether a name matches a pattern, in which `*` stands for any text without a blank.
fn matches(pattern: &str, name: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == name,
        Some((head, tail)) => name.strip_prefix(head).is_some_and(|rest| {
            let word = rest.find(' ').unwrap_or(rest.len());
            (0..=word).any(|n| rest.is_char_boundary(n) && matches(tail, &rest[n..]))
        }),
    }
}

/// All differences that aren't allowed, one a line; empty if there is none.
pub fn compare(before: &Snapshot, after: &Snapshot, more: &[Allowed]) -> String {
    let root = before.root.to_string();
    let patterns: Vec<String> = ALLOWED.iter().chain(more).map(|a| a.facts.replace("ROOT", &root)).collect();
    let names = before.facts.keys().chain(after.facts.keys().filter(|k| !before.facts.contains_key(*k)));
    let mut lines = String::new();
    for name in names {
        let (was, is) = (before.facts.get(name), after.facts.get(name));
        if was == is || patterns.iter().any(|p| matches(p, name)) {
            continue;
        }
        let show = |fact: Option<&String>| fact.map_or("(nothing)".to_owned(), Clone::clone);
        lines.push_str(&format!("{name}: was {}, is {}\n", show(was), show(is)));
    }
    lines
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn a_star_stands_for_a_word() {
        assert!(matches("*/* stat 9", "12/13 stat 9"));
        assert!(!matches("*/* stat 9", "12/13 stat 90"));
        assert!(!matches("*/* stat 9", "12/13 status stat 9"));
        assert!(matches("12/* status PPid", "12/12 status PPid"));
        assert!(!matches("12/* status PPid", "13/13 status PPid"));
    }

    #[test]
    fn only_what_is_allowed_is_passed_over() {
        let snapshot = |ppid: &str, mask: &str| {
            let facts = [("7/7 status PPid", ppid), ("7/7 status SigBlk", mask)];
            let facts: BTreeMap<_, _> =
                facts.into_iter().map(|(k, v)| (k.to_owned(), v.to_owned())).collect();
            Snapshot { root: 7, facts }
        };
        assert_eq!(compare(&snapshot("1", "0"), &snapshot("2", "0"), &[]), "");
        assert_eq!(
            compare(&snapshot("1", "0"), &snapshot("1", "4"), &[]),
            "7/7 status SigBlk: was 0, is 4\n"
        );
    }
}
