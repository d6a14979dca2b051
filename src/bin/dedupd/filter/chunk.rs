//! A buffer of input on its way through the filter.

use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

use dedupd::decode::{Bad, BadReason};
use dedupd::pipeline::Ids;
use dedupd::{Digest, Fingerprint, Timestamp};

use super::source::Source;

/// Whole lines of one input, or a part of one line that is too long; filled, parsed and written, then used again.
#[derive(Debug, Default)]
pub struct Chunk {
    /// Always initialised in full; `filled` says how much of it counts.
    buffer: Vec<u8>,
    filled: usize,
    /// Which input this is from.
    pub input: usize,
    /// Which opening of that input: a file that is followed may be replaced or start over.
    pub opening: u64,
    /// The file that is read, when its position is kept.
    pub source: Option<Arc<Source>>,
    /// Nothing more comes of this opening.
    pub is_last: bool,
    /// Where in that input it starts.
    pub offset: u64,
    /// When the first of its lines had come whole; for a part of a line nobody asks.
    pub arrived: Option<Instant>,
    pub shape: Shape,
    /// One for each line, in order.
    pub lines: Vec<Line>,
    /// One for each line with an ID, in order.
    pub ids: Vec<Fingerprint>,
    /// The same with their times, when events are judged by their own.
    pub timed: Vec<(Fingerprint, Timestamp)>,
    /// One for each line with an ID, in order, when payloads are compared.
    pub digests: Vec<Digest>,
    /// The first bad line of each reason.
    pub bad: Vec<(usize, Bad)>,
}

/// What a chunk holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Shape {
    #[default]
    Lines,
    /// A part of a line that is longer than allowed.
    Part { first: bool },
}

/// A line of a chunk. It starts where the one before it ends.
#[derive(Clone, Copy, Debug)]
pub struct Line {
    /// After its newline, if it has one.
    pub end: u32,
    pub kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Not counted, and passed on.
    Blank,
    Id,
    Bad(BadReason),
}

impl Chunk {
    /// Empties it for the next round. A buffer that one long line made large is given back.
    pub fn reset(&mut self, bytes: usize) {
        if self.buffer.len() > 4 * bytes {
            self.buffer = Vec::new();
        }
        self.filled = 0;
        self.shape = Shape::Lines;
        self.is_last = false;
        self.arrived = None;
        self.lines.clear();
        self.ids.clear();
        self.timed.clear();
        self.digests.clear();
        self.bad.clear();
    }

    pub fn bytes(&self) -> &[u8] {
        &self.buffer[..self.filled]
    }

    pub fn is_empty(&self) -> bool {
        self.filled == 0
    }

    /// Room for at least one more byte, and for `bytes` in all.
    pub fn room(&mut self, bytes: usize) -> &mut [u8] {
        let wanted = bytes.max(self.filled + 1);
        if self.buffer.len() < wanted {
            let grown = wanted.max(if self.filled > 0 { self.buffer.len() * 2 } else { 0 });
            self.buffer.resize(grown, 0);
        }
        &mut self.buffer[self.filled..]
    }

    /// The next `count` bytes of the room were filled.
    pub fn filled(&mut self, count: usize) {
        self.filled = (self.filled + count).min(self.buffer.len());
    }

    /// Appends bytes that were read before.
    pub fn append(&mut self, bytes: &[u8]) {
        self.room(self.filled + bytes.len())[..bytes.len()].copy_from_slice(bytes);
        self.filled(bytes.len());
    }

    /// Cuts the chunk at `at` and moves what comes after it to `tail`.
    pub fn cut(&mut self, at: usize, tail: &mut Vec<u8>) {
        tail.clear();
        tail.extend_from_slice(&self.buffer[at..self.filled]);
        self.filled = at;
    }

    /// How many lines have an ID.
    pub fn ids_count(&self) -> usize {
        self.ids.len().max(self.timed.len())
    }

    /// The ids of some lines that have one, to be asked about.
    pub fn ids_at(&self, ids: Range<usize>) -> Ids<'_> {
        let digests = self.digests.get(ids.clone()).unwrap_or_default();
        let ids = if self.timed.is_empty() { Ids::new(&self.ids[ids]) } else { Ids::at(&self.timed[ids]) };
        ids.with_digests(digests)
    }

    /// Where line `index` stands.
    pub fn range(&self, index: usize) -> Range<usize> {
        let start = if index == 0 { 0 } else { self.lines[index - 1].end as usize };
        start..self.lines[index].end as usize
    }
}
