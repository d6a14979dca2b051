//! Many questions at once: their cache misses overlap, and each shard is locked once for all that concern it.
//!
//! Questions are worked off in blocks. First all of a block are hashed, their home lines are looked up in the directory as
//! it happens to be (a wrong guess costs time, never an answer), and they are put into one bucket per shard, in order.
//! Then each shard is held once while its bucket is worked off, and with each question one line of the next block is
//! asked for, so that lines arrive while the processor computes. What needs a second line is put off until all buckets are
//! through, and that line has come.

use std::mem::MaybeUninit;
use std::ops::Range;

use super::directory::Slot;
use super::generations::Moment;
use super::line::{Line, Stored};
#[cfg(all(target_arch = "x86_64", not(any(miri, loom))))]
use super::probe::with_avx2;
use super::probe::{Kernel, Probe};
use super::shard::{Act, Answer, Held};
use super::{Set, When, prefetch_far};
use crate::event::Fingerprint;
use crate::time::Timestamp;

/// The times of a batch.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Times<'a> {
    /// Processing time: one for all.
    Now(i64),
    /// One for each, and the present.
    Each { times: &'a [Timestamp], clock: i64 },
}

/// A block of questions by shard, each bucket in the order in which they were asked.
struct Block<'a> {
    /// The buckets one after the other, each of `1 << bucket_bits` places.
    places: Box<[MaybeUninit<Question<'a>>]>,
    bucket_bits: u32,
    /// How many places of each bucket are filled.
    lengths: Box<[u16]>,
    /// The shard that is asked first: a random one, so that threads do not follow each other from lock to lock.
    first: usize,
    questions: Range<usize>,
}

/// A question whose line is on its way.
#[derive(Clone, Copy, Debug)]
pub(super) struct Question<'a> {
    pub(super) fingerprint: Fingerprint,
    /// Where its segment is named, as it was before the lock was taken.
    pub(super) slot: &'a Slot,
    /// Which one of the block it is.
    pub(super) index: u16,
}

/// The questions of a block that concern one shard.
#[derive(Clone, Copy, Debug)]
pub(super) struct Run<'a> {
    /// Where in the block they begin.
    first: usize,
    questions: &'a [Question<'a>],
}

impl<'a> Run<'a> {
    /// Each question with its place in the block.
    #[inline]
    pub(super) fn questions(self) -> impl ExactSizeIterator<Item = (u16, &'a Question<'a>)> {
        self.questions.iter().enumerate().map(move |(place, question)| ((self.first + place) as u16, question))
    }
}

impl Set {
    /// Answers `questions` questions, handing their answers to `take` in order, some hundred at a time. `hash` appends
    /// the fingerprints of a range of them; it is called for all of them in order, and ahead of the answers.
    pub(crate) fn ask_batch(
        &self,
        questions: usize,
        mut hash: impl FnMut(Range<usize>, &mut Vec<Fingerprint>),
        times: Times<'_>,
        act: Act,
        mut take: impl FnMut(&[Answer]),
    ) {
        match times {
            Times::Now(now) if questions == 1 => {
                let mut fingerprints = Vec::with_capacity(1);
                hash(0..1, &mut fingerprints);
                fingerprints.iter().for_each(|fingerprint| take(&[self.ask_now(*fingerprint, now, act)]));
            }
            Times::Now(now) => {
                self.common.generations.observe_clock(now);
                match self.common.kernel {
                    Kernel::Portable(probe) => self.ask_blocks(probe, questions, hash, act, take),
                    #[cfg(all(target_arch = "x86_64", not(any(miri, loom))))]
                    Kernel::Avx2(probe) => {
                        with_avx2(probe, || self.ask_blocks(probe, questions, hash, act, take));
                    }
                }
            }
            Times::Each { times, clock } if self.common.generations.limits().lateness.is_some() => {
                self.ask_events(questions, hash, times, clock, act, take);
            }
            Times::Each { times, .. } => {
                let mut fingerprints = Vec::new();
                hash(0..questions.min(times.len()), &mut fingerprints);
                for (fingerprint, time) in fingerprints.iter().zip(times) {
                    take(&[self.ask(*fingerprint, When::Now(time.as_nanos()), act)]);
                }
            }
        }
    }

