//! What the set promises, and the traps on the way, each by name.

use std::collections::HashSet;
use std::sync::Barrier;
use std::thread;
use std::time::Duration;

use dedupd::{
    BuildError, Clock, Deduplicator, Error, IdHash, ManualClock, Progress, ReserveVerdict, Stats, Timestamp, Unjudged,
    Verdict, WhenFull,
};

const HOUR: Duration = Duration::from_secs(3600);

fn builder(clock: &ManualClock) -> dedupd::Builder {
    Deduplicator::builder().window(HOUR).clock(clock.clone()).housekeeping(false).hash(IdHash::Xxh3)
}

fn observe_range(dedup: &Deduplicator, ids: std::ops::Range<u64>) -> usize {
    let ids: Vec<_> = ids.map(u64::to_le_bytes).collect();
    let mut verdicts = Vec::new();
    dedup.observe_batch(&ids, &mut verdicts);
    verdicts.iter().filter(|verdict| **verdict == Verdict::FirstSeen).count()
}

#[test]
fn an_id_is_remembered_for_the_window_and_at_most_a_slack_more() {
    for offset in [0, 1, 17, 56_249, 56_250, 56_251] {
        let clock = ManualClock::starting_at(Timestamp::from_millis(1_000_000_000 + offset));
        let dedup = builder(&clock).build().unwrap();
        assert_eq!(dedup.slack(), HOUR / 64);
        assert_eq!(dedup.observe("a"), Verdict::FirstSeen);
        clock.advance(HOUR - Duration::from_nanos(1));
        assert_eq!(dedup.observe("a"), Verdict::Duplicate, "just before the window ends");
        clock.advance(dedup.slack() + Duration::from_nanos(1));
        assert_eq!(dedup.observe("a"), Verdict::FirstSeen, "after window and slack");
    }
}

#[test]
fn repeats_extend_the_window_only_when_asked() {
    for (extend, after_two_windows) in [(false, Verdict::FirstSeen), (true, Verdict::Duplicate)] {
        let clock = ManualClock::new();
        let dedup = builder(&clock).extend_on_duplicate(extend).build().unwrap();
        let _ = dedup.observe("a");
        let mut first_seen_again = false;
        for _ in 0..8 {
            clock.advance(HOUR / 4);
            first_seen_again |= dedup.observe("a") == Verdict::FirstSeen;
        }
        assert_eq!(first_seen_again, after_two_windows == Verdict::FirstSeen);
    }
}

#[test]
fn after_idling_for_three_tag_ranges_nothing_old_comes_back() {
    let clock = ManualClock::new();
    let dedup = builder(&clock).build().unwrap();
    let generation = HOUR / 64;
    for extra in 0..200_u32 {
        assert_eq!(observe_range(&dedup, 0..100), 100, "at {extra}");
        clock.advance(generation * (3 * 16_384 - 100 + extra));
        assert!(!dedup.contains(7_u64.to_le_bytes()));
    }
}

#[test]
fn a_segment_left_alone_is_cleaned_before_it_is_asked() {
    let clock = ManualClock::new();
    // One shard and many segments: asking one id keeps the shard up to date, and leaves the other segments behind.
    let dedup = builder(&clock).shape(0, 64, 2).build().unwrap();
    assert_eq!(observe_range(&dedup, 0..2_000), 2_000);
    for _ in 0..3 * 16_384 / 64 {
        clock.advance(HOUR);
        let _ = dedup.observe("the only one asked");
    }
    assert_eq!(observe_range(&dedup, 0..2_000), 2_000);
    assert_eq!(observe_range(&dedup, 0..2_000), 0);
}

#[test]
fn a_clock_that_goes_back_is_held_and_counted() {
    let clock = ManualClock::starting_at(Timestamp::from_secs(1_000_000));
    let dedup = builder(&clock).build().unwrap();
    let _ = dedup.observe("a");
    clock.set(Timestamp::from_secs(1_000_000 - 10 * 3600));
    assert_eq!(dedup.observe("a"), Verdict::Duplicate);
    assert_eq!(dedup.observe("b"), Verdict::FirstSeen);
    assert_eq!(dedup.stats().clock_held, 1, "once, however often it is asked meanwhile");
    clock.set(Timestamp::from_secs(1_000_000 + 3599));
    assert_eq!(dedup.observe("b"), Verdict::Duplicate, "b was seen at the held time");
    clock.set(Timestamp::from_secs(1_000_000 + 2 * 3600));
    assert_eq!(dedup.observe("a"), Verdict::FirstSeen);
    assert_eq!(dedup.stats().clock_held, 1);
}

