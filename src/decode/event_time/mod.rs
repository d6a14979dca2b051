//! `--time-field`: an event's own time, read exactly.
//!
//! No float stands between the digits and the nanoseconds. What is finer than a nanosecond is cut off toward the past.
//! A time outside the range of [`Timestamp`] (the years 1677 to 2262) is unreadable rather than bent into it.

mod decimal;
mod rfc3339;

use std::fmt;
use std::str::FromStr;

use super::canonical::{self, Value};
use super::key::{KeyError, Part};
use super::record::{Bad, BadReason, BadTime};
use super::search::Search;
use crate::time::Timestamp;

/// Where an event's time stands and how it is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TimeSpec {
    pub(super) part: Part,
    pub(super) unit: TimeUnit,
}

/// How a time is written: a count since the Unix epoch, as a number or as a string that holds one; or RFC 3339.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum TimeUnit {
    /// Seconds, `s`; with a fraction if need be.
    Seconds,
    /// Milliseconds, `ms`.
    Millis,
    /// Microseconds, `us`.
    Micros,
    /// Nanoseconds, `ns`.
    Nanos,
    /// `2021-07-21T06:00:00.123+02:00`, `rfc3339`.
    Rfc3339,
}

/// A unit that is not one of `s`, `ms`, `us`, `ns`, `rfc3339`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a time unit is one of s, ms, us, ns, rfc3339")]
pub struct UnknownTimeUnit;

impl TimeSpec {
    /// The time at `path`, which is written like one `--key`: alternatives are allowed, `@line` is not.
    ///
    /// # Errors
    /// As [`KeySpec::parse`](super::KeySpec::parse).
    pub fn parse(path: &str, unit: TimeUnit) -> Result<Self, KeyError> {
        let part = Part::parse(path)?;
        if part.alternatives.len() > ALTERNATIVES_MAX {
            return Err(KeyError::TooMany);
        }
        Ok(Self { part, unit })
    }

    /// The unit.
    #[must_use]
    pub fn unit(&self) -> TimeUnit {
        self.unit
    }
}

/// The path's canonical text, a space, and the unit.
impl fmt::Display for TimeSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.part, self.unit)
    }
}

impl FromStr for TimeUnit {
    type Err = UnknownTimeUnit;

    fn from_str(text: &str) -> Result<Self, UnknownTimeUnit> {
        let all = [Self::Seconds, Self::Millis, Self::Micros, Self::Nanos, Self::Rfc3339];
        all.into_iter().find(|unit| unit.as_str() == text).ok_or(UnknownTimeUnit)
    }
}

impl TimeUnit {
    /// The stable name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Seconds => "s",
            Self::Millis => "ms",
            Self::Micros => "us",
            Self::Nanos => "ns",
            Self::Rfc3339 => "rfc3339",
        }
    }

    fn read(self, text: &[u8]) -> Result<Timestamp, &'static str> {
        let nanos_power = match self {
            Self::Seconds => 9,
            Self::Millis => 6,
            Self::Micros => 3,
            Self::Nanos => 0,
            Self::Rfc3339 => return rfc3339::read(text),
        };
        decimal::read(text, nanos_power)
    }
}

impl fmt::Display for TimeUnit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The time that part `part` of `search` found in a valid line.
pub(super) fn read(
    line: &[u8],
    search: &Search,
    part: usize,
    unit: TimeUnit,
    scratch: &mut Vec<u8>,
) -> Result<Timestamp, BadTime> {
    let chosen = canonical::choose(line, search.alternatives(part)).map_err(bad_time)?;
    let unreadable = |what| BadTime::Unreadable { offset: chosen.at, what };
    match chosen.value {
        Value::Text(text) if !text.escaped => unit.read(text.raw).map_err(unreadable),
        Value::Text(text) => {
            scratch.clear();
            text.decode(scratch, TEXT_BYTES_MAX).map_err(|_| unreadable("not a time"))?;
            unit.read(scratch).map_err(unreadable)
        }
        Value::Number(_) if unit == TimeUnit::Rfc3339 => {
            Err(unreadable("a number, where an RFC 3339 string is wanted"))
        }
        Value::Number(token) => unit.read(token).map_err(unreadable),
        other => Err(unreadable(match other {
            Value::Object => "an object, where a time is wanted",
            Value::Array => "an array, where a time is wanted",
            _ => "a boolean, where a time is wanted",
        })),
    }
}

fn bad_time(bad: Bad) -> BadTime {
    match bad.reason {
        BadReason::MissingId => BadTime::Missing,
        BadReason::AmbiguousId => BadTime::Ambiguous { offset: bad.offset },
        BadReason::Malformed | BadReason::TooLong => BadTime::Unreadable { offset: bad.offset, what: bad.what },
    }
}

/// Longer than any time; bounds what escapes can make us decode.
const TEXT_BYTES_MAX: usize = 128;
const ALTERNATIVES_MAX: usize = 32;

const OUT_OF_RANGE: &str = "a time outside the years 1677 to 2262";