    #[inline(always)]
    fn ask_blocks<P: Probe>(
        &self,
        probe: P,
        questions: usize,
        hash: impl FnMut(Range<usize>, &mut Vec<Fingerprint>),
        act: Act,
        mut take: impl FnMut(&[Answer]),
    ) {
        let mut answers = Vec::new();
        let (mut put_off, mut left) = (Vec::new(), Vec::new());
        self.each_block(questions, hash, |block, ahead| {
            answers.clear();
            answers.resize(block.questions.len(), Answer::New);
            for (shard, run) in block.runs() {
                self.hold(shard).ask_run(probe, run, act, &mut answers, &mut put_off, ahead);
            }
            block.each_put_off(&put_off, |shard, questions| {
                self.hold(shard).ask_put_off(questions, act, &mut answers, &mut left);
            });
            put_off.clear();
            block.each_put_off(&left, |shard, questions| {
                let mut held = self.hold(shard);
                for (_, question) in questions {
                    answers[usize::from(question.index)] = held.ask(question.slot, question.fingerprint, act);
                }
            });
            left.clear();
            take(&answers);
        });
    }

    /// Event time: a portion ends before an event that makes the set forget, as the ones before it may still ask for what
    /// is forgotten then.
    fn ask_events(
        &self,
        questions: usize,
        mut hash: impl FnMut(Range<usize>, &mut Vec<Fingerprint>),
        times: &[Timestamp],
        clock: i64,
        act: Act,
        mut take: impl FnMut(&[Answer]),
    ) {
        let times = &times[..questions.min(times.len())];
        let mut start = 0;
        let mut moments: Vec<Result<Moment, Answer>> = Vec::with_capacity(BLOCK.min(times.len()));
        let mut answers = Vec::new();
        while start < times.len() {
            moments.clear();
            for time in times[start..].iter().take(BLOCK).map(|time| time.as_nanos()) {
                if !moments.is_empty() && self.common.generations.event_moves_horizon(time) {
                    break;
                }
                moments.push(self.notice_event(time, clock));
            }
            answers.clear();
            answers.resize(moments.len(), Answer::New);
            self.each_held(
                moments.len(),
                |range, fingerprints| hash(start + range.start..start + range.end, fingerprints),
                |held, index, question| {
                    let given = moments[index].map(|moment| held.ask_event(question.fingerprint, moment, act));
                    answers[index] = given.unwrap_or_else(|unjudged| unjudged);
                },
            );
            take(&answers);
            start += moments.len();
        }
    }

    /// Marks reserved fingerprints as seen.
    pub(crate) fn commit_batch(&self, fingerprints: &[Fingerprint], times: Times<'_>) {
        match times {
            Times::Now(now) => {
                self.common.generations.observe_clock(now);
                self.each_held(
                    fingerprints.len(),
                    |range, out| out.extend_from_slice(&fingerprints[range]),
                    |held, _, question| held.commit_at(question.slot, question.fingerprint),
                );
            }
            Times::Each { times, clock } => {
                let is_event = self.common.generations.limits().lateness.is_some();
                for (fingerprint, time) in fingerprints.iter().zip(times) {
                    let time = time.as_nanos();
                    let when = if is_event { When::Event { time, clock } } else { When::Now(clock) };
                    self.commit(*fingerprint, when);
                }
            }
        }
    }

    /// Calls `act` for each fingerprint with its index, holding its shard.
    #[inline]
    fn each_held(
        &self,
        questions: usize,
        hash: impl FnMut(Range<usize>, &mut Vec<Fingerprint>),
        mut act: impl FnMut(&mut Held<'_>, usize, &Question<'_>),
    ) {
        self.each_block(questions, hash, |block, _| {
            for (shard, run) in block.runs() {
                let mut held = self.hold(shard);
                for question in run.questions {
                    act(&mut held, block.questions.start + usize::from(question.index), question);
                }
            }
        });
    }

    /// Calls `act` for each block of questions, with the lines of the next one, which it may ask for meanwhile.
    #[inline(always)]
    fn each_block<'a, F: FnMut(Range<usize>, &mut Vec<Fingerprint>)>(
        &'a self,
        questions: usize,
        hash: F,
        mut act: impl FnMut(&Block<'a>, &mut Lines<'_>),
    ) {
        let mut block = Block::new(self.shards.len(), questions);
        let mut coming = Coming::new(self, questions, hash);
        coming.hash();
        while coming.fill(&mut block) {
            coming.hash();
            let mut ahead = coming.lines[coming.asked_for..].iter();
            act(&block, &mut ahead);
            coming.asked_for = coming.lines.len() - ahead.len();
        }
    }
}

/// Lines that will be wanted.
pub(super) type Lines<'a> = std::slice::Iter<'a, *const Line>;

