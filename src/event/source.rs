//! [`Source`]: the name of a place that events come from.

use std::fmt;
use std::hash::{Hash, Hasher};

/// The name of a place that events come from: a topic and partition, a file, a shard. The caller's bytes, or a number.
///
/// Borrowed: made from a `&str`, bytes or a `u64` without a copy.
///
/// Two are equal when their bytes are.
#[derive(Clone, Copy)]
pub struct Source<'a>(Name<'a>);

#[derive(Clone, Copy)]
enum Name<'a> {
    Number([u8; 8]),
    Bytes(&'a [u8]),
}

impl<'a> Source<'a> {
    /// The bytes that name it: those it was made from; a number as 8 bytes, big-endian.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        match &self.0 {
            Name::Number(bytes) => bytes,
            Name::Bytes(bytes) => bytes,
        }
    }

    pub(crate) fn named(name: &'a [u8], is_number: bool) -> Self {
        match name.try_into() {
            Ok(number) if is_number => Self(Name::Number(number)),
            _ => Self(Name::Bytes(name)),
        }
    }

    pub(crate) fn is_number(&self) -> bool {
        matches!(self.0, Name::Number(_))
    }
}

impl PartialEq for Source<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.as_bytes() == other.as_bytes()
    }
}

impl Eq for Source<'_> {}

impl Hash for Source<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.as_bytes().hash(state);
    }
}

impl<'a> From<&'a str> for Source<'a> {
    fn from(name: &'a str) -> Self {
        Self(Name::Bytes(name.as_bytes()))
    }
}

impl<'a> From<&'a String> for Source<'a> {
    fn from(name: &'a String) -> Self {
        Self(Name::Bytes(name.as_bytes()))
    }
}

impl<'a> From<&'a [u8]> for Source<'a> {
    fn from(name: &'a [u8]) -> Self {
        Self(Name::Bytes(name))
    }
}

impl<'a, const N: usize> From<&'a [u8; N]> for Source<'a> {
    fn from(name: &'a [u8; N]) -> Self {
        Self(Name::Bytes(name))
    }
}

impl From<u64> for Source<'_> {
    fn from(number: u64) -> Self {
        Self(Name::Number(number.to_be_bytes()))
    }
}

/// The name as text, what is not printable escaped; a number as such.
impl fmt::Display for Source<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Name::Number(bytes) => write!(f, "{}", u64::from_be_bytes(bytes)),
            Name::Bytes(bytes) => write!(f, "{}", bytes.escape_ascii()),
        }
    }
}

impl fmt::Debug for Source<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Source({self})")
    }
}