#[test]
fn a_limit_reached_within_one_instant_forgets_a_64th_at_a_time() {
    let clock = ManualClock::new();
    let limit = 64_000_u64;
    let dedup = builder(&clock).max_ids(limit as usize).build().unwrap();
    let mut evicted = 0;
    for id in 0..4 * limit {
        assert_eq!(dedup.observe(id.to_le_bytes()), Verdict::FirstSeen);
        if id % 100 == 0 {
            let stats = dedup.stats();
            assert!(
                stats.evicted_early - evicted <= limit / 64 + 1,
                "at {id}: {} at once",
                stats.evicted_early - evicted
            );
            assert!(stats.live_ids <= limit);
            assert_eq!(stats.live_ids + stats.evicted_early, id + 1, "every id is live or counted as evicted");
            evicted = stats.evicted_early;
        }
    }
    assert!(dedup.stats().live_ids >= limit - limit / 32, "{} of {limit}", dedup.stats().live_ids);
    assert_eq!(observe_range(&dedup, 4 * limit - limit * 9 / 10..4 * limit), 0, "the newest nine tenths are known");
}

#[test]
fn for_ever_with_a_limit_keeps_the_newest() {
    let clock = ManualClock::new();
    let dedup = builder(&clock).window(Duration::MAX).max_ids(1_000).build().unwrap();
    for id in 0..10_000_u64 {
        assert_eq!(dedup.observe(id.to_le_bytes()), Verdict::FirstSeen);
        clock.advance(Duration::from_secs(86_400));
    }
    assert_eq!(observe_range(&dedup, 9_100..10_000), 0);
    assert!(dedup.stats().live_ids <= 1_000);
}

#[test]
fn for_ever_without_a_limit_forgets_nothing() {
    let clock = ManualClock::new();
    let dedup = builder(&clock).window(Duration::MAX).build().unwrap();
    let _ = dedup.observe("a");
    for _ in 0..100 {
        clock.advance(Duration::from_secs(86_400 * 365));
        assert_eq!(dedup.observe("a"), Verdict::Duplicate);
    }
}

#[test]
fn a_full_set_refuses_when_told_to_and_takes_again_when_ids_expire() {
    let clock = ManualClock::new();
    let dedup = builder(&clock).max_ids(10).when_full(WhenFull::Refuse).build().unwrap();
    for id in 0..10_u64 {
        assert_eq!(dedup.try_observe(id.to_le_bytes()), Ok(Verdict::FirstSeen));
    }
    assert_eq!(dedup.try_observe("eleven"), Err(Unjudged::Full));
    assert_eq!(dedup.observe("eleven"), Verdict::FirstSeen, "what cannot be judged is passed");
    assert_eq!(dedup.observe(3_u64.to_le_bytes()), Verdict::Duplicate, "known ids are still judged");
    let stats = dedup.stats();
    assert_eq!((stats.live_ids, stats.full, stats.bypassed, stats.evicted_early), (10, 2, 1, 0));
    assert!(dedup.forget(3_u64.to_le_bytes()).unwrap());
    assert_eq!(dedup.try_observe("eleven"), Ok(Verdict::FirstSeen), "a forgotten id leaves room");
    clock.advance(HOUR * 2);
    assert_eq!(dedup.try_observe("twelve"), Ok(Verdict::FirstSeen));
}

#[test]
fn pending_ids_count_towards_the_limit_and_are_not_evicted() {
    let clock = ManualClock::new();
    let dedup = builder(&clock).max_ids(10).build().unwrap();
    let ids: Vec<_> = (0..10_u64).map(u64::to_le_bytes).collect();
    let reserved = dedup.reserve_batch(&ids).unwrap();
    assert_eq!(dedup.try_observe("eleven"), Err(Unjudged::Full), "nothing may be evicted");
    clock.advance(HOUR * 100);
    let again = dedup.reserve_batch(&ids).unwrap();
    assert!(again.verdicts().iter().all(|verdict| *verdict == ReserveVerdict::InFlight), "pending ids do not expire");
    drop(again);
    reserved.commit().unwrap();
    assert_eq!(observe_range(&dedup, 0..10), 0, "the window runs from the commit");
    clock.advance(HOUR * 2);
    assert_eq!(observe_range(&dedup, 0..10), 10);
}

