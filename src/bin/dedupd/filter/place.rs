//! How far the lines of an input have come.

use std::sync::Arc;

use dedupd::Progress;

use super::chunk::Chunk;
use super::position::{SOURCE_TAIL_BYTES, SourcePosition, Tail};
use super::source::Source;

/// Where in an input the lines that are written are from.
#[derive(Debug)]
pub struct Place {
    opening: u64,
    /// Lines of this opening before the present chunk.
    pub lines_before: u64,
    source: Option<Arc<Source>>,
    tail: Tail,
}

impl Default for Place {
    fn default() -> Self {
        Self { opening: 0, lines_before: 0, source: None, tail: Tail::new(SOURCE_TAIL_BYTES) }
    }
}

impl Place {
    /// What comes next is in `chunk`. True when that is from another opening of the input than what came before.
    pub fn enter(&mut self, chunk: &Chunk) -> bool {
        if self.opening == chunk.opening {
            return false;
        }
        let source = chunk.source.clone();
        *self = match &source {
            Some(known) => Self { opening: chunk.opening, lines_before: known.lines, tail: known.tail.clone(), source },
            None => Self { opening: chunk.opening, ..Self::default() },
        };
        true
    }

    /// These bytes of the input are behind us; they end at `offset`, and so many lines of the chunk before it.
    pub fn advance(&mut self, bytes: &[u8], offset: u64, lines: u64, progress: &mut Progress) {
        let Some(source) = &self.source else { return };
        self.tail.push(bytes);
        let lines = self.lines_before + lines;
        let position = SourcePosition { offset, lines, crc: self.tail.crc(), path: source.path.clone() };
        progress.set_source(&source.name, position.to_bytes());
    }
}