/// Questions that come after the block that is worked off.
struct Coming<'a, F> {
    set: &'a Set,
    /// Those that are not hashed yet.
    questions: Range<usize>,
    hash: F,
    /// Of those that are hashed: the fingerprints, where their segments are named, and their home lines, as far as that
    /// can be told without the lock.
    fingerprints: Vec<Fingerprint>,
    slots: Vec<&'a Slot>,
    lines: Vec<*const Line>,
    /// How many of the lines were asked for.
    asked_for: usize,
    /// Questions in a block: all blocks of a batch are of about one size.
    block: usize,
}

impl<'a, F: FnMut(Range<usize>, &mut Vec<Fingerprint>)> Coming<'a, F> {
    fn new(set: &'a Set, questions: usize, hash: F) -> Self {
        let block = questions.div_ceil(questions.div_ceil(BLOCK).max(1));
        let (fingerprints, slots, lines) =
            (Vec::with_capacity(block), Vec::with_capacity(block), Vec::with_capacity(block));
        Self { set, questions: 0..questions, hash, fingerprints, slots, lines, asked_for: 0, block }
    }

    /// Hashes as many questions as a block takes, and looks up their lines. In short passes, so that the processor sees
    /// many questions at a time while it waits for the directory. Never inlined where vector instructions are enabled:
    /// compilers make slow ones of `SipHash`.
    #[inline(never)]
    fn hash(&mut self) {
        let (set, known) = (self.set, self.fingerprints.len());
        let Range { start, end } = self.questions;
        self.questions.start = end.min(start + self.block - known);
        (self.hash)(start..self.questions.start, &mut self.fingerprints);
        let fingerprints = &self.fingerprints[known..];
        self.slots.extend(fingerprints.iter().map(|fingerprint| set.slot(set.shard_of(*fingerprint), *fingerprint)));
        let slots = fingerprints.iter().zip(&self.slots[known..]);
        self.lines.extend(slots.map(|(fingerprint, slot)| slot.segment().home(Stored::of(*fingerprint))));
    }

    /// Puts questions into the buckets of `block`, until one is full, and asks for all lines that were not asked for yet.
    /// False when there are no more questions.
    #[inline(always)]
    fn fill(&mut self, block: &mut Block<'a>) -> bool {
        self.lines[self.asked_for..].iter().for_each(|line| prefetch_far(*line));
        block.lengths.fill(0);
        block.first = self.fingerprints.first().map_or(0, |fingerprint| self.set.shard_of(*fingerprint));
        let mut taken = 0;
        for (fingerprint, slot) in self.fingerprints.iter().zip(&self.slots) {
            let shard = self.set.shard_of(*fingerprint);
            let length = &mut block.lengths[shard];
            let place = shard << block.bucket_bits | usize::from(*length);
            block.places[place].write(Question { fingerprint: *fingerprint, slot, index: taken });
            taken += 1;
            *length += 1;
            if *length == 1 << block.bucket_bits {
                break;
            }
        }
        block.questions = block.questions.end..block.questions.end + usize::from(taken);
        self.fingerprints.drain(..usize::from(taken));
        self.slots.drain(..usize::from(taken));
        self.lines.drain(..usize::from(taken));
        self.asked_for = self.lines.len();
        taken > 0
    }
}

impl<'a> Block<'a> {
    fn new(shards: usize, questions: usize) -> Self {
        let most = (BUCKETS_PLACES / shards).max(BUCKET_PLACES_MIN).min(questions.next_power_of_two());
        let bucket_bits = most.ilog2();
        assert!(shards << bucket_bits <= 1 << u16::BITS, "a place is 16 bits");
        let places = Box::new_uninit_slice(shards << bucket_bits);
        Self { places, bucket_bits, lengths: vec![0; shards].into_boxed_slice(), first: 0, questions: 0..0 }
    }

