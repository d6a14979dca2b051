//! A state at its limits, and settings at their ends. Goal: nothing gets stuck, and nothing panics. Method: small limits,
//! many positions, a manual clock that lets everything age out.

mod common;

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use common::state::{HOUR, builder, fill_up, ids};
use dedupd::*;

/// They are appended again before the segment that they stand in goes, and there is room for that.
#[test]
fn at_the_limit_on_disk_positions_do_not_keep_segments() {
    let (dir, clock) = (tempfile::tempdir().unwrap(), ManualClock::new());
    let dedup = builder(&clock).max_disk(4 << 20).open(dir.path()).unwrap();
    let mut progress = Progress::new();
    progress.set_source("a name that is as long as that of a file", "a position that is as long as one of a file");
    dedup.record_progress(&progress).unwrap();
    fill_up(&dedup);
    clock.advance(HOUR * 2);
    let patience = Instant::now() + Duration::from_secs(20);
    while dedup.try_observe("later").is_err() {
        assert!(Instant::now() < patience, "all ids aged out 20 s ago, {} bytes on disk", dedup.stats().disk_bytes);
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// The smallest limit there may be is one that a state goes on under, again and again.
#[test]
fn under_the_smallest_limit_on_disk_a_state_goes_on_and_a_smaller_one_is_refused() {
    let (dir, clock) = (tempfile::tempdir().unwrap(), ManualClock::new());
    let open = |bytes| builder(&clock).max_disk(bytes).open(dir.path().join("state"));
    for bytes in [1, 1 << 10, (3 << 20) - 1] {
        let error = open(bytes).unwrap_err();
        assert_eq!(error.code(), "disk_too_small");
        assert!(error.to_string().contains("at least 3145728"), "{error}");
    }
    assert!(!dir.path().join("state").exists(), "nothing is made");
    let dedup = open(3 << 20).unwrap();
    let patience = Instant::now() + Duration::from_secs(60);
    for round in 0..2 {
        fill_up(&dedup);
        assert!(dedup.stats().disk_bytes <= 3 << 20);
        clock.advance(HOUR * 2);
        while dedup.try_observe(format!("later {round}")).is_err() {
            assert!(Instant::now() < patience, "round {round}: all ids aged out, {} bytes", dedup.stats().disk_bytes);
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

/// In event time, where the log is told how far time has come.
#[test]
fn at_the_limit_on_disk_a_watermark_does_not_keep_segments() {
    let (dir, clock) = (tempfile::tempdir().unwrap(), ManualClock::starting_at(Timestamp::from_secs(1_000_000)));
    let dedup = builder(&clock).lateness(Duration::from_secs(60)).max_disk(4 << 20).open(dir.path()).unwrap();
    let at = |secs: i64| Timestamp::from_secs(900_000 + secs);
    let (mut known, mut verdicts) = (0_u32, Vec::new());
    for count in [1_000_u32, 1] {
        for _ in 0..2_000 {
            let bypassed = dedup.stats().bypassed;
            let all = ids(known..known + count);
            dedup.observe_batch_at(&all, &vec![at(0); all.len()], &mut verdicts);
            if dedup.stats().bypassed > bypassed {
                break;
            }
            known += count;
        }
    }
    // Time goes on with events that are not recorded.
    let patience = Instant::now() + Duration::from_secs(20);
    let mut secs = 20_000;
    loop {
        let reserved = dedup.reserve_batch_at(&[("later", at(secs))]).unwrap();
        if reserved.commit().is_ok() {
            break;
        }
        secs += 1;
        assert!(Instant::now() < patience, "all ids aged out 20 s ago, {} bytes on disk", dedup.stats().disk_bytes);
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// All together are larger than a frame may be.
#[test]
fn many_positions_do_not_keep_segments() {
    let (dir, clock) = (tempfile::tempdir().unwrap(), ManualClock::new());
    let dedup = builder(&clock).open(dir.path()).unwrap();
    for n in 0..3_600_u32 {
        let mut progress = Progress::new();
        progress.set_source(n.to_le_bytes(), vec![7; 20 << 10]);
        dedup.record_progress(&progress).unwrap();
    }
    // They are appended again before the segments that hold them go: twice their bytes, and a segment or two.
    let patience = Instant::now() + Duration::from_secs(30);
    let is_there = || dir.path().join("0000000000000001.log").exists();
    for n in 0_u32.. {
        clock.advance(HOUR * 2);
        assert!(dedup.try_observe(n.to_le_bytes()).is_ok());
        if !is_there() {
            break;
        }
        assert!(Instant::now() < patience, "the first segment is many windows old, and stays");
        std::thread::sleep(Duration::from_millis(100));
    }
    assert!(dedup.stats().disk_bytes < (144 + 160) << 20, "{}", dedup.stats().disk_bytes);
    drop(dedup);
    let dedup = builder(&clock).open(dir.path()).unwrap();
    // As many as fit into 16 MiB, and these are the latest.
    assert_eq!(dedup.progress().sources().count(), 819);
    assert!(dedup.progress().source(3_599_u32.to_le_bytes()).is_some());
}

/// The clock goes on while a batch is asked.
#[test]
fn the_end_of_a_long_batch_is_as_old_as_it_is() {
    static ASKED: AtomicU32 = AtomicU32::new(0);
    struct Id<'a>(u32, [u8; 4], &'a Deduplicator, &'a ManualClock);
    impl AsRef<[u8]> for Id<'_> {
        fn as_ref(&self) -> &[u8] {
            if self.0 == 50_000 && ASKED.fetch_add(1, Ordering::SeqCst) == 0 {
                // Time goes on, and another thread notices.
                self.3.advance(HOUR / 2);
                std::thread::scope(|scope| drop(scope.spawn(|| self.2.contains("other")).join()));
            }
            &self.1
        }
    }
    let (dir, clock) = (tempfile::tempdir().unwrap(), ManualClock::new());
    let dedup = builder(&clock).housekeeping(false).open(dir.path()).unwrap();
    let all: Vec<_> = (0..100_000).map(|n: u32| Id(n, n.to_le_bytes(), &dedup, &clock)).collect();
    let mut verdicts = Vec::new();
    dedup.observe_batch(&all, &mut verdicts);
    drop(all);
    clock.advance(HOUR * 3 / 4);
    let live = dedup.contains(99_999_u32.to_le_bytes());
    dedup.close().unwrap();
    let dedup = builder(&clock).open(dir.path()).unwrap();
    assert_eq!(dedup.contains(99_999_u32.to_le_bytes()), live);
}

#[test]
fn a_lock_timeout_without_end_is_taken() {
    let dir = tempfile::tempdir().unwrap();
    Deduplicator::builder().lock_timeout(Duration::MAX).open(dir.path()).unwrap();
}

#[test]
fn an_interval_without_end_is_taken() {
    let dir = tempfile::tempdir().unwrap();
    let dedup = Deduplicator::builder().durability(Durability::Interval(Duration::MAX)).open(dir.path()).unwrap();
    std::thread::sleep(Duration::from_millis(200));
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    let names: Vec<_> = tasks.filter_map(|t| std::fs::read_to_string(t.unwrap().path().join("comm")).ok()).collect();
    drop(dedup);
    assert!(names.iter().any(|n| n.trim() == "dedupd-log-1"), "the thread that syncs is gone: {names:?}");
}

/// More than fit into the smallest segment, and all of them are older than the window: the latest of them that fit into what is
/// reserved are kept, and ids find room again and again.
#[test]
fn under_a_limit_on_disk_many_positions_do_not_keep_segments() {
    for (bytes, kept_min) in [(3 << 20, 2_000), (16 << 20, 4_000)] {
        let (dir, clock) = (tempfile::tempdir().unwrap(), ManualClock::new());
        let open = || builder(&clock).max_disk(bytes).open(dir.path().join("state")).unwrap();
        let mut dedup = open();
        for from in (0..4_000).step_by(100) {
            let mut progress = Progress::new();
            (from..from + 100).for_each(|n| progress.set_source(format!("source {n}"), "x".repeat(300)));
            dedup.record_progress(&progress).unwrap();
        }
        let patience = Instant::now() + Duration::from_secs(60);
        for round in 0..4 {
            fill_up(&dedup);
            clock.advance(HOUR * 2);
            while dedup.try_observe(format!("later {round}")).is_err() {
                let taken = dedup.stats().disk_bytes;
                assert!(Instant::now() < patience, "round {round} of {bytes}: all ids aged out, {taken} bytes");
                std::thread::sleep(Duration::from_millis(50));
            }
            assert!(dedup.stats().disk_bytes <= bytes);
            if round == 1 {
                drop(dedup);
                dedup = open();
            }
        }
        let kept = dedup.progress();
        assert!(kept.sources().count() >= kept_min, "{} are kept", kept.sources().count());
        assert!(kept.source("source 3999").is_some());
    }
}
