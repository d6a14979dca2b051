//! [`Stage`]: what every batch goes through, in a pipeline and in the filter, without either.

use std::time::{Duration, Instant};

use dedupd::pipeline::{CommitAt, CommitStep, Delivery, Host, Ids, Repeats, Stage, Unrecorded};
use dedupd::{
    Clock, Deduplicator, Durability, Error, Fingerprint, LogError, ManualClock, OnConflict, Progress, Reservation,
    ReserveVerdict, Timestamp,
};

const WINDOW: Duration = Duration::from_secs(3600);

/// Records each batch's number as the position of its source, and does as told when that fails.
#[derive(Default)]
struct Numbers {
    asked: Vec<Option<u64>>,
    recorded: Vec<usize>,
    failed: Vec<usize>,
    /// How to go on, the last first; without any, not at all.
    answers: Vec<Unrecorded>,
    /// Makes room, for as many tries as it takes.
    clock: Option<ManualClock>,
}

impl Host<u64> for Numbers {
    type Error = Error;

    fn progress(&mut self, batch: Option<&mut u64>, _: Option<&Reservation>) -> Result<Progress, Error> {
        let mut progress = Progress::new();
        progress.set_source("numbers", batch.as_ref().map_or("ahead".to_owned(), |number| number.to_string()));
        self.asked.push(batch.copied());
        Ok(progress)
    }

    fn unrecorded(&mut self, error: Error, ids: usize) -> Result<Unrecorded, Error> {
        assert!(error.is_retryable(), "{error}");
        self.failed.push(ids);
        if let Some(clock) = &self.clock {
            clock.advance(2 * WINDOW);
            // The log's own thread makes it.
            std::thread::sleep(Duration::from_millis(1));
            return if self.failed.len() < 10_000 { Ok(Unrecorded::Again) } else { Err(error) };
        }
        self.answers.pop().ok_or(error)
    }

    fn recorded(&mut self, ids: usize) {
        self.recorded.push(ids);
    }
}

fn ids(dedup: &Deduplicator, numbers: impl IntoIterator<Item = u64>) -> Vec<Fingerprint> {
    numbers.into_iter().map(|number| dedup.fingerprint(number.to_le_bytes())).collect()
}

fn stage(dedup: &Deduplicator, delivery: Delivery) -> Stage<u64> {
    Stage::new(dedup, delivery, CommitAt::Once, Repeats::AreDuplicates)
}

fn in_memory() -> Deduplicator {
    Deduplicator::builder().window(WINDOW).housekeeping(false).build().unwrap()
}

/// Reserves, delivers and commits.
fn pass(stage: &mut Stage<u64>, ids: &[Fingerprint], number: u64, host: &mut Numbers) -> Result<Option<u64>, Error> {
    let reserved = stage.reserve(Ids::new(ids)).unwrap();
    stage.delivered(Some(reserved), Ids::new(ids), number, Instant::now());
    stage.commit_next(host)
}

#[test]
fn an_id_is_seen_once_its_batch_is_committed_or_ahead_of_it() {
    for (delivery, is_ahead) in
        [(Delivery::AtLeastOnce, false), (Delivery::ExactlyOnce, false), (Delivery::AtMostOnce, true)]
    {
        let dedup = in_memory();
        let (mut stage, mut host) = (stage(&dedup, delivery), Numbers::default());
        let one = ids(&dedup, [1, 2]);
        let is_seen = || dedup.reserve_fingerprints(&one[..1]).unwrap().verdicts() == [ReserveVerdict::Duplicate];
        let mut reserved = stage.reserve(Ids::new(&one)).unwrap();
        assert!(stage.commit_ahead(&mut reserved, &mut host).unwrap());
        assert_eq!(is_seen(), is_ahead, "{delivery}");
        stage.delivered(Some(reserved), Ids::new(&one), 7, Instant::now());
        assert_eq!((stage.len(), stage.is_ready(), stage.batches().copied().collect::<Vec<_>>()), (1, true, vec![7]));
        assert_eq!(stage.commit_next(&mut host).unwrap(), Some(7));
        assert!(is_seen() && stage.is_empty());
        assert_eq!(stage.commit_next(&mut host).unwrap(), None);
        let (asked, recorded) = if is_ahead { (vec![None, Some(7)], vec![2, 0]) } else { (vec![Some(7)], vec![2]) };
        assert_eq!((host.asked, host.recorded), (asked, recorded), "{delivery}");
    }
}

