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

use dedupd::pipeline::{CommitAt, Delivery, Flush, Host, Ids, Repeats, Stage, Unrecorded};
use dedupd::{Deduplicator, Error, Progress, Reservation};

use super::control::lock;
use super::output::{Output, Outputs};
use super::room::{Room, STATE};
use super::trust::Trust;
use crate::config::Config;
use crate::exit::Failure;
use crate::state_dir;

/// What is out and not committed.
pub struct Commits {
    /// Of each batch, where inputs and outputs stood behind it.
    pub stage: Stage<Progress>,
    pub room: Room,
    /// What becomes of what is out when it cannot be committed.
    uncommitted: &'static str,
    /// Ids that could not be recorded.
    pub bypassed: u64,
}

impl Commits {
    pub fn new(dedup: &Deduplicator, at: CommitAt, config: &Config, room: Room, outputs: &Outputs) -> Self {
        Self {
            stage: Stage::new(dedup, config.delivery, at, Repeats::AreDuplicates),
            room,
            uncommitted: what_becomes_of_uncommitted(config, outputs),
            bypassed: 0,
        }
    }

    /// Commits what is out when these ids cannot be reserved beside it.
    pub fn make_room(&mut self, ids: Ids<'_>, outputs: &mut Outputs) -> Result<(), Failure> {
        if self.stage.has_room(ids) { Ok(()) } else { self.flush(outputs) }
    }

    /// Commits what is to be delivered only afterwards.
    pub fn commit_ahead(&mut self, reserved: &mut Reservation, outputs: &Outputs) -> Result<(), Failure> {
        let (stage, mut recording) = self.recording(outputs);
        // It is not passed by: see `delivery`.
        stage.commit_ahead(reserved, &mut recording).map(|_| ())
    }

    /// Commits a batch that is out, or has it wait for others.
    pub fn take(
        &mut self,
        reservation: Option<Reservation>,
        ids: Ids<'_>,
        progress: Progress,
        outputs: &mut Outputs,
        alarm: &Alarm,
    ) -> Result<(), Failure> {
        let due = self.stage.due();
        self.stage.delivered(reservation, ids, progress, Instant::now());
        match self.stage.at() {
            CommitAt::Once => self.commit_flushed(outputs),
            // Who waits for the alarm flushes, while others write on.
            CommitAt::Within(_) => {
                self.stage.due().filter(|at| due != Some(*at)).into_iter().for_each(|due| alarm.set(due));
                Ok(())
            }
            _ => self.flush(outputs),
        }
    }

    /// Commits all that is out.
    pub fn flush(&mut self, outputs: &mut Outputs) -> Result<(), Failure> {
        if self.stage.is_empty() {
            return Ok(());
        }
        let flush = self.stage.begin_flush();
        if let Err(failure) = outputs.sync() {
            self.forget();
            return Err(failure);
        }
        self.stage.flushed(flush, Instant::now());
        self.commit_flushed(outputs)
    }

    /// Records where inputs or outputs stand.
    pub fn record(&mut self, progress: &Progress, outputs: &Outputs) -> Result<(), Failure> {
        outputs.trust.check()?;
        let (stage, mut recording) = self.recording(outputs);
        stage.record_progress(progress, &mut recording).map(|_| ())
    }

    /// Commits the batches that were out when a sync of the outputs began, and are not committed yet.
    fn synced(&mut self, flush: Flush, outputs: &Outputs, alarm: &Alarm) -> Result<(), Failure> {
        self.stage.flushed(flush, Instant::now());
        self.commit_flushed(outputs)?;
        self.stage.due().into_iter().for_each(|due| alarm.set(due));
        Ok(())
    }

    fn commit_flushed(&mut self, outputs: &Outputs) -> Result<(), Failure> {
        let (stage, mut recording) = self.recording(outputs);
        loop {
            match stage.commit_next(&mut recording) {
                Ok(Some(_)) => {}
                Ok(None) => return Ok(()),
                Err(failure) => {
                    self.forget();
                    return Err(failure);
                }
            }
        }
    }

    /// Nothing that waits is committed: what is on disk is not known.
    fn forget(&mut self) {
        self.stage.take_all().for_each(drop);
    }

    fn recording<'c>(&'c mut self, outputs: &'c Outputs) -> (&'c mut Stage<Progress>, Recording<'c>) {
        let Self { stage, room, uncommitted, bypassed } = self;
        (stage, Recording { room, outputs, uncommitted, bypassed })
    }
}

/// Records batches for as long as the outputs hold what was written to them.
struct Recording<'c> {
    room: &'c mut Room,
    outputs: &'c Outputs,
    uncommitted: &'static str,
    bypassed: &'c mut u64,
}

impl Host<Progress> for Recording<'_> {
    type Error = Failure;

    fn progress(&mut self, batch: Option<&mut Progress>, _: Option<&Reservation>) -> Result<Progress, Failure> {
        self.outputs.trust.check()?;
        match batch {
            Some(progress) => Ok(progress.clone()),
            None => {
                let mut progress = Progress::new();
                self.outputs.positions(&mut progress)?;
                Ok(progress)
            }
        }
    }

    fn unrecorded(&mut self, error: Error, ids: usize) -> Result<Unrecorded, Failure> {
        // A later batch would be recorded with places that lie behind this one.
        let how = self.room.unrecorded(error).map_err(|error| {
            let mut failure = state_dir::failure(&error);
            failure.message += self.uncommitted;
            self.outputs.trust.lose(failure)
        })?;
        *self.bypassed += if how == Unrecorded::PassBy { ids as u64 } else { 0 };
        Ok(how)
    }

    fn recorded(&mut self, _: usize) {
        self.room.found(STATE);
    }
}

/// What becomes of lines that are out and whose ids cannot be committed.
pub fn what_becomes_of_uncommitted(config: &Config, outputs: &Outputs) -> &'static str {
    match config.delivery {
        Delivery::ExactlyOnce => {
            "; what is out behind the last commit is cut back at the next start, and comes again: nothing is lost"
        }
        Delivery::AtMostOnce => "; nothing is out that is not committed",
        _ if outputs.output.track.is_some() => {
            "; whole lines that are out behind the last commit stay, and are committed at the next start"
        }
        _ => {
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
    pub fn new(outputs: &Outputs, commits: &mut Commits) -> Self {
        let unsynced = |(number, output): (usize, &Output)| {
            let (file, writes) = output.unsynced()?;
            Some(Unsynced { number, file, writes, name: output.name() })
        };
        let files = outputs.all().enumerate().filter_map(unsynced).collect();
        Self { files, trust: Arc::clone(&outputs.trust), flush: commits.stage.begin_flush() }
    }

    /// Puts the files on disk; with no lock held, as it may take long.
    pub fn sync(&mut self) -> Result<(), Failure> {
        self.files.iter_mut().try_for_each(|unsynced| {
            let file = std::mem::replace(&mut unsynced.file, Err(ErrorKind::NotFound.into()));
            self.trust.sync(file, &unsynced.name)
        })
    }

    /// Commits those batches, once all files are synced.
    pub fn finish(&self, outputs: &mut Outputs, commits: &mut Commits, alarm: &Alarm) -> Result<(), Failure> {
        for unsynced in &self.files {
            outputs.all_mut().nth(unsynced.number).into_iter().for_each(|output| output.synced(unsynced.writes));
        }
        outputs.check()?;
        commits.synced(self.flush, outputs, alarm)
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
