//! Repeats: events whose ID was pending when they came.

use std::collections::HashSet;

use super::batch::{Batch, Place};
use super::conflict::Conflicting;
use super::desk::{Desk, Stop};
use super::flight::Flight;
use super::settle::{Settled, Tellings};
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
        let mut reserved = match self.shared.reserve_at(batch, repeats) {
            Ok(reserved) => reserved,
            Err(_) => {
                self.keep(batch, repeats);
                return Err(self.log_failed());
            }
        };
        let is_lost = |verdict: &ReserveVerdict| matches!(verdict, ReserveVerdict::Unjudged(why) if !matches!(why, Unjudged::Late | Unjudged::Full));
        if reserved.verdicts().iter().any(is_lost) {
            self.keep(batch, repeats);
            return Err(self.log_failed());
        }
        let (mut singles, mut unmarked, mut conflicts) = (Vec::new(), Vec::new(), Vec::new());
        let (mut waiting, mut buried) = (Vec::new(), Vec::new());
        let mut own_pending: Option<HashSet<Fingerprint>> = None;
        let on_conflict = self.shared.dedup.on_conflict();
        let verdicts = repeats.iter().zip(reserved.verdicts());
        let waits = |verdict: &ReserveVerdict| matches!(verdict, ReserveVerdict::Conflict { in_flight: true });
        waiting.extend(verdicts.clone().filter(|(_, verdict)| waits(verdict)).map(|(place, _)| *place));
        let digests_of_waiting: Vec<_> = waiting.iter().map(|place| self.digest_at(batch, *place)).collect();
        for (place, verdict) in verdicts {
            let id = batch.fingerprint_at(*place);
            match verdict {
                ReserveVerdict::Conflict { in_flight } => {
                    let act = Conflicting::of(on_conflict, *in_flight);
                    if matches!(act, Conflicting::Waits) {
                        self.attached.attach(id, batch.single(*place), keep_first);
                        continue;
                    }
                    (self.books.attached, self.books.duplicate) = (self.books.attached - 1, self.books.duplicate + 1);
                    self.books.conflicts += 1;
                    match act {
                        Conflicting::Deliver => {
                            conflicts.push(singles.len() as u32);
                            unmarked.push(singles.len() as u32);
                            singles.push(batch.single(*place));
                        }
                        Conflicting::Bury => buried.push(*place),
                        _ => {
                            let (origin, callback) = batch.ticket(*place);
                            tellings.add(origin, callback, Settled::Duplicate);
                        }
                    }
                    continue;
                }
                ReserveVerdict::Duplicate => {
                    let (origin, callback) = batch.ticket(*place);
                    tellings.add(origin, callback, Settled::Duplicate);
                    (self.books.attached, self.books.duplicate) = (self.books.attached - 1, self.books.duplicate + 1);
                    if !self.shared.compares_payloads() {
                        self.end_attached(id, tellings);
                    }
                    continue;
                }
                ReserveVerdict::InFlight => {
                    self.attached.attach(id, batch.single(*place), keep_first);
                    continue;
                }
                ReserveVerdict::FirstSeen => {
                    self.books.first_seen += 1;
                    self.books.in_flight += 1;
                }
                // Its own time has passed; what it repeats is not settled yet.
                ReserveVerdict::Unjudged(Unjudged::Late)
                    if own_pending.get_or_insert_with(|| self.pending()).contains(&id) =>
                {
                    self.attached.attach(id, batch.single(*place), keep_first);
                    continue;
                }
                ReserveVerdict::Unjudged(why) => {
                    unmarked.push(singles.len() as u32);
                    self.books.late += u64::from(*why == Unjudged::Late);
                    self.books.refused += u64::from(*why == Unjudged::Full);
                }
            }
            self.books.attached -= 1;
            singles.push(batch.single(*place));
        }
        if !digests_of_waiting.is_empty() {
            drop(reserved.split(|id| digests_of_waiting.contains(&id)));
        }
        self.bury(&mut reserved, batch, &buried);
        if !singles.is_empty() {
            self.launch_judged(Flight::judged(Batch::of(singles), reserved, unmarked, conflicts))?;
        }
        Ok(())
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
        for place in repeats.extract_if(.., |place| ids.contains(&batch.fingerprint_at(*place))).collect::<Vec<_>>() {
            let (origin, callback) = batch.ticket(place);
            tellings.add(origin, callback, Settled::Duplicate);
            (self.books.attached, self.books.duplicate) = (self.books.attached - 1, self.books.duplicate + 1);
        }
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

    /// Has repeats that cannot be asked about wait.
    fn keep(&mut self, batch: &mut Batch, repeats: &[Place]) {
        for place in repeats {
            self.attached.attach(batch.fingerprint_at(*place), batch.single(*place), false);
        }
    }
}
