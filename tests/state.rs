//! A state directory: what was answered before a restart is known after it. Goal: every kind of record comes back, under
//! the same and under changed settings. Method: open, ask, close or drop, open again, on a manual clock.

mod common;

use std::path::Path;
use std::time::Duration;

use common::state::{HOUR, builder, fill_up, ids};
use dedupd::{
    Deduplicator, Durability, Error, IdHash, ManualClock, OnCorrupt, OpenError, Progress, ReserveVerdict, Timestamp,
    Unjudged, Verdict,
};

const LEVELS: [Durability; 3] =
    [Durability::Process, Durability::Interval(Duration::from_millis(5)), Durability::PowerLoss];

fn firsts(dedup: &Deduplicator, ids: &[[u8; 4]]) -> usize {
    let mut verdicts = Vec::new();
    dedup.observe_batch(ids, &mut verdicts);
    verdicts.iter().filter(|verdict| **verdict == Verdict::FirstSeen).count()
}

fn files(path: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn what_was_seen_is_a_duplicate_after_a_restart() {
    for level in LEVELS {
        let (dir, clock) = (tempfile::tempdir().unwrap(), ManualClock::new());
        let open = || builder(&clock).durability(level).open(dir.path()).unwrap();
        let dedup = open();
        assert_eq!(dedup.observe("alone"), Verdict::FirstSeen);
        assert_eq!(firsts(&dedup, &ids(0..10_000)), 10_000);
        assert_eq!(firsts(&dedup, &ids(9_999..10_001)), 1);
        dedup.close().unwrap();
        let dedup = open();
        assert_eq!(dedup.recovery().unwrap().ids, 10_002, "{level:?}");
        assert_eq!(dedup.stats().live_ids, 10_002);
        assert_eq!((dedup.stats().first_seen, dedup.stats().duplicates), (0, 0), "a recovery asks no questions");
        assert_eq!(dedup.observe("alone"), Verdict::Duplicate, "{level:?}");
        assert_eq!(firsts(&dedup, &ids(0..10_001)), 0, "{level:?}");
        // Dropped, not closed.
        assert_eq!(dedup.observe("late"), Verdict::FirstSeen);
        drop(dedup);
        let dedup = open();
        assert_eq!(dedup.observe("late"), Verdict::Duplicate);
    }
}

#[test]
fn the_window_goes_on_through_a_restart() {
    let (dir, clock) = (tempfile::tempdir().unwrap(), ManualClock::new());
    let dedup = builder(&clock).open(dir.path()).unwrap();
    assert_eq!(firsts(&dedup, &ids(0..1_000)), 1_000);
    clock.advance(HOUR / 2);
    assert_eq!(firsts(&dedup, &ids(1_000..2_000)), 1_000);
    dedup.close().unwrap();
    clock.advance(HOUR / 2 + HOUR / 32);
    let dedup = builder(&clock).open(dir.path()).unwrap();
    assert_eq!(firsts(&dedup, &ids(0..1_000)), 1_000, "their window has ended");
    assert_eq!(firsts(&dedup, &ids(1_000..2_000)), 0);
    dedup.close().unwrap();
    clock.advance(HOUR / 2);
    let dedup = builder(&clock).open(dir.path()).unwrap();
    assert_eq!(firsts(&dedup, &ids(1_000..2_000)), 1_000);
    assert_eq!(firsts(&dedup, &ids(0..1_000)), 0, "seen again half an hour ago");
}

#[test]
fn a_forgotten_id_stays_forgotten_and_one_seen_after_that_stays_seen() {
    for level in LEVELS.into_iter().chain([Durability::None]) {
        let (dir, clock) = (tempfile::tempdir().unwrap(), ManualClock::new());
        let dedup = builder(&clock).open(dir.path()).unwrap();
        for id in ["a", "b"] {
            assert_eq!(dedup.observe(id), Verdict::FirstSeen);
        }
        dedup.close().unwrap();
        let dedup = builder(&clock).durability(level).open(dir.path()).unwrap();
        assert!(dedup.forget("a").unwrap());
        assert!(dedup.forget("b").unwrap());
        assert!(!dedup.forget("b").unwrap(), "it is not known any more");
        assert_eq!(dedup.observe("b"), Verdict::FirstSeen);
        dedup.close().unwrap();
        let dedup = builder(&clock).open(dir.path()).unwrap();
        assert!(!dedup.contains("a"), "{level:?}");
        assert_eq!(dedup.contains("b"), level != Durability::None, "{level:?}");
    }
}

#[test]
fn a_commit_keeps_ids_and_progress_and_a_release_keeps_neither() {
    let (dir, clock) = (tempfile::tempdir().unwrap(), ManualClock::new());
    let dedup = builder(&clock).open(dir.path()).unwrap();
    let mut reserved = dedup.reserve_batch(&["a", "b"]).unwrap();
    let mut progress = Progress::new();
    progress.set_source("in", "17");
    progress.set_sink("out", [0, 255]);
    reserved.try_commit(&progress).unwrap();
    drop(reserved);
    drop(dedup.reserve_batch(&["c"]).unwrap());
    progress.set_source("in", "18");
    dedup.record_progress(&progress).unwrap();
    assert_eq!(dedup.progress().source("in"), Some(&b"18"[..]));
    dedup.close().unwrap();
    let dedup = builder(&clock).open(dir.path()).unwrap();
    assert_eq!(dedup.progress(), progress);
    let verdicts = dedup.reserve_batch(&["a", "b", "c"]).unwrap().verdicts().to_vec();
    assert_eq!(verdicts, [ReserveVerdict::Duplicate, ReserveVerdict::Duplicate, ReserveVerdict::FirstSeen]);
}

#[test]
fn a_refreshed_id_lives_on_after_a_restart() {
    let (dir, clock) = (tempfile::tempdir().unwrap(), ManualClock::new());
    let open = || builder(&clock).extend_on_duplicate(true).open(dir.path()).unwrap();
    let dedup = open();
    assert_eq!(firsts(&dedup, &ids(0..100)), 100);
    assert_eq!(dedup.observe("alone"), Verdict::FirstSeen);
    clock.advance(HOUR * 3 / 4);
    assert_eq!(firsts(&dedup, &ids(0..50)), 0);
    assert_eq!(dedup.observe("alone"), Verdict::Duplicate);
    dedup.close().unwrap();
    clock.advance(HOUR / 2);
    let dedup = open();
    assert_eq!(firsts(&dedup, &ids(0..100)), 50, "those that were not repeated");
    assert_eq!(dedup.observe("alone"), Verdict::Duplicate);
}

#[test]
fn events_with_times_of_their_own_are_known_at_those_times() {
    let (dir, clock) = (tempfile::tempdir().unwrap(), ManualClock::starting_at(Timestamp::from_secs(1_000_000)));
    let open = || builder(&clock).lateness(HOUR).open(dir.path()).unwrap();
    let at = |secs: i64| Timestamp::from_secs(900_000 + secs);
    let dedup = open();
    let mut verdicts = Vec::new();
    dedup.observe_batch_at(&ids(0..3), &[at(0), at(1800), at(7000)], &mut verdicts);
    assert_eq!(dedup.observe_at("alone", at(3600)), Verdict::FirstSeen);
    let reserved = dedup.reserve_batch_at(&[("reserved", at(3700))]).unwrap();
    reserved.commit().unwrap();
    dedup.close().unwrap();
    let dedup = open();
    assert_eq!(dedup.try_observe_at(0_u32.to_le_bytes(), at(0)), Err(Unjudged::Late), "time has not gone back");
    assert_eq!(dedup.try_observe_at(1_u32.to_le_bytes(), at(4000)), Ok(Verdict::Duplicate));
    assert_eq!(dedup.try_observe_at(2_u32.to_le_bytes(), at(3800)), Ok(Verdict::Duplicate));
    assert_eq!(dedup.try_observe_at("alone", at(3600)), Ok(Verdict::Duplicate));
    assert_eq!(dedup.try_observe_at("reserved", at(3700)), Ok(Verdict::Duplicate));
    assert_eq!(dedup.try_observe_at("other", at(3600)), Ok(Verdict::FirstSeen));
}

#[test]
fn a_clock_that_went_back_is_held_and_told() {
    let (dir, clock) = (tempfile::tempdir().unwrap(), ManualClock::starting_at(Timestamp::from_secs(100_000)));
    let dedup = builder(&clock).open(dir.path()).unwrap();
    assert_eq!(firsts(&dedup, &ids(0..10)), 10);
    dedup.close().unwrap();
    clock.set(Timestamp::from_secs(90_000));
    let dedup = builder(&clock).open(dir.path()).unwrap();
    assert_eq!(dedup.recovery().unwrap().clock_behind, Duration::from_secs(10_000));
    assert_eq!(dedup.stats().clock_held, 1);
    clock.advance(HOUR * 2);
    assert_eq!(firsts(&dedup, &ids(0..10)), 0, "two hours by a wrong clock");
}

#[test]
fn another_configuration_is_refused_and_nothing_changes() {
    let (dir, clock) = (tempfile::tempdir().unwrap(), ManualClock::new());
    let dedup = builder(&clock).id_paths("id").open(dir.path()).unwrap();
    assert_eq!(dedup.observe("a"), Verdict::FirstSeen);
    dedup.close().unwrap();
    let before = files(dir.path());
    let other = [
        ("the hash", builder(&clock).id_paths("id").hash(IdHash::Xxh3)),
        ("the id paths", builder(&clock).id_paths("data.id")),
        ("the secret", builder(&clock).id_paths("id").secret([7; 32])),
    ];
    for (differs, builder) in other {
        let error = builder.open(dir.path()).unwrap_err();
        let Error::Open(OpenError::OtherState { differs: told, .. }) = &error else { panic!("{error}") };
        assert_eq!(*told, differs);
        assert_eq!(files(dir.path()), before);
    }
    let dedup = builder(&clock).id_paths("id").open(dir.path()).unwrap();
    assert_eq!(dedup.observe("a"), Verdict::Duplicate);
}

#[test]
fn a_state_belongs_to_one_at_a_time() {
    let (dir, clock) = (tempfile::tempdir().unwrap(), ManualClock::new());
    let first = builder(&clock).open(dir.path()).unwrap();
    let error = builder(&clock).open(dir.path()).unwrap_err();
    assert_eq!((error.code(), error.is_retryable()), ("state_locked", true));
    let waiting = std::thread::scope(|scope| {
        let waiting = scope.spawn(|| builder(&clock).lock_timeout(Duration::from_secs(60)).open(dir.path()));
        std::thread::sleep(Duration::from_millis(30));
        first.close().unwrap();
        waiting.join().unwrap()
    });
    assert_eq!(waiting.unwrap().observe("a"), Verdict::FirstSeen);
}

#[test]
fn another_window_holds_from_the_next_open_on() {
    let (dir, clock) = (tempfile::tempdir().unwrap(), ManualClock::new());
    let dedup = builder(&clock).open(dir.path()).unwrap();
    assert_eq!(firsts(&dedup, &ids(0..10)), 10);
    dedup.close().unwrap();
    clock.advance(HOUR / 2);
    let dedup = builder(&clock).window(HOUR / 4).open(dir.path()).unwrap();
    assert_eq!(firsts(&dedup, &ids(0..5)), 5, "a shorter one at once");
    dedup.close().unwrap();
    clock.advance(HOUR);
    let dedup = builder(&clock).window(HOUR * 2).open(dir.path()).unwrap();
    assert_eq!(firsts(&dedup, &ids(0..10)), 0, "a longer one as far as the log goes back: nothing has aged out yet");
    assert_eq!(dedup.recovery().unwrap().holds_from, None);
}

#[test]
fn a_smaller_limit_holds_from_the_next_open_on() {
    let (dir, clock) = (tempfile::tempdir().unwrap(), ManualClock::new());
    let dedup = builder(&clock).open(dir.path()).unwrap();
    assert_eq!(firsts(&dedup, &ids(0..100_000)), 100_000);
    dedup.close().unwrap();
    let dedup = builder(&clock).max_ids(1_000).open(dir.path()).unwrap();
    let stats = dedup.stats();
    assert!(stats.live_ids <= 1_000 && stats.live_ids > 900, "{stats:?}");
    assert!(stats.evicted_early >= 99_000, "{stats:?}");
    assert_eq!(firsts(&dedup, &ids(99_900..100_000)), 0, "the newest are those that are left");
}

#[test]
fn a_commit_larger_than_a_segment_is_one_frame_all_the_same() {
    let (dir, clock) = (tempfile::tempdir().unwrap(), ManualClock::new());
    let dedup = builder(&clock).open(dir.path()).unwrap();
    let reserved = dedup.reserve_batch(&ids(0..200_000)).unwrap();
    reserved.commit().unwrap();
    assert_eq!(firsts(&dedup, &ids(199_999..200_010)), 10);
    dedup.close().unwrap();
    let dedup = builder(&clock).open(dir.path()).unwrap();
    assert_eq!(dedup.recovery().unwrap().frames, 3, "and the mark of the close");
    assert_eq!(firsts(&dedup, &ids(0..200_010)), 0);
}

#[test]
fn bad_bytes_are_refused_or_salvaged_as_told() {
    let (dir, clock) = (tempfile::tempdir().unwrap(), ManualClock::new());
    let dedup = builder(&clock).open(dir.path()).unwrap();
    for first in (0..1_000).step_by(100) {
        assert_eq!(firsts(&dedup, &ids(first..first + 100)), 100);
    }
    dedup.close().unwrap();
    let log = dir.path().join(files(dir.path()).into_iter().find(|name| name.ends_with(".log")).unwrap());
    let mut bytes = std::fs::read(&log).unwrap();
    bytes[4096 + 300] ^= 1;
    std::fs::write(&log, bytes).unwrap();
    let error = builder(&clock).open(dir.path()).unwrap_err();
    assert_eq!(error.code(), "state_corrupt", "{error}");
    let dedup = builder(&clock).on_corrupt(OnCorrupt::Salvage).open(dir.path()).unwrap();
    let recovery = dedup.recovery().unwrap();
    let repair = recovery.repair.as_ref().unwrap();
    assert_eq!((recovery.ids, repair.frames_missing), (900, Some(1)), "{repair:?}");
    assert!(repair.ids_unknown_max.is_some_and(|ids| ids >= 100), "{repair:?}");
    assert!(recovery.holds_from.is_some());
    assert_eq!(firsts(&dedup, &ids(0..1_000)), 100);
}

#[test]
fn a_limit_on_disk_refuses_and_keeps_what_is_there() {
    let (dir, clock) = (tempfile::tempdir().unwrap(), ManualClock::new());
    let open = || builder(&clock).max_disk(4 << 20).open(dir.path()).unwrap();
    let dedup = open();
    let known = fill_up(&dedup);
    assert!(known > 100_000 && known < 300_000, "{known}");
    assert!(dedup.stats().disk_bytes <= 4 << 20);
    assert_eq!(dedup.try_observe("alone").unwrap_err(), Unjudged::LogFailed);
    assert_eq!(dedup.observe("alone"), Verdict::FirstSeen, "passed, and counted");
    assert!(dedup.stats().bypassed > 0);
    assert_eq!(dedup.forget(7_u32.to_le_bytes()).unwrap_err().code(), "log_no_room");
    assert!(dedup.contains(7_u32.to_le_bytes()));
    let mut reserved = dedup.reserve_batch(&["reserved"]).unwrap();
    assert!(reserved.try_commit(&Progress::new()).unwrap_err().is_retryable());
    // An hour later the first ids have aged out, and there is room again.
    clock.advance(HOUR * 2);
    let patience = std::time::Instant::now() + Duration::from_secs(30);
    while let Err(error) = reserved.try_commit(&Progress::new()) {
        assert!(std::time::Instant::now() < patience, "{error}");
        std::thread::sleep(Duration::from_millis(20));
    }
    drop(reserved);
    assert_eq!(dedup.observe("alone"), Verdict::FirstSeen);
    dedup.close().unwrap();
    let dedup = open();
    assert!(dedup.contains("alone") && dedup.contains("reserved"));
}
