//! What must hold when an append fails and the next one does not, in plain form.

use std::io::ErrorKind;
use std::sync::Arc;

use super::tiny;
use crate::dedup::{Builder, Deduplicator, Durability, Durable, OnLogFailure, Progress, Verdict};
use crate::event::ReserveVerdict;
use crate::log::{Fault, Simulated};
use crate::time::{ManualClock, Timestamp};
use crate::window::{Answer, When};
use std::time::Duration;

const START: i64 = 1_000_000;

fn at(secs: i64) -> Timestamp {
    Timestamp::from_secs(START + secs)
}

fn builder(clock: &ManualClock) -> Builder {
    let builder = Deduplicator::builder().window(Duration::from_secs(64)).clock(clock.clone()).housekeeping(false);
    builder.durability(Durability::Process).secret([7; 32]).shape(1, 1, 2)
}

fn open(builder: Builder, simulated: &Simulated) -> Deduplicator {
    builder.open_on(Arc::new(simulated.clone()), tiny).unwrap()
}

/// Leaves room for some twenty ids in the segment, and none for another segment.
fn fill_up(dedup: &Deduplicator, simulated: &Simulated) {
    let ids: Vec<_> = (0..220_u64).map(u64::to_le_bytes).collect();
    let times = vec![at(0); ids.len()];
    let event_time = dedup.inner.event_time;
    let count = if event_time { 140 } else { ids.len() };
    dedup.observe_batch_at(&ids[..count], &times[..count], &mut Vec::new());
    simulated.fail_at(1, Fault::Error { kind: ErrorKind::StorageFull, is_sticky: true });
}

fn answers(dedup: &Deduplicator, ids: &[&str], times: &[Timestamp]) -> Vec<Answer> {
    let mut answers = Vec::new();
    dedup.each(ids, Some(times), |some| answers.extend_from_slice(some));
    answers
}

fn is_known(dedup: &Deduplicator, id: &str, time: Timestamp) -> bool {
    let when = When::Event { time: time.as_nanos(), clock: at(0).as_nanos() };
    dedup.inner.set.peek(dedup.fingerprint(id), when) == Answer::Seen
}

fn flush(dedup: &Deduplicator) -> bool {
    dedup.inner.durable.as_ref().map(Durable::keeper).unwrap().flush().is_ok()
}

#[test]
fn progress_stands_behind_what_could_not_be_appended_before() {
    let (clock, simulated) = (ManualClock::starting_at(at(0)), Simulated::new(512));
    let dedup = open(builder(&clock), &simulated);
    fill_up(&dedup, &simulated);
    let singles: Vec<_> = (0..40).map(|n| format!("single {n}")).collect();
    assert!(singles.iter().all(|id| dedup.observe(id) == Verdict::FirstSeen));
    assert!(!flush(&dedup), "there is no room, and they have left their shards");
    simulated.heal();
    let mut progress = Progress::new();
    progress.set_source("in", "40");
    dedup.reserve_batch(&singles).unwrap().try_commit(&progress).unwrap();
    let dedup = open(builder(&clock), &simulated.after_kill());
    assert_eq!(dedup.progress(), progress);
    assert!(singles.iter().all(|id| dedup.contains(id)), "the position is ahead of what was seen before it");
}

#[test]
fn what_is_forgotten_while_it_is_reserved_does_not_come_back() {
    let (clock, simulated) = (ManualClock::starting_at(at(0)), Simulated::new(512));
    let dedup = open(builder(&clock), &simulated);
    dedup.observe_batch(&["evt_1"], &mut Vec::new());
    clock.advance(Duration::from_secs(100));
    let reserved = dedup.reserve_batch(&["evt_1"]).unwrap();
    assert!(!dedup.forget("evt_1").unwrap());
    drop(reserved);
    let dedup = open(builder(&clock).window(Duration::from_secs(1_000)), &simulated.after_kill());
    assert!(!dedup.contains("evt_1"), "its window is longer now, and it was forgotten");
}

