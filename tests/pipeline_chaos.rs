//! Chaos. Goal: whatever sinks do, no event is lost or doubled, the books balance in every snapshot, and copies of one ID keep
//! their order. Method: many producers, three sinks that stall, fail single events, deliver halves and panic, all by a seed,
//! with bounds so small that everything waits for everything; a thread that looks at the books all the time; then an audit.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use dedupd::pipeline::{DrainError, PipelineStats};
use dedupd::sink::{FailureClass, Sink, SinkError};
use dedupd::{
    Clock, Deduplicator, Durability, Event, OwnedEvent, Pipeline, Settled, SystemClock, Timestamp, WaitStrategy,
};

const PRODUCERS: u64 = 8;
const SINKS: usize = 3;

/// xorshift64*: the same for each seed.
struct Random(u64);

impl Random {
    fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 32) % limit
    }
}

/// What a sink was given, by ID: the copies, in order.
type Log = Arc<Mutex<HashMap<u64, Vec<u64>>>>;

struct Chaotic {
    random: Random,
    log: Log,
    /// Panics about once in so many batches.
    panics: Option<u64>,
    is_quiet: Arc<AtomicBool>,
}

impl Sink for Chaotic {
    fn deliver(&mut self, batch: &[Event<'_>]) -> Result<(), SinkError> {
        let is_quiet = self.is_quiet.load(Ordering::Relaxed);
        if !is_quiet && self.random.below(200) == 0 {
            std::thread::sleep(Duration::from_millis(1));
        }
        let panics = self.panics.is_some_and(|one_in| !is_quiet && self.random.below(one_in) == 0);
        let end = match self.random.below(50) {
            _ if is_quiet => batch.len(),
            0 => self.random.below(batch.len() as u64 + 1) as usize,
            _ => batch.len(),
        };
        let mut failures: Vec<_> = (end..batch.len()).map(|index| (index, FailureClass::Transient)).collect();
        let mut log = self.log.lock().unwrap();
        for (index, event) in batch.iter().enumerate().take(end) {
            let class = match self.random.below(300) {
                _ if is_quiet => None,
                0 => Some(FailureClass::Transient),
                1 => Some(FailureClass::Defer(Duration::from_millis(1))),
                2 => Some(FailureClass::Throttled { not_before: soon() }),
                _ => None,
            };
            match class {
                Some(class) => failures.push((index, class)),
                None => log.entry(number(event.id())).or_default().push(number(event.payload())),
            }
            if panics && index == end / 2 {
                drop(log);
                panic!("on purpose");
            }
        }
        drop(log);
        if failures.is_empty() { Ok(()) } else { Err(SinkError::new(failures)) }
    }
}

fn soon() -> Timestamp {
    Timestamp::from_nanos(SystemClock::new().now().as_nanos() + 1_000_000)
}

fn number(text: &[u8]) -> u64 {
    std::str::from_utf8(text).unwrap().trim_end().parse().unwrap()
}

/// A producer's events: about 3 in 10 repeat an earlier one of the same producer, near or far. The payload is the number of
/// the copy, and some bytes.
fn events(seed: u64, producer: u64, count: u64) -> Vec<(u64, u64)> {
    let mut random = Random::new(seed * 31 + producer);
    let mut copies: Vec<u64> = Vec::new();
    (0..count)
        .map(|_| {
            let fresh = copies.is_empty() || random.below(10) >= 3;
            let index = if fresh {
                copies.push(0);
                copies.len() - 1
            } else {
                let far = random.below(copies.len() as u64);
                let near = (copies.len() as u64 - 1).saturating_sub(random.below(5));
                let index = if random.below(2) == 0 { near } else { far } as usize;
                copies[index] += 1;
                index
            };
            // Every tenth ID is one that all producers have.
            let id = if index % 10 == 0 { index as u64 } else { (producer + 1) * 1_000_000_000 + index as u64 };
            (id, copies[index])
        })
        .collect()
}

struct Chaos {
    seed: u64,
    events: u64,
    workers: usize,
    wait: WaitStrategy,
    queue: usize,
    panics: Option<u64>,
    /// One for its worker alone, or three with threads of their own.
    sinks: usize,
}

/// What is left after a run: the end of the pipeline, what was refused, and who was told what.
struct Left {
    end: Result<PipelineStats, DrainError>,
    refused: Vec<OwnedEvent>,
    told: [u64; 3],
    accepted: u64,
}

fn run(chaos: &Chaos, dedup: &Deduplicator, logs: &[Log], given: Option<Vec<OwnedEvent>>) -> Left {
    let is_quiet = Arc::new(AtomicBool::new(given.is_some()));
    let mut builder = Pipeline::builder(dedup.clone())
        .workers(chaos.workers)
        .wait_strategy(chaos.wait)
        .queue_events(chaos.queue)
        .held(64, 1 << 20);
    for (number, log) in logs.iter().enumerate() {
        let sink = Chaotic {
            random: Random::new(chaos.seed ^ (number as u64 + 1) << 20),
            log: Arc::clone(log),
            panics: chaos.panics,
            is_quiet: Arc::clone(&is_quiet),
        };
        builder = builder.sink(sink);
    }
    let pipeline = builder.start().unwrap();
    let (told, accepted) = (Arc::new([const { AtomicU64::new(0) }; 3]), AtomicU64::new(0));
    let refused = Mutex::new(Vec::new());
    let all_in = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !all_in.load(Ordering::Relaxed) {
                let stats = pipeline.stats();
                assert!(stats.balances(), "{stats:?}");
                std::thread::yield_now();
            }
        });
        let feeders: Vec<_> = match &given {
            Some(given) => vec![scope.spawn({
                let (pipeline, accepted) = (&pipeline, &accepted);
                move || {
                    for event in given {
                        pipeline.submit(event.as_event()).unwrap();
                        accepted.fetch_add(1, Ordering::Relaxed);
                    }
                }
            })],
            None => (0..PRODUCERS)
                .map(|from| {
                    let (pipeline, told, accepted, refused) = (&pipeline, &told, &accepted, &refused);
                    scope.spawn(move || {
                        let mut producer = pipeline.producer();
                        let mut random = Random::new(chaos.seed + from);
                        for (position, (id, copy)) in (0..).zip(events(chaos.seed, from, chaos.events / PRODUCERS)) {
                            let (id, payload) = (id.to_string(), format!("{copy:<40}"));
                            let event = Event::new(&id, &payload).with_position(from, position);
                            let told = Arc::clone(told);
                            let tell = move |settled| {
                                let index = match settled {
                                    Settled::Delivered => 0,
                                    Settled::Duplicate => 1,
                                    _ => 2,
                                };
                                told[index].fetch_add(1, Ordering::Relaxed);
                            };
                            let result = match random.below(16) {
                                // Has no order with what a producer submits, which only IDs of its own show.
                                0 if id.len() < 10 => pipeline.submit_with(event, tell),
                                _ => producer.submit_with(event, tell),
                            };
                            match result {
                                Ok(()) => accepted.fetch_add(1, Ordering::Relaxed),
                                Err(_) => {
                                    refused.lock().unwrap().push(OwnedEvent::from(event));
                                    0
                                }
                            };
                        }
                    })
                })
                .collect(),
        };
        feeders.into_iter().for_each(|feeder| feeder.join().unwrap());
        all_in.store(true, Ordering::Relaxed);
    });
    let end = pipeline.drain();
    assert!(pipeline.stats().balances(), "{:?}", pipeline.stats());
    if end.is_ok() && given.is_none() {
        for from in 0..PRODUCERS {
            assert_eq!(pipeline.settled(from), Some(chaos.events / PRODUCERS - 1));
        }
    }
    let told = [0, 1, 2].map(|index: usize| told[index].load(Ordering::Relaxed));
    Left { end, refused: refused.into_inner().unwrap(), told, accepted: accepted.into_inner() }
}

