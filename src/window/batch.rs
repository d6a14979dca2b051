//! Many questions at once: their cache misses overlap, and each shard is locked once for all that concern it.
//!
//! Questions are worked off in blocks. First all of a block are hashed, their home lines are looked up in the directory
//! without a lock, and they are put into one bucket per shard, in order. Then each shard is held once while its bucket is
//! worked off, and with each question one line of the next block is asked for, so that lines arrive while the processor
//! computes. What needs a second line is put off until all buckets are through, and that line has come.
//!
//! A line that was looked up without the lock is asked only if the shard's [`Version`](super::directory::Version) is still
//! what it was before. Else its directory may name another line by now, and the whole bucket is put off, to be looked up
//! again under the lock. The blocks themselves are in [`block`](super::block).

use std::ops::Range;

use super::block::{BLOCK, Block};
use super::generations::Moment;
use super::places::{Keep, Places};
#[cfg(all(target_arch = "x86_64", not(any(miri, loom))))]
use super::probe::with_avx2;
use super::probe::{Kernel, Probe};
use super::shard::{Act, Answer, Held};
use super::{Set, When, prefetch};
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

impl Set {
    /// Answers `questions` questions, handing their answers to `take` in order, some hundred at a time. `hash` appends
    /// the fingerprints of a range of them; it is called for all of them in order, and ahead of the answers.
    pub(crate) fn ask_batch(
        &self,
        questions: usize,
        hash: impl FnMut(Range<usize>, &mut Vec<Fingerprint>),
        times: Times<'_>,
        act: Act,
        take: impl FnMut(&[Answer]),
    ) {
        self.ask_and_keep(questions, hash, times, act, take, &mut ());
    }

    /// [`Set::ask_batch`] that reserves; with where it stands what is reserved, when it pays to know that.
    pub(crate) fn reserve_batch(
        &self,
        fingerprints: &[Fingerprint],
        times: Times<'_>,
        take: impl FnMut(&[Answer]),
    ) -> Option<Places> {
        let copy = |range: Range<usize>, out: &mut Vec<_>| out.extend_from_slice(&fingerprints[range]);
        // With a limit on ids each new one takes a closer look, and none is told where it stands.
        if fingerprints.len() <= FEW || !matches!(times, Times::Now(_)) || self.common.limits_ids() {
            self.ask_batch(fingerprints.len(), copy, times, Act::Reserve, take);
            return None;
        }
        let mut places = Places::with_capacity(fingerprints.len());
        self.ask_and_keep(fingerprints.len(), copy, times, Act::Reserve, take, &mut places);
        places.end();
        Some(places)
    }

