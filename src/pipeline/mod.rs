//! [`Pipeline`]: events from many threads, each first-seen one delivered, and word when it is settled.
//!
//! ```text
//! producers ─▶ intake (lock-free, one for each worker) ─▶ worker: reserve ─▶ sinks ─▶ commit ─▶ settled
//! ```
//!
//! An event's worker is chosen by the hash ring, so all copies of one ID meet one worker, in order. The worker reserves the IDs
//! of a batch, has the first-seen events delivered, and commits: an ID counts as seen only when every sink has its event. What
//! becomes of everything else is in `desk`: failed events are tried again under the same reservation, repeats of a
//! pending ID are attached to it and share its fate.
//!
//! A single sink for a single worker (or one sink for each worker, see [`Builder::sink_with`](PipelineBuilder::sink_with)) is
//! called by the worker itself. Other sinks have lanes: a thread each, behind a bounded queue, so that a slow one does not hold
//! back the others.
//!
//! Deliberately absent: order between different IDs beyond what one producer and one worker give, and a way to take an
//! event back.

mod batch;
mod books;
mod builder;
mod bundle;
mod channel;
mod commit;
mod commit_queue;
mod conflict;
mod delivery;
mod desk;
mod error;
mod failing;
mod flight;
mod held;
mod ids;
mod judge;
mod lane;
mod producer;
mod ready;
mod repeats;
mod salvage;
mod settle;
mod sorted;
mod sources;
mod stage;
mod worker;

#[cfg(all(test, shuttle))]
mod models;

use std::fmt;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use self::books::Latencies;
use self::bundle::Bundle;
use self::channel::SegQueue;
use self::desk::Desk;
use self::lane::Landing;
use self::sources::Sources;
use crate::dedup::{Deduplicator, Error, OnConflict};
use crate::event::{Event, Fingerprint, OwnedEvent, Source};
use crate::queue::Intake;
use crate::sync::whole::{AtomicBool, Condvar, JoinHandle, Mutex, MutexGuard, Ordering, is_finished, thread};

pub use books::{Latency, PipelineStats};
pub use builder::PipelineBuilder;
pub use commit_queue::{CommitAt, CommitStep, Flush};
pub use delivery::Delivery;
pub use error::{BatchRefused, DrainError, Refused, StartError, SubmitError};
pub use ids::Ids;
pub use producer::Producer;
pub use ready::Ready;
pub use settle::Settled;
pub use stage::{Host, Repeats, Stage, Unrecorded};

/// Carries events to sinks, each ID once within the window.
///
/// Used from any number of threads; [`Pipeline::producer`] is the fast way in. Ended by [`Pipeline::drain`] or
/// [`Pipeline::shutdown`]; dropping it stops after the deliveries under way, and what is not settled then is not marked.
///
/// # Example
/// ```
/// use dedupd::{Deduplicator, Event, Pipeline, sink::{Sink, SinkError}};
///
/// struct Count(u64);
/// impl Sink for Count {
///     fn deliver(&mut self, batch: &[Event<'_>]) -> Result<(), SinkError> {
///         self.0 += batch.len() as u64;
///         Ok(())
///     }
/// }
///
/// let dedup = Deduplicator::builder().build()?;
/// let pipeline = Pipeline::builder(dedup).sink(Count(0)).start()?;
/// for position in 0..10 {
///     let id = format!("evt_{}", position / 2);
///     pipeline.submit(Event::new(&id, "{}").with_position("orders", position))?;
/// }
/// let stats = pipeline.drain()?;
/// assert_eq!((stats.delivered, stats.duplicate), (5, 5));
/// assert_eq!(pipeline.settled("orders"), Some(9));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Pipeline {
    shared: Arc<Shared>,
    desks: Vec<Arc<Mutex<Desk>>>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    /// How many of the threads are workers: the first ones.
    workers: usize,
}

impl Pipeline {
    /// Starts to configure one. `dedup` is a handle on the set that it asks; others may use the set, too.
    pub fn builder(dedup: Deduplicator) -> PipelineBuilder {
        PipelineBuilder::new(dedup)
    }

