//! Groups of 512 bytes by AVX-512: eight blocks at once.
//!
//! What is done for each block elsewhere is done here for eight of them in one vector, carries included; that more than
//! halves the instructions. The rare things, and the lines and names that are found, go to the same code, block by block.
//!
//! Invariants:
//! 1. An [`Avx512`] is only made by [`Avx512::detect`], so where one exists the processor has every feature that this
//!    folder enables or uses.

mod classes;
mod grammar;
mod lanes;
mod levels;
mod utf8;

use std::arch::x86_64::*;

use super::levels::unclosed;
use super::walk::{Found, PREFETCH_BYTES, Place, Stop, Walk};
use super::{Scan, scalars};
use crate::decode::judge::Judge;
use crate::decode::record::Record;
use classes::{Group, Tables, classify};
use grammar::{Grammar, Marks};
use lanes::{LANES, NONE, lanes_with, lowest, or, without_lanes, words};
use levels::Levels;
use utf8::Utf8;

/// The proof that this processor can run what is here.
#[derive(Clone, Copy, Debug)]
pub(in crate::decode) struct Avx512(());

impl Avx512 {
    pub(in crate::decode) fn detect() -> Option<Self> {
        let found = is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("avx512vbmi")
            && is_x86_feature_detected!("avx512vbmi2")
            && is_x86_feature_detected!("avx512vpopcntdq")
            && is_x86_feature_detected!("vpclmulqdq")
            && is_x86_feature_detected!("gfni")
            && is_x86_feature_detected!("bmi1")
            && is_x86_feature_detected!("bmi2")
            && is_x86_feature_detected!("lzcnt")
            && is_x86_feature_detected!("popcnt");
        found.then_some(Self(()))
    }
}

