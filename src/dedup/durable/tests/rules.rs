//! What must hold when an append fails and the next one does not, in plain form.

use std::io::ErrorKind;
use std::sync::Arc;

use super::tiny;
use crate::dedup::{Builder, Deduplicator, Durability, Durable, Progress, Verdict};
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
