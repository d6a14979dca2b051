//! What becomes of events that a sink could not take.
//!
//! An event is tried again at the sinks that lack it and may yet take it. When none of those is left, and one will never
//! take it, the event goes to the dead letter; where there is none, it is given up.

use std::collections::{BTreeMap, HashSet};
use std::time::{Duration, Instant};

use super::batch::{Batch, Single};
use super::desk::{Desk, FLIGHTS_MAX, bit};
use super::flight::{Doubt, Failure, Flight};
use super::held::{Held, Trial};
use crate::event::OwnedEvent;
use crate::sink::FailureClass;

impl Desk {
    /// Takes out of a flight what is not where it is to go, and says which picks these are.
    pub(super) fn hold_lacking(&mut self, doubt: &mut Doubt, batch: &mut Batch, to_dead_letter: bool) -> HashSet<u32> {
        let failures = std::mem::take(&mut doubt.failures);
        let is_buried = |trial: &Trial| trial.needs_dead_letter && !to_dead_letter;
        if failures.is_empty() && !doubt.trials.iter().any(is_buried) {
            return HashSet::new();
        }
        self.books.failed_attempts += failures.len() as u64;
        let mut lacking: BTreeMap<u32, Vec<Failure>> = BTreeMap::new();
        let buried = (0..).zip(&doubt.trials).filter(|(_, trial)| is_buried(trial));
        lacking.extend(buried.map(|(pick, _)| (pick, Vec::new())));
        for failure in failures {
            lacking.entry(failure.pick).or_default().push(failure);
        }
        let reserved = |desk: &Self, pick: u32| match doubt.conflicts.binary_search(&pick) {
            Ok(_) => desk.digest_at(batch, batch.picks[pick as usize]),
            Err(_) => batch.fingerprint(pick as usize),
        };
        let ids: BTreeMap<u32, _> = lacking.keys().map(|pick| (*pick, reserved(self, *pick))).collect();
        let has_none =
            |pick: &u32| doubt.unmarked.binary_search(pick).is_ok() && doubt.conflicts.binary_search(pick).is_err();
        let without: HashSet<u32> = ids.keys().copied().filter(has_none).collect();
        let all_ids: HashSet<_> = ids.iter().filter(|(pick, _)| !without.contains(*pick)).map(|(_, id)| *id).collect();
        let mut reservation = doubt.reservation.as_mut().map(|all| all.split(|id| all_ids.contains(&id)));
        for (pick, failures) in &lacking {
            let id = ids[pick];
            let mut trial = match doubt.trials.get_mut(*pick as usize) {
                Some(trial) => std::mem::take(trial),
                None => Trial {
                    // One that could not be judged holds none, though its ID may be another's.
                    reservation: match &mut reservation {
                        Some(all) if !without.contains(pick) => Some(all.split(|other| other == id)),
                        _ => None,
                    },
                    is_first: doubt.is_first(*pick),
                    ..Trial::default()
                },
            };
            trial.reservation = trial.reservation.filter(|reservation| !reservation.is_empty());
            let single = batch.single(batch.picks[*pick as usize]);
            self.hold(Held { single, trial }, failures, to_dead_letter);
        }
        lacking.into_keys().collect()
    }

    /// Has an event wait for its next try, which may be at the dead letter.
    pub(super) fn hold(&mut self, mut held: Held, failures: &[Failure], to_dead_letter: bool) {
        let trial = &mut held.trial;
        let may_pass = |failure: &&Failure| to_dead_letter || failure.class != FailureClass::Permanent;
        let class = failures.iter().filter(may_pass).map(|failure| failure.class).max_by_key(|class| severity(*class));
        if !to_dead_letter {
            trial.lacking = failures.iter().filter(may_pass).fold(0, |bits, failure| bits | bit(failure.sink));
            trial.needs_dead_letter |= failures.iter().any(|failure| failure.class == FailureClass::Permanent);
        }
        let delay = match class {
            Some(class) => self.delayed.delay(class, trial.attempts, self.shared.dedup.clock_now()),
            None => Duration::ZERO,
        };
        trial.attempts += u32::from(!matches!(class, None | Some(FailureClass::Defer(_))));
        if trial.lacking == 0 && self.dead_letter.is_none() {
            self.give_up(held);
        } else {
            self.delayed.hold(held, delay, Instant::now());
        }
    }

    /// Nothing will be tried any more. The ID is released, and the oldest repeat takes its place.
    fn give_up(&mut self, held: Held) {
        let Held { single, trial } = held;
        let ledgers = self.shared.sources.all();
        self.given_up.push(OwnedEvent::from(single.item.event(0, &ledgers)));
        drop(trial);
        if self.attached.has(single.item.fingerprint(0)) {
            // Soon enough: the next round asks for it.
            self.next_poll = Some(Instant::now());
        }
    }

    /// Sends what is due to be tried again.
    pub(super) fn retry(&mut self, now: Instant) {
        if !self.unsent.is_empty() || self.flights.len() >= FLIGHTS_MAX {
            return;
        }
        let due = self.delayed.due(now, RETRIES_MAX);
        let (dead, alive): (Vec<_>, Vec<_>) = due.into_iter().partition(|held| held.trial.lacking == 0);
        for (held, to_dead_letter) in [(alive, false), (dead, true)] {
            if !held.is_empty() {
                let (singles, trials): (Vec<Single>, _) =
                    held.into_iter().map(|held| (held.single, held.trial)).unzip();
                let doubt = Doubt { trials, ..Doubt::default() };
                self.launch(Flight { doubt, to_dead_letter, ..Flight::new(Batch::of(singles)) });
            }
        }
    }
}

/// Which class decides how long an event waits that several sinks failed to take.
fn severity(class: FailureClass) -> u8 {
    match class {
        FailureClass::Defer(_) => 0,
        FailureClass::Transient => 1,
        FailureClass::Throttled { .. } => 2,
        FailureClass::Auth => 3,
        FailureClass::Permanent => 4,
    }
}

/// Events tried again together, at most.
const RETRIES_MAX: usize = 1_024;
