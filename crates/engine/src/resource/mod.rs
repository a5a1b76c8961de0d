//! What a checkpoint saves, by family: one file per kind of kernel object.

pub mod file;
pub mod memory;
pub mod shared;
pub mod task;
