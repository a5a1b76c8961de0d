//! Rules of this project that a compiler doesn't know: every file says what it is, `unsafe` and global state stay where
//! they belong, no test is switched off, and every kind has its workload.

use std::path::{Path, PathBuf};

fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace").to_path_buf()
}

/// All files below a directory with this extension, but none of what is built.
fn files(directory: &Path, extension: &str, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(directory).expect("a directory of the workspace").filter_map(Result::ok) {
        let path = entry.path();
        let name = entry.file_name();
        if path.is_dir() && name != "target" && !name.to_string_lossy().starts_with('.') {
            files(&path, extension, found);
        } else if path.extension().is_some_and(|e| e == extension) {
            found.push(path);
        }
    }
}

fn sources() -> Vec<(String, String)> {
    let root = workspace();
    let mut found = Vec::new();
    files(&root, "rs", &mut found);
    assert!(found.len() > 20, "only {} sources found", found.len());
    let text = |p: &PathBuf| std::fs::read_to_string(p).expect("a source");
    found.iter().map(|p| (p.strip_prefix(&root).expect("below it").display().to_string(), text(p))).collect()
}

/// Every line that isn't a comment, with its number.
fn code(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines().enumerate().map(|(i, l)| (i + 1, l)).filter(|(_, l)| !l.trim_start().starts_with("//"))
}

/// Fails with all places where a line of code breaks a rule.
#[track_caller]
fn no_line(rule: &str, breaks: impl Fn(&str, &str) -> bool) {
    let all = sources();
    let places: Vec<String> = all
        .iter()
        .flat_map(|(name, text)| {
            code(text).filter(|(_, l)| breaks(name, l)).map(move |(n, l)| format!("{name}:{n}: {l}"))
        })
        .collect();
    assert!(places.is_empty(), "{rule}:\n{}", places.join("\n"));
}

#[test]
fn every_file_says_what_it_is() {
    for (name, text) in sources() {
        let first = text.lines().find(|l| !l.starts_with("#!") && !l.is_empty()).unwrap_or_default();
        assert!(first.starts_with("//! "), "{name} doesn't begin with `//!`");
    }
    let mut workloads = Vec::new();
    files(&workspace().join("tests/workloads"), "c", &mut workloads);
    for path in workloads {
        let text = std::fs::read_to_string(&path).expect("a workload");
        assert!(text.starts_with("/* "), "{} doesn't begin with what it is", path.display());
    }
}

#[test]
fn unsafe_code_is_in_the_kernel_crate_alone() {
    // The word is put together here so that this line isn't found.
    let word = ["un", "safe"].concat();
    no_line("code of that sort outside crates/kernel", |name, line| {
        !name.starts_with("crates/kernel/")
            && line.split(|c: char| !c.is_alphanumeric() && c != '_').any(|w| w == word)
            && !line.contains("forbid(")
    });
    for name in ["crates/image", "crates/engine", "crates/cli"] {
        let root = workspace().join(name).join("src");
        let file = if root.join("lib.rs").exists() { root.join("lib.rs") } else { root.join("main.rs") };
        let text = std::fs::read_to_string(&file).expect("a crate's root");
        assert!(text.contains(&["#![forbid(un", "safe_code)]"].concat()), "{name} doesn't forbid it");
    }
}

/// A static of our own has a value; what an `extern` block declares is an address that assembly defines.
fn is_static(line: &str) -> bool {
    line.starts_with("static ") && line.contains('=')
}

#[test]
fn there_is_no_global_state() {
    no_line("a static outside the gate", |name, line| {
        // A test program may need one: an allocator that counts is always a static.
        if !name.contains("/src/") {
            return false;
        }
        let line = line.trim_start();
        let line = line.strip_prefix("pub ").unwrap_or(line);
        name != "crates/kernel/src/gate.rs" && (is_static(line) || line.starts_with("thread_local!"))
    });
}

#[test]
fn no_test_is_switched_off() {
    let attribute = ["#[", "ignore"].concat();
    no_line("a test that is switched off", |_, line| line.contains(&attribute));
}

#[test]
fn nothing_is_left_to_be_done() {
    let words = ["todo!", "unimplemented!", "FIXME", "XXX"].map(|w| format!("{w}("));
    no_line("unfinished", |name, line| {
        name != "tests/tests/tidy.rs" && words.iter().any(|w| line.contains(w))
    });
}

/// Every kind that the engine's tables name has the workload that they name, and that one is run.
#[test]
fn every_kind_has_its_workload() {
    let mut tests = Vec::new();
    files(&workspace().join("tests/tests"), "rs", &mut tests);
    let tests: String = tests.iter().map(|p| std::fs::read_to_string(p).expect("a test")).collect();
    let mut kinds = 0;
    let mut missing = Vec::new();
    for (name, text) in sources().iter().filter(|(name, _)| name.starts_with("crates/engine/src/resource/")) {
        for (number, line) in code(text) {
            let Some(workload) =
                line.trim_start().strip_prefix("workload: \"").and_then(|l| l.split('"').next())
            else {
                continue;
            };
            kinds += 1;
            if !workload.is_empty() && !tests.contains(&format!("\"{workload}\"")) {
                missing.push(format!("{name}:{number}: {workload}"));
            }
        }
    }
    assert!(kinds > 0, "no kind names its workload: `workload: \"…\"` is looked for");
    assert!(missing.is_empty(), "nothing runs these workloads:\n{}", missing.join("\n"));
}

/// Whatever a workload's directory holds is in the table of workloads, or in a test that starts it by name.
#[test]
fn every_workload_is_run() {
    let root = workspace().join("tests/workloads");
    let (mut workloads, mut tests) = (Vec::new(), Vec::new());
    files(&root, "c", &mut workloads);
    files(&workspace().join("tests"), "rs", &mut tests);
    let all: String = tests.iter().map(|p| std::fs::read_to_string(p).expect("a test")).collect();
    for path in workloads {
        let name = path.strip_prefix(&root).expect("below it").with_extension("").display().to_string();
        assert!(all.contains(&format!("\"{name}\"")), "nothing runs {name}");
    }
}
