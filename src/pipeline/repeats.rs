//! Repeats: events whose ID was pending when they came.

use super::batch::{Batch, Place};
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
        let reserved = match self.shared.reserve_at(batch, repeats) {
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
        let (mut singles, mut unmarked) = (Vec::new(), Vec::new());
        for (place, verdict) in repeats.iter().zip(reserved.verdicts()) {
            let id = batch.fingerprint_at(*place);
            match verdict {
                ReserveVerdict::Duplicate => {
                    let (origin, callback) = batch.ticket(*place);
                    tellings.add(origin, callback, Settled::Duplicate);
                    (self.books.attached, self.books.duplicate) = (self.books.attached - 1, self.books.duplicate + 1);
                    self.end_attached(id, tellings);
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
                ReserveVerdict::Unjudged(why) => {
                    unmarked.push(singles.len() as u32);
                    self.books.late += u64::from(*why == Unjudged::Late);
                    self.books.refused += u64::from(*why == Unjudged::Full);
                }
            }
            self.books.attached -= 1;
            singles.push(batch.single(*place));
        }
        if !singles.is_empty() {
            self.launch(Flight::judged(Batch::of(singles), reserved, unmarked));
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
