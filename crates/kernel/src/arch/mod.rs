//! Everything that differs between architectures: registers, the stub's code, the numbers of restartable calls.
//!
//! Another architecture is another file beside `x86_64.rs` with the same public names; nothing else changes.

#[cfg(target_arch = "x86_64")]
mod x86_64;
#[cfg(target_arch = "x86_64")]
pub use x86_64::*;

#[cfg(not(target_arch = "x86_64"))]
compile_error!("bardo runs on x86-64; another architecture needs its file in crates/kernel/src/arch");
