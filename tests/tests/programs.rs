//! More programs that nobody here wrote, checkpointed in the middle of their work and judged by their own result; and two that
//! live for many generations, each restarted in the place of the one before.
//!
//! Those of large packages (java, go, node, imagemagick) run with `BARDO_TEST_LARGE=1`, and then must be there.

use std::path::Path;
use std::process::Command;

use bardo_tests::{Place, Program, full};

/// The tests of a program.
macro_rules! programs {
    ($($test:ident: $program:expr;)*) => {$(
        mod $test {
            use super::*;
            const PROGRAM: Program = $program;

            #[test]
            fn runs_natively() {
                PROGRAM.runs_natively();
            }

            #[test]
            fn is_left_running() {
                PROGRAM.is_left_running();
            }

            #[test]
            fn is_checkpointed_fifty_times() {
                PROGRAM.is_checkpointed_fifty_times();
            }

            #[test]
            fn lives_for_generations() {
                PROGRAM.lives_for(if full() { 50 } else { 10 });
            }
        }
    )*};
}

fn script(name: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("programs").join(name)
}

/// Runs a compiler to its end.
#[track_caller]
fn compile(command: &mut Command) {
    let output = command.output().unwrap_or_else(|e| panic!("{command:?}: {e}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

fn compile_java(place: &Place) {
    compile(Command::new("javac").arg("-d").arg(place.join("classes")).arg(script("Work.java")));
}

fn compile_go(place: &Place) {
    let mut go = Command::new("go");
    go.env("GOCACHE", place.join("input"))
        .args(["build", "-o"])
        .arg(place.join("work"))
        .arg(script("work.go"));
    compile(&mut go);
}

const fn tools(what: &'static [&'static str]) -> Program {
    Program::script(&["sh"], "tools.sh", what)
}

/// A heap that is used up many times a second. Without the file of performance data in /tmp/hsperfdata_USER: every java that
/// starts removes those of processes that aren't there, a checkpointed one's too.
const JAVA: Program =
    Program::script(&["java", "-Xmx96m", "-XX:+PerfDisableSharedMem", "-cp", "./classes", "Work"], "", &[])
        .prepared(compile_java)
        .needs_large("javac");
const PYTHON: Program = Program::script(&["python3"], "heap.py", &[]);

programs! {
    ruby: Program::script(&["ruby"], "tables.rb", &[]);
    xargs: tools(&["xargs"]).of(2);
    git: tools(&["git"]);
    gcc: tools(&["gcc"]);
    rustc: tools(&["rustc"]);
    imagemagick: tools(&["convert"]).needs_large("convert");
    java: JAVA;
    go: Program::script(&["./work"], "", &[]).prepared(compile_go).needs_large("go");
    node: Program::script(&["node"], "workers.js", &[]).needs_large("node");
}

/// How long a long life is.
fn generations() -> usize {
    if full() { 200 } else { 25 }
}

#[test]
fn python_lives_for_two_hundred_generations() {
    PYTHON.lives_for(generations());
}

#[test]
fn java_lives_for_two_hundred_generations() {
    JAVA.lives_for(generations());
}