    /// Submits an event. Waits while the pipeline is full.
    ///
    /// # Errors
    /// [`SubmitError`]; the event was not taken.
    ///
    /// # Cost
    /// As of a [`Producer`], and a look at what belongs to this thread: each one that submits has an end of its own, so
    /// the order in which one thread submits is kept.
    pub fn submit(&self, event: Event<'_>) -> Result<(), SubmitError> {
        self.shared.with_end(|end| end.feed(&self.shared, &event, &mut None, true))
    }

    /// Submits an event unless the pipeline is full.
    ///
    /// # Errors
    /// [`Refused`] has the event; it was not taken.
    #[expect(clippy::result_large_err, reason = "the event is handed back")]
    pub fn try_submit<'a>(&self, event: Event<'a>) -> Result<(), Refused<'a>> {
        let fed = self.shared.with_end(|end| end.feed(&self.shared, &event, &mut None, false));
        fed.map_err(|reason| Refused { event, reason })
    }

    /// Submits an event, and has `on_settled` called by a worker once it is settled. Waits while the pipeline is full.
    ///
    /// The callback should be short, and must not wait for this pipeline: its worker waits for the callback. It is dropped
    /// uncalled when the event is not taken, or not finished.
    ///
    /// # Errors
    /// As [`Pipeline::submit`].
    pub fn submit_with(
        &self,
        event: Event<'_>,
        on_settled: impl FnOnce(Settled) + Send + 'static,
    ) -> Result<(), SubmitError> {
        let mut on_settled: Option<settle::OnSettled> = Some(Box::new(on_settled));
        self.shared.with_end(|end| end.feed(&self.shared, &event, &mut on_settled, true))
    }

    /// Submits events in order. Waits while the pipeline is full.
    ///
    /// # Errors
    /// [`BatchRefused`] names those that were not taken.
    pub fn submit_batch(&self, events: &[Event<'_>]) -> Result<(), BatchRefused> {
        self.shared.with_end(|end| end.feed_batch(&self.shared, events))
    }

    /// Another thread's end, which submits without a lock.
    #[must_use]
    pub fn producer(&self) -> Producer {
        Producer::new(&self.shared)
    }

    /// A future that is ready when there is room for an event, whichever its worker, or when there never will be any. Then
    /// [`Pipeline::try_submit`] takes one, unless others were faster. After a large event was refused for its
    /// [bytes](PipelineBuilder::queue_bytes) there is room when it would fit. Needs no runtime of any kind.
    pub fn ready(&self) -> Ready<'_> {
        Ready::new(&self.shared.intakes)
    }

    /// The highest position so that it and all below it that were submitted are settled: up to here the source may be
    /// acknowledged. After a restart with a state, what was recorded last. `None` when nothing is.
    #[must_use]
    pub fn settled<'s>(&self, source: impl Into<Source<'s>>) -> Option<u64> {
        self.shared.sources.find(source.into())?.settled()
    }

    /// The delivery mode in force: the strongest that source, state and sink allow.
    #[must_use]
    pub fn delivery(&self) -> Delivery {
        self.shared.delivery
    }

    /// What happened so far. Each worker's part is as of its last batch, and balances.
    #[must_use]
    pub fn stats(&self) -> PipelineStats {
        let mut stats = PipelineStats::default();
        let mut latencies = Latencies::new();
        for (books, latency) in self.shared.books.iter().zip(&self.shared.latencies) {
            stats.add(&lock(books));
            latencies.add(&lock(latency));
        }
        let room_waits = self.shared.room_waits.load(Ordering::Relaxed);
        PipelineStats { latency: latencies.summary(), room_waits, ..stats }
    }

    /// Refuses events from now on, finishes all that were taken, and says what happened. It may take as long as a sink is
    /// failing; [`Pipeline::shutdown`] has a deadline.
    ///
    /// # Errors
    /// [`DrainError`] has what could not be finished: events that no sink will take while there is no dead letter, and
    /// everything that a worker had when its sink panicked or the state failed.
    pub fn drain(&self) -> Result<PipelineStats, DrainError> {
        self.shared.close();
        self.wait_ended(None);
        self.join(None);
        self.result()
    }

    /// Refuses events from now on, and finishes what it can within `deadline`.
    ///
    /// # Errors
    /// [`DrainError`] has what is not finished. Its ids are not marked; what a sink had in hand at the deadline may have been
    /// delivered. A sink that does not return keeps its thread.
    pub fn shutdown(&self, deadline: Duration) -> Result<PipelineStats, DrainError> {
        self.shared.close();
        // One that is too far away to be told is none.
        let end = Instant::now().checked_add(deadline);
        if !self.wait_ended(end) {
            self.abort();
        }
        self.join(end);
        self.result()
    }

    /// Has all threads end without finishing, and takes over what those have that are stuck in a sink.
    fn abort(&self) {
        self.shared.is_aborted.store(true, Ordering::Release);
        for intake in &self.shared.intakes {
            intake.wake_consumer();
        }
        if self.wait_ended(Some(Instant::now() + ABORT_GRACE)) {
            return;
        }
        for (worker, desk) in self.desks.iter().enumerate() {
            if self.shared.has_ended(worker) {
                continue;
            }
            // Its worker may hold it for the length of a commit.
            let (mut unfinished, is_whole) = match try_lock_until(desk, Instant::now() + ABORT_GRACE) {
                Some(mut desk) => (desk.salvage().0, true),
                None => (Vec::new(), false),
            };
            let ledgers = self.shared.sources.all();
            for bundle in self.shared.intakes[worker].take_down() {
                unfinished.extend(bundle.item.all(&ledgers).map(OwnedEvent::from));
            }
            let what = if is_whole { "a sink" } else { "a commit: what it has in hand cannot be handed back" };
            self.shared.report(format!("worker {worker} is stuck in {what}"));
            self.shared.add_unfinished(unfinished);
        }
    }

    /// Waits until all workers have ended; false at the end of the time.
    fn wait_ended(&self, until: Option<Instant>) -> bool {
        let mut ending = lock(&self.shared.ending);
        while ending.workers < self.workers {
            ending = match until.map(|until| until.saturating_duration_since(Instant::now())) {
                Some(Duration::ZERO) => return false,
                Some(left) => self.shared.ended.wait_timeout(ending, left).unwrap_or_else(PoisonError::into_inner).0,
                None => self.shared.ended.wait(ending).unwrap_or_else(PoisonError::into_inner),
            };
        }
        true
    }

    /// Joins the threads; those that are stuck in a sink at the end of the time are left to themselves.
    fn join(&self, until: Option<Instant>) {
        let grace = Instant::now() + ABORT_GRACE;
        let is_aborted = self.shared.is_aborted.load(Ordering::Acquire);
        let until = until.map(|until| until.max(grace)).or(is_aborted.then_some(grace));
        let threads = std::mem::take(&mut *lock(&self.threads));
        for joined in threads {
            while until.is_some_and(|until| Instant::now() < until) && !is_finished(&joined) {
                thread::sleep(Duration::from_millis(1));
            }
            if until.is_none() || is_finished(&joined) {
                // Its panics are caught in it.
                let _ = joined.join();
            } else if !is_aborted {
                let name = joined.thread().name().unwrap_or("a thread").to_owned();
                self.shared.report(format!("{name} is stuck in a sink"));
            }
        }
    }

    fn result(&self) -> Result<PipelineStats, DrainError> {
        let mut ending = lock(&self.shared.ending);
        let unfinished = std::mem::take(&mut ending.unfinished);
        let mut failures = std::mem::take(&mut ending.failures);
        let log = ending.log.take();
        let is_new = !unfinished.is_empty() || !failures.is_empty() || log.is_some();
        let has_failed = ending.has_failed;
        ending.has_failed |= is_new;
        drop(ending);
        match (has_failed, is_new) {
            (false, false) => return Ok(self.stats()),
            (true, false) => failures.push("it has failed, and what is unfinished was handed back before".to_owned()),
            (_, true) => {}
        }
        Err(DrainError { unfinished, failures, log })
    }
}