#[test]
fn an_event_that_was_refused_is_not_known_by_its_repeat() {
    let (clock, simulated) = (ManualClock::starting_at(at(0)), Simulated::new(512));
    let event_time = || builder(&clock).lateness(Duration::from_secs(300)).extend_on_duplicate(true);
    let dedup = open(event_time(), &simulated);
    fill_up(&dedup, &simulated);
    let ids: Vec<_> = (0..40).map(|n| format!("evt_{n}")).collect();
    let twice: Vec<_> = ids.iter().chain(&ids).map(String::as_str).collect();
    let times: Vec<_> = (0..80).map(|n| at(n / 40 * 3)).collect();
    assert!(answers(&dedup, &twice, &times)[..40].iter().all(|answer| *answer == Answer::Unlogged));
    assert!(ids.iter().all(|id| !is_known(&dedup, id, at(0))), "it may be asked again");
    simulated.heal();
    assert!(flush(&dedup));
    let dedup = open(event_time(), &simulated.after_kill());
    assert!(ids.iter().all(|id| !is_known(&dedup, id, at(0))), "the repeat was replayed as a first sight");
}

#[test]
fn an_event_that_is_refused_leaves_other_sights_of_its_id() {
    let (clock, simulated) = (ManualClock::starting_at(at(0)), Simulated::new(512));
    let dedup = open(builder(&clock).lateness(Duration::from_secs(300)), &simulated);
    let ids: Vec<_> = (0..40).map(|n| format!("evt_{n}")).collect();
    let ids: Vec<_> = ids.iter().map(String::as_str).collect();
    assert!(answers(&dedup, &ids, &[at(-200); 40]).iter().all(|answer| *answer == Answer::New));
    fill_up(&dedup, &simulated);
    assert!(answers(&dedup, &ids, &[at(0); 40]).iter().all(|answer| *answer == Answer::Unlogged));
    assert!(ids.iter().all(|id| is_known(&dedup, id, at(-200)) && !is_known(&dedup, id, at(0))));
}

#[test]
fn an_event_that_is_refused_leaves_what_was_gathered_before_it() {
    let (clock, simulated) = (ManualClock::starting_at(at(0)), Simulated::new(512));
    let event_time = || builder(&clock).lateness(Duration::from_secs(300));
    let dedup = open(event_time(), &simulated);
    let ids: Vec<_> = (0..40).map(|n| format!("evt_{n}")).collect();
    let ids: Vec<_> = ids.iter().map(String::as_str).collect();
    fill_up(&dedup, &simulated);
    assert!(ids.iter().all(|id| dedup.observe_at(id, at(-200)) == Verdict::FirstSeen));
    assert!(answers(&dedup, &ids, &[at(0); 40]).iter().all(|answer| *answer == Answer::Unlogged));
    simulated.heal();
    assert!(flush(&dedup));
    let dedup = open(event_time(), &simulated.after_kill());
    assert!(ids.iter().all(|id| is_known(&dedup, id, at(-200)) && !is_known(&dedup, id, at(0))));
}

fn names() -> Vec<String> {
    (0..40).map(|n| format!("evt_{n}")).collect()
}

/// Processing time, `observe_batch_at`, disk full: nothing was appended, so nothing may be FirstSeen (durability Process).
#[test]
fn with_the_callers_times_what_is_not_appended_is_refused() {
    let (clock, simulated) = (ManualClock::starting_at(at(0)), Simulated::new(512));
    let dedup = open(builder(&clock), &simulated);
    fill_up(&dedup, &simulated);
    let ids = names();
    let ids: Vec<_> = ids.iter().map(String::as_str).collect();
    let time = Timestamp::from_nanos(at(1).as_nanos() + 300_000_000);
    let told = answers(&dedup, &ids, &[time; 40]);
    let reopened = open(builder(&clock), &simulated.after_kill());
    let lost = ids.iter().zip(&told).filter(|(id, answer)| answer.is_first() && !reopened.contains(id)).count();
    assert_eq!(lost, 0, "answered FirstSeen, and after a kill not known: {told:?}");
}

