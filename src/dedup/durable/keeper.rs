//! Asking a set and telling its log. The rules stand in the module above.

use std::cell::RefCell;
use std::collections::HashSet;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use crate::event::Fingerprint;
use crate::log::{AppendError, Batch, Bell, Directory, Kind, Log, Position};
use crate::time::{Clock, Timestamp};
use crate::window::{Act, Answer, Changes, Set, Times, When};

use super::super::{Durability, LogError, OnLogFailure, Progress};
use super::block::Block;
use super::gathering::Gathering;
use super::lock;
use super::progress::{self, Kept};

/// A set and its log.
pub(in crate::dedup) struct Keeper {
    pub(in crate::dedup) set: Arc<Set>,
    pub(super) log: Arc<Log>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) event_time: bool,
    pub(super) durability: Durability,
    pub(super) on_failure: OnLogFailure,
    /// See the module above.
    pub(super) order: RwLock<()>,
    pub(super) gathering: Mutex<Gathering>,
    pub(super) kept: Mutex<Kept>,
    /// Rung when something was gathered.
    pub(super) bell: Bell,
    /// Whether the last append failed. Written by whoever appends, read by single questions; relaxed, as it orders
    /// nothing: a question that misses it gathers what is appended later.
    pub(super) is_failing: AtomicBool,
    /// Records that are missing in the log. Relaxed: it orders nothing.
    pub(super) unlogged: AtomicU64,
    /// Locked for as long as this is.
    pub(super) _directory: Directory,
}

impl Keeper {
    /// Answers one question, and has a new ID gathered; with [`Durability::PowerLoss`], waits until it is on disk.
    #[inline]
    pub(in crate::dedup) fn ask(&self, fingerprint: Fingerprint, when: When) -> Answer {
        match self.durability {
            Durability::None => self.set.ask(fingerprint, when, Act::Observe),
            Durability::PowerLoss => self.ask_synced(fingerprint, when),
            Durability::Process | Durability::Interval(_) => {
                if self.refuses() {
                    return Answer::Unlogged;
                }
                let answer = self.set.ask(fingerprint, when, Act::Gather);
                // A repeat may have gathered a refresh.
                if self.set.has_changes() {
                    self.bell.ring();
                }
                answer
            }
        }
    }

    fn ask_synced(&self, fingerprint: Fingerprint, when: When) -> Answer {
        let order = self.order.write().unwrap_or_else(PoisonError::into_inner);
        let mut answers = [self.set.ask(fingerprint, when, Act::Gather)];
        if self.flush().is_err() {
            self.give_up(&[fingerprint], &mut answers);
        }
        drop(order);
        if self.wait_for_all().is_err() { Answer::Unlogged } else { answers[0] }
    }

    /// Asks many: `ask` asks the set about all of them, handing each block's fingerprints and answers to the [`Block`].
    pub(in crate::dedup) fn ask_batch(
        &self,
        questions: usize,
        mut hash: impl FnMut(Range<usize>, &mut Vec<Fingerprint>),
        times: Times<'_>,
        mut take: impl FnMut(&[Answer]),
    ) {
        if self.durability == Durability::None {
            return self.set.ask_batch(questions, hash, times, Act::Observe, take);
        }
        let is_alone = self.durability == Durability::PowerLoss;
        let alone = is_alone.then(|| self.order.write().unwrap_or_else(PoisonError::into_inner));
        let shared = (!is_alone).then(|| self.order.read().unwrap_or_else(PoisonError::into_inner));
        let mut block = Block::new(self);
        let block_cell = RefCell::new(&mut block);
        let act = if matches!(times, Times::Now(_)) { Act::Observe } else { Act::Gather };
        let hash = |range: Range<usize>, out: &mut Vec<_>| {
            let before = out.len();
            hash(range, out);
            block_cell.borrow_mut().asked.extend_from_slice(&out[before..]);
        };
        let mut all = Vec::new();
        self.set.ask_batch(questions, hash, times, act, |answers| {
            let mut block = block_cell.borrow_mut();
            if act == Act::Observe && !is_alone {
                take(block.append(answers));
            } else if act == Act::Observe {
                all.extend_from_slice(block.append(answers));
            } else {
                all.extend_from_slice(answers);
            }
        });
        if self.set.has_changes() && self.flush().is_err() && act == Act::Gather {
            self.give_up(&block.asked, &mut all);
        }
        drop((alone, shared));
        if is_alone && self.wait_for_all().is_err() {
            all.fill(Answer::Unlogged);
        }
        if !all.is_empty() {
            take(&all);
        }
    }

