//! Event IDs: eight forms, each a one-to-one function of the event's number, no two of them overlapping by value.

use std::io::Write as _;

use super::rng::{Rng, mix};

/// Appends the ID of an unusual event: one that has letters beyond ASCII, or escapes, which a `retry` may place elsewhere.
pub fn append_unusual(out: &mut Vec<u8>, seed: u64, number: u64, retry: Option<&mut Rng>) {
    let bits = bits(seed, number);
    let _ = match number.is_multiple_of(2) {
        true => write!(out, "\"注文-{}-é\"", base36(bits)),
        false => escaped(out, bits, retry),
    };
}

/// Appends the ID of event `number` as a JSON value.
pub fn append(out: &mut Vec<u8>, seed: u64, number: u64) {
    let bits = bits(seed, number);
    // Neighbours share what they count by: `9007199254741003` and `"9007199254741003"` are both there.
    let count = FIRST_BIG + number / FORMS;
    let _ = match number % FORMS {
        0 => write!(out, "\"evt_{}\"", base36(bits)),
        1 => write!(out, "\"{}\"", uuid(bits)),
        2 => write!(out, "{count}"),
        3 => write!(out, "\"{count}\""),
        4 => write!(out, "\"urn:example:eu-central-1:123456789012:delivery/{}/{}/Attempt\"", uuid(bits), base36(bits)),
        // Case matters: the upper and the lower spelling of one word are two events.
        _ if (number / FORMS).is_multiple_of(2) => write!(out, "\"order {:07}\"", number / FORMS / 2),
        _ => write!(out, "\"Order {:07}\"", number / FORMS / 2),
    };
}

/// An ID that some encoders escape and others do not: `a/1x`, or `a/"1x"`, where all must.
fn escaped(out: &mut Vec<u8>, bits: u64, retry: Option<&mut Rng>) -> std::io::Result<()> {
    let (tail, quote) = (base36(bits), if bits.is_multiple_of(2) { "\\\"" } else { "" });
    let start = match retry.map_or(0, |rng| rng.below(4)) {
        0 => "a/",
        1 => "a\\/",
        2 => "\\u0061/",
        _ => "\\u0061\\u002F",
    };
    write!(out, "\"{start}{quote}{tail}{quote}\"")
}

fn bits(seed: u64, number: u64) -> u64 {
    mix(mix(!seed) ^ number)
}

fn base36(mut bits: u64) -> Base36 {
    let mut text = [0; 13];
    for digit in text.iter_mut().rev() {
        *digit = b"0123456789abcdefghijklmnopqrstuvwxyz"[(bits % 36) as usize];
        bits /= 36;
    }
    Base36(text)
}

/// Thirteen digits of base 36: all of 64 bits.
struct Base36([u8; 13]);

impl std::fmt::Display for Base36 {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(std::str::from_utf8(&self.0).unwrap_or_default())
    }
}

/// A version-4 UUID that holds all of `bits`.
fn uuid(bits: u64) -> Uuid {
    Uuid(bits, mix(bits))
}

struct Uuid(u64, u64);

impl std::fmt::Display for Uuid {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self(bits, more) = *self;
        let (a, b, last) = (bits >> 32, (bits >> 16) & 0xffff, bits & 0xffff);
        write!(f, "{a:08x}-{b:04x}-4{:03x}-8{:03x}-{:08x}{last:04x}", more & 0xfff, (more >> 12) & 0xfff, more >> 32)
    }
}

/// Forms of usual IDs.
const FORMS: u64 = 6;

/// 2^53: from here on a float cannot tell neighbours apart.
const FIRST_BIG: u64 = 1 << 53;
