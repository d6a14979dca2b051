//! Loom models: two or three threads, a few items, every interleaving that the memory model allows.

use loom::sync::Arc;
use loom::thread;

use super::{Handoff, Work};
use crate::sync::{AtomicUsize, Mutex, Ordering};

/// What the threads of a model share.
struct Shared {
    handoff: Handoff<usize>,
    /// Numbers not yet filled in.
    left: AtomicUsize,
    emitted: Mutex<Vec<usize>>,
}

impl Shared {
    fn new(buffers: usize, count: usize) -> Arc<Self> {
        let handoff = Handoff::new((0..buffers).map(|_| 0));
        Arc::new(Self { handoff, left: AtomicUsize::new(count), emitted: Mutex::new(Vec::new()) })
    }

    /// A worker's loop. Under loom a thread that sleeps for ever fails the model, so its end proves the wake-ups.
    fn work(&self) {
        loop {
            match self.handoff.next() {
                Work::Fill(mut item) => match self.left.load(Ordering::Relaxed) {
                    0 => item.finish(),
                    left => {
                        self.left.store(left - 1, Ordering::Relaxed);
                        *item = left;
                        item.submit();
                    }
                },
                Work::Transform(item) => item.complete(),
                Work::Emit(item) => self.emitted.lock().unwrap().push(*item),
                Work::Done => break,
            }
        }
    }
}

fn run(shared: &Arc<Shared>, threads: usize) -> Vec<usize> {
    let others: Vec<_> = (1..threads)
        .map(|_| {
            let shared = Arc::clone(shared);
            thread::spawn(move || shared.work())
        })
        .collect();
    shared.work();
    for other in others {
        other.join().unwrap();
    }
    std::mem::take(&mut *shared.emitted.lock().unwrap())
}

fn model(threads: usize, buffers: usize, count: usize, preemptions: usize) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(preemptions);
    builder.check(move || {
        let emitted = run(&Shared::new(buffers, count), threads);
        let expected: Vec<usize> = (1..=count).rev().collect();
        assert_eq!(emitted, expected, "every item once, in order");
    });
}

#[test]
fn loom_two_threads_lose_no_wake_up_and_no_item() {
    model(2, 2, 2, 2);
}

#[test]
fn loom_one_buffer_between_two_threads_is_never_lost() {
    model(2, 1, 1, 3);
}

#[test]
fn loom_three_threads_keep_order() {
    model(3, 2, 2, 1);
}

#[test]
fn loom_the_ring_wraps_around() {
    model(2, 1, 2, 2);
}

#[test]
fn loom_closing_wakes_a_sleeper() {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(3);
    builder.check(|| {
        let shared = Shared::new(1, 0);
        let Work::Fill(held) = shared.handoff.next() else { panic!("nothing else to do") };
        let sleeper = {
            let shared = Arc::clone(&shared);
            thread::spawn(move || assert!(matches!(shared.handoff.next(), Work::Done)))
        };
        shared.handoff.close();
        sleeper.join().unwrap();
        drop(held);
    });
}

#[test]
fn loom_nothing_is_emitted_after_the_emit_that_closed() {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(3);
    builder.check(|| {
        let shared = Shared::new(2, 0);
        let mut transforming = Vec::new();
        for _ in 0..2 {
            let Work::Fill(item) = shared.handoff.next() else { panic!("nothing else to do") };
            item.submit();
            let Work::Transform(item) = shared.handoff.next() else { panic!("transforming goes before filling") };
            transforming.push(item);
        }
        let (Some(second), Some(first)) = (transforming.pop(), transforming.pop()) else { panic!("two of them") };
        first.complete();
        let Work::Emit(failing) = shared.handoff.next() else { panic!("emitting goes before transforming") };
        second.complete();
        let other = {
            let shared = Arc::clone(&shared);
            thread::spawn(move || assert!(matches!(shared.handoff.next(), Work::Done)))
        };
        shared.handoff.close();
        drop(failing);
        other.join().unwrap();
    });
}

#[test]
fn loom_what_a_stage_wrote_is_seen_by_the_next() {
    loom::model(|| {
        let handoff = Arc::new(Handoff::new([loom::cell::UnsafeCell::new(0)]));
        let Work::Fill(item) = handoff.next() else { panic!("nothing else to do") };
        // SAFETY: the guard is the only access.
        item.with_mut(|n| unsafe { *n = 1 });
        item.submit();
        let other = {
            let handoff = Arc::clone(&handoff);
            thread::spawn(move || {
                if let Work::Transform(item) = handoff.next() {
                    // SAFETY: the guard is the only access.
                    item.with_mut(|n| unsafe { *n += 1 });
                    item.complete();
                }
                handoff.close();
            })
        };
        if let Work::Emit(item) = handoff.next() {
            // SAFETY: the guard is the only access.
            assert_eq!(item.with(|n| unsafe { *n }), 2);
        }
        handoff.close();
        other.join().unwrap();
    });
}
