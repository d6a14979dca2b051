//! From marks to records: first what is wrong in a block, then the names and lines in front of it.

use std::ops::Range;

use super::block::{Chunk, Classify};
use super::grammar::{Grammar, Marks};
use super::levels::{Levels, depth_at};
use super::scalars;
use crate::decode::check::{Observer, skip_space};
use crate::decode::judge::Judge;
use crate::decode::record::Record;
use crate::decode::text::Text;

/// Where a scan ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::decode) enum Stop {
    /// At the end of the bytes; every line was visited.
    End,
    /// In front of a line that is not valid or not understood; every line before it was visited.
    Doubt { line_start: usize },
}

/// See [`Scan::scan`](super::Scan::scan).
#[inline(always)]
pub(super) fn scan(
    machine: impl Classify,
    judge: &mut Judge,
    bytes: &[u8],
    from: usize,
    visit: &mut impl FnMut(Record<'_>),
) -> Stop {
    let ends = judge.search.name_ends();
    let nested = judge.search.is_nested();
    let mut grammar = Grammar::new();
    let mut levels = Levels::new();
    let mut walk = Walk::new(bytes, from);
    judge.search.reset();
    let mut at = from;
    loop {
        let edge;
        let (chunk, last) = match chunk(bytes, at) {
            Some(chunk) => (chunk, false),
            None => {
                edge = edge_chunk(bytes, at);
                (&edge, bytes.len() - at < 64)
            }
        };
        machine.prefetch(bytes, at + PREFETCH_BYTES);
        let block = machine.classify(chunk, ends);
        let mut marks = grammar.next(machine, &block);
        let depth = levels.depth();
        let wrong = walk.wrong(&mut marks, at);
        let wrong = wrong | levels.wrong(bytes, at, &marks);
        // All bits below the lowest wrong one.
        let place = Place { at, depth, sound: !wrong & wrong.wrapping_sub(1) };
        let marks = Found::of(&marks);
        if nested {
            walk.follow_paths(block.high, marks, place, judge, visit);
        } else {
            walk.find_names(block.high, marks, place, judge, visit);
        }
        if wrong != 0 {
            return Stop::Doubt { line_start: walk.line_start };
        }
        if last {
            return Stop::End;
        }
        at += 64;
    }
}

/// The byte before `at` and the 64 bytes from there on, where all are there.
#[inline(always)]
fn chunk(bytes: &[u8], at: usize) -> Option<&Chunk> {
    bytes.get(at.wrapping_sub(1)..)?.first_chunk()
}

/// The same at the edges: a blank before the first byte; and behind the last one the newline that its line may lack, and
/// blanks.
#[inline(never)]
fn edge_chunk(bytes: &[u8], at: usize) -> Chunk {
    let mut chunk = [b' '; 65];
    let before = usize::from(at > 0);
    let rest = &bytes[at - before..];
    let rest = &rest[..rest.len().min(64 + before)];
    let start = 1 - before;
    chunk[start..start + rest.len()].copy_from_slice(rest);
    if bytes.len() - at < 64 && !bytes.ends_with(b"\n") {
        chunk[start + rest.len()] = b'\n';
    }
    chunk
}

/// A block's place in the bytes, its depth at its start, and how much of it can be trusted.
#[derive(Clone, Copy)]
pub(super) struct Place {
    pub(super) at: usize,
    pub(super) depth: usize,
    pub(super) sound: u64,
}

/// What there is to be told of a block: see [`Marks`].
#[derive(Clone, Copy)]
pub(super) struct Found {
    pub(super) open: u64,
    pub(super) close: u64,
    pub(super) newline: u64,
    pub(super) blank: u64,
    pub(super) names: u64,
    pub(super) escaped_names: u64,
}

impl Found {
    #[inline(always)]
    fn of(marks: &Marks) -> Self {
        let &Marks { open, close, newline, blank, names, escaped_names, .. } = marks;
        Self { open, close, newline, blank, names, escaped_names }
    }
}

/// The present line.
pub(super) struct Walk<'a> {
    pub(super) bytes: &'a [u8],
    pub(super) line_start: usize,
    /// From its first byte beyond ASCII to behind its last one, in the blocks before this one. The others cannot make it
    /// invalid UTF-8.
    beyond_ascii: Range<usize>,
    /// The last closing quote of a string with escapes, in the blocks before this one.
    escaped_end: usize,
}

impl<'a> Walk<'a> {
    pub(super) fn new(bytes: &'a [u8], line_start: usize) -> Self {
        Self { bytes, line_start, beyond_ascii: 0..0, escaped_end: usize::MAX }
    }

    /// What is wrong and judged where it stands; the names before detached colons join the others.
    #[inline(always)]
    fn wrong(&mut self, marks: &mut Marks, at: usize) -> u64 {
        let mut wrong = marks.wrong | scalars::wrong_words(self.bytes, at, marks.words);
        if marks.not_digits != 0 {
            wrong |= scalars::wrong_numbers(self.bytes, at, marks.numbers, marks.not_digits);
        }
        if marks.escapes != 0 {
            wrong |= scalars::wrong_escapes(self.bytes, at, marks.escapes);
        }
        let (nameless, escaped) = self.detached(at, marks.detached, marks.escaped_ends);
        marks.names |= marks.detached & !nameless;
        marks.escaped_names |= escaped;
        wrong | nameless
    }

