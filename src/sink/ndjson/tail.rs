//! The end of what is out: whether it is a whole line, and how half a one is taken back.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::fd::AsRawFd;

use super::NdjsonSink;

impl NdjsonSink {
    /// Cuts the last `bytes` off, which are half a line. Where that cannot be done they stay, and the next line does not
    /// continue them.
    #[cold]
    pub(super) fn take_back(&mut self, bytes: u64) {
        if bytes == 0 || !self.is_regular {
            return;
        }
        let length = self.place.as_ref().map(|place| place.length);
        let is_cut = self.target().and_then(|target| cut(target, bytes, length)).is_ok();
        self.mid_line = !is_cut;
        if let Some(place) = &mut self.place {
            place.length -= if is_cut { bytes } else { 0 };
            place.has_half_line |= !is_cut;
        }
    }
}

/// Cuts the last `bytes` off what was written last, which ended at `length` when that is known.
///
/// # Errors
/// Somebody else has written behind them, or the file cannot be cut.
fn cut(mut target: &File, bytes: u64, length: Option<u64>) -> io::Result<()> {
    let end = target.metadata()?.len();
    let written = match length {
        Some(length) => length,
        None if appends(target) => end,
        None => target.stream_position()?,
    };
    if written != end {
        return Err(io::Error::other("somebody else writes to the file"));
    }
    target.set_len(end.saturating_sub(bytes))?;
    target.seek(SeekFrom::End(0)).map(drop)
}

/// Whether the byte before the place where `target` is written next exists and is not a newline. Only a regular file
/// can tell.
pub(super) fn ends_mid_line(target: &File) -> io::Result<bool> {
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
