//! [`Producer`]: one thread's end of a pipeline.

use std::cell::RefCell;
use std::fmt;
use std::sync::Arc;

use super::Shared;
use super::bundle::{BYTES_MAX, Bundle, EVENT_BYTES_MAX};
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
/// It keeps the set open: drop it when it is not needed any more.
///
/// # Cost
/// A hash, a copy of the event's bytes and two atomic swaps for each event, less for a batch. No allocation once the bundles
/// have grown to what events need; the worker allocates by the batch.
pub struct Producer {
    shared: Arc<Shared>,
    end: End,
}

impl Producer {
    pub(super) fn new(shared: &Arc<Shared>) -> Self {
        Self { shared: Arc::clone(shared), end: End::new(shared) }
    }

    /// Submits an event. Waits while the pipeline is full.
    ///
    /// # Errors
    /// [`SubmitError`]; the event was not taken.
    pub fn submit(&mut self, event: Event<'_>) -> Result<(), SubmitError> {
        self.end.feed(&self.shared, &event, &mut None, true)
    }

    /// Submits an event unless the pipeline is full.
    ///
    /// # Errors
    /// [`Refused`] has the event; it was not taken.
    #[expect(clippy::result_large_err, reason = "the event is handed back")]
    pub fn try_submit<'a>(&mut self, event: Event<'a>) -> Result<(), Refused<'a>> {
        self.end.feed(&self.shared, &event, &mut None, false).map_err(|reason| Refused { event, reason })
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
        self.end.feed(&self.shared, &event, &mut Some(Box::new(on_settled)), true)
    }

    /// Submits events in order. Waits while the pipeline is full.
    ///
    /// # Errors
    /// [`BatchRefused`] names those that were not taken.
    pub fn submit_batch(&mut self, events: &[Event<'_>]) -> Result<(), BatchRefused> {
        self.end.feed_batch(&self.shared, events)
    }
}

/// What a thread needs to feed all workers of a pipeline.
pub(super) struct End {
    /// By worker.
    feeders: Vec<Feeder<Bundle>>,
    /// Where the last event came from.
    ledger: Option<Arc<Ledger>>,
}

impl End {
    fn new(shared: &Shared) -> Self {
        Self { feeders: shared.intakes.iter().map(|intake| intake.feeder()).collect(), ledger: None }
    }

    /// Nothing can be fed any more.
    fn is_closed(&self) -> bool {
        self.feeders.iter().all(Feeder::is_closed)
    }

    pub(super) fn feed(
        &mut self,
        shared: &Shared,
        event: &Event<'_>,
        on_settled: &mut Option<OnSettled>,
        waits: bool,
    ) -> Result<(), SubmitError> {
        check(event)?;
        let fingerprint = shared.dedup.fingerprint(event.id());
        let worker = shared.worker_of(fingerprint);
        let feeder = &mut self.feeders[worker];
        if event.source().is_none() && event.bytes() <= BYTES_MAX {
            let fed = feeder.feed(waits, |bundle| bundle.push(fingerprint, event, None, on_settled));
            return fed.map_err(SubmitError::from);
        }
        let begun = self.begin(shared, event)?;
        let origin = origin(&begun);
        let put = |bundle: &mut Bundle| bundle.push(fingerprint, event, origin, on_settled);
        let fed = self.feed_sized(worker, event.bytes(), waits, put);
        fed.map_err(|refusal| {
            not_taken(begun, refusal);
            refusal.into()
        })
    }

    /// Feeds one worker one event of so many bytes.
    fn feed_sized(
        &mut self,
        worker: usize,
        bytes: usize,
        waits: bool,
        put: impl FnMut(&mut Bundle) -> bool,
    ) -> Result<(), Refusal> {
        let feeder = &mut self.feeders[worker];
        if bytes > BYTES_MAX { feeder.feed_large(bytes, waits, put) } else { feeder.feed(waits, put) }
    }

