//! The read role: fills chunks with whole lines. One thread at a time.
//!
//! A line that has arrived is passed on as soon as no more bytes are there, so an idle input holds nothing back. A line
//! that is longer than allowed is passed on in parts, so it takes no more memory than the longest allowed one.

use std::io::ErrorKind;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mio::{Events, Poll, Token};

use super::chunk::{Chunk, Shape};
use super::control::Control;
use super::input::Open;
use crate::config::Input;
use crate::exit::{Exit, Failure, cause};
use crate::log::Log;

pub struct Reader {
    inputs: Vec<Input>,
    /// Inputs begun so far; the open one is the last of them.
    begun: usize,
    open: Option<Open>,
    /// What came after the last newline.
    tail: Vec<u8>,
    /// Where in the input the next chunk starts.
    offset: u64,
    /// In the middle of a line that is longer than allowed.
    in_long_line: bool,
    line_bytes_max: usize,
    /// Why reading ends, once what was read before is passed on.
    failed: Option<Failure>,
    poll: Poll,
    events: Events,
    control: Arc<Control>,
    log: Log,
}

/// What filling a chunk came to.
#[derive(Debug, PartialEq, Eq)]
pub enum Filled {
    Chunk,
    /// All inputs have ended, or the reader was told to stop.
    End,
}

/// What one read came to.
enum Step {
    Bytes,
    /// Nothing is there now.
    Idle,
    /// The input has ended; there may be another.
    InputEnd,
    /// There is no other, or the reader was told to stop.
    End,
    /// Reading failed; why is told at the next filling.
    Failed,
}

impl Reader {
    pub fn new(inputs: Vec<Input>, line_bytes_max: usize, poll: Poll, control: Arc<Control>, log: Log) -> Self {
        Self {
            inputs,
            begun: 0,
            open: None,
            tail: Vec::new(),
            offset: 0,
            in_long_line: false,
            line_bytes_max,
            failed: None,
            poll,
            events: Events::with_capacity(8),
            control,
            log,
        }
    }

    /// Fills `chunk` with what comes next. What was read before an error is passed on before it.
    pub fn fill(&mut self, chunk: &mut Chunk) -> Result<Filled, Failure> {
        if let Some(failure) = self.failed.take() {
            self.warn_unfinished(self.tail.len());
            return Err(failure);
        }
        chunk.reset(CHUNK_BYTES);
        chunk.append(&self.tail);
        self.tail.clear();
        if self.in_long_line && self.fill_long_line(chunk)? == Filled::Chunk {
            return Ok(Filled::Chunk);
        }
        self.fill_lines(chunk)
    }

    fn fill_lines(&mut self, chunk: &mut Chunk) -> Result<Filled, Failure> {
        let started = Instant::now();
        let mut end = after_last_newline(chunk.bytes());
        loop {
            let before = chunk.bytes().len();
            match self.step(chunk, end.is_some())? {
                Step::Bytes => {
                    end = after_last_newline(&chunk.bytes()[before..]).map(|at| before + at).or(end);
                    match end {
                        Some(end) if self.is_enough(chunk, started) => return Ok(self.pass(chunk, end, Shape::Lines)),
                        None if self.is_too_long(chunk.bytes()) => {
                            self.in_long_line = true;
                            return Ok(self.pass(chunk, chunk.bytes().len(), Shape::Part { first: true }));
                        }
                        _ => {}
                    }
                }
                Step::Idle => match end {
                    Some(end) => return Ok(self.pass(chunk, end, Shape::Lines)),
                    None => self.wait()?,
                },
                Step::InputEnd if chunk.is_empty() => self.offset = 0,
                Step::InputEnd => return Ok(self.pass_last(chunk, Shape::Lines)),
                Step::End => return Ok(self.stop(chunk, end)),
                Step::Failed => return Ok(self.pass(chunk, end.unwrap_or(0), Shape::Lines)),
            }
        }
    }

    /// Whether `bytes`, in which no line ends, begin a line that is longer than allowed. A byte order mark, or what has
    /// come of it, is no part of it.
    fn is_too_long(&self, bytes: &[u8]) -> bool {
        let mark = &bytes[..bytes.len().min(BYTE_ORDER_MARK.len())];
        let has_mark = self.offset == 0 && BYTE_ORDER_MARK.starts_with(mark);
        bytes.len() - if has_mark { mark.len() } else { 0 } > self.line_bytes_max
    }

    /// Passes on the next part of a line that is too long. [`Filled::End`] says that the line has ended without any.
    fn fill_long_line(&mut self, chunk: &mut Chunk) -> Result<Filled, Failure> {
        let part = Shape::Part { first: false };
        let mut scanned = 0;
        loop {
            if let Some(at) = chunk.bytes()[scanned..].iter().position(|&byte| byte == b'\n') {
                self.in_long_line = false;
                return Ok(self.pass(chunk, scanned + at + 1, part));
            }
            scanned = chunk.bytes().len();
            if scanned >= CHUNK_BYTES {
                return Ok(self.pass(chunk, scanned, part));
            }
            match self.step(chunk, scanned > 0)? {
                Step::Bytes => {}
                Step::Failed => return Ok(self.pass(chunk, scanned, part)),
                Step::Idle if scanned == 0 => self.wait()?,
                Step::Idle => return Ok(self.pass(chunk, scanned, part)),
                Step::InputEnd | Step::End => {
                    self.in_long_line = false;
                    if scanned == 0 {
                        self.offset = 0;
                        return Ok(Filled::End);
                    }
                    return Ok(self.pass_last(chunk, part));
                }
            }
        }
    }

