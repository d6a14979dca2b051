//! Latency from the time at which an event was due to its delivery, at a fixed rate.
//!
//! The sender submits each event when it is due and never waits for the one before: when it falls behind, the events that
//! are late count from when they were due, so that a stall is in the numbers as often as it would be felt.

use std::hint::spin_loop;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use crossbeam::channel;
use dedupd::sink::{Sink, SinkError};
use dedupd::{Deduplicator, Event, Pipeline, WaitStrategy};
use hdrhistogram::Histogram;

use crate::rows::id;

/// Events per second.
const RATES: [u64; 2] = [100_000, 1_000_000];
const STRATEGIES: [WaitStrategy; 3] = [WaitStrategy::Park, WaitStrategy::Yield, WaitStrategy::Spin];
const LASTS: Duration = Duration::from_secs(2);
const PAYLOAD_BYTES: usize = 200;
const WAITING_MAX: usize = 1 << 14;

/// How many new ids all rounds need.
pub fn ids(rounds: usize) -> usize {
    rounds * STRATEGIES.len() * RATES.iter().sum::<u64>() as usize * LASTS.as_secs() as usize
}

/// Prints a row for each rate and strategy, all rounds together. `dedup` knows no id from number `first` on.
pub fn latency(dedup: &Deduplicator, mut first: u64, rounds: usize) {
    for per_second in RATES {
        let events = per_second * LASTS.as_secs();
        let mut ours = STRATEGIES.map(|_| latencies());
        let mut bare = latencies();
        for _ in 0..rounds {
            for (wait, ours) in STRATEGIES.into_iter().zip(&mut ours) {
                ours.add(pipeline(dedup, wait, first, per_second, events)).unwrap();
                first += events;
            }
            bare.add(channel_alone(per_second, events)).unwrap();
        }
        for (wait, ours) in STRATEGIES.into_iter().zip(&ours) {
            assert_eq!(ours.len(), bare.len(), "everything was delivered");
            print(per_second, wait, ours, &bare);
        }
    }
}

fn print(per_second: u64, wait: WaitStrategy, ours: &Histogram<u64>, bare: &Histogram<u64>) {
    let show = |histogram: &Histogram<u64>| {
        let micros = |nanos: u64| nanos as f64 / 1e3;
        let at = |quantile| micros(histogram.value_at_quantile(quantile));
        let max = micros(histogram.max());
        format!("p50 {:.1} p99 {:.1} p99.9 {:.1} max {max:.0}", at(0.5), at(0.99), at(0.999))
    };
    let ratio = bare.value_at_quantile(0.99) as f64 / ours.value_at_quantile(0.99) as f64;
    println!(
        "| due to delivered, {} k events/s, `{}`, µs; p99 of a crossbeam channel alone over it | {} | {} | {ratio:.2} | 0.00 |",
        per_second / 1000,
        wait.as_str(),
        show(ours),
        show(bare)
    );
}

fn pipeline(dedup: &Deduplicator, wait: WaitStrategy, first: u64, per_second: u64, events: u64) -> Histogram<u64> {
    let start = Instant::now() + Duration::from_millis(10);
    let total = Arc::new(Mutex::new(latencies()));
    let sink = Timed { start, latencies: latencies(), total: Arc::clone(&total) };
    let pipeline = Pipeline::builder(dedup.clone()).sink(sink).wait_strategy(wait).start().unwrap();
    let (mut producer, mut payload) = (pipeline.producer(), [7; PAYLOAD_BYTES]);
    each_due(start, per_second, events, |n, due| {
        payload[..8].copy_from_slice(&due.to_le_bytes());
        producer.submit(Event::new(&id(first + n), &payload)).unwrap();
    });
    pipeline.drain().unwrap();
    let total = total.lock().unwrap();
    total.clone()
}

/// The least that two threads and a queue between them cost.
fn channel_alone(per_second: u64, events: u64) -> Histogram<u64> {
    let start = Instant::now() + Duration::from_millis(10);
    let (sender, receiver) = channel::bounded::<u64>(WAITING_MAX);
    let consumer = thread::spawn(move || {
        let mut latencies = latencies();
        receiver.iter().for_each(|due| record(&mut latencies, start, due));
        latencies
    });
    each_due(start, per_second, events, |_, due| sender.send(due).unwrap());
    drop(sender);
    consumer.join().unwrap()
}

/// Calls `send` with the number of each event and when it is due, in nanoseconds from `start`, as soon as it is due.
fn each_due(start: Instant, per_second: u64, events: u64, mut send: impl FnMut(u64, u64)) {
    for n in 0..events {
        let due = n * 1_000_000_000 / per_second;
        while Instant::now() < start + Duration::from_nanos(due) {
            spin_loop();
        }
        send(n, due);
    }
}

/// Records when the events that it is given were due.
struct Timed {
    start: Instant,
    latencies: Histogram<u64>,
    total: Arc<Mutex<Histogram<u64>>>,
}

impl Sink for Timed {
    fn deliver(&mut self, batch: &[Event<'_>]) -> Result<(), SinkError> {
        for event in batch {
            let due = u64::from_le_bytes(*event.payload().first_chunk().unwrap());
            record(&mut self.latencies, self.start, due);
        }
        Ok(())
    }
}

impl Drop for Timed {
    fn drop(&mut self) {
        self.total.lock().unwrap().add(&self.latencies).unwrap();
    }
}

fn record(latencies: &mut Histogram<u64>, start: Instant, due: u64) {
    latencies.saturating_record(start.elapsed().as_nanos() as u64 - due);
}

fn latencies() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 60_000_000_000, 3).unwrap()
}
