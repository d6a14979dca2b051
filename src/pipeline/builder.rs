//! [`PipelineBuilder`]: how a pipeline is put together.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use super::books::{Latencies, PipelineStats};
use super::bundle::{Bundle, EVENTS_MAX};
use super::channel::SegQueue;
use super::commit::Recorder;
use super::commit_queue::CommitAt;
use super::desk::{DEAD_LETTER, Desk, SINKS_MAX};
use super::lane::{self, Lanes};
use super::sources::Sources;
use super::worker::Worker;
use super::{Delivery, Ending, Limits, Pipeline, Shared, StartError};
use crate::dedup::{Deduplicator, Durability, OnConflict, Progress};
use crate::queue::{Intake, WaitStrategy};
use crate::sink::{Durable, Idempotency, Sink, SinkError};
use crate::sync::whole::{AtomicBool, Condvar, JoinHandle, Mutex, Ordering, thread};
use crate::window::HashRing;

/// How a pipeline is put together. Everything but the sink has a default.
#[must_use = "nothing runs until it is started"]
pub struct PipelineBuilder {
    dedup: Deduplicator,
    /// Each with one or more instances.
    sinks: Vec<Vec<Box<dyn Sink>>>,
    dead_letter: Option<Box<dyn Sink>>,
    workers: usize,
    queue_events: Option<usize>,
    queue_bytes: usize,
    wait: WaitStrategy,
    delivery: Option<Delivery>,
    held_events: usize,
    held_bytes: usize,
}

impl PipelineBuilder {
    pub(super) fn new(dedup: Deduplicator) -> Self {
        Self {
            dedup,
            sinks: Vec::new(),
            dead_letter: None,
            workers: 1,
            queue_events: None,
            queue_bytes: QUEUE_BYTES,
            wait: WaitStrategy::default(),
            delivery: None,
            held_events: HELD_EVENTS,
            held_bytes: HELD_BYTES,
        }
    }

    /// Adds a sink, or the branches of a [`Tee`](crate::sink::Tee). Each one gets every first-seen event at its own pace, and an
    /// ID is committed when all of them have it.
    pub fn sink(mut self, sink: impl Sink + 'static) -> Self {
        self.sinks.extend(Box::new(sink).into_branches().into_iter().map(|branch| vec![branch]));
        self
    }