    /// Appends `ids` that were reserved and `progress` as one frame, then has `mark` mark the ids.
    ///
    /// # Errors
    /// Nothing was appended and nothing marked; or, with [`Durability::PowerLoss`], it is not known what is on disk.
    pub(in crate::dedup) fn commit(
        &self,
        ids: &[Fingerprint],
        times: Option<&[Timestamp]>,
        progress: &Progress,
        mark: impl FnOnce(),
    ) -> Result<(), LogError> {
        if self.durability == Durability::None || ids.is_empty() && progress.is_empty() {
            mark();
            return Ok(());
        }
        let appended = self.append_commit(ids, times, progress);
        let appended = appended.and_then(|()| if self.is_synced() { self.wait_for_all() } else { Ok(()) });
        match appended {
            Err(_) if self.on_failure == OnLogFailure::Continue => {
                self.unlogged.fetch_add(ids.len() as u64, Ordering::Relaxed);
            }
            appended => appended?,
        }
        mark();
        Ok(())
    }

    fn append_commit(
        &self,
        ids: &[Fingerprint],
        times: Option<&[Timestamp]>,
        progress: &Progress,
    ) -> Result<(), LogError> {
        let mut batch = Batch::new();
        let (now, time) = (self.clock.now(), self.engine_time());
        match times {
            _ if ids.is_empty() => {}
            Some(times) if self.event_time => {
                // A time that was too far ahead to be believed moved nothing, and moves nothing after a restart.
                let times = times.iter().map(|event| (*event).min(time));
                batch.push_ids_at(Kind::SeenAt, ids.iter().copied().zip(times));
            }
            None if self.event_time => {
                batch.push_ids_at(Kind::SeenAt, ids.iter().map(|id| (*id, now.min(time))));
            }
            _ => batch.push_ids(Kind::Seen, ids.iter().copied()),
        }
        if progress.is_empty() {
            return self.append(time, &batch);
        }
        progress::push(&mut batch, progress);
        // Held meanwhile, so that what is kept is what was appended last.
        let mut kept = lock(&self.kept);
        self.append(time, &batch)?;
        kept.record(progress, time.as_nanos());
        Ok(())
    }

    /// Makes `fingerprint` unknown, here and after a restart. False when it was not known.
    ///
    /// # Errors
    /// It was not appended, and is known as before.
    pub(in crate::dedup) fn forget(&self, fingerprint: Fingerprint) -> Result<bool, LogError> {
        let order = self.order.write().unwrap_or_else(PoisonError::into_inner);
        self.flush()?;
        let time = self.engine_time();
        if !self.set.knows(fingerprint) {
            return Ok(false);
        }
        let mut batch = Batch::new();
        batch.push_ids(Kind::Forget, [fingerprint]);
        self.append(time, &batch)?;
        let was_known = self.set.forget(fingerprint);
        drop(order);
        if self.is_synced() {
            self.wait_for_all()?;
        }
        Ok(was_known)
    }

    /// Positions as they were recorded last.
    pub(in crate::dedup) fn progress(&self) -> Progress {
        lock(&self.kept).progress().clone()
    }

    /// The position of everything answered so far. `None`: something cannot be appended.
    pub(in crate::dedup) fn position(&self) -> Option<Position> {
        let _order = self.order.read().unwrap_or_else(PoisonError::into_inner);
        self.flush().ok()?;
        Some(self.log.position())
    }

