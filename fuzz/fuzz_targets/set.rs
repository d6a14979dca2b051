//! The set against the oracle that the tests share: no sequence of operations may break the promise.
//!
//! The first byte says how the set is cut and whether repeats extend; then each operation takes three bytes: what, which
//! id, and how much.
#![no_main]

use std::time::Duration;

use dedupd::{Clock, Deduplicator, ManualClock, Reservation, ReserveVerdict, Timestamp, Verdict};
use libfuzzer_sys::fuzz_target;
use oracle::{Expected, Oracle};

#[allow(dead_code, reason = "the tests use more of it")]
#[path = "../../tests/common/oracle.rs"]
mod oracle;

const WINDOW: Duration = Duration::from_secs(64);

fuzz_target!(|input: &[u8]| {
    let Some((cut, operations)) = input.split_first() else { return };
    let clock = ManualClock::starting_at(Timestamp::from_secs(1_000_000));
    let (class_max, extend) = (u32::from(cut & 3) + 1, cut & 4 != 0);
    let builder = Deduplicator::builder().window(WINDOW).clock(clock.clone()).secret([7; 32]).housekeeping(false);
    let dedup = builder.extend_on_duplicate(extend).shape(u32::from(cut >> 3 & 1), 1, class_max).build().unwrap();
    let oracle = Oracle::new(WINDOW, dedup.slack());
    let mut oracle = if extend { oracle.extending() } else { oracle };
    let mut reserved: Vec<(Reservation, Vec<[u8; 1]>)> = Vec::new();

    for operation in operations.chunks_exact(3) {
        let (id, much, now) = ([operation[1]], operation[2], clock.now());
        match operation[0] % 8 {
            0 | 1 => {
                let first_seen = dedup.observe(id) == Verdict::FirstSeen;
                assert!(oracle.expected(&id, now).allows(first_seen), "{id:?} at {now:?}: first seen is {first_seen}");
                oracle.record(&id, now, first_seen);
            }
            2 => {
                let ids: Vec<[u8; 1]> = (0..=much).map(|n| [id[0].wrapping_add(n)]).collect();
                let mut verdicts = Vec::new();
                dedup.observe_batch(&ids, &mut verdicts);
                for (id, verdict) in ids.iter().zip(verdicts) {
                    let first_seen = verdict == Verdict::FirstSeen;
                    assert!(oracle.expected(id, now).allows(first_seen));
                    oracle.record(id, now, first_seen);
                }
            }
            3 => {
                let ids: Vec<[u8; 1]> = (0..=much % 64).map(|n| [id[0].wrapping_mul(n)]).collect();
                let reservation = dedup.reserve_batch(&ids).unwrap();
                let mut mine = Vec::new();
                for (id, verdict) in ids.iter().zip(reservation.verdicts()) {
                    let expected = oracle.expected(id, now);
                    assert_eq!(*verdict == ReserveVerdict::InFlight, expected == Expected::MustBePending);
                    assert!(expected.allows(*verdict == ReserveVerdict::FirstSeen));
                    if *verdict == ReserveVerdict::FirstSeen {
                        oracle.reserve(id, now);
                        mine.push(*id);
                    } else {
                        oracle.record(id, now, false);
                    }
                }
                reserved.push((reservation, mine));
            }
            4 if !reserved.is_empty() => {
                let (reservation, ids) = reserved.swap_remove(usize::from(much) % reserved.len());
                if much & 1 == 0 {
                    reservation.commit().unwrap();
                    ids.iter().for_each(|id| oracle.commit(id, now));
                } else {
                    drop(reservation);
                    ids.iter().for_each(|id| oracle.forget(id));
                }
            }
            5 if oracle.expected(&id, now) != Expected::MustBePending => {
                let was_known = dedup.forget(id).unwrap();
                assert!(oracle.expected(&id, now).allows(!was_known));
                oracle.forget(&id);
            }
            6 => clock.advance(Duration::from_millis(u64::from(much) * 100)),
            7 if much < 250 => clock.advance(Duration::from_secs(u64::from(much) * 10)),
            7 => {
                dedup.maintain(Duration::from_secs(1));
            }
            _ => assert!(oracle.expected(&id, now).allows(!dedup.contains(id))),
        }
    }
    let stats = dedup.stats();
    assert_eq!((stats.evicted_early, stats.bypassed, stats.clock_held), (0, 0, 0));
});
