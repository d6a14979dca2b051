//! How far a regular file was written, as a state keeps it, and what a kept position makes of the file that is there.

use std::fmt;
use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use crate::sink::FileIdentity;

/// How far the file was written.
#[derive(Debug)]
pub(super) struct Place {
    pub path: PathBuf,
    /// For reading, which the descriptor that is written to does not allow.
    reader: File,
    identity: FileIdentity,
    /// The end of what was written.
    pub length: u64,
    /// Half a line is out that could not be cut off.
    pub has_half_line: bool,
    pub appends_to_existing: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Position {
    identity: FileIdentity,
    length: u64,
    /// Of the last bytes before `length`.
    crc: u32,
}

impl Place {
    /// At the end of `target`, which was opened as `path`; none when it cannot be read.
    pub fn at_end(target: &File, path: PathBuf) -> io::Result<Option<Self>> {
        let about = target.metadata()?;
        let identity = FileIdentity::of(&about);
        let reader =
            File::open(&path).ok().filter(|file| file.metadata().is_ok_and(|read| identity == FileIdentity::of(&read)));
        Ok(reader.map(|reader| {
            let length = about.len();
            Self { path, reader, identity, length, has_half_line: false, appends_to_existing: false }
        }))
    }

    /// The position, as a state keeps it.
    ///
    /// # Errors
    /// What was written is not there any more or not alone, in words.
    pub fn position(&self, target: &File) -> Result<Vec<u8>, String> {
        let about = target.metadata().map_err(|error| self.failed(&error))?;
        let length = self.length;
        let what = match about.len() {
            _ if about.nlink() == 0 => {
                "was deleted, or another file was moved over it: what is written is gone".to_owned()
            }
            bytes if bytes < length => format!("was cut: it has {bytes} bytes, and was written up to byte {length}"),
            bytes if bytes > length => {
                "has more than was written: somebody else writes to it; give each writer a file of its own".to_owned()
            }
            _ if self.has_half_line => "has half a line that could not be cut off".to_owned(),
            _ => {
                let crc = self.crc(length).map_err(|error| self.failed(&error))?;
                return Ok(Position { identity: self.identity, length, crc }.to_string().into_bytes());
            }
        };
        Err(format!("{} {what}", self.path.display()))
    }

    /// Cuts `target` back to `position`.
    ///
    /// # Errors
    /// It is not as it was left, or has bytes and no position, in words. Nothing was changed.
    pub fn resume(&mut self, target: &File, position: Option<&[u8]>) -> Result<(), String> {
        let about = target.metadata().map_err(|error| self.failed(&error))?;
        let (bytes, is_mine) = (about.len(), |position: &Position| position.identity.is(&self.identity));
        let appends = self.appends_to_existing;
        let parsed = position.map(Position::parse);
        match parsed {
            Some(None) => {
                Err(self.refused("has a position in the state that this version cannot read", "use the newer one"))
            }
            None if bytes > 0 && !appends => Err(self.refused(
                "has bytes, and the state has no position in it",
                "name a new file, or go on behind its end with append_to_existing",
            )),
            Some(Some(kept)) if !is_mine(&kept) && !appends && (bytes > 0 || kept.length > 0) => Err(self.refused(
                &format!("is another file than the one that was written up to byte {}", kept.length),
                "bring that one back, or continue this one with append_to_existing",
            )),
            Some(Some(kept)) if is_mine(&kept) => {
                self.check(&kept, bytes)?;
                if bytes > kept.length {
                    target.set_len(kept.length).map_err(|error| self.failed(&error))?;
                }
                (self.length, self.has_half_line) = (kept.length, false);
                Ok(())
            }
            _ => {
                self.length = bytes;
                Ok(())
            }
        }
    }

    /// Whether what stands before the position is what was written.
    fn check(&self, kept: &Position, bytes: u64) -> Result<(), String> {
        let length = kept.length;
        if bytes < length {
            return Err(self.refused(&format!("has {bytes} bytes, and was written up to byte {length}"), RESTORE));
        }
        if self.crc(length).map_err(|error| self.failed(&error))? != kept.crc {
            return Err(self.refused(&format!("was changed before byte {length}, up to which it was written"), RESTORE));
        }
        Ok(())
    }

    /// Of the last bytes before `end`.
    fn crc(&self, end: u64) -> io::Result<u32> {
        let start = end.saturating_sub(TAIL_BYTES as u64);
        let mut tail = [0; TAIL_BYTES];
        let tail = &mut tail[..usize::try_from(end - start).unwrap_or(TAIL_BYTES)];
        self.reader.read_exact_at(tail, start)?;
        Ok(crc32c::crc32c(tail))
    }

    fn refused(&self, why: &str, what_to_do: &str) -> String {
        format!("{} {why}: nothing was changed; {what_to_do}", self.path.display())
    }

    fn failed(&self, error: &io::Error) -> String {
        format!("{}: {error}", self.path.display())
    }
}

impl Position {
    fn parse(bytes: &[u8]) -> Option<Self> {
        let fields = std::str::from_utf8(bytes).ok()?.strip_prefix(VERSION)?;
        let text = |name| fields.split(' ').find_map(|field| field.strip_prefix(name)?.strip_prefix('='));
        let crc = u32::from_str_radix(text("crc32c")?, 16).ok()?;
        Some(Self { identity: FileIdentity::parse(fields)?, length: text("length")?.parse().ok()?, crc })
    }
}

/// As a state keeps it.
impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { identity, length, crc } = self;
        write!(f, "{VERSION}{identity} length={length} crc32c={crc:08x}")
    }
}

/// Puts a directory's entries on disk: a file that was made is there after a power cut only then. One that may be written
/// and not read cannot be synced.
pub(super) fn sync_directory(path: &Path) -> io::Result<()> {
    match File::open(path).and_then(|directory| directory.sync_all()) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(()),
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => Ok(()),
        synced => synced,
    }
}

const VERSION: &str = "v1 ";
const RESTORE: &str = "bring back what was there, or move it away and begin another with append_to_existing";
const TAIL_BYTES: usize = 4 << 10;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::Timestamp;

    #[test]
    fn positions_come_back_as_they_were() {
        let born = FileIdentity { device: 1, inode: 2, born: Some(Timestamp::from_nanos(3)) };
        for identity in [born, FileIdentity { born: None, ..born }] {
            for (length, crc) in [(0, 0), (u64::MAX, u32::MAX)] {
                let position = Position { identity, length, crc };
                assert_eq!(Position::parse(position.to_string().as_bytes()), Some(position));
            }
        }
        let text = Position { identity: born, length: 4, crc: 5 }.to_string();
        assert_eq!(text, "v1 inode=2 device=1 born=3 length=4 crc32c=00000005", "it is a disk format");
        for bytes in [&b""[..], b"v2 inode=2 device=1 length=4 crc32c=0", b"v1 inode=2", b"v1 \xFF"] {
            assert_eq!(Position::parse(bytes), None);
        }
    }
}
