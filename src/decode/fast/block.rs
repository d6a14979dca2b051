//! Which characters stand where in 64 bytes.

use crate::decode::search::NameEnds;

/// One bit per byte, the first byte lowest. Nothing here knows about strings yet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Block {
    pub(super) quote: u64,
    pub(super) backslash: u64,
    pub(super) newline: u64,
    pub(super) comma: u64,
    pub(super) colon: u64,
    /// `{` and `[`.
    pub(super) open: u64,
    /// `}` and `]`.
    pub(super) close: u64,
    /// Space, tab, carriage return.
    pub(super) space: u64,
    pub(super) digit: u64,
    /// The digit 0.
    pub(super) zero: u64,
    /// Below 0x20.
    pub(super) control: u64,
    /// Beyond ASCII.
    pub(super) high: u64,
    /// The bytes that a name on a path can end in.
    pub(super) name_end: u64,
}

/// A block behind the byte before it.
pub(super) type Chunk = [u8; 65];

/// Tells the characters of a block apart.
pub(super) trait Classify: Copy {
    fn classify(self, chunk: &Chunk, ends: NameEnds) -> Block;

    /// Bit `n` of the result is the parity of the bits of `bits` up to and with `n`.
    fn prefix_xor(self, bits: u64) -> u64;

    /// Tells the processor that `bytes[at]` is wanted soon.
    fn prefetch(self, bytes: &[u8], at: usize);
}

/// The same, a byte at a time: what the tests compare with, and what runs under Miri.
#[cfg(test)]
#[derive(Clone, Copy, Debug)]
pub(super) struct Plain;

#[cfg(test)]
impl Classify for Plain {
    fn classify(self, chunk: &Chunk, ends: NameEnds) -> Block {
        let block = &chunk[1..];
        let mask = |is: &dyn Fn(u8) -> bool| {
            block.iter().enumerate().fold(0, |mask, (at, &byte)| mask | u64::from(is(byte)) << at)
        };
        Block {
            quote: mask(&|byte| byte == b'"'),
            backslash: mask(&|byte| byte == b'\\'),
            newline: mask(&|byte| byte == b'\n'),
            comma: mask(&|byte| byte == b','),
            colon: mask(&|byte| byte == b':'),
            open: mask(&|byte| byte == b'{' || byte == b'['),
            close: mask(&|byte| byte == b'}' || byte == b']'),
            space: mask(&|byte| matches!(byte, b' ' | b'\t' | b'\r')),
            digit: mask(&|byte| byte.is_ascii_digit()),
            zero: mask(&|byte| byte == b'0'),
            control: mask(&|byte| byte < 0x20),
            high: mask(&|byte| byte >= 0x80),
            name_end: chunk.windows(2).enumerate().fold(0, |mask, (at, pair)| {
                let last = ends.count == 0 || ends.bytes[..ends.count].contains(&pair[1]);
                mask | u64::from(last && ends.before.is_none_or(|before| before == pair[0])) << at
            }),
        }
    }

    fn prefix_xor(self, bits: u64) -> u64 {
        (0..64).fold(0, |out, at| out | u64::from((bits << (63 - at)).count_ones() & 1) << at)
    }

    fn prefetch(self, _bytes: &[u8], _at: usize) {}
}
