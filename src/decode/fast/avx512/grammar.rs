//! Whether each token may follow the one before it, for 512 bytes at once.
//!
//! The same rules as in [`grammar`](super::super::grammar), which says why they are enough, with two more, so that a
//! number with digits, a dot and digits need not be judged where it stands.

use std::arch::x86_64::*;

use super::classes::Classes;
use super::lanes::{add, behind, carried, lanes_with, or, prefix_xor};

/// What the groups so far leave to the next one: what masks were, and the carries of additions.
pub(super) struct Grammar {
    escaped: u32,
    in_string: u32,
    scalar: __m512i,
    zeros: __m512i,
    string_end: __m512i,
    name_before: __m512i,
    name_end: __m512i,
    names: __m512i,
    escaped_ends: __m512i,
    dots: __m512i,
    wanting: Follow,
    opened: Follow,
    first: Follow,
    whole: Follow,
    fraction: Follow,
    escapes_in_string: u32,
}

/// What is worth a look in a group, strings and escapes known; see [`Marks`](super::super::grammar::Marks).
#[derive(Clone, Copy)]
pub(super) struct Marks {
    pub(super) wrong: __m512i,
    pub(super) wrong_in_object: __m512i,
    pub(super) wrong_in_array: __m512i,
    pub(super) open: __m512i,
    pub(super) close: __m512i,
    pub(super) newline: __m512i,
    pub(super) blank: __m512i,
    pub(super) words: __m512i,
    /// Bytes of a number that starts with a digit and is more than digits, a dot and digits: it has to be judged.
    pub(super) numbers: __m512i,
    /// Escaped characters that are `u` or none that JSON has: each has to be judged.
    pub(super) escapes: __m512i,
    pub(super) names: __m512i,
    pub(super) detached: __m512i,
    pub(super) escaped_names: __m512i,
    pub(super) escaped_ends: __m512i,
}

impl Marks {
    /// Of nothing.
    #[inline]
    #[target_feature(enable = "avx512f")]
    pub(super) fn none() -> Self {
        let none = _mm512_setzero_si512();
        Self {
            wrong: none,
            wrong_in_object: none,
            wrong_in_array: none,
            open: none,
            close: none,
            newline: none,
            blank: none,
            words: none,
            numbers: none,
            escapes: none,
            names: none,
            detached: none,
            escaped_names: none,
            escaped_ends: none,
        }
    }
}

