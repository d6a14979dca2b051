//! A webhook receiver that says 200 only once an event is settled.
//!
//! ```text
//! cargo run --example webhook_receiver
//! ```
//!
//! Without a server: a request is a call, its answer a number. Senders try again until they hear 200, with the same ID and a changed
//! `attempt`, and some that did hear it send once more. Each request waits for its event: a repeat that comes while the first is being
//! delivered is answered when that is done, and a success like it. What cannot be finished gets a 503, and is sent again.

use std::error::Error;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::channel;
use std::time::Duration;

use dedupd::{ClosureSink, Deduplicator, Event, FailureClass, Pipeline, Settled, SinkError};

const SENDERS: u64 = 4;
const EVENTS: u64 = 100;

/// What a handler of any HTTP server would do with a request.
fn receive(pipeline: &Pipeline, id: &str, body: &str, counts: &Counts) -> u16 {
    let (answer, settled) = channel();
    let submitted = pipeline.submit_with(Event::new(id, body), move |how| {
        // Short: the worker waits. Who has hung up does not hear it.
        let _ = answer.send(how);
    });
    if submitted.is_err() {
        return 503;
    }
    // The callback is dropped when the event cannot be finished, which ends the wait too.
    match settled.recv() {
        Ok(Settled::Delivered) => {
            counts.delivered.fetch_add(1, Ordering::Relaxed);
            200
        }
        Ok(Settled::Duplicate) => {
            counts.repeats.fetch_add(1, Ordering::Relaxed);
            200
        }
        Ok(_) | Err(_) => 503,
    }
}

/// Sends every event until it is taken, and every fifth once more: its answer was lost on the way.
fn send_all(pipeline: &Pipeline, counts: &Counts) {
    for number in 0..EVENTS {
        let id = format!("evt_{number}");
        let (mut attempt, mut wanted) = (1, if number % 5 == 0 { 2 } else { 1 });
        while wanted > 0 {
            let body = format!("{{\"id\":\"{id}\",\"type\":\"invoice.paid\",\"attempt\":{attempt}}}");
            if receive(pipeline, &id, &body, counts) == 200 {
                wanted -= 1;
            }
            attempt += 1;
        }
    }
}

/// How requests were answered with 200.
#[derive(Default)]
struct Counts {
    delivered: AtomicU64,
    repeats: AtomicU64,
}

fn main() -> Result<(), Box<dyn Error>> {
    let dedup = Deduplicator::builder().window(Duration::from_secs(24 * 3600)).build()?;
    // The work that a webhook asks for. The first call fails, and is tried again by the pipeline.
    let mut calls = 0;
    let sink = ClosureSink::new(move |batch: &[Event<'_>]| {
        calls += 1;
        match calls {
            1 => Err(SinkError::rest(0..batch.len(), FailureClass::Transient).because("the database is restarting")),
            _ => Ok(()),
        }
    });
    let pipeline = Pipeline::builder(dedup).sink(sink).start()?;
    let counts = Counts::default();
    std::thread::scope(|scope| {
        for _ in 0..SENDERS {
            scope.spawn(|| send_all(&pipeline, &counts));
        }
    });
    let stats = pipeline.drain()?;
    let (delivered, repeats) = (counts.delivered.into_inner(), counts.repeats.into_inner());
    println!("{} requests of {SENDERS} senders were answered with 200", delivered + repeats);
    println!("{delivered} of them for an event that was delivered, {repeats} for a repeat of one");
    println!("the sink got {} events, after a failure: {}", stats.delivered, stats.failed_attempts > 0);
    Ok(())
}
