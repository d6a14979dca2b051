//! Conflicts: events whose ID is known and whose payload is not.
//!
//! Each event has a second entry in the set, the [`Digest`] of its ID and payload. An event is a conflict when its ID is
//! known and its digest is not. Both entries of a first-seen event are reserved, and committed as one record.
//!
//! # No repeat is a conflict
//! A digest must be known whenever its ID is. So
//! - ids are marked before digests, and asked before them where repeats extend windows: the generation of a digest is that
//!   of its ID or a later one, and leaves with it or after it, by time as well as for a limit;
//! - the digest of a first-seen event is reserved anew when it is known still, from before its ID was forgotten;
//! - a first-seen event whose digest cannot be reserved is not judged, and its ID is released;
//! - where repeats extend windows, digests are looked at before the ids are asked, as an ID stays then that would have left with
//!   its digest;
//! - one batch is judged, marked or released at a time, so that no question comes between an ID and its digest;
//! - of several entries of one ID, in event time, those that are seen are looked at before one that is pending: which comes first
//!   in a line is a matter of chance, and may be another for the digest;
//! - a reservation marks and releases only what it has reserved itself;
//! - an ID that seems to be in conflict is looked at again: what was just ending when it was asked for may be gone with its
//!   digest.
//!
//! What is left: a repeat of a conflict that is under way is a duplicate at once, as its ID is known; a limit that closes
//! generations within one block of a recovery; and payloads under
//! [`Builder::extend_on_duplicate`](super::Builder::extend_on_duplicate), where a conflict extends the window of the ID and not
//! that of the payloads before it.

mod asked;
mod judge;

use std::fmt;

use super::{Deduplicator, Explained, Reservation};
use crate::event::{Digest, Fingerprint, Reason, ReserveVerdict, Unjudged, Verdict};
use crate::time::Timestamp;
use crate::window::Answer;
use asked::Batch;
use judge::Judge;

/// What is done with an event whose ID is known and whose payload is not.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
#[non_exhaustive]
pub enum OnConflict {
    /// Payloads are not looked at: it is a duplicate.
    #[default]
    Ignore,
    /// It is a duplicate, and counted. Its payload stays unknown, so each repeat of it counts again.
    Count,
    /// It is delivered too. Repeats of its payload are duplicates.
    Pass,
    /// It is put aside where somebody looks at it. Repeats of its payload are duplicates.
    Divert,
}

impl OnConflict {
    /// The stable name, as flags carry it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ignore => "ignore",
            Self::Count => "count",
            Self::Pass => "pass",
            Self::Divert => "divert",
        }
    }

    /// Whether the payload of a conflict is known once it is committed.
    fn records(self) -> bool {
        matches!(self, Self::Pass | Self::Divert)
    }
}

impl fmt::Display for OnConflict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Deduplicator {
    /// What is done with conflicts: see [`Builder::on_conflict`](super::Builder::on_conflict).
    #[must_use]
    pub fn on_conflict(&self) -> OnConflict {
        self.inner.on_conflict
    }

    /// The digest of `payload` under the ID that has this fingerprint.
    ///
    /// # Cost
    /// Reads the payload once, at about 10 GB/s, and 15 ns.
    #[inline]
    #[must_use]
    pub fn digest(&self, id: Fingerprint, payload: impl AsRef<[u8]>) -> Digest {
        self.inner.digester.digest(id, payload.as_ref())
    }

    /// [`Deduplicator::reserve_fingerprints`] of events with payloads: one whose ID is known and whose payload is not is a
    /// [`ReserveVerdict::Conflict`].
    ///
    /// The digests are those of the ids beside them; both slices should be of one length, and what is longer is not judged. A
    /// commit marks ids and digests, all or nothing. A conflict's digest is among them, but under [`OnConflict::Count`]. With
    /// [`OnConflict::Ignore`] digests are not looked at.
    ///
    /// A set that compares payloads must be told them all: an ID that was recorded without one, by
    /// [`Deduplicator::observe`] for instance, is in conflict with any.
    ///
    /// # Errors
    /// As [`Deduplicator::reserve_batch`].
    ///
    /// # Cost
    /// Two questions for each event. Such batches are judged, committed and released one at a time.
    ///
    /// # Example
    /// ```
    /// # use dedupd::{Deduplicator, OnConflict, ReserveVerdict};
    /// let dedup = Deduplicator::builder().on_conflict(OnConflict::Pass).build()?;
    /// let id = dedup.fingerprint("order_7");
    /// let digests = ["paid", "paid", "refunded"].map(|payload| dedup.digest(id, payload));
    /// let reserved = dedup.reserve_digests(&[id; 3], &digests)?;
    /// let conflict = ReserveVerdict::Conflict { in_flight: true };
    /// assert_eq!(reserved.verdicts(), [ReserveVerdict::FirstSeen, ReserveVerdict::InFlight, conflict]);
    /// reserved.commit()?;
    /// assert_eq!(dedup.reserve_digests(&[id], &digests[2..])?.verdicts(), [ReserveVerdict::Duplicate]);
    /// # Ok::<(), dedupd::Error>(())
    /// ```
    pub fn reserve_digests(&self, ids: &[Fingerprint], digests: &[Digest]) -> Result<Reservation, Unjudged> {
        let ids = &ids[..ids.len().min(digests.len())];
        if self.inner.on_conflict == OnConflict::Ignore {
            return self.reserve_fingerprints(ids);
        }
        self.check_log()?;
        Ok(self.judged(ids, &digests[..ids.len()], None))
    }

