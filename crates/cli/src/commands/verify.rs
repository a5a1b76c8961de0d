//! `bardo verify`: is this image whole? Everything is read and every checksum compared; nothing is started.

use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use bardo_engine::watch::{Stage, Watch};
use bardo_engine::{Error, Failure};
use bardo_image::ErrorKind;
use clap::Args;
use serde::Serialize;

use crate::arguments::EXIT_CODES;
use crate::commands::open_image;
use crate::ending::{Ending, Exit};
use crate::follow::Follow;
use crate::session::{Channel, Session};
use crate::wording::{During, bytes, count, inline};

const EXAMPLES: &str = "\
Examples:
  bardo verify job.img
  ssh host 'cat job.img' | bardo verify -

Privileges:
  None but to read the file.";

/// Check an image from its first byte to its seal.
///
/// Every frame is read, every checksum compared, all compressed memory unpacked. A whole image exits with 0; one that is
/// truncated, damaged or of an unknown version exits with 5 and says where the trouble is.
#[derive(Debug, Args)]
#[command(after_long_help = format!("{EXAMPLES}\n\n{EXIT_CODES}"))]
pub struct Verify {
    /// The image; - is standard input
    #[arg(value_name = "FILE")]
    pub image: PathBuf,
}

#[derive(Serialize)]
struct VerifyReport<'a> {
    image: &'a str,
    whole: bool,
    summary: bardo_image::Summary,
}

impl Verify {
    /// Does it.
    ///
    /// # Errors
    /// The image can't be read, or isn't whole.
    pub fn run(self, session: &Session) -> Result<Exit, Ending> {
        let (fd, name) = open_image(&self.image, During::Reading)?;
        let file = File::from(fd);
        // The length of a stream isn't known.
        let total = file.metadata().ok().filter(std::fs::Metadata::is_file).map(|m| m.len());
        let began = Instant::now();
        let summary = {
            // Ctrl-C has its default action here: reading harms nobody.
            let follow = Follow::restart(session, Arc::default());
            follow.stage(Stage::Open);
            bardo_image::verify(file, |done| follow.bytes(done, total))
        };
        let summary = summary.map_err(|e| unusable(e, name.clone()))?;
        session.result(&VerifyReport { image: &name, whole: true, summary }, Channel::Output)?;
        if !session.common.json {
            let n = |n: u64| usize::try_from(n).unwrap_or(usize::MAX);
            session.data(format!(
                "{}: whole: {} in {}, {}, {} of memory and {} of zeros\n",
                inline(&name),
                bytes(summary.bytes),
                count(n(summary.frames), "frame", "frames"),
                count(n(summary.records), "record", "records"),
                bytes(summary.page_bytes),
                bytes(summary.zero_bytes),
            ))?;
            let seconds = began.elapsed().as_secs_f64();
            if seconds > 0.1 {
                session.say(&format!("read at {} a second", bytes((summary.bytes as f64 / seconds) as u64)));
            }
        }
        Ok(Exit::Done)
    }
}

/// An image's trouble as a bad end. A stream that can't be read is the world's failure, not the image's.
pub fn unusable(error: bardo_image::Error, name: String) -> Ending {
    let error = match error.kind() {
        ErrorKind::Io(_) => Error::Failed(Failure {
            doing: format!("reading {name}: {}", error.what()),
            who: None,
            call: None,
            left: String::new(),
            remedy: None,
        }),
        _ => Error::Image(error),
    };
    Ending::Engine { error, during: During::Reading, image: Some(name) }
}
