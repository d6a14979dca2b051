//! A lane: a sink on a thread of its own.
//!
//! A sink that is not its worker's own gets its batches through a bounded channel, so one that is slow holds back the
//! others only once its buffer is full. It answers each job with a [`Landing`], which wakes the worker.

use std::sync::Arc;

use super::Shared;
use super::batch::{Batch, Deliverer, Failures, Outcome, message};
use super::channel::{Receiver, Sender, bounded};
use crate::sink::Sink;
use crate::sync::whole::Ordering;

/// The sending ends of one sink's lanes; an event's lane is chosen by its fingerprint.
pub(super) type Lanes = Vec<Sender<Job>>;

/// What a lane is to do.
pub(super) struct Job {
    pub(super) worker: usize,
    pub(super) flight: u64,
    /// Deliver of these those chosen; `None`: nothing.
    pub(super) batch: Option<(Arc<Batch>, Option<Vec<u32>>)>,
    /// And then flush.
    pub(super) flush: bool,
}

/// What became of a job.
pub(super) struct Landing {
    pub(super) flight: u64,
    pub(super) sink: usize,
    pub(super) failures: Failures,
    /// The sink panicked, or could not flush: nothing of it may be counted on.
    pub(super) broken: Option<String>,
}

pub(super) fn channel() -> (Sender<Job>, Receiver<Job>) {
    bounded(JOBS_MAX)
}

/// A lane's life: until all workers have ended.
pub(super) fn run(shared: &Shared, sink_number: usize, mut sink: Box<dyn Sink>, jobs: &Receiver<Job>) {
    let mut deliverer = Deliverer::new();
    let mut broken: Option<String> = None;
    for job in jobs {
        // There is room again, which any of them may wait for.
        shared.intakes.iter().for_each(|intake| intake.wake_consumer());
        let mut landing = Landing { flight: job.flight, sink: sink_number, failures: Vec::new(), broken: None };
        if broken.is_none() && !shared.is_aborted.load(Ordering::Acquire) {
            if let Some((batch, picks)) = &job.batch {
                match deliverer.deliver(&mut *sink, batch, picks.as_deref(), &shared.sources) {
                    Outcome::Done(failures) => landing.failures = failures,
                    Outcome::Panicked(panic) => broken = Some(format!("sink {sink_number} panicked: {panic}")),
                }
            }
            if job.flush && broken.is_none() {
                broken = flush(&mut *sink).err().map(|error| format!("sink {sink_number} cannot flush: {error}"));
            }
        } else if broken.is_none() {
            broken = Some("the pipeline was shut down".to_owned());
        }
        landing.broken.clone_from(&broken);
        // Before it lands: the worker takes the batch apart then.
        drop(job.batch);
        shared.landings[job.worker].push(landing);
        shared.intakes[job.worker].wake_consumer();
    }
    if broken.is_none()
        && let Err(error) = flush(&mut *sink)
    {
        shared.report(format!("sink {sink_number} cannot flush: {error}"));
    }
}

/// Flushes; a panic is an error.
pub(super) fn flush(sink: &mut dyn Sink) -> Result<(), String> {
    match std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| sink.flush())) {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(std::error::Error::source(&error).map_or(error.to_string(), ToString::to_string)),
        Err(panic) => Err(format!("it panicked: {}", message(&*panic))),
    }
}

/// Batches that wait for a lane, at most; each is about a thousand events.
const JOBS_MAX: usize = if cfg!(shuttle) { 1 } else { 8 };
