//! Promises of the pipeline that were broken once. Goal: each stays kept. Method: the smallest run that broke it.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};

use dedupd::sink::{Durable, FailureClass, Guarantees, Idempotency, NdjsonSink, Order, Sink, SinkError, Tee};
use dedupd::{
    ClosureSink, Deduplicator, Delivery, Durability, Event, ManualClock, OnConflict, Pipeline, Settled, Timestamp,
};

fn set() -> Deduplicator {
    Deduplicator::builder().build().unwrap()
}

fn sink(
    act: impl FnMut(&[Event<'_>]) -> Result<(), SinkError> + Send + 'static,
) -> ClosureSink<impl FnMut(&[Event<'_>]) -> Result<(), SinkError> + Send> {
    ClosureSink::new(act)
}

fn until(mut what: impl FnMut() -> bool) -> bool {
    let end = Instant::now() + LONG;
    while Instant::now() < end {
        if what() {
            return true;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    false
}

/// Runs `act` on a thread; none when it hangs.
fn unless_it_hangs<R: Send + 'static>(act: impl FnOnce() -> R + Send + 'static) -> Option<R> {
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || sender.send(act()));
    receiver.recv_timeout(LONG).ok()
}

/// Nothing here takes so long, on the slowest machine.
const LONG: Duration = Duration::from_secs(60);

#[test]
fn a_shutdown_with_the_longest_deadline_does_not_panic() {
    let pipeline = Pipeline::builder(set()).sink(sink(|_| Ok(()))).start().unwrap();
    let shut = catch_unwind(AssertUnwindSafe(|| pipeline.shutdown(Duration::MAX).is_ok()));
    assert!(shut.is_ok());
}

#[test]
fn a_drain_that_could_not_finish_never_says_that_it_did() {
    let sink = sink(|batch| Err(SinkError::rest(0..batch.len(), FailureClass::Permanent)));
    let pipeline = Pipeline::builder(set()).sink(sink).start().unwrap();
    pipeline.submit(Event::new("a", "")).unwrap();
    assert!(pipeline.drain().is_err());
    let again = pipeline.drain();
    assert!(again.is_err(), "the second drain: {again:?}");
}

#[test]
fn the_failure_of_a_late_copy_does_not_touch_the_reservation_of_the_first() {
    let clock = ManualClock::starting_at(Timestamp::from_millis(10_000_000));
    let second = Duration::from_secs(1);
    let dedup = Deduplicator::builder().clock(clock).window(second * 60).lateness(second).build().unwrap();
    let sink = sink(|batch| {
        let lacking = batch.iter().enumerate().filter(|(_, event)| event.payload() == b"late");
        let failures: Vec<_> = lacking.map(|(index, _)| (index, FailureClass::Permanent)).collect();
        if failures.is_empty() { Ok(()) } else { Err(SinkError::new(failures)) }
    });
    let pipeline = Pipeline::builder(dedup.clone()).sink(sink).start().unwrap();
    let at = |seconds: i64| Timestamp::from_millis(seconds * 1_000);
    let events = [
        Event::new("other", "").with_time(at(9_000)),
        Event::new("x", "late").with_time(at(100)),
        Event::new("x", "good").with_time(at(9_000)),
    ];
    pipeline.submit_batch(&events).unwrap();
    let error = pipeline.drain().unwrap_err();
    let stats = pipeline.stats();
    assert_eq!((error.unfinished.len(), stats.late, stats.delivered), (1, 1, 2), "{stats:?}");
    let again = dedup.reserve_batch_check("x", at(9_000));
    assert!(again, "x was delivered and settled, and is not known");
}

trait Check {
    fn reserve_batch_check(&self, id: &str, time: Timestamp) -> bool;
}
impl Check for Deduplicator {
    /// Whether it is a duplicate.
    fn reserve_batch_check(&self, id: &str, time: Timestamp) -> bool {
        self.try_observe_at(id, time).unwrap() == dedupd::Verdict::Duplicate
    }
}

#[derive(Clone, Default)]
struct CountsFlushes(Arc<Mutex<(usize, usize)>>);

impl Sink for CountsFlushes {
    fn deliver(&mut self, batch: &[Event<'_>]) -> Result<(), SinkError> {
        self.0.lock().unwrap().0 += batch.len();
        Ok(())
    }
    fn flush(&mut self) -> Result<(), SinkError> {
        self.0.lock().unwrap().1 += 1;
        Ok(())
    }
    fn guarantees(&self) -> Guarantees {
        Guarantees::new(Idempotency::None, Order::AsDelivered, Durable::AfterFlush)
    }
}

#[test]
fn the_branches_of_a_tee_are_flushed_before_a_commit_that_survives_a_power_cut() {
    for place in ["dead letter", "sink_with"] {
        let dir = tempfile::tempdir().unwrap();
        let dedup = Deduplicator::builder().durability(Durability::PowerLoss).open(dir.path()).unwrap();
        let disk = CountsFlushes::default();
        let tee = {
            let disk = disk.clone();
            move || Tee::new().with(disk.clone()).with(sink(|_| Ok(())))
        };
        let builder = Pipeline::builder(dedup.clone());
        let pipeline = if place == "dead letter" {
            let main = sink(|batch| Err(SinkError::rest(0..batch.len(), FailureClass::Permanent)));
            builder.sink(main).dead_letter(tee()).start().unwrap()
        } else {
            builder.sink_with(tee, 1).start().unwrap()
        };
        pipeline.submit(Event::new("a", "").with_position("s", 1)).unwrap();
        assert!(until(|| pipeline.settled("s") == Some(1)));
        let (delivered, flushes) = *disk.0.lock().unwrap();
        assert!(delivered == 1 && flushes > 0, "{place}: settled and committed to disk, with {flushes} flushes");
    }
}

#[test]
fn a_lane_that_dies_does_not_hang_the_drain() {
    #[derive(Debug)]
    struct Bomb;
    impl std::fmt::Display for Bomb {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("bomb")
        }
    }
    impl std::error::Error for Bomb {}
    impl Drop for Bomb {
        fn drop(&mut self) {
            panic!("on purpose");
        }
    }
    let bad = sink(|batch| Err(SinkError::rest(0..batch.len(), FailureClass::Transient).because(Bomb)));
    let pipeline = Pipeline::builder(set()).sink(bad).sink(sink(|_| Ok(()))).start().unwrap();
    pipeline.submit(Event::new("a", "")).unwrap();
    let drained = unless_it_hangs(move || pipeline.drain().is_err());
    assert_eq!(drained, Some(true), "the drain hangs");
}

#[test]
fn an_interval_without_end_does_not_panic() {
    let dir = tempfile::tempdir().unwrap();
    let opened = Deduplicator::builder().durability(Durability::Interval(Duration::MAX)).open(dir.path());
    let Ok(dedup) = opened else { return };
    let pipeline = Pipeline::builder(dedup).sink(CountsFlushes::default()).start().unwrap();
    pipeline.submit(Event::new("a", "")).unwrap();
    let drained = pipeline.drain();
    assert!(drained.is_ok(), "{}", drained.unwrap_err());
}

#[test]
fn a_disk_that_was_full_for_a_while_is_no_failed_drain() {
    let dir = tempfile::tempdir().unwrap();
    let window = Duration::from_secs(2);
    let dedup = Deduplicator::builder()
        .window(window)
        .durability(Durability::Process)
        .max_disk(4 << 20)
        .open(dir.path())
        .unwrap();
    let pipeline = Pipeline::builder(dedup).sink(sink(|_| Ok(()))).start().unwrap();
    let mut producer = pipeline.producer();
    let start = Instant::now();
    let mut n: u64 = 0;
    while start.elapsed() < Duration::from_secs(6) && n < 600_000 {
        let id = n.to_string();
        producer.submit(Event::new(&id, "")).unwrap();
        n += 1;
    }
    drop(producer);
    match pipeline.drain() {
        Ok(stats) => assert_eq!(stats.delivered, n),
        Err(error) => panic!(
            "{n} events: {} unfinished, {} failures, the first: {:?}; stats {:?}",
            error.unfinished.len(),
            error.failures.len(),
            error.failures.first(),
            pipeline.stats()
        ),
    }
}

#[test]
fn at_most_once_commits_before_it_delivers_a_repeat_that_took_its_turn() {
    let dedup = set();
    let (asked, pending) = (dedup.clone(), Arc::new(AtomicUsize::new(0)));
    let count = Arc::clone(&pending);
    let sink = sink(move |batch| {
        for event in batch {
            let reserved = asked.reserve_batch(&[event.id()]).unwrap();
            let is_pending = reserved.verdicts()[0] == dedupd::ReserveVerdict::InFlight;
            count.fetch_add(usize::from(is_pending), Ordering::Relaxed);
        }
        Ok(())
    });
    let foreign = dedup.reserve_batch(&["a"]).unwrap();
    let pipeline = Pipeline::builder(dedup.clone()).sink(sink).delivery(Delivery::AtMostOnce).start().unwrap();
    pipeline.submit(Event::new("a", "")).unwrap();
    pipeline.submit(Event::new("b", "")).unwrap();
    assert!(until(|| pipeline.stats().attached == 1 && pipeline.stats().delivered == 1));
    drop(foreign);
    assert_eq!(pipeline.drain().unwrap().delivered, 2);
    assert_eq!(pending.load(Ordering::Relaxed), 0, "delivered before it was committed");
}

#[test]
fn after_the_pipeline_is_dropped_a_producer_is_told_that_it_is_closed() {
    let pipeline = Pipeline::builder(set()).sink(sink(|_| Ok(()))).start().unwrap();
    let mut producer = pipeline.producer();
    drop(pipeline);
    assert_eq!(producer.submit(Event::new("a", "")), Err(dedupd::pipeline::SubmitError::Closed));
}

#[test]
fn a_repeat_that_waited_does_not_become_late() {
    let clock = ManualClock::starting_at(Timestamp::from_millis(10_000_000));
    let second = Duration::from_secs(1);
    let dedup = Deduplicator::builder().clock(clock).window(second * 600).lateness(second).build().unwrap();
    let got: Arc<Mutex<Vec<String>>> = Arc::default();
    let log = Arc::clone(&got);
    let sink = sink(move |batch| {
        log.lock().unwrap().extend(batch.iter().map(|event| String::from_utf8_lossy(event.id()).into_owned()));
        Ok(())
    });
    let pipeline = Pipeline::builder(dedup.clone()).sink(sink).start().unwrap();
    let at = |seconds: i64| Timestamp::from_millis(seconds * 1_000);
    let x = Event::new("x", "").with_time(at(9_000));
    pipeline.submit_batch(&[x, x, Event::new("y", "").with_time(at(9_100))]).unwrap();
    let stats = pipeline.drain().unwrap();
    let got = got.lock().unwrap().clone();
    assert_eq!(got, ["x", "y"], "{stats:?}");
}

#[test]
fn positions_that_start_anew_after_a_restart_are_not_settled_before_they_are() {
    let dir = tempfile::tempdir().unwrap();
    let open = || Deduplicator::builder().durability(Durability::Process).open(dir.path()).unwrap();
    let pipeline = Pipeline::builder(open()).sink(sink(|_| Ok(()))).start().unwrap();
    pipeline.submit(Event::new("old", "").with_position("s", 41)).unwrap();
    pipeline.drain().unwrap();
    drop(pipeline);
    let never = sink(|batch| Err(SinkError::rest(0..batch.len(), FailureClass::Defer(Duration::from_secs(99)))));
    let pipeline = Pipeline::builder(open()).sink(never).start().unwrap();
    pipeline.submit(Event::new("new", "").with_position("s", 5)).unwrap();
    assert!(until(|| pipeline.stats().failed_attempts > 0));
    let settled = pipeline.settled("s");
    let _ = pipeline.shutdown(Duration::ZERO);
    assert!(settled.is_none_or(|at| at < 5), "{settled:?}, while position 5 is held");
}

#[test]
fn what_a_worker_judged_when_it_panicked_comes_back() {
    struct Bomb(Arc<AtomicBool>);
    impl dedupd::Clock for Bomb {
        fn now(&self) -> Timestamp {
            let name = std::thread::current().name().unwrap_or_default().to_owned();
            assert!(!(self.0.load(Ordering::Relaxed) && name.starts_with("dedupd-worker")), "on purpose");
            Timestamp::from_millis(1_000_000)
        }
    }
    let lit = Arc::new(AtomicBool::new(false));
    let dedup = Deduplicator::builder().clock(Bomb(Arc::clone(&lit))).housekeeping(false).build().unwrap();
    let pipeline = Pipeline::builder(dedup).sink(sink(|_| Ok(()))).start().unwrap();
    lit.store(true, Ordering::Relaxed);
    pipeline.submit(Event::new("a", "")).unwrap();
    let error = pipeline.drain().unwrap_err();
    assert_eq!(error.unfinished.len(), 1, "{:?}", error.failures);
    assert!(error.failures.iter().any(|failure| failure.contains("on purpose")), "{:?}", error.failures);
}

#[test]
fn a_first_run_that_ends_before_its_first_commit_can_be_gone_on_from() {
    let dir = tempfile::tempdir().unwrap();
    let (state, file) = (dir.path().join("state"), dir.path().join("out"));
    let open =
        || Deduplicator::builder().durability(Durability::Interval(Duration::from_secs(5))).open(&state).unwrap();
    let pipeline = Pipeline::builder(open()).sink(NdjsonSink::file(&file).unwrap()).start().unwrap();
    pipeline.submit(Event::new("a", "a")).unwrap();
    assert!(until(|| std::fs::read(&file).is_ok_and(|bytes| !bytes.is_empty())));
    drop(pipeline);
    let again = Pipeline::builder(open()).sink(NdjsonSink::file(&file).unwrap()).start();
    assert!(again.is_ok(), "{:?}", again.err());
}

/// In event time two events of one ID are both new when they are a window apart, also while one of them is under way.
#[test]
fn an_event_a_window_away_from_a_pending_one_of_its_id_is_delivered() {
    let second = Duration::from_secs(1);
    for fails_first in [false, true] {
        let clock = ManualClock::starting_at(Timestamp::from_millis(10_000_000));
        let builder = Deduplicator::builder().clock(clock).window(second * 60).lateness(second * 600);
        let (calls, delivered) = (Arc::new(AtomicUsize::new(0)), Arc::new(Mutex::new(Vec::new())));
        let sink = {
            let (calls, delivered) = (Arc::clone(&calls), Arc::clone(&delivered));
            sink(move |batch| {
                if calls.fetch_add(1, Ordering::SeqCst) == 0 && fails_first {
                    return Err(SinkError::rest(0..batch.len(), FailureClass::Defer(Duration::from_millis(200))));
                }
                delivered.lock().unwrap().extend(batch.iter().map(|event| event.payload().to_vec()));
                Ok(())
            })
        };
        let pipeline = Pipeline::builder(builder.build().unwrap()).sink(sink).start().unwrap();
        let at = |seconds: i64| Timestamp::from_millis((9_000 + seconds) * 1_000);
        let event = |payload, seconds, position| {
            Event::new("x", payload).with_time(at(seconds)).with_position("source", position)
        };
        let first = event("first", 0, 0);
        let others = [event("second", 120, 1), event("repeat", 30, 2), event("repeat of the second", 150, 3)];
        if fails_first {
            pipeline.submit(first).unwrap();
            assert!(until(|| calls.load(Ordering::SeqCst) == 1));
            pipeline.submit_batch(&others).unwrap();
        } else {
            pipeline.submit_batch(&[&[first][..], &others[..]].concat()).unwrap();
        }
        let stats = pipeline.drain().unwrap();
        assert_eq!((stats.delivered, stats.duplicate, stats.attached), (2, 2, 0), "{fails_first}: {stats:?}");
        assert_eq!(*delivered.lock().unwrap(), [b"first".to_vec(), b"second".to_vec()], "{fails_first}");
        assert_eq!(pipeline.settled("source"), Some(3));
    }
}

/// In event time, while events fail and come in any order: of each ID no two are delivered that are less than a window apart, and
/// what is called a duplicate is less than a window and its slack away from one that is delivered.
#[test]
fn in_event_time_each_duplicate_has_its_original_and_each_original_is_one() {
    const WINDOW: i64 = 64_000;
    for seed in 0..12_u64 {
        let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) + 1;
        let mut below = move |below: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) % below
        };
        let clock = ManualClock::starting_at(Timestamp::from_millis(1_000_000));
        let lateness = Duration::from_millis(5 * WINDOW as u64);
        let builder =
            Deduplicator::builder().clock(clock).window(Duration::from_millis(WINDOW as u64)).lateness(lateness);
        let fails = Mutex::new(seed);
        let sink = sink(move |batch| {
            let failing = |_: &usize| {
                let mut fails = fails.lock().unwrap();
                *fails = fails.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                (*fails >> 33).is_multiple_of(4)
            };
            let failures: Vec<_> = (0..batch.len()).filter(failing).collect();
            let class = FailureClass::Defer(Duration::from_millis(1));
            let failures: Vec<_> = failures.into_iter().map(|index| (index, class)).collect();
            if failures.is_empty() { Ok(()) } else { Err(SinkError::new(failures)) }
        });
        let workers = 1 + (seed % 2) as usize;
        let pipeline = Pipeline::builder(builder.build().unwrap()).workers(workers).sink(sink).start().unwrap();
        let ends = Arc::new(Mutex::new(Vec::new()));
        // All of an ID come close together, so that some are under way when the others come.
        let events: Vec<(u64, i64)> = (0..2_000).map(|n| (n / 8, below(4 * WINDOW as u64) as i64)).collect();
        for (id, time) in &events {
            let (ends, told) = (Arc::clone(&ends), (*id, *time));
            let event = id.to_le_bytes();
            let event = Event::new(&event, "").with_time(Timestamp::from_millis(*time));
            pipeline.submit_with(event, move |settled| ends.lock().unwrap().push((told, settled))).unwrap();
            if below(50) == 0 {
                std::thread::sleep(Duration::from_millis(below(3)));
            }
        }
        let stats = pipeline.drain().unwrap();
        assert_eq!((stats.late, stats.refused, stats.read), (0, 0, events.len() as u64), "{seed}: {stats:?}");
        let ends = ends.lock().unwrap();
        let with = |settled: Settled| ends.iter().filter(move |(_, end)| *end == settled).map(|(event, _)| *event);
        let (delivered, duplicates): (Vec<_>, Vec<_>) =
            (with(Settled::Delivered).collect(), with(Settled::Duplicate).collect());
        assert_eq!(delivered.len() + duplicates.len(), events.len(), "{seed}");
        let nearest = |(id, time): (u64, i64), but: Option<usize>| {
            let others = delivered.iter().enumerate().filter(|(index, other)| but != Some(*index) && other.0 == id);
            others.map(|(_, other)| (other.1 - time).abs()).min().unwrap_or(i64::MAX)
        };
        for (index, event) in delivered.iter().enumerate() {
            assert!(nearest(*event, Some(index)) >= WINDOW, "{seed}: {event:?} was delivered beside another");
        }
        let slack = 2 * WINDOW / 64;
        for event in duplicates {
            assert!(nearest(event, None) < WINDOW + slack, "{seed}: {event:?} is no duplicate of anything");
        }
    }
}

