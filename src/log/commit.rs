//! Group commit: one of all who wait for the disk syncs, the others wait for it.
//!
//! A sync covers what was appended before it began. With many who ask again as soon as they are answered, whoever wakes
//! first after a sync would begin the next one almost alone, and each sync would cover one or two of them. So the one
//! who syncs waits for as many as took part in the last round, but no longer than a sync takes, and when they do not come
//! it expects fewer the next time.
//!
//! Each who waits is told by name, and by then holds no lock and needs none: woken together by one condition variable, they
//! would all queue for its lock, and be switched to twice for each answer.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::sync::thread::{self, Thread};
use crate::sync::{AtomicU8, Mutex, MutexGuard, Ordering};

use super::{Log, Poisoned, lock};

/// Who waits, and who syncs.
#[derive(Default)]
pub(super) struct Commit(Mutex<State>);

#[derive(Default)]
struct State {
    /// One syncs, or has been told to. It alone takes from `waiters`, and it hands this on or gives it back.
    is_led: bool,
    /// The one who syncs, while it waits for others to come.
    gathering: Option<Thread>,
    /// The others, in the order in which they came.
    waiters: Vec<Arc<Waiter>>,
    /// How many took part in the last round, with the one who synced.
    expected: usize,
    /// How long the last sync took.
    sync_time: Duration,
}

/// One who waits for a sync by another.
struct Waiter {
    /// The frame that must be on disk.
    wanted: u64,
    thread: Thread,
    /// Written once, by the one who syncs, and then read by the one who waits: release and acquire.
    news: AtomicU8,
}

/// What one who waits is told.
const NOTHING_YET: u8 = 0;
/// His frame is on disk, or never will be.
const OVER: u8 = 1;
/// The next sync is his.
const LEAD: u8 = 2;

impl Log {
    /// Returns when everything up to the frame `wanted`, which was appended, is on disk.
    pub(super) fn wait_synced(&self, wanted: u64) -> Result<(), Poisoned> {
        let mut state = lock(&self.commit.0);
        self.check_poison()?;
        if self.synced.load(Ordering::Acquire) >= wanted {
            return Ok(());
        }
        if state.is_led {
            if join(state, wanted).sleep() == OVER {
                return self.check_poison();
            }
        } else {
            state.is_led = true;
            drop(state);
        }
        self.lead();
        // What was appended before a sync began is on disk after it.
        self.check_poison()
    }

    /// Syncs for all who wait, with no lock held meanwhile, and tells them.
    fn lead(&self) {
        self.gather();
        let began = Instant::now();
        self.sync_now();
        let synced = if self.is_poisoned() { u64::MAX } else { self.synced.load(Ordering::Acquire) };
        let (over, next) = lock(&self.commit.0).end_round(synced, began.elapsed());
        over.iter().for_each(|waiter| waiter.tell(OVER));
        if let Some(next) = next {
            next.tell(LEAD);
        }
    }

    /// Waits for those who took part in the last round.
    #[cfg(not(loom))]
    fn gather(&self) {
        let mut state = lock(&self.commit.0);
        let deadline = Instant::now() + state.sync_time.min(GATHER_MAX);
        while state.waiters.len() + 1 < state.expected {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            state.gathering = Some(thread::current());
            drop(state);
            thread::park_timeout(left);
            state = lock(&self.commit.0);
        }
        state.gathering = None;
    }

    /// Not modelled: it only takes time.
    #[cfg(loom)]
    fn gather(&self) {}
}

/// One more waits; the last of those who are expected wakes the one who syncs.
fn join(mut state: MutexGuard<'_, State>, wanted: u64) -> Arc<Waiter> {
    let waiter = Arc::new(Waiter { wanted, thread: thread::current(), news: AtomicU8::new(NOTHING_YET) });
    state.waiters.push(Arc::clone(&waiter));
    if state.waiters.len() + 1 >= state.expected
        && let Some(leader) = state.gathering.take()
    {
        drop(state);
        leader.unpark();
    }
    waiter
}

impl State {
    /// Takes out those whose frames are on disk, and who is to sync for those that are left.
    fn end_round(&mut self, synced: u64, sync_time: Duration) -> (Vec<Arc<Waiter>>, Option<Arc<Waiter>>) {
        (self.expected, self.sync_time) = (self.waiters.len() + 1, sync_time);
        let waiters = std::mem::take(&mut self.waiters);
        let (over, mut left): (Vec<_>, Vec<_>) = waiters.into_iter().partition(|waiter| waiter.wanted <= synced);
        let next = (!left.is_empty()).then(|| left.remove(0));
        self.is_led = next.is_some();
        self.waiters = left;
        (over, next)
    }
}

impl Waiter {
    fn tell(&self, news: u8) {
        self.news.store(news, Ordering::Release);
        self.thread.unpark();
    }

    /// Waits for news.
    fn sleep(&self) -> u8 {
        loop {
            match self.news.load(Ordering::Acquire) {
                NOTHING_YET => thread::park(),
                news => return news,
            }
        }
    }
}

#[cfg(not(loom))]
const GATHER_MAX: Duration = Duration::from_millis(2);
