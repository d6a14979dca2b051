//! [`Flight`]: a batch on its way to the sinks.

use std::sync::Arc;

use super::batch::{Batch, Place};
use super::commit_queue::Flush;
use super::held::Trial;
use super::settle::Tellings;
use crate::dedup::Reservation;
use crate::sink::FailureClass;

/// A batch on its way to the sinks.
pub(super) struct Flight {
    pub(super) batch: Arc<Batch>,
    pub(super) doubt: Doubt,
    /// Repeats of ids that were pending when the batch was judged.
    pub(super) repeats: Vec<Place>,
    /// About the duplicates of the batch.
    pub(super) tellings: Tellings,
    pub(super) to_dead_letter: bool,
    /// It is a flush, and of these.
    pub(super) flushes: Option<Flush>,
    pub(super) jobs_left: usize,
    /// Where the sink stood behind it.
    pub(super) position: Option<Vec<u8>>,
}

impl Flight {
    pub(super) fn new(batch: Batch) -> Self {
        Self {
            batch: Arc::new(batch),
            doubt: Doubt::default(),
            repeats: Vec::new(),
            tellings: Tellings::default(),
            to_dead_letter: false,
            flushes: None,
            jobs_left: 0,
            position: None,
        }
    }

    /// Of events that were judged: `reservation` holds all but those `unmarked`, and the digests of `conflicts` among these.
    pub(super) fn judged(batch: Batch, reservation: Reservation, unmarked: Vec<u32>, conflicts: Vec<u32>) -> Self {
        let doubt = Doubt { reservation: Some(reservation), unmarked, conflicts, ..Doubt::default() };
        Self { doubt, ..Self::new(batch) }
    }
}

/// What is open about the events of a flight.
#[derive(Default)]
pub(super) struct Doubt {
    /// Of all first-seen picks, but for those in `trials`.
    pub(super) reservation: Option<Reservation>,
    /// By pick, when these are not tried for the first time.
    pub(super) trials: Vec<Trial>,
    /// Picks that are delivered and not counted as first-seen, rising: they could not be judged, or are conflicts.
    pub(super) unmarked: Vec<u32>,
    /// Of those, rising, the ones whose payload digest is reserved and not their ID: conflicts.
    pub(super) conflicts: Vec<u32>,
    pub(super) failures: Vec<Failure>,
}

/// A sink that did not take an event.
pub(super) struct Failure {
    pub(super) pick: u32,
    pub(super) sink: usize,
    pub(super) class: FailureClass,
}

impl Doubt {
    /// Whether the event is counted as first-seen.
    pub(super) fn is_first(&self, pick: u32) -> bool {
        match self.trials.get(pick as usize) {
            Some(trial) => trial.is_first,
            None => self.unmarked.is_empty() || self.unmarked.binary_search(&pick).is_err(),
        }
    }

    /// All that is reserved still, in parts.
    pub(super) fn reservations(&self) -> impl Iterator<Item = &Reservation> {
        self.reservation.iter().chain(self.trials.iter().filter_map(|trial| trial.reservation.as_ref()))
    }

    /// All that is reserved still.
    pub(super) fn reservation(self) -> Option<Reservation> {
        let trials = self.trials.into_iter().filter_map(|trial| trial.reservation);
        trials.fold(self.reservation, |all, one| match all {
            Some(mut all) => {
                // Both are of one set and have times or not alike.
                drop(all.join(one));
                Some(all)
            }
            None => Some(one),
        })
    }
}
