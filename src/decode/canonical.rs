//! From the places that the search found to canonical bytes.
//!
//! Only called for lines that are valid JSON, so reading a value again cannot fail; should it, the line is bad, never
//! an ID.

use super::record::{Bad, BadReason, Content};
use super::search::{Search, Wanted};
use super::text::{self, DecodeError, Text};
use super::token;

/// A value on a path, read where it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Value<'a> {
    Text(Text<'a>),
    /// A number, as it is written.
    Number(&'a [u8]),
    /// `true` or `false`.
    Bool(&'a [u8]),
    Null,
    Object,
    Array,
}

impl<'a> Value<'a> {
    #[inline]
    pub(super) fn read(line: &'a [u8], at: usize) -> Result<Self, Bad> {
        if line.get(at) == Some(&b'"') {
            let (end, escaped) = text::validate(line, at + 1)?;
            return Ok(Self::Text(Text { raw: &line[at + 1..end], escaped }));
        }
        let token = || {
            let end = token::end(line, at).map_err(|offset| Bad::malformed(offset, "not a JSON value"))?;
            Ok(&line[at..end])
        };
        match line.get(at) {
            Some(b'{') => Ok(Self::Object),
            Some(b'[') => Ok(Self::Array),
            Some(b'n') => Ok(Self::Null),
            Some(b't' | b'f') => token().map(Self::Bool),
            _ => token().map(Self::Number),
        }
    }

    /// The name of its JSON type.
    pub(super) fn kind(self) -> &'static str {
        match self {
            Self::Text(_) => "string",
            Self::Number(_) => "number",
            Self::Bool(_) => "boolean",
            Self::Null => "null",
            Self::Object => "object",
            Self::Array => "array",
        }
    }
}

/// What one part of a key came to: which alternative, where, and the value there.
pub(super) struct Chosen<'a> {
    pub(super) alternative: usize,
    pub(super) at: usize,
    pub(super) value: Value<'a>,
}

/// The first alternative that is present: neither absent, nor `null`, nor an empty string.
#[inline]
pub(super) fn choose<'a>(line: &'a [u8], alternatives: &[Wanted]) -> Result<Chosen<'a>, Bad> {
    let mut missing = Bad { reason: BadReason::MissingId, offset: 0, what: "nothing is at the key's path" };
    for (alternative, wanted) in alternatives.iter().enumerate() {
        if let Some(offset) = wanted.again_at() {
            return Err(Bad {
                reason: BadReason::AmbiguousId,
                offset,
                what: "a member on the key's path occurs twice",
            });
        }
        let Some(at) = wanted.value_at() else { continue };
        match Value::read(line, at)? {
            Value::Null => (missing.offset, missing.what) = (at, "the value at the key's path is null"),
            Value::Text(Text { raw: [], .. }) => {
                (missing.offset, missing.what) = (at, "the value at the key's path is an empty string");
            }
            value => return Ok(Chosen { alternative, at, value }),
        }
    }
    Err(missing)
}

/// The canonical ID of a valid line.
#[inline]
pub(super) fn content<'a>(line: &'a [u8], search: &Search, parts: usize, scratch: &'a mut Vec<u8>) -> Content<'a> {
    scratch.clear();
    let id =
        if parts == 1 { single(line, search, scratch) } else { composite(line, search, parts, scratch).map(|()| None) };
    match id {
        Ok(Some(in_line)) => Content::Id(in_line),
        Ok(None) => Content::Id(scratch),
        Err(bad) => Content::Bad(bad),
    }
}

/// The ID in the line itself, or `None` when it had to be written to `scratch`.
#[inline]
fn single<'a>(line: &'a [u8], search: &Search, scratch: &mut Vec<u8>) -> Result<Option<&'a [u8]>, Bad> {
    let chosen = choose(line, search.alternatives(0))?;
    match chosen.value {
        Value::Text(Text { raw, escaped: false }) if raw.len() <= ID_BYTES_MAX => {
            Ok(Some(&line[chosen.at..=chosen.at + raw.len()]))
        }
        Value::Number(token) | Value::Bool(token) if token.len() <= ID_BYTES_MAX => Ok(Some(token)),
        value => write(value, chosen.at, scratch).map(|()| None),
    }
}

fn composite(line: &[u8], search: &Search, parts: usize, scratch: &mut Vec<u8>) -> Result<(), Bad> {
    for part in 0..parts {
        let chosen = choose(line, search.alternatives(part))?;
        let length_at = scratch.len();
        scratch.extend_from_slice(&[0; 4]);
        write(chosen.value, chosen.at, scratch)?;
        let length = (scratch.len() - length_at - 4) as u32;
        scratch[length_at..length_at + 4].copy_from_slice(&length.to_le_bytes());
    }
    Ok(())
}

/// Appends the canonical bytes of the value at offset `at` to `out`.
pub(super) fn write(value: Value<'_>, at: usize, out: &mut Vec<u8>) -> Result<(), Bad> {
    let too_long = Bad { reason: BadReason::TooLong, offset: at, what: "the ID is longer than 1 KiB" };
    match value {
        Value::Text(text) => {
            out.push(b'"');
            text.decode(out, ID_BYTES_MAX).map_err(|error| match error {
                DecodeError::LoneSurrogate(offset) => Bad::malformed(at + 1 + offset, "a lone surrogate in the ID"),
                DecodeError::TooLong => too_long,
            })
        }
        Value::Number(token) | Value::Bool(token) if token.len() > ID_BYTES_MAX => Err(too_long),
        Value::Number(token) | Value::Bool(token) => {
            out.extend_from_slice(token);
            Ok(())
        }
        Value::Object => Err(Bad::malformed(at, "the value at the key's path is an object")),
        Value::Array => Err(Bad::malformed(at, "the value at the key's path is an array")),
        Value::Null => {
            Err(Bad { reason: BadReason::MissingId, offset: at, what: "the value at the key's path is null" })
        }
    }
}

/// The longest value that can be an ID, or a part of one, decoded.
const ID_BYTES_MAX: usize = 1024;
