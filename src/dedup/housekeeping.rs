//! The housekeeping thread: one per process, for all sets that did not decline it.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Condvar, Mutex, OnceLock, PoisonError, Weak};
use std::time::{Duration, Instant};

use crate::time::Clock;
use crate::window::Set;
use std::sync::Arc;

/// What the thread needs of a set. Nobody else's last handle is ever dropped by the thread.
pub(super) struct Tended {
    pub(super) set: Arc<Set>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) event_time: bool,
}

/// The sets the thread tends to. It runs as long as there are any.
#[derive(Default)]
struct Roster {
    sets: Mutex<Sets>,
    changed: Condvar,
}

#[derive(Default)]
struct Sets {
    enlisted: Vec<Weak<Tended>>,
    is_running: bool,
}

/// Has the thread look after a set until `tended` is dropped.
pub(super) fn enlist(tended: &Arc<Tended>) {
    let roster = roster();
    let mut sets = roster.sets.lock().unwrap_or_else(PoisonError::into_inner);
    sets.enlisted.push(Arc::downgrade(tended));
    if !sets.is_running {
        // Without the thread the set answers the same; it only gives memory back later.
        sets.is_running = std::thread::Builder::new().name("dedupd-housekeeping-0".into()).spawn(run).is_ok();
    }
    roster.changed.notify_one();
}

impl Tended {
    /// Takes notice of the clock where time is the clock's.
    fn notice_time(&self) {
        if !self.event_time {
            self.set.notice_clock(self.clock.now().as_nanos());
        }
    }
}

fn roster() -> &'static Roster {
    static ROSTER: OnceLock<Roster> = OnceLock::new();
    ROSTER.get_or_init(Roster::default)
}

fn run() {
    let roster = roster();
    let mut sets = roster.sets.lock().unwrap_or_else(PoisonError::into_inner);
    let mut tended_at: Option<Instant> = None;
    let mut calm_from = Instant::now();
    loop {
        sets.enlisted.retain(|set| set.strong_count() > 0);
        if sets.enlisted.is_empty() {
            sets.is_running = false;
            return;
        }
        let enlisted = sets.enlisted.clone();
        drop(sets);
        let is_due = tended_at.is_none_or(|at| at.elapsed() >= PERIOD);
        for tended in enlisted.iter().filter_map(Weak::upgrade) {
            // The clock is the caller's code. Should it panic, this set is left alone for now, and the others are not.
            let tended = catch_unwind(AssertUnwindSafe(move || {
                let is_growing = tended.set.touch_ahead();
                if is_due {
                    tended.notice_time();
                    tended.set.sweep(BUDGET);
                }
                is_growing
            }));
            match tended {
                Ok(true) => calm_from = Instant::now() + GROWTH_LASTS,
                Ok(false) => {}
                // Dropping what a panic carries may panic as well.
                Err(payload) => std::mem::forget(payload),
            }
        }
        let now = Instant::now();
        if is_due {
            tended_at = Some(now);
        }
        let period = if now < calm_from { PERIOD_OF_GROWTH } else { PERIOD };
        sets = roster.sets.lock().unwrap_or_else(PoisonError::into_inner);
        (sets, _) = roster.changed.wait_timeout(sets, period).unwrap_or_else(PoisonError::into_inner);
    }
}

/// How often each set is visited.
const PERIOD: Duration = Duration::from_millis(50);
/// How often arenas are touched ahead while a set grows. An arena of 2 MiB holds about 90,000 ids, so with two of them this
/// keeps up with some 40 million new ids per second; beyond that callers touch their own.
const PERIOD_OF_GROWTH: Duration = Duration::from_millis(4);
/// After how long without a new arena a set has stopped growing.
const GROWTH_LASTS: Duration = Duration::from_millis(200);
/// How long one set may take at a time, so that others have their turn.
const BUDGET: Duration = Duration::from_millis(20);
