//! The set against the oracle, operation by operation.
//!
//! Goal: no sequence of operations makes the set break its promise. Method: proptest draws sequences over few ids, short
//! and long pauses, and sets whose segments have two to sixteen lines in one or two shards, so that overflow, displacement,
//! splits, expiry in place, cleaning and sweeping all happen within some hundred operations.

mod common;

use std::time::Duration;

use common::oracle::{Expected, Oracle};
use dedupd::{Builder, Clock, Deduplicator, Durability, ManualClock, Reservation, ReserveVerdict, Timestamp, Verdict};
use proptest::prelude::*;

const WINDOW: Duration = Duration::from_secs(64);

#[derive(Clone, Debug)]
enum Operation {
    Observe(u16),
    ObserveBatch(Vec<u16>),
    Reserve(Vec<u16>),
    Commit(usize),
    Release(usize),
    Forget(u16),
    Contains(u16),
    Advance(Duration),
    Maintain,
    /// The process is killed, and the next one finds its state.
    Restart,
}

fn operation(ids: u16) -> impl Strategy<Value = Operation> {
    let some = move || proptest::collection::vec(0..ids, 1..40);
    prop_oneof![
        8 => (0..ids).prop_map(Operation::Observe),
        4 => some().prop_map(Operation::ObserveBatch),
        3 => some().prop_map(Operation::Reserve),
        3 => any::<usize>().prop_map(Operation::Commit),
        1 => any::<usize>().prop_map(Operation::Release),
        1 => (0..ids).prop_map(Operation::Forget),
        2 => (0..ids).prop_map(Operation::Contains),
        4 => (0..3_000_u64).prop_map(|ms| Operation::Advance(Duration::from_millis(ms))),
        1 => (0..200_u64).prop_map(|secs| Operation::Advance(Duration::from_secs(secs))),
        1 => Just(Operation::Advance(Duration::from_secs(20_000))),
        1 => Just(Operation::Maintain),
    ]
}

/// The set, the oracle, and what is reserved.
struct Model {
    dedup: Deduplicator,
    oracle: Oracle,
    clock: ManualClock,
    reserved: Vec<(Reservation, Vec<u16>)>,
    shape: (u32, u32, bool),
    state: Option<tempfile::TempDir>,
}

impl Model {
    fn new(shard_bits: u32, class_max: u32, extend: bool) -> Self {
        let clock = ManualClock::starting_at(Timestamp::from_secs(1_000_000));
        let shape = (shard_bits, class_max, extend);
        let dedup = builder(&clock, shape).build().unwrap();
        let oracle = Oracle::new(WINDOW, dedup.slack());
        let oracle = if extend { oracle.extending() } else { oracle };
        Self { dedup, oracle, clock, reserved: Vec::new(), shape, state: None }
    }

    /// The same with a state on disk.
    fn with_state(shard_bits: u32, class_max: u32, extend: bool) -> Self {
        let state = tempfile::tempdir().unwrap();
        let mut model = Self::new(shard_bits, class_max, extend);
        model.dedup = builder(&model.clock, model.shape).open(state.path()).unwrap();
        model.state = Some(state);
        model
    }

    /// What a process that is killed now leaves behind is what its files hold: the next one opens a copy of them.
    fn restart(&mut self) {
        let Some(state) = &self.state else { return };
        let _ = self.dedup.position();
        let copy = tempfile::tempdir().unwrap();
        for file in std::fs::read_dir(state.path()).unwrap() {
            let file = file.unwrap().path();
            // A segment that is being prepared may be gone by now.
            let _ = std::fs::copy(&file, copy.path().join(file.file_name().unwrap()));
        }
        for (reservation, ids) in self.reserved.drain(..) {
            drop(reservation);
            ids.iter().for_each(|id| self.oracle.forget(&id.to_le_bytes()));
        }
        self.dedup = builder(&self.clock, self.shape).open(copy.path()).unwrap();
        self.state = Some(copy);
    }

    fn judge(&mut self, id: u16, verdict: Verdict) {
        let (id, now) = (id.to_le_bytes(), self.clock.now());
        let expected = self.oracle.expected(&id, now);
        let first_seen = verdict == Verdict::FirstSeen;
        assert!(expected.allows(first_seen), "id {id:?} at {now:?}: {verdict:?}, but {expected:?}");
        self.oracle.record(&id, now, first_seen);
    }

