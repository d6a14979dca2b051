//! Pipelines on sets with limits: what is reserved may not fill the set, or events would be refused that there is room for.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use dedupd::pipeline::{Delivery, PipelineStats};
use dedupd::sink::{ClosureSink, Durable, FailureClass, Guarantees, Idempotency, Order, Sink, SinkError};
use dedupd::{Builder, Deduplicator, Durability, Event, OnConflict, Pipeline, WhenFull};

const EVENTS: u64 = 20_000;

/// Submits so many events, each ID once. An intake that waits for ever fails the test.
fn submit_all(pipeline: &Pipeline) {
    let (mut producer, end) = (pipeline.producer(), Instant::now() + Duration::from_secs(60));
    for number in 0..EVENTS {
        while producer.try_submit(Event::new(&number.to_le_bytes(), &number.to_le_bytes())).is_err() {
            assert!(Instant::now() < end, "{:?}", pipeline.stats());
            std::thread::yield_now();
        }
    }
}

fn assert_all_delivered(stats: &PipelineStats, what: &str) {
    assert_eq!((stats.read, stats.delivered, stats.refused), (EVENTS, EVENTS, 0), "{what}: {stats:?}");
    assert!(stats.balances() && stats.first_seen == EVENTS, "{what}: {stats:?}");
}

#[test]
fn nothing_is_refused_where_the_oldest_may_be_forgotten() {
    for workers in [1, 3] {
        for max_ids in [2 * workers, 10, 100, 1_000, 10_000] {
            let builder = Deduplicator::builder().max_ids(max_ids).when_full(WhenFull::EvictOldest);
            let sink = || ClosureSink::new(|_: &[Event<'_>]| Ok(()));
            let pipeline = Pipeline::builder(builder.build().unwrap()).sink_with(sink, workers).workers(workers);
            let pipeline = pipeline.start().unwrap();
            submit_all(&pipeline);
            assert_all_delivered(&pipeline.drain().unwrap(), &format!("{max_ids} ids, {workers} workers"));
        }
    }
}

#[test]
fn nothing_is_refused_where_payloads_take_places_too() {
    let builder = Deduplicator::builder().max_ids(100).on_conflict(OnConflict::Pass);
    let sink = ClosureSink::new(|_: &[Event<'_>]| Ok(()));
    let pipeline = Pipeline::builder(builder.build().unwrap()).sink(sink).start().unwrap();
    submit_all(&pipeline);
    assert_all_delivered(&pipeline.drain().unwrap(), "with digests");
}

/// Has to be flushed before what it has is committed.
struct Buffered;

impl Sink for Buffered {
    fn deliver(&mut self, _: &[Event<'_>]) -> Result<(), SinkError> {
        Ok(())
    }

    fn guarantees(&self) -> Guarantees {
        Guarantees::new(Idempotency::None, Order::AsDelivered, Durable::AfterFlush)
    }
}

/// What is delivered waits for the flush of the interval, and keeps its reservation: when that fills the share of the set, the
/// flush comes early, and nobody waits for an hour.
#[test]
fn what_waits_for_a_flush_does_not_fill_the_set() {
    let builder = || Deduplicator::builder().durability(Durability::Interval(Duration::from_secs(3600)));
    for limit in [|builder: Builder| builder.max_ids(1_000), |builder: Builder| builder.max_memory(256 << 10)] {
        // One sink is its worker's own; two have threads of their own.
        for (sinks, workers) in [(1, 1), (2, 1), (2, 2)] {
            let dir = tempfile::tempdir().unwrap();
            let pipeline = Pipeline::builder(limit(builder()).open(dir.path()).unwrap());
            let pipeline = pipeline.workers(workers).queue_events(8_000);
            let pipeline = (0..sinks).fold(pipeline, |pipeline, _| pipeline.sink(Buffered)).start().unwrap();
            submit_all(&pipeline);
            assert_all_delivered(&pipeline.drain().unwrap(), &format!("{sinks} sinks, {workers} workers"));
        }
    }
}

/// Fails each event at its first tries.
struct Reluctant {
    tries: Arc<Mutex<u64>>,
}

impl Sink for Reluctant {
    fn deliver(&mut self, batch: &[Event<'_>]) -> Result<(), SinkError> {
        let mut tries = self.tries.lock().unwrap();
        let failing = (0..batch.len()).filter(|_| {
            *tries += 1;
            tries.is_multiple_of(3)
        });
        let failures: Vec<_> = failing.map(|index| (index, FailureClass::Defer(Duration::from_millis(1)))).collect();
        if failures.is_empty() { Ok(()) } else { Err(SinkError::new(failures)) }
    }
}

#[test]
fn what_is_tried_again_does_not_fill_the_set() {
    for sinks in [1, 2] {
        let pipeline = Pipeline::builder(Deduplicator::builder().max_ids(200).build().unwrap());
        let sink = || Reluctant { tries: Arc::default() };
        let pipeline = (0..sinks).fold(pipeline, |pipeline, _| pipeline.sink(sink())).start().unwrap();
        submit_all(&pipeline);
        let stats = pipeline.drain().unwrap();
        assert_all_delivered(&stats, "tried again");
        assert!(stats.failed_attempts > 0);
    }
}

/// Fails the first events for as long as nobody lets it go on.
struct Stuck {
    failing: usize,
    may_go_on: Arc<AtomicBool>,
    delivered: Arc<AtomicUsize>,
}

impl Sink for Stuck {
    fn deliver(&mut self, batch: &[Event<'_>]) -> Result<(), SinkError> {
        let is_stuck = |event: &Event<'_>| {
            let number = u64::from_le_bytes(event.id().try_into().unwrap());
            number < self.failing as u64 && !self.may_go_on.load(Ordering::Relaxed)
        };
        let stuck = (0..).zip(batch).filter(|(_, event)| is_stuck(event));
        let failures: Vec<_> = stuck.map(|(index, _)| (index, FailureClass::Defer(Duration::from_millis(1)))).collect();
        self.delivered.fetch_add(batch.len() - failures.len(), Ordering::Relaxed);
        if failures.is_empty() { Ok(()) } else { Err(SinkError::new(failures)) }
    }
}

/// At most once, what is held is committed, and keeps nothing of the set: the intake goes on.
#[test]
fn what_is_held_and_committed_keeps_no_share() {
    let dedup = Deduplicator::builder().max_ids(200).build().unwrap();
    let (may_go_on, delivered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let sink = Stuck { failing: 500, may_go_on: Arc::clone(&may_go_on), delivered: Arc::clone(&delivered) };
    let pipeline = Pipeline::builder(dedup).sink(sink).delivery(Delivery::AtMostOnce).start().unwrap();
    submit_all(&pipeline);
    let end = Instant::now() + Duration::from_secs(60);
    while delivered.load(Ordering::Relaxed) < EVENTS as usize - 500 {
        assert!(Instant::now() < end, "{:?}", pipeline.stats());
        std::thread::yield_now();
    }
    may_go_on.store(true, Ordering::Relaxed);
    assert_all_delivered(&pipeline.drain().unwrap(), "at most once");
}
