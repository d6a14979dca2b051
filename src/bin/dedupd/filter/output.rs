//! Where lines go: the output, the rejects, the duplicates.

use std::fs::{self, File};
use std::io::{self, Seek, SeekFrom};
use std::ops::Range;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use dedupd::Progress;
use dedupd::sink::{NdjsonSink, WriteError};

use super::room::{Room, is_full};
use super::track::{Track, sync_new};
use super::trust::Trust;
use crate::config::{Config, Input};
use crate::exit::{Exit, Failure, cause};
use crate::stdio;

/// A sink and what it is called.
#[derive(Debug)]
pub struct Output {
    sink: NdjsonSink,
    /// None for standard output.
    path: Option<PathBuf>,
    /// The same descriptor, when it is a regular file's: lines in it can be synced, and cut.
    file: Option<File>,
    /// How far it was written, when a state keeps that.
    pub track: Option<Track>,
    /// Newlines added by the sinks before this one.
    newlines_added: u64,
    /// Where the line began that is written in parts.
    part_start: u64,
    /// Counts what is written, and how much of that was synced.
    writes: u64,
    synced: u64,
}

/// All that is written to.
#[derive(Debug)]
pub struct Outputs {
    pub output: Output,
    pub rejects: Option<Output>,
    pub duplicates: Option<Output>,
    pub trust: Arc<Trust>,
}

impl Output {
    fn stdout() -> Result<Self, Failure> {
        if stdio::stdout_was_closed() {
            return Err(Failure::new(
                Exit::Io,
                "output",
                "standard output is closed: connect it, or use --output FILE",
            ));
        }
        let stdout = io::stdout().as_fd().try_clone_to_owned().map(File::from);
        stdout
            .and_then(|file| Self::new(file, None))
            .map_err(|error| Failure::new(Exit::Io, "output", format!("standard output: {}", cause(&error))))
    }

    /// The file at `path`, emptied.
    pub fn create(path: &Path, room: &mut Room) -> Result<Self, Failure> {
        let file = room.until_found(&path.display().to_string(), || File::create(path));
        file.and_then(|file| Self::new(file, Some(path))).map_err(|error| cannot_create(path, &error))
    }

    /// Writes to `file` from where it stands, or from its end when it was opened for appending.
    pub fn new(file: File, path: Option<&Path>) -> io::Result<Self> {
        let sink = NdjsonSink::from(OwnedFd::from(file.try_clone()?));
        let file = file.metadata()?.is_file().then_some(file);
        let path = path.map(Path::to_owned);
        Ok(Self { sink, path, file, track: None, newlines_added: 0, part_start: 0, writes: 0, synced: 0 })
    }

    /// Opens the path again, which may be another file by now; from its end on.
    fn reopen(&mut self, room: &mut Room) -> Result<(), Failure> {
        let Some(path) = &self.path else { return Ok(()) };
        let name = path.display().to_string();
        let file = room.until_found(&name, || File::options().append(true).create(true).open(path));
        let mut output =
            file.and_then(|file| Self::new(file, Some(path))).map_err(|error| cannot_create(path, &error))?;
        if let (Some(track), Some(file)) = (&self.track, &output.file) {
            room.until_found(&name, || sync_new(file, path)).map_err(|error| cannot_create(path, &error))?;
            output.track = Some(track.successor(file, path)?);
        }
        output.newlines_added = self.newlines_added();
        // Counted on, so that a sync of the old file that is under way says nothing about the new one.
        (output.writes, output.synced) = (self.writes, self.writes);
        *self = output;
        Ok(())
    }

    /// Writes the lines of `buffer` that stand at `runs`. When that fails, no half line stays in a regular file, and
    /// the error tells of whole lines.
    pub fn write_lines(&mut self, buffer: &[u8], runs: &[Range<usize>], room: &mut Room) -> Result<(), WriteError> {
        match self.try_lines(buffer, runs) {
            Ok(()) => Ok(()),
            Err(error) => self.go_on(error, buffer, runs, room),
        }
    }

    fn try_lines(&mut self, buffer: &[u8], runs: &[Range<usize>]) -> Result<(), WriteError> {
        if runs.is_empty() {
            return Ok(());
        }
        self.writes += 1;
        let newlines = self.sink.newlines_added();
        let written = self.sink.write_lines(buffer, runs);
        if let Some(track) = &mut self.track {
            track.newlines(self.sink.newlines_added() - newlines);
            if written.is_ok() {
                track.runs(buffer, runs);
            }
        }
        written
    }