#[test]
fn ids_that_are_not_committed_are_released() {
    let dedup = in_memory();
    let mut stage = stage(&dedup, Delivery::AtLeastOnce);
    let all = ids(&dedup, 0..4);
    for (batch, number) in all.chunks(2).zip(0..) {
        let reserved = stage.reserve(Ids::new(batch)).unwrap();
        stage.delivered(Some(reserved), Ids::new(batch), number, Instant::now());
    }
    assert_eq!(stage.take_all().collect::<Vec<_>>(), [0, 1]);
    assert!(stage.is_empty() && stage.has_room(Ids::new(&all)));
    assert_eq!(dedup.reserve_fingerprints(&all).unwrap().verdicts(), [ReserveVerdict::FirstSeen; 4]);
}

#[test]
fn what_is_reserved_fills_at_most_half_of_the_set() {
    let dedup = Deduplicator::builder().max_ids(100).build().unwrap();
    assert_eq!(dedup.reserve_max(), Some(50));
    let mut stage = stage(&dedup, Delivery::AtLeastOnce);
    let all = ids(&dedup, 0..200);
    assert_eq!([0, 3, 50, 51].map(|count| stage.together(Ids::new(&all[..count]))), [0, 3, 50, 50]);
    assert!(stage.has_room(Ids::new(&all)), "alone, whatever there is");
    let (first, rest) = Ids::new(&all).split_at(30);
    let reserved = stage.reserve(first).unwrap();
    stage.delivered(Some(reserved), first, 0, Instant::now());
    assert!(stage.has_room(rest.split_at(20).0) && !stage.has_room(rest.split_at(21).0));
    assert_eq!(stage.commit_next(&mut Numbers::default()).unwrap(), Some(0));
    assert!(stage.has_room(rest));
    let with_digests = Deduplicator::builder().max_ids(100).on_conflict(OnConflict::Count).build().unwrap();
    let with_memory = Deduplicator::builder().max_memory(1 << 20).build().unwrap();
    let without = in_memory();
    let most = [&with_digests, &with_memory, &without].map(Deduplicator::reserve_max);
    assert_eq!(most, [Some(25), Some(8_192), None]);
    let one = Deduplicator::builder().max_ids(1).build().unwrap();
    assert_eq!(one.reserve_max(), Some(1));
    let third = Stage::<u64>::new(&dedup, Delivery::AtLeastOnce, CommitAt::Once, Repeats::Wait).one_of(3);
    assert_eq!(third.together(Ids::new(&all)), 16);
    let many = Stage::<u64>::new(&dedup, Delivery::AtLeastOnce, CommitAt::Once, Repeats::Wait).one_of(1_000);
    assert_eq!(many.together(Ids::new(&all)), 1);
}

#[test]
fn a_batch_fits_a_frame_of_the_log() {
    let dir = tempfile::tempdir().unwrap();
    let dedup = Deduplicator::builder().durability(Durability::Process).open(dir.path()).unwrap();
    let all = ids(&dedup, 0..100_000);
    let stage = stage(&dedup, Delivery::AtLeastOnce);
    assert_eq!(stage.together(Ids::new(&all)), 1 << 15);
    let digests: Vec<_> = all.iter().map(|id| dedup.digest(*id, "x")).collect();
    assert_eq!(stage.together(Ids::new(&all).with_digests(&digests)), 1 << 14, "each is two records");
}

