//! Goal: an event is a conflict when its ID is known and its payload is not, and never otherwise. Method: random streams over
//! small alphabets against a naive model that answers in three zones, as the window does: younger than the window, inside the
//! slack, beyond. Some batches are dropped, and sets with a state are opened again.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use dedupd::{
    Builder, Deduplicator, Digest, Durability, Fingerprint, ManualClock, OnConflict, Reason, Reservation,
    ReserveVerdict, Timestamp, Unjudged, Verdict, WhenFull, state,
};

const WINDOW: i64 = 64_000;
/// A generation.
const SLACK: i64 = 1_000;
const CONFLICT: ReserveVerdict = ReserveVerdict::Conflict { in_flight: false };
const CONFLICT_IN_FLIGHT: ReserveVerdict = ReserveVerdict::Conflict { in_flight: true };

/// Small numbers that are the same each time.
struct Random(u64);

impl Random {
    fn below(&mut self, below: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % below
    }
}

fn builder(on_conflict: OnConflict, clock: &ManualClock) -> Builder {
    let window = Duration::from_millis(WINDOW as u64);
    let builder = Deduplicator::builder().window(window).on_conflict(on_conflict).clock(clock.clone());
    builder.secret([7; 32]).housekeeping(false).durability(Durability::Process)
}

/// An event: the number of its ID, and that of its payload.
type Event = (u64, u64);

fn reserve(dedup: &Deduplicator, events: &[Event]) -> Reservation {
    let (ids, digests) = named(dedup, events);
    dedup.reserve_digests(&ids, &digests).unwrap()
}

fn reserve_at(dedup: &Deduplicator, events: &[(Event, i64)]) -> Reservation {
    let (ids, digests) = named(dedup, &events.iter().map(|(event, _)| *event).collect::<Vec<_>>());
    let times = events.iter().map(|(_, time)| Timestamp::from_millis(*time));
    dedup.reserve_digests_at(&ids.into_iter().zip(times).collect::<Vec<_>>(), &digests).unwrap()
}

fn named(dedup: &Deduplicator, events: &[Event]) -> (Vec<Fingerprint>, Vec<Digest>) {
    let id = |event: &Event| dedup.fingerprint(event.0.to_le_bytes());
    (
        events.iter().map(id).collect(),
        events.iter().map(|event| dedup.digest(id(event), event.1.to_le_bytes())).collect(),
    )
}

/// Commits one event, and returns its verdict.
fn settle(dedup: &Deduplicator, event: Event) -> ReserveVerdict {
    let reserved = reserve(dedup, &[event]);
    let verdict = reserved.verdicts()[0];
    reserved.commit().unwrap();
    verdict
}

#[test]
fn each_setting_says_what_becomes_of_a_conflict_and_of_its_repeats() {
    let stream = [(1, 1), (1, 2), (1, 2), (1, 1), (2, 1)];
    let (first, repeat) = (ReserveVerdict::FirstSeen, ReserveVerdict::Duplicate);
    for (on_conflict, third, conflicts) in [
        (OnConflict::Ignore, repeat, 0),
        (OnConflict::Count, CONFLICT, 2),
        (OnConflict::Pass, repeat, 1),
        (OnConflict::Divert, repeat, 1),
    ] {
        let second = if on_conflict == OnConflict::Ignore { repeat } else { CONFLICT };
        let dedup = builder(on_conflict, &ManualClock::new()).build().unwrap();
        let one_by_one: Vec<_> = stream.iter().map(|event| settle(&dedup, *event)).collect();
        assert_eq!(one_by_one, [first, second, third, repeat, first], "{on_conflict}");
        assert_eq!(dedup.stats().conflicts, conflicts);

        let in_flight = |verdict: ReserveVerdict| match verdict {
            CONFLICT => CONFLICT_IN_FLIGHT,
            ReserveVerdict::Duplicate => ReserveVerdict::InFlight,
            other => other,
        };
        let dedup = builder(on_conflict, &ManualClock::new()).build().unwrap();
        let together = reserve(&dedup, &stream);
        assert_eq!(together.verdicts(), one_by_one.iter().map(|verdict| in_flight(*verdict)).collect::<Vec<_>>());
        drop(together);
        assert_eq!(dedup.stats().pending_ids, 0);
        assert_eq!(settle(&dedup, (1, 2)), first, "nothing of what was dropped is known");
    }
}