/// The same with power loss durability and a power cut.
#[test]
fn with_the_callers_times_what_is_not_appended_is_not_said_to_be_durable() {
    let (clock, simulated) = (ManualClock::starting_at(at(0)), Simulated::new(512));
    let open = |simulated: &Simulated| open(builder(&clock).durability(Durability::PowerLoss), simulated);
    let dedup = open(&simulated);
    fill_up(&dedup, &simulated);
    let ids = names();
    let ids: Vec<_> = ids.iter().map(String::as_str).collect();
    simulated.heal();
    // Appends fail, syncs do not: no segment can be made, as on a disk that is full.
    simulated.fail_at(1, Fault::Error { kind: ErrorKind::StorageFull, is_sticky: false });
    let time = Timestamp::from_nanos(at(1).as_nanos() + 300_000_000);
    let told = answers(&dedup, &ids, &[time; 40]);
    let reopened = open(&simulated.after_power_cut(&mut || true));
    let lost = ids.iter().zip(&told).filter(|(id, answer)| answer.is_first() && !reopened.contains(id)).count();
    assert_eq!(lost, 0, "answered FirstSeen, and after a power cut not known: {told:?}");
}

/// Event time with a limit: several generations share a slice; what is refused must be unknown.
#[test]
fn a_refused_event_is_unknown_where_generations_are_closed_by_count() {
    let (clock, simulated) = (ManualClock::starting_at(at(0)), Simulated::new(512));
    let dedup = open(builder(&clock).lateness(Duration::from_secs(10)).max_ids(64 * 8), &simulated);
    fill_up(&dedup, &simulated);
    let ids = names();
    let ids: Vec<_> = ids.iter().map(String::as_str).collect();
    let told = answers(&dedup, &ids, &[at(0); 40]);
    assert!(told.iter().all(|answer| *answer == Answer::Unlogged), "{told:?}");
    simulated.heal();
    assert!(flush(&dedup));
    let again = answers(&dedup, &ids, &[at(0); 40]);
    let dropped = again.iter().filter(|answer| **answer == Answer::Seen).count();
    assert_eq!(dropped, 0, "refused, asked again, and a duplicate of nothing: {again:?}");
}

/// An observation that was answered before, and is gathered still, is not taken back by a batch in which it is a repeat.
#[test]
fn what_was_gathered_before_stays_though_the_batch_repeats_it() {
    let (clock, simulated) = (ManualClock::starting_at(at(0)), Simulated::new(512));
    let event_time = || builder(&clock).lateness(Duration::from_secs(300));
    let dedup = open(event_time(), &simulated);
    fill_up(&dedup, &simulated);
    let ids = names();
    let ids: Vec<_> = ids.iter().map(String::as_str).collect();
    assert!(ids.iter().all(|id| dedup.observe_at(id, at(-200)) == Verdict::FirstSeen));
    let twice: Vec<_> = ids.iter().chain(&ids).copied().collect();
    let times: Vec<_> = (0..80).map(|n| if n < 40 { at(-200) } else { at(0) }).collect();
    let told = answers(&dedup, &twice, &times);
    assert!(told[..40].iter().all(|answer| *answer == Answer::Seen), "{told:?}");
    assert!(told[40..].iter().all(|answer| *answer == Answer::Unlogged), "{told:?}");
    let gone = ids.iter().filter(|id| !is_known(&dedup, id, at(-200))).count();
    assert_eq!(gone, 0, "was answered first-seen to somebody else, and is unknown again");
}

