//! Threads on a real machine: every item once, in order, bounded, and an end that everybody hears of.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::{Handoff, Work};

/// Runs `threads` workers over `count` items and returns what was emitted.
fn run(threads: usize, buffers: usize, count: u64) -> Vec<u64> {
    let handoff = Handoff::new((0..buffers).map(|_| 0_u64));
    let (source, emitted) = (Mutex::new(0..count), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    match handoff.next() {
                        Work::Fill(mut item) => {
                            let next = source.try_lock().unwrap().next();
                            match next {
                                Some(n) => {
                                    *item = n;
                                    item.submit();
                                }
                                None => item.finish(),
                            }
                        }
                        Work::Transform(mut item) => {
                            *item = item.wrapping_mul(3);
                            item.complete();
                        }
                        Work::Emit(item) => emitted.try_lock().unwrap().push(*item),
                        Work::Done => break,
                    }
                }
            });
        }
    });
    emitted.into_inner().unwrap()
}

#[test]
fn every_item_comes_out_once_and_in_order() {
    for (threads, buffers) in [(1, 1), (1, 3), (2, 1), (2, 3), (4, 6), (8, 4)] {
        let expected: Vec<u64> = (0..20_000).map(|n| n * 3).collect();
        assert!(run(threads, buffers, 20_000) == expected, "{threads} threads, {buffers} buffers");
    }
}

#[test]
fn nothing_to_do_ends_at_once() {
    assert!(run(3, 2, 0).is_empty());
    assert!(matches!(Handoff::<u8>::new([]).next(), Work::Done));
}

#[test]
fn what_is_nearly_done_comes_first() {
    let handoff = Handoff::new([0, 0]);
    for _ in 0..2 {
        let Work::Fill(item) = handoff.next() else { panic!("nothing else to do") };
        item.submit();
        let Work::Transform(item) = handoff.next() else { panic!("transforming goes before filling") };
        item.complete();
        assert!(matches!(handoff.next(), Work::Emit(_)));
    }
}

#[test]
fn a_dropped_fill_puts_its_item_back() {
    let handoff = Handoff::new([7]);
    for _ in 0..3 {
        let Work::Fill(item) = handoff.next() else { panic!("the item is free again") };
        assert_eq!(*item, 7);
    }
}

#[test]
fn a_transform_given_up_on_closes() {
    let handoff = Handoff::new([0]);
    let Work::Fill(item) = handoff.next() else { panic!("nothing else to do") };
    item.submit();
    drop(handoff.next());
    assert!(handoff.is_closed());
    assert!(matches!(handoff.next(), Work::Done));
}

#[test]
fn closing_wakes_everybody() {
    let handoff = Handoff::new([0]);
    let done = AtomicUsize::new(0);
    let Work::Fill(held) = handoff.next() else { panic!("nothing else to do") };
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                assert!(matches!(handoff.next(), Work::Done));
                done.fetch_add(1, Ordering::Relaxed);
            });
        }
        handoff.close();
    });
    assert_eq!(done.into_inner(), 3);
    drop(held);
}

#[test]
fn a_sleeper_is_woken_when_there_is_more_to_do_than_one_thread_takes() {
    let handoff = Handoff::new([0, 0]);
    let Work::Fill(item) = handoff.next() else { panic!("nothing else to do") };
    std::thread::scope(|scope| {
        let (got, work) = std::sync::mpsc::channel();
        let handoff = &handoff;
        scope.spawn(move || {
            let filled = matches!(handoff.next(), Work::Fill(_));
            got.send(filled).unwrap();
        });
        while !handoff.parking.anyone() {
            std::thread::yield_now();
        }
        item.submit();
        let Work::Transform(item) = handoff.next() else { panic!("transforming goes before filling") };
        let woken = work.recv_timeout(std::time::Duration::from_secs(20));
        item.complete();
        handoff.close();
        assert_eq!(woken, Ok(true));
    });
}

#[test]
fn a_panic_in_a_stage_ends_the_others() {
    let handoff = Handoff::new([0]);
    let Work::Fill(held) = handoff.next() else { panic!("nothing else to do") };
    std::thread::scope(|scope| {
        let other = scope.spawn(|| assert!(matches!(handoff.next(), Work::Done)));
        let panicking = scope.spawn(move || {
            let _held = held;
            panic!("on purpose");
        });
        assert!(panicking.join().is_err());
        assert!(other.join().is_ok());
    });
}