#[test]
fn an_explanation_names_the_conflict() {
    let dedup = builder(OnConflict::Pass, &ManualClock::new()).build().unwrap();
    let explain = |payload: &str| {
        let explained = dedup.explain_payload("evt_1", payload);
        (explained.verdict, explained.reason)
    };
    assert_eq!(explain("x"), (Ok(Verdict::FirstSeen), Reason::New));
    assert_eq!(explain("x"), (Ok(Verdict::Duplicate), Reason::Seen));
    assert_eq!(explain("y"), (Ok(Verdict::Duplicate), Reason::Conflict));
    assert_eq!(explain("y"), (Ok(Verdict::Duplicate), Reason::Seen));
    assert_eq!(dedup.explain("evt_1").reason, Reason::Seen);
}

#[test]
fn a_digest_that_outlives_its_id_is_recorded_anew_with_it() {
    for with_times in [false, true] {
        let clock = ManualClock::starting_at(Timestamp::from_millis(WINDOW));
        let builder = builder(OnConflict::Pass, &clock);
        let builder = if with_times { builder.lateness(Duration::from_secs(200)) } else { builder };
        let dedup = builder.build().unwrap();
        let start = WINDOW;
        let mut now = start;
        let mut at = |time: i64, event: Event| {
            clock.advance(Duration::from_millis((start + time - now) as u64));
            now = start + time;
            if !with_times {
                return settle(&dedup, event);
            }
            let reserved = reserve_at(&dedup, &[(event, now)]);
            let verdict = reserved.verdicts()[0];
            reserved.commit().unwrap();
            verdict
        };
        assert_eq!(at(0, (1, 1)), ReserveVerdict::FirstSeen);
        assert_eq!(at(WINDOW / 2, (1, 2)), CONFLICT);
        // The ID is unknown again, its second payload is not.
        let again = WINDOW + 2 * SLACK;
        assert_eq!(at(again, (1, 2)), ReserveVerdict::FirstSeen);
        // Its first sight is more than a window ago, the one with the ID is not.
        assert_eq!(at(again + WINDOW / 2 + 4 * SLACK, (1, 2)), ReserveVerdict::Duplicate, "times: {with_times}");
        assert_eq!(at(again + WINDOW / 2 + 4 * SLACK, (1, 3)), CONFLICT);
    }
}

#[test]
fn the_digest_goes_with_its_id_and_that_of_a_conflict_by_itself_when_a_reservation_is_split() {
    let dedup = builder(OnConflict::Pass, &ManualClock::new()).build().unwrap();
    let mut reserved = reserve(&dedup, &[(1, 1), (2, 1), (2, 2)]);
    let (ids, digests) = named(&dedup, &[(1, 1), (2, 1), (2, 2)]);
    let failed = reserved.split(|id| id == ids[0] || id == digests[2].as_fingerprint());
    assert_eq!((reserved.pending(), failed.pending()), (1, 1));
    reserved.commit().unwrap();
    assert_eq!(reserve(&dedup, &[(1, 1), (2, 1), (2, 2)]).verdicts()[1], ReserveVerdict::Duplicate);
    drop(failed);
    assert_eq!(settle(&dedup, (2, 1)), ReserveVerdict::Duplicate);
    assert_eq!(settle(&dedup, (2, 2)), CONFLICT, "it was not delivered");
    assert_eq!(settle(&dedup, (1, 2)), ReserveVerdict::FirstSeen);
    assert_eq!(settle(&dedup, (1, 1)), CONFLICT);
}

#[test]
fn ids_and_digests_are_one_record_of_the_log() {
    let dir = tempfile::tempdir().unwrap();
    let dedup = builder(OnConflict::Pass, &ManualClock::new()).open(dir.path()).unwrap();
    let mut reserved = reserve(&dedup, &[(1, 1), (1, 2), (2, 1)]);
    reserved.join(reserve(&dedup, &[(3, 1)])).unwrap();
    reserved.commit().unwrap();
    dedup.close().unwrap();
    let mut frames = Vec::new();
    let each = |record: state::Record<'_>| {
        frames.push(record.sequence);
        std::ops::ControlFlow::Continue(())
    };
    state::records(dir.path(), each).unwrap();
    assert_eq!(frames, [frames[0]; 7], "three ids and four payloads");
    assert_eq!(state::inspect(dir.path()).unwrap().has_digests, Some(true));
}