    /// The shards that are asked, with their questions.
    #[inline]
    fn runs(&self) -> impl Iterator<Item = (usize, Run<'_>)> {
        let shards = (self.first..self.lengths.len()).chain(0..self.first);
        shards.filter(|shard| self.lengths[*shard] > 0).map(|shard| {
            let first = shard << self.bucket_bits;
            let places = &self.places[first..first + usize::from(self.lengths[shard])];
            // SAFETY: `fill` wrote the first `length` places of each bucket, and an initialised question is laid out as
            // one that may be.
            let questions = unsafe { &*(std::ptr::from_ref(places) as *const [Question<'a>]) };
            (shard, Run { first, questions })
        })
    }

    /// Calls `act` for each shard of `places`, with the questions that stand there.
    #[inline]
    fn each_put_off<'b>(
        &'b self,
        places: &'b [u16],
        mut act: impl FnMut(usize, &mut dyn Iterator<Item = (u16, &'b Question<'a>)>),
    ) {
        for places in places.chunk_by(|a, b| self.shard_of(*a) == self.shard_of(*b)) {
            act(self.shard_of(places[0]), &mut places.iter().map(|place| (*place, self.question(*place))));
        }
    }

    fn shard_of(&self, place: u16) -> usize {
        usize::from(place) >> self.bucket_bits
    }

    /// The question at a place that a run named.
    fn question(&self, place: u16) -> &Question<'a> {
        // SAFETY: runs name the places that `fill` wrote, and 16 bits are enough for each.
        unsafe { self.places[usize::from(place)].assume_init_ref() }
    }
}

/// Questions in a block: their lines stay in the second-level cache.
const BLOCK: usize = 512;
/// Places of all buckets: several times as many as questions, so that they seldom fill before the block does.
const BUCKETS_PLACES: usize = 4 * BLOCK;
const BUCKET_PLACES_MIN: usize = 16;

#[cfg(all(test, not(loom)))]
mod tests {
    use super::super::{Config, Limits, Shape};
    use super::*;

    const WINDOW: i64 = 64_000;

    /// Two shards of one root, in segments of at most four lines: they fill, split and are cleaned all the time.
    fn set(extend: bool) -> Set {
        let (max_ids, generation_ids) = (u64::MAX, u64::MAX);
        let limits = Limits { window: WINDOW, lateness: None, max_future: 0, max_ids, generation_ids, evict: true };
        let shape = Shape { shard_bits: 1, roots: 1, class_max: 2 };
        Set::new(&Config { limits, extend, gathers: false, expected_ids: 0, memory_bytes_max: usize::MAX, shape })
            .unwrap()
    }

    fn id(n: u64) -> Fingerprint {
        Fingerprint::from_u128(u128::from(n + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15_F39C_C060_5CED_C835))
    }

    fn ask_together(set: &Set, ids: &[u64], now: i64, act: Act) -> Vec<Answer> {
        let mut answers = Vec::new();
        let hash = |range: Range<usize>, out: &mut Vec<_>| out.extend(ids[range].iter().map(|n| id(*n)));
        set.ask_batch(ids.len(), hash, Times::Now(now), act, |some| answers.extend_from_slice(some));
        answers
    }

    /// Random ids, few enough that each is asked about several times in a batch and is often expired or pending.
    #[test]
    fn a_batch_is_answered_as_one_after_the_other_would_be() {
        let rounds: u64 = if cfg!(miri) { 2 } else { 400 };
        for seed in 0..rounds {
            let mut state: u64 = seed;
            let mut random = move |below: u64| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                (state >> 33) % below
            };
            let extend = random(2) == 0;
            let (together, alone) = (set(extend), set(extend));
            let domain = [3, 40, 400, 4_000][random(4) as usize];
            let mut now = 0;
            for _ in 0..12 {
                now += [0, 10, 900, 20_000, 70_000, 2_000_000_000][random(6) as usize];
                let length = [0, 1, 9, 200, if cfg!(miri) { 300 } else { 1_500 }][random(5) as usize];
                let ids: Vec<u64> = (0..length).map(|_| random(domain)).collect();
                let act = [Act::Observe, Act::Reserve][random(2) as usize];
                alone.notice_clock(now);
                let answers = ask_together(&together, &ids, now, act);
                let expected: Vec<_> = ids.iter().map(|n| alone.ask(id(*n), When::Now(now), act)).collect();
                let is_first = |answer: &Answer| matches!(answer, Answer::New | Answer::Reappeared);
                assert_eq!(answers.len(), expected.len());
                for ((n, answer), expected) in ids.iter().zip(&answers).zip(&expected) {
                    let same = answer == expected || is_first(answer) && is_first(expected);
                    assert!(same, "seed {seed}: id {n} at {now} is {answer:?}, not {expected:?}");
                }
                if act == Act::Reserve {
                    let firsts = ids.iter().zip(&answers).filter(|(_, answer)| is_first(answer)).map(|(n, _)| id(*n));
                    let (committed, released): (Vec<_>, Vec<_>) = firsts.partition(|_| random(3) > 0);
                    together.commit_batch(&committed, Times::Now(now));
                    assert!(committed.iter().all(|fingerprint| alone.commit(*fingerprint, When::Now(now))));
                    assert!(
                        released.iter().all(|fingerprint| together.release(*fingerprint) & alone.release(*fingerprint))
                    );
                }
                let (one, other) = (together.tally(), alone.tally());
                assert_eq!((one.live, one.pending, one.duplicates), (other.live, other.pending, other.duplicates));
            }
        }
    }
}