    /// [`Deduplicator::reserve_digests`] with a time for each, as for [`Deduplicator::observe_at`].
    ///
    /// # Errors
    /// As [`Deduplicator::reserve_batch`].
    pub fn reserve_digests_at(
        &self,
        events: &[(Fingerprint, Timestamp)],
        digests: &[Digest],
    ) -> Result<Reservation, Unjudged> {
        let events = &events[..events.len().min(digests.len())];
        if self.inner.on_conflict == OnConflict::Ignore {
            return self.reserve_fingerprints_at(events);
        }
        self.check_log()?;
        let (ids, times): (Vec<_>, Vec<_>) = events.iter().copied().unzip();
        Ok(self.judged(&ids, &digests[..ids.len()], Some(&times)))
    }

    fn judged(&self, ids: &[Fingerprint], digests: &[Digest], times: Option<&[Timestamp]>) -> Reservation {
        let batch = Batch { inner: &self.inner, ids, digests, times, clock: self.now() };
        Reservation::judged(&self.inner, Judge::new(batch).judge())
    }

    /// Records the event as [`Deduplicator::reserve_digests`] and a commit do, and says why the verdict is what it is. A conflict is
    /// a duplicate for the [reason](Explained::reason) that it is one.
    pub fn explain_payload(&self, id: impl AsRef<[u8]>, payload: impl AsRef<[u8]>) -> Explained {
        self.explain_event(id.as_ref(), payload.as_ref(), None)
    }

    /// [`Deduplicator::explain_payload`] at a time of the caller's.
    pub fn explain_payload_at(&self, id: impl AsRef<[u8]>, payload: impl AsRef<[u8]>, time: Timestamp) -> Explained {
        self.explain_event(id.as_ref(), payload.as_ref(), Some(time))
    }

    fn explain_event(&self, id: &[u8], payload: &[u8], time: Option<Timestamp>) -> Explained {
        let (fingerprint, set) = (self.fingerprint(id), &self.inner.set);
        if self.inner.on_conflict == OnConflict::Ignore {
            return self.explain_fingerprint(fingerprint, time);
        }
        let digest = [self.digest(fingerprint, payload)];
        let (future_before, before) = (set.future(), set.peek(fingerprint, self.when(time)));
        let reserved = match time {
            None => self.reserve_digests(&[fingerprint], &digest),
            Some(time) => self.reserve_digests_at(&[(fingerprint, time)], &digest),
        };
        let verdict = reserved.and_then(|reserved| {
            let verdict = reserved.verdicts().first().copied();
            reserved.commit().map_err(|_| Unjudged::LogFailed)?;
            Ok(verdict.unwrap_or(ReserveVerdict::Unjudged(Unjudged::Closed)))
        });
        let (verdict, reason) = match verdict.unwrap_or_else(ReserveVerdict::Unjudged) {
            ReserveVerdict::FirstSeen if set.future() != future_before => (Ok(Verdict::FirstSeen), Reason::Future),
            ReserveVerdict::FirstSeen if before == Answer::Reappeared => (Ok(Verdict::FirstSeen), Reason::Reappeared),
            ReserveVerdict::FirstSeen => (Ok(Verdict::FirstSeen), Reason::New),
            ReserveVerdict::Duplicate => (Ok(Verdict::Duplicate), Reason::Seen),
            ReserveVerdict::InFlight => (Ok(Verdict::Duplicate), Reason::InFlight),
            ReserveVerdict::Conflict { .. } => (Ok(Verdict::Duplicate), Reason::Conflict),
            ReserveVerdict::Unjudged(Unjudged::Late) => (Err(Unjudged::Late), Reason::Late),
            ReserveVerdict::Unjudged(Unjudged::Full) => (Err(Unjudged::Full), Reason::Full),
            ReserveVerdict::Unjudged(other) => (Err(other), Reason::LogFailed),
        };
        Explained { verdict, reason, fingerprint, shard: set.shard_of(fingerprint) }
    }
}