/// Who sends again while a sink is down sends for longer than a window, and may not know when the event was.
#[test]
fn a_repeat_without_a_time_is_a_duplicate_however_long_the_first_was_under_way() {
    let clock = ManualClock::starting_at(Timestamp::from_millis(10_000_000));
    let second = Duration::from_secs(1);
    let builder = Deduplicator::builder().clock(clock.clone()).window(second * 60).lateness(second * 600);
    let (calls, is_up) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
    let sink = {
        let (calls, is_up) = (Arc::clone(&calls), Arc::clone(&is_up));
        sink(move |batch| {
            calls.fetch_add(1, Ordering::SeqCst);
            match is_up.load(Ordering::SeqCst) {
                true => Ok(()),
                false => Err(SinkError::rest(0..batch.len(), FailureClass::Defer(Duration::from_millis(5)))),
            }
        })
    };
    let pipeline = Pipeline::builder(builder.build().unwrap()).sink(sink).start().unwrap();
    pipeline.submit(Event::new("x", "")).unwrap();
    assert!(until(|| calls.load(Ordering::SeqCst) > 0));
    clock.advance(second);
    pipeline.submit(Event::new("x", "")).unwrap();
    assert!(until(|| pipeline.stats().attached == 1));
    clock.advance(second * 70);
    is_up.store(true, Ordering::SeqCst);
    let stats = pipeline.drain().unwrap();
    assert_eq!((stats.delivered, stats.duplicate), (1, 1), "{stats:?}");
}

