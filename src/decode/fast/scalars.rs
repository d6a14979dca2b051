//! What is judged where it stands: literals, numbers, escapes, colons behind white space.
//!
//! Each takes the bits of the places in question and returns those that are wrong. The places come from masks that can
//! be noise behind the first wrong byte of a line, so nothing here may rely on what stands there.

use crate::decode::{text, token};

/// Of the scalars that do not start with a digit, those that are no literal and no number.
#[inline(always)]
pub(super) fn wrong_words(bytes: &[u8], at: usize, mut words: u64) -> u64 {
    let mut wrong = 0;
    while words != 0 {
        let shift = words.trailing_zeros();
        wrong |= u64::from(!is_word(bytes, at + shift as usize)) << shift;
        words &= words - 1;
    }
    wrong
}

#[inline(always)]
fn is_word(bytes: &[u8], at: usize) -> bool {
    let Some(five) = bytes.get(at..).and_then(|rest| rest.first_chunk::<5>()) else {
        return is_scalar(bytes, at);
    };
    let four = u32::from_le_bytes([five[0], five[1], five[2], five[3]]);
    let short = (four == TRUE) | (four == NULL);
    let long = (four == FALS) & (five[4] == b'e');
    ((short | long) & may_end(bytes, at + 4 + usize::from(long))) || is_scalar(bytes, at)
}

#[inline(never)]
fn is_scalar(bytes: &[u8], at: usize) -> bool {
    token::end(bytes, at).is_ok_and(|end| may_end(bytes, end))
}

/// Of the numbers that start with a digit and are not just digits, those that are wrong.
///
/// What runs on into the next block is judged here too, and not again there.
#[inline(never)]
pub(super) fn wrong_numbers(bytes: &[u8], at: usize, numbers: u64, mut not_digits: u64) -> u64 {
    let mut wrong = 0;
    while not_digits != 0 {
        let through = not_digits ^ (not_digits - 1);
        let start = 63 - (numbers & through).leading_zeros();
        match token::end(bytes, at + start as usize) {
            Ok(end) if may_end(bytes, end) => {
                not_digits &= u64::MAX.checked_shl((end - at) as u32).unwrap_or(0) & !through;
            }
            _ => {
                wrong |= 1 << start;
                break;
            }
        }
    }
    wrong
}

/// Of the numbers that start with a digit and have these bytes, or end right before them, those that are wrong.
#[inline(never)]
pub(super) fn wrong_numbers_at(bytes: &[u8], at: usize, mut places: u64) -> u64 {
    let mut wrong = 0;
    while places != 0 {
        let shift = places.trailing_zeros();
        let before = &bytes[..at + shift as usize];
        let start = before.iter().rposition(|byte| !matches!(byte, b'0'..=b'9' | b'.')).map_or(0, |last| last + 1);
        wrong |= u64::from(!is_scalar(bytes, start)) << shift;
        places &= places - 1;
    }
    wrong
}

/// The escapes that JSON does not have.
#[inline(never)]
pub(super) fn wrong_escapes(bytes: &[u8], at: usize, mut escapes: u64) -> u64 {
    let mut wrong = 0;
    while escapes != 0 {
        let shift = escapes.trailing_zeros();
        // The backslash is right before it, and it is in a string, so it is not the first byte.
        let sound = text::escape(bytes, at + shift as usize - 1).is_ok();
        wrong |= u64::from(!sound) << shift;
        escapes &= escapes - 1;
    }
    wrong
}

/// Of the colons with no quote right before them: those with no string before them at all, and those whose name has
/// escapes. Strings with escapes end at the quotes `escaped_ends`, and the last one before this block at `escaped_end`.
#[cold]
pub(super) fn detached_colons(
    bytes: &[u8],
    at: usize,
    mut colons: u64,
    escaped_ends: u64,
    escaped_end: usize,
) -> (u64, u64) {
    let (mut wrong, mut escaped) = (0, 0);
    while colons != 0 {
        let shift = colons.trailing_zeros();
        let before = &bytes[..at + shift as usize];
        let quote = before.iter().rposition(|byte| !matches!(byte, b' ' | b'\t' | b'\r'));
        match quote {
            Some(quote) if before[quote] == b'"' => {
                let here = quote >= at && escaped_ends >> (quote - at) & 1 == 1;
                escaped |= u64::from(here || quote == escaped_end) << shift;
            }
            _ => wrong |= 1 << shift,
        }
        colons &= colons - 1;
    }
    (wrong, escaped)
}

/// Whether a scalar may end before the byte at `end`. What else may follow is the grammar's question.
#[inline(always)]
fn may_end(bytes: &[u8], end: usize) -> bool {
    bytes.get(end).is_none_or(|&byte| SCALAR_ENDS[usize::from(byte)])
}

static SCALAR_ENDS: [bool; 256] = {
    let mut ends = [false; 256];
    let stops = b",}]\n \r\t:\"{[";
    let mut at = 0;
    while at < stops.len() {
        ends[stops[at] as usize] = true;
        at += 1;
    }
    ends
};

const TRUE: u32 = u32::from_le_bytes(*b"true");
const NULL: u32 = u32::from_le_bytes(*b"null");
const FALS: u32 = u32::from_le_bytes(*b"fals");