    /// Adds a sink of `concurrency` instances, at least one, made by `factory`: each gets a share of the events, all those with
    /// one ID the same one. With as many instances as workers, and no other sink, each worker calls its own.
    pub fn sink_with<S: Sink + 'static>(mut self, mut factory: impl FnMut() -> S, concurrency: usize) -> Self {
        let instances = (0..concurrency.max(1)).map(|_| Box::new(factory()) as Box<dyn Sink>);
        self.sinks.push(instances.collect());
        self
    }

    /// Where events go that a sink will never take. Without one they are handed back by the drain.
    pub fn dead_letter(mut self, sink: impl Sink + 'static) -> Self {
        self.dead_letter = Some(Box::new(sink));
        self
    }

    /// How many workers there are; 1 by default, at least 1, at most 1,024.
    pub fn workers(mut self, workers: usize) -> Self {
        self.workers = workers.clamp(1, WORKERS_MAX);
        self
    }

    /// About how many events wait for each worker at most, those included that are delivered and not committed: 65,536 at most.
    /// By default 16,384, which stay in a processor's cache on their way to the sink; 65,536 where what is delivered waits for a
    /// flush, with [`Durability::Interval`] and a sink that needs one, so that a flush is for many. They wait in 256
    /// bundles at most, 128 by default, each of which is full with 64 KiB, too: 8 or 16 MiB for each worker. Where the set has
    /// limits, one also is with a quarter of the worker's share of the ids that may be [reserved](Deduplicator::reserve_max). What is larger than a bundle is bounded by
    /// [`PipelineBuilder::queue_bytes`].
    pub fn queue_events(mut self, events: usize) -> Self {
        self.queue_events = Some(events.max(1));
        self
    }

    /// How many bytes each worker has of events larger than 64 KiB, until they are committed, or [held](PipelineBuilder::held);
    /// 64 MiB by default. One that is larger than all of that is taken alone.
    pub fn queue_bytes(mut self, bytes: usize) -> Self {
        self.queue_bytes = bytes;
        self
    }

    /// What threads do that have to wait; [`WaitStrategy::Park`] by default.
    pub fn wait_strategy(mut self, wait: WaitStrategy) -> Self {
        self.wait = wait;
        self
    }

    /// The weakest delivery mode that will do; the strongest that can be had is used. [`Delivery::AtMostOnce`] is used only
    /// when it is asked for.
    pub fn delivery(mut self, delivery: Delivery) -> Self {
        self.delivery = Some(delivery);
        self
    }

    /// How much each worker holds of events that failed and of repeats that wait for them: 65,536 events and 64 MiB by
    /// default. At the bound its intake waits. Where the set has limits, it waits as soon as what is pending has taken the worker's
    /// share of them: see [`Deduplicator::reserve_max`].
    pub fn held(mut self, events: usize, bytes: usize) -> Self {
        (self.held_events, self.held_bytes) = (events.max(1), bytes.max(1));
        self
    }

    /// Starts the threads.
    ///
    /// # Errors
    /// [`StartError`]; no thread is left.
    pub fn start(mut self) -> Result<Pipeline, StartError> {
        if self.sinks.is_empty() {
            return Err(StartError::NoSink);
        }
        if self.sinks.len() > SINKS_MAX {
            return Err(StartError::TooManySinks { sinks: self.sinks.len(), sinks_max: SINKS_MAX });
        }
        if self.dead_letter.is_none() && self.dedup.on_conflict() == OnConflict::Divert {
            return Err(StartError::NoDeadLetter);
        }
        let delivery = self.mode()?;
        let is_exact = delivery == Delivery::ExactlyOnce;
        let progress = self.dedup.progress();
        let sink_name = is_exact.then(|| self.sinks[0][0].name().into_owned());
        match &sink_name {
            Some(name) => {
                let position = progress.sink(name).filter(|position| !position.is_empty());
                resume(&self.dedup, &mut *self.sinks[0][0], position).map_err(StartError::Resume)?;
            }
            None => self.forget_positions(&progress).map_err(StartError::Resume)?,
        }
        let settled = progress
            .sources()
            .filter_map(|(name, position)| Some((name, u64::from_be_bytes(position.try_into().ok()?))));
        let sources = Sources::new(&settled.collect::<Vec<_>>());
        let at = self.commit_at();
        let queue_events = self.queue_events.unwrap_or(match at {
            CommitAt::Within(_) => QUEUE_EVENTS_WITHIN,
            CommitAt::Once | CommitAt::Synced => QUEUE_EVENTS,
        });
        let share = self.dedup.reserve_max().map(|ids| ids / self.workers);
        let (bundles, bundle_events) = pool(queue_events, share);
        let pools = (0..self.workers)
            .map(|_| Intake::new((0..bundles).map(|_| Bundle::new(bundle_events)), self.queue_bytes, self.wait))
            .collect::<Vec<_>>();
        let (intakes, outlets): (Vec<_>, Vec<_>) = pools.into_iter().unzip();
        let table = HashRing::new(0..self.workers as u64);
        let table = table.map_or_else(Vec::new, |ring| ring.owners().iter().map(|owner| *owner as u16).collect());
        let keeps_positions = self.dedup.durability().is_some_and(|durability| durability != Durability::None);
        let shared = Arc::new(Shared {
            number: NEXT_NUMBER.fetch_add(1, Ordering::Relaxed),
            dedup: self.dedup,
            table,
            intakes,
            sources,
            delivery,
            limits: Limits { held_events: self.held_events, held_bytes: self.held_bytes, bundles, bundle_events },
            landings: (0..self.workers).map(|_| SegQueue::new()).collect(),
            books: (0..self.workers).map(|_| Mutex::new(PipelineStats::default())).collect(),
            latencies: (0..self.workers).map(|_| Mutex::new(Latencies::new())).collect(),
            is_aborted: AtomicBool::new(false),
            room_waits: AtomicU64::new(0),
            ending: Mutex::new(Ending::default()),
            ended: Condvar::new(),
        });
        let is_own = self.sinks.len() == 1 && self.sinks[0].len() == self.workers;
        let mut own: Vec<Option<Box<dyn Sink>>> = (0..self.workers).map(|_| None).collect();
        let mut lanes_of_sinks: Vec<Lanes> = Vec::new();
        let mut lives: Vec<Life> = Vec::new();
        if is_own {
            own = self.sinks.remove(0).into_iter().map(Some).collect();
        }
        for (number, instances) in self.sinks.into_iter().enumerate() {
            lanes_of_sinks.push(lanes(&shared, number, instances, &mut lives));
        }
        let dead_letter = self.dead_letter.map(|sink| lanes(&shared, DEAD_LETTER, vec![sink], &mut lives));
        let mut desks = Vec::new();
        let mut workers: Vec<Life> = Vec::new();
        for (index, (outlet, sink)) in outlets.into_iter().zip(own).enumerate() {
            let lanes = (!is_own).then(|| lanes_of_sinks.clone());
            let recorder = Recorder::new(sink_name.clone(), keeps_positions);
            let desk = Desk::new(&shared, index, lanes, dead_letter.clone(), at, recorder);
            let desk = Arc::new(Mutex::new(desk));
            desks.push(Arc::clone(&desk));
            let worker = Worker { shared: Arc::clone(&shared), index, outlet, desk, sink, is_exact };
            workers.push((format!("dedupd-worker-{index}"), Box::new(move || worker.run())));
        }
        drop((lanes_of_sinks, dead_letter));
        let count = workers.len();
        workers.append(&mut lives);
        let threads = spawn(&shared, &desks, workers)?;
        Ok(Pipeline { shared, desks, threads: Mutex::new(threads), workers: count })
    }

    /// The mode in force.
    fn mode(&self) -> Result<Delivery, StartError> {
        let state = self.dedup.durability().filter(|durability| *durability != Durability::None);
        let cuts_back = self.sinks.len() == 1
            && self.sinks[0].len() == 1
            && self.sinks[0][0].guarantees().idempotency == Idempotency::CutBack;
        let hindrance = match (state, self.workers) {
            _ if !cuts_back => Some("there must be one sink, and one that can be cut back to a position"),
            (None, _) => Some("there is no state that survives"),
            _ if self.dedup.goes_on_without_log() => Some("the set goes on when its log fails"),
            (Some(_), 1) => None,
            _ => Some("there is more than one worker"),
        };
        let given = if hindrance.is_none() { Delivery::ExactlyOnce } else { Delivery::AtLeastOnce };
        match self.delivery {
            Some(Delivery::AtMostOnce) => Ok(Delivery::AtMostOnce),
            Some(asked) if asked > given => {
                Err(StartError::Delivery { asked, given, why: hindrance.unwrap_or_default() })
            }
            _ => Ok(given),
        }
    }

    /// Positions of sinks that are written without keeping them: at a later start, what is behind would be cut off.
    fn forget_positions(&self, progress: &Progress) -> Result<(), SinkError> {
        let mut forgotten = Progress::new();
        for sink in self.sinks.iter().flatten().chain(&self.dead_letter) {
            if progress.sink(sink.name()).is_some_and(|position| !position.is_empty()) {
                forgotten.set_sink(sink.name(), b"");
            }
        }
        match self.dedup.durability() {
            _ if forgotten.is_empty() => Ok(()),
            Some(Durability::None) => {
                let what = "the state has a position of this sink, and would cut off what is written without keeping it: \
                            choose a durability other than none, or another sink";
                Err(SinkError::other(what))
            }
            _ => self.dedup.record_progress(&forgotten).and_then(|()| self.dedup.sync()).map_err(SinkError::other),
        }
    }

    /// When batches are committed.
    fn commit_at(&self) -> CommitAt {
        // Of several behind one the weakest speaks, so all but the strongest are flushed; where that does nothing it costs nothing.
        let all = self.sinks.iter().flatten().chain(&self.dead_letter);
        let needs_flush = all.map(|sink| sink.guarantees().durable).any(|durable| durable != Durable::OnDelivery);
        CommitAt::new(self.dedup.durability(), needs_flush)
    }
}