/// A time too far ahead that was recorded at an earlier front is not given up.
#[test]
fn an_event_of_the_future_is_refused_as_others() {
    let (clock, simulated) = (ManualClock::starting_at(at(0)), Simulated::new(512));
    let event_time = || builder(&clock).lateness(Duration::from_secs(300)).max_future(Duration::from_secs(100));
    let dedup = open(event_time(), &simulated);
    fill_up(&dedup, &simulated);
    let ids = names();
    let mut ids: Vec<_> = ids.iter().map(String::as_str).collect();
    ids.push("last");
    let mut times = vec![at(100_000); 40];
    times.push(at(5));
    let told = answers(&dedup, &ids, &times);
    assert!(told.iter().all(|answer| *answer == Answer::Unlogged), "{told:?}");
}

/// An id that has something done while it is hashed: stands for what another thread does between two portions of a batch.
struct Hooked<'a>(&'a str, Option<&'a (dyn Fn() + Sync)>);

impl AsRef<[u8]> for Hooked<'_> {
    fn as_ref(&self) -> &[u8] {
        if let Some(act) = self.1 {
            act();
        }
        self.0.as_bytes()
    }
}

/// 40 new ids, then repeats of "known" up to a whole portion, then one more repeat before which `act` is done.
fn hooked<'a>(ids: &[&'a str], act: &'a (dyn Fn() + Sync)) -> Vec<Hooked<'a>> {
    let mut all: Vec<_> = ids.iter().map(|id| Hooked(id, None)).collect();
    all.resize_with(1024, || Hooked("known", None));
    all.push(Hooked("known", Some(act)));
    all
}

/// The thread of the keeper takes what a batch has gathered and cannot append it, before the batch looks.
#[test]
fn a_batch_is_refused_whoever_found_out() {
    let mut all_lost = 0;
    for durability in [Durability::Process, Durability::PowerLoss] {
        let (clock, simulated) = (ManualClock::starting_at(at(0)), Simulated::new(512));
        let event_time = || builder(&clock).lateness(Duration::from_secs(300)).durability(durability);
        let dedup = open(event_time(), &simulated);
        dedup.observe_batch_at(&["known"], &[at(0)], &mut Vec::new());
        let ids = names();
        let ids: Vec<_> = ids.iter().map(String::as_str).collect();
        let act = || {
            simulated.fail_at(1, Fault::Error { kind: ErrorKind::StorageFull, is_sticky: false });
            assert!(!flush(&dedup));
        };
        let mut told = Vec::new();
        dedup.each(&hooked(&ids, &act), Some(&vec![at(0); 1025]), |some| told.extend_from_slice(some));
        let reopened = open(event_time(), &simulated.after_kill());
        let lost =
            ids.iter().zip(&told).filter(|(id, answer)| answer.is_first() && !is_known(&reopened, id, at(0))).count();
        all_lost += lost;
    }
    assert_eq!(all_lost, 0, "answered FirstSeen, and after a kill not known");
}

/// Nothing fails. The thread of the keeper has taken what the batch gathered, and is about to append it.
#[test]
fn a_batch_waits_for_what_another_thread_is_about_to_append() {
    let (clock, simulated) = (ManualClock::starting_at(at(0)), Simulated::new(512));
    let event_time = || builder(&clock).lateness(Duration::from_secs(300)).durability(Durability::PowerLoss);
    let dedup = open(event_time(), &simulated);
    dedup.observe_batch_at(&["known"], &[at(0)], &mut Vec::new());
    let ids = names();
    let ids: Vec<_> = ids.iter().map(String::as_str).collect();
    let keeper = dedup.inner.durable.as_ref().map(Durable::keeper).unwrap();
    // The first statement of `flush_into`; its `append` comes after the batch has returned.
    let act = || keeper.set.take_changes(&mut super::super::lock(&keeper.gathering).changes);
    let mut told = Vec::new();
    dedup.each(&hooked(&ids, &act), Some(&vec![at(0); 1025]), |some| told.extend_from_slice(some));
    let reopened = open(event_time(), &simulated.after_power_cut(&mut || true));
    let lost =
        ids.iter().zip(&told).filter(|(id, answer)| answer.is_first() && !is_known(&reopened, id, at(0))).count();
    assert_eq!(lost, 0, "answered FirstSeen with PowerLoss, and after a power cut not known");
}

