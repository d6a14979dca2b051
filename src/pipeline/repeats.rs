//! Repeats: events whose ID was pending when they came.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use super::Shared;
use super::batch::{Batch, Place, Single};
use super::desk::{Desk, Stop};
use super::flight::Flight;
use super::settle::Tellings;
use super::sorted::Sorted;
use crate::dedup::Reservation;
use crate::event::{Fingerprint, ReserveVerdict, Unjudged};
use crate::time::Timestamp;

impl Desk {
    /// Asks again about repeats: those whose ID is seen by now are duplicates, those whose ID was released take its place,
    /// the others wait on, at the front of their line when `keep_first`.
    pub(super) fn ask(
        &mut self,
        batch: &mut Batch,
        repeats: &[Place],
        keep_first: bool,
        tellings: &mut Tellings,
    ) -> Result<(), Stop> {
        if repeats.is_empty() {
            return Ok(());
        }
        let Ok(mut reserved) = self.reserve_at(batch, repeats) else {
            return Err(self.keep(batch, repeats));
        };
        let verdicts = self.verdicts_on_repeats(batch, repeats, &reserved);
        let Some(sorted) = Sorted::of(repeats.iter().copied(), &verdicts, self.shared.dedup.on_conflict()) else {
            return Err(self.keep(batch, repeats));
        };
        self.books.attached -= repeats.len() as u64;
        self.books.add(&sorted.books);
        self.release_digests(&mut reserved, batch, &sorted.waiting);
        self.bury(&mut reserved, batch, &sorted.buried);
        tellings.add_duplicates(batch, &sorted.duplicates);
        // Those that were attached before: one that repeats what is pending now waits for that.
        let ids = sorted.duplicates.iter().map(|place| batch.fingerprint_at(*place));
        let waiting: Vec<_> = ids.flat_map(|id| self.attached.take(id)).collect();
        self.attach(batch, &sorted.repeats, keep_first);
        let launched = if sorted.picks.is_empty() {
            Ok(())
        } else {
            let singles = Batch::of(sorted.picks.iter().map(|place| batch.single(*place)).collect());
            self.launch_judged(Flight::judged(singles, reserved, sorted.unmarked, sorted.conflicts))
        };
        launched.and(self.settle_waiting(waiting, tellings))
    }

    /// What has waited for ids that were found to be seen: duplicates where only the ID counts, else they are asked about.
    fn settle_waiting(&mut self, waiting: Vec<Single>, tellings: &mut Tellings) -> Result<(), Stop> {
        let mut batch = Batch::of(waiting);
        let repeats = batch.picks.clone();
        if self.shared.compares_payloads() || self.shared.dedup.is_in_event_time() {
            return self.ask(&mut batch, &repeats, false, tellings);
        }
        self.end(&mut batch, &repeats, tellings);
        Ok(())
    }

    /// The verdicts on these repeats. One whose own time has passed meanwhile waits on while what it repeats is not settled.
    fn verdicts_on_repeats(&self, batch: &Batch, repeats: &[Place], reserved: &Reservation) -> Vec<ReserveVerdict> {
        let mut verdicts = reserved.verdicts().to_vec();
        let late = ReserveVerdict::Unjudged(Unjudged::Late);
        if verdicts.contains(&late) {
            let pending = self.pending();
            let lates = repeats.iter().zip(&mut verdicts).filter(|(_, verdict)| **verdict == late);
            let waiting = lates.filter(|(place, _)| pending.contains(&batch.fingerprint_at(**place)));
            waiting.for_each(|(_, verdict)| *verdict = ReserveVerdict::InFlight);
        }
        verdicts
    }

    /// Asks about the oldest repeat of each ID: who reserved it may not be of this pipeline.
    pub(super) fn ask_attached(&mut self) -> Result<(), Stop> {
        let ids: Vec<Fingerprint> = self.attached.ids().collect();
        let singles = ids.into_iter().filter_map(|id| self.attached.oldest(id)).collect();
        let mut batch = Batch::of(singles);
        let (repeats, mut tellings) = (batch.picks.clone(), Tellings::default());
        let asked = self.ask(&mut batch, &repeats, true, &mut tellings);
        self.tell(tellings);
        asked
    }

