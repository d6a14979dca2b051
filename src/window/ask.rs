//! Questions: what an ID is told while its shard is held, and how a new one is recorded.

use crate::event::Fingerprint;

use super::block::{Lines, Question, Run};
use super::directory::{SegmentRef, Slot};
use super::generations::Moment;
use super::line::{Entry, Mark, Stored};
use super::places::Keep;
#[cfg(all(target_arch = "x86_64", not(any(miri, loom))))]
use super::probe::with_avx2;
use super::probe::{Common, Found, Kernel, Probe};
use super::segment::Quick;
use super::shard::{Act, Answer, Core, Held, Shared};
use super::{LookedUp, prefetch_far};

impl Core {
    /// Processing time: asks the home line of one question, if that was looked up in what is named still. Nothing was done when
    /// the answer is neither new nor seen.
    ///
    /// # Safety
    /// `self` is the core of the shard of `found`, and the segment of `found` has lines that can be asked in generation `newest`
    /// without being cleaned first: [`Slot::is_at_hand`] said so after it was looked up.
    #[inline(always)]
    pub(super) unsafe fn ask<P: Probe>(
        &mut self,
        probe: P,
        shared: &Shared,
        found: LookedUp<'_>,
        newest: u64,
        fingerprint: Fingerprint,
        act: Act,
    ) -> Found {
        debug_assert!(found.segment.has_lines());
        let is_current = shared.generations.era() == self.era && newest == self.era.newest;
        let is_named_still = found.version == found.shard.version.get();
        if !(is_current & is_named_still) || self.room_at_hand(shared, act.state()) == 0 {
            return Found::Unusual;
        }
        // SAFETY: the segment has lines, as the caller promises; the version says that a slot of this shard still names them, and
        // the shard is held by whoever has `self`, so nobody else has a reference to one.
        let line = unsafe { &mut *found.line };
        let found = match act {
            Act::Observe | Act::Gather => probe.ask(line, fingerprint, &self.seen),
            Act::Reserve | Act::Restore => probe.ask(line, fingerprint, &self.common(shared, act)),
        };
        match found {
            Found::New => self.settle_new(shared, act, 1),
            Found::Seen => self.answers[Answer::Seen as usize] += 1,
            Found::Elsewhere | Found::Unusual => {}
        }
        found
    }

    #[inline(always)]
    fn common(&self, shared: &Shared, act: Act) -> Common {
        match act {
            Act::Observe | Act::Gather => self.seen,
            Act::Reserve | Act::Restore => Common::new(self.era, act.state(), shared.extend | (act == Act::Restore)),
        }
    }

    /// The segment that `slot` names, unless it takes a closer look: it has no lines, moved, or must be cleaned.
    #[inline]
    fn at_hand(&self, slot: &Slot) -> Option<SegmentRef> {
        let segment = slot.segment();
        slot.is_at_hand(segment, self.era.newest).then_some(segment)
    }

    /// Counts common answers. There must have been room at hand for the new ones.
    #[inline(always)]
    fn settle(&mut self, shared: &Shared, act: Act, new: u64, seen: u64) {
        self.answers[Answer::Seen as usize] += seen;
        self.settle_new(shared, act, new);
    }

    #[inline(always)]
    fn settle_new(&mut self, shared: &Shared, act: Act, new: u64) {
        self.answers[Answer::New as usize] += new;
        match act {
            Act::Reserve => self.pending += new,
            Act::Observe | Act::Gather | Act::Restore => self.count_seen(shared, new),
        }
    }

    /// Counts ids that are seen from now on. There must have been room at hand for them.
    #[inline(always)]
    pub(super) fn count_seen(&mut self, shared: &Shared, ids: u64) {
        let mask = self.counts.len() as u64 - 1;
        self.counts[(self.era.newest & mask) as usize] += ids as u32;
        if shared.counts_ids() {
            self.allowance.ids -= ids;
        }
    }
}

/// The questions of a run, while they are asked.
struct Asking<'a, 'b, K> {
    common: Common,
    new: u64,
    seen: u64,
    answers: &'a mut [Answer],
    ahead: &'a mut Lines<'b>,
    keep: &'a mut K,
}

