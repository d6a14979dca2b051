//! Which characters stand where in 512 bytes.
//!
//! A table of 128 bytes says for each character to which of eight classes it belongs, one bit each; transposing the bits
//! of eight characters, then the bytes of 64 characters, then the words of eight such blocks gives one vector per class.
//! Two tables make sixteen classes. One comparison per class would take twice as many instructions.

use std::arch::x86_64::*;

use super::lanes::LANES;
use crate::decode::search::NameEnds;

/// What is looked at together.
pub(super) type Group = [u8; LANES * 64];

/// One bit per byte in each. Nothing here knows about strings yet.
pub(super) struct Classes {
    pub(super) quote: __m512i,
    pub(super) newline: __m512i,
    pub(super) comma: __m512i,
    pub(super) colon: __m512i,
    /// `{` and `[`.
    pub(super) open: __m512i,
    /// `}` and `]`.
    pub(super) close: __m512i,
    /// Space, tab, carriage return.
    pub(super) space: __m512i,
    pub(super) digit: __m512i,
    pub(super) backslash: __m512i,
    /// Below 0x20.
    pub(super) control: __m512i,
    /// The digit 0.
    pub(super) zero: __m512i,
    pub(super) dot: __m512i,
    /// `{` and `}`.
    pub(super) brace: __m512i,
    /// The bytes that a name on a path can end in.
    pub(super) name_end: __m512i,
    /// What can stand before these.
    pub(super) name_before: __m512i,
    /// What a backslash may stand before, `u` aside.
    pub(super) escape: __m512i,
    /// Beyond ASCII, byte by byte: any of the eight blocks has such a byte where this vector has one.
    pub(super) beyond_ascii: __m512i,
}

/// The classes of all characters.
pub(super) struct Tables {
    tokens: Table,
    details: Table,
}

type Table = [u8; 128];

impl Tables {
    pub(super) fn new(ends: NameEnds) -> Self {
        let mut tables = Self { tokens: [0; 128], details: [0; 128] };
        for byte in 0..128_u8 {
            let token = [
                byte == b'"',
                byte == b'\n',
                byte == b',',
                byte == b':',
                matches!(byte, b'{' | b'['),
                matches!(byte, b'}' | b']'),
                matches!(byte, b' ' | b'\t' | b'\r'),
                byte.is_ascii_digit(),
            ];
            // The last entry stands for all bytes beyond ASCII too.
            let is = |wanted: u8| wanted.min(0x7F) == byte;
            let detail = [
                byte == b'\\',
                byte < 0x20,
                byte == b'0',
                byte == b'.',
                matches!(byte, b'{' | b'}'),
                ends.count == 0 || ends.bytes.iter().any(|&end| is(end)),
                ends.before.is_none_or(is),
                matches!(byte, b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't'),
            ];
            tables.tokens[usize::from(byte)] = bits(token);
            tables.details[usize::from(byte)] = bits(detail);
        }
        tables
    }
}

fn bits(classes: [bool; 8]) -> u8 {
    classes.iter().enumerate().fold(0, |bits, (class, &is)| bits | u8::from(is) << class)
}

/// Tells the characters of a group apart.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vbmi,gfni")]
pub(super) fn classify(group: &Group, tables: &Tables) -> Classes {
    let (tokens, details) = (halves(&tables.tokens), halves(&tables.details));
    let mut token_rows = [_mm512_setzero_si512(); LANES];
    let mut detail_rows = token_rows;
    let mut beyond_ascii = token_rows[0];
    let last_ascii = _mm512_set1_epi8(0x7F);
    // The first operand of the transposition below has its rows the other way around.
    let backward = _mm512_set_epi64(
        0x08090A0B0C0D0E0F,
        0x0001020304050607,
        0x08090A0B0C0D0E0F,
        0x0001020304050607,
        0x08090A0B0C0D0E0F,
        0x0001020304050607,
        0x08090A0B0C0D0E0F,
        0x0001020304050607,
    );
    for row in 0..LANES {
        // SAFETY: the 64 bytes are in the group, and the load needs no alignment.
        let bytes = unsafe { _mm512_loadu_si512(group.as_ptr().add(row * 64).cast()) };
        beyond_ascii = _mm512_or_si512(beyond_ascii, bytes);
        let bytes = _mm512_min_epu8(_mm512_shuffle_epi8(bytes, backward), last_ascii);
        token_rows[row] = bits_by_class(_mm512_permutex2var_epi8(tokens[0], bytes, tokens[1]));
        detail_rows[row] = bits_by_class(_mm512_permutex2var_epi8(details[0], bytes, details[1]));
    }
    let [quote, newline, comma, colon, open, close, space, digit] = transpose(token_rows);
    let [backslash, control, zero, dot, brace, name_end, name_before, escape] = transpose(detail_rows);
    Classes {
        quote,
        newline,
        comma,
        colon,
        open,
        close,
        space,
        digit,
        backslash,
        control,
        zero,
        dot,
        brace,
        name_end,
        name_before,
        escape,
        beyond_ascii,
    }
}