    /// Cuts off half a line, and writes the rest when room comes for it.
    #[cold]
    fn go_on(
        &mut self,
        mut error: WriteError,
        buffer: &[u8],
        runs: &[Range<usize>],
        room: &mut Room,
    ) -> Result<(), WriteError> {
        let (mut rest, mut bytes_out) = (runs.to_vec(), 0);
        loop {
            let WriteError { bytes, source, .. } = error;
            let whole = if self.is_regular() { whole_lines(buffer, &rest, bytes) } else { bytes };
            if bytes > whole {
                self.cut(bytes - whole);
            }
            let (out, left) = split(&rest, whole);
            if let Some(track) = &mut self.track {
                track.runs(buffer, &out);
            }
            bytes_out += whole;
            rest = left;
            if !self.is_regular() || !is_full(&source) || !room.wait(&self.name()) {
                return Err(WriteError::new(bytes_out, source));
            }
            match self.try_lines(buffer, &rest) {
                Ok(()) => break,
                Err(again) => error = again,
            }
        }
        room.found(&self.name());
        Ok(())
    }

    /// Writes the next part of a line that comes in parts. When that fails, none of it stays in a regular file.
    pub fn write_part(&mut self, mut part: &[u8], first: bool, room: &mut Room) -> Result<(), WriteError> {
        self.writes += 1;
        let newlines = self.sink.newlines_added();
        let mut begun = if first { self.sink.end_line() } else { Ok(()) };
        if first {
            self.part_start = self.end().unwrap_or(0);
        }
        if let Some(track) = &mut self.track {
            track.newlines(self.sink.newlines_added() - newlines);
        }
        loop {
            let written = begun.and_then(|()| self.sink.write_part(part));
            let (bytes, error) = match written {
                Ok(()) => (part.len(), None),
                Err(WriteError { bytes, source, .. }) => (usize::try_from(bytes).unwrap_or(part.len()), Some(source)),
            };
            if let Some(track) = &mut self.track {
                track.runs(part, std::slice::from_ref(&(0..bytes)));
            }
            part = &part[bytes..];
            let Some(source) = error else { return Ok(()) };
            if self.file.is_none() || !is_full(&source) || !room.wait(&self.name()) {
                let end = self.end().unwrap_or(0);
                self.cut(end.saturating_sub(self.part_start));
                return Err(WriteError::new(0, source));
            }
            begun = Ok(());
        }
    }

    /// Takes back the last `bytes` of a regular file, unless somebody else has written behind them.
    fn cut(&mut self, bytes: u64) {
        let Some(file) = &mut self.file else { return };
        let cut = |file: &mut File| {
            let end = file.metadata()?.len();
            let at = if appends(file) { end } else { file.stream_position()? };
            if at == end {
                file.set_len(end.saturating_sub(bytes))?;
                file.seek(SeekFrom::End(0))?;
            }
            file.try_clone()
        };
        // A file that can be written to and not be cut keeps its half line; the next one does not continue it.
        if let Ok(copy) = cut(file) {
            self.newlines_added += self.sink.newlines_added();
            self.sink = NdjsonSink::from(OwnedFd::from(copy));
        }
    }

    fn end(&mut self) -> Option<u64> {
        self.file.as_ref()?.metadata().ok().map(|about| about.len())
    }

    /// A copy to sync, and what was written until now, when there is anything to sync.
    pub fn unsynced(&self) -> Option<(io::Result<File>, u64)> {
        self.file.as_ref().filter(|_| self.writes > self.synced).map(|file| (file.try_clone(), self.writes))
    }

    /// What was written until then is synced.
    pub fn synced(&mut self, writes: u64) {
        self.synced = self.synced.max(writes);
    }