/// Somebody else repeats an id, which extends its window, before its first sight is given up.
#[test]
fn a_refused_event_is_unknown_though_another_thread_repeated_it() {
    let (clock, simulated) = (ManualClock::starting_at(at(0)), Simulated::new(512));
    let event_time = || builder(&clock).lateness(Duration::from_secs(300)).extend_on_duplicate(true);
    let dedup = open(event_time(), &simulated);
    dedup.observe_batch_at(&["known"], &[at(0)], &mut Vec::new());
    let ids = names();
    let ids: Vec<_> = ids.iter().map(String::as_str).collect();
    let act = || {
        assert!(ids.iter().all(|id| dedup.observe_at(id, at(3)) == Verdict::Duplicate));
        simulated.fail_at(1, Fault::Error { kind: ErrorKind::StorageFull, is_sticky: true });
    };
    let mut told = Vec::new();
    dedup.each(&hooked(&ids, &act), Some(&vec![at(0); 1025]), |some| told.extend_from_slice(some));
    assert!(told[..40].iter().all(|answer| *answer == Answer::Unlogged), "{:?}", &told[..40]);
    simulated.heal();
    assert!(flush(&dedup));
    let again = answers(&dedup, &ids, &[at(0); 40]);
    let dropped = again.iter().filter(|answer| **answer == Answer::Seen).count();
    assert_eq!(
        dropped, 0,
        "one was refused, one dropped as its duplicate, and the one that is asked again is dropped too"
    );
}

/// Whichever call of the disk is the first to fail, for good: what is answered first-seen from memory alone is counted.
#[test]
fn what_a_failed_disk_leaves_in_doubt_is_counted_where_answers_go_on() {
    let names = names();
    let ids: Vec<_> = names.iter().map(String::as_str).collect();
    let mut lost_in_all = 0;
    let durabilities = [Durability::PowerLoss, Durability::Interval(Duration::from_millis(50))];
    let cases =
        (0..4).flat_map(|way| (1..10).flat_map(move |call| durabilities.map(|durability| (way, call, durability))));
    for (way, fails_at, durability) in cases {
        let (clock, simulated) = (ManualClock::starting_at(at(0)), Simulated::new(512));
        let settings = || {
            let builder = builder(&clock).durability(durability).on_log_failure(OnLogFailure::Continue);
            if way == 2 { builder.lateness(Duration::from_secs(300)) } else { builder }
        };
        let dedup = open(settings(), &simulated);
        simulated.fail_at(fails_at, Fault::Error { kind: ErrorKind::Other, is_sticky: true });
        let is_first: Vec<bool> = match way {
            0 => ids.iter().map(|id| dedup.observe(id) == Verdict::FirstSeen).collect(),
            1 => {
                let mut verdicts = Vec::new();
                dedup.observe_batch(&ids, &mut verdicts);
                verdicts.iter().map(|verdict| *verdict == Verdict::FirstSeen).collect()
            }
            2 => answers(&dedup, &ids, &[at(0); 40]).iter().map(|answer| answer.is_first()).collect(),
            _ => {
                let reserved = dedup.reserve_batch(&ids).unwrap();
                reserved.commit().unwrap();
                vec![true; ids.len()]
            }
        };
        // What the thread does that syncs each interval.
        let synced = dedup.sync();
        let reopened = open(settings(), &simulated.after_power_cut(&mut || true));
        let known = |id: &str| if way == 2 { is_known(&reopened, id, at(0)) } else { reopened.contains(id) };
        let lost = ids.iter().zip(is_first).filter(|(id, is_first)| *is_first && !known(id)).count();
        let counted = dedup.stats().unlogged;
        assert!(
            lost as u64 <= counted,
            "way {way}, call {fails_at}, {durability:?}: {lost} are lost, {counted} counted"
        );
        assert!(
            synced.is_err() || counted == 0,
            "way {way}, call {fails_at}, {durability:?}: {counted} counted in vain"
        );
        lost_in_all += lost;
    }
    assert!(lost_in_all > 500, "{lost_in_all}: hardly anything failed");
}

