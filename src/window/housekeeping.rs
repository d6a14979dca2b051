//! What is done while nobody asks: sweeping out what has expired, giving arenas back, touching one ahead.
//!
//! A sweep visits one segment at a time and holds its shard's lock for that long only. A shard is swept when it has
//! forgotten as many ids since the last sweep as it remembers, so sweeping costs a fixed number of moves per id, and when these
//! leave much of its segments empty, which its directory tells, now and then. One from which as many ids leave as come is swept
//! rarely: who asks waits for the lock, and for lines that the sweep has taken to another core, and little is given back.

use std::sync::TryLockError;
use std::time::{Duration, Instant};

use super::Set;
use super::memory::Spare;
use super::shard::Held;
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
            let is_due = held.is_sweep_due();
            cursor.has_swept |= is_due;
            if !is_due && cursor.gathers.is_none() {
                drop(held);
                self.next_shard(cursor);
                return true;
            }
            (held.core.forgotten, held.core.looked_at) = (0, 0);
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

impl Held<'_> {
    fn is_sweep_due(&mut self) -> bool {
        let (live, forgotten) = (self.tally().live, self.core.forgotten);
        if forgotten <= live + SWEEP_MIN || forgotten < self.core.looked_at + live / LOOKS {
            return false;
        }
        self.core.looked_at = forgotten;
        // Some segments may be empty although most are not.
        self.fill(live) < SWEPT_FILL || forgotten / SWEPT_ANYWAY > live
    }
}

/// Empty arenas that stay for the next growth.
const ARENAS_KEPT: usize = 1;
/// Forgotten ids below which sweeping a shard is not worth it.
const SWEEP_MIN: u64 = 64;
/// How often it is looked up how full a shard is, while it forgets as many ids as it remembers.
const LOOKS: u64 = 8;
/// A shard that is filled less than this may give memory back: a segment becomes smaller, or is joined with another, from 0.25 on.
/// It is 0.45 after all its segments have split.
const SWEPT_FILL: f64 = 0.27;
/// A shard is swept anyway when it has forgotten so many times what it remembers.
const SWEPT_ANYWAY: u64 = 8;

#[cfg(all(test, not(loom)))]
mod tests {
    use super::super::directory::root_of;
    use super::super::shard::Act;
    use super::super::{Config, Limits, Shape, When};
    use super::*;
    use crate::event::Fingerprint;

    const SLICE: i64 = 1_000;
    /// Ids of one slice of the window.
    const PART: u64 = 200;

    fn set() -> Set {
        let (max_ids, generation_ids) = (u64::MAX, u64::MAX);
        let window = 64 * SLICE;
        let limits = Limits { window, lateness: None, max_future: 0, max_ids, generation_ids, evict: true };
        let shape = Shape { shard_bits: 1, roots: 2, class_max: 3 };
        Set::new(&Config {
            limits,
            extend: false,
            gathers: false,
            expected_ids: 0,
            memory_bytes_max: usize::MAX,
            shape,
        })
        .unwrap()
    }

    fn id(n: u64) -> Fingerprint {
        Fingerprint::from_u128(u128::from(n + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15_F39C_C060_5CED_C835))
    }

    fn observe(set: &Set, part: u64) {
        for n in part * PART..(part + 1) * PART {
            set.ask(id(n), When::Now(part as i64 * SLICE), Act::Observe);
        }
        while !set.sweep(Duration::from_secs(1)) {}
    }

    /// By shard, how many ids it has forgotten since it was swept, how full it is, and of how many places.
    fn state(set: &Set) -> Vec<(u64, f64, usize)> {
        let state = |shard| {
            let held = set.hold(shard);
            let live = held.tally().live;
            (held.core.forgotten, held.fill(live), held.places())
        };
        set.shards.iter().map(state).collect()
    }

    #[test]
    fn a_set_from_which_as_many_ids_leave_as_come_is_left_alone() {
        let set = set();
        (0..4 * 64).for_each(|part| observe(&set, part));
        for (forgotten, fill, _) in state(&set) {
            assert!(fill > 0.4 && fill < 1.0, "{fill}");
            assert!(forgotten > 2 * 64 * PART / 2, "swept: {forgotten} forgotten since");
        }
        // Then a tenth as many come: what the others had is made smaller.
        for part in 4 * 64..6 * 64 {
            if part % 10 == 0 {
                observe(&set, part);
            }
        }
        for (forgotten, fill, _) in state(&set) {
            assert!(fill > 0.2 && forgotten < 20 * PART, "{fill} {forgotten}");
        }
    }

    #[test]
    fn what_a_part_of_a_full_shard_does_not_need_is_given_back() {
        let set = set();
        let is_of_first_root = |n: u64| root_of(id(n), 1, 2) == 0;
        let observe = |part: u64, all: bool| {
            for n in (part * PART..(part + 1) * PART).filter(|n| all || is_of_first_root(*n)) {
                set.ask(id(n), When::Now(part as i64 * SLICE), Act::Observe);
            }
            while !set.sweep(Duration::from_secs(1)) {}
        };
        let places = || state(&set).iter().map(|(_, _, places)| places).sum::<usize>();
        (0..64).for_each(|part| observe(part, true));
        let before = places();
        (64..12 * 64).for_each(|part| observe(part, false));
        assert!(places() < before * 17 / 20, "{} of {before} places", places());
    }

    #[test]
    fn a_shard_is_as_full_as_its_segments_have_entries() {
        let set = set();
        assert_eq!(state(&set), [(0, 0.0, 0); 2]);
        (0..50).for_each(|part| observe(&set, part));
        for shard in &set.shards {
            let mut held = set.hold(shard);
            let (mut entries, mut places) = (0, 0);
            for root in 0..held.shard.roots.len() {
                let mut named: Vec<_> =
                    held.shard.roots[root].slots().iter().map(super::super::directory::Slot::segment).collect();
                named.dedup_by_key(|segment| segment.lines());
                for segment in named.into_iter().filter(|segment| segment.has_lines()) {
                    entries += held.open(segment).entries().count();
                    places += 5 << segment.class();
                }
            }
            let live = held.tally().live;
            assert!(entries > 0 && (held.fill(live) - entries as f64 / places as f64).abs() < 1e-9);
        }
    }
}