/// A file that stops before its second batch until it is told to go on.
struct Stops {
    inner: NdjsonSink,
    batches: usize,
    go_on: mpsc::Receiver<()>,
    has_stopped: Arc<AtomicBool>,
}

impl Sink for Stops {
    fn deliver(&mut self, batch: &[Event<'_>]) -> Result<(), SinkError> {
        self.batches += 1;
        if self.batches == 2 {
            self.has_stopped.store(true, Ordering::SeqCst);
            let _ = self.go_on.recv();
        }
        self.inner.deliver(batch)
    }

    fn flush(&mut self) -> Result<(), SinkError> {
        self.inner.flush()
    }

    fn guarantees(&self) -> Guarantees {
        self.inner.guarantees()
    }

    fn name(&self) -> std::borrow::Cow<'_, [u8]> {
        self.inner.name()
    }

    fn position(&mut self) -> Result<Option<Vec<u8>>, SinkError> {
        self.inner.position()
    }

    fn resume(&mut self, position: Option<&[u8]>) -> Result<(), SinkError> {
        self.inner.resume(position)
    }
}

#[test]
fn exactly_once_no_conflict_is_recorded_as_settled_before_it_is_delivered() {
    let dir = tempfile::tempdir().unwrap();
    let dedup = Deduplicator::builder().on_conflict(OnConflict::Pass).durability(Durability::Process);
    let dedup = dedup.open(dir.path().join("state")).unwrap();
    let (goes_on, go_on) = mpsc::channel();
    let has_stopped = Arc::new(AtomicBool::new(false));
    let inner = NdjsonSink::file(dir.path().join("out")).unwrap();
    let sink = Stops { inner, batches: 0, go_on, has_stopped: Arc::clone(&has_stopped) };
    let pipeline = Pipeline::builder(dedup.clone()).sink(sink).start().unwrap();
    assert_eq!(pipeline.delivery(), Delivery::ExactlyOnce);
    let event = |payload, position| Event::new("x", payload).with_position("s", position);
    pipeline.submit_batch(&[event("one", 10), event("two", 11)]).unwrap();
    assert!(until(|| has_stopped.load(Ordering::SeqCst)));
    let settled = |dedup: &Deduplicator| dedup.progress().source(b"s").map(<[u8]>::to_vec);
    assert_eq!(settled(&dedup), Some(10_u64.to_be_bytes().to_vec()), "the second is not out");
    goes_on.send(()).unwrap();
    assert_eq!(pipeline.drain().unwrap().conflicts, 1);
    assert_eq!(settled(&dedup), Some(11_u64.to_be_bytes().to_vec()));
    assert_eq!(std::fs::read_to_string(dir.path().join("out")).unwrap(), "one\ntwo\n");
}