/// The largest record: an ID with a time, and its digest.
#[test]
fn the_largest_batch_is_committed_to_the_smallest_segment() {
    let (dir, clock) = (tempfile::tempdir().unwrap(), ManualClock::new());
    let builder = Deduplicator::builder().window(WINDOW).lateness(WINDOW).on_conflict(OnConflict::Pass);
    let dedup = builder.clock(clock).durability(Durability::Process).max_disk(3 << 20).open(dir.path()).unwrap();
    let events: Vec<_> = ids(&dedup, 0..40_000).into_iter().zip((0..).map(|n| at(n % 1_000))).collect();
    let digests: Vec<_> = events.iter().map(|(id, _)| dedup.digest(*id, "x")).collect();
    let (mut stage, mut host) = (stage(&dedup, Delivery::AtLeastOnce), Numbers::default());
    let all = Ids::at(&events).with_digests(&digests);
    let (batch, _) = all.split_at(stage.together(all));
    let reserved = stage.reserve(batch).unwrap();
    stage.delivered(Some(reserved), batch, 0, Instant::now());
    assert_eq!(stage.commit_next(&mut host).unwrap(), Some(0));
    assert_eq!(host.recorded, [1 << 14]);
}

/// So long after the clock.
fn at(seconds: i64) -> Timestamp {
    Timestamp::from_millis(ManualClock::new().now().as_nanos() / 1_000_000 + 1_000 * seconds)
}

fn event_time(extends: bool) -> Deduplicator {
    let builder = Deduplicator::builder().window(WINDOW).lateness(10 * WINDOW).max_future(10 * WINDOW);
    builder.extend_on_duplicate(extends).clock(ManualClock::new()).housekeeping(false).build().unwrap()
}

#[test]
fn in_event_time_what_is_reserved_at_a_time_lies_within_one_window() {
    let dedup = event_time(false);
    let events = |seconds: &[i64]| -> Vec<_> {
        seconds.iter().map(|seconds| (dedup.fingerprint(seconds.to_le_bytes()), at(*seconds))).collect()
    };
    let spread = events(&[5_000, 4_000, 7_599, 7_600, 4_500]);
    let mut waiting = Stage::<u64>::new(&dedup, Delivery::AtLeastOnce, CommitAt::Once, Repeats::Wait);
    let mut stage = stage(&dedup, Delivery::AtLeastOnce);
    assert_eq!((stage.together(Ids::at(&spread)), waiting.together(Ids::at(&spread))), (3, 5));
    assert_eq!(stage.together(Ids::at(&spread[3..])), 2);
    for stage in [&mut stage, &mut waiting] {
        let (first, _) = Ids::at(&spread).split_at(2);
        let reserved = stage.reserve(first).unwrap();
        stage.delivered(Some(reserved), first, 0, Instant::now());
    }
    let room = |stage: &Stage<u64>, seconds| stage.has_room(Ids::at(&events(&[seconds])));
    assert_eq!([7_599, 7_600, 1_401, 1_400].map(|seconds| room(&stage, seconds)), [true, false, true, false]);
    assert!(room(&waiting, 7_600));
    stage.commit_next(&mut Numbers::default()).unwrap();
    assert!(room(&stage, 7_600));
    // Ids without a time are of the present.
    let now = ids(&dedup, [1]);
    let reserved = stage.reserve(Ids::new(&now)).unwrap();
    stage.delivered(Some(reserved), Ids::new(&now), 0, Instant::now());
    assert_eq!([-3_599, -3_600, 3_599, 3_600].map(|seconds| room(&stage, seconds)), [true, false, true, false]);
    stage.take_all().for_each(drop);
    let events = events(&[3_600]);
    let reserved = stage.reserve(Ids::at(&events)).unwrap();
    stage.delivered(Some(reserved), Ids::at(&events), 0, Instant::now());
    assert!(!stage.has_room(Ids::new(&now)) && stage.has_room(Ids::new(&[])));
}

