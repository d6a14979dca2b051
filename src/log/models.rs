//! Loom models of the log: who waits for the disk, and who waits for a ring.
//!
//! They run the log that ships, on the simulated disk, which is one step for loom but for the wait inside of a sync. Under
//! loom a thread that sleeps for ever fails the model, and no wait times out: so its end proves the wake-ups.

use std::sync::Arc;
use std::time::Duration;

use super::housekeeper::Ending;
use super::storage::simulated::Simulated;
use super::*;
use crate::event::Fingerprint;
use crate::sync::{AtomicBool, thread};

fn check(preemptions: usize, model: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(preemptions);
    builder.check(model);
}

/// A log on a disk whose syncs take a while.
#[derive(Clone)]
struct Started {
    simulated: Simulated,
    log: Arc<Log>,
    /// Whether the disk is in a sync. Who asks what is on disk reads it, so that loom knows that the two meet.
    syncing: Arc<AtomicBool>,
}

impl Started {
    fn new() -> Self {
        let simulated = Simulated::new(512);
        let (segment_bytes_min, segment_bytes_max, touch_ahead_bytes) = (8_192, 8_192, 0);
        let config = Config { segment_bytes_min, segment_bytes_max, touch_ahead_bytes, ..Config::new([7; 32]) };
        let log = Arc::new(Log::open(Arc::new(simulated.clone()), config, |_| ()).unwrap().0);
        let syncing = Arc::new(AtomicBool::new(false));
        let is_syncing = Arc::clone(&syncing);
        simulated.in_each_sync(move || {
            assert!(!is_syncing.swap(true, Ordering::AcqRel), "two sync at a time");
            is_syncing.store(false, Ordering::Release);
        });
        Self { simulated, log, syncing }
    }

    fn append(&self, id: u128) -> Position {
        let mut batch = Batch::new();
        batch.push_ids(Kind::Seen, [Fingerprint::from_u128(id)]);
        self.log.append(Timestamp::from_nanos(1), &batch).unwrap()
    }

    /// Appends, waits, and asks what a power cut would leave.
    fn commit(&self, id: u128) {
        let position = self.append(id);
        self.log.wait_durable(position).unwrap();
        assert!(self.log.durable() >= position);
        self.syncing.load(Ordering::Acquire);
        let left = self.simulated.after_power_cut(&mut || false).files();
        let is_there = left.values().any(|bytes| bytes.windows(16).any(|window| window == id.to_le_bytes()));
        assert!(is_there, "{id:x} was answered as durable, and is not on disk");
    }

    /// Commits all of `ids` at once.
    fn commit_each<const N: usize>(&self, ids: [u128; N]) {
        let commits = ids.map(|id| {
            let started = self.clone();
            thread::spawn(move || started.commit(id))
        });
        for commit in commits {
            commit.join().unwrap();
        }
    }
}

#[test]
fn loom_nobody_is_told_before_a_sync_covers_his_frame() {
    check(5, || Started::new().commit_each([u128::MAX / 3, u128::MAX / 5]));
}

#[test]
fn loom_one_who_waits_is_woken_by_either_of_two_who_sync() {
    check(3, || Started::new().commit_each([u128::MAX / 3, u128::MAX / 5, u128::MAX / 7]));
}

/// The first waits for the second, which syncs for both, or comes too late for that.
#[test]
fn loom_the_last_who_is_expected_syncs_for_the_first() {
    check(5, || {
        let started = Started::new();
        started.log.commit.expect(2);
        started.commit_each([u128::MAX / 3, u128::MAX / 5]);
    });
}

/// One comes while another is relieved, or was told to lead, or has just given up waiting.
#[test]
fn loom_three_take_turns_to_sync() {
    check(2, || {
        let started = Started::new();
        started.log.commit.expect(3);
        started.commit_each([u128::MAX / 3, u128::MAX / 5, u128::MAX / 7]);
    });
}

#[test]
fn loom_a_poisoned_log_lets_nobody_wait() {
    check(3, || {
        let started = Started::new();
        let positions = [started.append(1), started.append(2)];
        let Started { simulated, log, .. } = started;
        // No sync succeeds.
        simulated.remove(&header::name(1)).unwrap();
        let other = {
            let log = Arc::clone(&log);
            thread::spawn(move || log.wait_durable(positions[0]).unwrap_err())
        };
        log.wait_durable(positions[1]).unwrap_err();
        other.join().unwrap();
    });
}

#[test]
fn loom_no_ring_is_lost() {
    check(3, || {
        let bell = Arc::new(Bell::default());
        let work = Arc::new(Mutex::new(0));
        let ringers = [(); 2].map(|()| {
            let (bell, work) = (Arc::clone(&bell), Arc::clone(&work));
            thread::spawn(move || {
                *lock(&work) += 1;
                bell.ring();
            })
        });
        while *lock(&work) < 2 {
            bell.wait(LONG);
        }
        for ringer in ringers {
            ringer.join().unwrap();
        }
    });
}

#[test]
fn loom_all_hear_that_the_end_is_near() {
    check(3, || {
        let bell = Arc::new(Bell::default());
        let others = [(); 2].map(|()| {
            let end = Ending(Arc::clone(&bell));
            thread::spawn(move || {
                while !end.is_near() {
                    end.wait(LONG);
                }
            })
        });
        bell.ring();
        for other in others {
            other.join().unwrap();
        }
    });
}

const LONG: Duration = Duration::from_secs(3_600);
