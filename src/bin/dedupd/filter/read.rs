//! The read role: fills chunks with whole lines. One thread at a time.
//!
//! A line that has arrived is passed on as soon as no more bytes are there, so an idle input holds nothing back. A line
//! that is longer than allowed is passed on in parts, so it takes no more memory than the longest allowed one.
//!
//! Inputs are read one after the other. Those that are followed have no end, so they take turns: each gives the whole
//! lines that it has. Only a line that comes in parts is waited for, as no other may come between them.

use std::io::ErrorKind;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mio::{Events, Poll, Token};

use super::chunk::{Chunk, Shape};
use super::control::Control;
use super::feed::{Feed, is_there};
use super::follow::{AtEnd, LOOK_EVERY};
use super::input::Open;
use super::source::Sources;
use crate::config::Input;
use crate::exit::{Exit, Failure, cause};
use crate::log::Log;

pub struct Reader {
    feeds: Vec<Feed>,
    /// The one that is read.
    at: usize,
    follow: bool,
    /// Where files are read from, when their positions are kept.
    sources: Option<Sources>,
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
    /// A followed file is shorter than what was read of it.
    Truncated,
    /// There is no other, or the reader was told to stop.
    End,
    /// Reading failed; why is told at the next filling.
    Failed,
}

/// What filling from one of several followed inputs came to.
enum Turn {
    Chunk,
    Nothing,
    End,
}

impl Reader {
    pub fn new(
        inputs: &[Input],
        follow: bool,
        sources: Option<Sources>,
        line_bytes_max: usize,
        poll: Poll,
        control: Arc<Control>,
        log: Log,
    ) -> Self {
        let feeds = inputs.iter().cloned().map(Feed::new).collect();
        let events = Events::with_capacity(8);
        Self { feeds, at: 0, follow, sources, line_bytes_max, failed: None, poll, events, control, log }
    }

    /// Fills `chunk` with what comes next. What was read before an error is passed on before it.
    pub fn fill(&mut self, chunk: &mut Chunk) -> Result<Filled, Failure> {
        if let Some(failure) = self.failed.take() {
            self.feeds.iter().for_each(|feed| self.warn_unfinished(feed, feed.tail.len()));
            return Err(failure);
        }
        loop {
            let turn = if self.take_turns() { self.fill_from_any(chunk) } else { self.fill_from(chunk) };
            match turn? {
                Turn::Chunk => return Ok(Filled::Chunk),
                Turn::End => return Ok(Filled::End),
                Turn::Nothing => self.wait()?,
            }
        }
    }

    /// Whether nothing from one input means that another is asked.
    fn take_turns(&self) -> bool {
        self.follow && self.feeds.len() > 1
    }

    /// Gives each input its turn, the one after the last first.
    fn fill_from_any(&mut self, chunk: &mut Chunk) -> Result<Turn, Failure> {
        let count = self.feeds.len();
        for _ in 0..count {
            if !self.feed().in_long_line {
                self.at = (self.at + 1) % count;
            }
            if !self.has_news()? {
                continue;
            }
            match self.fill_from(chunk)? {
                Turn::Nothing if self.feed().in_long_line => return Ok(Turn::Nothing),
                Turn::Nothing => {}
                Turn::End => self.feed_mut().has_ended = true,
                Turn::Chunk => return Ok(Turn::Chunk),
            }
        }
        Ok(if self.feeds.iter().all(|feed| feed.has_ended) { Turn::End } else { Turn::Nothing })
    }

    /// Whether it is worth to go on with the present input. Half of a long line is not copied time and again; whole lines
    /// behind one that was too long are passed on, whether more comes or not.
    fn has_news(&mut self) -> Result<bool, Failure> {
        let feed = self.feed();
        let is_small = feed.tail.len() < TAIL_COPIED_MAX;
        if feed.has_ended || is_small || feed.tail_arrived.is_some() || self.control.is_stopping() {
            return Ok(!feed.has_ended);
        }
        let at_end = self.feed_mut().open.as_mut().map_or(Ok(None), Open::at_end);
        let at_end = at_end.map_err(|error| self.failure(&error))?;
        Ok(at_end != Some(AtEnd::Nothing))
    }