#[inline]
#[target_feature(enable = "avx512f")]
fn halves(table: &Table) -> [__m512i; 2] {
    // SAFETY: both halves are 64 bytes in the table, and the loads need no alignment.
    unsafe { [_mm512_loadu_si512(table.as_ptr().cast()), _mm512_loadu_si512(table.as_ptr().add(64).cast())] }
}

/// From the classes of each byte, each eight bytes backward, to the bytes of each class: word `n` is for class `n`.
#[inline]
#[target_feature(enable = "avx512f,avx512vbmi,gfni")]
fn bits_by_class(classes: __m512i) -> __m512i {
    let diagonal = _mm512_set1_epi64(0x80402010_08040201_u64 as i64);
    let bytes = _mm512_gf2p8affine_epi64_epi8::<0>(diagonal, classes);
    let word = 0x3830_2820_1810_0800;
    let each = 0x0101_0101_0101_0101;
    let order = _mm512_set_epi64(
        word + 7 * each,
        word + 6 * each,
        word + 5 * each,
        word + 4 * each,
        word + 3 * each,
        word + 2 * each,
        word + each,
        word,
    );
    _mm512_permutexvar_epi8(order, bytes)
}

/// Lane `n` of row `m` becomes lane `m` of row `n`.
#[inline]
#[target_feature(enable = "avx512f")]
fn transpose(rows: [__m512i; LANES]) -> [__m512i; LANES] {
    let [even0, odd0] = pairs(rows[0], rows[1]);
    let [even1, odd1] = pairs(rows[2], rows[3]);
    let [even2, odd2] = pairs(rows[4], rows[5]);
    let [even3, odd3] = pairs(rows[6], rows[7]);
    let [out0, out2, out4, out6] = quarters([even0, even1, even2, even3]);
    let [out1, out3, out5, out7] = quarters([odd0, odd1, odd2, odd3]);
    [out0, out1, out2, out3, out4, out5, out6, out7]
}

#[inline]
#[target_feature(enable = "avx512f")]
fn pairs(a: __m512i, b: __m512i) -> [__m512i; 2] {
    [_mm512_unpacklo_epi64(a, b), _mm512_unpackhi_epi64(a, b)]
}

/// The same for four quarters of 128 bits each.
#[inline]
#[target_feature(enable = "avx512f")]
fn quarters(rows: [__m512i; 4]) -> [__m512i; 4] {
    const EVEN: i32 = 0x88;
    const ODD: i32 = 0xDD;
    let low = [_mm512_shuffle_i64x2::<EVEN>(rows[0], rows[1]), _mm512_shuffle_i64x2::<ODD>(rows[0], rows[1])];
    let high = [_mm512_shuffle_i64x2::<EVEN>(rows[2], rows[3]), _mm512_shuffle_i64x2::<ODD>(rows[2], rows[3])];
    [
        _mm512_shuffle_i64x2::<EVEN>(low[0], high[0]),
        _mm512_shuffle_i64x2::<EVEN>(low[1], high[1]),
        _mm512_shuffle_i64x2::<ODD>(low[0], high[0]),
        _mm512_shuffle_i64x2::<ODD>(low[1], high[1]),
    ]
}
