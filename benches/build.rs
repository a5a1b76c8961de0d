//! Compiles the programs that are measured and those that measure against: every C file under `programs/`. `CC` says which
//! compiler (default: `cc`). Warnings are errors.

use std::path::Path;
use std::process::Command;

fn main() {
    let from = Path::new(&std::env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets it")).join("programs");
    let to = Path::new(&std::env::var_os("OUT_DIR").expect("cargo sets it")).to_owned();
    println!("cargo::rerun-if-changed={}", from.display());
    println!("cargo::rerun-if-env-changed=CC");
    println!("cargo::rustc-env=BARDO_BENCH_PROGRAMS={}", to.display());
    let compiler = std::env::var_os("CC").unwrap_or_else(|| "cc".into());
    for name in ["subject", "reference"] {
        let status = Command::new(&compiler)
            .args(["-O2", "-g", "-pthread", "-Wall", "-Wextra", "-Werror", "-o"])
            .arg(to.join(name))
            .arg(from.join(name).with_extension("c"))
            .status()
            .unwrap_or_else(|e| panic!("running the C compiler {compiler:?}: {e}"));
        assert!(status.success(), "{name}.c: {status}");
    }
}
