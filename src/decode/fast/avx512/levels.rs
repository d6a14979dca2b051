//! Brackets: whether they match, and whether what is between them fits the kind of bracket around it.
//!
//! As in [`levels`](super::super::levels), but the brackets of a whole group are put in a row first, one bit each, so that
//! the loop over them needs no memory and ends once.

use std::arch::x86_64::*;

use super::grammar::Marks;
use super::lanes::{LANES, NONE, behind, lanes_with, lowest, prefix_xor, wide, words};
use crate::decode::fast::levels::FAST_DEPTH_MAX;

/// The open brackets.
pub(super) struct Levels {
    depth: usize,
    /// Their kinds, the innermost one lowest: 1 for `{`, 0 for `[`, and 0 outside all of them.
    kinds: u64,
}

/// Brackets in a row, the first one lowest.
#[derive(Default)]
struct Row {
    count: u32,
    opens: u64,
    braces: u64,
    /// Outside all brackets these cannot open.
    after_comma: u64,
}

impl Levels {
    /// At the start of a line.
    pub(super) fn new() -> Self {
        Self { depth: 0, kinds: 0 }
    }

    /// How deep the start of each lane is, of the group that comes now.
    #[inline]
    #[target_feature(enable = "avx512f,avx512vpopcntdq")]
    pub(super) fn depths(&self, marks: &Marks) -> __m512i {
        let none = _mm512_setzero_si512();
        let deeper = _mm512_sub_epi64(_mm512_popcnt_epi64(marks.open), _mm512_popcnt_epi64(marks.close));
        let sum = _mm512_add_epi64(deeper, _mm512_alignr_epi64::<7>(deeper, none));
        let sum = _mm512_add_epi64(sum, _mm512_alignr_epi64::<6>(sum, none));
        let sum = _mm512_add_epi64(sum, _mm512_alignr_epi64::<4>(sum, none));
        _mm512_add_epi64(_mm512_sub_epi64(sum, deeper), _mm512_set1_epi64(self.depth as i64))
    }

    /// Goes through the brackets of a group. Returns the place of the first that is wrong, or of what it makes wrong.
    #[inline]
    #[target_feature(enable = "avx512f,avx512dq,avx512vbmi2,vpclmulqdq,bmi1,bmi2,popcnt")]
    pub(super) fn wrong(&mut self, marks: &Marks, brace: __m512i) -> usize {
        let mut in_object = (self.kinds & 1) as u32;
        let all = _mm512_or_si512(marks.open, marks.close);
        if lanes_with(all) == 0 {
            let wrong = if in_object == 1 { marks.wrong_in_object } else { marks.wrong_in_array };
            return lowest(wrong);
        }
        let (opens, braces, after_comma) = (words(marks.open), words(brace), words(marks.wrong_in_object));
        let all = words(all);
        let mut changes = [0; LANES];
        let mut wrong = NONE;
        let mut from = 0;
        while from < LANES {
            let mut row = Row::default();
            let mut to = from;
            // One lane at least, and as many as there is room for.
            while to < LANES && row.count + all[to].count_ones() <= 64 {
                // Where the row is full, nothing is left to be put behind it.
                let end = row.count & 63;
                row.opens |= _pext_u64(opens[to], all[to]) << end;
                row.braces |= _pext_u64(braces[to], all[to]) << end;
                row.after_comma |= _pext_u64(after_comma[to], all[to]) << end;
                row.count += all[to].count_ones();
                to += 1;
            }
            let (mut changed, mut misplaced) = self.walk(&row);
            for lane in from..to {
                let count = all[lane].count_ones();
                changes[lane] = _pdep_u64(changed, all[lane]);
                if misplaced != 0 {
                    let place = lane * 64 + _pdep_u64(misplaced, all[lane]).trailing_zeros() as usize;
                    wrong = if place < (lane + 1) * 64 { wrong.min(place) } else { wrong };
                }
                changed = changed.checked_shr(count).unwrap_or(0);
                misplaced = misplaced.checked_shr(count).unwrap_or(0);
            }
            from = to;
        }
        // Bit n: the innermost bracket around byte n is `{`. A bracket changes that for the bytes behind it.
        let changes = wide(changes);
        let changes = behind(changes, _mm512_setzero_si512());
        let in_object = prefix_xor(changes, &mut in_object);
        let unfit = _mm512_or_si512(
            _mm512_and_si512(marks.wrong_in_object, in_object),
            _mm512_andnot_si512(in_object, marks.wrong_in_array),
        );
        wrong.min(lowest(unfit))
    }

    /// The brackets behind which the innermost one is of another kind than before, and those that are wrong.
    #[inline(always)]
    fn walk(&mut self, row: &Row) -> (u64, u64) {
        let (mut depth, mut kinds) = (self.depth, self.kinds);
        let (mut changed, mut wrong) = (0, 0);
        for index in 0..row.count {
            let brace = row.braces >> index & 1;
            let outer = kinds;
            // A branch: the order of brackets repeats from line to line, and guessing it beats computing both.
            let misplaced = if row.opens >> index & 1 == 1 {
                let misplaced = row.after_comma >> index & u64::from(depth == 0);
                kinds = kinds << 1 | brace;
                depth = depth.wrapping_add(1);
                misplaced
            } else {
                kinds >>= 1;
                depth = depth.wrapping_sub(1);
                (outer ^ brace) & 1
            };
            // One too many that closes wraps around, to far beyond the limit.
            wrong |= (misplaced | u64::from(depth > FAST_DEPTH_MAX)) << index;
            changed |= ((outer ^ kinds) & 1) << index;
        }
        (self.depth, self.kinds) = (depth, kinds);
        (changed, wrong)
    }
}