#[test]
fn a_released_reservation_leaves_no_trace() {
    let clock = ManualClock::new();
    let dedup = builder(&clock).max_ids(100).when_full(WhenFull::Refuse).build().unwrap();
    let ids: Vec<_> = (0..100_u64).map(u64::to_le_bytes).collect();
    for _ in 0..50 {
        let reserved = dedup.reserve_batch(&ids).unwrap();
        assert!(reserved.verdicts().iter().all(|verdict| *verdict == ReserveVerdict::FirstSeen));
    }
    let stats = dedup.stats();
    assert_eq!((stats.live_ids, stats.pending_ids), (0, 0));
}

/// Many ids and more room: where they stand is remembered then.
#[test]
fn what_a_reservation_holds_is_committed_once_however_it_is_put_together() {
    let dedup = builder(&ManualClock::new()).expected_ids(100_000).build().unwrap();
    let ids = |range: std::ops::Range<u64>| range.map(u64::to_le_bytes).collect::<Vec<_>>();
    let known = |range: std::ops::Range<u64>| ids(range).iter().filter(|id| dedup.contains(id)).count();
    let counts = || (dedup.stats().live_ids, dedup.stats().pending_ids);
    let mut twice = dedup.reserve_batch(&ids(0..300)).unwrap();
    twice.try_commit(&Progress::new()).unwrap();
    assert_eq!((twice.pending(), counts()), (0, (300, 0)));
    twice.try_commit(&Progress::new()).unwrap();
    twice.join(dedup.reserve_batch(&ids(300..400)).unwrap()).unwrap();
    let mut more = dedup.reserve_batch(&ids(400..480)).unwrap();
    more.join(dedup.reserve_batch(&ids(480..500)).unwrap()).unwrap();
    assert_eq!((twice.pending(), more.pending(), counts()), (100, 100, (300, 200)));
    more.commit().unwrap();
    assert_eq!((known(400..500), counts()), (100, (400, 100)));
    let mut other = dedup.reserve_batch(&ids(500..700)).unwrap();
    let wanted: HashSet<_> = ids(500..600).iter().map(|id| dedup.fingerprint(id)).collect();
    let part = other.split(|id| wanted.contains(&id));
    twice.commit().unwrap();
    drop(part);
    assert_eq!((known(0..500), known(500..600), counts()), (500, 0, (500, 100)));
    other.commit().unwrap();
    assert_eq!((known(600..700), counts()), (100, (600, 0)));
}

#[test]
fn a_repeat_within_a_reservation_is_in_flight_and_a_question_about_it_a_duplicate() {
    let dedup = builder(&ManualClock::new()).build().unwrap();
    let reserved = dedup.reserve_batch(&["a", "b", "a"]).unwrap();
    let expected = [ReserveVerdict::FirstSeen, ReserveVerdict::FirstSeen, ReserveVerdict::InFlight];
    assert_eq!(reserved.verdicts(), expected);
    assert_eq!(dedup.observe("a"), Verdict::Duplicate);
    assert!(dedup.contains("a"));
    assert!(!dedup.forget("a").unwrap(), "a pending id is its reservation's to resolve");
    reserved.commit().unwrap();
    assert!(dedup.forget("a").unwrap());
    assert_eq!(dedup.observe("a"), Verdict::FirstSeen);
}

/// Who is first in its line is a matter of chance: what is pending, or what is seen.
#[test]
fn a_repeat_of_what_is_seen_is_a_duplicate_also_while_a_later_one_of_its_id_is_pending() {
    let dedup = builder(&ManualClock::new()).lateness(HOUR * 2).max_future(HOUR * 2).build().unwrap();
    let at = |minutes: i64| Timestamp::from_millis(minutes * 60_000);
    let ids: Vec<_> = (0..2_000_u64).map(u64::to_le_bytes).collect();
    let (fillers, ids) = ids.split_at(1_000);
    let each = |ids: &[[u8; 8]], time| ids.iter().map(|id| (dedup.fingerprint(id), time)).collect::<Vec<_>>();
    for ids in [fillers, ids] {
        dedup.reserve_fingerprints_at(&each(ids, at(0))).unwrap().commit().unwrap();
    }
    // Leaves places free before those that are taken.
    fillers.iter().for_each(|id| assert!(dedup.forget(id).unwrap()));
    let again = dedup.reserve_fingerprints_at(&each(ids, at(65))).unwrap();
    assert!(again.verdicts().iter().all(|verdict| *verdict == ReserveVerdict::FirstSeen));
    let late = dedup.reserve_fingerprints_at(&each(ids, at(50))).unwrap();
    assert!(
        late.verdicts().iter().all(|verdict| *verdict == ReserveVerdict::Duplicate),
        "they are seen since minute 0"
    );
    let later = dedup.reserve_fingerprints_at(&each(ids, at(70))).unwrap();
    assert!(later.verdicts().iter().all(|verdict| *verdict == ReserveVerdict::InFlight));
}

