//! Bytes to records: lines, the JSON path, the canonical ID. Pure, no I/O.
//!
//! A [`Decoder`] gets whole lines and calls back once per line with a [`Record`]. Nothing is copied unless an ID has
//! escapes or several parts, and nothing is allocated per line.
//!
//! Every line is checked in full as RFC 8259 JSON, UTF-8 included, even when its ID stands at the start: a line that
//! was cut off or glued to another must not count as an event, and parsers downstream disagree about the rest of a
//! broken one. A JSON library could have done that, and none of them does all of it: to leave numbers as they are
//! written, to notice a member that occurs twice, to tell a lone surrogate from a character, to accept every valid line.
//! The exact checker is the judge; the fast path (64 bytes at a time where the processor has AVX2, 512 where it has AVX-512)
//! says the same or asks it.
//!
//! # Canonical bytes
//!
//! What is hashed. This is a disk format: the golden tests pin it.
//!
//! | key | canonical bytes |
//! |---|---|
//! | one, and the value is a string | `"` and the decoded value in UTF-8 |
//! | one, and the value is a number | its bytes as they are written |
//! | one, and the value is `true` or `false` | these letters |
//! | several | for each part the length of its canonical bytes as u32, little endian, and then these bytes |
//! | `@line` | the line without `\n` or `\r\n` |
//!
//! The first byte tells the types apart, so `"1"` and `1` are two IDs; and an unescaped string is found in the line as it
//! is, from its opening quote on. `1`, `1.0` and `1e0` are three IDs. Unicode is not normalised.
//!
//! # What is missing, what is bad
//!
//! - Absent, `null` and `""` are missing. Missing alternatives of `a|b` are passed over, `""` too: an empty name names
//!   nothing, whichever member holds it.
//! - An object or an array is bad (`malformed`), and no later alternative is tried: the event has an ID that we cannot
//!   read.
//! - A member on the path that occurs twice in its object is bad (`ambiguous_id`), with equal values too, and at any step
//!   of the path. It is judged when the path is consulted: once an alternative has won, those after it do not matter;
//!   those before it do, even when all that they have is `null`.
//! - A composite is as bad as its first bad part.
//! - A line that is not JSON is `malformed`, whatever else is wrong with it.
//! - A line of spaces, tabs and carriage returns is [`Content::Blank`], for `@line` too.
//!
//! Deliberately absent: reading, buffering, the limit on a line's length, byte order marks (see [`strip_bom`]) and what is
//! done with bad lines. They are the filter's.

mod canonical;
mod check;
mod event_time;
mod explain;
mod fast;
mod judge;
mod key;
mod lines;
mod members;
mod path;
mod payload;
mod record;
mod search;
mod text;
mod token;

use std::fmt;

pub use event_time::{TimeSpec, TimeUnit, UnknownTimeUnit};
pub use explain::{ExplainedPart, ExplainedValue, Explanation, Outcome};
pub use key::{KeyError, KeySpec};
pub use lines::strip_bom;
pub use members::member_paths;
pub use payload::PayloadSpec;
pub use record::{Bad, BadReason, BadTime, Content, Record};

use judge::Judge;

/// Turns lines into records.
///
/// # Example
/// ```
/// use dedupd::decode::{Content, Decoder, KeySpec};
///
/// let mut ids = Vec::new();
/// Decoder::new(KeySpec::default()).decode(b"{\"id\":\"evt_1\"}\n{\"id\":7}\n", &mut |record| match record.content {
///     Content::Id(id) => ids.push(id.to_vec()),
///     _ => unreachable!(),
/// });
/// assert_eq!(ids, [&b"\"evt_1"[..], b"7"]);
/// ```
pub struct Decoder {
    judge: Judge,
    engine: Engine,
    pace: fast::Pace,
}

/// How lines are read. All engines answer the same.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Engine {
    /// The fastest that the machine has.
    #[default]
    Auto,
    /// The exact checker, byte by byte.
    Scalar,
    /// The fast path by AVX2; the exact checker where the processor lacks it.
    Avx2,
    /// The fast path by AVX-512; as [`Auto`](Self::Auto) where the processor lacks it.
    Avx512,
}

impl Decoder {
    /// A decoder that looks for `keys`.
    #[must_use]
    pub fn new(keys: KeySpec) -> Self {
        Self { judge: Judge::new(keys, None), engine: Engine::Auto, pace: fast::Pace::default() }
    }

    /// The same decoder, reading each event's time too.
    #[must_use]
    pub fn with_time(self, time: TimeSpec) -> Self {
        Self { judge: Judge::new(self.judge.keys, Some(time)), ..self }
    }

    /// The same decoder with an engine of the caller's choice: for tests and benches.
    #[must_use]
    pub fn with_engine(self, engine: Engine) -> Self {
        Self { engine, ..self }
    }

    /// What it looks for.
    #[must_use]
    pub fn keys(&self) -> &KeySpec {
        &self.judge.keys
    }

    /// Calls `visit` once for each line of `bytes`, in order.
    ///
    /// `bytes` are whole lines: each ends in a newline, except perhaps the last of the input.
    ///
    /// # Cost
    /// One pass over the bytes; no allocation, but for the first IDs that have escapes or several parts.
    pub fn decode(&mut self, bytes: &[u8], visit: &mut impl FnMut(Record<'_>)) {
        #[cfg(target_arch = "x86_64")]
        if self.engine != Engine::Scalar && self.judge.is_fast() {
            if self.engine != Engine::Avx2
                && let Some(avx512) = fast::Avx512::detect()
            {
                return fast::decode(avx512, &mut self.pace, &mut self.judge, bytes, visit);
            }
            if let Some(avx2) = fast::Avx2::detect() {
                return fast::decode(avx2, &mut self.pace, &mut self.judge, bytes, visit);
            }
        }
        for (start, line) in lines::lines(bytes) {
            visit(self.judge.judge(line, start));
        }
    }

    /// How the ID of `line`, one line with or without its newline, comes about.
    #[must_use]
    pub fn explain(&mut self, line: &[u8]) -> Explanation {
        explain::explain(&mut self.judge, line)
    }
}

/// Shows the configuration.
impl fmt::Debug for Decoder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Decoder")
            .field("keys", &self.judge.keys)
            .field("time", &self.judge.time)
            .field("engine", &self.engine)
            .finish()
    }
}