#[test]
fn a_state_keeps_to_what_it_was_made_with() {
    let clock = ManualClock::new();
    let open = |dir: &std::path::Path, on_conflict, left_out: &str| {
        let opened = builder(on_conflict, &clock).conflict_ignore(left_out).open(dir);
        opened.map(|dedup| settle(&dedup, (1, 1))).map_err(|error| error.to_string())
    };
    let (with, without) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    assert_eq!(open(with.path(), OnConflict::Count, "n"), Ok(ReserveVerdict::FirstSeen));
    assert_eq!(open(without.path(), OnConflict::Ignore, "n"), Ok(ReserveVerdict::FirstSeen));
    for on_conflict in [OnConflict::Count, OnConflict::Pass, OnConflict::Divert] {
        assert_eq!(open(with.path(), on_conflict, "n"), Ok(ReserveVerdict::Duplicate), "one is as good as another");
        let error = open(with.path(), on_conflict, "m").unwrap_err();
        assert!(error.contains("what is left out when payloads are compared"), "{error}");
        let error = open(without.path(), on_conflict, "n").unwrap_err();
        assert!(error.contains("whether payloads are compared"), "{error}");
    }
    assert!(open(with.path(), OnConflict::Ignore, "n").unwrap_err().contains("whether payloads are compared"));
    assert_eq!(open(without.path(), OnConflict::Ignore, "m"), Ok(ReserveVerdict::Duplicate), "nothing is left out");
    for dir in [&with, &without] {
        let dedup = builder(OnConflict::Ignore, &clock).digests_as_found(true).open(dir.path()).unwrap();
        assert!(dedup.forget(1_u64.to_le_bytes()).unwrap());
        dedup.close().unwrap();
    }
    assert_eq!(open(with.path(), OnConflict::Pass, "n"), Ok(ReserveVerdict::FirstSeen));
    assert_eq!(state::has_digests(with.path(), Some("n")).unwrap(), Some(true));
    assert_eq!(state::has_digests(without.path(), Some("n")).unwrap(), Some(false));
    assert!(state::has_digests(with.path(), Some("m")).is_err());
}

#[test]
fn an_event_whose_digest_finds_no_room_is_not_judged() {
    let dedup = builder(OnConflict::Pass, &ManualClock::new()).max_ids(3).when_full(WhenFull::Refuse).build().unwrap();
    let full = ReserveVerdict::Unjudged(Unjudged::Full);
    assert_eq!(settle(&dedup, (1, 1)), ReserveVerdict::FirstSeen);
    // There is room for its ID alone.
    let reserved = reserve(&dedup, &[(2, 1), (2, 1), (1, 1)]);
    assert_eq!(reserved.verdicts(), [full, full, ReserveVerdict::Duplicate]);
    reserved.commit().unwrap();
    assert_eq!(dedup.stats().live_ids, 2);
    assert!(!dedup.contains(2_u64.to_le_bytes()));
    // The last room is for a conflict; another one is a conflict all the same, and not remembered.
    assert_eq!(settle(&dedup, (1, 2)), CONFLICT);
    assert_eq!([settle(&dedup, (1, 2)), settle(&dedup, (1, 3))], [ReserveVerdict::Duplicate, CONFLICT]);
    assert_eq!(settle(&dedup, (1, 3)), CONFLICT);
}

/// What is known of an ID in processing time: when it was seen last, and each of its payloads.
#[derive(Default, Clone)]
struct Known {
    seen: Option<i64>,
    payloads: HashMap<u64, i64>,
    /// Payloads of first-seen events that were dropped: they may have been forgotten.
    doubtful: Vec<u64>,
}

struct Model {
    on_conflict: OnConflict,
    extends: bool,
    ids: HashMap<u64, Known>,
}

