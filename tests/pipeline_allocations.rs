//! How much a pipeline allocates for each event once it is warm. Goal: what the documentation of `Producer` says about
//! allocation holds. Method: an allocator that counts, in a process of its own; one test, as whatever else runs counts, too.

use std::alloc::{GlobalAlloc, Layout, System};
use std::hint::black_box;
use std::sync::atomic::{AtomicU64, Ordering};

use dedupd::sink::{Sink, SinkError};
use dedupd::{Deduplicator, Event, Pipeline};

/// Written by every thread, read between two runs: a count, which orders nothing.
static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

#[global_allocator]
static COUNTING: Counting = Counting;

struct Counting;

// SAFETY: everything is the system's allocator, called as it was called.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: as the caller promises.
        unsafe { System.alloc(layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: as the caller promises.
        unsafe { System.realloc(pointer, layout, size) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(pointer, layout) }
    }
}

/// Batches that were delivered. As above.
static BATCHES: AtomicU64 = AtomicU64::new(0);

/// Keeps nothing.
struct Nothing;

impl Sink for Nothing {
    fn deliver(&mut self, _batch: &[Event<'_>]) -> Result<(), SinkError> {
        BATCHES.fetch_add(1, Ordering::Relaxed);
        // Slow enough that batches grow.
        std::thread::sleep(std::time::Duration::from_micros(200));
        Ok(())
    }
}

#[test]
fn a_warm_pipeline_allocates_by_the_batch_and_not_by_the_event() {
    let dedup = Deduplicator::builder().expected_ids(4 * EVENTS as usize).housekeeping(false).build().unwrap();
    let pipeline = Pipeline::builder(dedup).sink(Nothing).start().unwrap();
    let mut producer = pipeline.producer();
    let payload = [7; 200];
    let mut ids = 0_u64..;
    let mut next = || ids.next().unwrap().to_be_bytes();

    let mut submit = || producer.submit(Event::new(&next(), &payload)).unwrap();
    counted(&mut submit);
    let (plain, batches) = counted(&mut submit);
    assert!(EVENTS > 2 * PER_BATCH_MAX * batches, "{batches} batches are too many to tell");
    assert!(plain < PER_BATCH_MAX * batches, "{plain} allocations for {EVENTS} events in {batches} batches");

    // What does allocate is seen.
    let mut with_callback = || {
        let id = next();
        producer.submit_with(Event::new(&id, &payload), move |_| _ = black_box(id)).unwrap();
    };
    let (callbacks, _) = counted(&mut with_callback);
    assert!(callbacks >= EVENTS, "{callbacks} allocations for {EVENTS} events with a callback");
    pipeline.drain().unwrap();
}

/// Allocations of all threads while events are submitted, and batches meanwhile.
fn counted(submit: &mut impl FnMut()) -> (u64, u64) {
    let now = || (ALLOCATIONS.load(Ordering::Relaxed), BATCHES.load(Ordering::Relaxed));
    let before = now();
    (0..EVENTS).for_each(|_| submit());
    let after = now();
    (after.0 - before.0, after.1 - before.1)
}

/// Allocations for a batch, whatever its size.
const PER_BATCH_MAX: u64 = 40;
const EVENTS: u64 = 400_000;
