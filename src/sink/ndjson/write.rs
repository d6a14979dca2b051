//! Writing: vectored, over interruptions, short writes and full pipes.

use std::fs::File;
use std::io::{self, IoSlice, Write};
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileTypeExt;

use super::NdjsonSink;
use crate::event::Event;

impl NdjsonSink {
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

    /// Writes all of `pieces`, or says how many of their bytes are out.
    pub(super) fn write(&mut self, pieces: &mut dyn Iterator<Item = &[u8]>) -> Result<(), (u64, io::Error)> {
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
                    if let Some(place) = &mut self.place {
                        place.length += bytes as u64;
                    }
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

/// The payload and the newline that it may lack.
pub(super) fn line_pieces<'a>(event: &Event<'a>) -> [&'a [u8]; 2] {
    let payload = event.payload();
    [payload, if payload.ends_with(b"\n") { b"" } else { b"\n" }]
}

/// How many of the things with these lengths fit into the first `bytes` bytes.
pub(super) fn whole(lengths: impl Iterator<Item = usize>, bytes: u64) -> usize {
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
pub(super) fn enlarge_pipe(target: &File) {
    if target.metadata().is_ok_and(|about| about.file_type().is_fifo()) {
        // SAFETY: the descriptor is open for the duration of the call; the argument is a plain number.
        unsafe { libc::fcntl(target.as_raw_fd(), libc::F_SETPIPE_SZ, PIPE_BYTES) };
    }
}

#[cfg(not(target_os = "linux"))]
pub(super) fn enlarge_pipe(_target: &File) {}

/// What one vectored write takes at most on Linux.
pub(super) const SLICES_MAX: usize = 1024;
#[cfg(target_os = "linux")]
const PIPE_BYTES: libc::c_int = 1 << 20;
