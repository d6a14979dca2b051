//! Goal: every branch gets each event once, whatever the others do. Method: branches that fail as they are told, and a caller
//! that delivers again what was not delivered.

use std::collections::{HashMap, VecDeque};
use std::error::Error as _;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::sink::{ClosureSink, Durable, Idempotency, NdjsonSink, Order};
use crate::time::Timestamp;

/// What a branch got, by ID.
type Got = Arc<Mutex<Vec<Vec<u8>>>>;

/// A branch that takes what `judge` finds nothing wrong with.
fn branch(mut judge: impl FnMut(&Event<'_>) -> Option<FailureClass> + Send + 'static) -> (Got, impl Sink + 'static) {
    let got = Got::default();
    let taken = Arc::clone(&got);
    let sink = ClosureSink::new(move |batch: &[Event<'_>]| {
        let failures: Vec<_> = batch.iter().map(&mut judge).enumerate().collect();
        let mut taken = taken.lock().unwrap();
        taken.extend(
            failures.iter().filter(|(_, failed)| failed.is_none()).map(|(index, _)| batch[*index].id().to_vec()),
        );
        let failures: Vec<_> = failures.into_iter().filter_map(|(index, class)| Some((index, class?))).collect();
        if failures.is_empty() { Ok(()) } else { Err(SinkError::new(failures)) }
    });
    (got, sink)
}

fn ids(got: &Got) -> Vec<String> {
    got.lock().unwrap().iter().map(|id| String::from_utf8(id.clone()).unwrap()).collect()
}

/// Delivers `events` in batches of `batch`, and again what failed, until all is delivered. Branch `n` fails what its list says,
/// event by event, and takes everything when the list is used up.
fn deliver_all(events: &[String], failures: &[Vec<bool>], batch: usize, memory: usize) -> (Vec<Vec<String>>, Tee) {
    let mut tee = Tee::new().remembering(memory);
    let mut all = Vec::new();
    for failures in failures {
        let mut failures = failures.clone().into_iter();
        let (got, sink) = branch(move |_| failures.next().unwrap_or(false).then_some(FailureClass::Transient));
        all.push(got);
        tee = tee.with(sink);
    }
    let mut waiting: VecDeque<&String> = events.iter().collect();
    while !waiting.is_empty() {
        let now: Vec<_> = waiting.drain(..batch.min(waiting.len())).collect();
        let batch: Vec<_> = now.iter().map(|id| Event::new(id, "payload")).collect();
        if let Err(error) = tee.deliver(&batch) {
            waiting.extend(error.failures().iter().map(|(index, _)| now[*index]));
        }
    }
    (all.iter().map(ids).collect(), tee)
}

fn counts(ids: &[String]) -> HashMap<&str, usize> {
    ids.iter().fold(HashMap::new(), |mut counts, id| {
        *counts.entry(id).or_default() += 1;
        counts
    })
}

proptest! {
    #[test]
    fn every_branch_gets_each_event_exactly_once(
        events in prop::collection::vec("[a-p]", 0..40),
        failures in prop::collection::vec(prop::collection::vec(any::<bool>(), 0..80), 1..5),
        batch in 1_usize..12,
    ) {
        let (all, tee) = deliver_all(&events, &failures, batch, events.len());
        for got in &all {
            prop_assert_eq!(counts(got), counts(&events));
        }
        prop_assert_eq!((tee.remembered(), tee.forgotten()), (0, 0));
    }

    #[test]
    fn with_too_little_memory_an_event_may_come_twice_and_none_is_lost(
        events in prop::collection::vec("[a-p]", 0..40),
        failures in prop::collection::vec(prop::collection::vec(any::<bool>(), 0..80), 1..5),
        batch in 1_usize..12,
        memory in 0_usize..4,
    ) {
        let (all, tee) = deliver_all(&events, &failures, batch, memory);
        for got in &all {
            let (got, wanted) = (counts(got), counts(&events));
            prop_assert!(wanted.iter().all(|(id, count)| got.get(id).is_some_and(|got| got >= count)));
            let more = got.values().sum::<usize>() - events.len();
            prop_assert!(more as u64 <= tee.forgotten(), "{more} {}", tee.forgotten());
        }
    }
}

#[test]
fn a_failure_is_for_good_only_when_nobody_would_take_the_event_any_more() {
    let wait = Duration::from_secs(1);
    let throttled = |secs| FailureClass::Throttled { not_before: Timestamp::from_secs(secs) };
    use FailureClass::{Auth, Defer, Permanent, Transient};
    for (one, other, both) in [
        (Permanent, Transient, Transient),
        (Permanent, Defer(wait), Defer(wait)),
        (Defer(wait), Defer(wait * 2), Defer(wait * 2)),
        (Defer(wait), Transient, Transient),
        (Transient, throttled(3), throttled(3)),
        (throttled(4), throttled(3), throttled(4)),
        (throttled(4), Auth, Auth),
        (Permanent, Permanent, Permanent),
    ] {
        for (one, other) in [(one, other), (other, one)] {
            let (got, good) = branch(|_| None);
            let mut tee = Tee::new().with(branch(move |_| Some(one)).1).with(good).with(branch(move |_| Some(other)).1);
            let batch = [Event::new("a", "")];
            let error = tee.deliver(&batch).unwrap_err();
            assert_eq!(error.failures(), [(0, both)], "{one:?} {other:?}");
            assert_eq!(error.source().unwrap().to_string(), "branch 0 of the tee failed");
            assert_eq!(tee.remembered(), usize::from(both != Permanent));
            tee.give_up(&batch[0]);
            assert_eq!(tee.remembered(), 0);
            tee.deliver(&batch).unwrap_err();
            assert_eq!(ids(&got), ["a", "a"], "who gave up on it gets it everywhere again");
        }
    }
}

#[test]
fn a_branch_that_fails_keeps_nothing_from_the_others_and_order_stays() {
    let (first, one) = branch(|event| (event.id() == b"b").then_some(FailureClass::Transient));
    let (second, other) = branch(|_| None);
    let mut tee = Tee::new().with(one).with(other);
    let error = tee.deliver(&[Event::new("a", ""), Event::new("b", ""), Event::new("c", "")]).unwrap_err();
    assert_eq!(error.failures(), [(1, FailureClass::Transient)]);
    assert_eq!((ids(&first), ids(&second)), (vec!["a".into(), "c".into()], vec!["a".into(), "b".into(), "c".into()]));
}

#[test]
fn an_error_that_names_no_event_loses_none() {
    let mut failing = true;
    let (got, good) = branch(|_| None);
    let mut tee = Tee::new().with(good).with(ClosureSink::new(move |_: &[Event<'_>]| {
        if std::mem::take(&mut failing) { Err(SinkError::other("lost")) } else { Ok(()) }
    }));
    let batch = [Event::new("a", ""), Event::new("b", "")];
    assert_eq!(tee.deliver(&batch).unwrap_err().failures().len(), 2);
    tee.deliver(&batch).unwrap();
    assert_eq!(ids(&got), ["a", "b"]);
}

#[test]
fn without_branches_nothing_counts_as_delivered() {
    let mut tee = Tee::new();
    assert_eq!(tee.deliver(&[Event::new("a", "")]).unwrap_err().failures(), [(0, FailureClass::Transient)]);
    assert_eq!(tee.guarantees(), Guarantees::default());
    assert_eq!(Box::new(tee).into_branches().len(), 1);
}

#[test]
fn a_pipeline_gets_the_branches_also_of_a_tee_in_a_tee_in_a_box() {
    let inner: Box<dyn Sink> = Box::new(Tee::new().with(branch(|_| None).1).with(branch(|_| None).1));
    let tee = Tee::new().with(inner).with(NdjsonSink::stdout());
    let branches = Box::new(tee).into_branches();
    assert_eq!(
        branches.iter().map(|branch| branch.name().into_owned()).collect::<Vec<_>>(),
        [&b"sink"[..], b"sink", b"ndjson"]
    );
    let plain = Box::new(NdjsonSink::stdout()).into_branches();
    assert_eq!(plain.len(), 1);
}

#[test]
fn it_promises_what_all_branches_promise() {
    let by_id = Guarantees::new(Idempotency::ById, Order::AsDelivered, Durable::OnDelivery);
    let sink = || ClosureSink::new(|_: &[Event<'_>]| Ok(())).with_guarantees(by_id);
    assert_eq!(Tee::new().with(sink()).with(sink()).guarantees(), by_id);
    let weaker = Guarantees { idempotency: Idempotency::None, ..NdjsonSink::STREAM };
    let (_reader, writer) = std::io::pipe().unwrap();
    let pipe = NdjsonSink::from(std::os::fd::OwnedFd::from(writer));
    assert_eq!(Tee::new().with(sink()).with(pipe).guarantees(), weaker);
}

#[test]
fn every_branch_is_flushed_and_the_first_failure_told() {
    struct Flushed(Arc<Mutex<usize>>);
    impl Sink for Flushed {
        fn deliver(&mut self, _: &[Event<'_>]) -> Result<(), SinkError> {
            Ok(())
        }

        fn flush(&mut self) -> Result<(), SinkError> {
            *self.0.lock().unwrap() += 1;
            Err(SinkError::other("no"))
        }
    }
    let count = Arc::new(Mutex::new(0));
    let mut tee = Tee::new().with(Flushed(Arc::clone(&count))).with(Flushed(Arc::clone(&count)));
    let error = tee.flush().unwrap_err();
    assert_eq!(
        (*count.lock().unwrap(), error.source().unwrap().to_string()),
        (2, "branch 0 of the tee failed".to_owned())
    );
}

#[test]
fn files_are_cut_back_together_and_only_those_of_the_position() {
    let dir = tempfile::tempdir().unwrap();
    let paths = [dir.path().join("a"), dir.path().join("b")];
    let tee = |order: [usize; 2]| {
        order.iter().fold(Tee::new(), |tee, index| tee.with(NdjsonSink::file(&paths[*index]).unwrap()))
    };
    let mut first = tee([0, 1]);
    assert_eq!(first.guarantees(), NdjsonSink::FILE);
    first.resume(None).unwrap();
    first.deliver(&[Event::new("1", "one")]).unwrap();
    let position = first.position().unwrap().unwrap();
    first.deliver(&[Event::new("2", "two")]).unwrap();

    let refused = tee([1, 0]).resume(Some(&position)).unwrap_err();
    assert!(refused.source().unwrap().to_string().contains("other branches"));
    for cut in 0..position.len() {
        assert!(tee([0, 1]).resume(Some(&position[..cut])).is_err(), "{cut}");
    }
    tee([0, 1]).resume(Some(&position)).unwrap();
    for path in &paths {
        assert_eq!(std::fs::read_to_string(path).unwrap(), "one\n");
    }
    let mut mixed = tee([0, 1]).with(NdjsonSink::stdout());
    assert_eq!(mixed.position().unwrap(), None, "what has no position cannot be cut back");
}