#[test]
fn a_limit_on_memory_is_kept_and_evicts_about_a_64th() {
    for bytes in [1 << 18, 1 << 20, 8 << 20, 40 << 20] {
        let clock = ManualClock::new();
        let dedup = builder(&clock).max_memory(bytes).build().unwrap();
        let step = if bytes < 1 << 20 { 1 } else { bytes as u64 / 2_000 };
        let ids = bytes as u64 / 6 / step * step;
        let (mut evicted, mut times, mut larger) = (0, 0, 0);
        for start in (0..ids).step_by(step as usize) {
            assert_eq!(observe_range(&dedup, start..start + step), step as usize);
            let stats = dedup.stats();
            assert!(stats.memory_bytes <= bytes as u64, "{} of {bytes} bytes", stats.memory_bytes);
            assert_eq!((stats.bypassed, stats.full), (0, 0), "with {bytes} bytes at {start}");
            let at_once = stats.evicted_early - evicted;
            // A generation is a 64th. The next goes too when none of the first had a place that the new ID can take: with
            // keys of chance that is one in 200, a third one in 15,000.
            times += u64::from(at_once > 0);
            larger += u64::from(at_once > stats.live_ids / 24 + step);
            assert!(at_once <= stats.live_ids / 8 + step, "{at_once} of {} ids at once", stats.live_ids);
            evicted = stats.evicted_early;
        }
        assert!(times > 0 && larger <= 2 + times / 20, "{larger} of {times} evictions were more than a 24th");
        let live = dedup.stats().live_ids;
        assert!(live > bytes as u64 / 40, "only {live} ids in {bytes} bytes");
        assert_eq!(observe_range(&dedup, ids - live / 2..ids), 0, "the newest are known");
    }
}

#[test]
fn a_limit_on_memory_refuses_when_told_to() {
    let dedup = builder(&ManualClock::new()).max_memory(1 << 20).when_full(WhenFull::Refuse).build().unwrap();
    let known: Vec<u64> =
        (0..200_000).filter(|id: &u64| dedup.try_observe(id.to_le_bytes()) == Ok(Verdict::FirstSeen)).collect();
    assert!(known.len() > 20_000 && known.len() < 100_000, "{} ids in 1 MiB", known.len());
    assert!(known.iter().all(|id| dedup.try_observe(id.to_le_bytes()) == Ok(Verdict::Duplicate)));
    assert!(dedup.stats().memory_bytes <= 1 << 20);
}

#[test]
fn growing_moves_a_bounded_number_of_entries_per_call() {
    let dedup = builder(&ManualClock::new()).build().unwrap();
    let mut moved = 0;
    let mut most = 0;
    for id in 0..1_500_000_u64 {
        let _ = dedup.observe(id.to_le_bytes());
        // Reading the count takes all locks, so look where many moves are: at every id would take minutes.
        if id % 7 == 0 {
            let now = dedup.stats().moved;
            most = most.max(now - moved);
            moved = now;
        }
        if id == 60_000 || id == 1_400_000 {
            moved = dedup.stats().moved;
        } else if (60_000..1_400_000).contains(&id) {
            continue;
        }
    }
    assert!(most <= 7 * 1_280 * 2, "{most} entries moved within 7 calls");
}

#[test]
fn memory_per_id_is_the_same_at_every_size() {
    let dedup = builder(&ManualClock::new()).build().unwrap();
    let mut sizes = Vec::new();
    let mut start = 0;
    for end in [9_000_000, 10_500_000, 12_000_000, 14_000_000, 17_000_000] {
        while start < end {
            observe_range(&dedup, start..start + 100_000);
            start += 100_000;
        }
        let stats = dedup.stats();
        sizes.push(stats.memory_bytes as f64 / stats.live_ids as f64);
    }
    let mean = sizes.iter().sum::<f64>() / sizes.len() as f64;
    assert!(mean <= 24.0, "{mean:.1} bytes per id on average: {sizes:.1?}");
    assert!(sizes.iter().all(|bytes| *bytes <= 28.0), "{sizes:.1?}");
}