#[test]
fn repeats_within_a_batch_extend_what_they_repeat() {
    for (extends, repeats, expected) in [
        (true, Repeats::AreDuplicates, ReserveVerdict::Duplicate),
        (true, Repeats::Wait, ReserveVerdict::FirstSeen),
        (false, Repeats::AreDuplicates, ReserveVerdict::FirstSeen),
    ] {
        let dedup = event_time(extends);
        let mut stage = Stage::new(&dedup, Delivery::AtLeastOnce, CommitAt::Once, repeats);
        let id = dedup.fingerprint("a");
        let events = [(id, at(0)), (id, at(3_000))];
        let reserved = stage.reserve(Ids::at(&events)).unwrap();
        assert_eq!(reserved.verdicts(), [ReserveVerdict::FirstSeen, ReserveVerdict::InFlight]);
        stage.delivered(Some(reserved), Ids::at(&events), 0, Instant::now());
        stage.commit_next(&mut Numbers::default()).unwrap();
        let later = dedup.reserve_fingerprints_at(&[(id, at(6_000))]).unwrap();
        assert_eq!(later.verdicts(), [expected], "{extends} {repeats:?}");
    }
}

#[test]
fn batches_wait_for_a_flush_and_for_each_other() {
    let dedup = in_memory();
    let (start, interval) = (Instant::now(), Duration::from_millis(50));
    let at = CommitAt::Within(interval);
    let mut stage = Stage::new(&dedup, Delivery::AtLeastOnce, at, Repeats::AreDuplicates);
    let (all, mut host) = (ids(&dedup, 0..3), Numbers::default());
    let deliver = |stage: &mut Stage<u64>, number: usize, now| {
        let reserved = stage.reserve(Ids::new(&all[number..=number])).unwrap();
        stage.delivered(Some(reserved), Ids::new(&all[number..=number]), number as u64, now);
    };
    deliver(&mut stage, 0, start);
    deliver(&mut stage, 1, start + interval / 2);
    assert_eq!((stage.at(), stage.due(), stage.step(start)), (at, Some(start + interval), CommitStep::Wait));
    assert_eq!(stage.commit_next(&mut host).unwrap(), None);
    let CommitStep::Flush(flush) = stage.step(start + interval) else { panic!("it is due") };
    deliver(&mut stage, 2, start + interval);
    stage.flushed(flush, start + 2 * interval);
    assert_eq!(stage.step(start + 2 * interval), CommitStep::Commit);
    assert_eq!([(); 3].map(|()| stage.commit_next(&mut host).unwrap()), [Some(0), Some(1), None]);
    assert_eq!(stage.due(), Some(start + 3 * interval));
    stage.hurry(start);
    assert_eq!(stage.due(), Some(start));
    let flush = stage.begin_flush();
    stage.flushed(flush, start);
    assert_eq!(stage.commit_next(&mut host).unwrap(), Some(2));
}

/// A state whose log has no room for another batch.
fn full(dir: &tempfile::TempDir, clock: &ManualClock) -> (Deduplicator, u64) {
    let builder = Deduplicator::builder().window(WINDOW).clock(clock.clone()).durability(Durability::Process);
    let dedup = builder.housekeeping(false).max_disk(4 << 20).open(dir.path()).unwrap();
    for start in (0..).step_by(1_000) {
        let batch = ids(&dedup, start..start + 1_000);
        match dedup.reserve_fingerprints(&batch).unwrap().commit() {
            Ok(()) => {}
            Err(Error::Log(LogError::NoRoom { .. })) => return (dedup, start),
            Err(error) => panic!("{error}"),
        }
    }
    unreachable!("it has a limit");
}