    fn apply(&mut self, operation: Operation) {
        match operation {
            Operation::Observe(id) => {
                let verdict = self.dedup.observe(id.to_le_bytes());
                self.judge(id, verdict);
            }
            Operation::ObserveBatch(ids) => {
                let bytes: Vec<_> = ids.iter().map(|id| id.to_le_bytes()).collect();
                let mut verdicts = Vec::new();
                self.dedup.observe_batch(&bytes, &mut verdicts);
                assert_eq!(verdicts.len(), ids.len());
                ids.iter().zip(verdicts).for_each(|(id, verdict)| self.judge(*id, verdict));
            }
            Operation::Reserve(ids) => self.reserve(&ids),
            Operation::Commit(which) => {
                if let Some((reservation, ids)) = self.take(which) {
                    reservation.commit().unwrap();
                    ids.iter().for_each(|id| self.oracle.commit(&id.to_le_bytes(), self.clock.now()));
                }
            }
            Operation::Release(which) => {
                if let Some((reservation, ids)) = self.take(which) {
                    drop(reservation);
                    ids.iter().for_each(|id| self.oracle.forget(&id.to_le_bytes()));
                }
            }
            Operation::Forget(id) => {
                let id = id.to_le_bytes();
                let expected = self.oracle.expected(&id, self.clock.now());
                let was_known = self.dedup.forget(id).unwrap();
                assert!(expected == Expected::MustBePending && !was_known || expected.allows(!was_known));
                if expected != Expected::MustBePending {
                    self.oracle.forget(&id);
                }
            }
            Operation::Contains(id) => {
                let id = id.to_le_bytes();
                assert!(self.oracle.expected(&id, self.clock.now()).allows(!self.dedup.contains(id)));
            }
            Operation::Advance(by) => self.clock.advance(by),
            Operation::Maintain => {
                self.dedup.maintain(Duration::from_secs(1));
            }
            Operation::Restart => self.restart(),
        }
    }

    fn reserve(&mut self, ids: &[u16]) {
        let bytes: Vec<_> = ids.iter().map(|id| id.to_le_bytes()).collect();
        let reservation = self.dedup.reserve_batch(&bytes).unwrap();
        let mut mine = Vec::new();
        let now = self.clock.now();
        for (id, verdict) in ids.iter().zip(reservation.verdicts()) {
            let key = id.to_le_bytes();
            let expected = self.oracle.expected(&key, now);
            let pending = *verdict == ReserveVerdict::InFlight;
            assert_eq!(pending, expected == Expected::MustBePending, "id {id} is {verdict:?}, but {expected:?}");
            assert!(expected.allows(*verdict == ReserveVerdict::FirstSeen), "id {id} is {verdict:?}, but {expected:?}");
            if *verdict == ReserveVerdict::FirstSeen {
                self.oracle.reserve(&key, now);
                mine.push(*id);
            } else {
                self.oracle.record(&key, now, false);
            }
        }
        self.reserved.push((reservation, mine));
    }

    fn take(&mut self, which: usize) -> Option<(Reservation, Vec<u16>)> {
        let count = self.reserved.len();
        (count > 0).then(|| self.reserved.swap_remove(which % count))
    }

    fn check_counts(&self) {
        let stats = self.dedup.stats();
        let (sure, known) = self.oracle.live(self.clock.now());
        let counted = (stats.live_ids + stats.pending_ids) as usize;
        assert!((sure..=known).contains(&counted), "{counted} ids counted, {sure} to {known} expected: {stats:?}");
        assert_eq!((stats.evicted_early, stats.bypassed, stats.clock_held), (0, 0, 0));
    }
}

