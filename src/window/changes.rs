//! What a log is to be told, and how a set is filled from one.
//!
//! A single question that records something gathers it in its shard, under the lock that it holds anyway, so that the
//! changes of one ID are gathered in the order in which they happened. Whoever keeps the log takes what all shards have
//! gathered, now and then.
//!
//! `has_changes` is raised after a change was gathered, under the shard's lock, and lowered before the shards are
//! visited. So it is never low while a gathered change waits, but for those that a visit is about to find.

use crate::event::Fingerprint;
use crate::sync::Ordering;

use super::Set;
use super::batch::Times;
use super::generations::Moment;
use super::line::Stored;
use super::shard::{Act, Answer, Core, Held, Shared};

/// What was recorded, with its times in nanoseconds: in event time the events', otherwise the start of the generation.
#[derive(Debug, Default, Clone)]
pub(crate) struct Changes {
    /// Ids seen for the first time.
    pub(crate) seen: Vec<(Fingerprint, i64)>,
    /// Ids whose window starts again.
    pub(crate) refreshed: Vec<(Fingerprint, i64)>,
}

impl Changes {
    pub(super) fn forget(&mut self, fingerprint: Fingerprint) {
        self.seen.retain(|(seen, _)| *seen != fingerprint);
        self.refreshed.retain(|(refreshed, _)| *refreshed != fingerprint);
    }

    fn take(&mut self, other: &mut Self) {
        self.seen.append(&mut other.seen);
        self.refreshed.append(&mut other.refreshed);
    }
}

impl Core {
    /// Gathers a new id, at the time of its event if it has one.
    #[inline]
    pub(super) fn gather(&mut self, shared: &Shared, fingerprint: Fingerprint, time: Option<i64>) {
        let time = time.unwrap_or_else(|| shared.generations.start_of_newest(self.era));
        self.changes.seen.push((fingerprint, time));
        shared.note_change();
    }
}

impl Shared {
    #[inline]
    fn note_change(&self) {
        if !self.has_changes.load(Ordering::Relaxed) {
            self.has_changes.swap(true, Ordering::AcqRel);
        }
    }
}

impl Held<'_> {
    /// Gathers an id whose window starts again, where changes are gathered.
    #[cold]
    pub(super) fn gather_refresh(&mut self, fingerprint: Fingerprint, time: Option<i64>) {
        if self.common.gathers {
            let time = time.unwrap_or_else(|| self.common.generations.start_of_newest(self.core.era));
            self.core.changes.refreshed.push((fingerprint, time));
            self.common.note_change();
        }
    }

    /// Records what was seen, or seen again, at `moment` before a restart. False without room.
    fn restore(&mut self, fingerprint: Fingerprint, moment: Moment, is_refresh: bool) -> bool {
        let (root, stored) = (self.root(fingerprint), Stored::of(fingerprint));
        let (era, is_event_time) = (self.core.era, self.is_event_time());
        let found = self.segment(root, stored).and_then(|segment| {
            let place = segment.find(stored, |mark| {
                let generation = mark.generation(era.newest);
                let counts = match (is_event_time, is_refresh) {
                    // The one entry that there may be.
                    (false, _) => true,
                    (true, false) => generation == moment.generation,
                    (true, true) => moment.window.contains(generation),
                };
                !mark.is_pending() && !era.has_expired(mark) && counts
            })?;
            Some((place, segment.mark(place)))
        });
        match found {
            Some((_, mark)) if mark.generation(era.newest) >= moment.generation => return true,
            Some((_, mark)) if is_event_time => {
                self.extend(fingerprint, mark, moment.generation);
                return true;
            }
            Some((place, mark)) => {
                if let Some(mut segment) = self.segment(root, stored) {
                    segment.free(place);
                }
                self.uncount(mark.generation(era.newest));
            }
            None => {}
        }
        self.record(fingerprint, Some(moment.time), Act::Restore, Answer::New) == Answer::New
    }
}

impl Set {
    /// Whether any changes are gathered.
    #[inline]
    pub(crate) fn has_changes(&self) -> bool {
        self.common.has_changes.load(Ordering::Relaxed)
    }

    /// Adds all changes that were gathered before the call to `changes`.
    ///
    /// # Cost
    /// Takes each shard's lock once, when there are any.
    pub(crate) fn take_changes(&self, changes: &mut Changes) {
        if !self.common.has_changes.swap(false, Ordering::AcqRel) {
            return;
        }
        for shard in &self.shards {
            changes.take(&mut shard.lock().changes);
        }
    }

    /// How far time has come: with `clock` for the present, or in event time the highest time seen.
    pub(crate) fn engine_time(&self, clock: i64) -> i64 {
        let front = self.common.generations.front();
        match self.common.generations.limits().lateness {
            None => front.map_or(clock, |front| front.max(clock)),
            Some(_) => front.unwrap_or(clock),
        }
    }

    /// The highest time that was seen, if any.
    pub(crate) fn front(&self) -> Option<i64> {
        self.common.generations.front()
    }

    /// Everything that was recorded at an earlier time than this is forgotten.
    pub(crate) fn remembers_from(&self) -> i64 {
        self.common.generations.remembers_from()
    }

    /// Makes room for `ids` in the `share`th of `shares` parts of the shards, as far as there is memory: for who is about to
    /// restore about so many.
    pub(crate) fn presize_share(&self, ids: u64, share: usize, shares: usize) {
        if ids == 0 {
            return;
        }
        let count = self.shards.len();
        for shard in &self.shards[count * share / shares..count * (share + 1) / shares] {
            let roots = shard.roots.len();
            let each = ids as f64 / count as f64 / roots as f64;
            for root in 0..roots {
                if self.hold(shard).presize(root, each).is_err() {
                    return;
                }
            }
        }
    }

    /// Moves time to `front`, as far as it was before a restart.
    pub(crate) fn restore_front(&self, front: i64) {
        self.common.generations.restore_front(front);
    }

    /// Processing time: records what was seen, or seen again, at `now` before a restart, when nothing later was; returns
    /// for how many there was no room. Nothing is counted as a question once [`Set::forget_answers`] was called.
    pub(crate) fn restore(&self, fingerprints: &[Fingerprint], now: i64) -> u64 {
        let mut full = 0;
        let copy = |range, out: &mut Vec<_>| out.extend_from_slice(&fingerprints[range]);
        self.ask_batch(fingerprints.len(), copy, Times::Now(now), Act::Restore, |answers| {
            full += answers.iter().filter(|answer| answer.is_unjudged()).count() as u64;
        });
        full
    }

    /// Records what was seen, or seen again, at `time` before a restart, whatever else was. False without room for it.
    pub(crate) fn restore_at(&self, fingerprint: Fingerprint, time: i64, is_refresh: bool) -> bool {
        if self.common.generations.generation_at(time).is_err() {
            // Forgotten by now.
            return true;
        }
        let moment = self.common.generations.peek_event(time);
        self.hold_for(fingerprint).restore(fingerprint, moment, is_refresh)
    }

    /// Counts from zero: what a recovery did is no question.
    pub(crate) fn forget_answers(&self) {
        for shard in &self.shards {
            let mut held = self.hold(shard);
            held.core.answers = [0; Answer::COUNT];
            held.core.moved = 0;
        }
    }
}