/// Of two that waited for one ID the one that came first is asked about first, also when it came with what both waited for.
#[test]
fn repeats_are_asked_about_in_the_order_in_which_they_came() {
    let second = Duration::from_secs(1);
    let clock = ManualClock::starting_at(Timestamp::from_millis(10_000_000));
    let builder = Deduplicator::builder().clock(clock).window(second * 60).lateness(second * 600);
    let (goes_on, go_on) = mpsc::channel::<()>();
    let (calls, delivered) = (Arc::new(AtomicUsize::new(0)), Arc::new(Mutex::new(Vec::new())));
    let slow = {
        let (calls, delivered) = (Arc::clone(&calls), Arc::clone(&delivered));
        sink(move |batch| {
            if calls.fetch_add(1, Ordering::SeqCst) == 0 {
                let _ = go_on.recv();
            }
            delivered.lock().unwrap().extend(batch.iter().map(|event| event.payload().to_vec()));
            Ok(())
        })
    };
    // Two sinks: each has a lane, and the worker goes on.
    let pipeline = Pipeline::builder(builder.build().unwrap()).sink(slow).sink(sink(|_| Ok(()))).start().unwrap();
    let event =
        |payload, seconds: i64| Event::new("x", payload).with_time(Timestamp::from_millis((9_000 + seconds) * 1_000));
    pipeline.submit_batch(&[event("first", 0), event("second", 120)]).unwrap();
    assert!(until(|| calls.load(Ordering::SeqCst) == 1));
    pipeline.submit(event("third", 150)).unwrap();
    let waits = until(|| pipeline.stats().attached == 2);
    goes_on.send(()).unwrap();
    let stats = pipeline.drain().unwrap();
    assert!(waits, "{stats:?}");
    assert_eq!(*delivered.lock().unwrap(), [b"first".to_vec(), b"second".to_vec()]);
    assert_eq!((stats.delivered, stats.duplicate), (2, 1), "{stats:?}");
}
