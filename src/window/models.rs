//! Loom models of the set: the shard's lock, the directory that is read without it, the generations, and the limits.
//!
//! Each runs the code that ships, with one shard, one root and segments of two lines, so that a handful of ids makes them
//! grow and split. Not modelled: the lines themselves (plain memory, only touched under the shard's lock; an access without
//! it would not be seen here, but by Miri and by the threads of `tests/set_promises.rs`), prefetching (it has no effect that
//! a program can see), and the housekeeping thread (it uses the same lock as any question).

use std::ops::Range;

use loom::sync::Arc;
use loom::thread;

use super::{Act, Answer, Changes, Config, Limits, Set, Shape, Times, When};
use crate::event::Fingerprint;

const WINDOW: i64 = 64_000;

fn set(max_ids: u64) -> Arc<Set> {
    let generation_ids = if max_ids == u64::MAX { u64::MAX } else { max_ids.div_ceil(64) };
    let limits = Limits { window: WINDOW, lateness: None, max_future: 0, max_ids, generation_ids, evict: true };
    let shape = Shape { shard_bits: 0, roots: 1, class_max: 1 };
    let config = Config { limits, extend: false, gathers: true, expected_ids: 0, memory_bytes_max: 1 << 18, shape };
    Arc::new(Set::new(&config).unwrap())
}

fn id(n: u64) -> Fingerprint {
    Fingerprint::from_u128(u128::from(n + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15_F39C_C060_5CED_C835))
}

fn observe(set: &Set, n: u64, now: i64) -> Answer {
    set.ask(id(n), When::Now(now), Act::Observe)
}

fn both<A: 'static>(set: &Arc<Set>, here: impl FnOnce(&Set) -> A, there: impl FnOnce(&Set) -> A + 'static) -> (A, A) {
    let other = {
        let set = Arc::clone(set);
        thread::spawn(move || there(&set))
    };
    let here = here(set);
    (here, other.join().unwrap())
}

#[test]
fn loom_one_of_two_that_ask_about_one_id_is_first() {
    loom::model(|| {
        let set = set(u64::MAX);
        let answers = both(&set, |set| observe(set, 1, 0), |set| observe(set, 1, 0));
        assert!(matches!(answers, (Answer::New, Answer::Seen) | (Answer::Seen, Answer::New)), "{answers:?}");
    });
}

#[test]
fn loom_a_slot_found_before_the_directory_doubled_is_not_trusted() {
    loom::model(|| {
        let set = set(u64::MAX);
        // Two lines hold ten entries: the eleventh splits the segment, and both threads may be the one that does it.
        for n in 0..10 {
            assert_eq!(observe(&set, n, 0), Answer::New);
        }
        let answers = both(&set, |set| observe(set, 10, 0), |set| observe(set, 11, 0));
        assert_eq!(answers, (Answer::New, Answer::New));
        for n in 0..12 {
            assert_eq!(observe(&set, n, 0), Answer::Seen, "id {n}");
        }
    });
}

/// A line is found, and nothing in it is too old to be told; then so much time passes that every tag in it is.
#[test]
fn loom_a_line_looked_up_before_its_tags_wrapped_is_not_asked() {
    loom::model(|| {
        let set = set(u64::MAX);
        let later = WINDOW / 64 * 20_000;
        assert_eq!(observe(&set, 1, 0), Answer::New);
        let ask = |set: &Set| u64::from(observe(set, 2, 0) == Answer::New);
        let pass = move |set: &Set| {
            set.notice_clock(later);
            set.tally().first_seen
        };
        let (new, first_seen_before) = both(&set, ask, pass);
        assert_eq!(new, 1);
        if first_seen_before == 1 {
            assert_eq!(observe(&set, 2, later), Answer::Seen, "it was recorded after the time had passed");
        }
    });
}

