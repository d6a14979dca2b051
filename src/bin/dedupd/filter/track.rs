//! How far an output was written, and what a state's position makes of a file that is there at the start.

use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::ops::Range;
use std::path::{Path, PathBuf};

use dedupd::Progress;
use dedupd::sink::FileIdentity;

use super::output::{Output, absolute, cannot_create};
use super::position::{SINK_TAIL_BYTES, SinkPosition, Tail};
use super::room::Room;
use super::sibling::sibling;
use crate::exit::{Exit, Failure};

/// The position of an output that is being written.
#[derive(Debug)]
pub struct Track {
    /// Of its position.
    name: Vec<u8>,
    identity: FileIdentity,
    offset: u64,
    tail: Tail,
    /// Inputs are read again from their positions, so what is written after this one is cut off.
    resumes: bool,
}

impl Track {
    /// At the end of a file. With `resumes`, what is written behind a position is cut off at the next start.
    fn at_end(name: &[u8], file: &File, path: &Path, resumes: bool) -> Result<Self, Failure> {
        // For reading, which the descriptor of an output need not allow.
        let read = || -> io::Result<Self> {
            let about = file.metadata()?;
            let tail = Tail::read(SINK_TAIL_BYTES, &File::open(path)?, about.len())?;
            Ok(Self { name: name.to_owned(), identity: FileIdentity::of(&about), offset: about.len(), tail, resumes })
        };
        read().map_err(|error| cannot_create(path, &error))
    }

    /// At the end of the file that has the name now.
    pub fn successor(&self, file: &File, path: &Path) -> Result<Self, Failure> {
        Self::at_end(&self.name, file, path, self.resumes)
    }

    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Newlines were written that no line has.
    #[inline]
    pub fn newlines(&mut self, count: u64) {
        for _ in 0..count {
            self.bytes(b"\n");
        }
    }

    /// These parts of `buffer` were written.
    pub fn runs(&mut self, buffer: &[u8], runs: &[Range<usize>]) {
        self.offset += runs.iter().map(|run| run.len() as u64).sum::<u64>();
        self.tail.push_runs(buffer, runs);
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.offset += bytes.len() as u64;
        self.tail.push(bytes);
    }

    pub fn position(&self, progress: &mut Progress) {
        let Self { identity, offset, resumes, .. } = *self;
        let position = SinkPosition { identity, offset, crc: self.tail.crc(), resumes };
        progress.set_sink(&self.name, position.to_bytes());
    }
}

/// An output as it was found: checked against its position, and not changed.
#[derive(Debug)]
pub struct Found {
    path: PathBuf,
    start: Start,
    /// The file that had the name before, and the position behind which nothing of it is kept.
    moved: Option<(PathBuf, SinkPosition)>,
}

/// An output that goes on.
#[derive(Debug)]
pub struct Opened {
    pub output: Output,
    /// From here to the end are lines that were written and not recorded.
    pub unrecorded: Option<u64>,
    pub bytes_cut: u64,
}

#[derive(Debug)]
enum Start {
    /// No regular file: nothing is known of what was written to it.
    Unknown,
    New,
    /// At the end of what is there.
    AtEnd,
    /// At a position, behind which nothing is kept.
    Cut(SinkPosition),
    /// Behind the last whole line; those after the position were written and not recorded.
    WholeLines(SinkPosition),
}