    fn fill_from(&mut self, chunk: &mut Chunk) -> Result<Turn, Failure> {
        chunk.reset(CHUNK_BYTES);
        let feed = self.feed_mut();
        chunk.append(&feed.tail);
        feed.tail.clear();
        if feed.in_long_line {
            match self.fill_long_line(chunk)? {
                Turn::End => {}
                turn => return Ok(turn),
            }
        }
        self.fill_lines(chunk)
    }

    fn fill_lines(&mut self, chunk: &mut Chunk) -> Result<Turn, Failure> {
        let started = Instant::now();
        let mut end = after_last_newline(chunk.bytes());
        chunk.arrived = self.feed_mut().tail_arrived.take().filter(|_| end.is_some());
        loop {
            let before = chunk.bytes().len();
            match self.step(chunk, end.is_some())? {
                Step::Bytes => {
                    end = after_last_newline(&chunk.bytes()[before..]).map(|at| before + at).or(end);
                    if end.is_some() {
                        chunk.arrived.get_or_insert_with(Instant::now);
                    }
                    match end {
                        Some(end) if self.is_enough(chunk, started) => return Ok(self.pass(chunk, end, Shape::Lines)),
                        None if self.is_too_long(chunk.bytes()) => {
                            self.feed_mut().in_long_line = true;
                            return Ok(self.pass(chunk, chunk.bytes().len(), Shape::Part { first: true }));
                        }
                        _ => {}
                    }
                }
                Step::Idle | Step::Truncated if end.is_some() => {
                    return Ok(self.pass(chunk, end.unwrap_or(0), Shape::Lines));
                }
                Step::Idle if self.take_turns() => {
                    chunk.cut(0, &mut self.feed_mut().tail);
                    return Ok(Turn::Nothing);
                }
                Step::Idle => self.wait()?,
                Step::Truncated => self.start_over(chunk)?,
                Step::InputEnd if chunk.is_empty() => {}
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
        let has_mark = self.feed().offset == 0 && BYTE_ORDER_MARK.starts_with(mark);
        bytes.len() - if has_mark { mark.len() } else { 0 } > self.line_bytes_max
    }

    /// Passes on the next part of a line that is too long. [`Turn::End`] says that the line has ended without any.
    fn fill_long_line(&mut self, chunk: &mut Chunk) -> Result<Turn, Failure> {
        let part = Shape::Part { first: false };
        let mut scanned = 0;
        loop {
            if let Some(at) = chunk.bytes()[scanned..].iter().position(|&byte| byte == b'\n') {
                let feed = self.feed_mut();
                (feed.in_long_line, feed.tail_arrived) = (false, Some(Instant::now()));
                return Ok(self.pass(chunk, scanned + at + 1, part));
            }
            scanned = chunk.bytes().len();
            if scanned >= CHUNK_BYTES {
                return Ok(self.pass(chunk, scanned, part));
            }
            match self.step(chunk, scanned > 0)? {
                Step::Bytes => {}
                Step::Failed => return Ok(self.pass(chunk, scanned, part)),
                Step::Idle | Step::Truncated if scanned > 0 => return Ok(self.pass(chunk, scanned, part)),
                Step::Idle if self.take_turns() => return Ok(Turn::Nothing),
                Step::Idle => self.wait()?,
                Step::Truncated => {
                    self.feed_mut().in_long_line = false;
                    self.start_over(chunk)?;
                    return Ok(Turn::End);
                }
                Step::End if scanned > 0 => return Ok(self.pass(chunk, scanned, part)),
                Step::InputEnd => {
                    self.feed_mut().in_long_line = false;
                    return Ok(self.pass_last(chunk, part));
                }
                Step::End => {
                    self.feed_mut().in_long_line = false;
                    return Ok(Turn::End);
                }
            }
        }
    }

    /// Opens the next input when none is open, and reads once. When that fails while the chunk has something to pass
    /// on, the failure waits.
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
        if self.feed().open.is_none()
            && let Some(step) = self.open()?
        {
            return Ok(step);
        }
        let open = self.feeds[self.at].open.as_mut();
        let Some(open) = open.filter(|open| !open.wait_first) else { return Ok(Step::Idle) };
        match open.read(chunk.room(CHUNK_BYTES)) {
            Ok(0) => self.at_end(),
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

    /// What it means that a read came back with nothing.
    fn at_end(&mut self) -> Result<Step, Failure> {
        let at_end = self.feed_mut().open.as_mut().map_or(Ok(None), Open::at_end);
        let has_successor = match at_end.map_err(|error| self.failure(&error))? {
            Some(AtEnd::More) => return Ok(Step::Bytes),
            Some(AtEnd::Nothing) => return Ok(Step::Idle),
            Some(AtEnd::Truncated) => return Ok(Step::Truncated),
            Some(AtEnd::Replaced) => {
                let what = "was replaced: it was read to its end, and goes on with the new file";
                self.log.info("replaced", format!("{} {what}", self.feed().input));
                self.control.follows.count_replaced();
                true
            }
            None => false,
        };
        self.note_end();
        if let Some(mut open) = self.feeds[self.at].open.take() {
            self.feed_mut().successor = open.successor();
            // A named pipe may find another writer.
            self.feed_mut().has_ended = !(has_successor || self.follow && open.is_named_pipe());
            open.close(self.poll.registry());
        }
        Ok(Step::InputEnd)
    }

    /// Starts a followed file over that was truncated. What was read of a line whose end had not come is gone with it.
    fn start_over(&mut self, chunk: &mut Chunk) -> Result<(), Failure> {
        let unfinished = chunk.bytes().len();
        let feed = &mut self.feeds[self.at];
        chunk.cut(0, &mut feed.tail);
        feed.tail.clear();
        let source = feed.source.take().map(|source| source.started_over());
        feed.begin(source);
        let rewound = feed.open.as_mut().map_or(Ok(()), Open::rewind);
        rewound.map_err(|error| self.failure(&error))?;
        let lost = match unfinished {
            0 => String::new(),
            bytes => format!("; the first {bytes} bytes of a line that had not ended are gone"),
        };
        self.log.warning("truncated", format!("{} was truncated: it is read from its start{lost}", self.feed().input));
        self.control.follows.count_truncated();
        Ok(())
    }

    /// Opens the present input, or the next when it has ended. Otherwise says why there is none.
    fn open(&mut self) -> Result<Option<Step>, Failure> {
        if self.feed().has_ended {
            if self.follow || self.at + 1 == self.feeds.len() {
                return Ok(Some(Step::End));
            }
            self.at += 1;
        }
        let token = Token(self.at);
        let feed = &mut self.feeds[self.at];
        let successor = feed.successor.take();
        let input = match &self.sources {
            Some(sources) if successor.is_none() => sources.stand_in(&feed.input),
            _ => feed.input.clone(),
        };
        if self.follow && successor.is_none() && !is_there(&input) {
            if !std::mem::replace(&mut feed.waiting_told, true) {
                self.log.info("waiting", format!("{} is not there yet: waiting for it", feed.input));
            }
            return Ok(Some(Step::Idle));
        }
        let mut open = match successor {
            Some(file) => Open::plain(file),
            None => Open::new(&input, self.poll.registry(), token)?,
        };
        let mut source = None;
        if let (Some(sources), Input::File(path)) = (&self.sources, &feed.input) {
            let begun = sources.begin(open.file(), path)?;
            open.seek(begun.start).map_err(|error| unreadable(&input, &error))?;
            source = Some(begun);
        }
        if self.follow {
            open.follow(&feed.input)?;
        }
        if source.as_ref().is_some_and(|source| source.was_truncated) {
            self.log.warning("truncated", format!("{} was truncated meanwhile: it is read from its start", feed.input));
            self.control.follows.count_truncated();
        }
        feed.begin(source);
        feed.open = Some(open);
        Ok(None)
    }

    /// Keeps in mind how far a file was read, should it come again.
    fn note_end(&mut self) {
        let feed = &self.feeds[self.at];
        if let (Some(sources), Some(source), Some(open)) = (&mut self.sources, &feed.source, &feed.open) {
            sources.ended(source, open.file());
        }
    }

    /// Waits for bytes, or for somebody who wants the reader to stop.
    fn wait(&mut self) -> Result<(), Failure> {
        match self.poll.poll(&mut self.events, self.follow.then_some(LOOK_EVERY)) {
            Err(error) if error.kind() != ErrorKind::Interrupted => return Err(self.failure(&error)),
            _ => {}
        }
        for event in &self.events {
            if let Some(Feed { open: Some(open), .. }) = self.feeds.get_mut(event.token().0) {
                open.wait_first = false;
            }
        }
        Ok(())
    }

    /// Whether `chunk`, which has a newline, is passed on although more may be there.
    fn is_enough(&self, chunk: &Chunk, started: Instant) -> bool {
        chunk.bytes().len() >= CHUNK_BYTES
            || !self.feed().open.as_ref().is_some_and(Open::may_block)
            || started.elapsed() >= FILL_MAX
    }

    /// Passes on the first `end` bytes of `chunk`, and keeps the rest for the next.
    fn pass(&mut self, chunk: &mut Chunk, end: usize, shape: Shape) -> Turn {
        let at = self.at;
        let feed = self.feed_mut();
        chunk.cut(end, &mut feed.tail);
        chunk.shape = shape;
        chunk.input = at;
        chunk.opening = feed.openings;
        chunk.source.clone_from(&feed.source);
        chunk.offset = feed.offset;
        feed.offset += end as u64;
        Turn::Chunk
    }

    /// Passes on all that is left of the input.
    fn pass_last(&mut self, chunk: &mut Chunk, shape: Shape) -> Turn {
        chunk.is_last = true;
        // The end of its last line is found with that of the input.
        chunk.arrived.get_or_insert_with(Instant::now);
        self.pass(chunk, chunk.bytes().len(), shape)
    }

    /// Passes on the whole lines at hand, then ends. A line whose end has not arrived is no event.
    fn stop(&mut self, chunk: &mut Chunk, end: Option<usize>) -> Turn {
        if let Some(end) = end {
            return self.pass(chunk, end, Shape::Lines);
        }
        self.warn_unfinished(self.feed(), chunk.bytes().len());
        Turn::End
    }

    fn warn_unfinished(&self, feed: &Feed, bytes: usize) {
        if bytes > 0 && !feed.in_long_line {
            self.log.warning("unfinished_line", format!("stopped {bytes} bytes into a line, which is not written"));
        }
    }

    fn feed(&self) -> &Feed {
        &self.feeds[self.at]
    }

    fn feed_mut(&mut self) -> &mut Feed {
        &mut self.feeds[self.at]
    }

    fn failure(&self, error: &std::io::Error) -> Failure {
        unreadable(&self.feed().input, error)
    }
}

fn unreadable(input: &Input, error: &std::io::Error) -> Failure {
    let exit = if error.kind() == ErrorKind::IsADirectory { Exit::NoInput } else { Exit::Io };
    Failure::new(exit, "input", format!("cannot read {input}: {}", cause(error)))
}

fn after_last_newline(bytes: &[u8]) -> Option<usize> {
    bytes.iter().rposition(|&byte| byte == b'\n').map(|at| at + 1)
}

/// Inputs have the tokens from 0 on.
pub const WAKER: Token = Token(usize::MAX);
/// Large enough that a chunk's overhead does not matter, small enough to stay in the cache on its way through.
pub const CHUNK_BYTES: usize = 256 << 10;
/// So much is copied each time that an input has its turn.
const TAIL_COPIED_MAX: usize = 64 << 10;
const BYTE_ORDER_MARK: &[u8] = b"\xEF\xBB\xBF";
/// A source that never pauses is not waited for longer than this.
const FILL_MAX: Duration = Duration::from_millis(1);
