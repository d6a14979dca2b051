//! What becomes of an ID after its first question: committed, released, extended, forgotten, looked at.

use std::ops::Range;

use crate::event::Fingerprint;

use super::ask::REPEATS_MAX;
use super::block::{Lines, Question, Run};
use super::generations::{Moment, Range64};
use super::line::{Mark, State, Stored};
use super::prefetch_far;
use super::shard::{Act, Answer, Held};

impl Held<'_> {
    /// Processing time: marks the reserved ids of a run as seen that stand in their home lines, and puts off the others.
    pub(super) fn commit_run(&mut self, run: Run<'_>, put_off: &mut Vec<u16>, ahead: &mut Lines<'_>) {
        let index_of = |question: &Question| question.index() as u16;
        let room = self.core.room_at_hand(self.common, State::Seen);
        if self.common.limits_ids() || room < run.questions.len() as u64 || !self.is_named_still(&run) {
            put_off.extend(run.questions.iter().map(index_of));
            return;
        }
        let seen = Mark::new(State::Seen, self.core.era.newest);
        let mut committed = 0;
        for question in run.questions {
            if let Some(line) = ahead.next() {
                prefetch_far(*line);
            }
            let stored = Stored::of(run.fingerprints[question.index()]);
            // SAFETY: the shard is held, and its slots still name the line; null when they did not.
            let line = unsafe { question.line().as_mut() };
            let place =
                line.as_ref().and_then(|line| line.slot_of(stored).filter(|slot| line.mark(*slot).is_pending()));
            match (line, place) {
                (Some(line), Some(slot)) => {
                    line.set_mark(slot, seen);
                    committed += 1;
                }
                _ => put_off.push(index_of(question)),
            }
        }
        self.core.pending -= committed;
        self.core.count_seen(self.common, committed);
    }

    /// Processing time: marks a reserved id as seen.
    #[inline]
    pub(super) fn commit_at(&mut self, fingerprint: Fingerprint) {
        let stored = Stored::of(fingerprint);
        let newest = self.core.era.newest;
        let segment = self.segment_named(self.root(fingerprint), stored);
        if !segment.has_lines() || self.common.limits_ids() || !self.has_room_at_hand(State::Seen) {
            self.commit(fingerprint, None);
            return;
        }
        let mut segment = self.open(segment);
        let Some(place) = segment.find_only(stored).filter(|place| segment.mark(*place).is_pending()) else { return };
        segment.set_mark(place, Mark::new(State::Seen, newest));
        self.use_room_at_hand(State::Seen);
        self.core.pending -= 1;
        self.count(State::Seen, newest);
    }

    /// Marks a reserved id as seen. False when it is not reserved.
    pub(super) fn commit(&mut self, fingerprint: Fingerprint, generation: Option<u64>) -> bool {
        let stored = Stored::of(fingerprint);
        let root = self.root(fingerprint);
        if self.segment(root, stored).is_none_or(|segment| segment.find(stored, Mark::is_pending).is_none()) {
            return false;
        }
        if self.common.limits_ids() {
            self.common.generations.give_back_pending();
        }
        // Its own place was given back just now. Should another id have taken it, this one still counts: what was delivered
        // must not be forgotten for a limit.
        let has_room = self.take_room(State::Seen);
        let era = self.core.era;
        let generation = generation.unwrap_or(era.newest);
        let is_remembered = generation >= era.horizon;
        if let Some(mut segment) = self.segment(root, stored)
            && let Some(place) = segment.find(stored, Mark::is_pending)
        {
            if is_remembered {
                segment.set_mark(place, Mark::new(State::Seen, generation));
            } else {
                segment.free(place);
            }
        }
        if !is_remembered {
            // A limit made the set forget its time just now: it is counted like any other id of that time.
            self.core.pending -= 1;
            self.core.forgotten += 1;
            self.core.evicted_early += 1;
            if has_room {
                self.return_room(State::Seen);
            }
            return true;
        }
        self.core.pending -= 1;
        self.charge(State::Seen, generation);
        true
    }

    /// Makes a reserved id unknown again. False when it is not reserved.
    pub(super) fn release(&mut self, fingerprint: Fingerprint) -> bool {
        let stored = Stored::of(fingerprint);
        let root = self.root(fingerprint);
        let Some(mut segment) = self.segment(root, stored) else { return false };
        let Some(place) = segment.find(stored, Mark::is_pending) else { return false };
        segment.free(place);
        self.core.pending -= 1;
        self.core.forgotten += 1;
        self.return_room(State::Pending);
        true
    }

    /// Reserves an id also when it is seen, so that its commit starts its window again. In processing time what was seen of it
    /// is forgotten; in event time it stays, as late events may ask for it. In flight when it is reserved already.
    pub(super) fn reserve_anew(&mut self, fingerprint: Fingerprint, moment: Option<Moment>) -> Answer {
        let (root, stored) = (self.root(fingerprint), Stored::of(fingerprint));
        let mut known = 0;
        let pending = self.segment(root, stored).and_then(|segment| {
            segment.find(stored, |mark| {
                known += 1;
                mark.is_pending()
            })
        });
        if pending.is_some() {
            return Answer::InFlight;
        }
        match moment {
            None => {
                self.forget(fingerprint);
            }
            Some(_) if known >= REPEATS_MAX => self.forget_oldest(root, stored),
            Some(_) => {}
        }
        self.record(fingerprint, moment.map(|moment| moment.time), Act::Reserve, Answer::New)
    }

    /// What a question would find, without recording anything.
    pub(super) fn peek(&mut self, fingerprint: Fingerprint, moment: Option<Moment>) -> Answer {
        let stored = Stored::of(fingerprint);
        let root = self.root(fingerprint);
        let era = self.core.era;
        let Some(segment) = self.segment(root, stored) else { return Answer::New };
        let (mut known, mut in_flight) = (false, false);
        let seen = segment.find(stored, |mark| {
            (known, in_flight) = (true, in_flight | mark.is_pending());
            let counts = moment.is_none_or(|moment| moment.window.contains(mark.generation(era.newest)));
            !mark.is_pending() && !era.has_expired(mark) && counts
        });
        match seen {
            Some(_) => Answer::Seen,
            None if in_flight => Answer::InFlight,
            None if known => Answer::Reappeared,
            None => Answer::New,
        }
    }

    /// Whether an id has a live entry that is not pending, in event time one within `window`.
    pub(super) fn is_seen(&mut self, fingerprint: Fingerprint, window: Option<Range64>) -> bool {
        let (root, stored, era) = (self.root(fingerprint), Stored::of(fingerprint), self.core.era);
        let counts = |mark: Mark| window.is_none_or(|window| window.contains(mark.generation(era.newest)));
        let is_live = |mark: Mark| !mark.is_pending() && !era.has_expired(mark) && counts(mark);
        self.segment(root, stored).is_some_and(|segment| segment.find(stored, is_live).is_some())
    }

    /// Makes a seen id unknown again. False when it is not known, or only reserved.
    pub(super) fn forget(&mut self, fingerprint: Fingerprint) -> bool {
        self.core.changes.forget(fingerprint);
        let stored = Stored::of(fingerprint);
        let root = self.root(fingerprint);
        let mut forgotten = false;
        loop {
            let era = self.core.era;
            let Some(mut segment) = self.segment(root, stored) else { return forgotten };
            let Some(place) = segment.find(stored, |mark| !mark.is_pending()) else { return forgotten };
            let mark = segment.mark(place);
            segment.free(place);
            if !era.has_expired(mark) {
                self.uncount(mark.generation(era.newest));
                self.core.forgotten += 1;
                forgotten = true;
            }
        }
    }

    /// Makes a seen id unknown again as far as it was seen in one of `generations`.
    pub(super) fn forget_at(&mut self, fingerprint: Fingerprint, generations: Range<u64>) {
        let stored = Stored::of(fingerprint);
        let (root, newest) = (self.root(fingerprint), self.core.era.newest);
        let Some(mut segment) = self.segment(root, stored) else { return };
        let is_of_these = |mark: Mark| !mark.is_pending() && generations.contains(&mark.generation(newest));
        if let Some(place) = segment.find(stored, is_of_these) {
            let generation = segment.mark(place).generation(newest);
            segment.free(place);
            self.uncount(generation);
            self.core.forgotten += 1;
        }
    }

    /// Moves a seen entry to a later generation. Without room for it there, it stays where it is.
    #[cold]
    pub(super) fn extend(&mut self, fingerprint: Fingerprint, mark: Mark, generation: u64) {
        let (root, stored) = (self.root(fingerprint), Stored::of(fingerprint));
        let before = mark.generation(self.core.era.newest);
        // The entry gives its own place back first, so at the limit nothing has to leave for it.
        self.uncount(before);
        let room = self.take_room(State::Seen);
        let era = self.core.era;
        let after = if self.is_event_time() { generation.max(era.horizon) } else { era.newest };
        let after = if room { after } else { before };
        let found = self.segment(root, stored).and_then(|mut segment| {
            let place = segment.find(stored, |other| other == mark)?;
            segment.set_mark(place, Mark::new(State::Seen, after));
            Some(())
        });
        match found {
            Some(()) => self.charge(State::Seen, after),
            None => self.return_room(State::Seen),
        }
    }
}
