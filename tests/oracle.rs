//! The oracle that the other tests compare the set with. Goal: the oracle itself is right about the promise.

mod common;

use std::time::Duration;

use common::oracle::{Expected, Oracle};
use dedupd::Timestamp;

const WINDOW: Duration = Duration::from_secs(64);
const SLACK: Duration = Duration::from_secs(1);

#[test]
fn an_id_passes_through_the_three_zones_of_the_promise() {
    let mut oracle = Oracle::new(WINDOW, SLACK);
    assert_eq!(oracle.expected(b"a", at(0)), Expected::MustBeFirstSeen);
    oracle.record(b"a", at(0), true);
    assert_eq!(oracle.expected(b"a", at(63_999)), Expected::MustBeDuplicate);
    oracle.record(b"a", at(63_999), false);
    assert_eq!(oracle.expected(b"a", at(64_000)), Expected::Either);
    assert_eq!(oracle.expected(b"a", at(64_999)), Expected::Either);
    assert_eq!(oracle.expected(b"a", at(65_000)), Expected::MustBeFirstSeen);
    assert_eq!(oracle.live(at(64_500)), (0, 1));
}

#[test]
fn a_repeat_extends_the_window_only_when_asked_to() {
    let mut oracle = Oracle::new(WINDOW, SLACK).extending();
    oracle.record(b"a", at(0), true);
    oracle.record(b"a", at(60_000), false);
    assert_eq!(oracle.expected(b"a", at(123_999)), Expected::MustBeDuplicate);
    assert_eq!(oracle.expected(b"a", at(125_000)), Expected::MustBeFirstSeen);
}

#[test]
fn a_reserved_id_is_pending_until_it_is_resolved() {
    let mut oracle = Oracle::new(WINDOW, SLACK);
    oracle.reserve(b"a", at(0));
    assert_eq!(oracle.expected(b"a", at(90_000)), Expected::MustBePending);
    oracle.forget(b"a");
    assert_eq!(oracle.expected(b"a", at(90_000)), Expected::MustBeFirstSeen);
    oracle.reserve(b"a", at(90_000));
    oracle.commit(b"a", at(100_000));
    assert_eq!(oracle.expected(b"a", at(153_999)), Expected::MustBeDuplicate);
    assert_eq!(oracle.expected(b"a", at(164_999)), Expected::Either);
    assert_eq!(oracle.expected(b"a", at(165_000)), Expected::MustBeFirstSeen);
}

fn at(millis: i64) -> Timestamp {
    Timestamp::from_millis(millis)
}