    /// The position and the length of the file, when its position is kept.
    ///
    /// # Errors
    /// Lines that were written are not there any more, or will not be. Another name is no reason: that is how a rotation
    /// begins, the file is found by its inode, and until SIGHUP it is the one to write to.
    fn whole(&self) -> Result<Option<(&Track, u64)>, String> {
        let (Some(track), Some(file)) = (&self.track, &self.file) else { return Ok(None) };
        let about = file.metadata().map_err(|error| cause(&error))?;
        if about.nlink() == 0 {
            return Err("was deleted, or another file was moved over it: what is written to it is gone. What was not \
                        committed comes again; begin another with --append. To rotate it, rename it and send SIGHUP"
                .to_owned());
        }
        if about.len() < track.offset() {
            let (bytes, offset) = (about.len(), track.offset());
            return Err(format!(
                "was cut: it has {bytes} bytes, and was written up to byte {offset}. What was not committed comes \
                 again; bring back what was there, or move it to another directory and begin another with --append"
            ));
        }
        Ok(Some((track, about.len())))
    }

    pub fn newlines_added(&self) -> u64 {
        self.newlines_added + self.sink.newlines_added()
    }

    pub fn is_stdout(&self) -> bool {
        self.path.is_none()
    }

    pub fn is_regular(&self) -> bool {
        self.file.is_some()
    }

    pub fn name(&self) -> String {
        self.path.as_ref().map_or_else(|| "standard output".to_owned(), |path| path.display().to_string())
    }
}

impl Outputs {
    /// Makes the outputs. They are no input and not each other: see [`refuse_collisions`].
    pub fn create(config: &Config, room: &mut Room) -> Result<Self, Failure> {
        Self::open(config, |path| Output::create(path, room))
    }

    /// Opens each file with `open`.
    pub fn open(config: &Config, mut open: impl FnMut(&Path) -> Result<Output, Failure>) -> Result<Self, Failure> {
        let mut open = |path: &Option<PathBuf>| path.as_deref().map(&mut open).transpose();
        Ok(Self {
            output: open(&config.output)?.map_or_else(Output::stdout, Ok)?,
            rejects: open(&config.rejects)?,
            duplicates: open(&config.duplicates)?,
            trust: Arc::default(),
        })
    }

    pub fn reopen(&mut self, room: &mut Room) -> Result<(), Failure> {
        self.all_mut().try_for_each(|output| output.reopen(room))
    }

    /// Puts all that was written to files on disk, and finds out whether it is there.
    pub fn sync(&mut self) -> Result<(), Failure> {
        let trust = Arc::clone(&self.trust);
        for output in self.all_mut() {
            if let Some((file, writes)) = output.unsynced() {
                trust.sync(file, &output.name())?;
                output.synced(writes);
            }
        }
        self.check()
    }

    /// Whether the files that have positions still hold what was written to them.
    pub fn check(&self) -> Result<(), Failure> {
        self.all().try_for_each(|output| self.whole(output).map(|_| ()))
    }

    fn whole<'o>(&self, output: &'o Output) -> Result<Option<(&'o Track, u64)>, Failure> {
        output.whole().map_err(|what| self.changed(output, &what))
    }

    fn changed(&self, output: &Output, what: &str) -> Failure {
        self.trust.lose(Failure::new(Exit::Io, "output_changed", format!("{} {what}", output.name())))
    }

    /// The positions of all outputs whose positions are kept.
    ///
    /// # Errors
    /// One of them is not whole, or somebody else writes to it: what is behind a position would not be ours alone.
    pub fn positions(&self, progress: &mut Progress) -> Result<(), Failure> {
        for output in self.all() {
            let Some((track, bytes)) = self.whole(output)? else { continue };
            if bytes != track.offset() {
                let what = "has more than was written: somebody else writes to it; give each writer a file of its own";
                return Err(self.changed(output, what));
            }
            track.position(progress);
        }
        Ok(())
    }

    pub fn newlines_added(&self) -> u64 {
        self.all().map(Output::newlines_added).sum()
    }

    pub fn all(&self) -> impl Iterator<Item = &Output> {
        std::iter::once(&self.output).chain(&self.rejects).chain(&self.duplicates)
    }

    pub fn all_mut(&mut self) -> impl Iterator<Item = &mut Output> {
        std::iter::once(&mut self.output).chain(&mut self.rejects).chain(&mut self.duplicates)
    }
}

pub fn cannot_create(path: &Path, error: &io::Error) -> Failure {
    // A full disk is told as one that is found while lines are written.
    let (exit, advice) = match is_full(error) {
        true => (Exit::Io, "; make room there, and run it again"),
        false => (Exit::CannotCreate, ""),
    };
    Failure::new(exit, "output", format!("cannot write {}: {}{advice}", path.display(), cause(error)))
}

