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
use crate::sync::thread;

fn check(preemptions: usize, model: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(preemptions);
    builder.check(model);
}

/// A log on a disk whose syncs take a while.
fn started() -> (Simulated, Arc<Log>) {
    let simulated = Simulated::new(512);
    let (segment_bytes_min, segment_bytes_max, touch_ahead_bytes) = (8_192, 8_192, 0);
    let config = Config { segment_bytes_min, segment_bytes_max, touch_ahead_bytes, ..Config::new([7; 32]) };
    let log = Log::open(Arc::new(simulated.clone()), config, |_| ()).unwrap().0;
    let turns = AtomicU64::new(0);
    simulated.in_each_sync(move || turns.store(1, Ordering::Relaxed));
    (simulated, Arc::new(log))
}

fn append(log: &Log, id: u128) -> Position {
    let mut batch = Batch::new();
    batch.push_ids(Kind::Seen, [Fingerprint::from_u128(id)]);
    log.append(Timestamp::from_nanos(1), &batch).unwrap()
}

/// Appends, waits, and asks what a power cut would leave.
fn commit(simulated: &Simulated, log: &Log, id: u128) {
    let position = append(log, id);
    log.wait_durable(position).unwrap();
    assert!(log.durable() >= position);
    let left = simulated.after_power_cut(&mut || false).files();
    let is_there = left.values().any(|bytes| bytes.windows(16).any(|window| window == id.to_le_bytes()));
    assert!(is_there, "{id:x} was answered as durable, and is not on disk");
}

#[test]
fn loom_nobody_is_told_before_a_sync_covers_his_frame() {
    check(5, || {
        let (simulated, log) = started();
        let other = {
            let (simulated, log) = (simulated.clone(), Arc::clone(&log));
            thread::spawn(move || commit(&simulated, &log, u128::MAX / 3))
        };
        commit(&simulated, &log, u128::MAX / 5);
        other.join().unwrap();
    });
}

#[test]
fn loom_one_who_waits_is_woken_by_either_of_two_who_sync() {
    check(3, || {
        let (simulated, log) = started();
        let others = [u128::MAX / 3, u128::MAX / 7].map(|id| {
            let (simulated, log) = (simulated.clone(), Arc::clone(&log));
            thread::spawn(move || commit(&simulated, &log, id))
        });
        let position = append(&log, u128::MAX / 5);
        log.wait_durable(position).unwrap();
        for other in others {
            other.join().unwrap();
        }
    });
}

#[test]
fn loom_a_poisoned_log_lets_nobody_wait() {
    check(3, || {
        let (simulated, log) = started();
        let positions = [append(&log, 1), append(&log, 2)];
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