impl Grammar {
    /// Before the first byte of a line.
    #[inline]
    #[target_feature(enable = "avx512f")]
    pub(super) fn new() -> Self {
        let none = _mm512_setzero_si512();
        Self {
            escaped: 0,
            in_string: 0,
            scalar: none,
            zeros: none,
            string_end: none,
            name_before: none,
            name_end: none,
            names: none,
            escaped_ends: none,
            dots: none,
            wanting: Follow { tokens: none, carry: 1 },
            opened: Follow { tokens: none, carry: 1 },
            first: Follow { tokens: none, carry: 0 },
            whole: Follow { tokens: none, carry: 0 },
            fraction: Follow { tokens: none, carry: 0 },
            escapes_in_string: 0,
        }
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512dq,avx512vbmi2,vpclmulqdq")]
    pub(super) fn next(&mut self, classes: &Classes) -> Marks {
        let escaped = self.escaped_by(classes.backslash);
        let quote = without(classes.quote, escaped);
        let in_string = prefix_xor(quote, &mut self.in_string);
        let inside = or(in_string, quote);
        let string_end = without(quote, in_string);

        let comma = without(classes.comma, inside);
        let colon = without(classes.colon, inside);
        let newline = without(classes.newline, inside);
        let open = without(classes.open, inside);
        let close = without(classes.close, inside);
        let space = without(classes.space, inside);
        let between = or(comma, colon);
        let separator = or(or(between, newline), or(open, close));
        let scalar = not(or(or(inside, separator), space));
        let scalars = without(scalar, behind(scalar, self.scalar));
        self.scalar = scalar;

        let wanting = self.wanting.next(or(or(open, between), newline), space);
        let opened = self.opened.next(or(open, newline), space);
        let first = self.first.next(or(open, comma), not(separator));

        let values = or(or(and(quote, in_string), scalars), open);
        let empty = and(close, and(wanting, opened));
        let misplaced = or(
            or(without(values, wanting), and(between, wanting)),
            or(without(and(or(close, newline), wanting), opened), or(without(colon, first), and(newline, first))),
        );

        let number = and(classes.digit, scalars);
        let zeros = and(classes.zero, number);
        let leading_zero = and(classes.digit, behind(zeros, self.zeros));
        self.zeros = zeros;
        // What comes behind the digits, and then behind a dot and more digits.
        let whole = self.whole.next_in(number, classes.digit);
        let dots = and(whole, and(classes.dot, scalar));
        let fraction = behind(dots, self.dots);
        self.dots = dots;
        let behind_fraction = self.fraction.next_in(and(fraction, classes.digit), classes.digit);
        let numbers = or(
            without(or(and(whole, scalar), fraction), or(dots, and(fraction, classes.digit))),
            and(behind_fraction, scalar),
        );

        let after_string = behind(string_end, self.string_end);
        let name_end = and(classes.name_end, behind(classes.name_before, self.name_before));
        let names = and(string_end, behind(name_end, self.name_end));
        let after_name = behind(names, self.names);
        (self.string_end, self.name_before, self.name_end, self.names) =
            (string_end, classes.name_before, name_end, names);
        let escaped_ends = and(self.ends_with_escapes(classes.backslash, in_string), string_end);
        let after_escapes = behind(escaped_ends, self.escaped_ends);
        self.escaped_ends = escaped_ends;
        Marks {
            wrong: or(or(and(classes.control, in_string), misplaced), leading_zero),
            wrong_in_object: without(without(first, colon), empty),
            wrong_in_array: and(first, colon),
            open,
            close,
            newline,
            blank: and(newline, wanting),
            words: without(scalars, number),
            numbers,
            escapes: without(and(escaped, in_string), classes.escape),
            names: and(colon, after_name),
            detached: without(colon, after_string),
            escaped_names: and(colon, after_escapes),
            escaped_ends,
        }
    }

    /// As [`escaped_by`](super::super::grammar::escaped_by), which says how.
    #[inline]
    #[target_feature(enable = "avx512f,avx512dq")]
    fn escaped_by(&mut self, backslash: __m512i) -> __m512i {
        if lanes_with(backslash) == 0 && self.escaped == 0 {
            return _mm512_setzero_si512();
        }
        let odd = _mm512_set1_epi64(0xAAAA_AAAA_AAAA_AAAA_u64 as i64);
        let codes = |escaping: __m512i| {
            let behind = or(_mm512_slli_epi64::<1>(escaping), odd);
            _mm512_xor_si512(_mm512_sub_epi64(behind, escaping), odd)
        };
        // What a lane leaves to the next one does not depend on what came in, unless it is all backslashes.
        let leaving = u32::from(_mm512_movepi64_mask(and(codes(backslash), backslash)));
        let full = u32::from(_mm512_cmpeq_epi64_mask(backslash, _mm512_set1_epi64(-1)));
        let into = carried(leaving, full, &mut self.escaped);
        let carry = _mm512_maskz_set1_epi64(into, 1);
        _mm512_xor_si512(codes(without(backslash, carry)), or(backslash, carry))
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    fn ends_with_escapes(&mut self, backslash: __m512i, in_string: __m512i) -> __m512i {
        if lanes_with(backslash) == 0 && self.escapes_in_string == 0 {
            return _mm512_setzero_si512();
        }
        without(add(in_string, and(backslash, in_string), &mut self.escapes_in_string), in_string)
    }
}

/// Looks for the first byte that is not skipped behind tokens.
struct Follow {
    tokens: __m512i,
    carry: u32,
}

impl Follow {
    /// The first byte that is not in `skipped` behind each bit of `tokens`, none of which is in `skipped`.
    #[inline]
    #[target_feature(enable = "avx512f,avx512vbmi2")]
    fn next(&mut self, tokens: __m512i, skipped: __m512i) -> __m512i {
        let behind = behind(tokens, self.tokens);
        self.tokens = tokens;
        self.next_in(behind, skipped)
    }

    /// The same, each of `starts` taken for the first byte behind a token.
    #[inline]
    #[target_feature(enable = "avx512f")]
    fn next_in(&mut self, starts: __m512i, skipped: __m512i) -> __m512i {
        without(add(starts, skipped, &mut self.carry), skipped)
    }
}

#[inline]
#[target_feature(enable = "avx512f")]
fn and(a: __m512i, b: __m512i) -> __m512i {
    _mm512_and_si512(a, b)
}

#[inline]
#[target_feature(enable = "avx512f")]
fn not(a: __m512i) -> __m512i {
    _mm512_xor_si512(a, _mm512_set1_epi64(-1))
}

/// What is in `a` and not in `b`.
#[inline]
#[target_feature(enable = "avx512f")]
fn without(a: __m512i, b: __m512i) -> __m512i {
    _mm512_andnot_si512(b, a)
}

#[cfg(test)]
mod tests {
    use super::super::super::grammar::escaped_by;
    use super::super::Avx512;
    use super::super::lanes::{LANES, wide, words};
    use super::*;

    #[test]
    fn what_is_escaped_is_told_across_lanes_as_word_by_word() {
        let Some(_) = Avx512::detect() else { return };
        let mut random = 1_u64;
        let mut next = || {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            // Rows of backslashes that run through lanes, begin in them and end in them.
            [u64::MAX, 0, u64::MAX << (random >> 40 & 63), u64::MAX >> (random >> 40 & 63), random]
                [(random >> 60) as usize % 5]
        };
        // SAFETY: the processor has these features.
        let mut grammar = unsafe { Grammar::new() };
        let mut carry = 0;
        for _ in 0..2000 {
            let backslashes: [u64; LANES] = std::array::from_fn(|_| next());
            // SAFETY: the processor has these features.
            let escaped = unsafe { words(grammar.escaped_by(wide(backslashes))) };
            assert_eq!(escaped, backslashes.map(|backslash| escaped_by(backslash, &mut carry)));
        }
    }
}