    /// Takes out those repeats that what is `marked` makes duplicates for certain, whatever their own time is by now.
    pub(super) fn end_repeats(
        &mut self,
        batch: &mut Batch,
        repeats: &mut Vec<Place>,
        marked: &Marked,
        tellings: &mut Tellings,
    ) {
        let ended = repeats.extract_if(.., |place| marked.covers(batch, *place)).collect::<Vec<_>>();
        self.end(batch, &ended, tellings);
    }

    /// What is marked is settled: repeats that waited for it are duplicates, or are asked about again.
    pub(super) fn end_all_attached(&mut self, marked: &Marked, tellings: &mut Tellings) -> Result<(), Stop> {
        if self.attached.is_empty() {
            return Ok(());
        }
        let mut batch = Batch::of(marked.ids().flat_map(|id| self.attached.take(id)).collect());
        let mut repeats = batch.picks.clone();
        self.end_repeats(&mut batch, &mut repeats, marked, tellings);
        self.ask(&mut batch, &repeats, false, tellings)
    }

    /// These are duplicates.
    fn end(&mut self, batch: &mut Batch, repeats: &[Place], tellings: &mut Tellings) {
        let count = repeats.len() as u64;
        (self.books.attached, self.books.duplicate) = (self.books.attached - count, self.books.duplicate + count);
        if count > 0 && self.shared.dedup.is_in_event_time() && self.shared.dedup.extends() {
            // They may be younger than what they repeat: asking extends its window.
            drop(self.reserve_at(batch, repeats));
        }
        tellings.add_duplicates(batch, repeats);
    }

    /// Has repeats wait that cannot be asked about, and says why that is so.
    fn keep(&mut self, batch: &mut Batch, repeats: &[Place]) -> Stop {
        self.attach(batch, repeats, false);
        self.log_failed()
    }

    fn attach(&mut self, batch: &mut Batch, repeats: &[Place], is_first: bool) {
        for place in repeats {
            self.attached.attach(batch.fingerprint_at(*place), batch.single(*place), is_first);
        }
    }
}

/// What a commit marks.
#[derive(Default)]
pub(super) struct Marked {
    /// In the order of the reservation.
    ids: Vec<Fingerprint>,
    /// Of those that make duplicates of repeats without another look.
    times: HashMap<Fingerprint, Time>,
    window: Duration,
    /// For repeats without a time of their own.
    now: Timestamp,
}

/// When an event happened that is marked.
enum Time {
    /// When it was seen: in processing time.
    Seen,
    /// In event time: then, by itself.
    Own(Timestamp),
    /// In event time, without a time of its own: when it was judged.
    Judged(Timestamp),
}

impl Marked {
    /// What a commit of `reservation` marks, the events of `batch`.
    pub(super) fn of(reservation: &Reservation, batch: &Batch, shared: &Shared) -> Self {
        let ids = reservation.fingerprints();
        let times = match reservation.times() {
            // Which of them are repeats is a matter of the payload.
            _ if shared.compares_payloads() => HashMap::new(),
            None => ids.iter().map(|id| (*id, Time::Seen)).collect(),
            Some(times) => {
                let without = batch.picks.iter().filter(|place| batch.time_at(**place).is_none());
                let without: HashSet<_> = without.map(|place| batch.fingerprint_at(*place)).collect();
                let time = |(id, time): (&Fingerprint, &Timestamp)| {
                    (*id, if without.contains(id) { Time::Judged(*time) } else { Time::Own(*time) })
                };
                ids.iter().zip(times).map(time).collect()
            }
        };
        Self { ids: ids.to_vec(), times, window: shared.dedup.window(), now: shared.dedup.clock_now() }
    }

    /// Whether the event at `place`, a repeat of a pending ID, is a duplicate by this: in event time only when it is less than a
    /// window away from what is marked. Of two without a time of their own it is, however long the first was under way.
    pub(super) fn covers(&self, batch: &Batch, place: Place) -> bool {
        let near =
            |marked: Timestamp, time: Timestamp| time.max(marked).saturating_since(time.min(marked)) < self.window;
        match (self.times.get(&batch.fingerprint_at(place)), batch.time_at(place)) {
            (None, _) => false,
            (Some(Time::Seen), _) | (Some(Time::Judged(_)), None) => true,
            (Some(Time::Own(marked)), None) => near(*marked, self.now),
            (Some(Time::Own(marked) | Time::Judged(marked)), Some(time)) => near(*marked, time),
        }
    }

    fn ids(&self) -> impl Iterator<Item = Fingerprint> {
        self.ids.iter().copied()
    }
}