impl Model {
    /// Checks a verdict at `now`, and takes notice of it.
    fn take(&mut self, (id, payload): Event, verdict: ReserveVerdict, now: i64) -> Result<(), String> {
        let known = self.ids.entry(id).or_default();
        let (seen, paid) = (known.seen, known.payloads.get(&payload).copied());
        let may_be_known = |time: Option<i64>| time.is_some_and(|time| now - time < WINDOW + SLACK);
        let must_be_known = |time: Option<i64>| time.is_some_and(|time| now - time < WINDOW);
        let doubtful = known.doubtful.contains(&payload);
        let check = |is_right: bool, what: &str| if is_right { Ok(()) } else { Err(what.to_owned()) };
        match verdict {
            ReserveVerdict::FirstSeen => {
                check(!must_be_known(seen), "a known ID is first-seen")?;
                known.seen = Some(now);
                known.payloads.insert(payload, now);
                known.doubtful.retain(|other| *other != payload);
            }
            ReserveVerdict::Duplicate | ReserveVerdict::InFlight => {
                check(may_be_known(seen), "an unknown ID is a duplicate")?;
                check(
                    self.on_conflict == OnConflict::Ignore || may_be_known(paid),
                    "an unknown payload is a duplicate",
                )?;
                if self.extends {
                    known.seen = Some(now);
                    known.payloads.insert(payload, now);
                }
            }
            ReserveVerdict::Conflict { .. } => {
                check(self.on_conflict != OnConflict::Ignore, "a conflict although they are ignored")?;
                check(may_be_known(seen), "an unknown ID is a conflict")?;
                check(doubtful || !must_be_known(paid), "a known payload is a conflict")?;
                check(doubtful || paid.is_none() || paid < seen, "a payload is forgotten before its ID")?;
                if self.extends {
                    known.seen = Some(now);
                }
                if self.on_conflict != OnConflict::Count {
                    known.payloads.insert(payload, now);
                    known.doubtful.retain(|other| *other != payload);
                }
            }
            other => return Err(format!("{other:?}")),
        }
        Ok(())
    }

    /// What was asked in this batch is not known by it: it was dropped.
    fn drop(&mut self, before: HashMap<u64, Known>, events: &[Event], verdicts: &[ReserveVerdict]) {
        self.ids = before;
        for ((id, payload), verdict) in events.iter().zip(verdicts) {
            let known = self.ids.entry(*id).or_default();
            if *verdict == ReserveVerdict::FirstSeen && known.payloads.contains_key(payload) {
                known.doubtful.push(*payload);
            }
        }
    }
}

#[test]
fn random_streams_are_judged_as_a_naive_model_allows() {
    for seed in 0..120 {
        let mut random = Random(seed);
        let settings = [OnConflict::Ignore, OnConflict::Count, OnConflict::Pass, OnConflict::Divert];
        let (on_conflict, extends) = (settings[seed as usize % 4], random.below(2) == 0);
        let (ids, payloads) = ([2, 5, 60][random.below(3) as usize], 1 + random.below(4));
        let dir = (random.below(2) == 0).then(|| tempfile::tempdir().unwrap());
        let clock = ManualClock::new();
        let open = || {
            let builder = builder(on_conflict, &clock).extend_on_duplicate(extends);
            dir.as_ref()
                .map_or_else(|| builder.build().unwrap(), |dir| reopen(on_conflict, &clock, extends, dir.path()))
        };
        let mut dedup = open();
        let mut model = Model { on_conflict, extends, ids: HashMap::new() };
        let mut now = 0;
        for step in 0..200 {
            let pause =
                [0, 0, 100, 900, 5_000, 20_000, WINDOW / 2, WINDOW - 500, WINDOW + 500][random.below(9) as usize];
            now += pause;
            clock.advance(Duration::from_millis(pause as u64));
            if dir.is_some() && random.below(60) == 0 {
                dedup.close().unwrap();
                dedup = open();
            }
            let length = [1, 1, 2, 7, 90][random.below(5) as usize];
            let events: Vec<Event> = (0..length).map(|_| (random.below(ids), random.below(payloads))).collect();
            let reserved = reserve(&dedup, &events);
            let before = model.ids.clone();
            for (event, verdict) in events.iter().zip(reserved.verdicts()) {
                let taken = model.take(*event, *verdict, now);
                assert_eq!(taken, Ok(()), "seed {seed}, step {step}, {on_conflict}, extends {extends}: {event:?}");
            }
            // Windows that repeats have extended stay so, which the model does not undo.
            if !extends && random.below(6) == 0 {
                model.drop(before, &events, reserved.verdicts());
                drop(reserved);
            } else {
                reserved.commit().unwrap();
            }
            assert_eq!(dedup.stats().pending_ids, 0);
        }
    }
}

fn reopen(on_conflict: OnConflict, clock: &ManualClock, extends: bool, dir: &std::path::Path) -> Deduplicator {
    builder(on_conflict, clock).extend_on_duplicate(extends).open(dir).unwrap()
}

