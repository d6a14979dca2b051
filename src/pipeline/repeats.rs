//! Repeats: events whose ID was pending when they came.

use std::collections::HashSet;

use super::batch::{Batch, Place};
use super::desk::{Desk, Stop};
use super::flight::Flight;
use super::settle::{Settled, Tellings};
use super::sorted::Sorted;
use crate::dedup::Reservation;
use crate::event::{Fingerprint, ReserveVerdict, Unjudged};

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
        let Ok(mut reserved) = self.shared.reserve_at(batch, repeats) else {
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
        if !self.shared.compares_payloads() {
            // Those that were attached before: one that repeats what is pending now waits for that.
            sorted.duplicates.iter().for_each(|place| self.end_attached(batch.fingerprint_at(*place), tellings));
        }
        self.attach(batch, &sorted.repeats, keep_first);
        if !sorted.picks.is_empty() {
            let singles = Batch::of(sorted.picks.iter().map(|place| batch.single(*place)).collect());
            self.launch_judged(Flight::judged(singles, reserved, sorted.unmarked, sorted.conflicts))?;
        }
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

    /// Takes out the repeats of these ids, which are committed with what they repeat: duplicates for certain, whatever their own
    /// time is by now.
    pub(super) fn end_repeats(
        &mut self,
        batch: &mut Batch,
        repeats: &mut Vec<Place>,
        ids: &[Fingerprint],
        tellings: &mut Tellings,
    ) {
        if repeats.is_empty() || self.shared.compares_payloads() {
            return;
        }
        let ids: HashSet<_> = ids.iter().copied().collect();
        let ended = repeats.extract_if(.., |place| ids.contains(&batch.fingerprint_at(*place))).collect::<Vec<_>>();
        let count = ended.len() as u64;
        (self.books.attached, self.books.duplicate) = (self.books.attached - count, self.books.duplicate + count);
        tellings.add_duplicates(batch, &ended);
    }

    /// What these ids stand for is settled: their repeats are duplicates, or conflicts.
    pub(super) fn end_all_attached(&mut self, ids: &[Fingerprint], tellings: &mut Tellings) -> Result<(), Stop> {
        if !self.shared.compares_payloads() {
            ids.iter().for_each(|id| self.end_attached(*id, tellings));
            return Ok(());
        }
        let mut batch = Batch::of(ids.iter().flat_map(|id| self.attached.take(*id)).collect());
        let repeats = batch.picks.clone();
        self.ask(&mut batch, &repeats, false, tellings)
    }

    /// What `id` stands for is settled: all its repeats are duplicates.
    pub(super) fn end_attached(&mut self, id: Fingerprint, tellings: &mut Tellings) {
        for mut single in self.attached.take(id) {
            (self.books.attached, self.books.duplicate) = (self.books.attached - 1, self.books.duplicate + 1);
            tellings.add(single.item.origin(0), single.item.take_callback(0), Settled::Duplicate);
        }
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
