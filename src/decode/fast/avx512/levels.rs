//! Brackets: whether they match, and whether what is between them fits the kind of bracket around it.
//!
//! As in [`levels`](super::super::levels), but the brackets of a whole group are put in a row first, one bit each. The loop
//! over them only keeps the stack and notes what it was; what is wrong is then a question of whole rows.

use std::arch::x86_64::*;

use super::grammar::Marks;
use super::lanes::{LANES, NONE, behind, lanes_with, lowest, prefix_xor, wide, words};

/// The open brackets.
pub(super) struct Levels {
    /// Their kinds, the innermost one lowest: 0 for `{`, 1 for `[`. Above them another 1, so that outside of all brackets
    /// is no object either.
    stack: u64,
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
        Self { stack: 1 }
    }

    /// How deep the start of each lane is, of the group that comes now.
    #[inline]
    #[target_feature(enable = "avx512f,avx512vpopcntdq,lzcnt")]
    pub(super) fn depths(&self, marks: &Marks) -> __m512i {
        let none = _mm512_setzero_si512();
        let depth = 63 - i64::from(self.stack.leading_zeros());
        let deeper = _mm512_sub_epi64(_mm512_popcnt_epi64(marks.open), _mm512_popcnt_epi64(marks.close));
        let sum = _mm512_add_epi64(deeper, _mm512_alignr_epi64::<7>(deeper, none));
        let sum = _mm512_add_epi64(sum, _mm512_alignr_epi64::<6>(sum, none));
        let sum = _mm512_add_epi64(sum, _mm512_alignr_epi64::<4>(sum, none));
        _mm512_add_epi64(_mm512_sub_epi64(sum, deeper), _mm512_set1_epi64(depth))
    }

    /// Goes through the brackets of a group. Returns the place of the first that is wrong, or of what it makes wrong.
    #[inline]
    #[target_feature(enable = "avx512f,avx512dq,avx512vbmi2,avx512vpopcntdq,vpclmulqdq,bmi1,bmi2,lzcnt,popcnt")]
    pub(super) fn wrong(&mut self, marks: &Marks, brace: __m512i) -> usize {
        let mut in_object = !self.stack as u32 & 1;
        let all = _mm512_or_si512(marks.open, marks.close);
        if lanes_with(all) == 0 {
            let wrong = if in_object == 1 { marks.wrong_in_object } else { marks.wrong_in_array };
            return lowest(wrong);
        }
        let (opens, braces, after_comma) = (words(marks.open), words(brace), words(marks.wrong_in_object));
        let all = words(all);
        let mut changes = [0; LANES];
        let mut wrong = NONE;
        if _mm512_reduce_add_epi64(_mm512_popcnt_epi64(wide(all))) <= 64 {
            wrong = self.row(&opens, &braces, &after_comma, &all, &mut changes);
        } else {
            for lane in 0..LANES {
                let mut change = [0];
                let (opens, braces, after_comma) = ([opens[lane]], [braces[lane]], [after_comma[lane]]);
                let place = self.row(&opens, &braces, &after_comma, &[all[lane]], &mut change);
                wrong = wrong.min(if place == NONE { NONE } else { lane * 64 + place });
                changes[lane] = change[0];
            }
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

    /// Goes through the brackets of `N` lanes, 64 at most. Returns the place of the first that is wrong.
    #[inline]
    #[target_feature(enable = "bmi1,bmi2,lzcnt,popcnt")]
    fn row<const N: usize>(
        &mut self,
        opens: &[u64; N],
        braces: &[u64; N],
        after_comma: &[u64; N],
        all: &[u64; N],
        changes: &mut [u64; N],
    ) -> usize {
        let mut row = Row::default();
        for lane in 0..N {
            // Where the row is full, nothing is left to be put behind it: then it does not matter that shifts wrap around.
            row.opens |= _pext_u64(opens[lane], all[lane]).wrapping_shl(row.count);
            row.braces |= _pext_u64(braces[lane], all[lane]).wrapping_shl(row.count);
            row.after_comma |= _pext_u64(after_comma[lane], all[lane]).wrapping_shl(row.count);
            row.count += all[lane].count_ones();
        }
        let (mut changed, mut misplaced) = self.walk(&row);
        for lane in 0..N {
            changes[lane] = _pdep_u64(changed, all[lane]);
            changed = changed.wrapping_shr(all[lane].count_ones());
        }
        let mut lane = 0;
        while misplaced != 0 {
            let place = _pdep_u64(misplaced, all[lane]);
            if place != 0 {
                return lane * 64 + place.trailing_zeros() as usize;
            }
            misplaced = misplaced.wrapping_shr(all[lane].count_ones());
            lane += 1;
        }
        NONE
    }

    /// The brackets behind which the innermost one is of another kind than before, and those that are wrong.
    #[inline(always)]
    fn walk(&mut self, row: &Row) -> (u64, u64) {
        let mut stack = self.stack;
        // Bit n: what is lowest behind bracket n; whether it is outside; whether there is no room for it.
        let (mut behind, mut outside, mut full) = (0, 0, 0);
        let (mut opens, mut arrays) = (row.opens, !row.braces);
        let roomy = stack.leading_zeros() > row.opens.count_ones();
        for index in 0..row.count {
            outside |= u64::from(stack == 1) << index;
            if !roomy {
                full |= (opens & stack >> 63) << index;
            }
            stack = if opens & 1 == 1 { stack << 1 | arrays & 1 } else { stack >> 1 };
            behind |= (stack & 1) << index;
            opens >>= 1;
            arrays >>= 1;
        }
        let before = behind << 1 | self.stack & 1;
        self.stack = stack;
        let all = u64::MAX.checked_shr(64 - row.count).unwrap_or(0);
        let mismatch = !row.opens & (outside | !(before ^ row.braces));
        let misplaced = row.opens & (outside & row.after_comma | full);
        ((behind ^ before) & all, (mismatch | misplaced) & all)
    }
}