impl Found {
    /// Checks the file at `path`.
    ///
    /// # Errors
    /// It is not as it was left, or it is not empty and nothing is known of it.
    pub fn look(path: &Path, progress: &Progress, append: bool, cuts: bool) -> Result<Self, Failure> {
        let position = recorded(path, progress);
        let moved = position.clone().filter(|_| append).and_then(|position| {
            let file = sibling(path, |about| position.identity.is(&FileIdentity::of(about)))?;
            // It may have been written on under the name that it has now.
            let position = furthest(progress, &position.identity).unwrap_or(position);
            (absolute(&file) != absolute(path)).then_some((file, position))
        });
        let start = match Self::renamed(path, position.as_ref(), progress, cuts) {
            Some(_) if !append => {
                let why = "was written under another name, and the state has a position in it";
                return Err(refused(path, why, "give it that name again, or continue it under this one with --append"));
            }
            Some(start) => start,
            None => Self::start(path, position, append, cuts)?,
        };
        let moved = moved.map(|(file, position)| {
            let about = fs::metadata(&file).map_err(|error| cannot_create(&file, &error))?;
            match Self::check(&file, Some(path), about.len(), position, cuts)? {
                Start::Cut(position) => Ok(Some((file, position))),
                _ => Ok(None),
            }
        });
        Ok(Self { path: path.to_owned(), start, moved: moved.transpose()?.flatten() })
    }

    /// Checks the file at `path` for a run that records no position.
    ///
    /// # Errors
    /// It is not empty, or it has a position that what is written now would be cut back to.
    pub fn look_unrecorded(path: &Path, progress: &Progress, append: bool) -> Result<Self, Failure> {
        let start = match fs::metadata(path) {
            Err(error) if error.kind() == ErrorKind::NotFound => Start::New,
            Err(error) => return Err(cannot_create(path, &error)),
            Ok(about) if !about.is_file() => Start::Unknown,
            Ok(about) => {
                if let Some(position) =
                    furthest(progress, &FileIdentity::of(&about)).filter(|position| position.resumes)
                {
                    let why = format!(
                        "has a position in the state, byte {}, and --durability none does not move it: the next run that \
                         keeps one would cut off what this one adds",
                        position.offset
                    );
                    return Err(refused(path, &why, "name another file, or another durability"));
                }
                if about.len() > 0 && !append {
                    let why = "has lines, and with --durability none no position in it is kept";
                    return Err(refused(path, why, "name a new file, or add to this one with --append"));
                }
                Start::AtEnd
            }
        };
        Ok(Self { path: path.to_owned(), start, moved: None })
    }

    /// How a file goes on that was written under another name, and is as it was left.
    fn renamed(path: &Path, named: Option<&SinkPosition>, progress: &Progress, cuts: bool) -> Option<Start> {
        let about = fs::metadata(path).ok().filter(fs::Metadata::is_file)?;
        let identity = FileIdentity::of(&about);
        if named.is_some_and(|position| position.identity.is(&identity)) {
            return None;
        }
        let position = furthest(progress, &identity).filter(|position| position.offset > 0)?;
        // Where files have no birth another one may have its number.
        Self::check(path, None, about.len(), position, cuts).ok()
    }

    fn start(path: &Path, position: Option<SinkPosition>, append: bool, cuts: bool) -> Result<Start, Failure> {
        let about = match fs::metadata(path) {
            Ok(about) => Some(about),
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            Err(error) => return Err(cannot_create(path, &error)),
        };
        match (about, position) {
            (Some(about), _) if !about.is_file() => Ok(Start::Unknown),
            (Some(about), None) if about.len() > 0 && !append => Err(refused(
                path,
                "has lines, and the state has no position in it",
                "name a new file, or add to this one with --append; lines in it come once more when the state does not \
                 know their ids",
            )),
            (Some(_), None) => Ok(Start::AtEnd),
            (None, None) => Ok(Start::New),
            (None, Some(_)) if append => Ok(Start::New),
            (None, Some(position)) if position.offset == 0 => Ok(Start::New),
            (None, Some(position)) => {
                let why = format!("is not there, and was written up to byte {}", position.offset);
                Err(refused(path, &why, "bring it back, or begin another with --append"))
            }
            (Some(about), Some(position)) if !position.identity.is(&FileIdentity::of(&about)) => {
                if append || about.len() == 0 && position.offset == 0 {
                    return Ok(Start::AtEnd);
                }
                let why = format!("is another file than the one that was written up to byte {}", position.offset);
                Err(refused(path, &why, "bring that one back, or continue this one with --append"))
            }
            (Some(about), Some(position)) => Self::check(path, None, about.len(), position, cuts),
        }
    }