    #[inline(always)]
    fn ask_and_keep<K: Keep>(
        &self,
        questions: usize,
        mut hash: impl FnMut(Range<usize>, &mut Vec<Fingerprint>),
        times: Times<'_>,
        act: Act,
        mut take: impl FnMut(&[Answer]),
        keep: &mut K,
    ) {
        match times {
            Times::Now(now) if questions == 1 => {
                let mut fingerprints = Vec::with_capacity(1);
                hash(0..1, &mut fingerprints);
                fingerprints.iter().for_each(|fingerprint| take(&[self.ask_now(|| *fingerprint, || now, act)]));
            }
            Times::Now(now) => {
                self.common.generations.observe_clock(now);
                if questions > FEW {
                    return self.ask_blocks(questions, hash, act, take, keep);
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
                self.ask_events(questions, hash, times, clock, act, |answers, _| take(answers));
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
        let mut all_found = Vec::with_capacity(fingerprints.len());
        for fingerprint in fingerprints {
            let found = self.look_up(*fingerprint);
            prefetch(found.line);
            all_found.push(found);
        }
        let mut answers = Vec::with_capacity(fingerprints.len());
        for (fingerprint, found) in fingerprints.iter().zip(&all_found) {
            answers.push(self.ask_at(probe, *found, *fingerprint, act));
        }
        answers
    }

    fn ask_blocks<K: Keep>(
        &self,
        questions: usize,
        hash: impl FnMut(Range<usize>, &mut Vec<Fingerprint>),
        act: Act,
        mut take: impl FnMut(&[Answer]),
        keep: &mut K,
    ) {
        let mut answers = Vec::new();
        let (mut put_off, mut left) = (Vec::new(), Vec::new());
        self.each_block(questions, hash, |block, ahead| {
            answers.clear();
            answers.resize(block.fingerprints.len(), Answer::New);
            block.each_run(|shard, run| {
                self.hold(&self.shards[shard]).ask_run(run, act, &mut answers, &mut put_off, ahead, keep);
                keep.end_run(shard, &run);
            });
            if !block.spilled.is_empty() {
                // All of a shard's together, or those that spilled would be asked before what is left of the others.
                put_off.extend_from_slice(&block.spilled);
                put_off.sort_by_key(|index| self.shard_of(block.fingerprints[usize::from(*index)]));
            }
            self.each_put_off(block, &put_off, |held, indices| {
                held.ask_put_off(&block.fingerprints, indices, act, &mut answers, &mut left);
            });
            self.each_put_off(block, &left, |held, indices| {
                for index in indices {
                    let index = usize::from(*index);
                    answers[index] = held.ask(block.fingerprints[index], act);
                }
            });
            left.clear();
            let new = put_off.drain(..).map(usize::from).filter(|index| answers[*index].is_first());
            new.for_each(|index| keep.keep_other(block.fingerprints[index]));
            take(&answers);
        });
    }

    /// Event time: the same, with the times that new ones were recorded at: an event too far ahead to be believed is recorded
    /// at an earlier time than its own. A portion ends before an event that makes the set forget, as the ones before it may
    /// still ask for what is forgotten then.
    pub(crate) fn ask_events(
        &self,
        questions: usize,
        mut hash: impl FnMut(Range<usize>, &mut Vec<Fingerprint>),
        times: &[Timestamp],
        clock: i64,
        act: Act,
        mut take: impl FnMut(&[Answer], &[i64]),
    ) {
        let times = &times[..questions.min(times.len())];
        let mut start = 0;
        let mut moments: Vec<Result<Moment, Answer>> = Vec::with_capacity(BLOCK.min(times.len()));
        let (mut answers, mut recorded) = (Vec::new(), Vec::new());
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
            recorded.clear();
            recorded.extend(moments.iter().map(|moment| moment.map_or(i64::MIN, |moment| moment.time)));
            take(&answers, &recorded);
            start += moments.len();
        }
    }

    /// Marks reserved fingerprints as seen.
    pub(crate) fn commit_batch(&self, fingerprints: &[Fingerprint], times: Times<'_>) {
        match times {
            Times::Now(now) => {
                self.common.generations.observe_clock(now);
                if fingerprints.len() <= FEW {
                    let commit = |fingerprint: &Fingerprint| self.hold_for(*fingerprint).commit_at(*fingerprint);
                    return fingerprints.iter().for_each(commit);
                }
                let mut put_off = Vec::new();
                let hash = |range, out: &mut Vec<_>| out.extend_from_slice(&fingerprints[range]);
                self.each_block(fingerprints.len(), hash, |block, ahead| {
                    block.each_run(|shard, run| self.hold(&self.shards[shard]).commit_run(run, &mut put_off, ahead));
                    put_off.extend_from_slice(&block.spilled);
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
                let mut held = self.hold(&self.shards[shard]);
                for question in run.questions {
                    let index = question.index();
                    act(&mut held, block.start + index, block.fingerprints[index]);
                }
            });
            self.each_put_off(block, &block.spilled, |held, indices| {
                for index in indices.iter().map(|index| usize::from(*index)) {
                    act(held, block.start + index, block.fingerprints[index]);
                }
            });
        });
    }

    /// Calls `act` for each shard of the questions that were put off, holding it, with those that concern it.
    #[inline]
    fn each_put_off(&self, block: &Block<'_>, put_off: &[u16], mut act: impl FnMut(&mut Held<'_>, &[u16])) {
        let shard_of = |index: u16| self.shard_of(block.fingerprints[usize::from(index)]);
        for indices in put_off.chunk_by(|a, b| shard_of(*a) == shard_of(*b)) {
            act(&mut self.hold_for(block.fingerprints[usize::from(indices[0])]), indices);
        }
    }
}

/// Up to so many questions are answered one by one: with twice as many, sorting them by shard pays.
const FEW: usize = 64;

#[cfg(all(test, not(loom)))]
mod tests {
    use super::super::{Config, Limits, Shape};
    use super::*;

    const WINDOW: i64 = 64_000;

    /// Two shards of one root, in segments of at most four lines: they fill, split and are cleaned all the time.
    fn set(extend: bool) -> Set {
        set_of(Shape { shard_bits: 1, roots: 1, class_max: 2 }, extend)
    }

