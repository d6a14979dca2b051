//! One lock's share of the set: what a question does while it holds the lock.
//!
//! A shard never goes back in time: under its lock it reads the generations afresh, and they only move forward, so a
//! thread that was held up between reading the clock and asking finds the shard's time, not its own.
//!
//! Lock order: shard, then generations or memory; neither of these two ever takes another lock.

use std::ops::Range;

use crate::event::Fingerprint;
use crate::sync::{Mutex, MutexGuard};

use super::batch::{Question, Run};
use super::directory::{Root, SegmentRef, Slot, root_of, roots_of_shard};
use super::generations::{Generations, Moment, Taken};
use super::line::{Entry, Mark, State, Stored};
use super::memory::Memory;
use super::segment::{Common, Era, Quick, Segment};

/// What the shards of a set have in common.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) generations: Generations,
    pub(super) memory: Mutex<Memory>,
    pub(super) shape: Shape,
    /// Whether a repeat makes its ID count from now on.
    pub(super) extend: bool,
}

/// How the set is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Shape {
    /// Log2 of the number of shards.
    pub(crate) shard_bits: u32,
    /// Roots of the shard that has the fewest.
    pub(crate) roots: usize,
    /// Log2 of the lines in the largest segment.
    pub(crate) class_max: u32,
}

/// One shard.
#[derive(Debug)]
pub(super) struct Shard {
    pub(super) roots: Box<[Root]>,
    core: Mutex<Core>,
}

/// What the lock guards.
#[derive(Debug)]
pub(super) struct Core {
    /// As far as this shard has come.
    pub(super) era: Era,
    /// Ids seen, by generation modulo the length of the ring.
    pub(super) counts: Box<[u32]>,
    /// Room taken ahead in the newest generation; unused without limits.
    allowance: Taken,
    /// How often each [`Answer`] was given.
    answers: [u64; Answer::COUNT],
    /// Ids reserved and not yet resolved.
    pending: u64,
    evicted_early: u64,
    /// Entries moved because a segment was split, grown or cleaned.
    pub(super) moved: u64,
    /// Ids forgotten since the last sweep.
    pub(super) forgotten: u64,
    /// Every directory there was: readers without the lock may still look at old ones.
    pub(super) directories: Vec<Box<[Slot]>>,
}

/// What happened in a shard, in ids.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) live: u64,
    pub(crate) pending: u64,
    pub(crate) first_seen: u64,
    pub(crate) duplicates: u64,
    pub(crate) in_flight: u64,
    pub(crate) reappeared: u64,
    pub(crate) late: u64,
    pub(crate) full: u64,
    pub(crate) evicted_early: u64,
    pub(crate) moved: u64,
}

/// What a question wants when the ID is new.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Act {
    /// To mark it seen at once.
    Observe,
    /// To reserve it.
    Reserve,
}

impl Answer {
    const COUNT: usize = Self::Full as usize + 1;
}

impl Act {
    fn state(self) -> State {
        match self {
            Self::Observe => State::Seen,
            Self::Reserve => State::Pending,
        }
    }
}

/// The answer to a question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answer {
    /// First seen: nothing was known of the ID.
    New,
    /// First seen: the ID was known, and its window has ended.
    Reappeared,
    /// Duplicate.
    Seen,
    /// Reserved and not resolved.
    InFlight,
    /// The event's time is before the low watermark.
    Late,
    /// No room, and nothing to evict.
    Full,
}

impl Shard {
    pub(super) fn new(number: usize, shape: &Shape, era: Era, ring_length: usize) -> Self {
        let count = roots_of_shard(number, 1 << shape.shard_bits, shape.roots);
        let slots: Box<[Slot]> = (0..count).map(|_| Slot::new(SegmentRef::empty(0), era.newest)).collect();
        let roots = slots.chunks(1).map(Root::new).collect();
        let core = Core {
            era,
            counts: vec![0; ring_length].into_boxed_slice(),
            allowance: Taken { generation: era.newest, ids: 0 },
            answers: [0; Answer::COUNT],
            pending: 0,
            evicted_early: 0,
            moved: 0,
            forgotten: 0,
            directories: vec![slots],
        };
        Self { roots, core: Mutex::new(core) }
    }

