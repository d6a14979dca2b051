//! The walk over what the grammar cannot decide from masks alone: brackets, newlines, names on the path.
//!
//! Also here: scalars, escapes and detached colons, judged in place before the walk, so that the walk knows the lowest
//! doubtful byte of the block and stops in front of it.

use super::block::{Block, Classify};
use super::grammar::{Grammar, Marks};
use crate::decode::check::{DEPTH_MAX, Observer, skip_space};
use crate::decode::judge::Judge;
use crate::decode::record::Record;
use crate::decode::{text, token};

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
    let mut grammar = Grammar::new();
    let mut walk = Walk::new(bytes, from);
    judge.search.reset();
    let mut at = from;
    while let Some(block) = bytes[at..].first_chunk::<64>() {
        machine.prefetch(bytes, at + PREFETCH_BYTES);
        let block = machine.classify(block, ends);
        let marks = grammar.next(machine, &block);
        if walk.block(&block, &marks, at, judge, visit).is_err() {
            return Stop::Doubt { line_start: walk.line_start };
        }
        at += 64;
    }
    let Some(last) = last_block(&bytes[at..], bytes.ends_with(b"\n")) else { return Stop::End };
    let block = machine.classify(&last, ends);
    let marks = grammar.next(machine, &block);
    match walk.block(&block, &marks, at, judge, visit) {
        Ok(()) => Stop::End,
        Err(Doubt) => Stop::Doubt { line_start: walk.line_start },
    }
}

/// The last bytes, with the newline that the last line may lack and blanks behind it; `None` when nothing is left.
fn last_block(rest: &[u8], ended: bool) -> Option<[u8; 64]> {
    let mut block = [b' '; 64];
    block[..rest.len()].copy_from_slice(rest);
    if !ended {
        block[rest.len()] = b'\n';
    }
    (!ended || !rest.is_empty()).then_some(block)
}

/// The present line cannot be finished here.
struct Doubt;

struct Walk<'a> {
    bytes: &'a [u8],
    line_start: usize,
    depth: usize,
    /// What is wrong at each depth: [`Level::NONE`] outside all brackets.
    levels: [Level; DEPTH_MAX + 2],
    /// Whether the present line has bytes beyond ASCII in the blocks before this one.
    beyond_ascii: bool,
    /// Whether the present line has names with escapes, which only the exact checker reads.
    escaped_names: bool,
    /// The last closing quote of a string with escapes, in the blocks before this one.
    escaped_end: usize,
}

/// Which marks are wrong at a depth, as all ones or none.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Level(u8);

impl Level {
    const OBJECT: Self = Self(0b01);
    const ARRAY: Self = Self(0b10);
    const NONE: Self = Self(0b11);

    #[inline(always)]
    fn of(bracket: u8) -> Self {
        // One bit tells `{` from `[` and `}` from `]`.
        Self(2 - (bracket >> 5 & 1))
    }

    #[inline(always)]
    fn wrong(self, marks: &Marks) -> u64 {
        let (object, array) = (u64::from(self.0 & 1), u64::from(self.0 >> 1));
        (marks.wrong_in_object & object.wrapping_neg()) | (marks.wrong_in_array & array.wrapping_neg())
    }
}

impl<'a> Walk<'a> {
    fn new(bytes: &'a [u8], line_start: usize) -> Self {
        debug_assert!(Level::of(b'{') == Level::OBJECT && Level::of(b']') == Level::ARRAY);
        Self {
            bytes,
            line_start,
            depth: 0,
            levels: [Level::NONE; DEPTH_MAX + 2],
            beyond_ascii: false,
            escaped_names: false,
            escaped_end: usize::MAX,
        }
    }