#[test]
fn a_set_at_rest_holds_no_memory_that_it_does_not_need() {
    const ARENA: u64 = 2 << 20;
    for (ids, arenas) in [(1, 1), (40_000, 1), (200_000, 4), (1_000_000, 14)] {
        let dedup = builder(&ManualClock::new()).build().unwrap();
        for start in (0..ids).step_by(20_000) {
            observe_range(&dedup, start..ids.min(start + 20_000));
            dedup.maintain(Duration::ZERO);
        }
        for _ in 0..200 {
            dedup.maintain(Duration::from_millis(1));
        }
        let bytes = dedup.stats().memory_bytes;
        assert!(bytes < (arenas + 1) * ARENA, "{ids} ids in {bytes} bytes, and {arenas} arenas would do");
    }
}

#[test]
fn memory_of_a_burst_is_given_back_when_it_has_expired() {
    let clock = ManualClock::new();
    let dedup = builder(&clock).build().unwrap();
    let before = dedup.stats().memory_bytes;
    observe_range(&dedup, 0..2_000_000);
    let peak = dedup.stats().memory_bytes;
    clock.advance(HOUR);
    observe_range(&dedup, 3_000_000..3_020_000);
    clock.advance(HOUR / 2);
    while !dedup.maintain(Duration::from_secs(1)) {}
    let after = dedup.stats().memory_bytes;
    assert!(after < before + (peak - before) / 8, "{before} bytes at first, {peak} at the peak, {after} after");
    assert_eq!(observe_range(&dedup, 3_000_000..3_020_000), 0, "what had not expired is still known");
    assert_eq!(observe_range(&dedup, 0..100_000), 100_000);
}

#[test]
fn among_all_threads_that_ask_at_once_one_is_first() {
    const THREADS: usize = 8;
    const IDS: u64 = 20_000;
    let dedup = Deduplicator::builder().build().unwrap();
    let barrier = Barrier::new(THREADS);
    let first: usize = thread::scope(|scope| {
        let workers: Vec<_> = (0..THREADS)
            .map(|worker| {
                let (dedup, barrier) = (dedup.clone(), &barrier);
                scope.spawn(move || {
                    barrier.wait();
                    if worker % 2 == 0 {
                        return observe_range(&dedup, 0..IDS);
                    }
                    let is_first = |id: &u64| dedup.observe(id.to_le_bytes()) == Verdict::FirstSeen;
                    (0..IDS).rev().filter(is_first).count()
                })
            })
            .collect();
        workers.into_iter().map(|worker| worker.join().unwrap()).sum()
    });
    assert_eq!(first, IDS as usize);
    let stats = dedup.stats();
    assert_eq!((stats.first_seen, stats.duplicates), (IDS, IDS * (THREADS as u64 - 1)));
}

/// Threads observe, reserve, commit, release, sweep and move the clock at once; every answer is checked by its thread,
/// which alone asks about its ids.
#[test]
fn threads_that_share_segments_do_not_disturb_each_other() {
    let clock = ManualClock::new();
    let dedup = builder(&clock).shape(0, 1, 3).build().unwrap();
    thread::scope(|scope| {
        for worker in 0..4_u64 {
            let (dedup, clock) = (dedup.clone(), clock.clone());
            scope.spawn(move || {
                for round in 0..60_u64 {
                    let ids: Vec<_> =
                        (0..200_u64).map(|id| [worker, round, id].map(u64::to_le_bytes).concat()).collect();
                    let reserved = dedup.reserve_batch(&ids).unwrap();
                    assert!(reserved.verdicts().iter().all(|verdict| *verdict == ReserveVerdict::FirstSeen));
                    if round % 3 == 0 {
                        drop(reserved);
                        assert!(ids.iter().all(|id| !dedup.contains(id)));
                        continue;
                    }
                    reserved.commit().unwrap();
                    let mut verdicts = Vec::new();
                    dedup.observe_batch(&ids, &mut verdicts);
                    assert!(verdicts.iter().all(|verdict| *verdict == Verdict::Duplicate));
                    clock.advance(Duration::from_secs(5));
                    dedup.maintain(Duration::from_millis(1));
                }
            });
        }
    });
    let stats = dedup.stats();
    assert_eq!((stats.pending_ids, stats.bypassed, stats.evicted_early), (0, 0, 0));
}

