//! Brackets: whether they match, and whether what is between them fits the kind of bracket around it.
//!
//! The one thing that masks cannot say, so each bracket is looked at; without a branch that depends on what it is. What is
//! wrong comes out as bits like everything else. After the first wrong bit the rest of a block is noise, and above it:
//! nothing here can put a bit below it.

use super::grammar::Marks;

/// The open brackets.
pub(super) struct Levels {
    depth: usize,
    /// Their kinds, the innermost one lowest: 1 for `{`, 0 for `[`, and 0 outside all of them.
    kinds: u64,
}

impl Levels {
    /// At the start of a line.
    pub(super) fn new() -> Self {
        Self { depth: 0, kinds: 0 }
    }

    /// How deep the start of the next block is.
    #[inline(always)]
    pub(super) fn depth(&self) -> usize {
        self.depth
    }

    /// Goes through the brackets of a block of `bytes` that starts at `at`. Returns what is wrong in it.
    #[inline(always)]
    pub(super) fn wrong(&mut self, bytes: &[u8], at: usize, marks: &Marks) -> u64 {
        let (mut depth, mut kinds) = (self.depth, self.kinds);
        // Bit n: the innermost bracket around byte n is `{`.
        let mut in_object = (kinds & 1).wrapping_neg();
        let mut wrong = 0;
        let mut brackets = marks.open | marks.close;
        while brackets != 0 {
            let shift = brackets.trailing_zeros();
            let through = brackets ^ (brackets - 1);
            // One bit tells `{` from `[` and `}` from `]`.
            let bracket = u64::from(bytes[at + shift as usize] >> 5 & 1);
            // A branch: the order of brackets repeats from line to line, and guessing it beats computing both.
            let opens = marks.open >> shift & 1 == 1;
            // Outside all brackets, one that opens behind a comma is wrong in itself.
            let after_comma = marks.wrong_in_object >> shift & u64::from(depth == 0);
            let mismatch = (kinds ^ bracket) & 1;
            let outer = kinds;
            kinds = if opens { kinds << 1 | bracket } else { kinds >> 1 };
            depth = if opens { depth.wrapping_add(1) } else { depth.wrapping_sub(1) };
            // One too many that closes wraps around, to far beyond the limit.
            let out_of_range = u64::from(depth > FAST_DEPTH_MAX);
            let misplaced = if opens { after_comma } else { mismatch };
            wrong |= (misplaced | out_of_range) << shift;
            in_object ^= ((outer ^ kinds) & 1).wrapping_neg() & !through;
            brackets &= brackets - 1;
        }
        let unclosed = unclosed(marks.open, marks.close, marks.newline, self.depth);
        (self.depth, self.kinds) = (depth, kinds);
        wrong | unclosed | (marks.wrong_in_object & in_object) | (marks.wrong_in_array & !in_object)
    }
}

/// The newlines before which brackets are open, in a block whose start is `depth` deep.
#[inline(always)]
pub(super) fn unclosed(open: u64, close: u64, mut newlines: u64, depth: usize) -> u64 {
    let mut wrong = 0;
    while newlines != 0 {
        let bit = newlines & newlines.wrapping_neg();
        wrong |= if depth_at(open, close, depth, bit) == 0 { 0 } else { bit };
        newlines ^= bit;
    }
    wrong
}

/// How deep the byte at `bit` is, in a block whose start is `depth` deep.
#[inline(always)]
pub(super) fn depth_at(open: u64, close: u64, depth: usize, bit: u64) -> usize {
    let before = bit - 1;
    let (opened, closed) = ((open & before).count_ones(), (close & before).count_ones());
    depth.wrapping_add(opened as usize).wrapping_sub(closed as usize)
}

/// As many kinds as a word holds; lines that are nested deeper go to the exact checker.
pub(super) const FAST_DEPTH_MAX: usize = 64;
