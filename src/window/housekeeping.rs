//! What is done while nobody asks: sweeping out what has expired, giving arenas back, touching one ahead.
//!
//! A sweep visits one segment at a time and holds its shard's lock for that long only. A shard is swept when it has
//! forgotten as many ids since the last sweep as it remembers, so sweeping costs a fixed number of moves per id.

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
}

impl Set {
    /// Takes notice of the clock.
    pub(crate) fn notice_clock(&self, now: i64) {
        self.common.generations.observe_clock(now);
    }

    /// Works for about `budget`. True when there is nothing left to do for now.
    pub(crate) fn maintain(&self, budget: Duration) -> bool {
        let deadline = Instant::now().checked_add(budget);
        self.touch_ahead();
        let Ok(mut cursor) = self.cursor.try_lock() else { return true };
        let start_shard = cursor.shard;
        loop {
            if self.sweep_step(&mut cursor) && cursor.shard == start_shard {
                break;
            }
            if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                return false;
            }
        }
        drop(cursor);
        let drained = self.memory().drained(ARENAS_KEPT);
        drop(drained);
        true
    }

    /// Visits the next segment that needs it. True when it came to the end of a shard.
    fn sweep_step(&self, cursor: &mut Cursor) -> bool {
        let shard = &self.shards[cursor.shard];
        let mut held = shard.hold(&self.common);
        let starts = cursor.root == 0 && cursor.path == 0;
        if starts && held.core.forgotten <= held.tally().live + SWEEP_MIN {
            cursor.shard = (cursor.shard + 1) % self.shards.len();
            return true;
        }
        if starts {
            held.core.forgotten = 0;
        }
        cursor.path = held.tend(cursor.root, cursor.path);
        drop(held);
        if cursor.path >> super::line::PATH_BITS == 0 {
            return false;
        }
        cursor.path = 0;
        cursor.root += 1;
        if cursor.root < shard.roots.len() {
            return false;
        }
        *cursor = Cursor { shard: (cursor.shard + 1) % self.shards.len(), root: 0, path: 0 };
        true
    }

    /// Maps and touches an arena ahead of need, holding no lock meanwhile.
    fn touch_ahead(&self) {
        let bytes = {
            let memory = self.memory();
            if !memory.wants_spare() {
                return;
            }
            memory.arena_bytes()
        };
        if let Some(spare) = Spare::touch(bytes) {
            let unwanted = self.memory().accept(spare);
            drop(unwanted);
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
