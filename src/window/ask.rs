//! Questions: what an ID is told while its shard is held, and how a new one is recorded.

use crate::event::Fingerprint;

use super::batch::{Question, Run};
use super::directory::Slot;
use super::generations::{CLEAN_AFTER, Moment};
use super::line::{Entry, Mark, State, Stored};
use super::segment::{Common, Era, Quick};
use super::shard::{Act, Answer, Held};

impl Held<'_> {
    /// Processing time: answers the questions of a run in order, handing each answer to `answer` with its index.
    #[inline]
    pub(super) fn ask_run(&mut self, run: Run<'_>, act: Act, answer: &mut impl FnMut(usize, Answer)) {
        for (_, question) in run.questions() {
            let segment = question.slot.segment();
            if segment.has_lines() {
                self.open(segment).prefetch_other(Stored::of(question.fingerprint));
            }
        }
        let mut tab = Tab::new(self, act);
        for (index, question) in run.questions() {
            let given = match self.ask_quick(question, &tab) {
                Quick::New => {
                    tab.new += 1;
                    Answer::New
                }
                Quick::Seen => {
                    tab.seen += 1;
                    Answer::Seen
                }
                Quick::Unusual => {
                    tab.settle(self, act);
                    let given = self.ask(question.slot, question.fingerprint, act);
                    tab = Tab::new(self, act);
                    given
                }
            };
            answer(index, given);
        }
        tab.settle(self, act);
    }

    #[inline(always)]
    fn ask_quick(&mut self, question: &Question<'_>, tab: &Tab) -> Quick {
        let segment = question.slot.segment();
        let is_clean = tab.common.newest - question.slot.cleaned() <= CLEAN_AFTER;
        if !(segment.has_lines() & is_clean) | (tab.new >= tab.room) {
            return Quick::Unusual;
        }
        self.open(segment).ask(Stored::of(question.fingerprint), &tab.common)
    }

    /// Processing time: answers one question, the common ones in few instructions.
    #[inline]
    pub(super) fn ask_one(&mut self, slot: &Slot, fingerprint: Fingerprint, act: Act) -> Answer {
        let Era { newest, horizon } = self.core.era;
        let segment = slot.segment();
        let state = act.state();
        if segment.has_lines() & (newest - slot.cleaned() <= CLEAN_AFTER) && self.has_room_at_hand(state) {
            let (mark, extend) = (Mark::new(state, newest), self.common.extend);
            let common = Common { newest, age_max: newest - horizon, mark, extend };
            match self.open(segment).ask(Stored::of(fingerprint), &common) {
                Quick::New => {
                    self.use_room_at_hand(state);
                    self.count(state, newest);
                    self.note(Answer::New);
                    return Answer::New;
                }
                Quick::Seen => {
                    self.note(Answer::Seen);
                    return Answer::Seen;
                }
                Quick::Unusual => {}
            }
        }
        self.ask(slot, fingerprint, act)
    }

    /// Processing time: answers for `fingerprint`, and records it when it is new. `slot` was its slot at some time.
    #[cold]
    #[inline(never)]
    pub(super) fn ask(&mut self, slot: &Slot, fingerprint: Fingerprint, act: Act) -> Answer {
        let answer = self.judge(slot, fingerprint, act);
        self.note(answer);
        answer
    }

    /// Event time: the same at `moment`.
    pub(super) fn ask_event(&mut self, fingerprint: Fingerprint, moment: Moment, act: Act) -> Answer {
        let answer = self.judge_event(fingerprint, moment, act);
        self.note(answer);
        answer
    }

    /// Counts by index, without a branch: which answer it is cannot be predicted.
    #[inline]
    fn note(&mut self, answer: Answer) {
        self.core.answers[answer as usize] += 1;
    }

    fn judge(&mut self, slot: &Slot, fingerprint: Fingerprint, act: Act) -> Answer {
        let stored = Stored::of(fingerprint);
        let era = self.core.era;
        let segment = self.segment_at(slot, self.root(fingerprint), stored);
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
        if self.common.extend && mark.age(era.newest) != 0 {
            self.extend(fingerprint, mark, era.newest);
        }
        Answer::Seen
    }

    /// In event time an ID may have several entries, a window apart or more: late events still ask about each of them.
    fn judge_event(&mut self, fingerprint: Fingerprint, moment: Moment, act: Act) -> Answer {
        let stored = Stored::of(fingerprint);
        let root = self.root(fingerprint);
        let era = self.core.era;
        let mut known = 0;
        let found = self.segment(root, stored).and_then(|segment| {
            let place = segment.find(stored, |mark| {
                known += 1;
                mark.is_pending() || !era.has_expired(mark) && moment.window.contains(mark.generation(era.newest))
            })?;
            Some(segment.mark(place))
        });
        if let Some(mark) = found {
            if mark.is_pending() {
                return Answer::InFlight;
            }
            if self.common.extend && mark.generation(era.newest) < moment.generation {
                self.extend(fingerprint, mark, moment.generation);
            }
            return Answer::Seen;
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

    /// Makes room when one ID fills its places all alone; what is lost by that is counted.
    #[cold]
    fn forget_oldest(&mut self, root: usize, stored: Stored) {
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
    fn record(&mut self, fingerprint: Fingerprint, time: Option<i64>, act: Act, answer: Answer) -> Answer {
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
        let slot = self.roots[root].slot(stored);
        if slot.segment().is_empty() || !self.common.generations.limits().evict {
            return false;
        }
        if !self.common.generations.retire_early() {
            return false;
        }
        self.catch_up();
        let slot = self.roots[root].slot(stored);
        self.clean(root, slot.segment(), slot.cleaned(), stored);
        true
    }
}

/// Common answers of a run that are not counted in the shard yet.
struct Tab {
    common: Common,
    /// New ids for which there is room at hand.
    room: u64,
    new: u64,
    seen: u64,
}

impl Tab {
    fn new(held: &Held<'_>, act: Act) -> Self {
        let Era { newest, horizon } = held.core.era;
        let (state, extend) = (act.state(), held.common.extend);
        let room = match (state, held.counts_ids()) {
            (State::Seen, true) => held.core.allowance.ids,
            _ if held.has_room_at_hand(state) => u64::MAX,
            _ => 0,
        };
        let common = Common { newest, age_max: newest - horizon, mark: Mark::new(state, newest), extend };
        Self { common, room, new: 0, seen: 0 }
    }

    fn settle(&self, held: &mut Held<'_>, act: Act) {
        let core = &mut *held.core;
        core.answers[Answer::New as usize] += self.new;
        core.answers[Answer::Seen as usize] += self.seen;
        if act == Act::Reserve {
            core.pending += self.new;
            return;
        }
        let mask = core.counts.len() as u64 - 1;
        core.counts[(self.common.newest & mask) as usize] += self.new as u32;
        if self.room != u64::MAX {
            core.allowance.ids -= self.new;
        }
    }
}

/// Entries of one ID at a time, in event time.
const REPEATS_MAX: u32 = 4;