#[test]
fn what_waits_for_room_is_counted_as_long_as_it_does() {
    for on_failure in [OnLogFailure::Continue, OnLogFailure::Refuse] {
        let (clock, simulated) = (ManualClock::starting_at(at(0)), Simulated::new(512));
        let dedup = open(builder(&clock).on_log_failure(on_failure), &simulated);
        fill_up(&dedup, &simulated);
        let before = dedup.stats().unlogged;
        let singles: Vec<_> = (0..100).map(|n| format!("evt_{n}")).collect();
        assert!(singles.iter().all(|id| dedup.observe(id) == Verdict::FirstSeen));
        assert!(!flush(&dedup), "there is no room");
        let missing = dedup.stats().unlogged + dedup.stats().bypassed - before;
        assert_eq!(missing, 100, "{on_failure:?}: each answer that rests on nothing");
        simulated.heal();
        assert!(flush(&dedup));
        assert!(dedup.stats().unlogged <= before);
    }
}

#[test]
fn where_answers_go_on_a_repeat_that_cannot_be_recorded_is_a_duplicate_and_counted() {
    let (clock, simulated) = (ManualClock::starting_at(at(0)), Simulated::new(512));
    let continues = builder(&clock).durability(Durability::PowerLoss).on_log_failure(OnLogFailure::Continue);
    let dedup = open(continues.extend_on_duplicate(true), &simulated);
    dedup.observe_batch(&["evt_1"], &mut Vec::new());
    fill_up(&dedup, &simulated);
    clock.advance(dedup.slack() * 2);
    let before = dedup.stats().unlogged;
    assert_eq!(dedup.reserve_batch(&["evt_1"]).unwrap().verdicts(), [ReserveVerdict::Duplicate]);
    assert_eq!(dedup.stats().unlogged, before + 1);
}

/// With positions, of which one stands in the oldest segment: an open that fails waits for room that it can make itself.
#[test]
fn a_start_on_a_full_disk_ends_what_has_aged_out() {
    for (room, opens_full) in [(0, false), (0, true), (8_192, false), (8_192, true)] {
        let (clock, simulated) = (ManualClock::starting_at(at(0)), Simulated::new(512));
        let dedup = open(builder(&clock), &simulated);
        let ids: Vec<_> = (0..4_000_u64).map(u64::to_le_bytes).collect();
        let mut progress = Progress::new();
        for (n, ids) in ids.chunks(400).enumerate() {
            if n == 0 && room > 0 || n == 5 {
                progress.set_source(n.to_string(), "1");
                dedup.record_progress(&progress).unwrap();
            }
            dedup.observe_batch(ids, &mut Vec::new());
        }
        dedup.close().unwrap();
        clock.advance(Duration::from_secs(100));
        simulated.leave_room(room);
        let opened = builder(&clock).open_full(opens_full).open_on(Arc::new(simulated.clone()), tiny);
        let dedup = opened.unwrap_or_else(|error| panic!("{room} bytes: {error}"));
        assert_eq!(dedup.try_observe("later"), Ok(Verdict::FirstSeen), "{room} bytes");
        for n in 0..5 {
            dedup.maintain(Duration::from_secs(1));
            assert_eq!(dedup.try_observe(format!("later {n}")), Ok(Verdict::FirstSeen));
        }
        assert!(flush(&dedup));
        dedup.close().unwrap();
        let dedup = open(builder(&clock), &simulated.after_kill());
        assert_eq!(dedup.progress(), progress);
        assert!(dedup.contains("later") && dedup.contains("later 4"));
    }
}