/// Cuts the sink back to what was committed. When nothing ever was, where it begins is committed before anything can be behind it:
/// what a process leaves that dies before its first commit could not be told from what was there before.
fn resume(dedup: &Deduplicator, sink: &mut dyn Sink, position: Option<&[u8]>) -> Result<(), SinkError> {
    sink.resume(position)?;
    if position.is_none()
        && let Some(begin) = sink.position()?
    {
        sink.flush()?;
        let mut progress = Progress::new();
        progress.set_sink(sink.name(), begin);
        dedup.record_progress(&progress).and_then(|()| dedup.sync()).map_err(SinkError::other)?;
    }
    Ok(())
}

/// A thread's name and what it does.
type Life = (String, Box<dyn FnOnce() + Send>);

/// The lanes of one sink.
fn lanes(shared: &Arc<Shared>, number: usize, instances: Vec<Box<dyn Sink>>, lives: &mut Vec<Life>) -> Lanes {
    let mut lanes = Lanes::new();
    for (instance, sink) in instances.into_iter().enumerate() {
        let (sender, jobs) = lane::channel();
        lanes.push(sender);
        let shared = Arc::clone(shared);
        let name = format!("dedupd-sink-{number}-{instance}");
        lives.push((name, Box::new(move || lane::run(&shared, number, sink, &jobs))));
    }
    lanes
}

