//! [`Producer`]: one thread's end of a pipeline.

use std::fmt;
use std::sync::Arc;

use super::Shared;
use super::bundle::{Bundle, EVENT_BYTES_MAX};
use super::error::{BatchRefused, Refused, SubmitError};
use super::settle::{OnSettled, Settled};
use super::sources::{Ledger, Origin};
use crate::event::{Event, Fingerprint};
use crate::queue::{Feeder, Refusal};

/// One thread's end of a [`Pipeline`](super::Pipeline).
///
/// Events of one producer reach their worker in the order in which they were submitted. They are gathered without a lock while
/// the worker is busy; one that is idle takes even a single event at once, so nothing has to be flushed.
///
/// # Cost
/// A hash, a copy of the event's bytes and two atomic swaps for each event, less for a batch. No allocation once the bundles
/// have grown to what events need.
pub struct Producer {
    shared: Arc<Shared>,
    /// By worker.
    feeders: Vec<Feeder<Bundle>>,
    /// Where the last events came from.
    ledger: Option<Arc<Ledger>>,
    /// Used again.
    fingerprints: Vec<Fingerprint>,
}

impl Producer {
    pub(super) fn new(shared: &Arc<Shared>) -> Self {
        let feeders = shared.intakes.iter().map(|intake| intake.feeder()).collect();
        Self { shared: Arc::clone(shared), feeders, ledger: None, fingerprints: Vec::new() }
    }

    /// Submits an event. Waits while the pipeline is full.
    ///
    /// # Errors
    /// [`SubmitError`]; the event was not taken.
    pub fn submit(&mut self, event: Event<'_>) -> Result<(), SubmitError> {
        self.feed(event, &mut None, true)
    }

