//! Where the lines of a batch go, and how many of them got there when writing failed.

use std::ops::Range;

use dedupd::ReserveVerdict;
use dedupd::sink::WriteError;

use super::chunk::Chunk;
use super::fate::{Batch, Fate, Target};
use crate::config::Policy;

/// Runs of neighbours, for each target.
#[derive(Debug, Default)]
pub struct Routes {
    pub output: Vec<Range<usize>>,
    pub rejects: Vec<Range<usize>>,
    pub duplicates: Vec<Range<usize>>,
}

impl Routes {
    pub fn clear(&mut self) {
        self.output.clear();
        self.rejects.clear();
        self.duplicates.clear();
    }

    /// Adds a line to its target's runs; to the last one if it follows it.
    #[inline]
    pub fn add(&mut self, target: Target, line: Range<usize>) {
        let runs = match target {
            Target::Output => &mut self.output,
            Target::Rejects => &mut self.rejects,
            Target::Duplicates => &mut self.duplicates,
            Target::Nowhere => return,
        };
        match runs.last_mut() {
            Some(last) if last.end == line.start => last.end = line.end,
            _ => runs.push(line),
        }
    }
}

/// The fates of those lines for `target` that were out whole when writing failed.
pub fn lines_out<'c>(
    chunk: &'c Chunk,
    batch: &Batch,
    verdicts: &'c [ReserveVerdict],
    policy: Policy,
    target: Target,
    error: &WriteError,
) -> impl Iterator<Item = Fate> + use<'c> {
    let mut left = error.bytes;
    let lines = batch.fates(chunk, verdicts).filter(move |line| line.fate.target(&policy) == target);
    lines.map_while(move |line| {
        left = left.checked_sub(line.bytes.len() as u64)?;
        Some(line.fate)
    })
}
