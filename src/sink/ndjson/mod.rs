//! [`NdjsonSink`]: lines on a descriptor.

mod place;
mod tail;
mod write;

use std::borrow::Cow;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use self::place::{Place, sync_directory};
use self::write::{enlarge_pipe, line_pieces, whole};
use super::{Durable, FailureClass, Guarantees, Idempotency, Order, Sink, SinkError};
use crate::event::Event;

pub use write::WriteError;

/// Writes each payload as one line to standard output or a file.
///
/// Bytes are written as they are; a payload that does not end in a newline gets one. Writing is vectored, and goes on
/// after an interruption, a short write, or a full pipe whose descriptor somebody made non-blocking. Nothing is
/// buffered here: what was delivered is with the kernel.
///
/// A line never continues one that was there before: when the target ends without a newline, be it because a delivery
/// failed in the middle of a line, one is written first and counted. In a regular file half a line is cut off at once
/// instead, unless somebody else has written behind it.
///
/// # Failures
/// Each is [`FailureClass::Transient`], with the [`io::Error`] as its source: a descriptor that fails says nothing about
/// the event. That goes for a pipe whose reader is gone too ([`io::ErrorKind::BrokenPipe`]): a named one may get another,
/// and no event is to be given up because somebody has read enough. Who writes to files under a limit on their size
/// (`RLIMIT_FSIZE`) has to ignore `SIGXFSZ`, which would end the process.
///
/// # Exactly once
/// A regular file opened with [`NdjsonSink::file`] has a [position](Sink::position) and is cut back to it by
/// [`Sink::resume`]. Its [name](Sink::name) is its absolute path without symbolic links. The position is text:
///
/// ```text
/// v1 inode=132 device=2049 born=1763800000000000000 length=2048 crc32c=5e6f7a8b
/// ```
///
/// `born` is when the file was made, in nanoseconds since 1970, left out where the file system does not keep it; `length`
/// is how many bytes are out, and `crc32c` that of the last 4 KiB before. A file that was replaced, cut or edited
/// meanwhile is so noticed. What stands behind the position is taken back, whoever wrote it. Only one sink at a time may
/// write to such a file: [`Sink::position`] fails when somebody else does. A file that may be written and not read has no
/// position.
///
/// # Example
/// ```
/// use dedupd::sink::{NdjsonSink, Sink};
/// use dedupd::Event;
///
/// # let dir = tempfile::tempdir()?;
/// # let path = dir.path().join("events.ndjson");
/// let mut sink = NdjsonSink::file(&path)?;
/// sink.deliver(&[Event::new("evt_1", "{\"id\":\"evt_1\"}")])?;
/// let committed = sink.position()?;
/// sink.deliver(&[Event::new("evt_2", "{\"id\":\"evt_2\"}")])?; // and then the process is killed
///
/// let mut sink = NdjsonSink::file(&path)?;
/// sink.resume(committed.as_deref())?;
/// assert_eq!(std::fs::read(&path)?, b"{\"id\":\"evt_1\"}\n");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct NdjsonSink {
    /// Or why there is none, as the system's error number.
    target: Result<File, i32>,
    is_regular: bool,
    /// The last byte that is out is not a newline.
    mid_line: bool,
    newlines_added: u64,
    /// How far it was written, for a file that can be cut back to that.
    place: Option<Place>,
    /// The directory that the file may have been made in, until it is synced.
    unsynced_directory: Option<PathBuf>,
    /// A sync failed, with this error number: nobody knows what is on disk.
    sync_failed: Option<i32>,
}

impl NdjsonSink {
    /// What [`NdjsonSink::file`] promises for a regular file.
    pub const FILE: Guarantees = Guarantees::new(Idempotency::CutBack, Order::AsDelivered, Durable::AfterFlush);
    /// What it promises for a pipe, a socket or a terminal.
    pub const STREAM: Guarantees = Guarantees::new(Idempotency::None, Order::AsDelivered, Durable::HandedOver);

    /// Standard output: descriptor 1 itself, so that its offset, its flags and what it is stay as they were inherited.
    ///
    /// When it is closed, or no more descriptors can be had, each delivery says so. It has no position, not even as a file:
    /// under which name it is to be found by a later process is not known.
    #[must_use]
    pub fn stdout() -> Self {
        match io::stdout().as_fd().try_clone_to_owned() {
            Ok(descriptor) => Self::from(descriptor),
            Err(error) => Self::new(Err(error.raw_os_error().unwrap_or(libc::EBADF))),
        }
    }

    /// The file at `path`, from its end on; made when it does not exist.
    ///
    /// # Errors
    /// When it cannot be opened for writing.
    pub fn file(path: impl AsRef<Path>) -> io::Result<Self> {
        let path = path.as_ref();
        let file = File::options().append(true).create(true).open(path)?;
        let mut sink = Self::from(OwnedFd::from(file));
        if sink.is_regular {
            let path = path.canonicalize()?;
            sink.unsynced_directory = path.parent().map(Path::to_owned);
            sink.place = Place::at_end(sink.target()?, path)?;
        }
        Ok(sink)
    }