fn logs(sinks: usize) -> Vec<Log> {
    (0..sinks).map(|_| Log::default()).collect()
}

fn set() -> Deduplicator {
    Deduplicator::builder().build().unwrap()
}

fn ids(chaos: &Chaos) -> HashMap<u64, u64> {
    let mut ids = HashMap::new();
    for producer in 0..PRODUCERS {
        for (id, _) in events(chaos.seed, producer, chaos.events / PRODUCERS) {
            *ids.entry(id).or_default() += 1;
        }
    }
    ids
}

fn without_panics(chaos: &Chaos, dedup: &Deduplicator) {
    let logs = logs(chaos.sinks);
    let left = run(chaos, dedup, &logs, None);
    let stats = left.end.unwrap();
    let ids = ids(chaos);
    assert!(left.refused.is_empty());
    assert_eq!((stats.read, stats.delivered), (chaos.events, ids.len() as u64), "seed {}", chaos.seed);
    assert_eq!((stats.attached, stats.in_flight, stats.dead_lettered), (0, 0, 0));
    assert_eq!(left.told, [stats.delivered, stats.duplicate, 0]);
    for log in &logs {
        let log = log.lock().unwrap();
        assert_eq!(log.len(), ids.len());
        for (id, copies) in log.iter() {
            let is_first = *id < 1_000_000_000 || copies[0] == 0;
            assert!(copies.len() == 1 && is_first, "seed {}: id {id} was delivered as {copies:?}", chaos.seed);
        }
    }
}

