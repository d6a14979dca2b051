//! A worker: takes what its intake brings, and sees it through.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::batch::{Batch, Deliverer, Outcome, Single, message};
use super::books::Latencies;
use super::bundle::Bundle;
use super::commit_queue::Flush;
use super::desk::{Desk, Stop};
use super::lane::flush;
use super::settle::Tellings;
use super::{Shared, lock};
use crate::dedup::Error;
use crate::event::OwnedEvent;
use crate::queue::Outlet;
use crate::sink::Sink;
use crate::sync::whole::{Mutex, Ordering};

pub(super) struct Worker {
    pub(super) shared: Arc<Shared>,
    pub(super) index: usize,
    pub(super) outlet: Outlet<Bundle>,
    pub(super) desk: Arc<Mutex<Desk>>,
    /// Its own, unless it has lanes.
    pub(super) sink: Option<Box<dyn Sink>>,
    /// The sink's positions are committed.
    pub(super) is_exact: bool,
}

impl Worker {
    /// A worker's life.
    pub(super) fn run(mut self) {
        let (shared, index) = (Arc::clone(&self.shared), self.index);
        // Whatever happens, the pipeline learns that it has ended.
        let ended = catch_unwind(AssertUnwindSafe(move || {
            let stop = match catch_unwind(AssertUnwindSafe(|| self.work())) {
                Ok(Ok(())) => None,
                Ok(Err(stop)) => Some(stop),
                Err(panic) => Some(Stop::Broken(format!("worker {index} panicked: {}", message(&*panic)))),
            };
            let (mut unfinished, mut log) = (Vec::new(), None);
            match stop {
                None => unfinished = lock(&self.desk).salvage().0,
                Some(stop) => log = self.end_early(stop, &mut unfinished),
            }
            self.publish();
            (unfinished, log)
        }));
        let (unfinished, log) = ended.unwrap_or_else(|panic| {
            shared.intakes[index].break_off();
            shared.report(format!("worker {index} panicked while it ended: {}", message(&*panic)));
            (Vec::new(), None)
        });
        shared.worker_ended(index, unfinished, log);
    }

    fn work(&mut self) -> Result<(), Stop> {
        let (mut deliverer, mut bundles) = (Deliverer::new(), Vec::new());
        let mut is_waiting = false;
        loop {
            if self.shared.is_aborted.load(Ordering::Acquire) {
                return Err(Stop::Aborted);
            }
            let now = Instant::now();
            let mut desk = lock(&self.desk);
            desk.is_closing = self.outlet.is_closed();
            let advanced = desk.advance(now);
            let own_flush = desk.own_flush.take();
            let tellings = std::mem::take(&mut desk.tellings);
            let free = std::mem::take(&mut desk.free);
            // What is taken out here is delivered in this round.
            let ready = if advanced.is_ok() && own_flush.is_none() { desk.next_ready() } else { None };
            let has_room = desk.has_room();
            let has_backlog = !desk.backlog.is_empty();
            drop(desk);
            self.publish();
            for bundle in free {
                self.outlet.give_back(bundle);
            }
            self.tell(tellings)?;
            advanced?;
            if let Some(flush) = own_flush {
                self.flush_own(flush)?;
                continue;
            }
            if let Some((number, batch)) = ready {
                self.deliver(&mut deliverer, number, batch)?;
                continue;
            }
            if has_room {
                is_waiting = false;
                if !has_backlog {
                    self.outlet.gather(&mut bundles);
                }
            } else if !std::mem::replace(&mut is_waiting, true) {
                lock(&self.desk).books.intake_waits += 1;
            }
            if has_room && (has_backlog || !bundles.is_empty()) {
                let mut desk = lock(&self.desk);
                desk.backlog.extend(bundles.drain(..));
                desk.judge()?;
                continue;
            }
            if self.outlet.is_closed() {
                lock(&self.desk).stage.hurry(now);
            }
            if self.outlet.collect() && self.end()? {
                return Ok(());
            }
            self.wait(has_room);
        }
    }

    /// Has the sink at hand put on disk what it holds.
    fn flush_own(&mut self, own: Flush) -> Result<(), Stop> {
        if let Some(sink) = sink_of(&mut self.sink) {
            flush(sink).map_err(|error| Stop::Broken(format!("the sink cannot flush: {error}")))?;
        }
        lock(&self.desk).stage.flushed(own, Instant::now());
        Ok(())
    }

    /// Delivers a batch with the sink at hand.
    fn deliver(&mut self, deliverer: &mut Deliverer, number: u64, batch: Arc<Batch>) -> Result<(), Stop> {
        let Some(sink) = sink_of(&mut self.sink) else { return Ok(()) };
        let failures = match deliverer.deliver(sink, &batch, None, &self.shared.sources) {
            Outcome::Done(failures) => failures,
            Outcome::Panicked(panic) => return Err(Stop::Broken(format!("the sink panicked: {panic}"))),
        };
        let position = if self.is_exact {
            let position = sink.position();
            position.map_err(|error| Stop::Broken(format!("the sink does not know where it is: {error}")))?
        } else {
            None
        };
        self.record_latency(&batch);
        drop(batch);
        lock(&self.desk).delivered(number, failures, position);
        Ok(())
    }

