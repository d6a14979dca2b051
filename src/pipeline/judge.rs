//! Judging what has come: ids are reserved, and each event goes where its verdict sends it.

use super::batch::{Batch, Place, Single, places};
use super::commit::Recording;
use super::desk::{Desk, Stop};
use super::flight::Flight;
use super::ids::Ids;
use super::settle::Tellings;
use super::sorted::Sorted;
use crate::dedup::Reservation;
use crate::event::{Fingerprint, OwnedEvent, Unjudged};

impl Desk {
    /// Judges the next of what has come.
    pub(super) fn judge(&mut self) -> Result<(), Stop> {
        let mut events = 0;
        while events < BATCH_EVENTS
            && (events == 0 || self.may_reserve(events))
            && let Some(bundle) = self.backlog.pop_front()
        {
            events += bundle.item.len();
            self.in_hand.push(bundle);
        }
        let reserved = self.reserve(&self.in_hand);
        let mut batch = Batch { bundles: std::mem::take(&mut self.in_hand), picks: Vec::new(), is_pooled: true };
        let Ok(mut reserved) = reserved else {
            return Err(self.give_up_unjudged(&batch));
        };
        let Some(sorted) = Sorted::all(&batch.bundles, reserved.verdicts(), self.shared.dedup.on_conflict()) else {
            return Err(self.give_up_unjudged(&batch));
        };
        self.books.read += reserved.verdicts().len() as u64;
        self.books.add(&sorted.books);
        let mut tellings = Tellings::default();
        tellings.add_duplicates(&mut batch, &sorted.duplicates);
        self.release_digests(&mut reserved, &batch, &sorted.waiting);
        self.bury(&mut reserved, &mut batch, &sorted.buried);
        let Sorted { picks, unmarked, conflicts, repeats, .. } = sorted;
        let batch = Batch { picks, ..batch };
        self.launch_judged(Flight { repeats, tellings, ..Flight::judged(batch, reserved, unmarked, conflicts) })
    }

    /// Reserves the IDs of all events of these bundles, in order.
    fn reserve(&self, bundles: &[Single]) -> Result<Reservation, Unjudged> {
        let count = bundles.iter().map(|bundle| bundle.item.len()).sum();
        let mut fingerprints = Vec::with_capacity(count);
        for bundle in bundles {
            fingerprints.extend(bundle.item.fingerprints());
        }
        if !self.shared.dedup.is_in_event_time() && !self.shared.compares_payloads() {
            return self.stage.reserve(Ids::new(&fingerprints));
        }
        self.reserve_with_care(bundles, &places(bundles).collect::<Vec<_>>(), fingerprints)
    }

    /// Reserves the IDs of the events at these places.
    pub(super) fn reserve_at(&self, batch: &Batch, places: &[Place]) -> Result<Reservation, Unjudged> {
        let fingerprints = places.iter().map(|place| batch.fingerprint_at(*place)).collect();
        self.reserve_with_care(&batch.bundles, places, fingerprints)
    }

    /// With times and payloads, where those matter.
    fn reserve_with_care(
        &self,
        bundles: &[Single],
        places: &[Place],
        fingerprints: Vec<Fingerprint>,
    ) -> Result<Reservation, Unjudged> {
        let dedup = &self.shared.dedup;
        let digest = |(place, id): (&Place, &Fingerprint)| {
            let event = bundles[place.bundle as usize].item.event(place.event as usize, &[]);
            dedup.digest(*id, event.payload())
        };
        let digests: Vec<_> = match self.shared.compares_payloads() {
            true => places.iter().zip(&fingerprints).map(digest).collect(),
            false => Vec::new(),
        };
        if !dedup.is_in_event_time() {
            return self.stage.reserve(Ids::new(&fingerprints).with_digests(&digests));
        }
        let now = dedup.clock_now();
        // The event's own, or else the present.
        let time = |place: &Place| bundles[place.bundle as usize].item.time(place.event as usize).unwrap_or(now);
        let events: Vec<_> = fingerprints.into_iter().zip(places.iter().map(time)).collect();
        self.stage.reserve(Ids::at(&events).with_digests(&digests))
    }

    /// Sends a flight that was just judged; at most once, its ids are committed before.
    pub(super) fn launch_judged(&mut self, mut flight: Flight) -> Result<(), Stop> {
        if let Some(reserved) = &mut flight.doubt.reservation {
            let (stage, mut host) = (&self.stage, Recording::new(&self.shared, &mut self.recorder));
            stage.commit_ahead(reserved, &mut host).inspect_err(|_| self.give_up_flight(&flight))?;
        }
        self.launch(flight);
        Ok(())
    }

    /// Of events that cannot be judged, as nothing can be recorded any more.
    fn give_up_unjudged(&mut self, batch: &Batch) -> Stop {
        self.gone += batch.bundles.len();
        let ledgers = self.shared.sources.all();
        let events = batch.bundles.iter().flat_map(|bundle| bundle.item.all(&ledgers).map(OwnedEvent::from));
        let before = self.given_up.len();
        self.given_up.extend(events);
        let count = (self.given_up.len() - before) as u64;
        self.books.read += count;
        self.books.first_seen += count;
        self.books.in_flight += count;
        self.log_failed()
    }

    /// Of events that are judged and cannot be delivered.
    fn give_up_flight(&mut self, flight: &Flight) {
        self.gone += if flight.batch.is_pooled { flight.batch.bundles.len() } else { 0 };
        let ledgers = self.shared.sources.all();
        let places = flight.batch.picks.iter().chain(&flight.repeats);
        self.given_up.extend(places.map(|place| OwnedEvent::from(flight.batch.event_at(*place, &ledgers))));
    }
}

/// Events judged together, about: their lines of the set stay in the cache until they are committed.
const BATCH_EVENTS: usize = 1_024;