    /// Waits until everything up to `position` is on disk; `None`, until everything is.
    pub(in crate::dedup) fn wait(&self, position: Option<Position>) -> Result<(), LogError> {
        let position = match position {
            Some(position) => position,
            None => {
                let _order = self.order.read().unwrap_or_else(PoisonError::into_inner);
                self.flush()?;
                self.log.position()
            }
        };
        Ok(self.log.wait_durable(position)?)
    }

    /// Appends what is left and syncs it. The threads have ended.
    pub(in crate::dedup) fn close(&self) -> Result<(), LogError> {
        let flushed = self.flush();
        let closed = self.log.close();
        flushed?;
        Ok(closed?)
    }

    /// Whether nothing more can be recorded until the state is opened again, and nothing is answered without.
    pub(in crate::dedup) fn has_ended(&self) -> bool {
        self.on_failure == OnLogFailure::Refuse && self.log.is_poisoned()
    }

    pub(in crate::dedup) fn disk_bytes(&self) -> u64 {
        self.log.disk_bytes()
    }

    /// Records that are missing in the log.
    pub(in crate::dedup) fn unlogged(&self) -> u64 {
        self.unlogged.load(Ordering::Relaxed)
    }

    /// Appends what was gathered. Only who forgets needs `order` for that.
    pub(super) fn flush(&self) -> Result<(), LogError> {
        let mut gathering = lock(&self.gathering);
        self.set.take_changes(&mut gathering.changes);
        if gathering.len() == 0 {
            return Ok(());
        }
        // Now that they are taken, so that none of them is later than that.
        let event_time = self.event_time.then(|| self.engine_time().as_nanos());
        let result = gathering.append(&self.log, event_time);
        self.note(&result);
        if result.is_err() && self.on_failure == OnLogFailure::Continue && gathering.len() > UNLOGGED_MAX {
            self.unlogged.fetch_add(gathering.len() as u64, Ordering::Relaxed);
            gathering.changes = Changes::default();
        }
        Ok(result?)
    }

    pub(super) fn append(&self, time: Timestamp, batch: &Batch) -> Result<(), LogError> {
        let result = self.log.append(time, batch).map(drop);
        self.note(&result);
        Ok(result?)
    }

    pub(super) fn note(&self, result: &Result<(), AppendError>) {
        let failed = result.is_err();
        if self.is_failing.load(Ordering::Relaxed) != failed {
            self.is_failing.store(failed, Ordering::Relaxed);
        }
    }

    #[inline]
    fn refuses(&self) -> bool {
        self.is_failing.load(Ordering::Relaxed) && self.on_failure == OnLogFailure::Refuse
    }

    /// Whether each answer waits for a sync.
    fn is_synced(&self) -> bool {
        self.durability == Durability::PowerLoss
    }

    fn wait_for_all(&self) -> Result<(), LogError> {
        let result = self.log.sync();
        if result.is_err() {
            self.is_failing.store(true, Ordering::Relaxed);
        }
        match result {
            Err(_) if self.on_failure == OnLogFailure::Continue => Ok(()),
            result => Ok(result?),
        }
    }

    /// What was recorded for `ids` just now could not be appended. Either they are forgotten again, and whoever holds
    /// their events may ask again; or they stand, and are counted.
    fn give_up(&self, ids: &[Fingerprint], answers: &mut [Answer]) {
        if self.on_failure == OnLogFailure::Continue {
            return;
        }
        let firsts = ids.iter().zip(&*answers).filter(|(_, answer)| answer.is_first());
        let firsts: HashSet<Fingerprint> = firsts.map(|(id, _)| *id).collect();
        let mut gathering = lock(&self.gathering);
        self.set.take_changes(&mut gathering.changes);
        gathering.changes.seen.retain(|(id, _)| !firsts.contains(id));
        for id in &firsts {
            self.set.forget(*id);
        }
        answers.iter_mut().filter(|answer| answer.is_first()).for_each(|answer| *answer = Answer::Unlogged);
    }

    pub(super) fn engine_time(&self) -> Timestamp {
        Timestamp::from_nanos(self.set.engine_time(self.clock.now().as_nanos()))
    }
}

/// Gathered ids that are kept, at most, while answers come from memory.
const UNLOGGED_MAX: usize = 1 << 20;
