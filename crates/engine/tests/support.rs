//! `docs/support.md` is what the tables of kinds say: `BARDO_UPDATE=1 cargo test -p bardo-engine --test support` writes it.

use std::fs;
use std::path::Path;

use bardo_engine::resource::{file, memory, shared, task};
use bardo_engine::support::Support;

const HEAD: &str = "\
# What is saved, and what isn't

A checkpoint saves everything that a tree is made of, or nothing: whatever it can't save stands in its refusal, with the
process, the descriptor, the reason and what to do about it. This page says beforehand what that is. It comes from the tables
of kinds in the code; don't edit it (CONTRIBUTING.md says how it is written).

A kind's name begins the names of its records in an image (`bardo show`) and stands at the end of a refusal's first line, in
brackets. Each kind has a workload, a small program that checks what it sees: run natively, then stopped and restarted,
left running, and checkpointed twenty times over. *Privilege* is what a restart needs beyond what a checkpoint does, which is
the right to trace the tree (ptrace(2)).
";

type Lines = fn() -> Vec<Support>;

/// The families, and what each says it can do.
const FAMILIES: [(&str, Lines); 4] = [
    ("Processes and threads", task::support),
    ("Memory", memory::support),
    ("Files", file::support),
    ("Shared by name", shared::support),
];

fn cell(text: &str) -> String {
    text.replace('|', "\\|")
}

fn page() -> String {
    let mut page = String::from(HEAD);
    for (title, table) in FAMILIES {
        let (refused, kept): (Vec<Support>, Vec<Support>) =
            table().into_iter().partition(|line| line.kept.is_empty());
        page.push_str(&format!(
            "\n## {title}\n\n| kind | saved | not saved | privilege | workload |\n|---|---|---|---|---|\n"
        ));
        for line in kept {
            let workload = match line.workload {
                "" => String::new(),
                name => format!("[{name}](../tests/workloads/{name}.c)"),
            };
            let [kept, not_kept, privilege] = [line.kept, line.not_kept, line.privilege].map(cell);
            page.push_str(&format!("| `{}` | {kept} | {not_kept} | {privilege} | {workload} |\n", line.kind));
        }
        if !refused.is_empty() {
            page.push_str("\nNot yet, or never:\n\n| refused as | what, or why |\n|---|---|\n");
            for line in refused {
                page.push_str(&format!("| `{}` | {} |\n", line.kind, cell(line.not_kept)));
            }
        }
    }
    page
}

#[test]
fn the_page_is_what_the_tables_say() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/support.md");
    let page = page();
    if std::env::var_os("BARDO_UPDATE").is_some() {
        fs::write(&path, &page).expect("written");
    }
    let written = fs::read_to_string(&path).unwrap_or_else(|e| panic!("{path:?}: {e}"));
    assert!(
        page == written,
        "docs/support.md is stale: BARDO_UPDATE=1 cargo test -p bardo-engine --test support"
    );
}

/// The tables name what there is: no kind twice, and workloads that exist.
#[test]
fn the_tables_name_what_there_is() {
    let workloads = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/workloads");
    let all: Vec<Support> = FAMILIES.iter().flat_map(|(_, table)| table()).collect();
    for (index, line) in all.iter().enumerate() {
        assert!(all[..index].iter().all(|other| other.kind != line.kind), "{} is there twice", line.kind);
        if line.kept.is_empty() {
            assert!(!line.not_kept.is_empty(), "{} says neither what is kept nor what isn't", line.kind);
            continue;
        }
        let workload = workloads.join(format!("{}.c", line.workload));
        assert!(workload.is_file(), "{} names the workload {:?}", line.kind, line.workload);
    }
}
