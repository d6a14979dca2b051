//! [`NdjsonSink`]: lines on a descriptor.

use std::fs::File;
use std::io::{self, IoSlice, Read, Seek, SeekFrom, Write};
use std::ops::Range;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::FileTypeExt;
use std::path::Path;

use super::{Durable, FailureClass, Guarantees, Idempotency, Order, Sink, SinkError};
use crate::event::Event;

/// Writes each payload as one line to standard output or a file.
///
/// Bytes are written as they are; a payload that does not end in a newline gets one. Writing is vectored, and goes on
/// after an interruption, a short write, or a full pipe whose descriptor somebody made non-blocking. Nothing is
/// buffered here: what was delivered is with the kernel.
///
/// A line never continues one that was there before: when the target ends without a newline, be it because a delivery
/// failed in the middle of a line, one is written first and counted.
///
/// # Example
/// ```
/// use dedupd::sink::{NdjsonSink, Sink};
/// use dedupd::Event;
///
/// # let dir = tempfile::tempdir()?;
/// # let path = dir.path().join("events.ndjson");
/// let mut sink = NdjsonSink::create(&path)?;
/// sink.deliver(&[Event::new("evt_1", "{\"id\":\"evt_1\"}")])?;
/// assert_eq!(std::fs::read(&path)?, b"{\"id\":\"evt_1\"}\n");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct NdjsonSink {
    /// Or why there is none, as the system's error number.
    target: Result<File, i32>,
    /// The last byte that is out is not a newline.
    mid_line: bool,
    newlines_added: u64,
}

impl NdjsonSink {
    /// Standard output: descriptor 1 itself, so that its offset, its flags and what it is stay as they were inherited.
    ///
    /// When it is closed, or no more descriptors can be had, each delivery says so.
    #[must_use]
    pub fn stdout() -> Self {
        match io::stdout().as_fd().try_clone_to_owned() {
            Ok(descriptor) => Self::from(descriptor),
            Err(error) => {
                let number = error.raw_os_error().unwrap_or(libc::EBADF);
                Self { target: Err(number), mid_line: false, newlines_added: 0 }
            }
        }
    }

    /// The file at `path`, from its end on; made when it does not exist.
    ///
    /// # Errors
    /// When it cannot be opened for writing.
    pub fn file(path: impl AsRef<Path>) -> io::Result<Self> {
        Ok(Self::from(OwnedFd::from(File::options().append(true).create(true).open(path)?)))
    }

    /// The file at `path`, emptied; made when it does not exist.
    ///
    /// # Errors
    /// When it cannot be opened for writing.
    pub fn create(path: impl AsRef<Path>) -> io::Result<Self> {
        Ok(Self::from(OwnedFd::from(File::create(path)?)))
    }

    /// How many newlines were written that no payload had: see the type's documentation.
    #[must_use]
    pub fn newlines_added(&self) -> u64 {
        self.newlines_added
    }

    /// Writes the lines of `buffer` that stand at `runs`, in this order; they need not be events. Each run holds whole
    /// lines; the last line may lack its newline.
    ///
    /// # Errors
    /// [`WriteError`] whose `runs` counts those that are out whole.
    ///
    /// # Panics
    /// When a run does not lie in `buffer`, as slicing does.
    pub fn write_lines(&mut self, buffer: &[u8], runs: &[Range<usize>]) -> Result<(), WriteError> {
        if runs.iter().all(|run| run.is_empty()) {
            return Ok(());
        }
        self.end_line()?;
        self.write(&mut runs.iter().map(|run| &buffer[run.clone()])).map_err(|(bytes, source)| WriteError {
            runs: whole(runs.iter().map(Range::len), bytes),
            bytes,
            source,
        })
    }

    /// Writes the next part of a line that comes in parts; without looking where the last one ended.
    ///
    /// # Errors
    /// As [`NdjsonSink::write_lines`].
    pub fn write_part(&mut self, part: &[u8]) -> Result<(), WriteError> {
        self.write(&mut [part].into_iter()).map_err(|(bytes, source)| WriteError { runs: 0, bytes, source })
    }

    /// Writes the newline that is missing at the end of what is out, if one is.
    ///
    /// # Errors
    /// As [`NdjsonSink::write_lines`].
    pub fn end_line(&mut self) -> Result<(), WriteError> {
        if self.mid_line {
            let newline: &[u8] = b"\n";
            self.write(&mut [newline].into_iter()).map_err(|(_, source)| WriteError { runs: 0, bytes: 0, source })?;
            self.newlines_added += 1;
        }
        Ok(())
    }

    fn target(&self) -> io::Result<&File> {
        self.target.as_ref().map_err(|number| io::Error::from_raw_os_error(*number))
    }

