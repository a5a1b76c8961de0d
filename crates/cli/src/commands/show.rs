//! `bardo show`: what is in an image, as text or as JSON.

use std::fs::File;
use std::path::PathBuf;

use clap::Args;

use crate::arguments::EXIT_CODES;
use crate::commands::open_image;
use crate::ending::{Ending, Exit};
use crate::session::{Channel, Session};
use crate::wording::During;

const EXAMPLES: &str = "\
Examples:
  bardo show job.img
  bardo show --json job.img | python3 -m json.tool
  ssh host 'cat job.img' | bardo show -

Everything but the memory itself is printed. An image that is truncated or damaged is printed as far
as it can be read; then the trouble is told, and the exit code is 5.

Privileges:
  None but to read the file. An image holds all that its programs had in memory, so it is created
  readable by its owner alone.";

/// Print what is in an image.
#[derive(Debug, Args)]
#[command(after_long_help = format!("{EXAMPLES}\n\n{EXIT_CODES}"))]
pub struct Show {
    /// The image; - is standard input
    #[arg(value_name = "FILE")]
    pub image: PathBuf,
}

impl Show {
    /// Does it.
    ///
    /// # Errors
    /// The image can't be read, or not to its end.
    pub fn run(self, session: &Session) -> Result<Exit, Ending> {
        let (fd, name) = open_image(&self.image, During::Reading)?;
        let outline =
            bardo_image::show(File::from(fd)).map_err(|e| super::verify::unusable(e, name.clone()))?;
        if session.common.json {
            session.result(&outline, Channel::Output)?;
        } else {
            let mut text = String::new();
            // Writing to a String can't fail.
            let _ = outline.render(&mut text);
            session.data(text)?;
        }
        match outline.error() {
            Some(error) => Err(super::verify::unusable(error.clone(), name)),
            None => Ok(Exit::Done),
        }
    }
}
