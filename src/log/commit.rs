//! Group commit: one of all who wait for the disk syncs, the others wait for it.
//!
//! A sync covers what was appended before it began. With many who ask again as soon as they are answered, whoever wakes
//! first after a sync would begin the next one almost alone, and each sync would cover one or two of them. So the one
//! who syncs waits for as many as took part in the last round, but no longer than a sync takes, and when they do not come
//! it expects fewer the next time.

use std::time::{Duration, Instant};

use crate::sync::{Condvar, Mutex, MutexGuard, Ordering};

use super::{Log, PoisonError, Poisoned, lock};

/// Who waits, and who syncs.
#[derive(Default)]
pub(super) struct Commit {
    state: Mutex<State>,
    /// A sync has ended.
    committed: Condvar,
    /// As many wait as were expected.
    gathered: Condvar,
}

#[derive(Default)]
struct State {
    is_syncing: bool,
    /// Those who wait, with the one who syncs.
    waiting: usize,
    /// How many took part in the last round.
    expected: usize,
    /// How long the last sync took.
    sync_time: Duration,
}

impl Log {
    /// Returns when everything up to the frame `wanted`, which was appended, is on disk.
    pub(super) fn wait_synced(&self, wanted: u64) -> Result<(), Poisoned> {
        let mut state = lock(&self.commit.state);
        state.waiting += 1;
        if state.waiting == state.expected {
            self.commit.gathered.notify_one();
        }
        loop {
            let poison = self.check_poison();
            if poison.is_err() || self.synced.load(Ordering::Acquire) >= wanted {
                state.waiting -= 1;
                return poison;
            }
            if state.is_syncing {
                state = self.commit.committed.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            state.is_syncing = true;
            state = self.sync_for_all(state);
            state.is_syncing = false;
            self.commit.committed.notify_all();
        }
    }

    /// Syncs for all who wait, with no lock held meanwhile.
    fn sync_for_all<'a>(&'a self, state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        drop(self.gather(state));
        let began = Instant::now();
        self.sync_now();
        let mut state = lock(&self.commit.state);
        (state.expected, state.sync_time) = (state.waiting, began.elapsed());
        state
    }

    /// Waits for those who took part in the last round.
    #[cfg(not(loom))]
    fn gather<'a>(&self, mut state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        let deadline = Instant::now() + state.sync_time.min(GATHER_MAX);
        while state.waiting < state.expected {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            let waited = self.commit.gathered.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        state
    }

    /// Not modelled: it only takes time.
    #[cfg(loom)]
    fn gather<'a>(&self, state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        state
    }
}

#[cfg(not(loom))]
const GATHER_MAX: Duration = Duration::from_millis(2);
