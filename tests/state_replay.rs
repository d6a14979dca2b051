//! What a restart makes of a state is what was answered before it. Goal: the ways in which the two once differed stay closed.
//! Method: each builds the one situation, restarts, and asks again.

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use common::state::{HOUR, builder, ids};
use dedupd::{Clock, ManualClock, OnLogFailure, Progress, Timestamp, Unjudged, Verdict};

/// What was refused, and so was not done, is no duplicate after a restart.
#[test]
fn what_was_not_judged_is_first_seen_after_a_restart() {
    let clock = ManualClock::starting_at(Timestamp::from_secs(1_000_000));
    let dir = tempfile::tempdir().unwrap();
    let open = |max: u64| builder(&clock).lateness(HOUR).max_disk(max).open(dir.path()).unwrap();
    let dedup = open(3 << 20);
    let at = Timestamp::from_secs(999_000);
    let all = ids(0..300_000);
    let mut refused = Vec::new();
    // One call with more ids than there is room for.
    let mut verdicts = Vec::new();
    dedup.observe_batch_at(&all, &vec![at; all.len()], &mut verdicts);
    let bypassed = dedup.stats().bypassed;
    println!("bypassed {bypassed}");
    for id in &all {
        if !dedup.contains(id) {
            refused.push(*id);
        }
    }
    println!("not known live {}", refused.len());
    drop(dedup);
    let dedup = open(64 << 20);
    let lost = refused.iter().filter(|id| dedup.contains(id)).count();
    assert_eq!(lost, 0, "ids that were refused and are duplicates now");
}

/// Also when it had left early by then.
#[test]
fn a_forgotten_id_does_not_come_back_with_a_larger_limit() {
    let (dir, clock) = (tempfile::tempdir().unwrap(), ManualClock::new());
    let dedup = builder(&clock).max_ids(1_000).open(dir.path()).unwrap();
    let mut verdicts = Vec::new();
    dedup.observe_batch(&ids(0..100_000), &mut verdicts);
    assert!(!dedup.forget(7_u32.to_le_bytes()).unwrap());
    dedup.close().unwrap();
    let dedup = builder(&clock).open(dir.path()).unwrap();
    assert!(!dedup.contains(7_u32.to_le_bytes()), "a forget that comes back");
}

/// Also when its window had ended by then.
#[test]
fn a_forgotten_id_does_not_come_back_with_a_longer_window() {
    let (dir, clock) = (tempfile::tempdir().unwrap(), ManualClock::new());
    let dedup = builder(&clock).open(dir.path()).unwrap();
    assert_eq!(dedup.observe("x"), Verdict::FirstSeen);
    clock.advance(2 * HOUR);
    assert!(!dedup.forget("x").unwrap());
    dedup.close().unwrap();
    let dedup = builder(&clock).window(24 * HOUR).open(dir.path()).unwrap();
    assert!(!dedup.contains("x"), "a forget that comes back");
}

/// A single question's time is known more closely than to a generation of the old window.
#[test]
fn a_shorter_window_counts_from_first_sight() {
    let (dir, clock) = (tempfile::tempdir().unwrap(), ManualClock::starting_at(Timestamp::from_secs(64 * 3600 * 100)));
    let dedup = builder(&clock).window(64 * HOUR).open(dir.path()).unwrap();
    clock.advance(HOUR - Duration::from_secs(60));
    assert_eq!(dedup.observe("single"), Verdict::FirstSeen);
    let mut verdicts = Vec::new();
    dedup.observe_batch(&["b1", "b2"], &mut verdicts);
    dedup.close().unwrap();
    clock.advance(Duration::from_secs(360));
    let dedup = builder(&clock).window(HOUR).open(dir.path()).unwrap();
    assert!(dedup.contains("b1"));
    assert!(dedup.contains("single"), "first seen six minutes ago, the window is an hour");
}

/// In event time, where events are years older than the clock.
#[test]
fn a_frame_before_the_first_event_moves_no_time() {
    let (dir, clock) = (tempfile::tempdir().unwrap(), ManualClock::starting_at(Timestamp::from_secs(1_700_000_000)));
    let open = || builder(&clock).lateness(HOUR).open(dir.path()).unwrap();
    let dedup = open();
    let mut progress = Progress::new();
    progress.set_sink("out", "0");
    dedup.record_progress(&progress).unwrap();
    let at = |secs: i64| Timestamp::from_secs(1_500_000_000 + secs);
    assert_eq!(dedup.try_observe_at("a", at(0)), Ok(Verdict::FirstSeen));
    dedup.close().unwrap();
    let dedup = open();
    assert_eq!(dedup.try_observe_at("b", at(1)), Ok(Verdict::FirstSeen));
    assert_eq!(dedup.try_observe_at("a", at(1)), Ok(Verdict::Duplicate));
}

/// Its fault is its own.
#[test]
fn a_commit_that_is_too_large_refuses_nobody_else() {
    let (dir, clock) = (tempfile::tempdir().unwrap(), ManualClock::new());
    let dedup = builder(&clock).open(dir.path()).unwrap();
    assert_eq!(dedup.observe("known"), Verdict::FirstSeen);
    let mut progress = Progress::new();
    progress.set_source("in", vec![0; 65 << 20]);
    assert_eq!(dedup.record_progress(&progress).unwrap_err().code(), "log_too_large");
    assert_eq!(dedup.try_observe("known"), Ok(Verdict::Duplicate));
}