fn builder(clock: &ManualClock, (shard_bits, class_max, extend): (u32, u32, bool)) -> Builder {
    let builder = Deduplicator::builder().window(WINDOW).clock(clock.clone()).secret([7; 32]).housekeeping(false);
    builder.durability(Durability::Process).extend_on_duplicate(extend).shape(shard_bits, 1, class_max)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(ProptestConfig::default().cases.max(256) / 16))]

    /// The set with a state, restarted again and again.
    #[test]
    fn a_state_keeps_the_promise_through_restarts(
        operations in proptest::collection::vec(
            prop_oneof![14 => operation(100), 1 => Just(Operation::Restart)], 1..150),
        class_max in 1_u32..5,
        extend: bool,
    ) {
        let mut model = Model::with_state(1, class_max, extend);
        for operation in operations {
            model.apply(operation);
        }
        model.restart();
        for id in 0..100 {
            model.apply(Operation::Contains(id));
        }
        model.check_counts();
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(ProptestConfig::default().cases.max(300)))]

    #[test]
    fn every_answer_is_one_that_the_promise_allows(
        operations in proptest::collection::vec(operation(300), 1..400),
        shard_bits in 0_u32..2,
        class_max in 1_u32..5,
        extend: bool,
    ) {
        let mut model = Model::new(shard_bits, class_max, extend);
        for operation in operations {
            model.apply(operation);
        }
        model.check_counts();
    }

    /// Under a limit an answer may be first-seen for an id that was evicted, but only as often as evictions were counted.
    #[test]
    fn under_a_limit_no_more_is_forgotten_than_is_counted(
        questions in proptest::collection::vec((0_u16..400, 0_u64..2_000), 1..1_500),
        limit in 1_usize..300,
        class_max in 1_u32..5,
    ) {
        let clock = ManualClock::new();
        let builder = Deduplicator::builder().window(WINDOW).clock(clock.clone()).housekeeping(false);
        let dedup = builder.max_ids(limit).shape(1, 1, class_max).build().unwrap();
        let mut oracle = Oracle::new(WINDOW, dedup.slack());
        let mut broken = 0;
        for (id, pause) in questions {
            clock.advance(Duration::from_millis(pause));
            let key = id.to_le_bytes();
            let first_seen = dedup.observe(key) == Verdict::FirstSeen;
            let expected = oracle.expected(&key, clock.now());
            prop_assert!(first_seen || expected != Expected::MustBeFirstSeen);
            broken += u64::from(first_seen && expected == Expected::MustBeDuplicate);
            oracle.record(&key, clock.now(), first_seen);
            let stats = dedup.stats();
            prop_assert!(stats.live_ids <= limit as u64, "{} ids under a limit of {limit}", stats.live_ids);
        }
        prop_assert!(broken <= dedup.stats().evicted_early);
        prop_assert_eq!(dedup.stats().bypassed, 0);
    }

    /// Event time: `Duplicate` is `|t - first| < window`, within a slack, for every first sight of the id.
    /// Events are at most five windows late, so no first sight is forgotten early, though some ids come very often.
    #[test]
    fn in_event_time_the_distance_decides(
        events in proptest::collection::vec((prop_oneof![0_u16..60, 0_u16..6], 0_i64..400_000), 1..400),
        lateness_secs in 0_u64..300,
        batch in 1_usize..60,
        class_max in 1_u32..5,
    ) {
        let clock = ManualClock::starting_at(Timestamp::from_secs(1_000));
        let lateness = Duration::from_secs(lateness_secs);
        let builder = Deduplicator::builder().window(WINDOW).clock(clock).housekeeping(false).lateness(lateness);
        let dedup = builder.secret([7; 32]).shape(1, 1, class_max).build().unwrap();
        let slack = dedup.slack();
        let mut firsts: std::collections::HashMap<u16, Vec<i64>> = Default::default();
        let mut max_seen = i64::MIN;
        for events in events.chunks(batch) {
            let ids: Vec<_> = events.iter().map(|(id, _)| id.to_le_bytes()).collect();
            let times: Vec<_> = events.iter().map(|(_, ms)| Timestamp::from_millis(*ms)).collect();
            let asked: Vec<_> = ids.iter().copied().zip(times.iter().copied()).collect();
            let reserved = dedup.reserve_batch_at(&asked).unwrap();
            let mut known_here = std::collections::HashSet::new();
            for ((id, ms), verdict) in events.iter().zip(reserved.verdicts()) {
                let late = max_seen != i64::MIN && *ms < max_seen - lateness.as_millis() as i64;
                max_seen = max_seen.max(*ms);
                prop_assert_eq!(late, *verdict == ReserveVerdict::Unjudged(dedupd::Unjudged::Late));
                if late {
                    continue;
                }
                let seen = firsts.entry(*id).or_default();
                let nearest = seen.iter().map(|first| (ms - first).unsigned_abs()).min();
                let pending = known_here.contains(id);
                match verdict {
                    ReserveVerdict::FirstSeen => {
                        prop_assert!(!pending);
                        prop_assert!(nearest.is_none_or(|ms| ms >= WINDOW.as_millis() as u64), "{id} at {ms}: {nearest:?}");
                        seen.push(*ms);
                        known_here.insert(*id);
                    }
                    ReserveVerdict::Duplicate => {
                        let most = (WINDOW + slack).as_millis() as u64;
                        prop_assert!(nearest.is_some_and(|ms| ms < most), "{id} at {ms}: {nearest:?}");
                    }
                    _ => prop_assert!(pending),
                }
            }
            reserved.commit().unwrap();
        }
        prop_assert_eq!(dedup.stats().evicted_early, 0);
    }
}
