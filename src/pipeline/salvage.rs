//! What is left on a desk when its worker ends before its time.

use super::batch::Batch;
use super::desk::Desk;
use crate::event::OwnedEvent;

impl Desk {
    /// Takes everything that is not finished, releases its ids, and lets go of the lanes. Also says how many bundles of the
    /// pool are gone with it.
    pub(super) fn salvage(&mut self) -> (Vec<OwnedEvent>, usize) {
        let ledgers = self.shared.sources.all();
        let mut unfinished = std::mem::take(&mut self.given_up);
        let mut gone = self.free.len() + std::mem::take(&mut self.gone);
        self.free.clear();
        for flight in std::mem::take(&mut self.flights).into_values() {
            let places = flight.batch.picks.iter().chain(&flight.repeats);
            unfinished.extend(places.map(|place| OwnedEvent::from(flight.batch.event_at(*place, &ledgers))));
            gone += pooled(&flight.batch);
        }
        for out in self.stage.take_all() {
            let picks = (0..).zip(&out.batch.picks).filter(|(number, _)| !out.failed.contains(number));
            let places = picks.map(|(_, pick)| pick).chain(&out.repeats);
            unfinished.extend(places.map(|place| OwnedEvent::from(out.batch.event_at(*place, &ledgers))));
            gone += pooled(&out.batch);
        }
        let singles = self.delayed.take_all().map(|held| held.single).chain(self.attached.take_all());
        unfinished.extend(singles.map(|single| OwnedEvent::from(single.item.event(0, &ledgers))));
        for bundle in self.in_hand.drain(..).chain(self.backlog.drain(..)) {
            unfinished.extend(bundle.item.all(&ledgers).map(OwnedEvent::from));
            gone += 1;
        }
        self.let_go();
        (unfinished, gone)
    }

    /// Lets go of the lanes, which end when every worker has.
    pub(super) fn let_go(&mut self) {
        self.lanes = None;
        self.dead_letter = None;
        self.clear_unsent();
    }
}

fn pooled(batch: &Batch) -> usize {
    if batch.is_pooled { batch.bundles.len() } else { 0 }
}
