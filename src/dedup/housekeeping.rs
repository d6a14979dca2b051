//! The housekeeping thread: one per process, for all sets that did not decline it.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Condvar, Mutex, OnceLock, PoisonError, Weak};
use std::time::Duration;

use super::Inner;
use std::sync::Arc;

/// The sets the thread tends to. It runs as long as there are any.
#[derive(Default)]
struct Roster {
    sets: Mutex<Sets>,
    changed: Condvar,
}

#[derive(Default)]
struct Sets {
    enlisted: Vec<Weak<Inner>>,
    is_running: bool,
}

/// Has the thread tend to `inner` until it is dropped.
pub(super) fn enlist(inner: &Arc<Inner>) {
    let roster = roster();
    let mut sets = roster.sets.lock().unwrap_or_else(PoisonError::into_inner);
    sets.enlisted.push(Arc::downgrade(inner));
    if !sets.is_running {
        // Without the thread the set answers the same; it only gives memory back later.
        sets.is_running = std::thread::Builder::new().name("dedupd-housekeeping-0".into()).spawn(run).is_ok();
    }
    roster.changed.notify_one();
}

fn roster() -> &'static Roster {
    static ROSTER: OnceLock<Roster> = OnceLock::new();
    ROSTER.get_or_init(Roster::default)
}

fn run() {
    let roster = roster();
    let mut sets = roster.sets.lock().unwrap_or_else(PoisonError::into_inner);
    loop {
        sets.enlisted.retain(|set| set.strong_count() > 0);
        if sets.enlisted.is_empty() {
            sets.is_running = false;
            return;
        }
        let enlisted = sets.enlisted.clone();
        drop(sets);
        for inner in enlisted.iter().filter_map(Weak::upgrade) {
            // The clock is the caller's code. Should it panic, this set is left alone for now, and the others are not.
            let tended = catch_unwind(AssertUnwindSafe(|| {
                inner.notice_time();
                inner.set.maintain(BUDGET);
            }));
            drop(tended);
        }
        sets = roster.sets.lock().unwrap_or_else(PoisonError::into_inner);
        (sets, _) = roster.changed.wait_timeout(sets, PERIOD).unwrap_or_else(PoisonError::into_inner);
    }
}

/// How often each set is visited. An arena of 2 MiB holds about 100,000 ids, so touching ahead keeps up with 2 million
/// new ids per second; beyond that callers touch their own.
const PERIOD: Duration = Duration::from_millis(50);
/// How long one set may take at a time, so that others have their turn.
const BUDGET: Duration = Duration::from_millis(20);