    /// Opens the next input when none is open, and reads once. When that fails while the chunk has something to pass on,
    /// the failure waits.
    fn step(&mut self, chunk: &mut Chunk, has_some: bool) -> Result<Step, Failure> {
        match self.read(chunk) {
            Err(failure) if has_some => {
                self.failed = Some(failure);
                Ok(Step::Failed)
            }
            step => step,
        }
    }

    fn read(&mut self, chunk: &mut Chunk) -> Result<Step, Failure> {
        if self.control.is_stopping() {
            return Ok(Step::End);
        }
        if self.open.is_none() && !self.open_next()? {
            return Ok(Step::End);
        }
        let Some(open) = self.open.as_mut().filter(|open| !open.wait_first) else { return Ok(Step::Idle) };
        match open.read(chunk.room(CHUNK_BYTES)) {
            Ok(0) => {
                if let Some(open) = self.open.take() {
                    open.close(self.poll.registry());
                }
                Ok(Step::InputEnd)
            }
            Ok(count) => {
                chunk.filled(count);
                Ok(Step::Bytes)
            }
            Err(error) => match error.kind() {
                ErrorKind::WouldBlock => Ok(Step::Idle),
                ErrorKind::Interrupted => Ok(Step::Bytes),
                _ => Err(self.failure(&error)),
            },
        }
    }

    fn open_next(&mut self) -> Result<bool, Failure> {
        let Some(input) = self.inputs.get(self.begun) else { return Ok(false) };
        self.open = Some(Open::new(input, self.poll.registry(), INPUT)?);
        self.begun += 1;
        Ok(true)
    }

    /// Waits for bytes, or for somebody who wants the reader to stop.
    fn wait(&mut self) -> Result<(), Failure> {
        match self.poll.poll(&mut self.events, None) {
            Err(error) if error.kind() != ErrorKind::Interrupted => return Err(self.failure(&error)),
            _ => {}
        }
        if let Some(open) = &mut self.open
            && self.events.iter().any(|event| event.token() == INPUT)
        {
            open.wait_first = false;
        }
        Ok(())
    }

    /// Whether `chunk`, which has a newline, is passed on although more may be there.
    fn is_enough(&self, chunk: &Chunk, started: Instant) -> bool {
        chunk.bytes().len() >= CHUNK_BYTES
            || !self.open.as_ref().is_some_and(Open::may_block)
            || started.elapsed() >= FILL_MAX
    }

    /// Passes on the first `end` bytes of `chunk`, and keeps the rest for the next.
    fn pass(&mut self, chunk: &mut Chunk, end: usize, shape: Shape) -> Filled {
        chunk.cut(end, &mut self.tail);
        chunk.shape = shape;
        chunk.input = self.begun.saturating_sub(1);
        chunk.offset = self.offset;
        self.offset += end as u64;
        Filled::Chunk
    }

    /// Passes on all that is left of the input.
    fn pass_last(&mut self, chunk: &mut Chunk, shape: Shape) -> Filled {
        let filled = self.pass(chunk, chunk.bytes().len(), shape);
        self.offset = 0;
        filled
    }

    /// Passes on the whole lines at hand, then ends. A line whose end has not arrived is no event.
    fn stop(&mut self, chunk: &mut Chunk, end: Option<usize>) -> Filled {
        if let Some(end) = end {
            return self.pass(chunk, end, Shape::Lines);
        }
        self.warn_unfinished(chunk.bytes().len());
        Filled::End
    }

    fn warn_unfinished(&self, bytes: usize) {
        if bytes > 0 && !self.in_long_line {
            self.log.warning("unfinished_line", format!("stopped {bytes} bytes into a line, which is not written"));
        }
    }

    fn failure(&self, error: &std::io::Error) -> Failure {
        let input = &self.inputs[self.begun.saturating_sub(1)];
        let exit = if error.kind() == ErrorKind::IsADirectory { Exit::NoInput } else { Exit::Io };
        Failure::new(exit, "input", format!("cannot read {input} on: {}", cause(error)))
    }
}

fn after_last_newline(bytes: &[u8]) -> Option<usize> {
    bytes.iter().rposition(|&byte| byte == b'\n').map(|at| at + 1)
}

/// The waker's token is the other one.
const INPUT: Token = Token(0);
pub const WAKER: Token = Token(1);
/// Large enough that a chunk's overhead does not matter, small enough to stay in the cache on its way through.
pub const CHUNK_BYTES: usize = 256 << 10;
const BYTE_ORDER_MARK: &[u8] = b"\xEF\xBB\xBF";
/// A source that never pauses is not waited for longer than this.
const FILL_MAX: Duration = Duration::from_millis(1);