/// How many of the first `bytes` bytes of these runs are whole lines.
fn whole_lines(buffer: &[u8], runs: &[Range<usize>], bytes: u64) -> u64 {
    let (out, _) = split(runs, bytes);
    let mut behind = 0;
    for run in out.iter().rev() {
        match buffer[run.clone()].iter().rposition(|&byte| byte == b'\n') {
            Some(at) => return bytes - behind - (run.len() - at - 1) as u64,
            None => behind += run.len() as u64,
        }
    }
    0
}

/// The first `bytes` bytes of these runs, and the rest.
fn split(runs: &[Range<usize>], bytes: u64) -> (Vec<Range<usize>>, Vec<Range<usize>>) {
    let mut left = usize::try_from(bytes).unwrap_or(usize::MAX);
    let halves = runs.iter().map(|run| {
        let at = run.start + left.min(run.len());
        left -= at - run.start;
        (run.start..at, at..run.end)
    });
    let (mut out, mut rest): (Vec<_>, Vec<_>) = halves.unzip();
    out.retain(|run| !run.is_empty());
    rest.retain(|run| !run.is_empty());
    (out, rest)
}

fn appends(file: &File) -> bool {
    use std::os::fd::AsRawFd;
    // SAFETY: the descriptor is open for the duration of the call, which has no other argument.
    let flags = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_GETFL) };
    flags != -1 && flags & libc::O_APPEND != 0
}

/// Two names for one file would empty an input, or write lines over each other.
pub fn refuse_collisions(config: &Config) -> Result<(), Failure> {
    let mut taken: Vec<(Identity, String)> = Vec::new();
    for input in &config.inputs {
        let identity = match input {
            Input::Stdin => Identity::of("/proc/self/fd/0".as_ref()),
            Input::File(path) => Identity::of(path),
        };
        taken.extend(identity.map(|identity| (identity, format!("the input {input}"))));
    }
    let named = [("--output", &config.output), ("--rejects", &config.rejects), ("--duplicates", &config.duplicates)];
    let stdout = config.output.is_none().then(|| ("standard output", Path::new("/proc/self/fd/1")));
    let named = named.iter().filter_map(|(flag, path)| path.as_deref().map(|path| (*flag, path)));
    for (flag, path) in stdout.into_iter().chain(named) {
        let Some(identity) = Identity::of(path) else { continue };
        if let Some((_, other)) = taken.iter().find(|(known, _)| *known == identity) {
            return Err(Failure::usage(format!("{flag} is {other}: name another file")));
        }
        taken.push((identity, if flag.starts_with('-') { format!("{flag} too") } else { flag.to_owned() }));
    }
    Ok(())
}

/// What a regular file is, whatever it is called; a path that is not there yet is known by its place.
#[derive(PartialEq, Eq)]
enum Identity {
    Inode(u64, u64),
    Place(PathBuf),
}

impl Identity {
    /// None for what may well be written by several: a pipe, a terminal, `/dev/null`.
    fn of(path: &Path) -> Option<Self> {
        match fs::metadata(path) {
            Ok(about) => about.is_file().then(|| Self::Inode(about.dev(), about.ino())),
            Err(_) => Some(Self::Place(absolute(path)?)),
        }
    }
}

/// The one name of `path`, whether it is there or not.
pub fn absolute(path: &Path) -> Option<PathBuf> {
    if let Ok(path) = path.canonicalize() {
        return Some(path);
    }
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    Some(parent.canonicalize().ok()?.join(path.file_name()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_write_that_was_cut_short_is_told_in_whole_lines() {
        let buffer = b"one\ntwo\nthree\nfour";
        let runs = [0..8, 8..18];
        for (bytes, whole) in [(0, 0), (3, 0), (4, 4), (7, 4), (8, 8), (9, 8), (13, 8), (14, 14), (17, 14)] {
            assert_eq!(whole_lines(buffer, &runs, bytes), whole, "{bytes}");
        }
        for (bytes, out, rest) in [
            (0, &runs[..0], &runs[..]),
            (8, &runs[..1], &runs[1..]),
            (10, &[0..8, 8..10], std::slice::from_ref(&(10..18))),
            (99, &runs, &[]),
        ] {
            assert_eq!(split(&runs, bytes), (out.to_vec(), rest.to_vec()), "{bytes}");
        }
    }
}
