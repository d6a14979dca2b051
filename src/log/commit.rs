//! Group commit: one of all who wait for the disk syncs, the others wait for it.
//!
//! A sync covers what was appended before it began. With many who ask again as soon as they are answered, whoever wakes
//! first after a sync would begin the next one almost alone, and each sync would cover one or two of them. So the first
//! waits for as many as took part in the last round, but no longer than a sync takes, and when they do not come it
//! expects fewer the next time. The last of them syncs at once, as it is awake, and the first is told as the others are.
//!
//! Each who waits is told by name, and by then holds no lock and needs none: woken together by one condition variable, they
//! would all queue for its lock, and be switched to twice for each answer. Who is told passes it on to half of those that are
//! left, as in a telephone chain: one who woke all others would do so on one processor, while the next sync waits for them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::sync::thread::{self, Thread};
use crate::sync::{AtomicU8, Mutex, Ordering};

use super::{Log, Poisoned, lock};

/// Who waits, and who syncs.
#[derive(Default)]
pub(super) struct Commit(Mutex<State>);

#[derive(Default)]
struct State {
    /// One syncs, gathers, or has been told to lead. It alone takes from `waiters`, and it hands this on or gives it back.
    is_led: bool,
    /// The one who leads, while it waits for others to come. Who takes it from here leads instead.
    gathering: Option<Arc<Waiter>>,
    /// The others, in the order in which they came.
    waiters: Vec<Arc<Waiter>>,
    /// How many took part in the last round, with the one who synced.
    expected: usize,
    /// How long the last sync took.
    sync_time: Duration,
}

/// One who waits for a sync.
struct Waiter {
    /// The frame that must be on disk.
    wanted: u64,
    thread: Thread,
    /// Written by the one who syncs, read by the one who waits: release and acquire. Who is told to lead takes that back
    /// before it gathers, as it may have to wait again, and nobody else writes meanwhile.
    news: AtomicU8,
    /// Whom to tell that it is over. Written before the news, by who tells them; taken by the one who hears it.
    others: Mutex<Vec<Arc<Waiter>>>,
}

/// What one who waits is told.
const NOTHING_YET: u8 = 0;
/// His frame is on disk, or never will be.
const OVER: u8 = 1;
/// The next sync is his.
const LEAD: u8 = 2;

/// What one who waits is to do.
#[derive(Clone, Copy)]
enum Part {
    Wait,
    Gather,
    Sync,
}

impl Log {
    /// Returns when everything up to the frame `wanted`, which was appended, is on disk.
    pub(super) fn wait_synced(&self, wanted: u64) -> Result<(), Poisoned> {
        let mut state = lock(&self.commit.0);
        self.check_poison()?;
        if self.synced.load(Ordering::Acquire) >= wanted {
            return Ok(());
        }
        let waiter = Arc::new(Waiter::new(wanted));
        let mut part = state.join(&waiter);
        drop(state);
        loop {
            part = match part {
                Part::Wait if waiter.sleep() == LEAD => Part::Gather,
                Part::Wait => {
                    pass_on(std::mem::take(&mut *lock(&waiter.others)));
                    break;
                }
                Part::Gather => self.gather(&waiter),
                Part::Sync => {
                    self.lead();
                    break;
                }
            };
        }
        // What was appended before a sync began is on disk after it.
        self.check_poison()
    }

    /// Syncs for all who wait, with no lock held meanwhile, and tells them.
    fn lead(&self) {
        let began = Instant::now();
        self.sync_now();
        let synced = if self.is_poisoned() { u64::MAX } else { self.synced.load(Ordering::Acquire) };
        let (over, next) = lock(&self.commit.0).end_round(synced, began.elapsed());
        pass_on(over);
        if let Some(next) = next {
            next.tell(LEAD);
        }
    }

    /// Waits for those who took part in the last round.
    fn gather(&self, waiter: &Arc<Waiter>) -> Part {
        let mut state = lock(&self.commit.0);
        if state.waiters.len() + 1 >= state.expected {
            return Part::Sync;
        }
        let longest = state.sync_time.min(GATHER_MAX);
        state.gathering = Some(Arc::clone(waiter));
        drop(state);
        waiter.sleep_at_most(longest);
        let mut state = lock(&self.commit.0);
        // Another may gather by now, in a round that this one is not in.
        if state.gathering.as_ref().is_some_and(|gathering| Arc::ptr_eq(gathering, waiter)) {
            state.gathering = None;
            return Part::Sync;
        }
        Part::Wait
    }
}

impl State {
    /// One more waits; the last of those who are expected relieves the one who waits for them.
    fn join(&mut self, waiter: &Arc<Waiter>) -> Part {
        if !self.is_led {
            self.is_led = true;
            return Part::Gather;
        }
        if self.waiters.len() + 2 >= self.expected
            && let Some(relieved) = self.gathering.take()
        {
            self.waiters.push(relieved);
            return Part::Sync;
        }
        self.waiters.push(Arc::clone(waiter));
        Part::Wait
    }

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

/// Tells all of them that it is over.
fn pass_on(mut over: Vec<Arc<Waiter>>) {
    while let Some(waiter) = over.pop() {
        *lock(&waiter.others) = over.split_off(over.len() / 2);
        waiter.tell(OVER);
    }
}

impl Waiter {
    fn new(wanted: u64) -> Self {
        let (news, others) = (AtomicU8::new(NOTHING_YET), Mutex::default());
        Self { wanted, thread: thread::current(), news, others }
    }

    fn tell(&self, news: u8) {
        self.news.store(news, Ordering::Release);
        self.thread.unpark();
    }

    /// Waits for news, and takes it.
    fn sleep(&self) -> u8 {
        loop {
            match self.news.load(Ordering::Acquire) {
                NOTHING_YET => thread::park(),
                news => {
                    self.news.store(NOTHING_YET, Ordering::Relaxed);
                    return news;
                }
            }
        }
    }

    /// Waits for news, but no longer than `longest`.
    #[cfg(not(loom))]
    fn sleep_at_most(&self, longest: Duration) {
        let deadline = Instant::now() + longest;
        while self.news.load(Ordering::Acquire) == NOTHING_YET {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            thread::park_timeout(left);
        }
    }

    /// Models have no time. This ends at once, and others may come meanwhile, as at any access to an atomic.
    #[cfg(loom)]
    fn sleep_at_most(&self, _: Duration) {
        self.news.load(Ordering::Acquire);
    }
}

const GATHER_MAX: Duration = Duration::from_millis(2);

#[cfg(all(loom, test))]
impl Commit {
    /// As if so many had taken part in the last round.
    pub(super) fn expect(&self, expected: usize) {
        lock(&self.0).expected = expected;
    }
}
