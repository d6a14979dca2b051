//! What the end of a file means when it is followed.
//!
//! Nobody tells when a file grows, is renamed or is cut: it is asked for, every few milliseconds while nothing comes.
//! That needs no limit on watches, and works on file systems that tell nobody.
//!
//! A file that was truncated and has outgrown what was read of it looks as if it had only grown. So what was read last is
//! compared whenever the file may have been written to since: after the bytes that follow it were read, as a look before
//! that would say nothing about what came in between.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::identity::Identity;
use super::position::{SOURCE_TAIL_BYTES, Tail};

/// A regular file that is read on past its end.
#[derive(Debug)]
pub struct Followed {
    identity: Identity,
    /// None for standard input, which cannot be replaced.
    path: Option<PathBuf>,
    /// Bytes up to here were read.
    read: u64,
    /// The last of them.
    tail: Tail,
    /// When it was last written to, before the tail was last compared.
    modified: Option<SystemTime>,
    /// Nothing more was there at the last look, so somebody may have had the time to write it anew.
    has_paused: bool,
    /// What was read of it is not there any more.
    is_anew: bool,
}

/// What is behind the last byte that was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AtEnd {
    More,
    Nothing,
    /// The file is shorter than what was read, or begins otherwise: somebody copied and truncated it.
    Truncated,
    /// The name belongs to another file, which has something in it, and this one has nothing more.
    Replaced,
}

impl Followed {
    pub fn new(file: &File, path: Option<&Path>, read: u64) -> io::Result<Self> {
        let about = file.metadata()?;
        // It is shorter when it was truncated just now, which the first look tells.
        let tail = Tail::read(SOURCE_TAIL_BYTES, file, read.min(about.len()))?;
        let (identity, path, modified) = (Identity::of(&about), path.map(Path::to_owned), about.modified().ok());
        Ok(Self { identity, path, read, tail, modified, has_paused: true, is_anew: false })
    }

    /// These bytes came next. Returns how many of them are to be taken: none when those before them are not there any
    /// more, so that they are from somewhere else in the file.
    pub fn read(&mut self, file: &File, bytes: &[u8]) -> io::Result<usize> {
        let modified = file.metadata()?.modified().ok();
        if (self.has_paused && !bytes.is_empty() || modified != self.modified) && !self.holds_tail(file)? {
            self.is_anew = true;
            return Ok(0);
        }
        (self.modified, self.has_paused) = (modified, bytes.is_empty());
        self.read += bytes.len() as u64;
        self.tail.push(bytes);
        Ok(bytes.len())
    }

    pub fn is_anew(&self) -> bool {
        self.is_anew
    }

    /// Whether the bytes that were read last are still before those that come next.
    fn holds_tail(&self, file: &File) -> io::Result<bool> {
        match Tail::read(SOURCE_TAIL_BYTES, file, self.read) {
            Ok(tail) => Ok(tail.crc() == self.tail.crc()),
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Whoever wrote to a file that was renamed may go on with it for a while: it has ended when the new file of its
    /// name is written to. An empty one has nothing to read, so nothing is missed by waiting.
    pub fn at_end(&mut self, file: &File) -> io::Result<AtEnd> {
        if self.is_anew {
            return Ok(AtEnd::Truncated);
        }
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
        (self.read, self.tail, self.is_anew) = (0, Tail::new(SOURCE_TAIL_BYTES), false);
        Ok(())
    }

    fn is_replaced(&self) -> bool {
        let there = self.path.as_ref().and_then(|path| fs::metadata(path).ok());
        there.is_some_and(|there| there.is_file() && there.len() > 0 && !self.identity.is(&Identity::of(&there)))
    }
}

/// How often files that are followed are looked at while nothing comes.
pub const LOOK_EVERY: Duration = Duration::from_millis(20);