    /// Bytes of the shard that are there from the start.
    pub(super) fn bytes(&self) -> usize {
        let core = self.lock();
        size_of::<Self>()
            + size_of_val(&*self.roots)
            + size_of_val(&*core.counts)
            + core.directories.iter().map(|slots| size_of_val(&**slots)).sum::<usize>()
    }

    /// Locks the shard and brings it to the present.
    pub(super) fn hold<'a>(&'a self, common: &'a Shared) -> Held<'a> {
        let mut held = Held { roots: &self.roots, core: self.lock(), common };
        held.catch_up();
        held
    }

    fn lock(&self) -> MutexGuard<'_, Core> {
        self.core.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    #[inline]
    pub(super) fn root(&self, fingerprint: Fingerprint, shard_bits: u32) -> &Root {
        &self.roots[root_of(fingerprint, shard_bits, self.roots.len())]
    }
}

/// A shard whose lock is held.
#[derive(Debug)]
pub(super) struct Held<'a> {
    pub(super) roots: &'a [Root],
    pub(super) core: MutexGuard<'a, Core>,
    pub(super) common: &'a Shared,
}

impl Held<'_> {
    /// What happened in this shard.
    pub(super) fn tally(&self) -> Tally {
        let core = &*self.core;
        let given = |answer: Answer| core.answers[answer as usize];
        Tally {
            live: core.counts.iter().copied().map(u64::from).sum(),
            pending: core.pending,
            first_seen: given(Answer::New) + given(Answer::Reappeared),
            duplicates: given(Answer::Seen),
            in_flight: given(Answer::InFlight),
            reappeared: given(Answer::Reappeared),
            late: given(Answer::Late),
            full: given(Answer::Full),
            evicted_early: core.evicted_early,
            moved: core.moved,
        }
    }

    /// Forgets what was retired since the shard was last held.
    #[inline]
    pub(super) fn catch_up(&mut self) {
        let era = self.common.generations.era();
        if era != self.core.era {
            self.enter(era);
        }
    }

    #[cold]
    fn enter(&mut self, era: Era) {
        let before = self.core.era;
        let gone = before.horizon..era.horizon.min(before.newest + 1).max(before.horizon);
        if !gone.is_empty() {
            for early in self.common.generations.early_among(gone.clone()) {
                self.core.evicted_early += self.forget_counts(early);
            }
            self.forget_counts(gone);
        }
        if self.core.allowance.generation != era.newest {
            self.return_allowance(era.newest);
        }
        self.core.era = era;
    }

    fn forget_counts(&mut self, generations: Range<u64>) -> u64 {
        let mask = self.core.counts.len() as u64 - 1;
        let ids = generations.map(|g| u64::from(std::mem::take(&mut self.core.counts[(g & mask) as usize]))).sum();
        self.core.forgotten += ids;
        ids
    }

    fn return_allowance(&mut self, newest: u64) {
        let unused = std::mem::replace(&mut self.core.allowance, Taken { generation: newest, ids: 0 });
        if unused.ids > 0 {
            self.common.generations.give_back(unused);
        }
    }

    #[inline]
    pub(super) fn root(&self, fingerprint: Fingerprint) -> usize {
        root_of(fingerprint, self.common.shape.shard_bits, self.roots.len())
    }

    /// The segment of `stored`, clean enough that every tag in it can be told. `None` while it has no memory.
    fn segment(&mut self, root: usize, stored: Stored) -> Option<Segment<'_>> {
        let segment = self.segment_at(self.roots[root].slot(stored), root, stored);
        segment.has_lines().then(|| self.open(segment))
    }

    /// Names the segment of `stored`, clean enough that every tag in it can be told. `slot` was found before the lock
    /// was taken: it may be of an old directory by now.
    #[inline]
    fn segment_at(&mut self, slot: &Slot, root: usize, stored: Stored) -> SegmentRef {
        let segment = slot.segment();
        if segment.has_lines() && self.core.era.newest - slot.cleaned() <= CLEAN_AFTER {
            return segment;
        }
        self.segment_again(root, stored)
    }

    #[cold]
    #[inline(never)]
    fn segment_again(&mut self, root: usize, stored: Stored) -> SegmentRef {
        let slot = self.roots[root].slot(stored);
        let segment = slot.segment();
        if segment.has_lines() && self.core.era.newest - slot.cleaned() > CLEAN_AFTER {
            self.clean(root, segment, slot.cleaned(), stored);
        }
        segment
    }

    /// The lines of `segment`, which must be one that a slot of this shard names now.
    #[inline]
    pub(super) fn open(&mut self, segment: SegmentRef) -> Segment<'_> {
        // SAFETY: the slot names a chunk of `1 << class` lines that `Memory` handed out and that is released only after
        // no slot names it (invariants 1 and 2 of `memory`). All access to a shard's chunks goes through its lock, which
        // `self` holds, and the borrow of `self` keeps a second `Segment` from being opened meanwhile.
        Segment::new(unsafe { std::slice::from_raw_parts_mut(segment.lines(), 1 << segment.class()) })
    }

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

    /// Processing time: answers for `fingerprint`, and records it when it is new. `slot` was its slot at some time.
    #[inline]
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

    #[inline]
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
            let era = self.core.era;
            let generation = time.map_or(era.newest, |time| self.generation_of(time));
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

    /// The newest generation of an event time; the oldest there is when its own was forgotten meanwhile.
    fn generation_of(&self, time: i64) -> u64 {
        let generation = self.common.generations.generation_at(time).unwrap_or(self.core.era.horizon);
        generation.clamp(self.core.era.horizon, self.core.era.newest)
    }

    /// Counts an id for which room was taken, in the generation that it belongs to.
    fn charge(&mut self, state: State, generation: u64) {
        if state == State::Seen && self.counts_ids() && generation != self.core.allowance.generation {
            self.common.generations.recharge(self.core.allowance.generation, generation);
        }
        self.count(state, generation);
    }

    fn is_event_time(&self) -> bool {
        self.common.generations.limits().lateness.is_some()
    }

    #[inline]
    fn count(&mut self, state: State, generation: u64) {
        if state == State::Pending {
            self.core.pending += 1;
            return;
        }
        let mask = self.core.counts.len() as u64 - 1;
        self.core.counts[(generation & mask) as usize] += 1;
    }

    fn uncount(&mut self, generation: u64) {
        let mask = self.core.counts.len() as u64 - 1;
        self.core.counts[(generation & mask) as usize] -= 1;
        if self.counts_ids() {
            self.common.generations.give_back(Taken { generation, ids: 1 });
        }
    }

    /// Whether generations have a size: under any limit.
    #[inline]
    fn counts_ids(&self) -> bool {
        self.common.generations.limits().generation_ids != u64::MAX
    }

    #[inline]
    fn limits_ids(&self) -> bool {
        self.common.generations.limits().max_ids != u64::MAX
    }

    /// Whether there is room for one id without asking the generations for it.
    #[inline]
    fn has_room_at_hand(&self, state: State) -> bool {
        match state {
            State::Pending => !self.limits_ids(),
            _ => !self.counts_ids() || self.core.allowance.ids > 0,
        }
    }

    #[inline]
    fn use_room_at_hand(&mut self, state: State) {
        if state == State::Seen && self.counts_ids() {
            self.core.allowance.ids -= 1;
        }
    }

    /// Takes room for one id under the limits. False when there is none.
    #[inline]
    fn take_room(&mut self, state: State) -> bool {
        match state {
            State::Pending => !self.limits_ids() || self.take_pending(),
            _ => !self.counts_ids() || self.take_allowance(),
        }
    }

    fn return_room(&mut self, state: State) {
        match state {
            State::Pending if self.limits_ids() => self.common.generations.give_back_pending(),
            State::Seen if self.counts_ids() => self.core.allowance.ids += 1,
            _ => {}
        }
    }

    fn take_pending(&mut self) -> bool {
        let room = self.common.generations.take_pending();
        self.catch_up();
        room
    }

    fn take_allowance(&mut self) -> bool {
        if self.core.allowance.ids == 0 {
            let limits = self.common.generations.limits();
            let shards = 1 << self.common.shape.shard_bits;
            let wanted = (limits.generation_ids / (4 * shards)).clamp(1, 64);
            let Some(taken) = self.common.generations.take(wanted) else { return false };
            self.core.allowance = taken;
            // Keeps what was just taken, unless yet another generation was opened meanwhile.
            self.catch_up();
            if self.core.allowance.ids == 0 {
                return self.take_allowance();
            }
        }
        self.core.allowance.ids -= 1;
        true
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

    /// Moves a seen entry to a later generation. Without room for it there, it stays where it is.
    #[cold]
    fn extend(&mut self, fingerprint: Fingerprint, mark: Mark, generation: u64) {
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

    /// Processing time: marks a reserved id as seen. `slot` was its slot at some time.
    #[inline]
    pub(super) fn commit_at(&mut self, slot: &Slot, fingerprint: Fingerprint) {
        let stored = Stored::of(fingerprint);
        let newest = self.core.era.newest;
        let segment = self.segment_at(slot, self.root(fingerprint), stored);
        if !segment.has_lines() || self.limits_ids() || !self.has_room_at_hand(State::Seen) {
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
        if self.limits_ids() {
            self.common.generations.give_back_pending();
        }
        if self.counts_ids() {
            // Its own place was given back just now. Should another id have taken it, this one still counts: what was
            // delivered must not be forgotten for a limit.
            self.take_allowance();
        }
        let era = self.core.era;
        let generation = generation.unwrap_or(era.newest).clamp(era.horizon, era.newest);
        if let Some(mut segment) = self.segment(root, stored)
            && let Some(place) = segment.find(stored, Mark::is_pending)
        {
            segment.set_mark(place, Mark::new(State::Seen, generation));
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

    /// What a question would find, without recording anything.
    pub(super) fn peek(&mut self, fingerprint: Fingerprint, moment: Option<Moment>) -> Answer {
        let stored = Stored::of(fingerprint);
        let root = self.root(fingerprint);
        let era = self.core.era;
        let Some(segment) = self.segment(root, stored) else { return Answer::New };
        let mut known = false;
        let found = segment.find(stored, |mark| {
            known = true;
            let counts = moment.is_none_or(|moment| moment.window.contains(mark.generation(era.newest)));
            mark.is_pending() || !era.has_expired(mark) && counts
        });
        match found {
            Some(place) if segment.mark(place).is_pending() => Answer::InFlight,
            Some(_) => Answer::Seen,
            None if known => Answer::Reappeared,
            None => Answer::New,
        }
    }

    /// Makes a seen id unknown again. False when it is not known, or only reserved.
    pub(super) fn forget(&mut self, fingerprint: Fingerprint) -> bool {
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

/// A segment is cleaned when it is asked and was not for this many generations. More often would move entries for
/// nothing, less often leaves overflow marks of ids long gone. Tags can be told for as long as this, a whole ring and
/// some more stay below their range.
pub(super) const CLEAN_AFTER: u64 = 80;
/// Entries of one ID at a time, in event time.
const REPEATS_MAX: u32 = 4;