/// Starts all threads, or none.
fn spawn(shared: &Shared, desks: &[Arc<Mutex<Desk>>], lives: Vec<Life>) -> Result<Vec<JoinHandle<()>>, StartError> {
    let mut threads = Vec::new();
    for (name, life) in lives {
        match thread::Builder::new().name(name).spawn(life) {
            Ok(thread) => threads.push(thread),
            Err(error) => {
                shared.close();
                desks.iter().for_each(|desk| super::lock(desk).let_go());
                for thread in threads {
                    // Nothing was accepted, so it ends at once.
                    let _ = thread.join();
                }
                return Err(StartError::Thread(error));
            }
        }
    }
    Ok(threads)
}

impl fmt::Debug for PipelineBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PipelineBuilder")
            .field("sinks", &self.sinks.len())
            .field("workers", &self.workers)
            .field("queue_events", &self.queue_events)
            .field("queue_bytes", &self.queue_bytes)
            .field("wait", &self.wait)
            .field("delivery", &self.delivery)
            .finish_non_exhaustive()
    }
}

/// Only told apart by it: relaxed.
static NEXT_NUMBER: AtomicU64 = AtomicU64::new(0);

/// How many bundles a queue of so many events has, and how many events one of these: a part of a worker's share of the set, if that
/// has limits, as a bundle is judged whole.
fn pool(queue_events: usize, share: Option<usize>) -> (usize, usize) {
    let bundles = (queue_events / BUNDLE_EVENTS).clamp(BUNDLES_ENOUGH, BUNDLES_MAX).min(queue_events).max(BUNDLES_MIN);
    let events_max = share.map_or(EVENTS_MAX, |ids| ids / BUNDLES_RESERVED);
    (bundles, queue_events.div_ceil(bundles).min(events_max).clamp(1, EVENTS_MAX))
}

/// Measured with 200-byte payloads: four times as many, which no cache of a core holds, are a sixth slower.
const QUEUE_EVENTS: usize = 1 << 14;
const QUEUE_EVENTS_WITHIN: usize = 1 << 16;
const BUNDLE_EVENTS: usize = 128;
const BUNDLES_ENOUGH: usize = 128;
/// One is delivered and committed while others are judged.
const BUNDLES_RESERVED: usize = 4;
const QUEUE_BYTES: usize = 64 << 20;
const BUNDLES_MAX: usize = 256;
/// One to fill while another is worked on.
const BUNDLES_MIN: usize = 2;
const HELD_EVENTS: usize = 1 << 16;
const HELD_BYTES: usize = 64 << 20;
const WORKERS_MAX: usize = 1_024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_queue_holds_what_was_asked_for_up_to_its_limit() {
        for (asked, bundles, events) in [
            (1, 2, 1),
            (2, 2, 1),
            (4, 4, 1),
            (512, 128, 4),
            (QUEUE_EVENTS, 128, 128),
            (40_000, 256, 157),
            (QUEUE_EVENTS_WITHIN, 256, 256),
        ] {
            assert_eq!(pool(asked, None), (bundles, events), "{asked}");
        }
        assert_eq!(pool(usize::MAX, None), (256, EVENTS_MAX));
        assert_eq!([0, 7, 40].map(|share| pool(QUEUE_EVENTS, Some(share))), [(128, 1), (128, 1), (128, 10)]);
    }
}
