//! What the end of a file means when it is followed.
//!
//! Nobody tells when a file grows, is renamed or is cut: it is asked for, every few milliseconds while nothing comes.
//! That needs no limit on watches, and works on file systems that tell nobody.
//!
//! A file that was truncated and has outgrown what was read of it looks as if it had only grown. So what was read last is
//! compared whenever the file may have been written to since: after the bytes that follow it were read, as a look before
//! that would say nothing about what came in between.

use std::fs::{self, File, Metadata};
use std::io::{self, ErrorKind, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use dedupd::sink::FileIdentity;

use super::position::{SOURCE_TAIL_BYTES, Tail};

/// A regular file that is read on past its end.
#[derive(Debug)]
pub struct Followed {
    identity: FileIdentity,
    /// None for standard input, which cannot be replaced.
    path: Option<PathBuf>,
    /// Bytes up to here were read.
    read: u64,
    /// The last of them.
    tail: Tail,
    /// When it was last written to, before the tail was last compared.
    modified: Option<SystemTime>,
    /// What is read after it.
    successor: Option<Successor>,
    /// Nothing more was there at the last look, so somebody may have had the time to write it anew.
    has_paused: bool,
    /// What was read of it is not there any more.
    is_anew: bool,
}

/// The file that has the name now. It is held open, as it may have lost the name too when its turn comes.
#[derive(Debug)]
struct Successor {
    file: File,
    seen: Instant,
    /// The last time that something was read of the file before it.
    quiet_since: Instant,
}

impl Successor {
    fn is_due(&self) -> bool {
        self.quiet_since.elapsed() >= QUIET_BEFORE_SUCCESSOR || self.seen.elapsed() >= SUCCESSOR_WAITS_MAX
    }
}

/// What is behind the last byte that was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AtEnd {
    More,
    Nothing,
    /// The file is shorter than what was read, or begins otherwise: somebody copied and truncated it.
    Truncated,
    /// The name belongs to another file, which has something in it, and this one has nothing more for a while.
    Replaced,
}

impl Followed {
    pub fn new(file: &File, path: Option<&Path>, read: u64) -> io::Result<Self> {
        let about = file.metadata()?;
        // It is shorter when it was truncated just now, which the first look tells.
        let tail = Tail::read(SOURCE_TAIL_BYTES, file, read.min(about.len()))?;
        let (identity, path, modified) = (FileIdentity::of(&about), path.map(Path::to_owned), about.modified().ok());
        Ok(Self { identity, path, read, tail, modified, successor: None, has_paused: true, is_anew: false })
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
        if let (Some(successor), false) = (&mut self.successor, bytes.is_empty()) {
            successor.quiet_since = Instant::now();
        }
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

    /// Whoever wrote to a file that was renamed may go on with it for a while, and of several who wrote one may begin the
    /// new file of its name before the others have left this one. So it has ended when the new one has something in it
    /// and nothing came to this one for a while; or after a longer one, as a writer that never leaves may not keep the new
    /// one from being read.
    pub fn at_end(&mut self, file: &File) -> io::Result<AtEnd> {
        if self.is_anew {
            return Ok(AtEnd::Truncated);
        }
        let bytes = file.metadata()?.len();
        if bytes != self.read {
            return Ok(if bytes < self.read { AtEnd::Truncated } else { AtEnd::More });
        }
        if self.successor.is_none() {
            self.successor = self.look_for_successor()?;
        }
        if !self.successor.as_ref().is_some_and(Successor::is_due) {
            return Ok(AtEnd::Nothing);
        }
        // Asked again: this may have come before the last look at the clock.
        Ok(if file.metadata()?.len() > self.read { AtEnd::More } else { AtEnd::Replaced })
    }

    /// Starts the file over.
    pub fn rewind(&mut self, file: &mut File) -> io::Result<()> {
        file.seek(SeekFrom::Start(0))?;
        (self.read, self.tail, self.is_anew) = (0, Tail::new(SOURCE_TAIL_BYTES), false);
        Ok(())
    }

    /// What is read once this one has ended.
    pub fn take_successor(&mut self) -> Option<File> {
        self.successor.take().map(|successor| successor.file)
    }

    fn look_for_successor(&self) -> io::Result<Option<Successor>> {
        let is_other =
            |there: &Metadata| there.is_file() && there.len() > 0 && !self.identity.is(&FileIdentity::of(there));
        let Some(path) = &self.path else { return Ok(None) };
        if !fs::metadata(path).is_ok_and(|there| is_other(&there)) {
            return Ok(None);
        }
        let file = match File::open(path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            file => file?,
        };
        let seen = Instant::now();
        Ok(is_other(&file.metadata()?).then_some(Successor { file, seen, quiet_since: seen }))
    }
}

/// So long a file that was renamed is waited for, when the new one has something in it.
const QUIET_BEFORE_SUCCESSOR: Duration = Duration::from_secs(2);
/// And so long when it is still written to.
const SUCCESSOR_WAITS_MAX: Duration = Duration::from_secs(60);
/// How often files that are followed are looked at while nothing comes.
pub const LOOK_EVERY: Duration = Duration::from_millis(20);