#[test]
fn a_million_events_and_three_chaotic_sinks() {
    let events = std::env::var("DEDUPD_TEST_CHAOS_EVENTS").ok().and_then(|count| count.parse().ok());
    let (events, workers) = (events.unwrap_or(1_000_000), 2);
    without_panics(
        &Chaos { seed: 1, events, workers, wait: WaitStrategy::Park, queue: 512, panics: None, sinks: SINKS },
        &set(),
    );
}

#[test]
fn small_bounds_and_all_ways_to_wait() {
    for seed in 2..8 {
        let wait = [WaitStrategy::Park, WaitStrategy::Yield, WaitStrategy::Park][seed as usize % 3];
        let (workers, queue) = (1 + seed as usize % 3, 4 << (seed % 4));
        without_panics(&Chaos { seed, events: 20_000, workers, wait, queue, panics: None, sinks: SINKS }, &set());
    }
}

/// With a state sinks are flushed before commits, some of which wait for others, and settling waits for the disk.
#[test]
fn small_bounds_and_a_state() {
    let levels = [Durability::Process, Durability::Interval(Duration::from_millis(2)), Durability::PowerLoss];
    for (seed, durability) in (30..).zip(levels) {
        for (workers, sinks) in [(1, 1), (1, SINKS), (2, SINKS)] {
            let dir = tempfile::tempdir().unwrap();
            let dedup = Deduplicator::builder().durability(durability).open(dir.path()).unwrap();
            let wait = WaitStrategy::Park;
            without_panics(&Chaos { seed, events: 8_000, workers, wait, queue: 64, panics: None, sinks }, &dedup);
        }
    }
}

/// A panic poisons a worker. Everything that was accepted is settled or comes back; submitted again to a new pipeline on the
/// same set it is delivered, and only what came back may have been delivered before.
#[test]
fn sinks_that_panic_lose_nothing() {
    let mut panicked = 0;
    for seed in 10..22 {
        let (workers, panics) = (1 + seed as usize % 3, Some(60));
        let chaos = Chaos { seed, events: 40_000, workers, wait: WaitStrategy::Park, queue: 256, panics, sinks: SINKS };
        let dedup = Deduplicator::builder().build().unwrap();
        let logs = logs(SINKS);
        let left = run(&chaos, &dedup, &logs, None);
        let mut again = left.refused;
        let mut came_back = HashMap::new();
        if let Err(error) = left.end {
            panicked += 1;
            assert!(error.failures.iter().all(|what| what.contains("on purpose")), "{:?}", error.failures);
            let unfinished = error.unfinished.len() as u64;
            // Each accepted event was told of or came back, or was a duplicate of one that did, in a batch that did not end.
            assert!(left.told.iter().sum::<u64>() + unfinished <= left.accepted, "seed {seed}");
            for event in &error.unfinished {
                *came_back.entry(number(event.as_event().id())).or_insert(0) += 1;
            }
            again.extend(error.unfinished);
        }
        let second = Chaos { panics: None, ..chaos };
        let end = run(&second, &dedup, &logs, Some(again)).end.unwrap();
        assert!(end.balances());
        let ids = ids(&second);
        for log in &logs {
            let log = log.lock().unwrap();
            for id in ids.keys() {
                let copies = log.get(id).map_or(0, Vec::len);
                let most = 1 + came_back.get(id).copied().unwrap_or(0);
                assert!((1..=most).contains(&copies), "seed {seed}: id {id} was delivered {copies} times");
            }
        }
    }
    assert!(panicked >= 6, "only {panicked} of 12 runs had a panic");
}