/// When questions are answered all the same, what is missing in the log is counted.
#[test]
fn progress_that_is_not_recorded_is_told() {
    let (dir, clock) = (tempfile::tempdir().unwrap(), ManualClock::new());
    let dedup = builder(&clock).on_log_failure(OnLogFailure::Continue).open(dir.path()).unwrap();
    let mut progress = Progress::new();
    progress.set_source("in", vec![0; 65 << 20]);
    let told = dedup.record_progress(&progress);
    assert!(told.is_err() || dedup.stats().unlogged > 0 || dedup.progress() == progress, "{told:?}");
}

/// In the thread that appends what single questions have gathered.
#[test]
fn a_panic_of_the_clock_does_not_end_gathering() {
    #[derive(Clone)]
    struct Once(ManualClock, Arc<AtomicBool>);
    impl Clock for Once {
        fn now(&self) -> Timestamp {
            if std::thread::current().name() == Some("dedupd-log-2") && !self.1.swap(true, Ordering::SeqCst) {
                panic!("on purpose");
            }
            self.0.now()
        }
    }
    let manual = ManualClock::new();
    let clock = Once(manual.clone(), Arc::default());
    let (dir, copy) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let dedup = builder(&manual).clock(clock.clone()).open(dir.path()).unwrap();
    while !clock.1.load(Ordering::SeqCst) {
        std::thread::sleep(Duration::from_millis(10));
    }
    std::thread::sleep(Duration::from_millis(100));
    assert_eq!(dedup.try_observe("x"), Ok(Verdict::FirstSeen));
    std::thread::sleep(Duration::from_secs(3));
    // As `kill -9` would leave it.
    for entry in std::fs::read_dir(dir.path()).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), copy.path().join(entry.file_name())).unwrap();
    }
    let other = builder(&manual).open(copy.path()).unwrap();
    assert!(other.contains("x"), "three seconds after it was answered");
    let _ = Unjudged::Late;
}

/// Otherwise a crash in between forgets that the window began again, and the source does not send the event again.
#[test]
fn a_refresh_by_a_reservation_is_in_the_log_before_its_commit() {
    let manual = ManualClock::starting_at(Timestamp::from_secs(991_000));
    let (dir, copy) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let open = |path: &std::path::Path| builder(&manual).extend_on_duplicate(true).lateness(HOUR).open(path).unwrap();
    let dedup = open(dir.path());
    let at = |secs: i64| Timestamp::from_secs(980_000 + secs);
    dedup.reserve_batch_at(&[("x", at(0))]).unwrap().commit().unwrap();
    std::thread::sleep(Duration::from_millis(1_200));
    let mut reserved = dedup.reserve_batch_at(&[("x", at(3_000)), ("y", at(3_000))]).unwrap();
    let mut progress = Progress::new();
    progress.set_source("in", "2");
    reserved.try_commit(&progress).unwrap();
    // As `kill -9` would leave it.
    for entry in std::fs::read_dir(dir.path()).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), copy.path().join(entry.file_name())).unwrap();
    }
    assert_eq!(dedup.try_observe_at("x", at(6_000)), Ok(Verdict::Duplicate));
    let other = open(copy.path());
    assert_eq!(other.progress().source("in"), Some(&b"2"[..]));
    assert_eq!(other.try_observe_at("x", at(6_000)), Ok(Verdict::Duplicate), "as without the crash");
}

/// Its events come again, and so may others that would be late by its time.
#[test]
fn a_commit_that_failed_moves_no_time() {
    let (dir, clock) = (tempfile::tempdir().unwrap(), ManualClock::starting_at(Timestamp::from_secs(1_000_000)));
    let open = || builder(&clock).lateness(HOUR).open(dir.path()).unwrap();
    let at = |secs: i64| Timestamp::from_secs(990_000 + secs);
    let dedup = open();
    assert_eq!(dedup.try_observe_at("a", at(0)), Ok(Verdict::FirstSeen));
    let mut reserved = dedup.reserve_batch_at(&[("b", at(9_000))]).unwrap();
    let mut too_large = Progress::new();
    too_large.set_source("in", vec![0; 65 << 20]);
    assert_eq!(reserved.try_commit(&too_large).unwrap_err().code(), "log_too_large");
    drop(reserved);
    let mut progress = Progress::new();
    progress.set_source("in", "1");
    dedup.record_progress(&progress).unwrap();
    dedup.close().unwrap();
    let dedup = open();
    assert_eq!(dedup.try_observe_at("c", at(100)), Ok(Verdict::FirstSeen));
    assert_eq!(dedup.try_observe_at("a", at(100)), Ok(Verdict::Duplicate));
}

/// In event time each ID has a time of its own, and is handed over with many others: what concerns one stays in order.
#[test]
fn many_ids_with_times_and_forgets_between_them_come_back() {
    let (dir, clock) = (tempfile::tempdir().unwrap(), ManualClock::starting_at(Timestamp::from_secs(1_000_000)));
    let open = || builder(&clock).lateness(HOUR).open(dir.path()).unwrap();
    let at = |n: u32| Timestamp::from_nanos(990_000_000_000_000 + i64::from(n) * 10_000_000);
    let dedup = open();
    let all = ids(0..50_000);
    let times: Vec<Timestamp> = (0..50_000).map(at).collect();
    let mut verdicts = Vec::new();
    for forgotten in 0..2 {
        dedup.observe_batch_at(&all, &times, &mut verdicts);
        for id in (forgotten..50_000_u32).step_by(5_000) {
            assert!(dedup.forget(id.to_le_bytes()).unwrap());
        }
    }
    dedup.close().unwrap();
    let dedup = open();
    dedup.observe_batch_at(&all, &times, &mut verdicts);
    let firsts: Vec<usize> = (0..50_000).filter(|n| verdicts[*n] == Verdict::FirstSeen).collect();
    // Those of the first round were seen again in the second.
    assert_eq!(firsts, (1..50_000).step_by(5_000).collect::<Vec<_>>());
}
