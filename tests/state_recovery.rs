//! Whoever opens a state is told how far that has come. Goal: it goes from nothing to all, never back, and says what the
//! recovery says in the end. Method: states of some MiB, closed, open and damaged, opened with somebody who takes notes.

mod common;

use std::fs;
use std::path::Path;
use std::sync::{Arc, Mutex};

use common::state::{builder, ids};
use dedupd::{Builder, ManualClock, OnCorrupt, RecoveryProgress};

const IDS: u32 = 1_000_000;

type Notes = Arc<Mutex<Vec<RecoveryProgress>>>;

fn noted(builder: Builder) -> (Builder, Notes) {
    let (notes, opener) = (Notes::default(), std::thread::current().id());
    let taken = Arc::clone(&notes);
    let builder = builder.on_recovery(move |progress| {
        assert_eq!(std::thread::current().id(), opener);
        taken.lock().unwrap().push(progress);
    });
    (builder, notes)
}

fn make(dir: &Path, clock: &ManualClock) -> dedupd::Deduplicator {
    let dedup = builder(clock).open(dir).unwrap();
    dedup.observe_batch(&ids(0..IDS), &mut Vec::new());
    dedup
}

fn segment_bytes(dir: &Path) -> u64 {
    let files = fs::read_dir(dir).unwrap().map(Result::unwrap);
    files
        .filter(|file| file.path().extension().is_some_and(|end| end == "log"))
        .map(|f| f.metadata().unwrap().len())
        .sum()
}

/// Copies a state that is in use. What has no name of its own yet may get one meanwhile, and is not needed.
fn copy(from: &Path, to: &Path) {
    for file in fs::read_dir(from).unwrap().map(Result::unwrap) {
        if file.path().extension().is_none_or(|end| end != "tmp") {
            fs::copy(file.path(), to.join(file.file_name())).unwrap();
        }
    }
}

/// Neither bytes nor ids go back, and the total stays.
fn assert_goes_on(notes: &[RecoveryProgress]) {
    for pair in notes.windows(2) {
        assert!(pair[0].bytes <= pair[1].bytes && pair[0].ids <= pair[1].ids, "{pair:?}");
        assert_eq!(pair[0].bytes_total, pair[1].bytes_total);
    }
}

#[test]
fn it_goes_from_nothing_to_all() {
    let (dir, crashed, clock) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap(), ManualClock::new());
    let dedup = make(dir.path(), &clock);
    // With space at the end that was never used.
    copy(dir.path(), crashed.path());
    dedup.close().unwrap();
    for dir in [dir, crashed] {
        let bytes_total = segment_bytes(dir.path());
        let (builder, notes) = noted(builder(&clock));
        let dedup = builder.open(dir.path()).unwrap();
        let notes = notes.lock().unwrap();
        assert_goes_on(&notes);
        let (first, last) = (notes.first().unwrap(), notes.last().unwrap());
        assert_eq!((first.bytes, first.bytes_total, first.ids), (0, bytes_total, 0));
        assert_eq!((last.bytes, last.bytes_total, last.ids), (bytes_total, bytes_total, u64::from(IDS)));
        assert_eq!(dedup.recovery().unwrap().ids, last.ids);
        let between = &notes[1..notes.len() - 1];
        assert!(between.iter().all(|told| (15..20).contains(&(told.bytes / told.ids))), "{notes:?}");
        // Often enough to be followed, and not for each frame.
        assert!((5..=10).contains(&notes.len()), "{notes:?}");
    }
}

#[test]
fn a_second_attempt_starts_from_nothing() {
    let (dir, clock) = (tempfile::tempdir().unwrap(), ManualClock::new());
    make(dir.path(), &clock).close().unwrap();
    let segment = dir.path().join("0000000000000004.log");
    let mut bytes = fs::read(&segment).unwrap();
    bytes[5_000] ^= 1;
    fs::write(&segment, bytes).unwrap();

    let (refusing, notes) = noted(builder(&clock));
    assert!(refusing.open(dir.path()).is_err());
    let refused = notes.lock().unwrap().clone();
    assert_goes_on(&refused);
    assert!(refused.len() > 1 && refused.last().unwrap().bytes < refused[0].bytes_total, "{refused:?}");

    let (salvaging, notes) = noted(builder(&clock).on_corrupt(OnCorrupt::Salvage));
    let dedup = salvaging.open(dir.path()).unwrap();
    let notes = notes.lock().unwrap();
    let (first, second) = notes.split_at(refused.len());
    assert_eq!(first, refused);
    assert_goes_on(second);
    let last = second.last().unwrap();
    assert_eq!((second[0].bytes, second[0].ids, last.bytes), (0, 0, last.bytes_total));
    assert_eq!(dedup.recovery().unwrap().ids, last.ids);
}

#[test]
fn a_new_state_has_no_bytes_and_a_set_in_memory_tells_nobody() {
    let (dir, clock) = (tempfile::tempdir().unwrap(), ManualClock::new());
    let (opening, notes) = noted(builder(&clock));
    opening.open(dir.path()).unwrap();
    assert!(notes.lock().unwrap().iter().all(|told| (told.bytes, told.bytes_total, told.ids) == (0, 0, 0)));
    assert_eq!(Arc::strong_count(&notes), 1, "who is told is dropped");
    let (building, notes) = noted(builder(&clock));
    building.build().unwrap();
    assert!(notes.lock().unwrap().is_empty());
}

#[test]
fn a_panic_of_who_is_told_leaves_the_state_as_it_is() {
    let (dir, clock) = (tempfile::tempdir().unwrap(), ManualClock::new());
    make(dir.path(), &clock).close().unwrap();
    for at in [0, 1, u64::MAX] {
        let told =
            builder(&clock).on_recovery(move |told| assert!(told.bytes < at.min(told.bytes_total), "on purpose"));
        let opening = std::panic::AssertUnwindSafe(|| told.open(dir.path()).map(drop));
        assert!(std::panic::catch_unwind(opening).is_err(), "at {at}");
    }
    assert_eq!(builder(&clock).open(dir.path()).unwrap().recovery().unwrap().ids, u64::from(IDS));
}
