//! What is asked and answered: events, fingerprints, verdicts and their reasons.

mod fingerprint;
#[cfg(all(target_arch = "x86_64", not(miri)))]
mod siphash;
mod verdict;

use std::fmt;

use crate::time::Timestamp;

pub(crate) use fingerprint::Hasher;
pub use fingerprint::{Fingerprint, IdHash, Secret};
pub use verdict::{Reason, ReserveVerdict, Unjudged, Verdict};

/// One input record: its ID, its payload, and its own time when it has one. Borrowed: nothing is copied to make one.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Event<'a> {
    id: &'a [u8],
    payload: &'a [u8],
    time: Option<Timestamp>,
}

impl<'a> Event<'a> {
    /// An event named by `id` that carries `payload`.
    #[must_use]
    pub fn new(id: &'a (impl AsRef<[u8]> + ?Sized), payload: &'a (impl AsRef<[u8]> + ?Sized)) -> Self {
        Self { id: id.as_ref(), payload: payload.as_ref(), time: None }
    }

    /// The same event with its own time.
    #[must_use]
    pub fn with_time(self, time: Timestamp) -> Self {
        Self { time: Some(time), ..self }
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
}

/// Shows sizes, never data.
impl fmt::Debug for Event<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Event")
            .field("id_bytes", &self.id.len())
            .field("payload_bytes", &self.payload.len())
            .field("time", &self.time)
            .finish()
    }
}