    #[inline(always)]
    fn block(
        &mut self,
        block: &Block,
        marks: &Marks,
        at: usize,
        judge: &mut Judge,
        visit: &mut impl FnMut(Record<'_>),
    ) -> Result<(), Doubt> {
        let mut wrong = marks.wrong | self.wrong_words(marks.words, at);
        if marks.not_digits != 0 {
            wrong |= self.wrong_numbers(marks, at);
        }
        if marks.escapes != 0 {
            wrong |= self.wrong_escapes(marks.escapes, at);
        }
        let mut names = marks.names;
        let mut escaped_names = marks.escaped_names;
        if marks.detached != 0 {
            let (bad, escaped) = self.detached(marks, at);
            wrong |= bad;
            names |= marks.detached & !bad;
            escaped_names |= escaped;
        }
        let sound = if wrong == 0 { u64::MAX } else { (1 << wrong.trailing_zeros()) - 1 };

        let names = names | escaped_names;
        let mut events = (marks.open | marks.close | marks.newline | names) & sound;
        let mut done = 0_u64;
        let mut beyond_ascii = block.high;
        while events != 0 {
            let bit = events & events.wrapping_neg();
            let shift = events.trailing_zeros() as usize;
            events ^= bit;
            if names & bit != 0 {
                self.escaped_names |= escaped_names & bit != 0;
                self.name(at + shift, judge);
                continue;
            }
            let through = bit | (bit - 1);
            let level = self.levels[self.depth];
            if level.wrong(marks) & through & !done != 0 {
                return Err(Doubt);
            }
            done = through;
            if marks.newline & bit != 0 {
                if self.depth != 0 {
                    return Err(Doubt);
                }
                self.beyond_ascii |= beyond_ascii & through != 0;
                beyond_ascii &= !through;
                self.line((at + shift + 1).min(self.bytes.len()), marks.blank & bit != 0, judge, visit);
                continue;
            }
            self.bracket(marks.open >> shift & 1 == 1, Level::of(self.bytes[at + shift]), level)?;
            if judge.search.is_nested() {
                if marks.open & bit != 0 {
                    judge.search.open(self.depth, at + shift - self.line_start);
                } else {
                    judge.search.close(self.depth + 1);
                }
            }
        }
        if wrong != 0 || self.levels[self.depth].wrong(marks) & !done != 0 {
            return Err(Doubt);
        }
        self.beyond_ascii |= beyond_ascii != 0;
        if marks.escaped_ends != 0 {
            self.escaped_end = at + 63 - marks.escaped_ends.leading_zeros() as usize;
        }
        Ok(())
    }

    /// Goes up or down a level, without a branch that depends on which.
    #[inline(always)]
    fn bracket(&mut self, opens: bool, kind: Level, level: Level) -> Result<(), Doubt> {
        if (opens & (self.depth == DEPTH_MAX)) | (!opens & (kind != level)) {
            return Err(Doubt);
        }
        // For a closing bracket this writes where nothing is.
        self.levels[self.depth + 1] = kind;
        self.depth = self.depth + usize::from(opens) - usize::from(!opens);
        Ok(())
    }

    /// A name that may be on a path, before the colon at `colon`.
    #[inline(always)]
    fn name(&mut self, colon: usize, judge: &mut Judge) {
        if judge.search.looks_into(self.depth) {
            let mut quote = colon - 1;
            while self.bytes[quote] != b'"' {
                quote -= 1;
            }
            let value_at = skip_space(self.bytes, colon + 1) - self.line_start;
            judge.search.name_before(self.depth, &self.bytes[self.line_start..quote], value_at);
        }
    }

    /// The line up to `end` is valid but for its UTF-8.
    #[inline(always)]
    fn line(&mut self, end: usize, blank: bool, judge: &mut Judge, visit: &mut impl FnMut(Record<'_>)) {
        let line = &self.bytes[self.line_start..end];
        let certain = !blank && !self.escaped_names && (!self.beyond_ascii || std::str::from_utf8(line).is_ok());
        if certain {
            visit(judge.found(line, self.line_start));
        } else {
            visit(judge.judge(line, self.line_start));
        }
        judge.search.reset();
        self.line_start = end;
        self.beyond_ascii = false;
        self.escaped_names = false;
    }

    /// Of the scalars that do not start with a digit, those that are no literal and no number.
    #[inline(always)]
    fn wrong_words(&self, mut words: u64, at: usize) -> u64 {
        let mut wrong = 0;
        while words != 0 {
            let shift = words.trailing_zeros();
            wrong |= u64::from(!self.is_word(at + shift as usize)) << shift;
            words &= words - 1;
        }
        wrong
    }

    #[inline(always)]
    fn is_word(&self, at: usize) -> bool {
        let Some(five) = self.bytes.get(at..).and_then(|rest| rest.first_chunk::<5>()) else {
            return self.is_scalar(at);
        };
        let four = u32::from_le_bytes([five[0], five[1], five[2], five[3]]);
        let short = (four == TRUE) | (four == NULL);
        let long = (four == FALS) & (five[4] == b'e');
        let end = self.bytes.get(at + 4 + usize::from(long));
        let ended = end.is_none_or(|&byte| SCALAR_ENDS[usize::from(byte)]);
        ((short | long) & ended) || self.is_scalar(at)
    }

    /// Of the numbers that start with a digit and are not just digits, those that are wrong.
    ///
    /// What runs on into the next block is judged here too, and not again there.
    #[inline(never)]
    fn wrong_numbers(&self, marks: &Marks, at: usize) -> u64 {
        let (mut wrong, mut not_digits) = (0, marks.not_digits);
        while not_digits != 0 {
            let before = not_digits ^ (not_digits - 1);
            let start = 63 - (marks.numbers & before).leading_zeros();
            match token::end(self.bytes, at + start as usize) {
                Ok(end) if self.ends_scalar(end) => {
                    not_digits &= u64::MAX.checked_shl((end - at) as u32).unwrap_or(0);
                }
                _ => {
                    wrong |= 1 << start;
                    break;
                }
            }
        }
        wrong
    }

    #[inline(never)]
    fn is_scalar(&self, at: usize) -> bool {
        token::end(self.bytes, at).is_ok_and(|end| self.ends_scalar(end))
    }

    fn ends_scalar(&self, end: usize) -> bool {
        self.bytes.get(end).is_none_or(|&byte| SCALAR_ENDS[usize::from(byte)])
    }

    #[cold]
    fn wrong_escapes(&self, mut escapes: u64, at: usize) -> u64 {
        let mut wrong = 0;
        while escapes != 0 {
            let shift = escapes.trailing_zeros();
            // An escaped character has its backslash before it: in a string, so not before the first byte.
            let sound = text::escape(self.bytes, at + shift as usize - 1).is_ok();
            wrong |= u64::from(!sound) << shift;
            escapes &= escapes - 1;
        }
        wrong
    }

    /// Of the colons with no quote right before them: those with no string before them at all, and those whose name has
    /// escapes.
    #[cold]
    fn detached(&self, marks: &Marks, at: usize) -> (u64, u64) {
        let (mut wrong, mut escaped) = (0, 0);
        let mut colons = marks.detached;
        while colons != 0 {
            let shift = colons.trailing_zeros();
            let before = &self.bytes[..at + shift as usize];
            let quote = before.iter().rposition(|byte| !matches!(byte, b' ' | b'\t' | b'\r'));
            match quote {
                Some(quote) if before[quote] == b'"' => {
                    let here = quote >= at && marks.escaped_ends >> (quote - at) & 1 == 1;
                    escaped |= u64::from(here || quote == self.escaped_end) << shift;
                }
                _ => wrong |= 1 << shift,
            }
            colons &= colons - 1;
        }
        (wrong, escaped)
    }
}

/// Whether a scalar may end before a byte. What else may follow is the grammar's question.
static SCALAR_ENDS: [bool; 256] = {
    let mut ends = [false; 256];
    let mut at = 0;
    while at < b",}]\n \r\t:\"{[".len() {
        ends[b",}]\n \r\t:\"{["[at] as usize] = true;
        at += 1;
    }
    ends
};

const TRUE: u32 = u32::from_le_bytes(*b"true");
const NULL: u32 = u32::from_le_bytes(*b"null");
const FALS: u32 = u32::from_le_bytes(*b"fals");

/// How far ahead memory is asked for; measured, and flat around it.
const PREFETCH_BYTES: usize = 2048;