#[test]
fn scopes_are_apart_and_an_empty_one_is_none() {
    let dedup = Deduplicator::builder().build().unwrap();
    let (a, b) = (dedup.scoped("a"), dedup.scoped("b"));
    for handle in [&dedup, &a, &b] {
        assert_eq!(handle.observe("id"), Verdict::FirstSeen);
        assert_eq!(handle.observe("id"), Verdict::Duplicate);
    }
    assert_eq!(dedup.scoped("").observe("id"), Verdict::Duplicate);
    assert_eq!(dedup.scoped(b"a").fingerprint("id"), a.fingerprint("id"));
}

#[test]
fn batches_answer_as_single_questions_do() {
    let ids: Vec<u64> = (0..5_000_u64).map(|n| n.wrapping_mul(0x9E37_79B9_7F4A_7C15) % 2_000).collect();
    let bytes: Vec<_> = ids.iter().map(|id| id.to_le_bytes()).collect();
    for length in [0, 1, 2, 255, 256, 257, 511, 512, 513, 1_024, 5_000] {
        let dedup = Deduplicator::builder().build().unwrap();
        let mut verdicts = Vec::new();
        dedup.observe_batch(&bytes[..length], &mut verdicts);
        let mut seen = HashSet::new();
        let expected = ids[..length].iter().map(|id| seen.insert(*id));
        let answers = verdicts.iter().map(|verdict| *verdict == Verdict::FirstSeen);
        assert!(answers.eq(expected), "a batch of {length}");
        assert_eq!(verdicts.len(), length);
    }
}

#[test]
fn late_events_are_refused_and_future_ones_move_nothing() {
    let clock = ManualClock::starting_at(Timestamp::from_secs(100_000));
    let dedup = builder(&clock).lateness(Duration::from_secs(60)).build().unwrap();
    let at = Timestamp::from_secs;
    assert_eq!(dedup.try_observe_at("a", at(100_000)), Ok(Verdict::FirstSeen));
    assert_eq!(dedup.try_observe_at("b", at(99_940)), Ok(Verdict::FirstSeen), "at the watermark is not late");
    assert_eq!(dedup.try_observe_at("c", at(99_939)), Err(Unjudged::Late));
    assert_eq!(dedup.observe_at("c", at(99_939)), Verdict::FirstSeen, "what cannot be judged is passed");
    assert_eq!(dedup.try_observe_at("d", at(200_000)), Ok(Verdict::FirstSeen));
    assert_eq!(dedup.try_observe_at("d", at(200_000)), Ok(Verdict::Duplicate));
    assert_eq!(dedup.try_observe_at("e", at(99_950)), Ok(Verdict::FirstSeen), "the future moved no watermark");
    let stats = dedup.stats();
    assert_eq!((stats.late, stats.future, stats.bypassed), (2, 2, 1));
}

#[test]
fn in_event_time_a_batch_forgets_nothing_that_its_own_events_still_ask_for() {
    let clock = ManualClock::starting_at(Timestamp::from_secs(1_000_000));
    let dedup = builder(&clock).lateness(Duration::from_secs(0)).build().unwrap();
    let at = |secs: i64| Timestamp::from_secs(900_000 + secs);
    let mut verdicts = Vec::new();
    dedup.observe_batch_at(&["a", "a", "b", "a"], &[at(0), at(1), at(40_000), at(40_000)], &mut verdicts);
    let [first, duplicate] = [Verdict::FirstSeen, Verdict::Duplicate];
    assert_eq!(verdicts, [first, duplicate, first, first]);
}

/// Asks for one ID in event time, `sights` times and each time just after the window of the time before, while events may
/// be `windows` windows late; then asks for the same times again. Tells how many were forgotten.
fn forgotten_sights(windows: u32, sights: u32) -> (usize, Stats) {
    let clock = ManualClock::starting_at(Timestamp::from_secs(10_000_000));
    let dedup = builder(&clock).lateness(HOUR * windows).build().unwrap();
    let first = Timestamp::from_secs(1_000_000);
    let times: Vec<_> = (0..sights).map(|sight| first.saturating_add((HOUR + dedup.slack()) * sight)).collect();
    for time in &times {
        assert_eq!(dedup.try_observe_at("a", *time), Ok(Verdict::FirstSeen));
    }
    let again = times.iter().map(|time| dedup.try_observe_at("a", *time));
    (again.filter(|verdict| *verdict == Ok(Verdict::FirstSeen)).count(), dedup.stats())
}

