//! Why writing ends.

use dedupd::sink::WriteError;

use super::output::Output;
use crate::exit::{Exit, Failure, cause};

/// Why writing ends.
#[derive(Debug)]
pub enum Stop {
    /// Nobody reads standard output any more.
    ReaderGone,
    Failed(Failure),
}

impl From<Failure> for Stop {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

impl Stop {
    /// What it means that `target` could not be written to.
    pub fn by(target: &Output, error: WriteError) -> Self {
        let source = error.source;
        if target.is_stdout() && source.kind() == std::io::ErrorKind::BrokenPipe {
            return Self::ReaderGone;
        }
        Failure::new(Exit::Io, "output", format!("cannot write {}: {}", target.name(), cause(&source))).into()
    }
}