impl Drop for Pipeline {
    fn drop(&mut self) {
        if !lock(&self.threads).is_empty() {
            self.shared.close();
            self.abort();
            self.join(None);
        }
    }
}

impl fmt::Debug for Pipeline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pipeline")
            .field("workers", &self.workers)
            .field("delivery", &self.shared.delivery)
            .finish_non_exhaustive()
    }
}

/// What producers, workers and lanes share.
struct Shared {
    /// Of all pipelines of the process.
    number: u64,
    dedup: Deduplicator,
    /// The worker of each slot of the hash ring.
    table: Vec<u16>,
    intakes: Vec<Arc<Intake<Bundle>>>,
    sources: Sources,
    delivery: Delivery,
    limits: Limits,
    /// What became of jobs, by worker.
    landings: Vec<SegQueue<Landing>>,
    /// As of each worker's last batch.
    books: Vec<Mutex<PipelineStats>>,
    latencies: Vec<Mutex<Latencies>>,
    /// Whatever is not finished stays so. Written by who shuts down (release), read by all threads (acquire).
    is_aborted: AtomicBool,
    /// Relaxed: it orders nothing.
    room_waits: std::sync::atomic::AtomicU64,
    ending: Mutex<Ending>,
    ended: Condvar,
}

struct Limits {
    /// Events held and attached in one worker.
    held_events: usize,
    held_bytes: usize,
    /// Bundles of one worker's pool, and events in each, at most.
    bundles: usize,
    bundle_events: usize,
}

