//! Telling callers that events are settled.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use super::batch::{Batch, Place, message};
use super::sources::{Ledger, Origin};
use crate::dedup::Position;

/// The final state of an event. It is committed as the durability says: the source may be told.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum Settled {
    /// Every sink has it.
    Delivered,
    /// Its ID was seen before, and the event that was seen is settled.
    Duplicate,
    /// It is in the dead letter.
    DeadLettered,
}

/// What is called when an event is settled.
pub(super) type OnSettled = Box<dyn FnOnce(Settled) + Send>;

/// Events that are in their final state together, and whom to tell.
#[derive(Default)]
pub(super) struct Tellings {
    origins: Vec<Origin>,
    callbacks: Vec<(OnSettled, Settled)>,
}

impl Tellings {
    pub(super) fn add(&mut self, origin: Option<Origin>, callback: Option<OnSettled>, settled: Settled) {
        self.origins.extend(origin);
        self.callbacks.extend(callback.map(|callback| (callback, settled)));
    }

    /// The events at these places are duplicates.
    pub(super) fn add_duplicates(&mut self, batch: &mut Batch, places: &[Place]) {
        for place in places {
            let (origin, callback) = batch.ticket(*place);
            self.add(origin, callback, Settled::Duplicate);
        }
    }

    /// Where all of them come from.
    pub(super) fn origins(&self) -> &[Origin] {
        &self.origins
    }

    pub(super) fn is_empty(&self) -> bool {
        self.origins.is_empty() && self.callbacks.is_empty()
    }

    pub(super) fn append(&mut self, mut other: Self) {
        self.origins.append(&mut other.origins);
        self.callbacks.append(&mut other.callbacks);
    }

    /// Tells everybody, and says which callbacks panicked. With no lock held: a callback is the caller's code.
    pub(super) fn tell(mut self, ledgers: &[Arc<Ledger>]) -> Vec<String> {
        self.origins.sort_unstable_by_key(|origin| (origin.ledger, origin.sequence));
        for same in self.origins.chunk_by(|a, b| a.ledger == b.ledger) {
            if let Some(ledger) = ledgers.get(same[0].ledger as usize) {
                ledger.resolve(same.iter().map(|origin| origin.sequence));
            }
        }
        let called = self.callbacks.into_iter().map(|(callback, settled)| {
            catch_unwind(AssertUnwindSafe(|| callback(settled))).err().map(|panic| message(&*panic))
        });
        called.flatten().collect()
    }
}

/// Tellings that wait until the log is on disk so far.
#[derive(Default)]
pub(super) struct Untold(VecDeque<(Position, Tellings)>);

impl Untold {
    pub(super) fn push(&mut self, position: Position, tellings: Tellings) {
        match self.0.back_mut() {
            Some((last, waiting)) if *last == position => waiting.append(tellings),
            _ => self.0.push_back((position, tellings)),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Takes the next that `is_durable`.
    pub(super) fn pop(&mut self, is_durable: impl FnOnce(Position) -> bool) -> Option<Tellings> {
        let (position, _) = self.0.front()?;
        if is_durable(*position) { self.0.pop_front().map(|(_, tellings)| tellings) } else { None }
    }
}
