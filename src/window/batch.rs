//! Many questions at once: their cache misses overlap, and each shard is locked once for all that concern it.
//!
//! Questions are worked off in blocks. First all of a block are hashed, their home lines are looked up in the directory
//! without a lock, and they are put into one bucket per shard, in order. Then each shard is held once while its bucket is
//! worked off, and with each question one line of the next block is asked for, so that lines arrive while the processor
//! computes. What needs a second line is put off until all buckets are through, and that line has come.
//!
//! A line that was looked up without the lock is asked only if the shard's [`Version`] is still what it was before. Else its
//! directory may name another line by now, and the whole bucket is put off, to be looked up again under the lock.

use std::mem::MaybeUninit;
use std::ops::Range;

use super::directory::{ADDRESS_BITS, Slot, Version};
use super::generations::Moment;
use super::line::{Line, Stored};
#[cfg(all(target_arch = "x86_64", not(any(miri, loom))))]
use super::probe::with_avx2;
use super::probe::{Kernel, Probe};
use super::shard::{Act, Answer, Held};
use super::{Set, When, prefetch, prefetch_far, shard_of, slot_of};
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
    fingerprints: Vec<Fingerprint>,
    /// The buckets one after the other, each of `1 << bucket_bits` places.
    places: Box<[MaybeUninit<Question>]>,
    bucket_bits: u32,
    /// How many places of each bucket are filled.
    lengths: Box<[u16]>,
    /// The shard that is asked first: a random one, so that threads do not follow each other from lock to lock.
    first: usize,
    /// How many questions came before this block.
    start: usize,
    /// The lines of all questions, in the order in which they were asked, and how many of them were asked for.
    lines: Vec<*mut Line>,
    /// Where their segments are named.
    slots: Vec<&'a Slot>,
    asked_for: usize,
    /// What the lines were looked up in: the newest generation, and by shard.
    newest: u64,
    versions: Box<[Version]>,
}

/// A question whose line is on its way: which one of the block it is, above the address of its home line, as it was before
/// the lock was taken. The address is zero when it has none, or one that must be cleaned first.
#[derive(Clone, Copy, Debug)]
pub(super) struct Question(u64);

impl Question {
    #[inline]
    fn new(line: *mut Line, index: usize) -> Self {
        Self(line.expose_provenance() as u64 | (index as u64) << ADDRESS_BITS)
    }

    #[inline]
    pub(super) fn index(self) -> usize {
        (self.0 >> ADDRESS_BITS) as usize
    }

    #[inline]
    pub(super) fn line(self) -> *mut Line {
        std::ptr::with_exposed_provenance_mut((self.0 & ((1 << ADDRESS_BITS) - 1)) as usize)
    }
}