#[test]
fn every_first_sight_of_an_id_is_kept_while_events_may_be_five_windows_late() {
    for windows in 0..=5 {
        let (forgotten, stats) = forgotten_sights(windows, 20);
        assert_eq!((forgotten, stats.evicted_early), (0, 0), "{windows} windows of lateness");
    }
}

#[test]
fn first_sights_of_one_id_that_are_too_many_to_keep_are_counted() {
    let (forgotten, stats) = forgotten_sights(20, 8);
    assert_eq!((forgotten, stats.live_ids), (2, 7), "the first, and the one that went when the first came back");
    assert_eq!(stats.evicted_early, 3);
}

#[test]
fn what_cannot_be_built_is_refused_with_its_reason() {
    let code = |builder: dedupd::Builder| match builder.build() {
        Err(Error::Build(error)) => error.code(),
        other => panic!("{other:?}"),
    };
    let new = Deduplicator::builder;
    assert_eq!(code(new().window(Duration::from_millis(999))), "window_too_short");
    assert_eq!(code(new().max_ids(0)), "no_ids");
    assert_eq!(code(new().max_memory(1_000)), "memory_too_small");
    assert_eq!(code(new().max_memory(1 << 20).expected_ids(1_000_000)), "memory_too_small");
    assert_eq!(code(new().max_memory(10_000)), "memory_too_small");
    assert!(new().window(HOUR).lateness(HOUR * 100).build().is_ok());
    assert_eq!(code(new().window(HOUR).lateness(HOUR * 100 + Duration::from_nanos(1))), "lateness_too_long");
    let error = BuildError::WindowTooShort(Duration::from_millis(5));
    assert_eq!(error.to_string(), "the window of 5ms is shorter than the smallest, 1 s");
}

#[test]
fn the_housekeeping_thread_gives_memory_back_while_nobody_asks() {
    let clock = ManualClock::new();
    let dedup = builder(&clock).housekeeping(true).build().unwrap();
    observe_range(&dedup, 0..1_000_000);
    let peak = dedup.stats().memory_bytes;
    clock.advance(HOUR * 2);
    let deadline = std::time::Instant::now() + Duration::from_secs(60);
    while dedup.stats().memory_bytes > peak / 4 {
        assert!(std::time::Instant::now() < deadline, "nothing was given back within a minute");
        thread::sleep(Duration::from_millis(20));
    }
    assert!(clock.now() > Timestamp::default());
}

#[test]
fn an_eviction_within_a_batch_makes_no_event_late() {
    let clock = ManualClock::starting_at(Timestamp::from_secs(1_000_000));
    let dedup = builder(&clock).lateness(Duration::ZERO).max_ids(1_000).build().unwrap();
    let ids: Vec<_> = (0..5_000_u64).map(u64::to_le_bytes).collect();
    let times: Vec<_> = (0..5_000).map(|n| Timestamp::from_millis(900_000_000 + n)).collect();
    let mut verdicts = Vec::new();
    let mut evicted = 0;
    for (ids, times) in ids.chunks(600).zip(times.chunks(600)) {
        dedup.observe_batch_at(ids, times, &mut verdicts);
        assert!(verdicts.iter().all(|verdict| *verdict == Verdict::FirstSeen));
        let stats = dedup.stats();
        assert!(stats.evicted_early - evicted <= 600 + 1_000 / 32, "{stats:?}");
        evicted = stats.evicted_early;
    }
    let stats = dedup.stats();
    assert_eq!((stats.late, stats.full, stats.bypassed), (0, 0, 0));
    assert_eq!(stats.live_ids + stats.evicted_early, 5_000);
    assert!(stats.live_ids > 900, "{stats:?}");
}

#[test]
fn events_older_than_what_a_limit_left_are_refused_and_counted() {
    let clock = ManualClock::starting_at(Timestamp::from_secs(1_000_000));
    let dedup = builder(&clock).lateness(HOUR * 10).max_ids(64).build().unwrap();
    for id in 0..1_000_u64 {
        assert_eq!(dedup.try_observe_at(id.to_le_bytes(), clock.now()), Ok(Verdict::FirstSeen));
    }
    let before = Timestamp::from_secs(1_000_000 - 5 * 3600);
    assert_eq!(dedup.try_observe_at("old", before), Err(Unjudged::Full));
    assert_eq!(dedup.stats().full, 1);
}