/// What those that have ended leave.
#[derive(Default)]
struct Ending {
    workers: usize,
    has_ended: Vec<bool>,
    unfinished: Vec<OwnedEvent>,
    failures: Vec<String>,
    log: Option<Error>,
    /// Something was handed back.
    has_failed: bool,
}

impl Shared {
    fn worker_of(&self, fingerprint: Fingerprint) -> usize {
        usize::from(self.table[fingerprint.slot()])
    }

    fn close(&self) {
        for intake in &self.intakes {
            intake.close();
        }
    }

    fn report(&self, failure: String) {
        lock(&self.ending).failures.push(failure);
    }

    fn add_unfinished(&self, unfinished: Vec<OwnedEvent>) {
        lock(&self.ending).unfinished.extend(unfinished);
    }

    fn has_ended(&self, worker: usize) -> bool {
        lock(&self.ending).has_ended.get(worker).copied().unwrap_or(false)
    }

    fn worker_ended(&self, worker: usize, unfinished: Vec<OwnedEvent>, log: Option<Error>) {
        let mut ending = lock(&self.ending);
        ending.workers += 1;
        if ending.has_ended.len() <= worker {
            ending.has_ended.resize(worker + 1, false);
        }
        ending.has_ended[worker] = true;
        ending.unfinished.extend(unfinished);
        ending.log = ending.log.take().or(log);
        drop(ending);
        self.ended.notify_all();
    }

    /// Whether an event with a known ID and another payload is told from a repeat.
    fn compares_payloads(&self) -> bool {
        self.dedup.on_conflict() != OnConflict::Ignore
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn try_lock_until<T>(mutex: &Mutex<T>, end: Instant) -> Option<MutexGuard<'_, T>> {
    loop {
        match mutex.try_lock() {
            Ok(guard) => return Some(guard),
            Err(std::sync::TryLockError::Poisoned(guard)) => return Some(guard.into_inner()),
            Err(std::sync::TryLockError::WouldBlock) if Instant::now() >= end => return None,
            Err(std::sync::TryLockError::WouldBlock) => thread::sleep(Duration::from_millis(1)),
        }
    }
}

/// How long threads have to notice that they are to end.
const ABORT_GRACE: Duration = Duration::from_millis(200);