    /// The file at `path`, emptied; made when it does not exist. For what is written anew each time: it has no position.
    ///
    /// # Errors
    /// When it cannot be opened for writing.
    pub fn create(path: impl AsRef<Path>) -> io::Result<Self> {
        let mut sink = Self::from(OwnedFd::from(File::create(&path)?));
        if sink.is_regular {
            sink.unsynced_directory = path.as_ref().canonicalize()?.parent().map(Path::to_owned);
        }
        Ok(sink)
    }

    /// Has [`Sink::resume`] go on behind the end of a file in which no position was ever recorded, or which took the place of
    /// the one that has a position, instead of refusing it.
    #[must_use = "this returns the sink"]
    pub fn append_to_existing(mut self) -> Self {
        if let Some(place) = &mut self.place {
            place.appends_to_existing = true;
        }
        self
    }

    /// How many newlines were written that no payload had: see the type's documentation.
    #[must_use]
    pub fn newlines_added(&self) -> u64 {
        self.newlines_added
    }

    fn new(target: Result<File, i32>) -> Self {
        Self {
            target,
            is_regular: false,
            mid_line: false,
            newlines_added: 0,
            place: None,
            unsynced_directory: None,
            sync_failed: None,
        }
    }

    fn target(&self) -> io::Result<&File> {
        self.target.as_ref().map_err(|number| io::Error::from_raw_os_error(*number))
    }
}

impl Sink for NdjsonSink {
    fn deliver(&mut self, batch: &[Event<'_>]) -> Result<(), SinkError> {
        if batch.is_empty() {
            return Ok(());
        }
        let written = self.end_line().map_err(|error| (0, error.source));
        let written = written.and_then(|()| self.write(&mut batch.iter().flat_map(line_pieces)));
        written.map_err(|(bytes, source)| {
            let lengths = batch.iter().map(|event| line_pieces(event).iter().map(|piece| piece.len()).sum());
            let delivered = whole(lengths.clone(), bytes);
            self.take_back(bytes - lengths.take(delivered).map(|length: usize| length as u64).sum::<u64>());
            SinkError::rest(delivered..batch.len(), FailureClass::Transient).because(source)
        })
    }

    fn guarantees(&self) -> Guarantees {
        match (&self.place, self.is_regular) {
            (Some(_), _) => Self::FILE,
            (None, true) => Guarantees { idempotency: Idempotency::None, ..Self::FILE },
            (None, false) => Self::STREAM,
        }
    }

    /// Asks the kernel to put the file's bytes on its disk, and at the first time its directory too. A pipe, a socket or a
    /// terminal has none: nothing is done.
    ///
    /// # Errors
    /// Once it has failed it fails for good: the kernel forgets what it could not write, so that a later success would
    /// say nothing. What was delivered since the last success is to be delivered again to a sink that is opened anew.
    fn flush(&mut self) -> Result<(), SinkError> {
        if let Some(number) = self.sync_failed {
            return Err(SinkError::other(io::Error::from_raw_os_error(number)));
        }
        match self.target().and_then(File::sync_data) {
            Err(error) if error.raw_os_error() != Some(libc::EINVAL) => {
                self.sync_failed = Some(error.raw_os_error().unwrap_or(libc::EIO));
                return Err(SinkError::other(error));
            }
            _ => {}
        }
        if let Some(directory) = &self.unsynced_directory {
            sync_directory(directory).map_err(SinkError::other)?;
            self.unsynced_directory = None;
        }
        Ok(())
    }

    fn name(&self) -> Cow<'_, [u8]> {
        Cow::Borrowed(self.place.as_ref().map_or(b"ndjson", |place| place.path.as_os_str().as_bytes()))
    }

    fn position(&mut self) -> Result<Option<Vec<u8>>, SinkError> {
        let Some(place) = &self.place else { return Ok(None) };
        let position = self.target().map_err(|error| error.to_string()).and_then(|target| place.position(target));
        position.map(Some).map_err(SinkError::other)
    }

    fn resume(&mut self, position: Option<&[u8]>) -> Result<(), SinkError> {
        let target = self.target.as_ref().map_err(|number| SinkError::other(io::Error::from_raw_os_error(*number)))?;
        match (&mut self.place, position) {
            (Some(place), position) => place.resume(target, position).map_err(SinkError::other)?,
            (None, None) => return Ok(()),
            (None, Some(_)) => {
                return Err(SinkError::other("what has a position is no file that can be cut back any more"));
            }
        }
        self.mid_line = tail::ends_mid_line(target).unwrap_or(false);
        Ok(())
    }
}

impl From<OwnedFd> for NdjsonSink {
    fn from(descriptor: OwnedFd) -> Self {
        let target = File::from(descriptor);
        enlarge_pipe(&target);
        let is_regular = target.metadata().is_ok_and(|about| about.is_file());
        let mid_line = tail::ends_mid_line(&target).unwrap_or(false);
        Self { is_regular, mid_line, ..Self::new(Ok(target)) }
    }
}

#[cfg(test)]
mod tests;
