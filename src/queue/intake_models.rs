//! Loom models of the way from producers to the consumer: nothing lost, nothing twice, each producer's order kept, and
//! nobody sleeps for ever.

use loom::sync::Arc;
use loom::thread;

use super::{Intake, Outlet, Refusal, WaitStrategy};

/// What is put in: the producer and its count.
type Put = (u8, u8);

/// Boxes that hold `EVENTS` each, and at most so many large bytes together.
const EVENTS: usize = 2;
const LARGE_MAX: usize = 10;

fn pool(boxes: usize) -> (std::sync::Arc<Intake<Vec<Put>>>, Outlet<Vec<Put>>) {
    Intake::new((0..boxes).map(|_| Vec::new()), LARGE_MAX, WaitStrategy::Park)
}

fn fits(items: &mut Vec<Put>, put: Put) -> bool {
    let fits = items.len() < EVENTS;
    if fits {
        items.push(put);
    }
    fits
}

/// The consumer's loop: everything that comes until the pool is collected. It closes the intake itself once `expected` have
/// come, so that nothing else wakes it before.
fn consume_all(intake: &Intake<Vec<Put>>, outlet: Outlet<Vec<Put>>, expected: usize) -> Vec<Put> {
    consume_until(outlet, |came| {
        if came == expected {
            intake.close();
        }
    })
}

/// The same when somebody else closes it.
fn consume(outlet: Outlet<Vec<Put>>) -> Vec<Put> {
    consume_until(outlet, |_| ())
}

fn consume_until(mut outlet: Outlet<Vec<Put>>, after: impl Fn(usize)) -> Vec<Put> {
    let (mut came, mut parcels) = (Vec::new(), Vec::new());
    loop {
        outlet.gather(&mut parcels);
        if parcels.is_empty() {
            if outlet.collect() {
                return came;
            }
            outlet.wait(None, true, || false);
        }
        for mut parcel in parcels.drain(..) {
            came.append(&mut parcel.item);
            outlet.give_back(parcel);
            after(came.len());
        }
    }
}

fn model(preemptions: usize, check: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(preemptions);
    builder.check(check);
}

fn of(came: &[Put], producer: u8) -> Vec<u8> {
    came.iter().filter(|(from, _)| *from == producer).map(|(_, number)| *number).collect()
}

#[test]
fn loom_what_a_producer_feeds_arrives_in_order_while_the_consumer_steals() {
    model(3, || {
        let (intake, outlet) = pool(2);
        let mut feeder = intake.feeder();
        let producer = thread::spawn(move || {
            for number in 0..3 {
                feeder.feed(true, |items| fits(items, (1, number))).unwrap();
            }
            feeder
        });
        let came = consume_all(&intake, outlet, 3);
        drop(producer.join().unwrap());
        assert_eq!(of(&came, 1), [0, 1, 2]);
    });
}

#[test]
fn loom_one_box_goes_around_between_two_producers() {
    model(2, || {
        let (intake, outlet) = pool(1);
        let left = Arc::new(loom::sync::atomic::AtomicUsize::new(2));
        let producers: Vec<_> = (0..2)
            .map(|from| {
                let (intake, left) = (std::sync::Arc::clone(&intake), Arc::clone(&left));
                thread::spawn(move || {
                    intake.feeder().feed(true, |items| fits(items, (from, 0))).unwrap();
                    if left.fetch_sub(1, loom::sync::atomic::Ordering::AcqRel) == 1 {
                        intake.close();
                    }
                })
            })
            .collect();
        let mut came = consume(outlet);
        for producer in producers {
            producer.join().unwrap();
        }
        came.sort_unstable();
        assert_eq!(came, [(0, 0), (1, 0)]);
    });
}

#[test]
fn loom_what_comes_after_the_close_is_refused_and_what_came_before_arrives() {
    model(3, || {
        let (intake, outlet) = pool(1);
        let mut feeder = intake.feeder();
        let producer = thread::spawn(move || {
            let mut accepted = 0;
            for number in 0..2 {
                match feeder.feed(true, |items| fits(items, (1, number))) {
                    Ok(()) => accepted += 1,
                    Err(refusal) => assert_eq!(refusal, Refusal::Closed),
                }
            }
            accepted
        });
        let closing = thread::spawn(move || intake.close());
        let came = consume(outlet);
        closing.join().unwrap();
        assert_eq!(came.len(), producer.join().unwrap());
    });
}

#[test]
fn loom_a_producer_and_a_consumer_wake_each_other() {
    model(3, || {
        let (intake, outlet) = pool(1);
        let mut feeder = intake.feeder();
        let producer = thread::spawn(move || {
            // Each fills the only box there is.
            for number in 0..2 {
                feeder.feed(true, |items| items.is_empty() && fits(items, (0, number))).unwrap();
            }
            feeder
        });
        let came = consume_all(&intake, outlet, 2);
        drop(producer.join().unwrap());
        assert_eq!(of(&came, 0), [0, 1]);
    });
}

/// Of two large things there is room for one. Nothing else wakes who waits for that.
#[test]
fn loom_who_waits_for_bytes_is_woken_when_they_come_back() {
    model(3, || {
        let (intake, outlet) = pool(3);
        let producers: Vec<_> = (0..2)
            .map(|from| {
                let mut feeder = intake.feeder();
                thread::spawn(move || {
                    feeder.feed_large(LARGE_MAX, true, |items| fits(items, (from, 0))).unwrap();
                    feeder
                })
            })
            .collect();
        let came = consume_all(&intake, outlet, 2);
        let feeders: Vec<_> = producers.into_iter().map(|producer| producer.join().unwrap()).collect();
        assert_eq!((of(&came, 0), of(&came, 1), feeders.len()), (vec![0], vec![0], 2));
    });
}

/// The consumer gives back what it has only once somebody wants bytes. Nothing else wakes it.
#[test]
fn loom_who_sleeps_on_bytes_learns_that_they_are_wanted() {
    model(3, || {
        let (intake, mut outlet) = pool(3);
        let mut feeder = intake.feeder();
        let producer = thread::spawn(move || {
            for number in 0..2 {
                feeder.feed_large(LARGE_MAX, true, |items| items.is_empty() && fits(items, (0, number))).unwrap();
            }
            feeder
        });
        let (mut parcels, mut came) = (Vec::new(), 0);
        while came < 2 {
            outlet.gather(&mut parcels);
            if !parcels.is_empty() && intake.wants_bytes() {
                for mut parcel in parcels.drain(..) {
                    came += parcel.item.drain(..).count();
                    outlet.give_back(parcel);
                }
            } else if came + parcels.len() == 2 {
                break;
            } else {
                let keeps_bytes = !parcels.is_empty();
                outlet.wait(None, true, || keeps_bytes && intake.wants_bytes());
            }
        }
        drop(producer.join().unwrap());
    });
}
