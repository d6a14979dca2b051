//! Pipelines on sets with limits: what is reserved may not fill the set, or events would be refused that there is room for.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use dedupd::pipeline::PipelineStats;
use dedupd::sink::{ClosureSink, Durable, FailureClass, Guarantees, Idempotency, Order, Sink, SinkError};
use dedupd::{Deduplicator, Durability, Event, OnConflict, Pipeline, WhenFull};

const EVENTS: u64 = 20_000;

/// Submits so many events, each ID once.
fn submit_all(pipeline: &Pipeline) {
    let mut producer = pipeline.producer();
    for number in 0..EVENTS {
        producer.submit(Event::new(&number.to_le_bytes(), &number.to_le_bytes())).unwrap();
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
fn nothing_is_refused_under_a_limit_of_memory() {
    let dedup = Deduplicator::builder().max_memory(64 << 10).build().unwrap();
    let pipeline = Pipeline::builder(dedup).sink(ClosureSink::new(|_: &[Event<'_>]| Ok(()))).start().unwrap();
    submit_all(&pipeline);
    assert_all_delivered(&pipeline.drain().unwrap(), "64 KiB");
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
    let dir = tempfile::tempdir().unwrap();
    let builder = Deduplicator::builder().max_ids(1_000).durability(Durability::Interval(Duration::from_secs(3600)));
    let pipeline = Pipeline::builder(builder.open(dir.path()).unwrap()).sink(Buffered).start().unwrap();
    submit_all(&pipeline);
    assert_all_delivered(&pipeline.drain().unwrap(), "an hour");
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
    let builder = Deduplicator::builder().max_ids(200);
    let sink = Reluctant { tries: Arc::default() };
    let pipeline = Pipeline::builder(builder.build().unwrap()).sink(sink).start().unwrap();
    submit_all(&pipeline);
    let stats = pipeline.drain().unwrap();
    assert_all_delivered(&stats, "tried again");
    assert!(stats.failed_attempts > 0);
}
