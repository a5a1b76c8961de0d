//! Checkpoint and restart of process trees. Read [`checkpoint`] first, [`restart`] second.

pub mod checkpoint;
pub mod doctor;
pub mod error;
pub mod restart;
pub mod watch;

pub use error::{Error, Failure, Refusal, Result, Who};
