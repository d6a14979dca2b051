//! [`OwnedEvent`]: an event with its own bytes.

use std::fmt;
use std::ops::Range;

use super::{Event, Source};
use crate::time::Timestamp;

/// An [`Event`] that has its own bytes: for whoever must keep one.
///
/// One allocation holds all of its bytes.
///
/// ```
/// use dedupd::{Event, OwnedEvent};
///
/// let owned = OwnedEvent::from(Event::new("evt_1", "{}").with_position("orders-0", 42));
/// assert_eq!(owned.as_event().payload(), b"{}");
/// assert_eq!(owned.as_event().position(), Some(42));
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct OwnedEvent {
    bytes: Box<[u8]>,
    /// Where the parts end that stand one after the other: ID, payload, source, operation ID, correlation ID, trace parent.
    ends: [usize; 6],
    /// Which of the parts there are.
    has: [bool; 6],
    time: Option<Timestamp>,
    position: u64,
    source_is_number: bool,
}

impl OwnedEvent {
    /// The event, borrowed.
    #[must_use]
    pub fn as_event(&self) -> Event<'_> {
        let part = |index: usize| self.has[index].then(|| &self.bytes[self.range(index)]);
        let source = part(2).map(|name| Source::named(name, self.source_is_number));
        Event {
            id: &self.bytes[self.range(0)],
            payload: &self.bytes[self.range(1)],
            time: self.time,
            origin: source.map(|source| (source, self.position)),
            operation_id: part(3),
            correlation_id: part(4),
            trace_parent: part(5),
        }
    }

    /// How many bytes it holds.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes.len()
    }

    fn range(&self, index: usize) -> Range<usize> {
        let start = index.checked_sub(1).map_or(0, |before| self.ends[before]);
        start..self.ends[index]
    }
}

impl From<Event<'_>> for OwnedEvent {
    fn from(event: Event<'_>) -> Self {
        let source = event.source();
        let parts = [
            Some(event.id),
            Some(event.payload),
            source.as_ref().map(Source::as_bytes),
            event.operation_id,
            event.correlation_id,
            event.trace_parent,
        ];
        let mut bytes = Vec::with_capacity(parts.iter().flatten().map(|part| part.len()).sum());
        let ends = parts.map(|part| {
            bytes.extend_from_slice(part.unwrap_or_default());
            bytes.len()
        });
        Self {
            bytes: bytes.into_boxed_slice(),
            ends,
            has: parts.map(|part| part.is_some()),
            time: event.time,
            position: event.position().unwrap_or_default(),
            source_is_number: source.is_some_and(|source| source.is_number()),
        }
    }
}

/// Shows sizes, never data.
impl fmt::Debug for OwnedEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_event().fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_is_what_was_given() {
        let plain = Event::new("a", "");
        let numbered = Event::new("a", "b").with_position(7, 1).with_time(Timestamp::from_millis(3));
        let full = numbered.with_operation_id("o").with_correlation_id("").with_trace_parent("t").with_position("s", 2);
        for event in [plain, numbered, full, plain.with_position(b"12345678", 9)] {
            assert_eq!(OwnedEvent::from(event).as_event(), event);
        }
    }
}
