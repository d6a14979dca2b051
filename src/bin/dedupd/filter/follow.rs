//! What the end of a file means when it is followed.
//!
//! Nobody tells when a file grows, is renamed or is cut: it is asked for, every few milliseconds while nothing comes.
//! That needs no limit on watches, and works on file systems that tell nobody.

use std::fs::{self, File};
use std::io::{self, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::identity::Identity;

/// A regular file that is read on past its end.
#[derive(Debug)]
pub struct Followed {
    identity: Identity,
    /// None for standard input, which cannot be replaced.
    path: Option<PathBuf>,
    /// Bytes up to here were read.
    read: u64,
}

/// What is behind the last byte that was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AtEnd {
    More,
    Nothing,
    /// The file is shorter than what was read: somebody copied and truncated it.
    Truncated,
    /// The name belongs to another file, which has something in it, and this one has nothing more.
    Replaced,
}

impl Followed {
    pub fn new(file: &File, path: Option<&Path>, read: u64) -> io::Result<Self> {
        Ok(Self { identity: Identity::of(&file.metadata()?), path: path.map(Path::to_owned), read })
    }

    pub fn read(&mut self, bytes: usize) {
        self.read += bytes as u64;
    }

    /// Whoever wrote to a file that was renamed may go on with it for a while: it has ended when the new file of its
    /// name is written to. An empty one has nothing to read, so nothing is missed by waiting.
    pub fn at_end(&self, file: &File) -> io::Result<AtEnd> {
        let bytes = file.metadata()?.len();
        if bytes != self.read {
            return Ok(if bytes < self.read { AtEnd::Truncated } else { AtEnd::More });
        }
        if !self.is_replaced() {
            return Ok(AtEnd::Nothing);
        }
        // Asked again: this may have come before the first byte of the other.
        Ok(if file.metadata()?.len() > self.read { AtEnd::More } else { AtEnd::Replaced })
    }

    /// Starts the file over.
    pub fn rewind(&mut self, file: &mut File) -> io::Result<()> {
        file.seek(SeekFrom::Start(0))?;
        self.read = 0;
        Ok(())
    }

    fn is_replaced(&self) -> bool {
        let there = self.path.as_ref().and_then(|path| fs::metadata(path).ok());
        there.is_some_and(|there| there.is_file() && there.len() > 0 && !self.identity.is(&Identity::of(&there)))
    }
}

/// How often files that are followed are looked at while nothing comes.
pub const LOOK_EVERY: Duration = Duration::from_millis(20);
