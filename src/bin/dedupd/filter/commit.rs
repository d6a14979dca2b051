//! When ids become seen for good: after their lines are out, and, for a regular file, after those are as safe as the
//! ids will be.
//!
//! The lines of a batch may be in a pipe or in a file's page cache when its ids are appended to the log. To survive
//! the death of the process that is enough. To survive a power cut a file must be on disk before the frame that refers
//! to it: an id whose line is gone would be an event lost. A sync per batch is what `power-loss` means; with
//! `interval` batches are collected for that long, then the files are synced once, then each batch becomes a frame
//! with its own positions. They are not merged into one: each frame is whole by itself, so any number of them may be
//! what a crash leaves.

use std::fs::File;
use std::io::ErrorKind;
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use dedupd::pipeline::{CommitAt, CommitQueue, Flush};
use dedupd::{Deduplicator, Fingerprint, Progress, Reservation, ReserveVerdict, Timestamp};

use super::control::lock;
use super::delivery::Delivery;
use super::output::{Output, Outputs};
use super::room::{Recorded, Room};
use super::trust::Trust;
use crate::config::Config;
use crate::exit::Failure;
use crate::state_dir;

/// A batch that is out.
#[derive(Debug)]
pub struct Out {
    pub reservation: Option<Reservation>,
    /// Where inputs and outputs stood behind it.
    pub progress: Progress,
    /// To be asked about once it is committed: that extends their windows.
    pub repeats: Vec<(Fingerprint, Timestamp)>,
}

impl Out {
    /// How many ids were asked about.
    fn ids(&self) -> usize {
        self.reservation.as_ref().map_or(0, |reserved| reserved.verdicts().len())
    }
}

/// What is out and not committed.
pub struct Commits<'a> {
    dedup: &'a Deduplicator,
    queue: CommitQueue<Out>,
    ids: usize,
    /// Reserved ids cannot be forgotten to make room, so they may not fill the set.
    ids_max: usize,
    times: (Timestamp, Timestamp),
    pub room: Room,
    /// Nothing is committed once it is lost.
    trust: Arc<Trust>,
    /// What becomes of what is out when it cannot be committed.
    uncommitted: &'static str,
    /// Ids that could not be recorded.
    pub bypassed: u64,
}

impl<'a> Commits<'a> {
    pub fn new(dedup: &'a Deduplicator, at: CommitAt, config: &Config, room: Room, outputs: &Outputs) -> Self {
        Self {
            dedup,
            queue: CommitQueue::new(at),
            ids: 0,
            ids_max: config.ids_together_max.min(IDS_PENDING_MAX),
            times: NO_TIMES,
            room,
            trust: Arc::clone(&outputs.trust),
            uncommitted: what_becomes_of_uncommitted(config, outputs),
            bypassed: 0,
        }
    }

    /// Commits a batch that is out, or has it wait for others.
    pub fn take(&mut self, out: Out, outputs: &mut Outputs, alarm: &Alarm) -> Result<(), Failure> {
        let (now, due) = (Instant::now(), self.queue.due());
        self.ids += out.ids();
        self.queue.push(out, now);
        if self.collects() && self.ids < self.ids_max && self.queue.len() < BATCHES_PENDING_MAX {
            // Who waits for the alarm flushes, while others write on.
            self.queue.due().filter(|at| due != Some(*at)).into_iter().for_each(|due| alarm.set(due));
            return Ok(());
        }
        match self.queue.at() {
            CommitAt::Once => self.commit_flushed(),
            _ => self.flush(outputs),
        }
    }

    /// Commits what is to be delivered only afterwards.
    pub fn commit_before(&mut self, reservation: &mut Reservation, outputs: &Outputs) -> Result<(), Failure> {
        let mut progress = Progress::new();
        outputs.positions(&mut progress)?;
        self.record(Some(reservation), &progress).map(|_| ())
    }

    /// Commits all that is out.
    pub fn flush(&mut self, outputs: &mut Outputs) -> Result<(), Failure> {
        if self.queue.is_empty() {
            return Ok(());
        }
        let flush = self.queue.begin_flush();
        if let Err(failure) = outputs.sync() {
            self.forget();
            return Err(failure);
        }
        self.queue.flushed(flush, Instant::now());
        self.commit_flushed()
    }

    /// Whether batches may wait for each other.
    pub fn collects(&self) -> bool {
        matches!(self.queue.at(), CommitAt::Within(_))
    }

    /// Commits the batches that were out when a sync of the outputs began, and are not committed yet.
    fn synced(&mut self, flush: Flush, alarm: &Alarm) -> Result<(), Failure> {
        self.queue.flushed(flush, Instant::now());
        self.commit_flushed()?;
        self.queue.due().into_iter().for_each(|due| alarm.set(due));
        Ok(())
    }

    /// Nothing that waits is committed: what is on disk is not known.
    fn forget(&mut self) {
        drop(self.queue.take_all());
        (self.ids, self.times) = (0, NO_TIMES);
    }

    /// Whether events of these times can wait beside those that do. A repeat of one that waits is called a duplicate,
    /// so in event time all of them must be within one window.
    pub fn fits(&self, times: (Timestamp, Timestamp)) -> bool {
        let (first, last) = (self.times.0.min(times.0), self.times.1.max(times.1));
        self.queue.is_empty() || last.saturating_since(first) < self.dedup.window()
    }

    /// Events of these times wait from now on.
    pub fn add_times(&mut self, times: (Timestamp, Timestamp)) {
        self.times = (self.times.0.min(times.0), self.times.1.max(times.1));
    }

