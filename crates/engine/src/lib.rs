//! Checkpoint and restart of process trees. Read [`checkpoint`] first, [`restart`] second.

#![forbid(unsafe_code)]

pub mod checkpoint;
pub mod doctor;
pub mod error;
pub mod family;
pub mod freeze;
pub mod host;
pub mod make;
pub mod plan;
pub mod resource;
pub mod restart;
pub mod sink;
pub mod source;
pub mod space;
pub mod subject;
pub mod support;
pub mod survey;
pub mod visit;
pub mod watch;

pub use error::{Error, Failure, Refusal, Result, Who};