    /// Of the colons in `detached`, those without a name, and those whose name has escapes. Has to be asked for every block
    /// in which strings with escapes end.
    #[inline(always)]
    pub(super) fn detached(&mut self, at: usize, detached: u64, escaped_ends: u64) -> (u64, u64) {
        let found = match detached {
            0 => (0, 0),
            _ => scalars::detached_colons(self.bytes, at, detached, escaped_ends, self.escaped_end),
        };
        if escaped_ends != 0 {
            self.escaped_end = at + 63 - escaped_ends.leading_zeros() as usize;
        }
        found
    }

    /// Names and lines, where all paths have one step: only depth 1 matters, and how deep a name is can be counted.
    #[inline(always)]
    pub(super) fn find_names(
        &mut self,
        high: u64,
        marks: Found,
        place: Place,
        judge: &mut Judge,
        visit: &mut impl FnMut(Record<'_>),
    ) {
        let mut beyond_ascii = high;
        let mut events = (marks.names | marks.escaped_names | marks.newline) & place.sound;
        while events != 0 {
            let bit = events & events.wrapping_neg();
            let position = place.at + events.trailing_zeros() as usize;
            events ^= bit;
            if marks.newline & bit != 0 {
                self.line(position, bit, marks.blank & bit != 0, &mut beyond_ascii, judge, visit);
            } else {
                let depth = || depth_at(marks.open, marks.close, place.depth, bit);
                match marks.escaped_names & bit {
                    0 => self.name(position, depth, judge),
                    _ => self.escaped_name(position, depth(), judge),
                }
            }
        }
        self.note_beyond_ascii(place.at, beyond_ascii);
    }

    /// The same for longer paths, which have to be told of every bracket.
    #[inline(never)]
    pub(super) fn follow_paths(
        &mut self,
        high: u64,
        marks: Found,
        place: Place,
        judge: &mut Judge,
        visit: &mut impl FnMut(Record<'_>),
    ) {
        let mut depth = place.depth;
        let mut beyond_ascii = high;
        let mut events = (marks.names | marks.escaped_names | marks.newline | marks.open | marks.close) & place.sound;
        while events != 0 {
            let bit = events & events.wrapping_neg();
            let position = place.at + events.trailing_zeros() as usize;
            events ^= bit;
            if marks.newline & bit != 0 {
                self.line(position, bit, marks.blank & bit != 0, &mut beyond_ascii, judge, visit);
            } else if marks.open & bit != 0 {
                depth += 1;
                judge.search.open(depth, position - self.line_start);
            } else if marks.close & bit != 0 {
                judge.search.close(depth);
                depth -= 1;
            } else {
                match marks.escaped_names & bit {
                    0 => self.name(position, || depth, judge),
                    _ => self.escaped_name(position, depth, judge),
                }
            }
        }
        self.note_beyond_ascii(place.at, beyond_ascii);
    }

    /// The line has bytes beyond ASCII in a block that starts at `at`.
    #[inline(always)]
    fn note_beyond_ascii(&mut self, at: usize, high: u64) {
        if high != 0 {
            if self.beyond_ascii.is_empty() {
                self.beyond_ascii.start = at + high.trailing_zeros() as usize;
            }
            self.beyond_ascii.end = at + 64 - high.leading_zeros() as usize;
        }
    }

    /// A name that may be on a path, before the colon at `colon`.
    #[inline(always)]
    fn name(&mut self, colon: usize, depth: impl Fn() -> usize, judge: &mut Judge) {
        let mut quote = colon - 1;
        while self.bytes[quote] != b'"' {
            quote -= 1;
        }
        let (bytes, line_start) = (self.bytes, self.line_start);
        judge.search.name_before(&bytes[..quote], depth, || skip_space(bytes, colon + 1) - line_start);
    }

    /// A name with escapes, before the colon at `colon`.
    #[inline(never)]
    fn escaped_name(&mut self, colon: usize, depth: usize, judge: &mut Judge) {
        let quote_before = |end: usize| self.bytes[self.line_start..end].iter().rposition(|&byte| byte == b'"');
        let line = &self.bytes[self.line_start..];
        let Some(end) = quote_before(colon) else { return };
        let mut start = end;
        // In a string every quote stands behind an odd number of backslashes; before its opening one there is none.
        while let Some(quote) = quote_before(self.line_start + start) {
            start = quote;
            let backslashes = line[..quote].iter().rev().take_while(|&&byte| byte == b'\\').count();
            if backslashes % 2 == 0 {
                let name = Text { raw: &line[quote + 1..end], escaped: true };
                return judge.search.member(depth, name, skip_space(line, colon + 1 - self.line_start));
            }
        }
    }

    /// The line that ends with the newline at `position` is valid but for its UTF-8.
    #[inline(always)]
    fn line(
        &mut self,
        position: usize,
        bit: u64,
        blank: bool,
        beyond_ascii: &mut u64,
        judge: &mut Judge,
        visit: &mut impl FnMut(Record<'_>),
    ) {
        // The newline that a last line lacks stands behind the bytes.
        let end = (position + 1).min(self.bytes.len());
        let line = &self.bytes[self.line_start..end];
        self.note_beyond_ascii(position - bit.trailing_zeros() as usize, *beyond_ascii & (bit - 1));
        let doubtful = &self.bytes[self.beyond_ascii.clone()];
        if !blank && (doubtful.is_empty() || std::str::from_utf8(doubtful).is_ok()) {
            visit(judge.found(line, self.line_start));
        } else {
            visit(judge.judge(line, self.line_start));
        }
        judge.search.reset();
        *beyond_ascii &= !(bit - 1);
        self.line_start = end;
        self.beyond_ascii = 0..0;
    }
}

/// How far ahead memory is asked for. Measured: 246 ns per line without it, 240 with it.
pub(super) const PREFETCH_BYTES: usize = 2048;