    fn commit_flushed(&mut self) -> Result<(), Failure> {
        while let Some(out) = self.queue.next() {
            self.ids -= out.ids();
            if let Err(failure) = self.commit(out) {
                self.forget();
                return Err(failure);
            }
        }
        if self.queue.is_empty() {
            self.times = NO_TIMES;
        }
        Ok(())
    }

    /// Records a batch that is out, all or nothing.
    pub fn commit(&mut self, mut out: Out) -> Result<(), Failure> {
        let is_recorded = self.record(out.reservation.as_mut(), &out.progress)?;
        drop(out.reservation.take());
        // All of these are duplicates now; asking is what extends their windows.
        if is_recorded && !out.repeats.is_empty() {
            drop(self.dedup.reserve_fingerprints_at(&out.repeats));
        }
        Ok(())
    }

    /// False when it is passed by.
    fn record(&mut self, mut reservation: Option<&mut Reservation>, progress: &Progress) -> Result<bool, Failure> {
        self.trust.check()?;
        match self.room.record(self.dedup, reservation.as_deref_mut(), progress) {
            Ok(Recorded::Yes) => Ok(true),
            Ok(Recorded::PassedBy) => {
                self.bypassed += reservation.map_or(0, |reserved| first_seen(reserved));
                Ok(false)
            }
            // A later batch would be recorded with places that lie behind this one.
            Err(error) => {
                let mut failure = state_dir::failure(&error);
                failure.message += self.uncommitted;
                Err(self.trust.lose(failure))
            }
        }
    }
}

/// How many ids of a reservation are first-seen.
pub fn first_seen(reserved: &Reservation) -> u64 {
    reserved.verdicts().iter().filter(|verdict| **verdict == ReserveVerdict::FirstSeen).count() as u64
}

/// What becomes of lines that are out and whose ids cannot be committed.
pub fn what_becomes_of_uncommitted(config: &Config, outputs: &Outputs) -> &'static str {
    match config.delivery {
        Delivery::ExactlyOnce => {
            "; what is out behind the last commit is cut back at the next start, and comes again: nothing is lost"
        }
        Delivery::AtMostOnce => "; nothing is out that is not committed",
        Delivery::AtLeastOnce if outputs.output.track.is_some() => {
            "; whole lines that are out behind the last commit stay, and are committed at the next start"
        }
        Delivery::AtLeastOnce => {
            "; lines that are out behind the last commit are not known to be: they come out again when they are read again"
        }
    }
}

/// Batches that are out and wait for a sync.
#[derive(Debug)]
pub struct Unfinished {
    files: Vec<Unsynced>,
    trust: Arc<Trust>,
    flush: Flush,
}

impl Unfinished {
    pub fn new(outputs: &Outputs, commits: &mut Commits<'_>) -> Self {
        let unsynced = |(number, output): (usize, &Output)| {
            let (file, writes) = output.unsynced()?;
            Some(Unsynced { number, file, writes, name: output.name() })
        };
        let files = outputs.all().enumerate().filter_map(unsynced).collect();
        Self { files, trust: Arc::clone(&outputs.trust), flush: commits.queue.begin_flush() }
    }

    /// Puts the files on disk; with no lock held, as it may take long.
    pub fn sync(&mut self) -> Result<(), Failure> {
        self.files.iter_mut().try_for_each(|unsynced| {
            let file = std::mem::replace(&mut unsynced.file, Err(ErrorKind::NotFound.into()));
            self.trust.sync(file, &unsynced.name)
        })
    }

    /// Commits those batches, once all files are synced.
    pub fn finish(&self, outputs: &mut Outputs, commits: &mut Commits<'_>, alarm: &Alarm) -> Result<(), Failure> {
        for unsynced in &self.files {
            outputs.all_mut().nth(unsynced.number).into_iter().for_each(|output| output.synced(unsynced.writes));
        }
        outputs.check()?;
        commits.synced(self.flush, alarm)
    }
}

/// A file that is to be synced.
#[derive(Debug)]
struct Unsynced {
    /// Which output this is.
    number: usize,
    file: std::io::Result<File>,
    writes: u64,
    name: String,
}

/// Wakes whoever commits what waits.
#[derive(Debug, Default)]
pub struct Alarm {
    state: Mutex<(Option<Instant>, bool)>,
    changed: Condvar,
}

impl Alarm {
    /// Rings at `due`, unless it rings before that anyway.
    pub fn set(&self, due: Instant) {
        let mut state = lock(&self.state);
        if state.0.is_none_or(|other| due < other) {
            state.0 = Some(due);
            self.changed.notify_all();
        }
    }

    /// Does not ring any more.
    pub fn end(&self) {
        lock(&self.state).1 = true;
        self.changed.notify_all();
    }

    /// Returns true when it rings, false when it has ended.
    pub fn wait(&self) -> bool {
        let mut state = lock(&self.state);
        loop {
            let left = state.0.map(|due| due.saturating_duration_since(Instant::now()));
            state = match left {
                _ if state.1 => return false,
                Some(Duration::ZERO) => {
                    state.0 = None;
                    return true;
                }
                Some(left) => {
                    self.changed.wait_timeout(state, left).unwrap_or_else(std::sync::PoisonError::into_inner).0
                }
                None => self.changed.wait(state).unwrap_or_else(std::sync::PoisonError::into_inner),
            };
        }
    }
}

/// Their memory is a few MB.
const IDS_PENDING_MAX: usize = 1 << 19;
const BATCHES_PENDING_MAX: usize = 1 << 12;
/// Of no events.
const NO_TIMES: (Timestamp, Timestamp) = (Timestamp::MAX, Timestamp::MIN);