    /// Checks what is before the position in the file at `path`, which had the name `before` when it was written.
    fn check(
        path: &Path,
        before: Option<&Path>,
        bytes: u64,
        position: SinkPosition,
        cuts: bool,
    ) -> Result<Start, Failure> {
        let refused = |why: String| match before {
            None => refused(path, &why, &format!("{RESTORE}, {ELSEWHERE} and begin another with --append")),
            Some(before) => {
                refused(path, &format!("was {} and {why}", before.display()), &format!("{RESTORE}, {ELSEWHERE}"))
            }
        };
        if bytes < position.offset {
            return Err(refused(format!("has {bytes} bytes, and was written up to byte {}", position.offset)));
        }
        let tail = File::open(path).and_then(|file| Tail::read(SINK_TAIL_BYTES, &file, position.offset));
        let tail = tail.map_err(|error| cannot_create(path, &error))?;
        if tail.crc() != position.crc {
            return Err(refused(format!("was changed before byte {}, up to which it was written", position.offset)));
        }
        Ok(if cuts && position.resumes { Start::Cut(position) } else { Start::WholeLines(position) })
    }

    /// Whether the file at `path` is as it was left at `position`.
    fn is_as_left(path: &Path, position: &SinkPosition) -> bool {
        fs::metadata(path).is_ok_and(|about| Self::check(path, None, about.len(), position.clone(), false).is_ok())
    }

    /// Opens it for writing, cut as it has to be.
    pub fn open(self, resumes: bool, room: &mut Room) -> Result<Opened, Failure> {
        let path = &self.path;
        let failed = |error: io::Error| cannot_create(path, &error);
        if matches!(self.start, Start::Unknown) {
            let file = File::create(path).map_err(failed)?;
            let output = Output::new(file, Some(path)).map_err(failed)?;
            return Ok(Opened { output, unrecorded: None, bytes_cut: 0 });
        }
        let name = path.display().to_string();
        // One that was there is not made: see `is_still`.
        let is_made = !matches!(self.start, Start::Cut(_) | Start::WholeLines(_));
        let open = || File::options().append(true).create(is_made).open(path);
        let file = room.until_found(&name, open).map_err(failed)?;
        if let Start::Cut(position) | Start::WholeLines(position) = &self.start {
            is_still(&file, path, position)?;
        }
        let (mut unrecorded, mut bytes_cut) = (None, 0);
        if let Some((path, position)) = &self.moved {
            let moved = File::options().append(true).open(path).map_err(failed)?;
            is_still(&moved, path, position)?;
            bytes_cut = cut(&moved, position.offset).map_err(failed)?;
        }
        match &self.start {
            Start::Cut(position) => bytes_cut = cut(&file, position.offset).map_err(failed)?,
            Start::WholeLines(position) => {
                let end = end_of_lines(path, position.offset).map_err(failed)?;
                bytes_cut = cut(&file, end).map_err(failed)?;
                unrecorded = Some(position.offset).filter(|offset| end > *offset);
            }
            Start::New => room.until_found(&name, || sync_new(&file, path)).map_err(failed)?,
            Start::AtEnd | Start::Unknown => {}
        }
        let name = SinkPosition::name(&absolute(path).unwrap_or_else(|| path.clone()));
        let track = Track::at_end(&name, &file, path, resumes)?;
        let mut output = Output::new(file, Some(path)).map_err(failed)?;
        output.track = Some(track);
        Ok(Opened { output, unrecorded, bytes_cut })
    }
}

