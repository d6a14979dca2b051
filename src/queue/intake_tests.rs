use std::sync::atomic::{AtomicUsize, Ordering as Std};
use std::thread;

use super::*;

type Put = (usize, u64);

fn fits(items: &mut Vec<Put>, put: Put) -> bool {
    let fits = items.len() < 4;
    if fits {
        items.push(put);
    }
    fits
}

fn consume(mut outlet: Outlet<Vec<Put>>, mut see: impl FnMut(Put)) {
    let mut parcels = Vec::new();
    loop {
        outlet.gather(&mut parcels);
        if parcels.is_empty() {
            if outlet.collect() {
                return;
            }
            outlet.wait(None, true, || false);
        }
        for mut parcel in parcels.drain(..) {
            parcel.item.drain(..).for_each(&mut see);
            outlet.give_back(parcel);
        }
    }
}

/// Goal: with a pool that is always too small every event of every producer arrives once and in its order. Method: producers
/// of both kinds beside a consumer, for each strategy; what was taken before the close is counted by the producers.
#[test]
fn many_producers_and_a_small_pool_lose_nothing_and_keep_order() {
    for wait in [WaitStrategy::Park, WaitStrategy::Yield, WaitStrategy::Spin] {
        let (intake, outlet) = Intake::new((0..3).map(|_| Vec::new()), 0, wait);
        let (producers, each) = (
            4,
            if cfg!(miri) {
                40
            } else if wait == WaitStrategy::Park {
                20_000
            } else {
                2_000
            },
        );
        let left = Arc::new(AtomicUsize::new(producers));
        let threads: Vec<_> = (0..producers)
            .map(|from| {
                let (intake, left) = (Arc::clone(&intake), Arc::clone(&left));
                thread::spawn(move || {
                    let mut feeder = intake.feeder();
                    for number in 0..each {
                        let put = (from, number);
                        if number % 1_000 == 999 {
                            // Another one takes over, behind it.
                            feeder = intake.feeder();
                        }
                        feeder.feed(true, |items| fits(items, put)).unwrap();
                    }
                    drop(feeder);
                    if left.fetch_sub(1, Std::AcqRel) == 1 {
                        intake.close();
                    }
                })
            })
            .collect();
        let mut next = vec![0; producers];
        consume(outlet, |(from, number)| {
            assert_eq!(number, next[from], "of producer {from}");
            next[from] += 1;
        });
        assert_eq!(next, vec![each; producers]);
        threads.into_iter().for_each(|thread| thread.join().unwrap());
    }
}

#[test]
fn without_room_a_producer_is_told_so_and_a_task_is_woken_when_there_is_some() {
    struct Woken(AtomicUsize);
    impl std::task::Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Std::AcqRel);
        }
    }
    let (intake, mut outlet) = Intake::new([Vec::<Put>::new()], 0, WaitStrategy::Park);
    let woken = Arc::new(Woken(AtomicUsize::new(0)));
    let waker = Arc::clone(&woken).into();
    let mut context = Context::from_waker(&waker);
    assert_eq!(intake.poll_room(&mut context), Poll::Ready(()));
    let mut feeder = intake.feeder();
    (0..4).for_each(|number| feeder.feed(false, |items| fits(items, (0, number))).unwrap());
    assert_eq!(feeder.feed(false, |items| fits(items, (0, 4))), Err(Refusal::Full));
    assert_eq!(intake.feeder().feed(false, |_| true), Err(Refusal::Full));
    assert_eq!(intake.poll_room(&mut context), Poll::Pending);
    let mut parcels = Vec::new();
    outlet.gather(&mut parcels);
    outlet.give_back(parcels.pop().unwrap());
    assert_eq!(woken.0.load(Std::Acquire), 1);
    assert_eq!(intake.poll_room(&mut context), Poll::Ready(()));
}

#[test]
fn a_closed_intake_refuses_and_a_broken_one_says_so() {
    let (intake, mut outlet) = Intake::new([Vec::<Put>::new()], 0, WaitStrategy::Park);
    let mut feeder = intake.feeder();
    feeder.feed(true, |items| fits(items, (1, 0))).unwrap();
    intake.close();
    assert_eq!(feeder.feed(true, |_| true), Err(Refusal::Closed));
    assert!(!outlet.collect(), "a box is in a tray");
    intake.break_off();
    assert_eq!(feeder.feed(true, |_| true), Err(Refusal::Broken));
    let mut parcels = Vec::new();
    outlet.gather(&mut parcels);
    assert_eq!(parcels[0].item, [(1, 0)]);
    outlet.give_back(parcels.pop().unwrap());
    assert!(outlet.collect());
}

#[test]
fn large_things_wait_for_bytes_and_one_alone_never_does() {
    let (intake, mut outlet) = Intake::new((0..4).map(|_| Vec::<Put>::new()), 10, WaitStrategy::Park);
    let mut feeder = intake.feeder();
    let one = |items: &mut Vec<Put>| items.is_empty() && fits(items, (0, 0));
    let ready = || intake.poll_room(&mut Context::from_waker(std::task::Waker::noop())).is_ready();
    feeder.feed_large(6, false, one).unwrap();
    feeder.feed_large(4, false, one).unwrap();
    assert!(ready());
    assert_eq!(feeder.feed_large(5, false, one), Err(Refusal::Full));
    assert!(!ready(), "what was refused does not fit yet");
    feeder.feed(false, one).unwrap();
    let mut parcels = Vec::new();
    outlet.gather(&mut parcels);
    let mut give_back = |parcel: Box<Parcel<Vec<Put>>>| {
        let mut parcel = parcel;
        parcel.item.clear();
        outlet.give_back(parcel);
    };
    assert_eq!(parcels.len(), 3);
    give_back(parcels.remove(1));
    assert!(!ready());
    give_back(parcels.remove(0));
    assert!(ready());
    feeder.feed_large(usize::MAX, false, one).unwrap();
    assert_eq!(feeder.feed_large(1, false, one), Err(Refusal::Full));
    intake.close();
    assert_eq!(feeder.feed_large(1, true, one), Err(Refusal::Closed));
}
