//! The fast path: the whole buffer as masks of 64 bytes, with newlines as one more structural character.
//!
//! For each block the processor says which bytes are quotes, brackets, commas and so on; a few boolean operations then
//! say which token stands where it must not ([`grammar`]). Only brackets, newlines and the few names that may be on the
//! path are looked at one by one ([`walk`]); numbers, literals and escapes are judged where they stand. There is no list
//! of positions and no second pass.
//!
//! It never says what is wrong. The lowest doubtful bit belongs to the first bad line: the lines before it are finished,
//! that one goes to the exact checker, and scanning starts anew behind it. So a wrong string, a lost bracket or anything
//! else cannot reach the next line. While bad lines are frequent, starting anew costs more than it brings, and the exact
//! checker keeps going for a while ([`Pace`]).
//!
//! Where the processor has AVX-512, eight blocks are looked at in one go ([`avx512`]).
//!
//! Rejected: an index list with an automaton behind it (a sixth slower in a prototype), AVX-512 for the masks alone (no
//! faster: they are not what limits), and looking for the ID first and checking the line afterwards (a broken line would
//! still need the whole walk).

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod block;
mod grammar;
mod levels;
mod scalars;
mod walk;

#[cfg(target_arch = "x86_64")]
pub(super) use avx2::Avx2;
#[cfg(target_arch = "x86_64")]
pub(super) use avx512::Avx512;

use super::judge::Judge;
use super::lines;
use super::record::Record;
use walk::Stop;

/// A scanner for the processor at hand.
pub(super) trait Scan {
    /// Scans from the line that starts at `from` to the end or to the first line that is in doubt.
    fn scan(&self, judge: &mut Judge, bytes: &[u8], from: usize, visit: &mut impl FnMut(Record<'_>)) -> Stop;
}

/// Decodes with `scanner`, and with the exact checker where that cannot go on.
pub(super) fn decode(
    scanner: impl Scan,
    pace: &mut Pace,
    judge: &mut Judge,
    bytes: &[u8],
    visit: &mut impl FnMut(Record<'_>),
) {
    let mut start = 0;
    while start < bytes.len() {
        let checked = lines::lines(&bytes[start..]).take(pace.lines_to_check());
        let mut end = start;
        for (offset, line) in checked {
            visit(judge.judge(line, start + offset));
            end = start + offset + line.len();
        }
        if end == bytes.len() {
            return;
        }
        match scanner.scan(judge, bytes, end, visit) {
            Stop::End => {
                pace.ran(bytes.len() - end);
                return;
            }
            Stop::Doubt { line_start } => {
                pace.stumbled(line_start - end);
                let line = lines::first_line(&bytes[line_start..]);
                visit(judge.judge(line, line_start));
                start = line_start + line.len();
            }
        }
    }
}

/// How much to leave to the exact checker while bad lines are frequent.
#[derive(Debug, Default)]
pub(super) struct Pace {
    /// Lines to check after the next doubt.
    penalty: usize,
    /// Lines to check now.
    due: usize,
}

impl Pace {
    fn lines_to_check(&mut self) -> usize {
        std::mem::take(&mut self.due)
    }

    fn ran(&mut self, bytes: usize) {
        if bytes >= CLEAN_BYTES {
            self.penalty = 0;
        }
    }

    fn stumbled(&mut self, clean_bytes: usize) {
        self.ran(clean_bytes);
        self.due = self.penalty;
        self.penalty = (self.penalty * 2 + 1).min(PENALTY_LINES_MAX);
    }
}

/// Scanning anew costs about as much as this many bytes do.
const CLEAN_BYTES: usize = 4096;
const PENALTY_LINES_MAX: usize = 63;
