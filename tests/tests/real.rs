//! Programs that nobody here wrote, checkpointed in the middle of their work and judged by their own result: it must be
//! the one that they come to natively. These are in every Debian; more of them are in `programs.rs`.

use std::io::{BufWriter, Write};

use bardo_tests::{Place, Program};

/// Two hundred megabytes of lines in no order, always the same.
fn write_input(place: &Place) {
    let mut file = BufWriter::new(std::fs::File::create(place.join("input")).expect("the input"));
    let mut x = 1u64;
    for _ in 0..6_400_000 {
        x = x.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        writeln!(file, "{x:016x} {:x} line", x >> 33).expect("the input");
    }
    file.flush().expect("the input");
}

/// The four tests of a program.
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
            fn is_ended_and_restarted() {
                PROGRAM.is_ended_and_restarted();
            }

            #[test]
            fn is_left_running() {
                PROGRAM.is_left_running();
            }

            #[test]
            fn is_checkpointed_fifty_times() {
                PROGRAM.is_checkpointed_fifty_times();
            }
        }
    )*};
}

const fn pipeline(what: &'static [&'static str], processes: usize) -> Program {
    Program::script(&["sh"], "pipeline.sh", what).prepared(write_input).of(processes)
}

programs! {
    bash: Program::script(&["bash"], "jobs.bash", &[]).of(2);
    python: Program::script(&["python3"], "heap.py", &[]);
    perl: Program::script(&["perl"], "tables.pl", &[]);
    awk: Program::script(&["awk", "-f"], "words.awk", &[]);
    sort: pipeline(&["sort"], 4);
    gzip: pipeline(&["gzip"], 6);
    tar: pipeline(&["tar"], 8);
}
