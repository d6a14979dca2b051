//! Asking a set and telling its log. The rules stand in the module above.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError};

use crate::event::Fingerprint;
use crate::log::{AppendError, Batch, Bell, Directory, Kind, Log, Position};
use crate::sync::{Mutex, RwLock};
use crate::time::{Clock, Timestamp};
use crate::window::{Act, Answer, Changes, Set, Times, When};

use super::super::{Durability, LogError, OnLogFailure, Progress};
use super::block::Block;
use super::gathering::{Gathering, Stamp};
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
    /// Records that could not be appended. Relaxed: it orders nothing.
    pub(super) unlogged: AtomicU64,
    /// In event time, the highest time of any event that is settled: observed, or committed. It is what the log knows of
    /// the watermark: one that events have moved which come again after a crash would make others late. Relaxed: it only
    /// rises, and whoever appends has raised it before.
    pub(super) settled: AtomicI64,
    /// Locked for as long as this is.
    pub(super) _directory: Option<Directory>,
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
                if let When::Event { time, .. } = when {
                    self.settle(Timestamp::from_nanos(time));
                }
                self.note_gathered();
                answer
            }
        }
    }

    fn ask_synced(&self, fingerprint: Fingerprint, when: When) -> Answer {
        let order = self.order.write().unwrap_or_else(PoisonError::into_inner);
        let answer = match when {
            When::Now(_) => self.ask_and_append(fingerprint, when),
            When::Event { time, clock } => self.ask_and_flush(fingerprint, time, clock),
        };
        drop(order);
        if self.wait_for_all().is_err() { Answer::Unlogged } else { answer }
    }

    /// Processing time: a new ID is a frame of its own.
    fn ask_and_append(&self, fingerprint: Fingerprint, when: When) -> Answer {
        let mut answer = self.set.ask(fingerprint, when, Act::Observe);
        if answer.is_first() {
            let mut batch = Batch::new();
            batch.push_ids(Kind::Seen, [fingerprint]);
            match self.append(self.frame_time(), &batch) {
                Err(_) if self.on_failure == OnLogFailure::Continue => {
                    self.unlogged.fetch_add(1, Ordering::Relaxed);
                }
                Err(_) => {
                    self.set.forget(fingerprint);
                    answer = Answer::Unlogged;
                }
                Ok(()) => {}
            }
        }
        // A window that starts again, also one that another thread is about to append; when that fails, it is gathered still.
        let _ = self.flush();
        answer
    }

    /// Event time: what is new is gathered with its time.
    fn ask_and_flush(&self, fingerprint: Fingerprint, time: i64, clock: i64) -> Answer {
        let (answer, recorded) = self.set.ask_event(fingerprint, time, clock, Act::Gather);
        let mut answers = [answer];
        self.settle(Timestamp::from_nanos(time));
        if self.flush().is_err() {
            self.give_up(&[fingerprint], &[recorded], &mut answers);
        }
        answers[0]
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
        let (mut all, mut recorded) = (Vec::new(), Vec::new());
        let take_all = |answers: &[Answer]| {
            let mut block = block_cell.borrow_mut();
            if act == Act::Observe && !is_alone {
                take(block.append(answers));
            } else if act == Act::Observe {
                all.extend_from_slice(block.append(answers));
            } else {
                all.extend_from_slice(answers);
            }
        };
        match times {
            Times::Each { times, clock } if self.event_time => {
                self.set.ask_events(questions, hash, times, clock, act, |answers, at| {
                    all.extend_from_slice(answers);
                    recorded.extend_from_slice(at);
                });
            }
            times => self.set.ask_batch(questions, hash, times, act, take_all),
        }
        let times = if let Times::Each { times, .. } = times { times } else { &[] };
        times.iter().max().into_iter().for_each(|time| self.settle(*time));
        // Also when there is nothing to take: another thread may have taken it, and not have appended it yet.
        let waits = act == Act::Gather || is_alone || self.set.has_changes();
        let is_behind = waits && self.flush().is_err();
        if is_behind && act == Act::Gather {
            self.give_up(&block.asked, &recorded, &mut all);
        }
        drop((alone, shared));
        if is_alone && self.wait_for_all().is_err() {
            all.fill(Answer::Unlogged);
        }
        if !all.is_empty() {
            take(&all);
        }
    }

    /// What a reservation was told may rest on what is not on disk yet, or may have made windows start again: with
    /// [`Durability::PowerLoss`] waits for both. False when that failed.
    pub(in crate::dedup) fn confirm(&self) -> bool {
        if !self.is_synced() {
            self.note_gathered();
            return true;
        }
        let flushed = self.flush();
        // Where answers go on from memory, what is missing is counted.
        (flushed.is_ok() || self.on_failure == OnLogFailure::Continue) && self.wait_for_all().is_ok()
    }

    /// Appends `ids` that were reserved and `progress` as one frame, and has `mark` mark the ids. `latest` is the highest time
    /// of all events that the reservation is about.
    ///
    /// # Errors
    /// Nothing was appended and nothing marked; or, with [`Durability::PowerLoss`], it is not known what is on disk.
    pub(in crate::dedup) fn commit(
        &self,
        ids: &[Fingerprint],
        times: Option<&[Timestamp]>,
        latest: Option<Timestamp>,
        progress: &Progress,
        mark: impl FnOnce(),
    ) -> Result<(), LogError> {
        if self.durability == Durability::None || ids.is_empty() && progress.is_empty() {
            latest.into_iter().for_each(|latest| self.settle(latest));
            mark();
            return Ok(());
        }
        // Held until they are marked: what is appended and still pending would look unknown to who forgets.
        let order = self.order.read().unwrap_or_else(PoisonError::into_inner);
        let time = latest.map_or(self.frame_time(), |latest| self.frame_time().max(self.believed(latest)));
        let records = ids.len() + progress.sources().count() + progress.sinks().count();
        match self.append_commit(time, ids, times, progress) {
            Err(_) if self.on_failure == OnLogFailure::Continue => {
                self.unlogged.fetch_add(records as u64, Ordering::Relaxed);
            }
            appended => appended?,
        }
        // Not before: a frame of somebody else's would carry it, and these events may come again.
        latest.into_iter().for_each(|latest| self.settle(latest));
        mark();
        drop(order);
        if self.is_synced() { self.wait_for_all() } else { Ok(()) }
    }

    fn append_commit(
        &self,
        time: Timestamp,
        ids: &[Fingerprint],
        times: Option<&[Timestamp]>,
        progress: &Progress,
    ) -> Result<(), LogError> {
        // What is gathered is kept before the progress that may have it behind it, also what was taken from the shards before
        // and could not be appended then.
        self.flush()?;
        let mut batch = Batch::new();
        let now = self.clock.now();
        match times {
            _ if ids.is_empty() => {}
            _ if self.event_time => {
                // A time that was too far ahead to be believed moved nothing, and moves nothing after a restart.
                let front = self.engine_time();
                let own = |index| times.and_then(|times: &[Timestamp]| times.get(index).copied()).unwrap_or(now);
                let ids = ids.iter().enumerate().map(|(index, id)| (*id, own(index).min(front)));
                batch.push_ids_at(Kind::SeenAt, ids);
            }
            _ => batch.push_ids(Kind::Seen, ids.iter().copied()),
        }
        if progress.is_empty() {
            return self.append(time, &batch);
        }
        progress::push(&mut batch, progress);
        // Held meanwhile, so that what is kept is what was appended last.
        let mut kept = lock(&self.kept);
        kept.check(progress)?;
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
        // Held as well, so that nothing is taken from the shards and appended behind this that was gathered before it.
        let mut gathering = lock(&self.gathering);
        self.flush_into(&mut gathering)?;
        // Also when it is not known, or only reserved: it may have left early, or its window have ended, and both be
        // otherwise at the next open. A commit of what is reserved stands behind this.
        let mut batch = Batch::new();
        batch.push_ids(Kind::Forget, [fingerprint]);
        self.append(self.frame_time(), &batch)?;
        let was_known = self.set.forget(fingerprint);
        drop(gathering);
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

    pub(in crate::dedup) fn durability(&self) -> Durability {
        self.durability
    }

    pub(in crate::dedup) fn goes_on_without_log(&self) -> bool {
        self.on_failure == OnLogFailure::Continue
    }

    /// Whether everything up to `position` is on disk; or never will be, where answers go on without. `None`: what could not be
    /// appended then may be by now.
    pub(in crate::dedup) fn is_on_disk(&self, position: Option<Position>) -> bool {
        position.or_else(|| self.position()).is_some_and(|position| self.log.durable() >= position)
            || self.on_failure == OnLogFailure::Continue && self.log.is_poisoned()
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

    /// Records that are missing in the log for good, and those that a failed sync leaves in doubt although something was
    /// answered that rests on it.
    pub(in crate::dedup) fn unlogged(&self) -> u64 {
        let rests_on_syncs = matches!(self.durability, Durability::Interval(_) | Durability::PowerLoss);
        let counts_doubt = rests_on_syncs && self.on_failure == OnLogFailure::Continue;
        let in_doubt = if counts_doubt { self.log.in_doubt() } else { 0 };
        self.unlogged.load(Ordering::Relaxed) + in_doubt
    }

    /// Records that are missing in the log for as long as it takes none, and were answered for.
    pub(in crate::dedup) fn waiting(&self) -> u64 {
        if !self.is_failing.load(Ordering::Relaxed) {
            return 0;
        }
        let mut gathering = lock(&self.gathering);
        self.set.take_changes(&mut gathering.changes);
        gathering.len() as u64
    }

    /// Appends what was gathered.
    pub(super) fn flush(&self) -> Result<(), LogError> {
        self.flush_into(&mut lock(&self.gathering))
    }

    fn flush_into(&self, gathering: &mut Gathering) -> Result<(), LogError> {
        self.set.take_changes(&mut gathering.changes);
        if gathering.len() == 0 {
            return Ok(());
        }
        let stamp = match self.event_time {
            true => Stamp::Own(gathering.latest().max(self.frame_time().as_nanos())),
            false => Stamp::Generation { now: self.engine_time().as_nanos(), slice: self.set.slack() },
        };
        let result = gathering.append(&self.log, stamp);
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
        let failed = match result {
            Ok(()) => false,
            // That is this one's fault alone.
            Err(AppendError::TooLarge { .. }) => return,
            Err(_) => true,
        };
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

    /// Waits until everything is on disk. Where a failed sync leaves that in doubt, and nobody is refused for it, what was
    /// appended counts as missing: see [`Keeper::unlogged`].
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

    /// What was recorded for `ids` just now, in event time at `recorded`, could not be appended, or not all of it. What is still
    /// gathered is forgotten again, and whoever holds its event may ask again; or it stands, and is appended later. Repeats
    /// that have made its window start again meanwhile go with it, whoever asked: they rest on it, and replayed alone they
    /// would be first sights. In event time, what was gathered for the same ids at other times stays.
    fn give_up(&self, ids: &[Fingerprint], recorded: &[i64], answers: &mut [Answer]) {
        if self.on_failure == OnLogFailure::Continue {
            return;
        }
        let mut gathering = lock(&self.gathering);
        self.set.take_changes(&mut gathering.changes);
        let Changes { seen, refreshed } = &mut gathering.changes;
        // In processing time an ID has one entry, and what is gathered of it is of its generation.
        let at = |time: i64| if self.event_time { time } else { i64::MIN };
        let left: HashSet<(Fingerprint, i64)> = seen.iter().map(|(id, time)| (*id, at(*time))).collect();
        let mut given_up = HashSet::new();
        for (index, (id, answer)) in ids.iter().zip(answers).enumerate() {
            let sight = (*id, at(recorded.get(index).copied().unwrap_or(i64::MIN)));
            if answer.is_first() && left.contains(&sight) {
                *answer = Answer::Unlogged;
                given_up.insert(sight);
            }
        }
        seen.retain(|(id, time)| !given_up.contains(&(*id, at(*time))));
        if !self.event_time {
            refreshed.retain(|(id, _)| !given_up.contains(&(*id, i64::MIN)));
            for (id, _) in &given_up {
                self.set.forget(*id);
            }
            return;
        }
        given_up.iter().for_each(|(id, time)| self.set.forget_at(*id, *time));
        // From when to when each was known, as one repeat leads to the next.
        let reach = self.set.window().saturating_add(self.set.slack());
        let mut known: HashMap<Fingerprint, (i64, i64)> = HashMap::new();
        for (id, time) in &given_up {
            let (first, last) = known.entry(*id).or_insert((*time, *time));
            (*first, *last) = ((*first).min(*time), (*last).max(*time));
        }
        let mut has_more = !known.is_empty();
        while has_more {
            has_more = false;
            let rests_on_it = |(id, time): &mut (Fingerprint, i64)| {
                let known = known
                    .get_mut(id)
                    .filter(|(first, last)| *time > first.saturating_sub(reach) && *time < last.saturating_add(reach));
                known.map(|(first, last)| (*first, *last) = ((*first).min(*time), (*last).max(*time))).is_some()
            };
            for (id, time) in refreshed.extract_if(.., rests_on_it) {
                self.set.forget_at(id, time);
                has_more = true;
            }
        }
    }

    /// Wakes the one who appends what single questions, and repeats, have gathered.
    #[inline]
    fn note_gathered(&self) {
        if self.set.has_changes() {
            self.bell.ring();
        }
    }

    /// Event time: an event of `time` is settled.
    fn settle(&self, time: Timestamp) {
        if self.event_time && time.as_nanos() > self.settled.load(Ordering::Relaxed) {
            self.settled.fetch_max(self.believed(time).as_nanos(), Ordering::Relaxed);
        }
    }

    /// No further than the set has come: a time too far ahead was not believed.
    fn believed(&self, time: Timestamp) -> Timestamp {
        time.min(Timestamp::from_nanos(self.set.front().unwrap_or(i64::MIN)))
    }

    /// The time of a frame that is appended now. In event time nothing may be settled yet: then it is the earliest there is.
    pub(super) fn frame_time(&self) -> Timestamp {
        match self.event_time {
            true => Timestamp::from_nanos(self.settled.load(Ordering::Relaxed)),
            false => self.engine_time(),
        }
    }

    /// Everything in frames of earlier times than this is forgotten.
    pub(super) fn forgotten_before(&self) -> Timestamp {
        let remembers_from = self.set.remembers_from();
        // Without room nothing more is settled, and then nothing would ever make room. So what this set has forgotten goes;
        // should a crash take time back before that, repeats of it are first-seen once more, and no event is lost.
        if !self.event_time || self.is_failing.load(Ordering::Relaxed) {
            return Timestamp::from_nanos(remembers_from);
        }
        // After a restart time has come as far as what is settled.
        let ahead = self.set.front().unwrap_or(0).saturating_sub(self.settled.load(Ordering::Relaxed));
        Timestamp::from_nanos(remembers_from.saturating_sub(ahead))
    }

    pub(super) fn engine_time(&self) -> Timestamp {
        Timestamp::from_nanos(self.set.engine_time(self.clock.now().as_nanos()))
    }
}

/// Gathered ids that are kept, at most, while answers come from memory.
const UNLOGGED_MAX: usize = 1 << 20;