/// The questions of a block that concern one shard.
#[derive(Clone, Copy, Debug)]
pub(super) struct Run<'a> {
    pub(super) questions: &'a [Question],
    /// Of all questions of the block.
    pub(super) fingerprints: &'a [Fingerprint],
    /// What their lines were looked up in.
    pub(super) newest: u64,
    pub(super) version: Version,
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
                if questions > FEW {
                    return self.ask_blocks(questions, hash, act, take);
                }
                let mut fingerprints = Vec::with_capacity(questions);
                hash(0..questions, &mut fingerprints);
                match self.common.kernel {
                    Kernel::Portable(probe) => take(&self.ask_few(probe, &fingerprints, act)),
                    #[cfg(all(target_arch = "x86_64", not(any(miri, loom))))]
                    Kernel::Avx2(probe) => take(&with_avx2(probe, || self.ask_few(probe, &fingerprints, act))),
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

    /// Answers so few that hardly two concern one shard: one by one, but their lines come together. In plain loops: what
    /// iterators would do in functions of their own is not compiled for vectors.
    #[inline(always)]
    fn ask_few<P: Probe>(&self, probe: P, fingerprints: &[Fingerprint], act: Act) -> Vec<Answer> {
        let mut slots = Vec::with_capacity(fingerprints.len());
        for fingerprint in fingerprints {
            let slot = self.slot(self.shard_of(*fingerprint), *fingerprint);
            prefetch(slot.segment().home(Stored::of(*fingerprint)));
            slots.push(slot);
        }
        let mut answers = Vec::with_capacity(fingerprints.len());
        for (fingerprint, slot) in fingerprints.iter().zip(&slots) {
            answers.push(self.ask_at(probe, slot, *fingerprint, act));
        }
        answers
    }

    fn ask_blocks(
        &self,
        questions: usize,
        hash: impl FnMut(Range<usize>, &mut Vec<Fingerprint>),
        act: Act,
        mut take: impl FnMut(&[Answer]),
    ) {
        let mut answers = Vec::new();
        let (mut put_off, mut left) = (Vec::new(), Vec::new());
        self.each_block(questions, hash, |block, ahead| {
            answers.clear();
            answers.resize(block.fingerprints.len(), Answer::New);
            block.each_run(|shard, run| {
                self.hold(shard).ask_run(run, act, &mut answers, &mut put_off, ahead);
            });
            self.each_put_off(block, &put_off, |held, indices| {
                held.ask_put_off(&block.fingerprints, indices, act, &mut answers, &mut left);
            });
            put_off.clear();
            self.each_put_off(block, &left, |held, indices| {
                for index in indices {
                    let index = usize::from(*index);
                    answers[index] = held.ask(block.fingerprints[index], act);
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
                |held, index, fingerprint| {
                    let given = moments[index].map(|moment| held.ask_event(fingerprint, moment, act));
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
                let mut put_off = Vec::new();
                let hash = |range, out: &mut Vec<_>| out.extend_from_slice(&fingerprints[range]);
                self.each_block(fingerprints.len(), hash, |block, ahead| {
                    block.each_run(|shard, run| self.hold(shard).commit_run(run, &mut put_off, ahead));
                    self.each_put_off(block, &put_off, |held, indices| {
                        indices.iter().for_each(|index| held.commit_at(block.fingerprints[usize::from(*index)]));
                    });
                    put_off.clear();
                });
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
        mut act: impl FnMut(&mut Held<'_>, usize, Fingerprint),
    ) {
        self.each_block(questions, hash, |block, _| {
            block.each_run(|shard, run| {
                let mut held = self.hold(shard);
                for question in run.questions {
                    let index = question.index();
                    act(&mut held, block.start + index, block.fingerprints[index]);
                }
            });
        });
    }

    /// Calls `act` for each block of questions, with the lines of the next one, which it may ask for meanwhile.
    #[inline(always)]
    fn each_block<F: FnMut(Range<usize>, &mut Vec<Fingerprint>)>(
        &self,
        questions: usize,
        hash: F,
        mut act: impl FnMut(&Block<'_>, &mut Lines<'_>),
    ) {
        let mut coming = Coming::new(questions, hash);
        let mut block = Block::new(self, questions);
        let mut next = Block::new(self, questions);
        coming.fill(self, &mut block);
        while !block.lines.is_empty() {
            block.lines[block.asked_for..].iter().for_each(|line| prefetch_far(*line));
            coming.fill(self, &mut next);
            let mut ahead = next.lines.iter();
            act(&block, &mut ahead);
            next.asked_for = next.lines.len() - ahead.len();
            std::mem::swap(&mut block, &mut next);
        }
    }

    /// Calls `act` for each shard of the questions that were put off, holding it, with those that concern it.
    #[inline]
    fn each_put_off(&self, block: &Block<'_>, put_off: &[u16], mut act: impl FnMut(&mut Held<'_>, &[u16])) {
        let shard_of = |index: u16| self.shard_of(block.fingerprints[usize::from(index)]);
        for indices in put_off.chunk_by(|a, b| shard_of(*a) == shard_of(*b)) {
            act(&mut self.hold(shard_of(indices[0])), indices);
        }
    }
}

/// Lines that will be wanted.
pub(super) type Lines<'a> = std::slice::Iter<'a, *mut Line>;

/// Questions that are not in a block yet.
struct Coming<F> {
    /// Those that are not hashed yet.
    questions: Range<usize>,
    hash: F,
    /// Those that were hashed, and for which the last block had no place.
    left: Vec<Fingerprint>,
    /// How many were put into blocks.
    placed: usize,
    /// Questions in a block: all blocks of a batch are of about one size.
    block: usize,
}

impl<F: FnMut(Range<usize>, &mut Vec<Fingerprint>)> Coming<F> {
    fn new(questions: usize, hash: F) -> Self {
        let block = questions.div_ceil(questions.div_ceil(BLOCK).max(1));
        Self { questions: 0..questions, hash, left: Vec::new(), placed: 0, block }
    }

    /// Hashes as many questions as a block takes, looks up their lines, and puts them into the buckets of `block`, until one
    /// is full.
    #[inline(never)]
    fn fill<'a>(&mut self, set: &'a Set, block: &mut Block<'a>) {
        block.fingerprints.clear();
        block.fingerprints.append(&mut self.left);
        let Range { start, end } = self.questions;
        self.questions.start = end.min(start + self.block - block.fingerprints.len());
        (self.hash)(start..self.questions.start, &mut block.fingerprints);
        match set.common.kernel {
            #[cfg(all(target_arch = "x86_64", not(any(miri, loom))))]
            Kernel::Avx2(probe) => with_avx2(probe, || block.place(set)),
            Kernel::Portable(_) => block.place(set),
        }
        self.left.extend(block.fingerprints.drain(block.lines.len()..));
        block.start = self.placed;
        self.placed += block.lines.len();
    }
}

impl<'a> Block<'a> {
    fn new(set: &Set, questions: usize) -> Self {
        let shards = set.shards.len();
        let most = (BUCKETS_PLACES / shards).max(BUCKET_PLACES_MIN).min(questions.next_power_of_two());
        let bucket_bits = most.ilog2();
        let places = Box::new_uninit_slice(shards << bucket_bits);
        let lengths = vec![0; shards].into_boxed_slice();
        let versions = vec![Version::default(); shards].into_boxed_slice();
        let questions = questions.min(BLOCK);
        let (fingerprints, slots, lines) =
            (Vec::with_capacity(questions), Vec::with_capacity(questions), Vec::with_capacity(questions));
        Self {
            fingerprints,
            places,
            bucket_bits,
            lengths,
            first: 0,
            start: 0,
            lines,
            slots,
            asked_for: 0,
            newest: 0,
            versions,
        }
    }

    /// Looks up the lines of all fingerprints, and puts them into the buckets, until one is full.
    #[inline(always)]
    fn place(&mut self, set: &'a Set) {
        self.newest = set.common.generations.era().newest;
        self.note_versions(set);
        self.lines.clear();
        self.asked_for = 0;
        let (newest, shard_bits) = (self.newest, set.common.shape.shard_bits);
        self.slots.clear();
        for fingerprint in &self.fingerprints {
            let slot = slot_of(&set.roots[shard_of(*fingerprint, shard_bits)], *fingerprint, shard_bits);
            prefetch(slot);
            self.slots.push(slot);
        }
        self.lines.resize(self.fingerprints.len(), std::ptr::null_mut());
        for ((line, slot), fingerprint) in self.lines.iter_mut().zip(&self.slots).zip(&self.fingerprints) {
            *line = slot.line_at_hand(Stored::of(*fingerprint), newest);
        }
        self.lengths.fill(0);
        self.first = self.fingerprints.first().map_or(0, |fingerprint| set.shard_of(*fingerprint));
        let (places, lengths, bucket_bits) = (&mut *self.places, &mut *self.lengths, self.bucket_bits);
        let mut placed = self.lines.len();
        for (index, (fingerprint, line)) in self.fingerprints.iter().zip(&self.lines).enumerate() {
            let shard = shard_of(*fingerprint, shard_bits);
            let length = &mut lengths[shard];
            places[shard << bucket_bits | usize::from(*length)].write(Question::new(*line, index));
            *length += 1;
            if *length >> bucket_bits != 0 {
                placed = index + 1;
                break;
            }
        }
        self.lines.truncate(placed);
    }

    /// Before lines are looked up: see [`Version`].
    #[inline]
    fn note_versions(&mut self, set: &Set) {
        for (version, now) in self.versions.iter_mut().zip(&set.common.versions) {
            *version = now.get();
        }
    }

    /// Calls `act` for each shard that is asked, with its questions.
    #[inline]
    fn each_run(&self, mut act: impl FnMut(usize, Run<'_>)) {
        for shard in (self.first..self.lengths.len()).chain(0..self.first) {
            let length = usize::from(self.lengths[shard]);
            if length > 0 {
                let first = shard << self.bucket_bits;
                let places = &self.places[first..first + length];
                // SAFETY: `place` wrote the first `length` places of each bucket, and an initialised question is laid out as
                // one that may be.
                let questions = unsafe { &*(std::ptr::from_ref(places) as *const [Question]) };
                let (newest, version) = (self.newest, self.versions[shard]);
                act(shard, Run { questions, fingerprints: &self.fingerprints, newest, version });
            }
        }
    }
}

/// Up to so many questions are answered one by one: with twice as many, sorting them by shard pays.
const FEW: usize = 64;
/// Questions in a block: their lines stay in the second-level cache.
const BLOCK: usize = 1024;
/// Places of all buckets: several times as many as questions, so that they seldom fill before the block does.
const BUCKETS_PLACES: usize = 4 * BLOCK;
const BUCKET_PLACES_MIN: usize = 16;
const _: () = assert!(BLOCK <= 1 << 16, "what is put off is named by 16 bits");

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