/// The lines of a batch are looked up without the lock, and the other thread splits the segment meanwhile.
#[test]
fn loom_lines_looked_up_before_a_split_are_not_asked() {
    loom::model(|| {
        let set = set(u64::MAX);
        for n in 0..10 {
            assert_eq!(observe(&set, n, 0), Answer::New);
        }
        let batch = |set: &Set| {
            let mut answers = Vec::new();
            let hash = |range: Range<usize>, out: &mut Vec<_>| out.extend(range.map(|n| id([3, 12, 13, 14][n])));
            set.ask_batch(4, hash, Times::Now(0), Act::Observe, |some| answers.extend_from_slice(some));
            answers
        };
        let (answers, answer) = both(&set, batch, |set| vec![observe(set, 11, 0)]);
        assert_eq!(answers, [Answer::Seen, Answer::New, Answer::New, Answer::New]);
        assert_eq!(answer, [Answer::New]);
        for n in (0..10).chain(11..15) {
            assert_eq!(observe(&set, n, 0), Answer::Seen, "id {n}");
        }
        assert_eq!(set.tally().live, 14);
    });
}

#[test]
fn loom_a_thread_with_an_old_time_does_not_take_the_set_back() {
    loom::model(|| {
        let set = set(u64::MAX);
        let late = 3 * WINDOW;
        let (early_answer, late_answer) = both(&set, |set| observe(set, 1, 0), move |set| observe(set, 1, late));
        // When the early one comes after the late one's time was noticed, it counts at that time.
        let answers = (early_answer, late_answer);
        let one_is_known = matches!(answers, (Answer::Seen, Answer::New) | (Answer::New, Answer::Seen));
        let window_is_over = matches!(answers, (Answer::New, Answer::New | Answer::Reappeared));
        assert!(one_is_known || window_is_over, "{answers:?}");
        assert_eq!(observe(&set, 1, late), Answer::Seen);
    });
}

#[test]
fn loom_a_limit_holds_and_every_id_is_live_or_counted() {
    loom::model(|| {
        let set = set(2);
        let answers = both(&set, |set| [observe(set, 1, 0), observe(set, 2, 0)], |set| [observe(set, 3, 0); 2]);
        assert_eq!(answers.0, [Answer::New; 2]);
        let tally = set.tally();
        assert!(tally.live <= 2, "{tally:?}");
        assert_eq!(tally.live + tally.evicted_early, 3, "{tally:?}");
    });
}

#[test]
fn loom_a_reserved_id_has_one_owner_until_it_is_resolved() {
    loom::model(|| {
        let set = set(u64::MAX);
        let reserve = |set: &Set| {
            let answer = set.ask(id(1), When::Now(0), Act::Reserve);
            if answer == Answer::New {
                assert!(set.commit(id(1), When::Now(0)));
            }
            answer
        };
        let answers = both(&set, reserve, reserve);
        let owners = [answers.0, answers.1].iter().filter(|answer| **answer == Answer::New).count();
        assert_eq!(owners, 1, "{answers:?}");
        assert_eq!(observe(&set, 1, 0), Answer::Seen);
        assert_eq!(set.tally().pending, 0);
    });
}

/// Of two that ask, and one that takes what was gathered meanwhile, nothing is lost and nothing taken twice; and what was
/// gathered before `has_changes` was looked at is either taken or still said to be there.
#[test]
fn loom_what_is_gathered_is_taken_once() {
    loom::model(|| {
        let set = set(u64::MAX);
        let gather = |n| move |set: &Set| set.ask(id(n), When::Now(0), Act::Gather);
        assert_eq!(gather(1)(&set), Answer::New);
        let taker = {
            let set = Arc::clone(&set);
            thread::spawn(move || {
                let mut changes = Changes::default();
                set.take_changes(&mut changes);
                changes
            })
        };
        assert_eq!(gather(2)(&set), Answer::New);
        let mut taken = taker.join().unwrap();
        assert!(set.has_changes() || taken.seen.len() == 2, "gathered, and nobody is told");
        set.take_changes(&mut taken);
        assert_eq!(taken.seen.iter().map(|(id, _)| *id).collect::<Vec<_>>(), [id(1), id(2)]);
    });
}
