//! x
/// Why an image can't be used.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Error(String);