impl<K: Keep> Asking<'_, '_, K> {
    /// Asks the home line of each question, up to the first that it does not answer: how many were answered, and what became
    /// of that one.
    ///
    /// # Safety
    /// The lines that the questions name are those of a shard that is held, and nobody else has a reference to them.
    #[inline(always)]
    unsafe fn go_on<P: Probe>(
        &mut self,
        probe: P,
        questions: &[Question],
        fingerprints: &[Fingerprint],
    ) -> (usize, Found) {
        let (mut new, mut seen) = (0, 0);
        let mut result = (questions.len(), Found::New);
        let common = self.common;
        let (answers, mut ahead) = (&mut *self.answers, self.ahead.clone());
        for (at, question) in questions.iter().enumerate() {
            if let Some(line) = ahead.next() {
                prefetch_far(*line);
            }
            // SAFETY: as the caller promises; null when there is none.
            let Some(line) = (unsafe { question.line().as_mut() }) else {
                result = (at, Found::Unusual);
                break;
            };
            let index = question.index();
            match probe.ask(line, fingerprints[index], &common) {
                Found::New => {
                    new += 1;
                    self.keep.keep(fingerprints[index], line);
                }
                Found::Seen => {
                    seen += 1;
                    answers[index] = Answer::Seen;
                }
                found => {
                    result = (at, found);
                    break;
                }
            }
        }
        *self.ahead = ahead;
        self.new += new;
        self.seen += seen;
        result
    }
}