    /// Writes all of `pieces`, or says how many of their bytes are out.
    fn write(&mut self, pieces: &mut dyn Iterator<Item = &[u8]>) -> Result<(), (u64, io::Error)> {
        let mut out = 0;
        loop {
            let mut slices = [IoSlice::new(&[]); SLICES_MAX];
            let mut count = 0;
            for (slot, piece) in slices.iter_mut().zip(&mut *pieces) {
                *slot = IoSlice::new(piece);
                count += 1;
            }
            if count == 0 {
                return Ok(());
            }
            self.write_slices(&mut slices[..count], &mut out).map_err(|error| (out, error))?;
        }
    }

    fn write_slices(&mut self, mut slices: &mut [IoSlice<'_>], out: &mut u64) -> io::Result<()> {
        IoSlice::advance_slices(&mut slices, 0);
        while !slices.is_empty() {
            match self.target()?.write_vectored(slices) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(bytes) => {
                    *out += bytes as u64;
                    self.mid_line = byte_at(slices, bytes - 1) != Some(b'\n');
                    IoSlice::advance_slices(&mut slices, bytes);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => wait_writable(self.target()?)?,
                Err(error) => return Err(error),
            }
        }
        Ok(())
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
            SinkError::rest(whole(lengths, bytes)..batch.len(), FailureClass::Transient).because(source)
        })
    }

    fn guarantees(&self) -> Guarantees {
        Guarantees::new(Idempotency::None, Order::AsDelivered, Durable::AfterFlush)
    }

    /// Asks the kernel to put the file's bytes on its disk. A pipe, a socket or a terminal has none: nothing is done.
    fn flush(&mut self) -> Result<(), SinkError> {
        match self.target().and_then(File::sync_data) {
            Err(error) if error.raw_os_error() != Some(libc::EINVAL) => Err(SinkError::other(error)),
            _ => Ok(()),
        }
    }
}

/// Lines that were written part of the way.
#[derive(Debug, thiserror::Error)]
#[error("{bytes} bytes were written, then writing failed")]
#[non_exhaustive]
pub struct WriteError {
    /// How many of the runs are out whole, from the start.
    pub runs: usize,
    /// How many bytes are out, from the start; more than those of `runs` when a line was cut.
    pub bytes: u64,
    /// Why the rest is not.
    pub source: io::Error,
}

impl WriteError {
    /// `bytes` are out, and no whole run that anybody should count on.
    #[must_use]
    pub fn new(bytes: u64, source: io::Error) -> Self {
        Self { runs: 0, bytes, source }
    }

    /// The stable name of this error.
    #[must_use]
    pub fn code(&self) -> &'static str {
        "sink_io"
    }

    /// Whether the same may be written later.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        self.source.kind() == io::ErrorKind::StorageFull
    }
}

impl From<OwnedFd> for NdjsonSink {
    fn from(descriptor: OwnedFd) -> Self {
        let target = File::from(descriptor);
        enlarge_pipe(&target);
        let mid_line = ends_mid_line(&target).unwrap_or(false);
        Self { target: Ok(target), mid_line, newlines_added: 0 }
    }
}

/// The payload and the newline that it may lack.
fn line_pieces<'a>(event: &Event<'a>) -> [&'a [u8]; 2] {
    let payload = event.payload();
    [payload, if payload.ends_with(b"\n") { b"" } else { b"\n" }]
}

/// How many of the things with these lengths fit into the first `bytes` bytes.
fn whole(lengths: impl Iterator<Item = usize>, bytes: u64) -> usize {
    let mut end = 0;
    lengths
        .take_while(|&length| {
            end += length as u64;
            end <= bytes
        })
        .count()
}