/// In event time an ID may be known at several times.
#[test]
fn random_streams_in_event_time_are_judged_as_a_naive_model_allows() {
    for seed in 0..80 {
        let mut random = Random(seed);
        let on_conflict = [OnConflict::Count, OnConflict::Pass][seed as usize % 2];
        let dir = (random.below(2) == 0).then(|| tempfile::tempdir().unwrap());
        let clock = ManualClock::starting_at(Timestamp::from_millis(100 * WINDOW));
        let open = || {
            let builder = builder(on_conflict, &clock).lateness(Duration::from_millis(5 * WINDOW as u64));
            dir.as_ref().map_or_else(|| builder_built(&clock, on_conflict), |dir| builder.open(dir.path()).unwrap())
        };
        let mut dedup = open();
        let (mut ids, mut payloads) = (HashMap::<u64, Vec<i64>>::new(), HashMap::<Event, Vec<i64>>::new());
        for step in 0..200 {
            if dir.is_some() && random.below(60) == 0 {
                dedup.close().unwrap();
                dedup = open();
            }
            let around = random.below(4 * WINDOW as u64) as i64;
            let length = [1, 2, 5][random.below(3) as usize];
            let event = |random: &mut Random| {
                let time = around + random.below(WINDOW as u64 / 2) as i64;
                ((random.below(3), random.below(3)), time)
            };
            let events: Vec<(Event, i64)> = (0..length).map(|_| event(&mut random)).collect();
            let reserved = reserve_at(&dedup, &events);
            let is_dropped = random.below(8) == 0;
            let before = (ids.clone(), payloads.clone());
            for ((event, time), verdict) in events.iter().zip(reserved.verdicts()) {
                let near = |times: &[i64], by: i64| times.iter().any(|other| (time - other).abs() < by);
                let seen = ids.entry(event.0).or_default();
                let paid = payloads.entry(*event).or_default();
                let lone = seen.iter().any(|other| (time - other).abs() < WINDOW + SLACK && !paid.contains(other));
                let is_right = match verdict {
                    ReserveVerdict::FirstSeen => !near(seen, WINDOW),
                    ReserveVerdict::Duplicate | ReserveVerdict::InFlight => {
                        let is_pending = *verdict == ReserveVerdict::InFlight;
                        (is_pending || near(seen, WINDOW + SLACK)) && near(paid, WINDOW + SLACK)
                    }
                    // A pending event is near, however far away it is.
                    ReserveVerdict::Conflict { in_flight: true } => !near(paid, WINDOW),
                    ReserveVerdict::Conflict { .. } => near(seen, WINDOW + SLACK) && !near(paid, WINDOW) && lone,
                    _ => false,
                };
                let all = || events.iter().zip(reserved.verdicts()).collect::<Vec<_>>();
                assert!(is_right, "seed {seed}, step {step}: {event:?} at {time}: {seen:?}, {paid:?}, {:?}", all());
                if *verdict == ReserveVerdict::FirstSeen {
                    seen.push(*time);
                    paid.push(*time);
                } else if matches!(verdict, ReserveVerdict::Conflict { .. }) && on_conflict == OnConflict::Pass {
                    paid.push(*time);
                }
            }
            if is_dropped {
                (ids, payloads) = before;
                drop(reserved);
            } else {
                reserved.commit().unwrap();
            }
        }
        assert_eq!(dedup.stats().future, 0);
    }
}

fn builder_built(clock: &ManualClock, on_conflict: OnConflict) -> Deduplicator {
    builder(on_conflict, clock).lateness(Duration::from_millis(5 * WINDOW as u64)).build().unwrap()
}

#[test]
fn an_event_of_the_future_is_counted_once() {
    let clock = ManualClock::starting_at(Timestamp::from_millis(0));
    let dedup = builder(OnConflict::Pass, &clock).lateness(Duration::ZERO).build().unwrap();
    let far = 7_200_000;
    let reserved = reserve_at(&dedup, &[((1, 1), 0), ((2, 1), far), ((2, 1), far), ((2, 2), far)]);
    let expected = [ReserveVerdict::FirstSeen, ReserveVerdict::FirstSeen, ReserveVerdict::InFlight, CONFLICT_IN_FLIGHT];
    assert_eq!(reserved.verdicts(), expected);
    assert_eq!(dedup.stats().future, 3);
}

#[test]
fn a_digest_is_not_late_behind_the_events_after_it() {
    let dedup = builder(OnConflict::Pass, &ManualClock::new()).lateness(Duration::ZERO).build().unwrap();
    let reserved = reserve_at(&dedup, &[((1, 1), 0), ((2, 1), 10_000), ((3, 1), 20_000)]);
    assert!(reserved.verdicts().iter().all(|verdict| *verdict == ReserveVerdict::FirstSeen));
}

