//! Conflicts: events whose ID is known and whose payload is not, where the set compares payloads.
//!
//! A conflict is a duplicate in the books. What is done with it besides is the set's [`OnConflict`]: it is delivered as well, or
//! goes to the dead letter, and its payload is known from then on. One whose ID is pending waits as any repeat does: what it
//! is in conflict with may be given up.

use std::collections::HashSet;

use super::batch::{Batch, Place};
use super::desk::Desk;
use super::held::{Held, Trial};
use crate::dedup::{OnConflict, Reservation};
use crate::event::Fingerprint;

/// What to do with an event that seems to be in conflict.
pub(super) enum Conflicting {
    /// It waits for the fate of what its ID stands for.
    Waits,
    /// It is nothing but a duplicate.
    Drop,
    /// It is delivered too.
    Deliver,
    /// It goes to the dead letter.
    Bury,
}

impl Conflicting {
    pub(super) fn of(on_conflict: OnConflict, in_flight: bool) -> Self {
        match on_conflict {
            _ if in_flight => Self::Waits,
            OnConflict::Pass => Self::Deliver,
            OnConflict::Divert => Self::Bury,
            _ => Self::Drop,
        }
    }
}

impl Desk {
    /// What stands for the payload of the event at `place`, and is reserved for a conflict.
    pub(super) fn digest_at(&self, batch: &Batch, place: Place) -> Fingerprint {
        let event = batch.event_at(place, &[]);
        self.shared.dedup.digest(batch.fingerprint_at(place), event.payload()).as_fingerprint()
    }

    /// Releases the payloads of these, which wait.
    pub(super) fn release_digests(&self, reserved: &mut Reservation, batch: &Batch, places: &[Place]) {
        if !places.is_empty() {
            let digests: HashSet<_> = places.iter().map(|place| self.digest_at(batch, *place)).collect();
            drop(reserved.split(|id| digests.contains(&id)));
        }
    }

    /// Sends these to the dead letter.
    pub(super) fn bury(&mut self, reserved: &mut Reservation, batch: &mut Batch, places: &[Place]) {
        for place in places {
            let digest = self.digest_at(batch, *place);
            let trial = Trial {
                reservation: Some(reserved.split(|id| id == digest)),
                needs_dead_letter: true,
                ..Trial::default()
            };
            let single = batch.single(*place);
            self.hold(Held { single, trial }, &[], false);
        }
    }
}
