//! How a shard's segments grow, split, are cleaned, and shrink.
//!
//! Nothing here moves more than one segment of 256 lines at a time, and a call does one such step at most, apart from
//! chains of splits so unlikely that only the tests with two-line segments see them. New segments are built beside the
//! old one, and the directory names them when they are complete: when memory runs out half-way, nothing has changed.

use std::sync::Arc;

use super::directory::{SegmentRef, Slot, span};
use super::generations::CLEAN_AFTER;
use super::line::{ENTRIES, Entry, Line, Mark, PATH_BITS, State, Stored, TAG_RANGE};
use super::memory::{CLASS_MIN, NoMemory};
use super::probe::Kernel;
#[cfg(all(target_arch = "x86_64", not(any(miri, loom))))]
use super::probe::with_avx2;
use super::shard::Held;
use crate::sync::MutexGuard;

/// A segment that is built and not yet named by the directory.
#[derive(Debug)]
struct Planted {
    /// One path that leads to it.
    path: u32,
    segment: SegmentRef,
}

/// Entries that want a segment.
#[derive(Debug)]
struct Seed {
    entries: Vec<Entry>,
    path: u32,
    depth: u32,
    class: u32,
}

impl Held<'_> {
    /// Gives the segment of `stored` more room: its first memory, twice the lines, or a split. False when memory or the
    /// length of a path is at its end.
    #[cold]
    pub(super) fn grow(&mut self, root: usize, stored: Stored) -> bool {
        let slot = self.shard.roots[root].slot(stored);
        let (segment, cleaned) = (slot.segment(), slot.cleaned());
        if segment.class() == self.common.shape.class_max {
            return self.split(root, segment, cleaned, stored.c).is_ok();
        }
        let mut entries = Vec::new();
        self.survivors(segment, cleaned, &mut entries);
        let class = (segment.class() + 1).max(CLASS_MIN);
        let seed = Seed { entries, path: stored.c, depth: segment.depth(), class };
        let grown = self.replant(root, segment, seed);
        grown.is_ok()
    }

    /// Splits a segment of the largest class in two. All that can fail is done before the first entry moves.
    fn split(&mut self, root: usize, segment: SegmentRef, cleaned: u64, path: u32) -> Result<(), NoMemory> {
        let (class, depth) = (segment.class(), segment.depth() + 1);
        if depth > PATH_BITS {
            return Err(NoMemory);
        }
        let lines = self.memory().allocate(class)?;
        let sibling = SegmentRef::new(lines, class, depth);
        if let Err(NoMemory) = self.deepen(root, depth) {
            release(&mut self.memory(), sibling);
            return Err(NoMemory);
        }
        let bit = 1 << (PATH_BITS - depth);
        if !self.can_tell_tags(cleaned) {
            self.expire(segment, cleaned);
        }
        let era = self.core.era;
        let (mut old, mut new) = self.core.open_both(segment, sibling);
        let moved = match self.common.kernel {
            Kernel::Portable(_) => old.split(&mut new, bit, era),
            #[cfg(all(target_arch = "x86_64", not(any(miri, loom))))]
            Kernel::Avx2(probe) => with_avx2(probe, || old.split(&mut new, bit, era)),
        };
        self.core.moved += moved;
        self.name(root, path & !bit, segment.deeper(), era.newest);
        self.name(root, path | bit, sibling, era.newest);
        Ok(())
    }

    /// Frees what has expired. Overflow marks that are not needed go with it.
    #[cold]
    pub(super) fn clean(&mut self, root: usize, segment: SegmentRef, cleaned: u64, path: u32) {
        self.expire(segment, cleaned);
        self.open(segment).mark_overflows();
        self.name(root, path, segment, self.core.era.newest);
    }

    /// Frees what has expired in a segment last cleaned in generation `cleaned`, where it stands.
    fn expire(&mut self, segment: SegmentRef, cleaned: u64) {
        if self.can_tell_tags(cleaned) {
            let era = self.core.era;
            return self.open(segment).expire(era);
        }
        let fate = self.fate(cleaned);
        self.open(segment).update_marks(fate);
    }

    /// Whether no tag can have come round in a segment last cleaned in generation `cleaned`.
    fn can_tell_tags(&self, cleaned: u64) -> bool {
        self.core.era.newest - cleaned + (self.core.counts.len() as u64) < TAG_RANGE
    }

    /// Collects the entries of `segment` that still count, with marks that can be told now.
    fn survivors(&mut self, segment: SegmentRef, cleaned: u64, entries: &mut Vec<Entry>) {
        if !segment.is_empty() {
            entries.reserve_exact(ENTRIES << segment.class());
            let fate = self.fate(cleaned);
            let standing = self.open(segment);
            entries.extend(standing.entries().filter_map(|entry| Some(Entry { mark: fate(entry.mark)?, ..entry })));
        }
    }

    /// What becomes of a mark in a segment last cleaned in generation `cleaned`: `None` when it is forgotten. Right
    /// however long the segment was not asked.
    fn fate(&self, cleaned: u64) -> impl Fn(Mark) -> Option<Mark> + use<> {
        let era = self.core.era;
        // No entry is younger than this: a question that found the segment older would have cleaned it first.
        let youngest = era.newest.min(cleaned + CLEAN_AFTER);
        move |mark| {
            if mark.is_pending() {
                return Some(Mark::new(State::Pending, era.newest));
            }
            (mark.generation(youngest) >= era.horizon).then_some(mark)
        }
    }

    /// Puts the seed's entries into new segments in place of `old`.
    fn replant(&mut self, root: usize, old: SegmentRef, seed: Seed) -> Result<(), NoMemory> {
        let mut planted = Vec::new();
        let mut seeds = vec![seed];
        while let Some(seed) = seeds.pop() {
            let moved = seed.entries.len() as u64;
            if let Err(NoMemory) = self.plant(seed, &mut seeds, &mut planted) {
                let mut memory = self.memory();
                for Planted { segment, .. } in planted.iter().filter(|planted| !planted.segment.is_empty()) {
                    release(&mut memory, *segment);
                }
                return Err(NoMemory);
            }
            self.core.moved += moved;
        }
        let depth = planted.iter().map(|planted| planted.segment.depth()).max().unwrap_or(0);
        if self.deepen(root, depth).is_err() {
            let mut memory = self.memory();
            planted.iter().for_each(|planted| release(&mut memory, planted.segment));
            return Err(NoMemory);
        }
        let newest = self.core.era.newest;
        for Planted { path, segment } in planted {
            self.name(root, path, segment, newest);
        }
        if !old.is_empty() {
            release(&mut self.memory(), old);
        }
        Ok(())
    }

    /// Builds one segment, or finds out that it takes two.
    fn plant(&mut self, mut seed: Seed, seeds: &mut Vec<Seed>, planted: &mut Vec<Planted>) -> Result<(), NoMemory> {
        let class_max = self.common.shape.class_max;
        while seed.class <= class_max {
            let lines = self.memory().allocate(seed.class)?;
            let segment = SegmentRef::new(lines, seed.class, seed.depth);
            if self.open(segment).fill(&seed.entries) {
                planted.push(Planted { path: seed.path, segment });
                return Ok(());
            }
            release(&mut self.memory(), segment);
            seed.class += 1;
        }
        if seed.depth == PATH_BITS {
            return Err(NoMemory);
        }
        let bit = 1 << (PATH_BITS - 1 - seed.depth);
        let (one, zero): (Vec<Entry>, Vec<Entry>) = seed.entries.iter().partition(|entry| entry.stored.c & bit != 0);
        let depth = seed.depth + 1;
        seeds.push(Seed { entries: zero, path: seed.path & !bit, depth, class: class_max });
        seeds.push(Seed { entries: one, path: seed.path | bit, depth, class: class_max });
        Ok(())
    }

    /// Makes the directory tell at least `depth` bits of path apart.
    fn deepen(&mut self, root: usize, depth: u32) -> Result<(), NoMemory> {
        while self.shard.roots[root].slots().len() < 1 << depth {
            self.double_directory(root)?;
        }
        Ok(())
    }

    /// Makes every slot of `segment`'s paths name it. The directory must be deep enough.
    fn name(&mut self, root: usize, path: u32, segment: SegmentRef, cleaned: u64) {
        let slots = self.shard.roots[root].slots();
        let shift = PATH_BITS - slots.len().trailing_zeros();
        let (first, behind) = span(path, segment.depth());
        for slot in &slots[(first >> shift) as usize..(behind >> shift) as usize] {
            slot.set(segment, cleaned);
        }
        self.shard.version.bump();
    }

    fn double_directory(&mut self, root: usize) -> Result<(), NoMemory> {
        let old = self.shard.roots[root].slots();
        self.memory().add_overhead(size_of_val(old) * 2)?;
        let slots: Arc<[Slot]> =
            old.iter().flat_map(|slot| [0; 2].map(|_| Slot::new(slot.segment(), slot.cleaned()))).collect();
        self.shard.roots[root].replace(&slots);
        self.shard.version.bump();
        self.core.directories.push(slots);
        Ok(())
    }

    fn memory(&self) -> MutexGuard<'_, super::memory::Memory> {
        self.common.memory.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Makes room for about `ids` in each root ahead of time, as segments that start less than full.
    pub(super) fn presize(&mut self, root: usize, ids: f64) -> Result<(), NoMemory> {
        let class_max = self.common.shape.class_max;
        let (mut depth, mut class) = (0, CLASS_MIN);
        while ids > PRESIZED_FILL * ((ENTRIES << class) << depth) as f64 && depth < PATH_BITS / 2 {
            if class < class_max { class += 1 } else { depth += 1 }
        }
        self.deepen(root, depth)?;
        let newest = self.core.era.newest;
        for number in 0..1_u32 << depth {
            let lines = self.memory().allocate(class)?;
            let segment = SegmentRef::new(lines, class, depth);
            self.open(segment).fill(&[]);
            self.name(root, number << (PATH_BITS - depth), segment, newest);
        }
        Ok(())
    }

    /// Tends to the segment at `path`: cleans it when it holds expired entries, and gives memory back that it does not
    /// need. One that is used well stays as it is, so that a set from which as many ids leave as come is left alone; unless
    /// `gathers`, which moves it towards lower arenas. Returns the path of the next one.
    pub(super) fn tend(&mut self, root: usize, path: u32, gathers: bool) -> u32 {
        let slots = self.shard.roots[root].slots();
        let slot = &slots[(path >> (PATH_BITS - slots.len().trailing_zeros())) as usize];
        let (segment, cleaned) = (slot.segment(), slot.cleaned());
        let (_, next) = span(path, segment.depth());
        if !segment.is_empty() && (gathers || !self.is_used_well(segment, cleaned)) {
            let mut entries = Vec::new();
            self.survivors(segment, cleaned, &mut entries);
            self.tend_with(root, path, segment, cleaned, entries);
        }
        next
    }

    /// How full the shard's segments are, from 0 to 1, when so many ids are remembered.
    pub(super) fn fill(&self, live: u64) -> f64 {
        (live + self.core.pending) as f64 / self.places().max(1) as f64
    }

    /// How many entries the shard's segments have room for.
    pub(super) fn places(&self) -> usize {
        let mut places = 0;
        for root in &self.shard.roots {
            let slots = root.slots();
            let mut at = 0;
            while let Some(slot) = slots.get(at) {
                let segment = slot.segment();
                places += if segment.has_lines() { ENTRIES << segment.class() } else { 0 };
                at += slots.len() >> segment.depth();
            }
        }
        places
    }

    fn is_used_well(&mut self, segment: SegmentRef, cleaned: u64) -> bool {
        let era = self.core.era;
        let capacity = ENTRIES << segment.class();
        self.can_tell_tags(cleaned) && self.open(segment).live(era) as f64 > WELL_USED_FILL * capacity as f64
    }

    fn tend_with(&mut self, root: usize, path: u32, segment: SegmentRef, cleaned: u64, entries: Vec<Entry>) {
        if entries.is_empty() {
            self.name(root, path, SegmentRef::empty(segment.depth()), self.core.era.newest);
            release(&mut self.memory(), segment);
            return;
        }
        let Some(entries) = self.merge(root, path, segment, entries) else { return };
        let mut class = segment.class();
        while class > CLASS_MIN && entries.len() as f64 <= SHRUNK_FILL * (ENTRIES << (class - 1)) as f64 {
            class -= 1;
        }
        let lower = self.memory().has_lower(chunk(segment), class);
        if class == segment.class() && !lower {
            return self.clean(root, segment, cleaned, path);
        }
        let seed = Seed { entries, path, depth: segment.depth(), class };
        // Without memory for the move it stays as it is, which is no loss.
        let _ = self.replant(root, segment, seed);
    }

    /// Joins the segment with its sibling when both fit into one. Gives the entries back when it does not come to that.
    fn merge(&mut self, root: usize, path: u32, segment: SegmentRef, mut entries: Vec<Entry>) -> Option<Vec<Entry>> {
        let most = SHRUNK_FILL * (ENTRIES << self.common.shape.class_max) as f64;
        if segment.depth() == 0 || entries.len() as f64 > most {
            return Some(entries);
        }
        let sibling_path = path ^ 1 << (PATH_BITS - segment.depth());
        let slots = self.shard.roots[root].slots();
        let slot = &slots[(sibling_path >> (PATH_BITS - slots.len().trailing_zeros())) as usize];
        let (sibling, cleaned) = (slot.segment(), slot.cleaned());
        if sibling.depth() != segment.depth() {
            return Some(entries);
        }
        let mut others = Vec::new();
        self.survivors(sibling, cleaned, &mut others);
        if (entries.len() + others.len()) as f64 > most {
            return Some(entries);
        }
        let own = entries.len();
        entries.append(&mut others);
        let class = self.common.shape.class_max;
        let seed = Seed { entries: entries.clone(), path, depth: segment.depth() - 1, class };
        if self.replant(root, segment, seed).is_err() {
            entries.truncate(own);
            return Some(entries);
        }
        if !sibling.is_empty() {
            release(&mut self.memory(), sibling);
        }
        None
    }
}

fn chunk(segment: SegmentRef) -> std::ptr::NonNull<Line> {
    std::ptr::NonNull::new(segment.lines()).unwrap_or(std::ptr::NonNull::dangling())
}

fn release(memory: &mut super::memory::Memory, segment: SegmentRef) {
    memory.release(chunk(segment), segment.class());
}

/// Presized segments are filled so far at the number of ids that was expected: a segment grows at about 0.9.
const PRESIZED_FILL: f64 = 0.8;
/// Segments are made smaller only when they are filled less than this afterwards, so that they do not swing.
const SHRUNK_FILL: f64 = 0.5;
/// A segment that is filled more than this can be neither made smaller nor, most likely, be joined with another.
const WELL_USED_FILL: f64 = 0.4;