/// What a batch found known at its beginning, and marks again because a limit took it meanwhile, is not its own any more: another
/// batch may have reserved it by the time that this one is dropped.
#[test]
fn a_batch_that_is_dropped_lets_go_of_no_payload_that_another_has_reserved() {
    let clock = ManualClock::new();
    let builder = builder(OnConflict::Pass, &clock).extend_on_duplicate(true);
    let dedup = builder.max_ids(640).when_full(WhenFull::EvictOldest).build().unwrap();
    assert_eq!(settle(&dedup, (0, 0)), ReserveVerdict::FirstSeen);
    clock.advance(Duration::from_millis(SLACK as u64));
    reserve(&dedup, &(1..300).map(|id| (id, id)).collect::<Vec<_>>()).commit().unwrap();
    clock.advance(Duration::from_millis(SLACK as u64));
    // Its ID is asked about, and stays; its payload is the oldest, and makes room.
    let events: Vec<Event> = std::iter::once((0, 0)).chain((1_000..1_060).map(|id| (id, id))).collect();
    let first = reserve(&dedup, &events);
    assert_eq!((first.verdicts()[0], dedup.stats().evicted_early > 0), (ReserveVerdict::Duplicate, true));
    assert!(dedup.forget(0_u64.to_le_bytes()).unwrap());
    let second = reserve(&dedup, &[(0, 0)]);
    assert_eq!(second.verdicts(), [ReserveVerdict::FirstSeen]);
    drop(first);
    second.commit().unwrap();
    assert_eq!(settle(&dedup, (0, 0)), ReserveVerdict::Duplicate);
}

/// Each ID has one payload for ever, so nothing may ever be a conflict: whatever ends, is evicted, refused, dropped, or asked by
/// others at the same time.
#[test]
fn ids_with_one_payload_are_never_in_conflict() {
    for seed in 0..48 {
        let mut random = Random(seed);
        let clock = ManualClock::new();
        let extends = random.below(2) == 0;
        let mut builder = builder(OnConflict::Pass, &clock).extend_on_duplicate(extends);
        let limits = random.below(3);
        match limits {
            0 => {}
            1 => builder = builder.max_ids(40).when_full(WhenFull::Refuse),
            _ => builder = builder.max_ids(300).when_full(WhenFull::EvictOldest),
        }
        let with_times = seed % 4 == 3;
        let mut lateness = 0;
        if with_times {
            lateness = [0, 5_000, 2 * WINDOW as u64][random.below(3) as usize];
            builder = builder.lateness(Duration::from_millis(lateness));
        }
        let dedup = builder.build().unwrap();
        let is_over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let threads: Vec<_> = (0..3_u64)
                .map(|thread| {
                    let (dedup, clock, mut random) = (&dedup, &clock, Random(seed * 100 + thread));
                    scope.spawn(move || {
                        for _ in 0..1_000 {
                            let length = [1, 3, 20][random.below(3) as usize];
                            let ids = [4, 30, 400][random.below(3) as usize];
                            let events: Vec<Event> =
                                (0..length).map(|_| random.below(ids)).map(|id| (id, id)).collect();
                            let now = dedupd::Clock::now(clock).as_nanos() / 1_000_000;
                            let reserved = if with_times {
                                let timed = |event: &Event| (*event, now - random.below(2_000) as i64);
                                reserve_at(dedup, &events.iter().map(timed).collect::<Vec<_>>())
                            } else {
                                reserve(dedup, &events)
                            };
                            for (event, verdict) in events.iter().zip(reserved.verdicts()) {
                                let is_conflict = matches!(verdict, ReserveVerdict::Conflict { .. });
                                let after = dedupd::Clock::now(clock).as_nanos() / 1_000_000;
                                assert!(
                                    !is_conflict,
                                    "seed {seed}: {event:?} is {verdict:?}; extends {extends}, limits {limits}, lateness \
                                     {lateness}, between {now} and {after}"
                                );
                            }
                            if random.below(4) > 0 {
                                reserved.commit().unwrap();
                            }
                        }
                    })
                })
                .collect();
            let time = scope.spawn(|| {
                while !is_over.load(Ordering::Relaxed) {
                    clock.advance(Duration::from_millis(SLACK as u64 / 4));
                    std::thread::yield_now();
                }
            });
            let ended: Vec<_> = threads.into_iter().map(|thread| thread.join()).collect();
            is_over.store(true, Ordering::Relaxed);
            time.join().unwrap();
            ended.into_iter().for_each(|ended| ended.unwrap());
        });
        assert_eq!((dedup.stats().pending_ids, dedup.stats().conflicts), (0, 0), "seed {seed}");
    }
}