fn byte_at(slices: &[IoSlice<'_>], mut at: usize) -> Option<u8> {
    slices.iter().find_map(|slice| {
        let byte = slice.get(at).copied();
        at = at.wrapping_sub(slice.len());
        byte
    })
}

/// Whether the byte before the place where `target` is written next exists and is not a newline. Only a regular file
/// can tell.
fn ends_mid_line(target: &File) -> io::Result<bool> {
    let about = target.metadata()?;
    if !about.is_file() || about.len() == 0 {
        return Ok(false);
    }
    let end = if appends(target) { about.len() } else { (&*target).stream_position()? };
    if end == 0 {
        return Ok(false);
    }
    let mut reader = File::open(format!("/proc/self/fd/{}", target.as_raw_fd()))?;
    reader.seek(SeekFrom::Start(end - 1))?;
    let mut last = [0];
    reader.read_exact(&mut last)?;
    Ok(last != *b"\n")
}

fn appends(target: &File) -> bool {
    // SAFETY: the descriptor is open for the duration of the call, which has no other argument.
    let flags = unsafe { libc::fcntl(target.as_raw_fd(), libc::F_GETFL) };
    flags != -1 && flags & libc::O_APPEND != 0
}

/// Waits until `target` takes bytes again, or has failed: the next write tells which.
fn wait_writable(target: &File) -> io::Result<()> {
    let mut wanted = libc::pollfd { fd: target.as_raw_fd(), events: libc::POLLOUT, revents: 0 };
    // SAFETY: `wanted` is one valid, exclusively borrowed pollfd for the duration of the call.
    match unsafe { libc::poll(&raw mut wanted, 1, -1) } {
        -1 => Some(io::Error::last_os_error()).filter(|e| e.kind() != io::ErrorKind::Interrupted).map_or(Ok(()), Err),
        _ => Ok(()),
    }
}

/// Asks for a pipe of 1 MiB: fewer, longer writes. A refusal (a limit, not a pipe) changes nothing.
#[cfg(target_os = "linux")]
fn enlarge_pipe(target: &File) {
    if target.metadata().is_ok_and(|about| about.file_type().is_fifo()) {
        // SAFETY: the descriptor is open for the duration of the call; the argument is a plain number.
        unsafe { libc::fcntl(target.as_raw_fd(), libc::F_SETPIPE_SZ, PIPE_BYTES) };
    }
}

#[cfg(not(target_os = "linux"))]
fn enlarge_pipe(_target: &File) {}

/// What one vectored write takes at most on Linux.
const SLICES_MAX: usize = 1024;
#[cfg(target_os = "linux")]
const PIPE_BYTES: libc::c_int = 1 << 20;

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn pipe() -> (std::io::PipeReader, NdjsonSink) {
        let (reader, writer) = io::pipe().unwrap();
        (reader, NdjsonSink::from(OwnedFd::from(writer)))
    }

    #[test]
    fn payloads_become_lines() {
        let (mut reader, mut sink) = pipe();
        sink.deliver(&[Event::new("a", "one"), Event::new("b", "two\n"), Event::new("c", "")]).unwrap();
        drop(sink);
        let mut out = String::new();
        reader.read_to_string(&mut out).unwrap();
        assert_eq!(out, "one\ntwo\n\n");
    }

    #[test]
    fn more_pieces_than_one_call_takes_all_arrive() {
        let (mut reader, mut sink) = pipe();
        let pieces: Vec<String> = (0..3 * SLICES_MAX).map(|n| format!("{n}\n")).collect();
        let expected = pieces.concat();
        let buffer = expected.clone().into_bytes();
        let mut end = 0;
        let runs: Vec<_> = pieces
            .iter()
            .map(|piece| {
                end..{
                    end += piece.len();
                    end
                }
            })
            .collect();
        let reading = std::thread::spawn(move || {
            let mut out = String::new();
            reader.read_to_string(&mut out).unwrap();
            out
        });
        sink.write_lines(&buffer, &runs).unwrap();
        drop(sink);
        assert_eq!(reading.join().unwrap(), expected);
    }

    #[test]
    fn a_line_never_continues_an_unfinished_one() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("out");
        std::fs::write(&path, "half").unwrap();
        let mut sink = NdjsonSink::file(&path).unwrap();
        sink.write_lines(b"", &[]).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"half");
        sink.write_lines(b"one\nnot\ntwo", &[0..4, 8..11]).unwrap();
        sink.write_lines(b"three\n", std::slice::from_ref(&(0..6))).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"half\none\ntwo\nthree\n");
        assert_eq!(sink.newlines_added(), 2);
    }

    #[test]
    fn parts_of_one_line_are_not_torn_apart() {
        let (mut reader, mut sink) = pipe();
        sink.end_line().unwrap();
        for part in [&b"ab"[..], b"cd", b"ef\n"] {
            sink.write_part(part).unwrap();
        }
        drop(sink);
        let mut out = String::new();
        reader.read_to_string(&mut out).unwrap();
        assert_eq!(out, "abcdef\n");
    }

    #[test]
    fn a_failed_delivery_says_how_far_it_got() {
        let full = File::options().write(true).open("/dev/full").unwrap();
        let mut sink = NdjsonSink::from(OwnedFd::from(full));
        let error = sink.deliver(&[Event::new("a", "one")]).unwrap_err();
        assert_eq!(error.failures(), [(0, FailureClass::Transient)]);
        assert_eq!(whole([4, 4, 4].into_iter(), 7), 1);
        assert_eq!(whole([4, 4, 4].into_iter(), 8), 2);
    }

    #[test]
    fn a_full_pipe_that_does_not_block_is_waited_for() {
        let (mut reader, mut sink) = pipe();
        // SAFETY: the descriptor is open, and the flag is a plain number.
        unsafe { libc::fcntl(sink.target().unwrap().as_raw_fd(), libc::F_SETFL, libc::O_NONBLOCK) };
        let line = [vec![b'x'; 1 << 16], b"\n".to_vec()].concat();
        let expected = line.len() * 40;
        let reading = std::thread::spawn(move || io::copy(&mut reader, &mut io::sink()).unwrap());
        for _ in 0..40 {
            sink.write_lines(&line, std::slice::from_ref(&(0..line.len()))).unwrap();
        }
        drop(sink);
        assert_eq!(reading.join().unwrap(), expected as u64);
    }

    #[test]
    fn standard_output_opened_without_appending_is_judged_at_its_offset() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"line\nhalf").unwrap();
        assert!(ends_mid_line(&file).unwrap());
        file.seek(SeekFrom::Start(5)).unwrap();
        assert!(!ends_mid_line(&file).unwrap());
    }
}