impl Scan for Avx512 {
    fn scan(&self, judge: &mut Judge, bytes: &[u8], from: usize, visit: &mut impl FnMut(Record<'_>)) -> Stop {
        // SAFETY: the processor has these features (invariant 1).
        unsafe { scan(judge, bytes, from, visit) }
    }
}

#[target_feature(
    enable = "avx512f,avx512bw,avx512dq,avx512vbmi,avx512vbmi2,avx512vpopcntdq,vpclmulqdq,gfni,bmi1,bmi2,lzcnt,popcnt"
)]
fn scan(judge: &mut Judge, bytes: &[u8], from: usize, visit: &mut impl FnMut(Record<'_>)) -> Stop {
    let tables = Tables::new(judge.search.name_ends());
    let nested = judge.search.is_nested();
    let mut grammar = Grammar::new();
    let mut utf8 = Utf8::new();
    let mut levels = Levels::new();
    let mut walk = Walk::new(bytes, from);
    judge.search.reset();
    let mut looks = [Look::none(); 2];
    let [mut now, mut ahead] = looks.each_mut();
    now.take(bytes, from, &tables, &mut grammar, &mut utf8);
    loop {
        // One group ahead: else the first branch that is guessed wrong below would have to wait for all the masks.
        if !now.last {
            ahead.take(bytes, now.at + LANES * 64, &tables, &mut grammar, &mut utf8);
        }
        let Look { at, last, ref marks, brace, is_utf8 } = *now;
        let depths = levels.depths(marks);
        let mut wrong = lowest(marks.wrong).min(levels.wrong(marks, brace));
        if !is_utf8 {
            // Where is not known; lines before the place that are in this group go to the exact checker too.
            wrong = 0;
        }
        let off_path = if nested { 0 } else { lone_names_off_path(marks, depths) };
        let depths = words(depths);
        let (open, close, newline) = (words(marks.open), words(marks.close), words(marks.newline));
        let mut with_newlines = lanes_with(marks.newline);
        while with_newlines != 0 {
            let lane = with_newlines.trailing_zeros() as usize;
            wrong = wrong.min(first(lane, unclosed(open[lane], close[lane], newline[lane], depths[lane] as usize)));
            with_newlines &= with_newlines - 1;
        }
        let literals = words(marks.words);
        let mut with_words = lanes_with(marks.words);
        while with_words != 0 {
            let lane = with_words.trailing_zeros() as usize;
            wrong = wrong.min(first(lane, scalars::wrong_words(bytes, at + lane * 64, literals[lane])));
            with_words &= with_words - 1;
        }
        let named = without_lanes(marks.names, off_path);
        let escaped_named = without_lanes(marks.escaped_names, off_path);
        let (mut names, mut escaped_names) = (words(named), words(escaped_named));
        let rare = lanes_with(or(or(marks.numbers, marks.escapes), or(marks.detached, marks.escaped_ends)));
        if rare != 0 {
            wrong = wrong.min(judge_rare(&mut walk, at, marks, rare, &mut names, &mut escaped_names));
        }

        let named = or(or(named, escaped_named), marks.detached);
        let mut with_events = lanes_with(or(named, marks.newline));
        if nested {
            with_events |= lanes_with(or(marks.open, marks.close));
        }
        let blank = words(marks.blank);
        // Nothing beyond ASCII is left to be told of: it is judged already.
        let high = 0;
        while with_events != 0 {
            let lane = with_events.trailing_zeros() as usize;
            with_events &= with_events - 1;
            let marks = Found {
                open: open[lane],
                close: close[lane],
                newline: newline[lane],
                blank: blank[lane],
                names: names[lane],
                escaped_names: escaped_names[lane],
            };
            let sound = below(wrong, lane);
            let place = Place { at: at + lane * 64, depth: depths[lane] as usize, sound };
            if nested {
                walk.follow_paths(high, marks, place, judge, visit);
            } else {
                walk.find_names(high, marks, place, judge, visit);
            }
        }
        if wrong != NONE {
            return Stop::Doubt { line_start: walk.line_start };
        }
        if last {
            return Stop::End;
        }
        std::mem::swap(&mut now, &mut ahead);
    }
}

/// The lanes with one name only, which is not at depth 1. Paths of one step are never there, but most names that end as the
/// wanted one are.
#[inline]
#[target_feature(enable = "avx512f,avx512vpopcntdq")]
fn lone_names_off_path(marks: &Marks, depths: __m512i) -> u8 {
    let one = _mm512_set1_epi64(1);
    let names = or(marks.names, marks.escaped_names);
    let less = _mm512_sub_epi64(names, one);
    let before = _mm512_andnot_si512(names, less);
    let opened = _mm512_popcnt_epi64(_mm512_and_si512(marks.open, before));
    let closed = _mm512_popcnt_epi64(_mm512_and_si512(marks.close, before));
    let depth = _mm512_sub_epi64(_mm512_add_epi64(depths, opened), closed);
    _mm512_testn_epi64_mask(names, less) & _mm512_cmpneq_epi64_mask(depth, one)
}

/// What masks say about the group at `at`.
#[derive(Clone, Copy)]
struct Look {
    at: usize,
    /// Whether nothing is behind it.
    last: bool,
    marks: Marks,
    brace: __m512i,
    is_utf8: bool,
}

impl Look {
    /// At nothing yet.
    #[inline]
    #[target_feature(enable = "avx512f")]
    fn none() -> Self {
        let none = _mm512_setzero_si512();
        Self { at: 0, last: true, marks: Marks::none(), brace: none, is_utf8: true }
    }

    #[inline(never)]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vbmi,avx512vbmi2,vpclmulqdq,gfni")]
    fn take(&mut self, bytes: &[u8], at: usize, tables: &Tables, grammar: &mut Grammar, utf8: &mut Utf8) {
        let edge;
        let (group, last) = match bytes[at..].first_chunk::<{ LANES * 64 }>() {
            Some(group) => (group, false),
            None => {
                edge = edge_group(bytes, at);
                (&edge, true)
            }
        };
        prefetch(bytes, at + PREFETCH_BYTES);
        let classes = classify(group, tables);
        let marks = grammar.next(&classes);
        let is_utf8 = !utf8.is_wrong(group, _mm512_movepi8_mask(classes.beyond_ascii) != 0);
        *self = Self { at, last, marks, brace: classes.brace, is_utf8 };
    }
}

/// Tells the processor that the group at `at` is wanted soon.
#[inline(always)]
fn prefetch(bytes: &[u8], at: usize) {
    for cache_line in 0..LANES {
        let at = bytes.as_ptr().wrapping_add(at + cache_line * 64);
        // SAFETY: a prefetch reads nothing that the program can see, and an address without memory behind it is ignored.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(at.cast()) }
    }
}

/// Judges what is judged where it stands in the lanes `rare`, words aside. Returns the first place that is wrong.
#[inline(never)]
#[target_feature(enable = "avx512f")]
fn judge_rare(
    walk: &mut Walk<'_>,
    at: usize,
    marks: &Marks,
    mut rare: u8,
    names: &mut [u64; LANES],
    escaped_names: &mut [u64; LANES],
) -> usize {
    let (numbers, escapes) = (words(marks.numbers), words(marks.escapes));
    let (detached, escaped_ends) = (words(marks.detached), words(marks.escaped_ends));
    let mut wrong = NONE;
    while rare != 0 {
        let lane = rare.trailing_zeros() as usize;
        rare &= rare - 1;
        let at = at + lane * 64;
        if numbers[lane] != 0 {
            wrong = wrong.min(first(lane, scalars::wrong_numbers_at(walk.bytes, at, numbers[lane])));
        }
        if escapes[lane] != 0 {
            wrong = wrong.min(first(lane, scalars::wrong_escapes(walk.bytes, at, escapes[lane])));
        }
        let (nameless, escaped) = walk.detached(at, detached[lane], escaped_ends[lane]);
        wrong = wrong.min(first(lane, nameless));
        names[lane] |= detached[lane] & !nameless;
        escaped_names[lane] |= escaped;
    }
    wrong
}

/// The place in a group of the lowest bit of one lane, [`NONE`] without one.
#[inline(always)]
fn first(lane: usize, bits: u64) -> usize {
    if bits == 0 { NONE } else { lane * 64 + bits.trailing_zeros() as usize }
}

/// The bits of one lane that are below `place` in the group.
#[inline(always)]
fn below(place: usize, lane: usize) -> u64 {
    match place.saturating_sub(lane * 64) {
        bits @ 0..64 => !(u64::MAX << bits),
        _ => u64::MAX,
    }
}

/// A group at the end of `bytes`: behind the last byte the newline that its line may lack, and blanks.
#[inline(never)]
fn edge_group(bytes: &[u8], at: usize) -> Group {
    let mut group = [b' '; LANES * 64];
    let rest = &bytes[at..];
    group[..rest.len()].copy_from_slice(rest);
    if !bytes.ends_with(b"\n") {
        group[rest.len()] = b'\n';
    }
    group
}
