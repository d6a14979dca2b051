//! What is asked and answered: events, fingerprints, verdicts and their reasons.

mod digest;
mod fingerprint;
mod owned;
#[cfg(all(target_arch = "x86_64", not(miri)))]
mod siphash;
mod source;
mod verdict;

use std::fmt;

use crate::time::Timestamp;

pub use digest::Digest;
pub(crate) use digest::Digester;
pub(crate) use fingerprint::Hasher;
pub use fingerprint::{Fingerprint, IdHash, Secret};
pub use owned::OwnedEvent;
pub use source::Source;
pub use verdict::{Reason, ReserveVerdict, Unjudged, Verdict};

/// One input record: its ID, its payload, and what else is known about it. Borrowed: nothing is copied to make one.
///
/// ```
/// use dedupd::Event;
///
/// let event = Event::new("evt_1", "{}").with_position("orders-0", 42).with_correlation_id("cart_7");
/// assert_eq!((event.id(), event.position()), (&b"evt_1"[..], Some(42)));
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Event<'a> {
    id: &'a [u8],
    payload: &'a [u8],
    time: Option<Timestamp>,
    origin: Option<(Source<'a>, u64)>,
    operation_id: Option<&'a [u8]>,
    correlation_id: Option<&'a [u8]>,
    trace_parent: Option<&'a [u8]>,
}

impl<'a> Event<'a> {
    /// An event named by `id` that carries `payload`.
    #[must_use]
    pub fn new(id: &'a (impl AsRef<[u8]> + ?Sized), payload: &'a (impl AsRef<[u8]> + ?Sized)) -> Self {
        Self {
            id: id.as_ref(),
            payload: payload.as_ref(),
            time: None,
            origin: None,
            operation_id: None,
            correlation_id: None,
            trace_parent: None,
        }
    }

    /// The same event with its own time.
    #[must_use]
    pub fn with_time(self, time: Timestamp) -> Self {
        Self { time: Some(time), ..self }
    }

    /// The same event with the place where it stands in its source: an offset, a sequence number, a line number. Events of
    /// one source are submitted with rising positions; what is settled of them is told by position.
    #[must_use]
    pub fn with_position(self, source: impl Into<Source<'a>>, position: u64) -> Self {
        Self { origin: Some((source.into(), position)), ..self }
    }

    /// The same event with the ID of the operation that it stands for, the same over all attempts: what a receiver keys
    /// its own idempotency on. Opaque, and handed to every sink unchanged.
    #[must_use]
    pub fn with_operation_id(self, id: &'a (impl AsRef<[u8]> + ?Sized)) -> Self {
        Self { operation_id: Some(id.as_ref()), ..self }
    }

    /// The same event with the ID that ties it to others. Opaque, and handed to every sink unchanged.
    #[must_use]
    pub fn with_correlation_id(self, id: &'a (impl AsRef<[u8]> + ?Sized)) -> Self {
        Self { correlation_id: Some(id.as_ref()), ..self }
    }

    /// The same event with its W3C `traceparent`. Opaque, and handed to every sink unchanged.
    #[must_use]
    pub fn with_trace_parent(self, parent: &'a (impl AsRef<[u8]> + ?Sized)) -> Self {
        Self { trace_parent: Some(parent.as_ref()), ..self }
    }

    /// The canonical bytes that name the event.
    #[must_use]
    pub fn id(&self) -> &'a [u8] {
        self.id
    }

    /// The opaque bytes that are delivered.
    #[must_use]
    pub fn payload(&self) -> &'a [u8] {
        self.payload
    }

    /// The event's own time, when it has one.
    #[must_use]
    pub fn time(&self) -> Option<Timestamp> {
        self.time
    }

    /// Where the event comes from, when that is known.
    #[must_use]
    pub fn source(&self) -> Option<Source<'a>> {
        self.origin.map(|(source, _)| source)
    }

    /// Where the event stands in its source, when that is known.
    #[must_use]
    pub fn position(&self) -> Option<u64> {
        self.origin.map(|(_, position)| position)
    }

    /// It has nothing but an ID and a payload, and perhaps a place in a source.
    pub(crate) fn is_plain(&self) -> bool {
        self.time.is_none()
            && self.operation_id.is_none()
            && self.correlation_id.is_none()
            && self.trace_parent.is_none()
    }

    /// How many bytes it has, all of it.
    pub(crate) fn bytes(&self) -> usize {
        let others = [self.operation_id, self.correlation_id, self.trace_parent];
        let others: usize = others.iter().flatten().map(|part| part.len()).sum();
        self.id.len() + self.payload.len() + others
    }

    /// The ID of the operation that the event stands for, when it has one.
    #[must_use]
    pub fn operation_id(&self) -> Option<&'a [u8]> {
        self.operation_id
    }

    /// The ID that ties the event to others, when it has one.
    #[must_use]
    pub fn correlation_id(&self) -> Option<&'a [u8]> {
        self.correlation_id
    }

    /// The event's W3C `traceparent`, when it has one.
    #[must_use]
    pub fn trace_parent(&self) -> Option<&'a [u8]> {
        self.trace_parent
    }
}

/// Shows sizes, never data.
impl fmt::Debug for Event<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Event")
            .field("id_bytes", &self.id.len())
            .field("payload_bytes", &self.payload.len())
            .field("time", &self.time)
            .field("position", &self.position())
            .finish_non_exhaustive()
    }
}
