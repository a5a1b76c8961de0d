//! Compiles the workloads: every C file under `workloads/` becomes a program of the same name, in the same directory of
//! the build's output. `CC` says which compiler (default: `cc`). Warnings are errors.

use std::path::{Path, PathBuf};
use std::process::Command;

fn sources(directory: &Path, found: &mut Vec<PathBuf>) {
    let entries = std::fs::read_dir(directory).unwrap_or_else(|e| panic!("{}: {e}", directory.display()));
    for entry in entries {
        let path = entry.expect("an entry of the workloads' directory").path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|e| e == "c") {
            found.push(path);
        }
    }
}

fn main() {
    let from = Path::new(&std::env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets it")).join("workloads");
    let to = Path::new(&std::env::var_os("OUT_DIR").expect("cargo sets it")).join("workloads");
    println!("cargo::rerun-if-changed={}", from.display());
    println!("cargo::rerun-if-env-changed=CC");
    println!("cargo::rustc-env=BARDO_WORKLOADS={}", to.display());
    let compiler = std::env::var_os("CC").unwrap_or_else(|| "cc".into());
    let mut all = Vec::new();
    sources(&from, &mut all);
    all.sort();
    for source in all {
        let program = to.join(source.strip_prefix(&from).expect("found below it")).with_extension("");
        std::fs::create_dir_all(program.parent().expect("a file has a directory"))
            .expect("the output directory");
        // Two of them, so that programs without a dynamic loader are among the workloads.
        let linked_statically = source.file_name().is_some_and(|n| n == "churn.c" || n == "identity.c");
        let status = Command::new(&compiler)
            .args(["-O1", "-g", "-pthread", "-Wall", "-Wextra", "-Werror", "-Wno-format-truncation", "-o"])
            .arg(&program)
            .arg(&source)
            .args(if linked_statically { &["-static"][..] } else { &[] })
            .status()
            .unwrap_or_else(|e| panic!("running the C compiler {compiler:?}: {e}"));
        assert!(status.success(), "{}: {status}", source.display());
    }
}