    /// Submits an event unless the pipeline is full.
    ///
    /// # Errors
    /// [`Refused`] has the event; it was not taken.
    #[expect(clippy::result_large_err, reason = "the event is handed back")]
    pub fn try_submit<'a>(&mut self, event: Event<'a>) -> Result<(), Refused<'a>> {
        self.feed(event, &mut None, false).map_err(|reason| Refused { event, reason })
    }

    /// Submits an event, and has `on_settled` called by a worker once it is settled. Waits while the pipeline is full.
    ///
    /// The callback should be short, and must not wait for this pipeline: its worker waits for the callback. It is dropped
    /// uncalled when the event is not taken, or not finished.
    ///
    /// # Errors
    /// As [`Producer::submit`].
    pub fn submit_with(
        &mut self,
        event: Event<'_>,
        on_settled: impl FnOnce(Settled) + Send + 'static,
    ) -> Result<(), SubmitError> {
        self.feed(event, &mut Some(Box::new(on_settled)), true)
    }

    /// Submits events in order. Waits while the pipeline is full.
    ///
    /// # Errors
    /// [`BatchRefused`] names those that were not taken.
    pub fn submit_batch(&mut self, events: &[Event<'_>]) -> Result<(), BatchRefused> {
        let mut refused: Vec<(usize, SubmitError)> = Vec::new();
        let ids: Vec<&[u8]> = events.iter().map(Event::id).collect();
        self.fingerprints.clear();
        self.shared.dedup.fingerprints(&ids, &mut self.fingerprints);
        let fingerprints = std::mem::take(&mut self.fingerprints);
        // All before any is fed: what is settled must not pass an event whose worker is only come to later.
        let mut begun: Vec<Option<Begun>> = Vec::with_capacity(events.len());
        for (index, event) in events.iter().enumerate() {
            let origin = self.shared.check(event).and_then(|()| self.begin(event));
            begun.push(origin.map_err(|reason| refused.push((index, reason))).ok());
        }
        for worker in 0..self.feeders.len() {
            let is_mine = |index: &usize| {
                begun[*index].is_some()
                    && (self.feeders.len() == 1 || self.shared.worker_of(fingerprints[*index]) == worker)
            };
            let mine: Vec<usize> = (0..events.len()).filter(is_mine).collect();
            self.feed_all(worker, events, &mine, &fingerprints, &mut begun, &mut refused);
        }
        self.fingerprints = fingerprints;
        refused.sort_by_key(|(index, _)| *index);
        match refused.first() {
            None => Ok(()),
            Some((_, reason)) => {
                let reason = *reason;
                Err(BatchRefused { refused: refused.into_iter().map(|(index, _)| index).collect(), reason })
            }
        }
    }

    /// Feeds one worker its events of a batch.
    fn feed_all(
        &mut self,
        worker: usize,
        events: &[Event<'_>],
        mine: &[usize],
        fingerprints: &[Fingerprint],
        begun: &mut [Option<Begun>],
        refused: &mut Vec<(usize, SubmitError)>,
    ) {
        let mut next = 0;
        let fed = self.feeders[worker].feed(true, |bundle| {
            while let Some(&index) = mine.get(next) {
                let origin = begun[index].as_ref().and_then(origin);
                if !bundle.push(fingerprints[index], &events[index], origin, &mut None) {
                    return false;
                }
                next += 1;
            }
            true
        });
        if let Err(refusal) = fed {
            for &index in &mine[next..] {
                not_taken(begun[index].take().flatten(), refusal);
                refused.push((index, refusal.into()));
            }
        }
    }

    fn feed(&mut self, event: Event<'_>, on_settled: &mut Option<OnSettled>, waits: bool) -> Result<(), SubmitError> {
        self.shared.check(&event)?;
        let fingerprint = self.shared.dedup.fingerprint(event.id());
        let worker = self.shared.worker_of(fingerprint);
        let begun = self.begin(&event)?;
        let origin = origin(&begun);
        let fed = self.feeders[worker].feed(waits, |bundle| bundle.push(fingerprint, &event, origin, on_settled));
        fed.map_err(|refusal| {
            not_taken(begun, refusal);
            refusal.into()
        })
    }

    fn begin(&mut self, event: &Event<'_>) -> Result<Begun, SubmitError> {
        let (Some(source), Some(position)) = (event.source(), event.position()) else { return Ok(None) };
        let ledger = match &self.ledger {
            Some(ledger) if ledger.source() == source => Arc::clone(ledger),
            _ => self.shared.sources.ledger(source).ok_or(SubmitError::TooManySources)?,
        };
        let origin = ledger.begin(position);
        self.ledger = Some(Arc::clone(&ledger));
        Ok(Some((ledger, origin)))
    }
}

/// An event with a position has an entry in its source's ledger.
type Begun = Option<(Arc<Ledger>, Origin)>;

fn origin(begun: &Begun) -> Option<Origin> {
    begun.as_ref().map(|(_, origin)| *origin)
}

/// The event was not taken.
fn not_taken(begun: Begun, refusal: Refusal) {
    match begun {
        None => {}
        Some((ledger, origin)) if refusal == Refusal::Full => ledger.withdraw(origin),
        Some((ledger, origin)) => ledger.refuse(origin),
    }
}

impl Shared {
    /// Refuses what cannot be carried.
    fn check(&self, event: &Event<'_>) -> Result<(), SubmitError> {
        let bytes = event.bytes();
        if bytes > EVENT_BYTES_MAX {
            return Err(SubmitError::TooLarge { bytes, bytes_max: EVENT_BYTES_MAX });
        }
        Ok(())
    }

    /// Submits an event that has a bundle of its own.
    pub(super) fn submit(
        &self,
        event: &Event<'_>,
        on_settled: Option<OnSettled>,
        waits: bool,
    ) -> Result<(), SubmitError> {
        self.check(event)?;
        let fingerprint = self.dedup.fingerprint(event.id());
        let begun = match (event.source(), event.position()) {
            (Some(source), Some(position)) => {
                let ledger = self.sources.ledger(source).ok_or(SubmitError::TooManySources)?;
                let origin = ledger.begin(position);
                Some((ledger, origin))
            }
            _ => None,
        };
        let origin = origin(&begun);
        let put: Result<(), Refusal> = self.intakes[self.worker_of(fingerprint)].put(waits, |bundle| {
            let mut on_settled = on_settled;
            bundle.push(fingerprint, event, origin, &mut on_settled);
        });
        put.map_err(|refusal| {
            not_taken(begun, refusal);
            refusal.into()
        })
    }
}

impl fmt::Debug for Producer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Producer").field("workers", &self.feeders.len()).finish_non_exhaustive()
    }
}
