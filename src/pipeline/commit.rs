//! Committing what is out.
//!
//! A batch's ids are marked once every sink has its events, in the order in which the batches landed, and when the
//! [`CommitQueue`](super::CommitQueue) says so.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use super::Shared;
use super::batch::{Batch, Place};
use super::bundle::BYTES_MAX;
use super::commit_queue::CommitStep;
use super::desk::{Desk, Stop};
use super::repeats::Marked;
use super::settle::{Settled, Tellings};
use super::sources::{Ledger, Origin};
use crate::dedup::{Durability, Error, Progress, Reservation};
use crate::sync::whole::{Ordering, thread};

/// A batch that every sink has, but for what failed.
pub(super) struct Out {
    pub(super) reservation: Option<Reservation>,
    pub(super) batch: Batch,
    /// Picks that are held.
    pub(super) failed: HashSet<u32>,
    pub(super) repeats: Vec<Place>,
    pub(super) tellings: Tellings,
    /// How many first-seen events it holds.
    pub(super) firsts: u64,
    pub(super) settled: Settled,
    /// Where the sink stands behind it.
    pub(super) position: Option<Vec<u8>>,
}

/// Records ids and how far sources and the sink are.
pub(super) struct Recorder {
    /// The name of the sink whose positions are kept.
    sink: Option<Vec<u8>>,
    /// There is a state that keeps positions.
    keeps_positions: bool,
    /// By ledger, as recorded last.
    recorded: Vec<Option<u64>>,
    /// When the positions of sources are looked at again.
    next_look: Option<Instant>,
    /// Somebody was told that something is settled since the last look.
    has_news: bool,
}

impl Recorder {
    pub(super) fn new(sink: Option<Vec<u8>>, keeps_positions: bool) -> Self {
        Self { sink, keeps_positions, recorded: Vec::new(), next_look: None, has_news: false }
    }

    /// Marks `reservation`, with positions. Waits for room in the log. Exactly once, `origins` are where the events come from that
    /// this settles.
    pub(super) fn record(
        &mut self,
        shared: &Shared,
        reservation: &mut Reservation,
        position: Option<&[u8]>,
        origins: &[Origin],
    ) -> Result<(), Stop> {
        // The frame says itself that these positions are settled. Else a process that dies now, and comes back after the window,
        // would be sent again what is in the sink, and not know it.
        let progress = self.progress(shared, position, origins, false);
        until_room(shared, || reservation.try_commit(&progress))?;
        for_each_ledger(shared, origins, |ledger, sequences| ledger.commit(sequences));
        Ok(())
    }

    /// Records positions alone.
    pub(super) fn record_positions(&mut self, shared: &Shared, position: Option<&[u8]>) -> Result<(), Stop> {
        let progress = self.progress(shared, position, &[], true);
        if progress.is_empty() { Ok(()) } else { until_room(shared, || shared.dedup.record_progress(&progress)) }
    }

    /// When positions are to be recorded although nothing is committed: who is idle for longer than the window and dies would
    /// otherwise ask for events again that nobody remembers.
    pub(super) fn look_due(&self) -> Option<Instant> {
        if self.has_news && self.keeps_positions { self.next_look } else { None }
    }

    /// What is new about the positions. Sources are looked at now and then: what is recorded late is only read again, and
    /// found to be known.
    fn progress(&mut self, shared: &Shared, position: Option<&[u8]>, with: &[Origin], is_last: bool) -> Progress {
        let mut progress = Progress::new();
        if !self.keeps_positions {
            return progress;
        }
        if let (Some(name), Some(position)) = (&self.sink, position) {
            progress.set_sink(name, position);
        }
        for_each_ledger(shared, with, |ledger, sequences| {
            self.note(ledger, ledger.settled_with(sequences), &mut progress);
        });
        let now = Instant::now();
        if !is_last && self.next_look.is_some_and(|at| now < at) {
            return progress;
        }
        (self.next_look, self.has_news) = (Some(now + LOOK), false);
        let is_exact = self.sink.is_some();
        for ledger in shared.sources.all() {
            if progress.source(ledger.source().as_bytes()).is_none() {
                let settled = if is_exact { ledger.settled_with(&[]) } else { ledger.settled() };
                self.note(&ledger, settled, &mut progress);
            }
        }
        progress
    }

    /// Has a position recorded that was not recorded last.
    fn note(&mut self, ledger: &Ledger, settled: Option<u64>, progress: &mut Progress) {
        let number = ledger.number();
        if self.recorded.len() <= number {
            self.recorded.resize(number + 1, None);
        }
        if let Some(position) = settled
            && self.recorded[number] != settled
        {
            self.recorded[number] = settled;
            progress.set_source(ledger.source().as_bytes(), position.to_be_bytes());
        }
    }
}

/// Calls `act` with each ledger and the sequences, rising, of those that come from it.
fn for_each_ledger(shared: &Shared, origins: &[Origin], mut act: impl FnMut(&Ledger, &[u64])) {
    if origins.is_empty() {
        return;
    }
    let mut sorted: Vec<_> = origins.iter().map(|origin| (origin.ledger, origin.sequence)).collect();
    sorted.sort_unstable();
    let ledgers = shared.sources.all();
    for same in sorted.chunk_by(|a, b| a.0 == b.0) {
        if let Some(ledger) = ledgers.get(same[0].0 as usize) {
            act(ledger, &same.iter().map(|(_, sequence)| *sequence).collect::<Vec<_>>());
        }
    }
}

