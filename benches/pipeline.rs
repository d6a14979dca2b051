//! Prints one table: what a pipeline costs from submission to sink, beside the set alone and beside what one writes by hand.
//!
//! As in `table`: every row is a ratio of two things measured in the same run, in turns, and the median of the rounds'
//! ratios is printed. A set knows 14 million ids; 4 million events with 200-byte payloads come on top, 30 % of them repeats
//! of an earlier one. What a sink was given is compared with what it had to be given, each time. Nothing is kept on disk.
//!
//! The rows of latency are open-loop: events are due at a rate, whether the pipeline keeps up or not, and each one's time
//! runs from when it was due. `cargo bench --bench pipeline -- --rounds 5`; `--only throughput` or `--only latency`.

use std::collections::HashMap;
use std::sync::mpsc;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use dedupd::sink::{Sink, SinkError};
use dedupd::{Deduplicator, Event, IdHash, Pipeline, SystemClock};

mod open_loop;
mod rows;

use rows::{BATCH, Id, Rows, argument, ask, id, questions, rate};

const LIVE: usize = 14_000_000;
/// How many of the events are new.
const NEW: usize = 2_800_000;
const PAYLOAD_BYTES: usize = 200;
/// Events in one call of `submit_batch`.
const SUBMITTED: usize = 256;
/// What may wait in the channel that one writes by hand: as much as in a pipeline by default.
const WAITING_MAX: usize = 1 << 14;
const WINDOW: Duration = Duration::from_secs(24 * 3600);

fn main() {
    let rounds = argument("--rounds").unwrap_or(3);
    let only = std::env::args().skip_while(|argument| argument != "--only").nth(1);
    let wants = |what: &str| only.as_deref().is_none_or(|only| only == what);
    println!("| what | dedupd | beside | ratio | floor |\n|---|---|---|---|---|");
    if wants("throughput") {
        let (work, mut rows) = (Work::new(), Rows::default());
        (0..rounds).for_each(|_| throughput(&work, &mut rows));
        rows.print();
    }
    if wants("latency") {
        open_loop::latency(&filled(LIVE + open_loop::ids(rounds)), LIVE as u64, rounds);
    }
}

fn throughput(work: &Work, rows: &mut Rows) {
    let alone = alone(work);
    let one = one_by_one(work);
    let batched = batched(work);
    let by_hand = by_hand(work);
    let two = two_and_two(work);
    let bare = without_a_producer(work);
    rows.add("`Producer::submit` to a sink, 1 worker, against `observe_batch` alone", one, alone, 0.6);
    rows.add("the same by `submit_batch` of 256", batched, alone, 0.6);
    rows.add("`Producer::submit`, against `mpsc` and a thread with a `HashMap<Vec<u8>, Instant>`", one, by_hand, 8.0);
    rows.add("2 producers and 2 workers, against 1 and 1", two, one, 0.0);
    rows.add("`Pipeline::submit` without a producer, against with one", bare, one, 0.0);
}

fn alone(work: &Work) -> f64 {
    let dedup = filled(LIVE + NEW);
    rate(work.ids.len(), || assert_eq!(ask(&dedup, &work.ids), NEW))
}

fn one_by_one(work: &Work) -> f64 {
    work.rate(1, |pipeline| {
        let mut producer = pipeline.producer();
        for id in &work.ids {
            producer.submit(work.event(id)).unwrap();
        }
    })
}

fn batched(work: &Work) -> f64 {
    work.rate(1, |pipeline| {
        let (mut producer, mut events) = (pipeline.producer(), Vec::with_capacity(SUBMITTED));
        for ids in work.ids.chunks(SUBMITTED) {
            events.clear();
            events.extend(ids.iter().map(|id| work.event(id)));
            producer.submit_batch(&events).unwrap();
        }
    })
}

fn two_and_two(work: &Work) -> f64 {
    work.rate(2, |pipeline| {
        thread::scope(|scope| {
            for half in work.ids.chunks(work.ids.len().div_ceil(2)) {
                let mut producer = pipeline.producer();
                scope.spawn(move || half.iter().for_each(|id| producer.submit(work.event(id)).unwrap()));
            }
        });
    })
}

fn without_a_producer(work: &Work) -> f64 {
    work.rate(1, |pipeline| work.ids.iter().for_each(|id| pipeline.submit(work.event(id)).unwrap()))
}