    fn set_of(shape: Shape, extend: bool) -> Set {
        let (max_ids, generation_ids) = (u64::MAX, u64::MAX);
        let limits = Limits { window: WINDOW, lateness: None, max_future: 0, max_ids, generation_ids, evict: true };
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

    fn reserve_together(set: &Set, ids: &[u64], now: i64) -> (Vec<Answer>, Option<Places>) {
        let (mut answers, fingerprints) = (Vec::new(), ids.iter().map(|n| id(*n)).collect::<Vec<_>>());
        let places = set.reserve_batch(&fingerprints, Times::Now(now), |some| answers.extend_from_slice(some));
        (answers, places)
    }

    /// Of 256 shards each has a small bucket, and most questions concern one of them.
    #[test]
    fn what_spills_is_answered_in_order() {
        let set = set_of(Shape { shard_bits: 8, roots: 1, class_max: 2 }, false);
        // The first is new in each batch, and one in three is the same.
        for round in 0..if cfg!(miri) { 1 } else { 6_u64 } {
            let ids: Vec<u64> = (0..if cfg!(miri) { 600 } else { 3_000 })
                .map(|n| round * 10_000 + if n % 3 == 0 { 0 } else { n })
                .collect();
            let act = [Act::Observe, Act::Reserve][round as usize % 2];
            let again = [Answer::Seen, Answer::InFlight][round as usize % 2];
            for (index, answer) in ask_together(&set, &ids, 0, act).into_iter().enumerate() {
                assert_eq!(answer, if index > 0 && index % 3 == 0 { again } else { Answer::New }, "{index}");
            }
            let fingerprints: Vec<_> = ids.iter().map(|n| id(*n)).collect();
            set.commit_batch(&fingerprints, Times::Now(0));
            assert_eq!(set.tally().pending, 0);
            assert!(ask_together(&set, &ids, 0, act).iter().all(|answer| *answer == Answer::Seen));
        }
    }

    /// Two ids of one shard, whose bucket is too small for them: once the first is pending, what is left of the bucket waits.
    #[test]
    fn what_spills_is_not_answered_before_what_is_left_of_its_bucket() {
        let set = set_of(Shape { shard_bits: 8, roots: 1, class_max: 2 }, false);
        ask_together(&set, &(0..4_000).collect::<Vec<_>>(), 0, Act::Observe);
        let shard = |n: u64| set.shard_of(id(n));
        let one = 10_000;
        let other = (one + 1..).find(|n| shard(*n) == shard(one)).expect("a neighbour");
        // Of other shards, which put something off, too.
        let strangers = (20_000..20_200).filter(|n| shard(*n) != shard(one));
        let mut ids = vec![one; 10];
        ids.extend([other; 40]);
        ids.extend(strangers.flat_map(|n| [n; 2]));
        let answers = ask_together(&set, &ids, 0, Act::Reserve);
        let first = |wanted: u64| ids.iter().zip(&answers).position(|(n, answer)| *n == wanted && answer.is_first());
        assert_eq!((first(one), first(other)), (Some(0), Some(10)));
    }

    /// One segment, so full when ids are reserved that the next ones move some of these to their other lines.
    #[test]
    fn what_has_moved_since_it_was_reserved_is_committed() {
        for round in 0..if cfg!(miri) { 2 } else { 200 } {
            let set = set_of(Shape { shard_bits: 0, roots: 1, class_max: 8 }, false);
            let mut next = round * 10_000;
            let mut new = |count: u64| {
                next += count;
                (next - count..next).collect::<Vec<_>>()
            };
            ask_together(&set, &new(700), 0, Act::Observe);
            let ids = new(300 + round % 17 * 10);
            let (_, places) = reserve_together(&set, &ids, 0);
            let mut places = places.expect("many");
            ask_together(&set, &new(round % 60), 0, Act::Observe);
            let fingerprints = std::mem::take(places.fingerprints());
            set.commit_placed(&fingerprints, &places, 0);
            assert_eq!(set.tally().pending, 0);
            assert!(ask_together(&set, &ids, 0, Act::Observe).iter().all(|answer| *answer == Answer::Seen));
        }
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
            for round in 0..12 {
                now += [0, 10, 900, 20_000, 70_000, 2_000_000_000][random(6) as usize];
                let length = [0, 1, 9, 200, if cfg!(miri) { 300 } else { 1_500 }][random(5) as usize];
                let ids: Vec<u64> = (0..length).map(|_| random(domain)).collect();
                let act = [Act::Observe, Act::Reserve][random(2) as usize];
                alone.notice_clock(now);
                let (answers, mut places) = match act {
                    Act::Reserve if random(2) == 0 => reserve_together(&together, &ids, now),
                    _ => (ask_together(&together, &ids, now, act), None),
                };
                let expected: Vec<_> = ids.iter().map(|n| alone.ask(id(*n), When::Now(now), act)).collect();
                let is_first = |answer: &Answer| matches!(answer, Answer::New | Answer::Reappeared);
                assert_eq!(answers.len(), expected.len());
                for ((n, answer), expected) in ids.iter().zip(&answers).zip(&expected) {
                    let same = answer == expected || is_first(answer) && is_first(expected);
                    assert!(same, "seed {seed}: id {n} at {now} is {answer:?}, not {expected:?}");
                }
                if let Some(places) = &mut places {
                    // Others ask meanwhile, so that segments split and entries move, and the generation may change.
                    let others: Vec<u64> =
                        (0..[0, 2, 8, 500][random(4) as usize]).map(|n| 1_000_000 + round * 500 + n).collect();
                    now += [0, 0, 900, 20_000][random(4) as usize];
                    ask_together(&together, &others, now, Act::Observe);
                    alone.notice_clock(now);
                    others
                        .iter()
                        .for_each(|n| assert_eq!(alone.ask(id(*n), When::Now(now), Act::Observe), Answer::New));
                    let fingerprints = std::mem::take(places.fingerprints());
                    together.commit_placed(&fingerprints, places, now);
                    assert!(fingerprints.iter().all(|fingerprint| alone.commit(*fingerprint, When::Now(now))));
                } else if act == Act::Reserve {
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