#[test]
fn extending_without_end_evicts_nothing_below_the_limit() {
    let clock = ManualClock::new();
    let new = builder(&clock).extend_on_duplicate(true).max_ids(64).when_full(WhenFull::Refuse);
    let dedup = new.build().unwrap();
    let _ = dedup.observe("cold");
    for _ in 0..2_000 {
        let _ = dedup.observe("h1");
        let _ = dedup.observe("h2");
        clock.advance(Duration::from_millis(1));
    }
    assert_eq!(dedup.observe("cold"), Verdict::Duplicate);
    for _ in 0..2_000 {
        assert!(dedup.forget("h1").unwrap());
        assert_eq!(dedup.observe("h1"), Verdict::FirstSeen);
    }
    assert_eq!(dedup.observe("cold"), Verdict::Duplicate);
    let stats = dedup.stats();
    assert_eq!((stats.live_ids, stats.evicted_early, stats.full), (3, 0, 0));
}

#[test]
fn a_first_event_from_the_future_does_not_tell_the_time() {
    let clock = ManualClock::starting_at(Timestamp::from_secs(10_000_000));
    let dedup = builder(&clock).lateness(HOUR).build().unwrap();
    let at = Timestamp::from_secs;
    assert_eq!(dedup.try_observe_at("a", at(4_000_000_000)), Ok(Verdict::FirstSeen));
    assert_eq!(dedup.try_observe_at("a", at(4_000_000_000)), Ok(Verdict::Duplicate));
    assert_eq!(dedup.try_observe_at("b", at(7_000_000)), Ok(Verdict::FirstSeen), "last month is not late");
    assert_eq!(dedup.try_observe_at("b", at(7_000_001)), Ok(Verdict::Duplicate));
    assert_eq!((dedup.stats().late, dedup.stats().future), (0, 2));
}

#[test]
fn a_gap_in_event_time_counts_nothing_as_evicted() {
    let clock = ManualClock::starting_at(Timestamp::from_secs(10_000_000));
    let dedup = builder(&clock).lateness(HOUR * 9 / 2).build().unwrap();
    let mut time = Timestamp::from_secs(1_000_000);
    for id in 0..2_000_u64 {
        let _ = dedup.observe_at(id.to_le_bytes(), time);
        time = time.saturating_add(Duration::from_secs(10));
    }
    let _ = dedup.observe_at("after the gap", time.saturating_add(HOUR * 11 / 2));
    assert_eq!(dedup.stats().evicted_early, 0);
}

#[test]
fn for_ever_does_not_end_when_the_clock_does() {
    let clock = ManualClock::new();
    let dedup = builder(&clock).window(Duration::MAX).build().unwrap();
    let _ = dedup.observe("a");
    clock.set(Timestamp::MAX);
    assert_eq!(dedup.observe("a"), Verdict::Duplicate);
}

#[test]
fn maintenance_in_the_smallest_portions_comes_to_an_end() {
    let clock = ManualClock::new();
    let dedup = builder(&clock).build().unwrap();
    observe_range(&dedup, 0..100_000);
    clock.advance(HOUR * 2);
    let portions = (0..10_000_000).take_while(|_| !dedup.maintain(Duration::ZERO)).count();
    assert!(portions < 1_000_000, "{portions} portions");
    assert!(dedup.stats().memory_bytes < 6 << 20, "{:?}", dedup.stats());
}

#[test]
fn memory_of_released_and_forgotten_ids_is_given_back() {
    let clock = ManualClock::new();
    let dedup = builder(&clock).build().unwrap();
    let ids: Vec<_> = (0..1_000_000_u64).map(u64::to_le_bytes).collect();
    drop(dedup.reserve_batch(&ids).unwrap());
    let peak = dedup.stats().memory_bytes;
    while !dedup.maintain(Duration::from_secs(1)) {}
    assert!(dedup.stats().memory_bytes < peak / 3, "{} of {peak}", dedup.stats().memory_bytes);
    observe_range(&dedup, 0..1_000_000);
    assert!(ids.iter().all(|id| dedup.forget(id).unwrap()));
    while !dedup.maintain(Duration::from_secs(1)) {}
    assert!(dedup.stats().memory_bytes < peak / 3, "{} of {peak}", dedup.stats().memory_bytes);
}