    /// One clock read for the batch: each bundle has read it once, when it was opened.
    fn record_latency(&self, batch: &Batch) {
        let now = Instant::now();
        let mut latencies = lock(&self.shared.latencies[self.index]);
        record_latency(batch, now, &mut latencies);
    }

    /// Calls whoever wants to know. A panic there must not go unnoticed, and must not lose the others.
    fn tell(&self, tellings: Tellings) -> Result<(), Stop> {
        if tellings.is_empty() {
            return Ok(());
        }
        let ledgers = self.shared.sources.all();
        let panics = tellings.tell(&ledgers);
        match panics.into_iter().next() {
            Some(panic) => Err(Stop::Broken(format!("a callback panicked: {panic}"))),
            None => Ok(()),
        }
    }

    /// Everything has come. True when everything is finished, too.
    fn end(&mut self) -> Result<bool, Stop> {
        let mut desk = lock(&self.desk);
        desk.stage.hurry(Instant::now());
        if desk.waits_for_disk() {
            self.shared.dedup.sync().map_err(Stop::Log)?;
            desk.tell_durable();
        }
        if !desk.is_done() {
            return Ok(false);
        }
        drop(desk);
        let mut position = None;
        if let Some(sink) = sink_of(&mut self.sink) {
            flush(sink).map_err(|error| Stop::Broken(format!("the sink cannot flush: {error}")))?;
            if self.is_exact {
                position = sink.position().ok().flatten();
            }
        }
        lock(&self.desk).record_positions(position.as_deref())?;
        Ok(true)
    }

    fn wait(&mut self, has_room: bool) {
        let desk = lock(&self.desk);
        if !desk.tellings.is_empty() || desk.stage.is_ready() {
            // Something was put out or synced just now: that is committed, and told, first.
            return;
        }
        let (due, full_lane, keeps_bytes) = (desk.next_due(), desk.full_lane(), desk.outs_keep_bytes());
        drop(desk);
        let limit = due.map(|due| due.saturating_duration_since(Instant::now()).max(WAIT_MIN));
        let (shared, index) = (&self.shared, self.index);
        let has_work = || {
            !shared.landings[index].is_empty()
                || full_lane.as_ref().is_some_and(|lane| !lane.is_full())
                || keeps_bytes && shared.intakes[index].wants_bytes()
                || shared.is_aborted.load(Ordering::Acquire)
        };
        self.outlet.wait(limit, has_room, has_work);
    }

    /// Everything that is accepted and not finished is taken down, until no producer can put in more.
    fn end_early(&mut self, stop: Stop, unfinished: &mut Vec<OwnedEvent>) -> Option<Error> {
        if !matches!(stop, Stop::Aborted) {
            self.shared.intakes[self.index].break_off();
        }
        let log = match stop {
            Stop::Aborted => None,
            Stop::Broken(what) => {
                self.shared.report(what);
                None
            }
            Stop::Log(error) => {
                self.shared.report(format!("the state cannot be kept: {error}"));
                Some(error)
            }
        };
        let (left, gone) = lock(&self.desk).salvage();
        self.shared.add_unfinished(left);
        self.publish();
        self.outlet.write_off(gone);
        let end = Instant::now() + COLLECT_MAX;
        let mut bundles: Vec<Single> = Vec::new();
        while !self.outlet.collect() && Instant::now() < end {
            self.outlet.gather(&mut bundles);
            if bundles.is_empty() {
                self.outlet.wait(Some(WAIT_MIN), true, || false);
            }
            let ledgers = self.shared.sources.all();
            for mut bundle in bundles.drain(..) {
                unfinished.extend(bundle.item.all(&ledgers).map(OwnedEvent::from));
                bundle.item.reset();
                self.outlet.give_back(bundle);
            }
        }
        log
    }

    fn publish(&self) {
        let books = lock(&self.desk).books;
        *lock(&self.shared.books[self.index]) = books;
    }
}

fn sink_of(sink: &mut Option<Box<dyn Sink>>) -> Option<&mut dyn Sink> {
    match sink {
        Some(sink) => Some(&mut **sink),
        None => None,
    }
}

/// Records how long the events of a batch were under way.
pub(super) fn record_latency(batch: &Batch, now: Instant, latencies: &mut Latencies) {
    for same in batch.picks.chunk_by(|a, b| a.bundle == b.bundle) {
        if let Some(opened) = batch.bundles[same[0].bundle as usize].item.opened() {
            latencies.record(now.saturating_duration_since(opened), same.len() as u64);
        }
    }
}

const WAIT_MIN: Duration = Duration::from_millis(1);
/// Producers that are in the middle of something need microseconds.
const COLLECT_MAX: Duration = Duration::from_secs(1);
