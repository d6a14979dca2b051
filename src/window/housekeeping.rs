//! What is done while nobody asks: sweeping out what has expired, giving arenas back, touching one ahead.
//!
//! A sweep visits one segment at a time and holds its shard's lock for that long only. A shard is swept when it has
//! forgotten as many ids since the last sweep as it remembers, so sweeping costs a fixed number of moves per id.

use std::sync::TryLockError;
use std::time::{Duration, Instant};

use super::Set;
use super::memory::Spare;
use crate::sync::MutexGuard;

/// Where the sweep is.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Cursor {
    shard: usize,
    root: usize,
    path: u32,
    /// In a round that visits every shard, to move what is left into few arenas: how many there were at its start.
    gathers: Option<usize>,
    /// Whether a shard was swept in this round because it had forgotten ids.
    has_swept: bool,
    /// Shards visited since the last time that nothing was left to do.
    shards_done: usize,
}

impl Set {
    /// Takes notice of the clock.
    pub(crate) fn notice_clock(&self, now: i64) {
        self.common.generations.observe_clock(now);
    }

    /// Works for about `budget`. True when there is nothing left to do for now.
    pub(crate) fn maintain(&self, budget: Duration) -> bool {
        self.touch_ahead();
        self.sweep(budget)
    }

    /// Sweeps out what has expired for about `budget`. True when there is nothing left to do for now.
    pub(crate) fn sweep(&self, budget: Duration) -> bool {
        let deadline = Instant::now().checked_add(budget);
        let mut cursor = match self.cursor.try_lock() {
            Ok(cursor) => cursor,
            Err(TryLockError::Poisoned(error)) => error.into_inner(),
            // Somebody else is at it.
            Err(TryLockError::WouldBlock) => return true,
        };
        loop {
            if self.sweep_step(&mut cursor) {
                cursor.shards_done += 1;
                if cursor.gathers.is_some() && cursor.shard == 0 {
                    cursor.shards_done = 0;
                }
            }
            if cursor.shards_done >= self.shards.len() {
                cursor.shards_done = 0;
                return true;
            }
            if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                return false;
            }
        }
    }

    /// Visits the next segment that needs it. True when it came to the end of a shard.
    fn sweep_step(&self, cursor: &mut Cursor) -> bool {
        let mut held = self.hold(&self.shards[cursor.shard]);
        let starts = cursor.root == 0 && cursor.path == 0;
        if starts {
            let is_due = held.core.forgotten > held.tally().live + SWEEP_MIN;
            cursor.has_swept |= is_due;
            if !is_due && cursor.gathers.is_none() {
                drop(held);
                self.next_shard(cursor);
                return true;
            }
            held.core.forgotten = 0;
        }
        cursor.path = held.tend(cursor.root, cursor.path, cursor.gathers.is_some());
        drop(held);
        if cursor.path >> super::line::PATH_BITS == 0 {
            return false;
        }
        cursor.path = 0;
        cursor.root += 1;
        if cursor.root < self.shards[cursor.shard].roots.len() {
            return false;
        }
        self.next_shard(cursor);
        true
    }

    /// At the end of a round that swept, what is left may stand in many arenas, as it moved while all were still in use:
    /// then one more round gathers it.
    fn next_shard(&self, cursor: &mut Cursor) {
        let shard = (cursor.shard + 1) % self.shards.len();
        let mut next = Cursor { shard, root: 0, path: 0, ..*cursor };
        if shard == 0 {
            let mut memory = self.memory();
            let drained = memory.drained(ARENAS_KEPT);
            let helps = cursor.gathers.map_or(cursor.has_swept, |before| memory.arenas() < before);
            next.gathers = (helps && memory.is_sparse()).then(|| memory.arenas());
            next.has_swept = false;
            drop(memory);
            drop(drained);
        }
        *cursor = next;
    }

    /// Maps and touches arenas ahead of need, holding no lock meanwhile. True when any was put to use since the last time.
    pub(crate) fn touch_ahead(&self) -> bool {
        let (is_growing, unwanted) = self.memory().demand();
        drop(unwanted);
        loop {
            let bytes = {
                let memory = self.memory();
                if !memory.wants_spare() {
                    return is_growing;
                }
                memory.arena_bytes()
            };
            let Some(spare) = Spare::touch(bytes) else { return is_growing };
            let unwanted = self.memory().accept(spare);
            if unwanted.is_some() {
                return is_growing;
            }
        }
    }

    fn memory(&self) -> MutexGuard<'_, super::memory::Memory> {
        self.common.memory.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// Empty arenas that stay for the next growth.
const ARENAS_KEPT: usize = 1;
/// Forgotten ids below which sweeping a shard is not worth it.
const SWEEP_MIN: u64 = 64;