/// What one writes without a library: a channel, and a thread that knows what it has seen.
fn by_hand(work: &Work) -> f64 {
    let mut seen: HashMap<Vec<u8>, Instant> = HashMap::with_capacity(LIVE + NEW);
    let filled_at = Instant::now();
    seen.extend((0..LIVE as u64).map(|n| (id(n).to_vec(), filled_at)));
    let total = Total::default();
    let mut sink = Count::new(&total);
    let (sender, receiver) = mpsc::sync_channel::<(Vec<u8>, Vec<u8>)>(WAITING_MAX);
    let rate = rate(work.ids.len(), || {
        let worker = thread::spawn(move || {
            for (id, payload) in receiver {
                let now = Instant::now();
                let is_duplicate = seen.get(&id).is_some_and(|first| now.duration_since(*first) < WINDOW);
                if !is_duplicate {
                    sink.deliver(&[Event::new(&id, &payload)]).unwrap();
                    seen.insert(id, now);
                }
            }
            // Handed back: freeing millions of ids is not what is measured.
            seen
        });
        for id in &work.ids {
            sender.send((id.to_vec(), work.event(id).payload().to_vec())).unwrap();
        }
        drop(sender);
        let _ = worker.join().unwrap();
    });
    assert_eq!(*total.lock().unwrap(), work.due, "by hand");
    rate
}

/// The events, and what a sink must be given of them.
struct Work {
    ids: Vec<Id>,
    payloads: Vec<u8>,
    due: Counted,
}

impl Work {
    fn new() -> Self {
        // From the first of the new ids on; those before it are what is known by then.
        let mut all = questions(LIVE + NEW, 1 << 40);
        let first = all.iter().position(|question| *question == id(LIVE as u64)).unwrap();
        let ids = all.split_off(first);
        let payloads = (0..1024 * PAYLOAD_BYTES).map(|n| rows::mix(n as u64) as u8).collect();
        let mut work = Self { ids, payloads, due: Counted::default() };
        let mut due = Counted::default();
        (LIVE..LIVE + NEW).for_each(|n| due.add(&work.event(&id(n as u64))));
        work.due = due;
        work
    }

    /// The payload follows from the ID, so whichever copy of an event is delivered, the sum is the same.
    fn event<'a>(&'a self, id: &'a Id) -> Event<'a> {
        let start = usize::from(u16::from_le_bytes([id[0], id[1]]) % 1024) * PAYLOAD_BYTES;
        Event::new(id, &self.payloads[start..start + PAYLOAD_BYTES])
    }

    /// Millions of events per second from submission to the end of a drain.
    fn rate(&self, workers: usize, submit: impl FnOnce(&Pipeline)) -> f64 {
        let total = Total::default();
        let builder = Pipeline::builder(filled(LIVE + NEW)).workers(workers);
        let pipeline = builder.sink_with(|| Count::new(&total), workers).start().unwrap();
        let rate = rate(self.ids.len(), || {
            submit(&pipeline);
            let stats = pipeline.drain().unwrap();
            assert_eq!((stats.read, stats.delivered), (self.ids.len() as u64, NEW as u64));
        });
        assert_eq!(*total.lock().unwrap(), self.due, "the pipeline");
        rate
    }
}

/// What was delivered.
#[derive(Clone, Copy, Default, Debug, PartialEq, Eq)]
struct Counted {
    events: u64,
    bytes: u64,
    /// Of the first bytes of payloads.
    sum: u64,
}

impl Counted {
    fn add(&mut self, event: &Event<'_>) {
        self.events += 1;
        self.bytes += (event.id().len() + event.payload().len()) as u64;
        self.sum += u64::from(event.payload()[0]);
    }
}

type Total = Arc<Mutex<Counted>>;

/// Counts what it is given, and adds it to a total when it is dropped.
struct Count {
    counted: Counted,
    total: Total,
}

impl Count {
    fn new(total: &Total) -> Self {
        Self { counted: Counted::default(), total: Arc::clone(total) }
    }
}

impl Sink for Count {
    fn deliver(&mut self, batch: &[Event<'_>]) -> Result<(), SinkError> {
        batch.iter().for_each(|event| self.counted.add(event));
        Ok(())
    }
}

impl Drop for Count {
    fn drop(&mut self) {
        let mut total = self.total.lock().unwrap();
        total.events += self.counted.events;
        total.bytes += self.counted.bytes;
        total.sum += self.counted.sum;
    }
}

/// A set that knows the first ids, with room for `expected`.
fn filled(expected: usize) -> Deduplicator {
    let builder = Deduplicator::builder().window(WINDOW).clock(SystemClock::new()).hash(IdHash::Xxh3);
    let dedup = builder.expected_ids(expected).build().unwrap();
    let mut known = Vec::with_capacity(BATCH);
    for first in (0..LIVE as u64).step_by(BATCH) {
        known.clear();
        known.extend((first..(first + BATCH as u64).min(LIVE as u64)).map(id));
        assert_eq!(ask(&dedup, &known), known.len());
    }
    dedup
}
