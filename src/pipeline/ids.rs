//! [`Ids`]: what a stage is asked to reserve.

use crate::dedup::Deduplicator;
use crate::event::{Digest, Fingerprint};
use crate::time::Timestamp;

/// Ids to reserve, as a [`Stage`](super::Stage) is asked: hashed before, on another thread perhaps.
#[derive(Clone, Copy, Debug)]
pub struct Ids<'a> {
    pub(super) of: Of<'a>,
    pub(super) digests: &'a [Digest],
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Of<'a> {
    Ids(&'a [Fingerprint]),
    Events(&'a [(Fingerprint, Timestamp)]),
}

impl<'a> Ids<'a> {
    /// These, at the present time.
    #[must_use]
    pub fn new(ids: &'a [Fingerprint]) -> Self {
        Self { of: Of::Ids(ids), digests: &[] }
    }

    /// These, each at a time: see [`Deduplicator::observe_at`].
    #[must_use]
    pub fn at(events: &'a [(Fingerprint, Timestamp)]) -> Self {
        Self { of: Of::Events(events), digests: &[] }
    }

    /// With the digests of their payloads, one for each: see [`Deduplicator::reserve_digests`].
    #[must_use]
    pub fn with_digests(self, digests: &'a [Digest]) -> Self {
        Self { digests, ..self }
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        match self.of {
            Of::Ids(ids) => ids.len(),
            Of::Events(events) => events.len(),
        }
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The first `count`, and the rest.
    #[must_use]
    pub fn split_at(self, count: usize) -> (Self, Self) {
        let count = count.min(self.len());
        let (first, rest) = match self.of {
            Of::Ids(ids) => (Of::Ids(&ids[..count]), Of::Ids(&ids[count..])),
            Of::Events(events) => (Of::Events(&events[..count]), Of::Events(&events[count..])),
        };
        let (digests, others) = self.digests.split_at(count.min(self.digests.len()));
        (Self { of: first, digests }, Self { of: rest, digests: others })
    }
}

/// From the first to the last of some times.
#[derive(Clone, Copy, Debug)]
pub(super) struct Span {
    first: Timestamp,
    last: Timestamp,
}

impl Span {
    /// Of no times.
    pub(super) const NONE: Self = Self { first: Timestamp::MAX, last: Timestamp::MIN };

    pub(super) fn of(time: Timestamp) -> Self {
        Self { first: time, last: time }
    }

    pub(super) fn with(self, other: Self) -> Self {
        Self { first: self.first.min(other.first), last: self.last.max(other.last) }
    }

    /// A repeat of one of these is its duplicate, whichever times both have.
    pub(super) fn is_within(self, dedup: &Deduplicator) -> bool {
        self.last.saturating_since(self.first) < dedup.window()
    }
}
