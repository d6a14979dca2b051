//! Loom models of the order in which the set and its log learn of things.
//!
//! One property everywhere: what the log comes to, replayed in sequence, is what the set knows in the end. They run the
//! keeper that ships, on the smallest set and on the simulated disk, which is one step for loom. Not modelled: the flags and
//! counters of the keeper (they order nothing), and the threads of the replay.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64};

use super::gathering::Gathering;
use super::keeper::Keeper;
use super::progress::Kept;
use crate::dedup::{Durability, OnLogFailure, Progress};
use crate::event::Fingerprint;
use crate::log::{self, Bell, Kind, Log, Simulated};
use crate::sync::{Mutex, RwLock, thread};
use crate::time::{ManualClock, Timestamp};
use crate::window::{Act, Answer, Config, Limits, Set, Shape, Times, When};

const NOW: When = When::Now(0);

/// A state of few ids, and its disk.
#[derive(Clone)]
struct State {
    keeper: Arc<Keeper>,
    simulated: Simulated,
}

impl State {
    fn new() -> Self {
        let (max_ids, generation_ids) = (u64::MAX, u64::MAX);
        let limits = Limits { window: 64_000, lateness: None, max_future: 0, max_ids, generation_ids, evict: true };
        let shape = Shape { shard_bits: 0, roots: 1, class_max: 1 };
        let config = Config { limits, extend: false, gathers: true, expected_ids: 0, memory_bytes_max: 1 << 18, shape };
        let simulated = Simulated::new(512);
        let log = Log::open(Arc::new(simulated.clone()), tiny(), |_| ()).unwrap().0;
        let keeper = Arc::new(Keeper {
            set: Arc::new(Set::new(&config).unwrap()),
            log: Arc::new(log),
            clock: Arc::new(ManualClock::starting_at(Timestamp::from_nanos(0))),
            event_time: false,
            durability: Durability::Process,
            on_failure: OnLogFailure::Refuse,
            order: RwLock::new(()),
            gathering: Mutex::new(Gathering::default()),
            kept: Mutex::new(Kept::default()),
            bell: Bell::default(),
            is_failing: AtomicBool::new(false),
            unlogged: AtomicU64::new(0),
            settled: AtomicI64::new(i64::MIN),
            _directory: None,
        });
        Self { keeper, simulated }
    }

    fn spawn(&self, act: impl FnOnce(&Keeper) + 'static) -> thread::JoinHandle<()> {
        let keeper = Arc::clone(&self.keeper);
        thread::spawn(move || act(&keeper))
    }

    /// Whether the set knows `id` in the end; the log must say the same.
    fn knows(&self, id: Fingerprint) -> bool {
        self.keeper.flush().unwrap();
        let is_known = self.keeper.set.peek(id, NOW) == Answer::Seen;
        let mut logged = BTreeSet::new();
        let mut told = Vec::new();
        let opened = Log::open(Arc::new(self.simulated.after_kill()), tiny(), |frame| {
            for record in frame.records {
                told.push(record.kind);
                match record.kind {
                    Kind::Seen => logged.extend(record.ids().map(Fingerprint::as_u128)),
                    Kind::Forget => record.ids().for_each(|id| _ = logged.remove(&id.as_u128())),
                    kind => panic!("{kind:?}"),
                }
            }
        });
        opened.unwrap();
        assert_eq!(logged.contains(&id.as_u128()), is_known, "the log was told {told:?}");
        is_known
    }
}

fn tiny() -> log::Config {
    let (segment_bytes_min, segment_bytes_max, touch_ahead_bytes) = (8_192, 8_192, 0);
    log::Config { segment_bytes_min, segment_bytes_max, touch_ahead_bytes, ..log::Config::new([7; 32]) }
}

fn check(preemptions: usize, model: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(preemptions);
    builder.check(model);
}

const ID: Fingerprint = Fingerprint::from_u128(0x9E37_79B9_7F4A_7C15_F39C_C060_5CED_C835);

#[test]
fn loom_what_is_gathered_while_its_id_is_forgotten_is_not_appended_behind_it() {
    check(3, || {
        let state = State::new();
        let asks = state.spawn(|keeper| assert!(matches!(keeper.ask(ID, NOW), Answer::New)));
        let flushes = state.spawn(|keeper| keeper.flush().unwrap());
        state.keeper.forget(ID).unwrap();
        asks.join().unwrap();
        flushes.join().unwrap();
        state.knows(ID);
    });
}

#[test]
fn loom_what_was_gathered_before_its_id_is_forgotten_stays_forgotten() {
    check(3, || {
        let state = State::new();
        assert_eq!(state.keeper.ask(ID, NOW), Answer::New);
        let flushes = state.spawn(|keeper| keeper.flush().unwrap());
        assert!(state.keeper.forget(ID).unwrap());
        flushes.join().unwrap();
        assert!(!state.knows(ID));
    });
}

#[test]
fn loom_who_asks_after_an_id_was_forgotten_is_logged_behind_it() {
    check(3, || {
        let state = State::new();
        assert_eq!(state.keeper.ask(ID, NOW), Answer::New);
        let flushes = state.spawn(|keeper| keeper.flush().unwrap());
        assert!(state.keeper.forget(ID).unwrap());
        assert_eq!(state.keeper.ask(ID, NOW), Answer::New);
        flushes.join().unwrap();
        assert!(state.knows(ID));
    });
}

#[test]
fn loom_a_commit_is_forgotten_whole_or_not_at_all() {
    check(3, || {
        let state = State::new();
        assert_eq!(state.keeper.set.ask(ID, NOW, Act::Reserve), Answer::New);
        let commits = state.spawn(|keeper| {
            let mark = || assert!(keeper.set.commit(ID, NOW));
            keeper.commit(&[ID], None, None, &Progress::new(), mark).unwrap();
        });
        let was_known = state.keeper.forget(ID).unwrap();
        commits.join().unwrap();
        assert_eq!(state.knows(ID), !was_known);
    });
}

#[test]
fn loom_a_batch_is_forgotten_in_memory_and_in_the_log() {
    check(3, || {
        let state = State::new();
        let asks = state.spawn(|keeper| {
            let mut first = false;
            let hash = |_, ids: &mut Vec<_>| ids.push(ID);
            keeper.ask_batch(1, hash, Times::Now(0), |answers| first = answers == [Answer::New]);
            assert!(first);
        });
        let was_known = state.keeper.forget(ID).unwrap();
        asks.join().unwrap();
        assert_eq!(state.knows(ID), !was_known);
    });
}
