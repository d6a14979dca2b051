//! The whole pipeline under shuttle: random interleavings of all its threads, many times. A thread that sleeps for ever fails
//! the model, so its end proves the wake-ups.

use std::sync::Arc;

use super::{Pipeline, Settled, SubmitError};
use crate::dedup::Deduplicator;
use crate::event::Event;
use crate::sink::{ClosureSink, FailureClass, SinkError};
use crate::sync::{AtomicUsize, Condvar, Mutex, Ordering, thread};

type Log = Arc<Mutex<Vec<u8>>>;

fn set() -> Deduplicator {
    Deduplicator::builder().housekeeping(false).build().unwrap()
}

/// Notes the first byte of each ID.
fn sink(log: &Log) -> ClosureSink<impl FnMut(&[Event<'_>]) -> Result<(), SinkError> + Send + use<>> {
    let log = Arc::clone(log);
    ClosureSink::new(move |batch: &[Event<'_>]| {
        log.lock().unwrap().extend(batch.iter().map(|event| event.id()[0]));
        Ok(())
    })
}

fn sorted(log: &Log) -> Vec<u8> {
    let mut ids = log.lock().unwrap().clone();
    ids.sort_unstable();
    ids
}

fn explore(model: impl Fn() + Send + Sync + 'static) {
    let rounds = std::env::var("SHUTTLE_ROUNDS").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(1_000);
    let model = Arc::new(model);
    let same = Arc::clone(&model);
    shuttle::check_random(move || model(), rounds);
    shuttle::check_pct(move || same(), rounds, 3);
}

/// Two producers that share some IDs, more events than there is room for.
fn all_arrive(workers: usize, sinks: usize) {
    let logs: Vec<Log> = (0..sinks).map(|_| Log::default()).collect();
    let builder = Pipeline::builder(set()).workers(workers).queue_events(2);
    let pipeline = logs.iter().fold(builder, |builder, log| builder.sink(sink(log))).start().unwrap();
    let pipeline = Arc::new(pipeline);
    let told = Arc::new((Mutex::new(0), Condvar::new()));
    let producers: Vec<_> = [[1, 2, 1, 3], [3, 4, 5, 2]]
        .into_iter()
        .map(|ids: [u8; 4]| {
            let (pipeline, told) = (Arc::clone(&pipeline), Arc::clone(&told));
            thread::spawn(move || {
                let mut producer = pipeline.producer();
                for (position, id) in (0..).zip(ids) {
                    let told = Arc::clone(&told);
                    let event = [id];
                    let event = Event::new(&event, "").with_position(u64::from(ids[0]), position);
                    let tell = move |_| {
                        *told.0.lock().unwrap() += 1;
                        told.1.notify_all();
                    };
                    producer.submit_with(event, tell).unwrap();
                }
            })
        })
        .collect();
    producers.into_iter().for_each(|producer| producer.join().unwrap());
    // Before the drain, which wakes everybody.
    let mut all = told.0.lock().unwrap();
    while *all < 8 {
        all = told.1.wait(all).unwrap();
    }
    drop(all);
    let stats = pipeline.drain().unwrap();
    assert!(stats.balances());
    assert_eq!((stats.delivered, stats.duplicate), (5, 3));
    assert_eq!((pipeline.settled(1), pipeline.settled(3)), (Some(3), Some(3)));
    logs.iter().for_each(|log| assert_eq!(sorted(log), [1, 2, 3, 4, 5]));
}

#[test]
fn shuttle_one_worker_with_its_own_sink() {
    explore(|| all_arrive(1, 1));
}

#[test]
fn shuttle_two_workers_share_the_lanes_of_two_sinks() {
    explore(|| all_arrive(2, 2));
}

/// Each worker has one event, and both need the one lane, which has room for one: nothing but that room wakes the second.
#[test]
fn shuttle_a_worker_that_waits_for_a_lane_is_woken_by_its_room() {
    explore(|| {
        let log = Log::default();
        let pipeline = Pipeline::builder(set()).workers(2).sink(sink(&log)).start().unwrap();
        let shared = &pipeline.shared;
        let worker_of = |id: &u8| shared.worker_of(shared.dedup.fingerprint([*id]));
        let ids = [0, 1].map(|worker| (0..=255).find(|id| worker_of(id) == worker).unwrap());
        let told = Arc::new((Mutex::new(0), Condvar::new()));
        for id in ids {
            let told = Arc::clone(&told);
            let tell = move |_| {
                *told.0.lock().unwrap() += 1;
                told.1.notify_all();
            };
            pipeline.submit_with(Event::new(&[id], ""), tell).unwrap();
        }
        let mut all = told.0.lock().unwrap();
        while *all < 2 {
            all = told.1.wait(all).unwrap();
        }
        drop(all);
        assert_eq!(pipeline.drain().unwrap().delivered, 2);
    });
}

#[test]
fn shuttle_a_submit_that_races_the_drain_is_taken_or_refused() {
    explore(|| {
        let log = Log::default();
        let pipeline = Arc::new(Pipeline::builder(set()).sink(sink(&log)).queue_events(2).start().unwrap());
        let racing = Arc::clone(&pipeline);
        let producer = thread::spawn(move || {
            let taken = (1..4).filter(|id| match racing.submit(Event::new(&[*id], "")) {
                Ok(()) => true,
                Err(refused) => {
                    assert_eq!(refused, SubmitError::Closed);
                    false
                }
            });
            taken.collect::<Vec<u8>>()
        });
        let stats = pipeline.drain().unwrap();
        let taken = producer.join().unwrap();
        assert_eq!((stats.delivered as usize, sorted(&log)), (taken.len(), taken));
    });
}

#[test]
fn shuttle_repeats_wait_for_an_event_that_fails_at_first() {
    explore(|| {
        let log = Log::default();
        let (noted, mut has_failed) = (Arc::clone(&log), false);
        let failing = ClosureSink::new(move |batch: &[Event<'_>]| {
            if !std::mem::replace(&mut has_failed, true) {
                let class = FailureClass::Defer(std::time::Duration::ZERO);
                return Err(SinkError::rest(0..batch.len(), class));
            }
            noted.lock().unwrap().extend(batch.iter().map(|event| event.id()[0]));
            Ok(())
        });
        let pipeline = Arc::new(Pipeline::builder(set()).sink(failing).queue_events(2).start().unwrap());
        let duplicates = Arc::new(AtomicUsize::new(0));
        let producers: Vec<_> = (0..2)
            .map(|_| {
                let (pipeline, duplicates) = (Arc::clone(&pipeline), Arc::clone(&duplicates));
                thread::spawn(move || {
                    let tell = move |settled| {
                        duplicates.fetch_add(usize::from(settled == Settled::Duplicate), Ordering::Relaxed);
                    };
                    pipeline.submit_with(Event::new("a", ""), tell).unwrap();
                })
            })
            .collect();
        producers.into_iter().for_each(|producer| producer.join().unwrap());
        pipeline.drain().unwrap();
        assert_eq!((log.lock().unwrap().len(), duplicates.load(Ordering::Relaxed)), (1, 1));
    });
}