    pub(super) fn feed_batch(&mut self, shared: &Shared, events: &[Event<'_>]) -> Result<(), BatchRefused> {
        let mut refused: Vec<(usize, SubmitError)> = Vec::new();
        let ids: Vec<&[u8]> = events.iter().map(Event::id).collect();
        let mut fingerprints = Vec::with_capacity(ids.len());
        shared.dedup.fingerprints(&ids, &mut fingerprints);
        // All before any is fed: what is settled must not pass an event whose worker is only come to later.
        let mut begun: Vec<Option<Begun>> = Vec::with_capacity(events.len());
        for (index, event) in events.iter().enumerate() {
            let origin = check(event).and_then(|()| self.begin(shared, event));
            begun.push(origin.map_err(|reason| refused.push((index, reason))).ok());
        }
        for worker in 0..self.feeders.len() {
            let is_mine = |index: &usize| {
                begun[*index].is_some() && (self.feeders.len() == 1 || shared.worker_of(fingerprints[*index]) == worker)
            };
            let mine: Vec<usize> = (0..events.len()).filter(is_mine).collect();
            self.feed_worker(worker, events, &mine, &fingerprints, &mut begun, &mut refused);
        }
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
    fn feed_worker(
        &mut self,
        worker: usize,
        events: &[Event<'_>],
        mine: &[usize],
        fingerprints: &[Fingerprint],
        begun: &mut [Option<Begun>],
        refused: &mut Vec<(usize, SubmitError)>,
    ) {
        let mut next = 0;
        let mut feed = || {
            while next < mine.len() {
                let is_large = |index: &usize| events[*index].bytes() > BYTES_MAX;
                // A large one is fed alone.
                let end = match mine[next..].iter().position(is_large) {
                    Some(0) => next + 1,
                    Some(small) => next + small,
                    None => mine.len(),
                };
                let bytes = if end == next + 1 { events[mine[next]].bytes() } else { 0 };
                self.feed_sized(worker, bytes, true, |bundle| {
                    while let Some(&index) = mine[..end].get(next) {
                        let origin = begun[index].as_ref().and_then(origin);
                        if !bundle.push(fingerprints[index], &events[index], origin, &mut None) {
                            return false;
                        }
                        next += 1;
                    }
                    true
                })?;
            }
            Ok(())
        };
        let fed: Result<(), Refusal> = feed();
        if let Err(refusal) = fed {
            for &index in &mine[next..] {
                not_taken(begun[index].take().flatten(), refusal);
                refused.push((index, refusal.into()));
            }
        }
    }

    fn begin(&mut self, shared: &Shared, event: &Event<'_>) -> Result<Begun, SubmitError> {
        let (Some(source), Some(position)) = (event.source(), event.position()) else { return Ok(None) };
        let ledger = match &self.ledger {
            Some(ledger) if ledger.source() == source => Arc::clone(ledger),
            _ => shared.sources.ledger(source).ok_or(SubmitError::TooManySources)?,
        };
        let origin = ledger.begin(position);
        self.ledger = Some(Arc::clone(&ledger));
        Ok(Some((ledger, origin)))
    }
}

/// Refuses what cannot be carried.
fn check(event: &Event<'_>) -> Result<(), SubmitError> {
    let bytes = event.bytes();
    if bytes > EVENT_BYTES_MAX {
        return Err(SubmitError::TooLarge { bytes, bytes_max: EVENT_BYTES_MAX });
    }
    let bytes = event.source().map_or(0, |source| source.as_bytes().len());
    if bytes > SOURCE_BYTES_MAX {
        return Err(SubmitError::TooLarge { bytes, bytes_max: SOURCE_BYTES_MAX });
    }
    Ok(())
}

/// An event with a position has an entry in its source's ledger.
type Begun = Option<(Arc<Ledger>, Origin)>;

fn origin(begun: &Begun) -> Option<Origin> {
    begun.as_ref().map(|(_, origin)| *origin)
}

/// What the name of a source may hold.
const SOURCE_BYTES_MAX: usize = 1 << 10;

/// The event was not taken.
fn not_taken(begun: Begun, refusal: Refusal) {
    match begun {
        None => {}
        Some((ledger, origin)) if refusal == Refusal::Full => ledger.withdraw(origin),
        Some((ledger, origin)) => ledger.refuse(origin),
    }
}

thread_local! {
    /// This thread's ends of the pipelines that it submits to without a producer, by number.
    static ENDS: RefCell<Vec<(u64, End)>> = const { RefCell::new(Vec::new()) };
}

impl Shared {
    /// Does something with this thread's end, which is made the first time. It stays until the thread ends, or makes an end of
    /// another pipeline when this one is closed; it keeps nothing of the pipeline alive but its queues.
    pub(super) fn with_end<R>(&self, mut act: impl FnMut(&mut End) -> R) -> R {
        // All of shuttle's threads are one, which outlives each run.
        if cfg!(shuttle) {
            return act(&mut End::new(self));
        }
        let done = ENDS.try_with(|ends| {
            let mut ends = ends.try_borrow_mut().ok()?;
            Some(act(self.end(&mut ends)))
        });
        // A thread that is ending has no such place any more.
        done.ok().flatten().unwrap_or_else(|| act(&mut End::new(self)))
    }

    fn end<'e>(&self, ends: &'e mut Vec<(u64, End)>) -> &'e mut End {
        let index = ends.iter().position(|(number, _)| *number == self.number).unwrap_or_else(|| {
            ends.retain(|(_, end)| !end.is_closed());
            ends.push((self.number, End::new(self)));
            ends.len() - 1
        });
        &mut ends[index].1
    }
}

impl fmt::Debug for Producer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Producer").field("workers", &self.end.feeders.len()).finish_non_exhaustive()
    }
}