/// Tries until the log has room, or the pipeline is shut down.
fn until_room(shared: &Shared, mut record: impl FnMut() -> Result<(), Error>) -> Result<(), Stop> {
    loop {
        match record() {
            Ok(()) => return Ok(()),
            Err(error) if error.is_retryable() => {
                if shared.is_aborted.load(Ordering::Acquire) {
                    return Err(Stop::Log(error));
                }
                shared.room_waits.fetch_add(1, Ordering::Relaxed);
                thread::sleep(ROOM_POLL);
            }
            Err(error) => return Err(Stop::Log(error)),
        }
    }
}

impl Desk {
    /// Commits what is out and has waited long enough.
    pub(super) fn commit_when_due(&mut self, now: Instant) -> Result<(), Stop> {
        self.commit_flushed()?;
        if self.outs_are_many() {
            self.outs.hurry(now);
        }
        match self.outs.step(now) {
            CommitStep::Wait | CommitStep::Commit => {}
            // With no lock held, by the worker.
            CommitStep::Flush(flush) if self.lanes.is_none() => self.own_flush = Some(flush),
            CommitStep::Flush(flush) => self.launch_flush(flush),
        }
        Ok(())
    }

    /// Whether what is out keeps so much of the pool that it cannot wait for others.
    fn outs_are_many(&self) -> bool {
        self.outs.iter().map(|out| out.batch.bundles.len()).sum::<usize>() >= self.shared.limits.bundles / 2
            || self.shared.intakes[self.worker].wants_bytes() && self.outs_keep_bytes()
    }

    /// Whether bytes that a producer may want come back once what is out is committed, which is not under way.
    pub(super) fn outs_keep_bytes(&self) -> bool {
        let mut bundles = self.outs.iter().flat_map(|out| &out.batch.bundles);
        self.outs.due().is_some() && bundles.any(|bundle| bundle.item.bytes() > BYTES_MAX)
    }

    /// Commits what needs no flush any more, each batch as a frame of its own: any number of them may be what a crash leaves.
    fn commit_flushed(&mut self) -> Result<(), Stop> {
        while let Some(out) = self.outs.peek() {
            if let Some(reservation) = &mut out.reservation {
                let is_needed = !self.attached.is_empty() || !out.repeats.is_empty();
                let marked =
                    if is_needed { Marked::of(reservation, &out.batch, &self.shared) } else { Marked::default() };
                let origins = match self.recorder.sink {
                    Some(_) => out.batch.certain(&marked, &out.repeats, out.tellings.origins()),
                    None => Vec::new(),
                };
                self.recorder.record(&self.shared, reservation, out.position.as_deref(), &origins)?;
                out.reservation = None;
                let Some(out) = self.outs.next() else { break };
                self.finish(out, &marked)?;
            } else {
                // Events that cannot be marked, and what stands in the sink with them.
                if out.position.is_some() {
                    self.recorder.record_positions(&self.shared, out.position.as_deref())?;
                }
                let Some(out) = self.outs.next() else { break };
                self.finish(out, &Marked::default())?;
            }
        }
        Ok(())
    }

    /// A committed batch leaves the desk.
    fn finish(&mut self, mut out: Out, marked: &Marked) -> Result<(), Stop> {
        self.books.in_flight -= out.firsts;
        match out.settled {
            Settled::DeadLettered => self.books.dead_lettered += out.firsts,
            _ => self.books.delivered += out.firsts,
        }
        let mut repeats = std::mem::take(&mut out.repeats);
        let mut tellings = std::mem::take(&mut out.tellings);
        self.end_repeats(&mut out.batch, &mut repeats, marked, &mut tellings);
        let asked = self.ask(&mut out.batch, &repeats, false, &mut tellings);
        // They came later.
        let ended = self.end_all_attached(marked, &mut tellings);
        self.tell(tellings);
        if out.batch.is_pooled {
            for mut bundle in out.batch.bundles {
                bundle.item.reset();
                self.free.push(bundle);
            }
        }
        asked.and(ended)
    }

    /// Tells of what is committed, at once or when that is on disk.
    pub(super) fn tell(&mut self, tellings: Tellings) {
        if tellings.is_empty() {
            return;
        }
        if matches!(self.shared.dedup.durability(), Some(Durability::Interval(_))) {
            self.untold.push(self.shared.dedup.position(), tellings);
        } else {
            self.tellings.append(tellings);
            self.recorder.has_news = true;
        }
    }

    /// Tells of what has come to the disk.
    pub(super) fn tell_durable(&mut self) {
        while let Some(tellings) = self.untold.pop(|position| self.shared.dedup.is_on_disk(position)) {
            self.tellings.append(tellings);
            self.recorder.has_news = true;
        }
    }

    /// Records how far sources are settled once nothing has been committed for a while.
    pub(super) fn record_when_due(&mut self, now: Instant) -> Result<(), Stop> {
        match self.recorder.look_due() {
            // What is on its way to who wants to know is not settled yet.
            Some(due) if due <= now && self.tellings.is_empty() => self.recorder.record_positions(&self.shared, None),
            _ => Ok(()),
        }
    }
}

/// How often the positions of sources are recorded, at most.
const LOOK: Duration = Duration::from_millis(10);
/// How often a full log is tried again.
const ROOM_POLL: Duration = Duration::from_millis(20);
