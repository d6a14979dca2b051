//! Committing what is out.
//!
//! A batch's ids are marked once every sink has its events, in the order in which the batches landed, and when the
//! [`Stage`](super::Stage) says so.

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
use super::stage::{Host, Unrecorded};
use crate::dedup::{Durability, Error, Progress, Reservation};
use crate::sync::whole::{Ordering, thread};

/// A batch that every sink has, but for what failed.
pub(super) struct Out {
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
    /// What committing it marks, as far as that is asked for.
    pub(super) marked: Marked,
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

/// Says what is recorded with a batch that is out, and waits for room in the log.
pub(super) struct Recording<'a> {
    shared: &'a Shared,
    recorder: &'a mut Recorder,
    /// Repeats may wait for what is marked.
    has_attached: bool,
    /// Exactly once, where the events come from that are settled with the batch.
    origins: Vec<Origin>,
}

impl<'a> Recording<'a> {
    pub(super) fn new(shared: &'a Shared, recorder: &'a mut Recorder) -> Self {
        Self { shared, recorder, has_attached: false, origins: Vec::new() }
    }
}

impl Host<Out> for Recording<'_> {
    type Error = Stop;

    fn progress(&mut self, out: Option<&mut Out>, reserved: Option<&Reservation>) -> Result<Progress, Stop> {
        let Self { shared, recorder, .. } = self;
        let Some(out) = out else { return Ok(recorder.progress(shared, None, &[], false)) };
        let position = out.position.as_deref();
        let Some(reserved) = reserved else {
            // Events that cannot be marked, and what stands in the sink with them.
            let stands = position.map(|position| recorder.progress(shared, Some(position), &[], true));
            return Ok(stands.unwrap_or_default());
        };
        if self.has_attached || !out.repeats.is_empty() {
            out.marked = Marked::of(reserved, &out.batch, shared);
        }
        // The frame says itself that these positions are settled. Else a process that dies now, and comes back after the window,
        // would be sent again what is in the sink, and not know it.
        if recorder.sink.is_some() {
            self.origins = out.batch.certain(&out.marked, &out.repeats, out.tellings.origins());
        }
        Ok(recorder.progress(shared, position, &self.origins, false))
    }

    fn unrecorded(&mut self, error: Error, _: usize) -> Result<Unrecorded, Stop> {
        if !error.is_retryable() || self.shared.is_aborted.load(Ordering::Acquire) {
            return Err(Stop::Log(error));
        }
        self.shared.room_waits.fetch_add(1, Ordering::Relaxed);
        thread::sleep(ROOM_POLL);
        Ok(Unrecorded::Again)
    }

    fn recorded(&mut self, _: usize) {
        for_each_ledger(self.shared, &self.origins, |ledger, sequences| ledger.commit(sequences));
    }
}

impl Desk {
    /// Commits what is out and has waited long enough.
    pub(super) fn commit_when_due(&mut self, now: Instant) -> Result<(), Stop> {
        self.commit_flushed()?;
        if self.outs_are_many() {
            self.stage.hurry(now);
        }
        match self.stage.step(now) {
            CommitStep::Wait | CommitStep::Commit => {}
            // With no lock held, by the worker.
            CommitStep::Flush(flush) if self.lanes.is_none() => self.own_flush = Some(flush),
            CommitStep::Flush(flush) => self.launch_flush(flush),
        }
        Ok(())
    }

    /// Whether what is out keeps so much of the pool, or of what may be reserved, that it cannot wait for others.
    fn outs_are_many(&self) -> bool {
        self.stage.has_ids() && !self.may_reserve(0)
            || self.stage.batches().map(|out| out.batch.bundles.len()).sum::<usize>() >= self.shared.limits.bundles / 2
            || self.shared.intakes[self.worker].wants_bytes() && self.outs_keep_bytes()
    }

    /// Whether bytes that a producer may want come back once what is out is committed, which is not under way.
    pub(super) fn outs_keep_bytes(&self) -> bool {
        let mut bundles = self.stage.batches().flat_map(|out| &out.batch.bundles);
        self.stage.due().is_some() && bundles.any(|bundle| bundle.item.bytes() > BYTES_MAX)
    }

    /// Commits what needs no flush any more.
    fn commit_flushed(&mut self) -> Result<(), Stop> {
        loop {
            let Self { stage, recorder, shared, attached, .. } = self;
            let mut host = Recording { has_attached: !attached.is_empty(), ..Recording::new(shared, recorder) };
            let Some(out) = stage.commit_next(&mut host)? else { return Ok(()) };
            self.finish(out)?;
        }
    }

    /// Records positions alone.
    pub(super) fn record_positions(&mut self, position: Option<&[u8]>) -> Result<(), Stop> {
        let progress = self.recorder.progress(&self.shared, position, &[], true);
        let mut host = Recording::new(&self.shared, &mut self.recorder);
        self.stage.record_progress(&progress, &mut host).map(|_| ())
    }

    /// A committed batch leaves the desk.
    fn finish(&mut self, mut out: Out) -> Result<(), Stop> {
        let marked = &std::mem::take(&mut out.marked);
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
            Some(due) if due <= now && self.tellings.is_empty() => self.record_positions(None),
            _ => Ok(()),
        }
    }
}

/// How often the positions of sources are recorded, at most.
const LOOK: Duration = Duration::from_millis(10);
/// How often a full log is tried again.
const ROOM_POLL: Duration = Duration::from_millis(20);
