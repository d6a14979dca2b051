//! A queue consumer that acknowledges only what is settled.
//!
//! ```text
//! cargo run --example queue_consumer
//! ```
//!
//! The broker hands its messages out again when nobody acknowledges them in time, and after a restart; publishers send some orders
//! twice; the sink fails now and then; and the first consumer goes away without a word about the last that it took. Each order
//! arrives once.

use std::collections::HashMap;
use std::error::Error;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use dedupd::{ClosureSink, Deduplicator, Event, FailureClass, Pipeline, SinkError};

const MESSAGES: u64 = 150;
const PATIENCE: Duration = Duration::from_millis(20);

/// A broker in this process: a list, what is acknowledged of it, and what is to be handed out next.
struct Broker {
    acknowledged: u64,
    next: u64,
    asked: Instant,
}

impl Broker {
    fn new() -> Self {
        Self { acknowledged: 0, next: 0, asked: Instant::now() }
    }

    /// The next message, if there is one. Unacknowledged ones come again.
    fn receive(&mut self) -> Option<u64> {
        if self.asked.elapsed() > PATIENCE {
            (self.next, self.asked) = (self.acknowledged, Instant::now());
        }
        let offset = (self.next < MESSAGES).then_some(self.next)?;
        self.next += 1;
        Some(offset)
    }

    /// All messages up to this one are done with.
    fn acknowledge(&mut self, offset: u64) {
        if offset + 1 > self.acknowledged {
            (self.acknowledged, self.asked) = (offset + 1, Instant::now());
        }
    }

    fn restart(&mut self) {
        self.next = self.acknowledged;
    }
}

/// How often each order has arrived where it belongs.
type Arrived = Arc<Mutex<HashMap<Vec<u8>, u32>>>;

/// A sink that fails half of each third batch, the first among them.
fn unreliable(arrived: &Arrived) -> ClosureSink<impl FnMut(&[Event<'_>]) -> Result<(), SinkError> + Send + use<>> {
    let (arrived, mut calls) = (Arc::clone(arrived), 0);
    ClosureSink::new(move |batch: &[Event<'_>]| {
        calls += 1;
        let good = if calls % 3 == 1 { batch.len() / 2 } else { batch.len() };
        let mut arrived = arrived.lock().unwrap_or_else(|broken| broken.into_inner());
        for event in &batch[..good] {
            *arrived.entry(event.id().to_vec()).or_default() += 1;
        }
        if good == batch.len() {
            return Ok(());
        }
        Err(SinkError::rest(good..batch.len(), FailureClass::Transient).because("timed out"))
    })
}

/// Takes messages until `is_enough`, and acknowledges what is settled.
fn consume(
    broker: &mut Broker,
    state: &Path,
    arrived: &Arrived,
    is_enough: impl Fn(&Broker) -> bool,
) -> Result<u64, Box<dyn Error>> {
    let dedup = Deduplicator::builder().window(Duration::from_secs(3600)).open(state)?;
    let pipeline = Pipeline::builder(dedup).sink(unreliable(arrived)).start()?;
    while !is_enough(broker) {
        if let Some(offset) = broker.receive() {
            // Each third message is the order before it, sent again by its publisher.
            let order = format!("order_{}", if offset % 3 == 2 { offset - 1 } else { offset });
            pipeline.submit(Event::new(&order, "{\"items\":3}").with_position("orders-0", offset))?;
        }
        if let Some(offset) = pipeline.settled("orders-0") {
            broker.acknowledge(offset);
        }
        std::thread::yield_now();
    }
    Ok(pipeline.drain()?.failed_attempts)
}

fn main() -> Result<(), Box<dyn Error>> {
    let state = tempfile::tempdir()?;
    let (mut broker, arrived) = (Broker::new(), Arrived::default());
    let mut failed = consume(&mut broker, state.path(), &arrived, |broker| broker.next >= 60)?;
    println!("the first consumer has taken 60 messages, and left without acknowledging the last");
    broker.restart();
    failed += consume(&mut broker, state.path(), &arrived, |broker| broker.acknowledged == MESSAGES)?;
    println!("the second has acknowledged all {MESSAGES}; deliveries failed on the way: {}", failed > 0);
    let arrived = arrived.lock().map_err(|_| "a sink panicked")?;
    println!("{} orders arrived, each once: {}", arrived.len(), arrived.values().all(|times| *times == 1));
    Ok(())
}
