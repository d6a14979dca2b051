//! The pipeline as a caller sees it. Goal: every promise of its documentation has a test that names it. Method: sinks that
//! record what they get and do as they are told.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use dedupd::pipeline::SubmitError;
use dedupd::sink::{FailureClass, Sink, SinkError};
use dedupd::{Deduplicator, Delivery, Durability, Event, NdjsonSink, Pipeline, Settled, WaitStrategy};

/// What a sink is to do with its next batches; then it delivers everything.
type Script = VecDeque<Box<dyn FnMut(&[Event<'_>]) -> Result<(), SinkError> + Send>>;

/// Records what it is given, as text.
#[derive(Clone, Default)]
struct Recorder {
    delivered: Arc<Mutex<Vec<(String, String)>>>,
    tries: Arc<AtomicUsize>,
    script: Arc<Mutex<Script>>,
}

impl Recorder {
    fn then(self, act: impl FnMut(&[Event<'_>]) -> Result<(), SinkError> + Send + 'static) -> Self {
        self.script.lock().unwrap().push_back(Box::new(act));
        self
    }

    fn ids(&self) -> Vec<String> {
        self.delivered.lock().unwrap().iter().map(|(id, _)| id.clone()).collect()
    }
}

impl Sink for Recorder {
    fn deliver(&mut self, batch: &[Event<'_>]) -> Result<(), SinkError> {
        self.tries.fetch_add(1, Ordering::Relaxed);
        let act = self.script.lock().unwrap().pop_front();
        let result = act.map_or(Ok(()), |mut act| act(batch));
        let failed: Vec<usize> = match &result {
            Ok(()) => Vec::new(),
            Err(error) => error.failures().iter().map(|(index, _)| *index).collect(),
        };
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        let delivered = batch.iter().enumerate().filter(|(index, _)| !failed.contains(index));
        let mut log = self.delivered.lock().unwrap();
        log.extend(delivered.map(|(_, event)| (text(event.id()), text(event.payload()))));
        result
    }
}

fn set() -> Deduplicator {
    Deduplicator::builder().build().unwrap()
}

/// A door that stays shut until it is opened.
#[derive(Clone, Default)]
struct Door(Arc<(Mutex<bool>, Condvar)>);

impl Door {
    fn open(&self) {
        *self.0.0.lock().unwrap() = true;
        self.0.1.notify_all();
    }

    fn pass(&self) {
        let mut is_open = self.0.0.lock().unwrap();
        while !*is_open {
            is_open = self.0.1.wait(is_open).unwrap();
        }
    }
}

#[test]
fn each_id_is_delivered_once_and_in_order() {
    for workers in [1, 2, 3] {
        for wait in [WaitStrategy::Park, WaitStrategy::Yield] {
            let sink = Recorder::default();
            let pipeline =
                Pipeline::builder(set()).sink(sink.clone()).workers(workers).wait_strategy(wait).start().unwrap();
            let mut producer = pipeline.producer();
            for n in 0..5_000 {
                producer.submit(Event::new(&format!("{}", n / 2), &format!("{n}"))).unwrap();
            }
            let stats = pipeline.drain().unwrap();
            assert!(stats.balances(), "{stats:?}");
            assert_eq!((stats.read, stats.delivered, stats.duplicate), (5_000, 2_500, 2_500));
            let delivered = sink.delivered.lock().unwrap();
            assert_eq!(delivered.len(), 2_500);
            assert!(delivered.iter().all(|(id, payload)| payload.parse::<u32>().unwrap() / 2 == id.parse().unwrap()));
            if workers == 1 {
                assert!(delivered.windows(2).all(|pair| {
                    let number = |at: usize| pair[at].0.parse::<u32>().unwrap();
                    number(0) < number(1)
                }));
            }
        }
    }
}

#[test]
fn all_ways_to_submit_arrive() {
    let sink = Recorder::default();
    let pipeline = Pipeline::builder(set()).sink(sink.clone()).workers(2).start().unwrap();
    let settled = Arc::new(Mutex::new(Vec::new()));
    let note = |name: &'static str| {
        let settled = Arc::clone(&settled);
        move |outcome| settled.lock().unwrap().push((name, outcome))
    };
    pipeline.submit(Event::new("a", "1")).unwrap();
    pipeline.try_submit(Event::new("b", "2")).unwrap();
    pipeline.submit_with(Event::new("c", "3"), note("c")).unwrap();
    pipeline.submit_with(Event::new("c", "3 again"), note("c again")).unwrap();
    pipeline.submit_batch(&[Event::new("d", "4"), Event::new("a", "1 again")]).unwrap();
    let mut producer = pipeline.producer();
    producer.submit(Event::new("e", "5")).unwrap();
    producer.try_submit(Event::new("f", "6")).unwrap();
    producer.submit_with(Event::new("g", "7"), note("g")).unwrap();
    let events: Vec<_> = ["h", "i", "h"].map(|id| Event::new(id, "8")).into();
    producer.submit_batch(&events).unwrap();
    let stats = pipeline.drain().unwrap();
    assert_eq!((stats.delivered, stats.duplicate), (9, 3));
    let mut ids = sink.ids();
    ids.sort();
    assert_eq!(ids.concat(), "abcdefghi");
    let mut settled = settled.lock().unwrap().clone();
    settled.sort_by_key(|(name, _)| *name);
    assert_eq!(settled, [("c", Settled::Delivered), ("c again", Settled::Duplicate), ("g", Settled::Delivered)]);
}

#[test]
fn what_an_event_carries_reaches_every_sink_unchanged() {
    type Carried = (Option<Vec<u8>>, Option<Vec<u8>>, Option<Vec<u8>>, Option<String>, Option<u64>);
    struct Look(Arc<Mutex<Vec<Carried>>>);
    impl Sink for Look {
        fn deliver(&mut self, batch: &[Event<'_>]) -> Result<(), SinkError> {
            let bytes = |part: Option<&[u8]>| part.map(<[u8]>::to_vec);
            let carried = batch.iter().map(|event| {
                let ids = (bytes(event.operation_id()), bytes(event.correlation_id()), bytes(event.trace_parent()));
                (ids.0, ids.1, ids.2, event.source().map(|source| source.to_string()), event.position())
            });
            self.0.lock().unwrap().extend(carried);
            Ok(())
        }
    }
    let (one, two) = (Arc::default(), Arc::default());
    let looks = (Look(Arc::clone(&one)), Look(Arc::clone(&two)));
    let pipeline = Pipeline::builder(set()).sink(looks.0).sink(looks.1).start().unwrap();
    let event = Event::new("a", "b").with_operation_id("op").with_correlation_id("").with_trace_parent("00-01");
    pipeline.submit(event.with_position(7, 8)).unwrap();
    pipeline.drain().unwrap();
    let all = [Some("op"), Some(""), Some("00-01")].map(|part| part.map(|part| part.as_bytes().to_vec()));
    let [op, correlation, trace] = all;
    let expected = vec![(op, correlation, trace, Some("7".to_owned()), Some(8))];
    assert_eq!((&*one.lock().unwrap(), &*two.lock().unwrap()), (&expected, &expected));
}

#[test]
fn a_full_pipeline_hands_the_event_back_and_is_ready_later() {
    let door = Door::default();
    let shut = door.clone();
    let sink = Recorder::default().then(move |_| {
        shut.pass();
        Ok(())
    });
    let pipeline = Pipeline::builder(set()).sink(sink.clone()).queue_events(4).start().unwrap();
    let mut accepted = 0;
    let refused = loop {
        match pipeline.try_submit(Event::new(&format!("{accepted}"), "payload")) {
            Ok(()) => accepted += 1,
            Err(refused) => break (refused.reason, refused.event.payload().to_vec()),
        }
        assert!(accepted < 100, "there is no bound");
    };
    assert_eq!(refused, (SubmitError::Full, b"payload".to_vec()));
    let waker = Arc::new(Waker::default());
    let task = Arc::clone(&waker).into();
    let mut context = std::task::Context::from_waker(&task);
    let mut ready = std::pin::pin!(pipeline.ready());
    assert!(ready.as_mut().poll(&mut context).is_pending());
    door.open();
    waker.door.pass();
    assert!(ready.as_mut().poll(&mut context).is_ready());
    pipeline.try_submit(Event::new("last", "payload")).unwrap();
    assert_eq!(pipeline.drain().unwrap().delivered, accepted + 1);
}

#[test]
fn large_events_are_bounded_by_their_bytes_and_one_that_is_larger_goes_alone() {
    let door = Door::default();
    let shut = door.clone();
    let sink = Recorder::default().then(move |_| {
        shut.pass();
        Ok(())
    });
    let pipeline = Pipeline::builder(set()).sink(sink.clone()).queue_bytes(1 << 20).start().unwrap();
    let large = "x".repeat(300 << 10);
    let mut accepted = 0;
    while pipeline.try_submit(Event::new(&format!("{accepted}"), &large)).is_ok() {
        accepted += 1;
    }
    assert_eq!(accepted, 3, "of 300 KiB in 1 MiB");
    pipeline.try_submit(Event::new("small", "")).unwrap();
    let waker = Arc::new(Waker::default());
    let task = Arc::clone(&waker).into();
    let mut context = std::task::Context::from_waker(&task);
    let mut ready = std::pin::pin!(pipeline.ready());
    assert!(ready.as_mut().poll(&mut context).is_pending(), "what was refused would be refused again");
    door.open();
    waker.door.pass();
    let larger = "x".repeat(2 << 20);
    let batch: Vec<String> = (0..40).map(|n| format!("b{n}")).collect();
    let events: Vec<Event<'_>> = (0..)
        .zip(&batch)
        .map(|(n, id)| {
            let payload = [&larger, "small", "small", &large, &large][n % 5];
            Event::new(id, payload).with_position("s", n as u64)
        })
        .collect();
    pipeline.submit_batch(&events).unwrap();
    let stats = pipeline.drain().unwrap();
    assert_eq!((stats.delivered, pipeline.settled("s")), (accepted + 1 + 40, Some(39)));
    let delivered = sink.delivered.lock().unwrap();
    let ids: Vec<&str> = delivered.iter().map(|(id, _)| id.as_str()).filter(|id| id.starts_with('b')).collect();
    assert_eq!(ids, batch, "in order");
    assert!(delivered.iter().filter(|(id, _)| *id == "b0").all(|(_, payload)| payload.len() == 2 << 20));
}

/// What is out keeps its bytes until it is committed, which would be tomorrow.
#[test]
fn who_waits_for_bytes_does_not_wait_for_the_interval() {
    let dir = tempfile::tempdir().unwrap();
    let day = Duration::from_secs(24 * 3600);
    let dedup = Deduplicator::builder().durability(Durability::Interval(day)).open(dir.path().join("state")).unwrap();
    let sink = NdjsonSink::file(dir.path().join("out")).unwrap();
    let pipeline = Pipeline::builder(dedup).sink(sink).queue_bytes(1 << 20).start().unwrap();
    let (large, larger) = ("x".repeat(300 << 10), "x".repeat(2 << 20));
    for n in 0..20 {
        pipeline.submit(Event::new(&format!("large {n}"), &large)).unwrap();
        if n % 5 == 4 {
            pipeline.submit(Event::new(&format!("larger {n}"), &larger)).unwrap();
        }
    }
    assert_eq!(pipeline.drain().unwrap().delivered, 24);
}

/// Opens a door when it is woken.
#[derive(Default)]
struct Waker {
    door: Door,
}

impl std::task::Wake for Waker {
    fn wake(self: Arc<Self>) {
        self.door.open();
    }
}

#[test]
fn what_comes_after_the_drain_began_is_refused() {
    let pipeline = Pipeline::builder(set()).sink(Recorder::default()).start().unwrap();
    let mut producer = pipeline.producer();
    producer.submit(Event::new("a", "")).unwrap();
    assert_eq!(pipeline.drain().unwrap().delivered, 1);
    assert_eq!(pipeline.submit(Event::new("b", "")), Err(SubmitError::Closed));
    assert_eq!(producer.submit(Event::new("b", "")), Err(SubmitError::Closed));
    let refused = producer.submit_batch(&[Event::new("b", ""), Event::new("c", "")]).unwrap_err();
    assert_eq!((refused.refused, refused.reason), (vec![0, 1], SubmitError::Closed));
    assert_eq!(producer.try_submit(Event::new("b", "")).unwrap_err().event.id(), b"b");
}

#[test]
fn a_failed_event_is_tried_again_alone_and_its_repeats_wait_for_it() {
    let door = Door::default();
    let shut = door.clone();
    let sink = Recorder::default()
        .then(|batch| {
            let index = batch.iter().position(|event| event.id() == b"b").unwrap();
            Err(SinkError::new([(index, FailureClass::Transient)]))
        })
        .then(move |batch| {
            shut.pass();
            assert_eq!(batch.iter().map(Event::payload).collect::<Vec<_>>(), [b"first"]);
            Ok(())
        });
    let dedup = set();
    let pipeline = Pipeline::builder(dedup.clone()).sink(sink.clone()).start().unwrap();
    let (settled, log) = (Arc::new(Mutex::new(Vec::new())), Arc::default());
    let note = |name: &'static str| {
        let settled: Arc<Mutex<Vec<_>>> = Arc::clone(&settled);
        move |outcome| settled.lock().unwrap().push((name, outcome))
    };
    let _: &Arc<AtomicU64> = &log;
    pipeline.submit_batch(&[Event::new("a", "first"), Event::new("b", "first"), Event::new("c", "first")]).unwrap();
    while sink.tries.load(Ordering::Relaxed) < 2 {
        std::thread::yield_now();
    }
    // The second try is under way: a repeat must not be taken for new, nor be called a duplicate yet.
    pipeline.submit_with(Event::new("b", "repeat"), note("repeat")).unwrap();
    assert!(dedup.contains("a") && dedup.contains("b"));
    door.open();
    let stats = pipeline.drain().unwrap();
    assert_eq!(*settled.lock().unwrap(), [("repeat", Settled::Duplicate)]);
    assert_eq!(sink.ids().concat(), "acb");
    assert_eq!((stats.delivered, stats.duplicate, stats.failed_attempts), (3, 1, 1));
}

#[test]
fn an_event_that_no_sink_takes_is_handed_back_and_a_repeat_takes_its_place() {
    let refuse = |batch: &[Event<'_>]| Err(SinkError::rest(0..batch.len(), FailureClass::Permanent));
    let sink = Recorder::default().then(refuse);
    let dedup = set();
    let pipeline = Pipeline::builder(dedup.clone()).sink(sink.clone()).start().unwrap();
    pipeline.submit_batch(&[Event::new("a", "one"), Event::new("a", "two"), Event::new("b", "three")]).unwrap();
    let error = pipeline.drain().unwrap_err();
    let back: Vec<_> = error.unfinished.iter().map(|event| event.as_event().payload().to_vec()).collect();
    assert_eq!(back, [b"one".to_vec(), b"three".to_vec()]);
    assert_eq!(*sink.delivered.lock().unwrap(), [("a".to_owned(), "two".to_owned())]);
    assert!(dedup.contains("a") && !dedup.contains("b"));
}

#[test]
fn an_event_that_no_sink_takes_goes_to_the_dead_letter() {
    let sink = Recorder::default().then(|_| Err(SinkError::new([(0, FailureClass::Permanent)])));
    let dead = Recorder::default().then(|_| Err(SinkError::new([(0, FailureClass::Transient)])));
    let dedup = set();
    let pipeline = Pipeline::builder(dedup.clone()).sink(sink.clone()).dead_letter(dead.clone()).start().unwrap();
    let (outcome, told) = std::sync::mpsc::channel();
    let tell = move |settled| outcome.send(settled).unwrap();
    pipeline.submit_with(Event::new("a", "one").with_position("s", 3), tell).unwrap();
    pipeline.submit_batch(&[Event::new("b", "two"), Event::new("a", "again")]).unwrap();
    let stats = pipeline.drain().unwrap();
    assert_eq!((stats.delivered, stats.dead_lettered, stats.duplicate), (1, 1, 1));
    assert_eq!((dead.ids().concat(), sink.ids().concat()), ("a".to_owned(), "b".to_owned()));
    assert_eq!(told.recv(), Ok(Settled::DeadLettered));
    assert_eq!(pipeline.settled("s"), Some(3));
    assert!(dedup.contains("a"));
}

#[test]
fn a_slow_sink_does_not_hold_back_the_others_and_settles_last() {
    let door = Door::default();
    let shut = door.clone();
    let slow = Recorder::default().then(move |_| {
        shut.pass();
        Ok(())
    });
    let fast = Recorder::default();
    let pipeline = Pipeline::builder(set()).sink(fast.clone()).sink(slow.clone()).start().unwrap();
    for position in 0..3 {
        pipeline.submit(Event::new(&format!("{position}"), "").with_position("s", position)).unwrap();
        while fast.ids().len() as u64 <= position {
            std::thread::yield_now();
        }
    }
    assert_eq!((slow.ids().len(), pipeline.settled("s")), (0, None));
    door.open();
    pipeline.drain().unwrap();
    assert_eq!((slow.ids().len(), pipeline.settled("s")), (3, Some(2)));
}

#[test]
fn only_the_sink_that_failed_gets_an_event_again() {
    let one = Recorder::default().then(|batch| Err(SinkError::rest(0..batch.len(), FailureClass::Transient)));
    let two = Recorder::default();
    let pipeline = Pipeline::builder(set()).sink(one.clone()).sink(two.clone()).workers(2).start().unwrap();
    pipeline.submit_batch(&["a", "b", "c", "d"].map(|id| Event::new(id, ""))).unwrap();
    pipeline.drain().unwrap();
    for sink in [one, two] {
        let mut ids = sink.ids();
        ids.sort();
        assert_eq!(ids.concat(), "abcd");
    }
}

#[test]
fn a_sink_of_several_instances_gets_all_of_an_id_in_one() {
    let all: Arc<Mutex<Vec<Recorder>>> = Arc::default();
    let made = Arc::clone(&all);
    let factory = move || {
        let sink = Recorder::default();
        made.lock().unwrap().push(sink.clone());
        sink
    };
    for (workers, instances) in [(1, 3), (2, 2), (2, 3)] {
        all.lock().unwrap().clear();
        let pipeline = Pipeline::builder(set()).sink_with(factory.clone(), instances).workers(workers).start().unwrap();
        for n in 0..1_000 {
            pipeline.submit(Event::new(&format!("{}", n % 500), "")).unwrap();
        }
        pipeline.drain().unwrap();
        let sinks = all.lock().unwrap();
        let mut by_id: HashMap<String, usize> = HashMap::new();
        for id in sinks.iter().flat_map(Recorder::ids) {
            *by_id.entry(id).or_default() += 1;
        }
        assert_eq!((by_id.len(), by_id.values().max()), (500, Some(&1)));
        assert!(sinks.iter().all(|sink| sink.ids().len() > 50), "{workers} workers, {instances} instances");
    }
}

#[test]
fn a_panic_in_a_sink_poisons_its_worker_and_everything_comes_back() {
    for lanes in [false, true] {
        let sink = Recorder::default().then(|_| Ok(())).then(|_| panic!("on purpose"));
        let dedup = set();
        let builder = Pipeline::builder(dedup.clone()).sink(sink.clone());
        let builder = if lanes { builder.sink(Recorder::default()) } else { builder };
        let pipeline = builder.start().unwrap();
        pipeline.submit(Event::new("good", "")).unwrap();
        while sink.ids().is_empty() {
            std::thread::yield_now();
        }
        let mut accepted = 0;
        while pipeline.submit(Event::new(&format!("{accepted}"), "")).is_ok() {
            accepted += 1;
        }
        assert_eq!(pipeline.submit(Event::new("x", "")), Err(SubmitError::Poisoned));
        let error = pipeline.drain().unwrap_err();
        assert!(error.to_string().contains("on purpose"), "{error}");
        let mut back: Vec<u32> = error
            .unfinished
            .iter()
            .map(|event| std::str::from_utf8(event.as_event().id()).unwrap())
            .filter(|id| *id != "good")
            .map(|id| id.parse().unwrap())
            .collect();
        back.sort_unstable();
        assert_eq!(back, (0..accepted).collect::<Vec<_>>());
        assert!(!dedup.contains("0"), "an ID whose event came back must not be known");
    }
}

#[test]
fn a_shutdown_returns_what_a_stuck_sink_and_the_queue_hold() {
    let door = Door::default();
    let shut = door.clone();
    let sink = Recorder::default().then(move |_| {
        shut.pass();
        Ok(())
    });
    let dedup = set();
    let pipeline = Pipeline::builder(dedup.clone()).sink(sink.clone()).start().unwrap();
    pipeline.submit(Event::new("stuck", "")).unwrap();
    while sink.tries.load(Ordering::Relaxed) == 0 {
        std::thread::yield_now();
    }
    let mut producer = pipeline.producer();
    producer.submit(Event::new("waiting", "1")).unwrap();
    pipeline.submit(Event::new("waiting too", "2")).unwrap();
    let error = pipeline.shutdown(Duration::from_millis(20)).unwrap_err();
    let mut back: Vec<_> = error.unfinished.iter().map(|event| event.as_event().id().to_vec()).collect();
    back.sort();
    assert_eq!(back, [b"stuck".to_vec(), b"waiting".to_vec(), b"waiting too".to_vec()]);
    door.open();
    drop(pipeline);
    assert!(!dedup.contains("waiting"));
}

#[test]
fn a_sink_that_keeps_failing_does_not_keep_a_shutdown() {
    struct Never;
    impl Sink for Never {
        fn deliver(&mut self, batch: &[Event<'_>]) -> Result<(), SinkError> {
            Err(SinkError::rest(0..batch.len(), FailureClass::Defer(Duration::from_secs(600))))
        }
    }
    let dedup = set();
    let pipeline = Pipeline::builder(dedup.clone()).sink(Never).start().unwrap();
    pipeline.submit_batch(&[Event::new("a", "one"), Event::new("a", "two"), Event::new("b", "three")]).unwrap();
    let error = pipeline.shutdown(Duration::from_millis(50)).unwrap_err();
    assert_eq!(error.unfinished.len(), 3, "{error:?}");
    assert!(!dedup.contains("a") && !dedup.contains("b"));
}

#[test]
fn a_panicking_callback_is_reported_and_the_event_stays_delivered() {
    let sink = Recorder::default();
    let pipeline = Pipeline::builder(set()).sink(sink.clone()).start().unwrap();
    pipeline.submit_with(Event::new("a", ""), |_| panic!("on purpose")).unwrap();
    let error = pipeline.drain().unwrap_err();
    assert!(error.unfinished.is_empty() && error.failures[0].contains("on purpose"), "{error:?}");
    assert_eq!(sink.ids(), ["a"]);
}

#[test]
fn a_repeat_of_an_id_that_somebody_else_holds_waits_for_it() {
    for is_committed in [true, false] {
        let dedup = set();
        let held = dedup.reserve_batch(&["a"]).unwrap();
        let sink = Recorder::default();
        let pipeline = Pipeline::builder(dedup.clone()).sink(sink.clone()).start().unwrap();
        pipeline.submit(Event::new("a", "")).unwrap();
        while pipeline.stats().attached == 0 {
            assert!(pipeline.stats().balances());
            std::thread::yield_now();
        }
        if is_committed {
            held.commit().unwrap()
        } else {
            drop(held)
        }
        let stats = pipeline.drain().unwrap();
        assert_eq!((stats.duplicate, stats.delivered), if is_committed { (1, 0) } else { (0, 1) });
    }
}

#[test]
fn too_many_held_events_make_the_intake_wait() {
    let door = Door::default();
    let shut = door.clone();
    struct Failing(Door, Arc<AtomicUsize>, bool);
    impl Sink for Failing {
        fn deliver(&mut self, batch: &[Event<'_>]) -> Result<(), SinkError> {
            self.1.fetch_add(batch.len(), Ordering::Relaxed);
            if self.2 {
                return Ok(());
            }
            self.2 = *self.0.0.0.lock().unwrap();
            Err(SinkError::rest(0..batch.len(), FailureClass::Transient))
        }
    }
    let tries = Arc::new(AtomicUsize::new(0));
    let sink = Failing(shut, Arc::clone(&tries), false);
    let pipeline = Pipeline::builder(set()).sink(sink).queue_events(8).held(16, 1 << 20).start().unwrap();
    let mut accepted = 0_u64;
    while pipeline.stats().intake_waits == 0 || pipeline.try_submit(Event::new(&accepted.to_string(), "")).is_ok() {
        if pipeline.try_submit(Event::new(&format!("more {accepted}"), "")).is_ok() {
            accepted += 1;
        }
        assert!(accepted < 1_000, "there is no bound");
    }
    let stats = pipeline.stats();
    assert!(stats.balances() && stats.in_flight <= 16 + 8 + 8, "{stats:?}");
    door.open();
    let stats = pipeline.drain().unwrap();
    assert!(stats.delivered >= accepted, "{stats:?}");
}

#[test]
fn settled_positions_of_several_producers_and_workers_end_at_the_last() {
    let pipeline = Arc::new(Pipeline::builder(set()).sink(Recorder::default()).workers(2).start().unwrap());
    let threads: Vec<_> = (0..4_u64)
        .map(|source| {
            let pipeline = Arc::clone(&pipeline);
            std::thread::spawn(move || {
                let mut producer = pipeline.producer();
                let mut last = None;
                for position in 0..5_000_u64 {
                    let id = format!("{}", position % 700);
                    producer.submit(Event::new(&id, "").with_position(source, position)).unwrap();
                    let settled = pipeline.settled(source);
                    assert!(settled >= last && settled <= Some(position), "{settled:?} after {last:?}");
                    last = settled;
                }
            })
        })
        .collect();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    let stats = pipeline.drain().unwrap();
    assert_eq!((stats.delivered, stats.duplicate), (700, 4 * 5_000 - 700));
    for source in 0..4_u64 {
        assert_eq!(pipeline.settled(source), Some(4_999));
    }
}

#[test]
fn a_delivery_mode_that_cannot_be_had_is_refused() {
    let error = Pipeline::builder(set()).sink(Recorder::default()).delivery(Delivery::ExactlyOnce).start().unwrap_err();
    assert_eq!(error.code(), "delivery");
    assert_eq!(Pipeline::builder(set()).start().unwrap_err().code(), "no_sink");
    let pipeline = Pipeline::builder(set()).sink(Recorder::default()).start().unwrap();
    assert_eq!(pipeline.delivery(), Delivery::AtLeastOnce);
}

#[test]
fn at_most_once_commits_a_whole_batch_before_it_is_delivered() {
    let dedup = Deduplicator::builder().expected_ids(100_000).build().unwrap();
    let (sink, known) = (Recorder::default(), Arc::new(AtomicUsize::new(0)));
    let (set, counted) = (dedup.clone(), Arc::clone(&known));
    let sink = sink.then(move |batch| {
        counted.fetch_add(
            batch.iter().filter(|event| set.stats().pending_ids == 0 && set.contains(event.id())).count(),
            Ordering::Relaxed,
        );
        Ok(())
    });
    let pipeline = Pipeline::builder(dedup).sink(sink.clone()).delivery(Delivery::AtMostOnce).start().unwrap();
    let ids: Vec<String> = (0..200).map(|n| format!("{n}")).collect();
    let events: Vec<Event<'_>> = ids.iter().map(|id| Event::new(id, "")).collect();
    pipeline.submit_batch(&events).unwrap();
    assert_eq!(pipeline.drain().unwrap().delivered, 200);
    assert_eq!(sink.ids(), ids);
    assert!(known.load(Ordering::Relaxed) > 0, "not marked before the sink had them");
}

#[test]
fn a_dropped_pipeline_marks_nothing_that_is_not_delivered() {
    let dedup = set();
    let sink = Recorder::default().then(|batch| Err(SinkError::rest(0..batch.len(), FailureClass::Auth)));
    let pipeline = Pipeline::builder(dedup.clone()).sink(sink.clone()).start().unwrap();
    pipeline.submit(Event::new("a", "")).unwrap();
    while sink.tries.load(Ordering::Relaxed) == 0 {
        std::thread::yield_now();
    }
    drop(pipeline);
    assert!(!dedup.contains("a"));
}

#[test]
fn a_sink_that_refuses_an_event_for_good_does_not_keep_it_from_the_others() {
    let refuses = Recorder::default().then(|_| Err(SinkError::new([(0, FailureClass::Permanent)])));
    let late = Recorder::default().then(|_| Err(SinkError::new([(0, FailureClass::Transient)])));
    let dead = Recorder::default();
    let builder = Pipeline::builder(set()).sink(refuses.clone()).sink(late.clone());
    let pipeline = builder.dead_letter(dead.clone()).start().unwrap();
    pipeline.submit(Event::new("a", "one")).unwrap();
    let stats = pipeline.drain().unwrap();
    assert_eq!((stats.delivered, stats.dead_lettered, stats.failed_attempts), (0, 1, 2));
    assert_eq!((refuses.ids(), late.ids(), dead.ids()), (vec![], vec!["a".to_owned()], vec!["a".to_owned()]));
}

#[test]
fn a_lone_event_is_not_kept_waiting_by_a_producer_that_never_stops() {
    let sink = Recorder::default();
    let pipeline = Pipeline::builder(set()).sink(sink.clone()).queue_events(512).start().unwrap();
    let has_come = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut producer = pipeline.producer();
            let payload = "x".repeat(1_000);
            let mut number = 0_u64;
            while !has_come.load(Ordering::Relaxed) {
                producer.submit(Event::new(&(number % 1_000).to_string(), &payload)).unwrap();
                number += 1;
            }
        });
        let (told, settled) = std::sync::mpsc::channel();
        let mut producer = pipeline.producer();
        producer.submit_with(Event::new("lone", ""), move |_| told.send(()).unwrap()).unwrap();
        let arrived = settled.recv_timeout(Duration::from_secs(60));
        has_come.store(true, Ordering::Relaxed);
        assert_eq!(arrived, Ok(()));
    });
    pipeline.drain().unwrap();
}

#[test]
fn the_same_id_with_another_payload_is_what_the_set_says() {
    use dedupd::OnConflict;
    let expected = [
        (OnConflict::Ignore, "x", "", (6, 0)),
        (OnConflict::Count, "x", "", (6, 5)),
        (OnConflict::Pass, "xyz", "", (6, 2)),
        (OnConflict::Divert, "x", "yz", (6, 2)),
    ];
    for (on_conflict, delivered, diverted, books) in expected {
        for one_by_one in [true, false] {
            // The first try fails: what comes meanwhile is attached, and judged once the first is delivered.
            let sink = Recorder::default().then(|batch| Err(SinkError::rest(0..batch.len(), FailureClass::Transient)));
            let dead = Recorder::default();
            let dedup = Deduplicator::builder().on_conflict(on_conflict).build().unwrap();
            let pipeline = Pipeline::builder(dedup).sink(sink.clone()).dead_letter(dead.clone()).start().unwrap();
            let events = ["x", "y", "x", "y", "z", "y", "z"].map(|payload| Event::new("a", payload));
            if one_by_one {
                events.iter().for_each(|event| pipeline.submit(*event).unwrap());
            } else {
                pipeline.submit_batch(&events).unwrap();
            }
            let stats = pipeline.drain().unwrap();
            let payloads = |sink: &Recorder| {
                let mut all: Vec<_> =
                    sink.delivered.lock().unwrap().iter().map(|(_, payload)| payload.clone()).collect();
                assert!(all.is_empty() || all[0] == "x" || all[0] == "y", "{all:?}");
                all.sort();
                all.concat()
            };
            assert_eq!((payloads(&sink).as_str(), payloads(&dead).as_str()), (delivered, diverted), "{on_conflict}");
            assert_eq!((stats.duplicate, stats.conflicts), books, "{on_conflict}: {stats:?}");
            assert_eq!((stats.delivered, stats.attached), (1, 0), "{on_conflict}");
            assert!(stats.balances());
        }
    }
}

#[test]
fn a_pipeline_whose_set_diverts_conflicts_needs_a_dead_letter() {
    let dedup = Deduplicator::builder().on_conflict(dedupd::OnConflict::Divert).build().unwrap();
    assert_eq!(Pipeline::builder(dedup).sink(Recorder::default()).start().unwrap_err().code(), "no_dead_letter");
}