#[test]
fn a_batch_that_cannot_be_recorded_stays_the_next() {
    let (dir, clock) = (tempfile::tempdir().unwrap(), ManualClock::new());
    let (dedup, start) = full(&dir, &clock);
    let (mut stage, mut host) = (stage(&dedup, Delivery::AtLeastOnce), Numbers::default());
    let all = ids(&dedup, start..start + 2_000);
    let (first, second) = all.split_at(1_000);
    assert!(matches!(pass(&mut stage, first, 1, &mut host), Err(Error::Log(LogError::NoRoom { .. }))));
    assert!(pass(&mut stage, second, 2, &mut host).is_err(), "not before the first");
    assert_eq!((host.asked.as_slice(), stage.len()), ([Some(1), Some(1)].as_slice(), 2));
    let again = dedup.reserve_fingerprints(&all).unwrap();
    assert!(again.verdicts().iter().all(|verdict| *verdict == ReserveVerdict::InFlight));
    host.clock = Some(clock);
    assert_eq!([(); 3].map(|()| stage.commit_next(&mut host).unwrap()), [Some(1), Some(2), None]);
    assert!(host.failed.len() > 2 && host.failed.iter().all(|ids| *ids == 1_000), "{:?}", host.failed);
    assert_eq!(host.recorded, [1_000; 2]);
    assert_eq!(dedup.progress().source("numbers"), Some(&b"2"[..]));
}

/// Says no to everything.
struct Refusing;

impl Host<u64> for Refusing {
    type Error = &'static str;

    fn progress(&mut self, _: Option<&mut u64>, _: Option<&Reservation>) -> Result<Progress, &'static str> {
        Err("no")
    }

    fn unrecorded(&mut self, _: Error, _: usize) -> Result<Unrecorded, &'static str> {
        unreachable!("nothing is to be recorded")
    }
}

#[test]
fn nothing_is_committed_that_its_host_has_no_progress_for() {
    let dedup = in_memory();
    let mut stage = stage(&dedup, Delivery::AtMostOnce);
    let batch = ids(&dedup, [1]);
    let mut reserved = stage.reserve(Ids::new(&batch)).unwrap();
    assert_eq!(stage.commit_ahead(&mut reserved, &mut Refusing), Err("no"));
    stage.delivered(Some(reserved), Ids::new(&batch), 1, Instant::now());
    assert_eq!((stage.commit_next(&mut &mut Refusing), stage.len()), (Err("no"), 1));
    assert_eq!(dedup.reserve_fingerprints(&batch).unwrap().verdicts(), [ReserveVerdict::InFlight]);
    assert_eq!(stage.commit_next(&mut Numbers::default()).unwrap(), Some(1));
    assert_eq!(dedup.reserve_fingerprints(&batch).unwrap().verdicts(), [ReserveVerdict::Duplicate]);
}

#[test]
fn a_batch_that_is_passed_by_is_unknown() {
    let (dir, clock) = (tempfile::tempdir().unwrap(), ManualClock::new());
    let (dedup, start) = full(&dir, &clock);
    let (mut stage, mut host) = (stage(&dedup, Delivery::AtLeastOnce), Numbers::default());
    host.answers = vec![Unrecorded::PassBy; 3];
    let batch = ids(&dedup, start..start + 1_000);
    let ahead = Stage::<u64>::new(&dedup, Delivery::AtMostOnce, CommitAt::Once, Repeats::AreDuplicates);
    let passed_by = ahead.commit_ahead(&mut ahead.reserve(Ids::new(&batch)).unwrap(), &mut host).unwrap();
    assert!(!passed_by && std::mem::take(&mut host.failed) == [1_000]);
    assert_eq!(pass(&mut stage, &batch, 1, &mut host).unwrap(), Some(1));
    assert_eq!((host.failed.as_slice(), host.recorded.as_slice()), ([1_000].as_slice(), [].as_slice()));
    let verdicts = dedup.reserve_fingerprints(&batch).unwrap().verdicts().to_vec();
    assert!(verdicts.iter().all(|verdict| *verdict == ReserveVerdict::FirstSeen));
    let mut progress = Progress::new();
    progress.set_source("numbers", [b'x'; 900]);
    while stage.record_progress(&progress, &mut host).unwrap() {}
    assert_eq!(host.failed, [1_000, 0]);
}