/// The position that the state has in the file of this name, which may have been written on under another one since.
fn recorded(path: &Path, progress: &Progress) -> Option<SinkPosition> {
    let named = SinkPosition::parse(progress.sink(SinkPosition::name(&absolute(path)?))?)?;
    // Where files have no birth it may be the position in one that is gone, whose number this one has.
    let last = furthest(progress, &named.identity).filter(|last| Found::is_as_left(path, last));
    Some(last.unwrap_or(named))
}

/// The last position in a file, whatever it was called: of what is only added to, that is the one furthest on. Of two at
/// one place it is the one that keeps what stands behind it: what was read again comes to nothing, as its ids are known.
fn furthest(progress: &Progress, identity: &FileIdentity) -> Option<SinkPosition> {
    let positions = progress.sinks().filter_map(|(_, position)| SinkPosition::parse(position));
    let of_it = positions.filter(|position| position.identity.is(identity));
    of_it.max_by_key(|position| (position.offset, !position.resumes))
}

/// Refuses a file that took the place of the one that was looked at, or is shorter: another output may have waited for
/// room since, for as long as it takes.
fn is_still(file: &File, path: &Path, position: &SinkPosition) -> Result<(), Failure> {
    let about = file.metadata().map_err(|error| cannot_create(path, &error))?;
    if position.identity.is(&FileIdentity::of(&about)) && about.len() >= position.offset {
        return Ok(());
    }
    let message = format!("{} is not as it was when this run began: it was not touched; run it again", path.display());
    Err(Failure::new(Exit::CannotCreate, "output_changed", message))
}

fn refused(path: &Path, why: &str, what_to_do: &str) -> Failure {
    let message = format!("{} {why}: nothing was changed; {what_to_do}", path.display());
    Failure::new(Exit::CannotCreate, "output_changed", message)
}

/// Cuts off what is behind `end`, and says how much that was.
fn cut(file: &File, end: u64) -> io::Result<u64> {
    let bytes = file.metadata()?.len().saturating_sub(end);
    if bytes > 0 {
        file.set_len(end)?;
        file.sync_all()?;
    }
    Ok(bytes)
}

/// Behind the last newline after `start`, or `start`.
fn end_of_lines(path: &Path, start: u64) -> io::Result<u64> {
    use std::os::unix::fs::FileExt;
    let file = File::open(path)?;
    let mut end = file.metadata()?.len();
    let mut block = vec![0; BLOCK_BYTES];
    while end > start {
        let from = end.saturating_sub(BLOCK_BYTES as u64).max(start);
        let block = &mut block[..usize::try_from(end - from).unwrap_or(BLOCK_BYTES)];
        file.read_exact_at(block, from)?;
        if let Some(at) = block.iter().rposition(|&byte| byte == b'\n') {
            return Ok(from + at as u64 + 1);
        }
        end = from;
    }
    Ok(start)
}

/// A new file is there after a power cut only when its directory is on disk too.
pub fn sync_new(file: &File, path: &Path) -> io::Result<()> {
    file.sync_all()?;
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(parent)?.sync_all()
}

const BLOCK_BYTES: usize = 64 << 10;
const RESTORE: &str = "bring back what was there";
/// Beside the name that it had it would be found, and be cut back to its position.
const ELSEWHERE: &str = "or move it to another directory";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_the_last_whole_line_is_found_however_far_it_is() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        for (head, half) in [(0, 0), (0, 5), (10, 0), (10, 200_000), (70_000, 65_536), (65_536, 65_535)] {
            let text = if head > 0 { "x".repeat(head - 1) + "\n" } else { String::new() } + &"y".repeat(half);
            fs::write(&file, &text).expect("written");
            assert_eq!(end_of_lines(file.path(), 0).expect("read"), head as u64, "{head} {half}");
            let start = (head as u64).saturating_sub(5);
            assert_eq!(end_of_lines(file.path(), start).expect("read"), head as u64, "from {start}");
            assert_eq!(end_of_lines(file.path(), head as u64).expect("read"), head as u64);
        }
    }
}