impl Held<'_> {
    /// Processing time: answers those questions of a run that their home lines alone can answer, and puts off the others,
    /// whose other lines are on their way then. Of the questions about one ID those before the first that is put off are
    /// answered, and no later one: so each ID is asked about in order.
    pub(super) fn ask_run<K: Keep>(
        &mut self,
        run: Run<'_>,
        act: Act,
        answers: &mut [Answer],
        put_off: &mut Vec<u16>,
        ahead: &mut Lines<'_>,
        keep: &mut K,
    ) {
        let has_room = self.core.room_at_hand(self.common, act.state()) >= run.questions.len() as u64;
        if !has_room || !self.is_named_still(&run) {
            put_off.extend(run.questions.iter().map(|question| question.index() as u16));
            return;
        }
        let common = self.core.common(self.common, act);
        let mut asking = Asking { common, new: 0, seen: 0, answers, ahead, keep };
        let mut questions = run.questions;
        while !questions.is_empty() {
            let (answered, found) = match self.common.kernel {
                // SAFETY: the shard is held, and its slots still name the lines.
                Kernel::Portable(probe) => unsafe { asking.go_on(probe, questions, run.fingerprints) },
                #[cfg(all(target_arch = "x86_64", not(any(miri, loom))))]
                Kernel::Avx2(probe) => with_avx2(probe, || {
                    // SAFETY: as above.
                    unsafe { asking.go_on(probe, questions, run.fingerprints) }
                }),
            };
            let Some((question, rest)) = questions[answered..].split_first() else { break };
            let fingerprint = run.fingerprints[question.index()];
            prefetch_far(self.slot(fingerprint).segment().other(Stored::of(fingerprint)));
            put_off.push(question.index() as u16);
            questions = rest;
            if found == Found::Unusual {
                put_off.extend(questions.iter().map(|question| question.index() as u16));
                break;
            }
        }
        let (new, seen) = (asking.new, asking.seen);
        self.core.settle(self.common, act, new, seen);
    }

    /// Whether the lines of a run are still those that the shard's slots name, and none of them must be cleaned first.
    #[inline]
    pub(super) fn is_named_still(&self, run: &Run<'_>) -> bool {
        run.version == self.shard.version.get() && run.newest == self.core.era.newest
    }

    /// Processing time: answers those of a shard's questions that were put off which their two lines can answer, and leaves
    /// the others, whose further lines are on their way then. In order for each ID, as for [`Held::ask_run`].
    pub(super) fn ask_put_off(
        &mut self,
        fingerprints: &[Fingerprint],
        indices: &[u16],
        act: Act,
        answers: &mut [Answer],
        left: &mut Vec<u16>,
    ) {
        match self.common.kernel {
            Kernel::Portable(probe) => self.ask_both_of_each(probe, fingerprints, indices, act, answers, left),
            #[cfg(all(target_arch = "x86_64", not(any(miri, loom))))]
            Kernel::Avx2(probe) => {
                with_avx2(probe, || self.ask_both_of_each(probe, fingerprints, indices, act, answers, left));
            }
        }
    }

    #[inline(always)]
    fn ask_both_of_each<P: Probe>(
        &mut self,
        probe: P,
        fingerprints: &[Fingerprint],
        indices: &[u16],
        act: Act,
        answers: &mut [Answer],
        left: &mut Vec<u16>,
    ) {
        for (at, index) in indices.iter().enumerate() {
            let place = usize::from(*index);
            match self.ask_both(probe, fingerprints[place], act) {
                Quick::New => answers[place] = Answer::New,
                Quick::Seen => answers[place] = Answer::Seen,
                Quick::Full => left.push(*index),
                Quick::Unusual => {
                    left.extend_from_slice(&indices[at..]);
                    break;
                }
            }
        }
    }

    #[inline(always)]
    fn ask_both<P: Probe>(&mut self, probe: P, fingerprint: Fingerprint, act: Act) -> Quick {
        let stored = Stored::of(fingerprint);
        if self.core.room_at_hand(self.common, act.state()) == 0 {
            return Quick::Unusual;
        }
        let Some(segment) = self.core.at_hand(self.slot(fingerprint)) else { return Quick::Unusual };
        let common = self.core.common(self.common, act);
        let mut segment = self.core.open(segment);
        let quick = segment.ask(probe, stored, &common);
        if quick == Quick::Full {
            segment.prefetch_targets(stored);
        }
        self.core.settle(self.common, act, u64::from(quick == Quick::New), u64::from(quick == Quick::Seen));
        quick
    }

    /// Processing time: answers a question that its home line has not answered.
    #[inline(never)]
    pub(super) fn ask_closely(&mut self, fingerprint: Fingerprint, act: Act, found: Found) -> Answer {
        if found == Found::Elsewhere {
            let quick = match self.common.kernel {
                Kernel::Portable(probe) => self.ask_both(probe, fingerprint, act),
                #[cfg(all(target_arch = "x86_64", not(any(miri, loom))))]
                Kernel::Avx2(probe) => with_avx2(probe, || self.ask_both(probe, fingerprint, act)),
            };
            match quick {
                Quick::New => return Answer::New,
                Quick::Seen => return Answer::Seen,
                Quick::Full | Quick::Unusual => {}
            }
        }
        self.ask(fingerprint, act)
    }

    /// Processing time: answers for `fingerprint`, and records it when it is new.
    #[cold]
    #[inline(never)]
    pub(super) fn ask(&mut self, fingerprint: Fingerprint, act: Act) -> Answer {
        let answer = self.judge(fingerprint, act);
        self.note(answer);
        answer
    }

    /// Event time: the same at `moment`.
    pub(super) fn ask_event(&mut self, fingerprint: Fingerprint, moment: Moment, act: Act) -> Answer {
        let answer = self.judge_event(fingerprint, moment, act);
        self.note(answer);
        if act == Act::Gather && answer.is_first() {
            self.core.gather(self.common, fingerprint, Some(moment.time));
        }
        answer
    }

    /// Counts by index, without a branch: which answer it is cannot be predicted.
    #[inline]
    fn note(&mut self, answer: Answer) {
        self.core.answers[answer as usize] += 1;
    }

    fn judge(&mut self, fingerprint: Fingerprint, act: Act) -> Answer {
        let stored = Stored::of(fingerprint);
        let era = self.core.era;
        let segment = self.segment_named(self.root(fingerprint), stored);
        if !segment.has_lines() {
            return self.record(fingerprint, None, act, Answer::New);
        }
        let state = act.state();
        let has_room = self.has_room_at_hand(state);
        let mut segment = self.open(segment);
        let Some(place) = segment.find_only(stored) else {
            if has_room && segment.insert(Entry { stored, mark: Mark::new(state, era.newest) }, era) {
                self.use_room_at_hand(state);
                self.count(state, era.newest);
                return Answer::New;
            }
            return self.record(fingerprint, None, act, Answer::New);
        };
        let mark = segment.mark(place);
        if mark.is_pending() {
            return Answer::InFlight;
        }
        if era.has_expired(mark) {
            segment.free(place);
            return self.record(fingerprint, None, act, Answer::Reappeared);
        }
        if mark.age(era.newest) != 0 {
            if act == Act::Restore {
                self.extend(fingerprint, mark, era.newest);
            } else if self.common.extend {
                self.extend(fingerprint, mark, era.newest);
                self.gather_refresh(fingerprint, None);
            }
        }
        Answer::Seen
    }

    /// In event time an ID may have several entries, a window apart or more: late events still ask about each of them.
    fn judge_event(&mut self, fingerprint: Fingerprint, moment: Moment, act: Act) -> Answer {
        let stored = Stored::of(fingerprint);
        let root = self.root(fingerprint);
        let era = self.core.era;
        let (mut known, mut in_flight) = (0, false);
        // One that is seen comes first: what the question is about is known then, whatever becomes of one that is pending.
        let found = self.segment(root, stored).and_then(|segment| {
            let place = segment.find(stored, |mark| {
                known += 1;
                in_flight |= mark.is_pending();
                !mark.is_pending() && !era.has_expired(mark) && moment.window.contains(mark.generation(era.newest))
            })?;
            Some(segment.mark(place))
        });
        if let Some(mark) = found {
            if self.common.extend && mark.generation(era.newest) < moment.generation {
                self.extend(fingerprint, mark, moment.generation);
                self.gather_refresh(fingerprint, Some(moment.time));
            }
            return Answer::Seen;
        }
        if in_flight {
            return Answer::InFlight;
        }
        if moment.window.first < era.horizon
            && self.common.generations.has_ended_among(moment.window.first..era.horizon)
        {
            // The watermark passed while this question waited for the lock, and what it asks for may be forgotten.
            return Answer::Late;
        }
        if known >= REPEATS_MAX {
            self.forget_oldest(root, stored);
        }
        let answer = if known > 0 { Answer::Reappeared } else { Answer::New };
        self.record(fingerprint, Some(moment.time), act, answer)
    }

    /// Makes room when one ID has as many entries as it may: only where events may be many windows late, or repeats extend.
    /// What is lost by that is counted.
    #[cold]
    pub(super) fn forget_oldest(&mut self, root: usize, stored: Stored) {
        let era = self.core.era;
        let Some(mut segment) = self.segment(root, stored) else { return };
        let mut oldest = None;
        segment.find(stored, |mark| {
            oldest = oldest.max(Some(mark.age(era.newest)));
            false
        });
        let Some(place) = segment.find(stored, |mark| Some(mark.age(era.newest)) == oldest) else { return };
        let mark = segment.mark(place);
        segment.free(place);
        if !era.has_expired(mark) {
            self.uncount(mark.generation(era.newest));
            self.core.evicted_early += 1;
        }
    }

    /// Records a new id: in processing time (no `time`) in the newest generation, in event time in the one of its time.
    #[cold]
    #[inline(never)]
    pub(super) fn record(&mut self, fingerprint: Fingerprint, time: Option<i64>, act: Act, answer: Answer) -> Answer {
        let (root, stored) = (self.root(fingerprint), Stored::of(fingerprint));
        let state = act.state();
        if !self.take_room(state) {
            return Answer::Full;
        }
        loop {
            // Taking room may have opened a generation, and making room may have retired one.
            let generation = match time {
                Some(time) => self.generation_of(time),
                None => Some(self.core.era.newest),
            };
            let Some(generation) = generation else {
                self.return_room(state);
                return Answer::Full;
            };
            let era = self.core.era;
            let entry = Entry { stored, mark: Mark::new(state, generation) };
            if self.segment(root, stored).is_some_and(|mut segment| segment.insert(entry, era)) {
                self.charge(state, generation);
                return answer;
            }
            if self.grow(root, stored) {
                continue;
            }
            if self.segment(root, stored).is_some_and(|mut segment| segment.insert_hard(entry, era)) {
                self.charge(state, generation);
                return answer;
            }
            if !self.evict(root, stored) {
                self.return_room(state);
                return Answer::Full;
            }
        }
    }

    /// The newest generation of an event time, and the shard brought to where it is known. `None` when it is forgotten: an
    /// entry in any other generation would make duplicates of events that are none.
    fn generation_of(&mut self, time: i64) -> Option<u64> {
        let generation = self.common.generations.generation_at(time).ok()?;
        self.catch_up();
        (generation >= self.core.era.horizon).then_some(generation)
    }

    /// Forgets the oldest generation, so that the segment of `stored` may have room again.
    #[cold]
    fn evict(&mut self, root: usize, stored: Stored) -> bool {
        let slot = self.shard.roots[root].slot(stored);
        if slot.segment().is_empty() || !self.common.generations.limits().evict {
            return false;
        }
        if !self.common.generations.retire_early() {
            return false;
        }
        self.catch_up();
        let slot = self.shard.roots[root].slot(stored);
        self.clean(root, slot.segment(), slot.cleaned(), stored.c);
        true
    }
}

/// Entries of one ID at a time, in event time, of the ten places that it has. Unless repeats extend, they are a window
/// apart or more, and kept for window, lateness and slack: so many are enough for a lateness of six windows less a slack.
/// With more, two IDs that fill their places can hardly share a line: where all do, eight take nearly three times the
/// memory per entry of seven.
pub(super) const REPEATS_MAX: u32 = 7;
