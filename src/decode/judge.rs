//! One line, exactly: blank, bad, or an ID with its time.

use super::canonical;
use super::check::{self, Nesting};
use super::event_time::{self, TimeSpec};
use super::key::{KeySpec, Kind};
use super::record::{Bad, BadTime, Content, Record};
use super::search::Search;

/// What a decoder looks for, and the memory that it reuses from line to line.
pub(super) struct Judge {
    pub(super) keys: KeySpec,
    pub(super) time: Option<TimeSpec>,
    pub(super) search: Search,
    nesting: Nesting,
    id: Vec<u8>,
    text: Vec<u8>,
}

impl Judge {
    pub(super) fn new(keys: KeySpec, time: Option<TimeSpec>) -> Self {
        let mut parts = match &keys.kind {
            Kind::Line => Vec::new(),
            Kind::Parts(parts) => parts.clone(),
        };
        parts.extend(time.iter().map(|time| time.part.clone()));
        Self { search: Search::new(&parts), keys, time, nesting: Nesting::new(), id: Vec::new(), text: Vec::new() }
    }

    /// Whether a line's JSON matters at all.
    pub(super) fn reads_json(&self) -> bool {
        !self.keys.is_line() || self.time.is_some()
    }

    /// Whether the fast path finds all that is looked for.
    pub(super) fn is_fast(&self) -> bool {
        self.reads_json() && !self.search.has_indexes()
    }

    /// The record of a line about which nothing is known.
    pub(super) fn judge<'a>(&'a mut self, line: &'a [u8], start: usize) -> Record<'a> {
        let text = without_terminator(line);
        if is_blank(text) {
            return Record { line, start, content: Content::Blank, time: None };
        }
        if !self.reads_json() {
            return Record { line, start, content: Content::Id(text), time: None };
        }
        match self.check(text) {
            Ok(()) => self.found(line, start),
            Err(bad) if self.keys.is_line() => {
                let time = Err(BadTime::Unreadable { offset: bad.offset, what: bad.what });
                Record { line, start, content: Content::Id(text), time: Some(time) }
            }
            Err(bad) => Record { line, start, content: Content::Bad(bad), time: None },
        }
    }

    /// Searches a line's text and says whether it is JSON.
    pub(super) fn check(&mut self, text: &[u8]) -> Result<(), Bad> {
        self.search.reset();
        check::check(text, &mut self.nesting, &mut self.search)
    }

    /// The record of a valid line in which the search is complete.
    #[inline]
    pub(super) fn found<'a>(&'a mut self, line: &'a [u8], start: usize) -> Record<'a> {
        let text = without_terminator(line);
        let id_parts = self.search.parts() - usize::from(self.time.is_some());
        let time = match &self.time {
            Some(time) => Some(event_time::read(text, &self.search, id_parts, time.unit, &mut self.text)),
            None => None,
        };
        let content = match self.keys.kind {
            Kind::Line => Content::Id(text),
            Kind::Parts(_) => canonical::content(text, &self.search, id_parts, &mut self.id),
        };
        Record { line, start, content, time }
    }
}

/// The line's bytes without `\n` or `\r\n`.
#[inline]
pub(super) fn without_terminator(line: &[u8]) -> &[u8] {
    match line {
        [text @ .., b'\r', b'\n'] | [text @ .., b'\n'] => text,
        text => text,
    }
}

#[inline]
fn is_blank(text: &[u8]) -> bool {
    text.iter().all(|byte| matches!(byte, b' ' | b'\t' | b'\r'))
}
