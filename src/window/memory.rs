//! Memory of the set: 2 MiB arenas, cut in pages, cut in chunks of a power of two of lines.
//!
//! An arena is mapped whole and given back whole: freeing parts of a huge page lowers the resident size but returns
//! nothing. Allocation takes the lowest address that fits, so that when the set shrinks, segments which are rebuilt move
//! towards low arenas and the high ones drain.
//!
//! Invariants, on which the `unsafe` code of the set stands:
//! 1. A chunk handed out by [`Memory::allocate`] is `1 << class` lines of mapped memory, aligned to its size, and no
//!    other chunk overlaps it until it is given to [`Memory::release`].
//! 2. An arena stays mapped as long as one of its chunks is out.
//! 3. The content of a new chunk is whatever was there before: zeroes from the kernel, or lines of a former segment. Both
//!    are valid [`Line`]s, as every bit pattern is.

use std::collections::{BTreeMap, BTreeSet};
use std::ptr::NonNull;

use super::line::Line;

/// Log2 of the lines in the largest chunk, a page of 16 KiB.
pub(super) const CLASS_MAX: u32 = 8;
/// Log2 of the lines in the smallest chunk. Two, as an ID has two lines to choose from.
pub(super) const CLASS_MIN: u32 = 1;

/// The arenas of one set.
#[derive(Debug)]
pub(super) struct Memory {
    /// By base address.
    arenas: BTreeMap<usize, Arena>,
    /// Bases of the arenas that have a free page.
    roomy: BTreeSet<usize>,
    /// For each class the addresses of pages cut to it that have a free chunk.
    cut: [BTreeSet<usize>; CLASS_MAX as usize + 1],
    /// Arenas mapped and touched ahead, with nothing in them.
    spares: Vec<Arena>,
    /// Arenas that were put to use since [`Memory::demand`] was asked last.
    added: usize,
    /// How many arenas should be touched ahead.
    spares_wanted: usize,
    /// How often in a row [`Memory::demand`] found that none was put to use.
    calm: u32,
    arena_bytes: usize,
    bytes_max: usize,
    /// Bytes that the rest of the set holds, counted towards the limit.
    overhead_bytes: usize,
    free_pages: usize,
    /// Free pages that only chunks of the smallest class may take when no arena can be added: so a part of the set that
    /// has no memory yet gets some even at the limit.
    reserved_pages: usize,
}

/// The limit on memory is reached, or the system has none left.
#[derive(Debug)]
pub(super) struct NoMemory;

#[derive(Debug)]
struct Arena {
    base: NonNull<u8>,
    /// One bit per page that no chunk stands in.
    free_pages: u128,
    pages: Box<[Page]>,
}

#[derive(Debug, Clone, Copy)]
struct Page {
    class: u32,
    /// One bit per free chunk; a page of the largest class is one chunk.
    free: u128,
}

// SAFETY: an arena is plain memory owned by this value; nothing in it is tied to a thread.
unsafe impl Send for Arena {}

impl Memory {
    /// A memory of at most `bytes_max` bytes, of which the caller itself holds `overhead_bytes`. `reserved_chunks` of the
    /// smallest class are there in any case. `None` when there is no room for them.
    pub(super) fn new(bytes_max: usize, overhead_bytes: usize, reserved_chunks: usize) -> Option<Self> {
        let room = bytes_max.saturating_sub(overhead_bytes);
        let mut arena_bytes = ARENA_BYTES_MAX;
        while arena_bytes > PAGE_BYTES && room / arena_bytes < ARENAS_WANTED {
            arena_bytes /= 2;
        }
        let reserved_pages = if bytes_max == usize::MAX { 0 } else { reserved_chunks.div_ceil(CHUNKS_MAX) };
        if room < (reserved_pages + 1) * (PAGE_BYTES + size_of::<Page>()) {
            return None;
        }
        Some(Self {
            arenas: BTreeMap::new(),
            roomy: BTreeSet::new(),
            cut: Default::default(),
            spares: Vec::new(),
            added: 0,
            spares_wanted: 1,
            calm: STEADY_FOR,
            arena_bytes,
            bytes_max,
            overhead_bytes,
            free_pages: 0,
            reserved_pages,
        })
    }

    /// Bytes held: arenas, spare ones, and the caller's overhead.
    pub(super) fn bytes(&self) -> usize {
        (self.arenas.len() + self.spares.len()) * self.arena_cost() + self.overhead_bytes
    }

    /// Bytes of an arena and of what is noted about it.
    fn arena_cost(&self) -> usize {
        self.arena_bytes + self.arena_bytes / PAGE_BYTES * size_of::<Page>()
    }

    /// Counts `bytes` more of the caller's own memory, if the limit allows them. Spare arenas give way.
    pub(super) fn add_overhead(&mut self, bytes: usize) -> Result<(), NoMemory> {
        while self.bytes().saturating_add(bytes) > self.bytes_max
            && let Some(arena) = self.spares.pop()
        {
            drop(Spare { base: arena.base, bytes: self.arena_bytes });
        }
        if self.bytes().saturating_add(bytes) > self.bytes_max {
            return Err(NoMemory);
        }
        self.overhead_bytes += bytes;
        Ok(())
    }

    /// Hands out a chunk of `1 << class` lines.
    pub(super) fn allocate(&mut self, class: u32) -> Result<NonNull<Line>, NoMemory> {
        let lower_arena = self.roomy.first().copied();
        let page = match self.cut[class as usize].first().copied() {
            Some(page) if lower_arena.is_none_or(|lower| page <= lower || self.base_of(page) == lower) => page,
            Some(page) => self.cut_page(class).unwrap_or(page),
            None => self.cut_page(class)?,
        };
        let base = self.base_of(page);
        let Some(arena) = self.arenas.get_mut(&base) else { return Err(NoMemory) };
        let cell = &mut arena.pages[(page - base) / PAGE_BYTES];
        let chunk = cell.free.trailing_zeros();
        cell.free &= cell.free - 1;
        if cell.free == 0 {
            self.cut[class as usize].remove(&page);
        }
        let offset = page - base + ((chunk as usize) << class) * size_of::<Line>();
        // SAFETY: the offset is that of a page below the arena's size plus that of a chunk below the page's.
        Ok(unsafe { arena.base.add(offset) }.cast())
    }

    /// Takes back a chunk that [`Memory::allocate`] handed out for `class`.
    pub(super) fn release(&mut self, chunk: NonNull<Line>, class: u32) {
        let address = chunk.addr().get();
        let base = self.base_of(address);
        let page = address & !(PAGE_BYTES - 1);
        let Some(arena) = self.arenas.get_mut(&base) else { return };
        let number = (page - base) / PAGE_BYTES;
        let cell = &mut arena.pages[number];
        debug_assert_eq!(cell.class, class);
        cell.free |= 1 << ((address - page) >> (class + LINE_SHIFT));
        if cell.free == all_free(class) {
            cell.free = 0;
            arena.free_pages |= 1 << number;
            self.free_pages += 1;
            self.cut[class as usize].remove(&page);
            self.roomy.insert(base);
        } else {
            self.cut[class as usize].insert(page);
        }
    }

    /// Whether an allocation of `class` would stand below `chunk`, so that moving it there helps an arena to drain.
    pub(super) fn has_lower(&self, chunk: NonNull<Line>, class: u32) -> bool {
        let base = self.base_of(chunk.addr().get());
        let cut = self.cut[class as usize].first().map(|page| self.base_of(*page));
        cut.into_iter().chain(self.roomy.first().copied()).any(|lowest| lowest < base)
    }

    /// How many arenas are in use.
    pub(super) fn arenas(&self) -> usize {
        self.arenas.len()
    }

    /// Whether more than half of the pages stand empty, scattered over several arenas.
    pub(super) fn is_sparse(&self) -> bool {
        self.arenas.len() > 2 && self.free_pages * 2 > self.arenas.len() * (self.arena_bytes / PAGE_BYTES)
    }

    /// Whether any arena was put to use since this was asked last, and spare ones that are not wanted any more. While
    /// several are put to use at a time, one more than usual is touched ahead.
    pub(super) fn demand(&mut self) -> (bool, Vec<Spare>) {
        let added = std::mem::take(&mut self.added);
        self.spares_wanted = added.clamp(1, SPARES_MAX);
        self.calm = if added > 0 { 0 } else { self.calm.saturating_add(1) };
        let kept = if self.calm < CALM_AFTER { SPARES_MAX } else { usize::from(self.is_nearly_full()) };
        let unwanted = self.spares.drain(kept.min(self.spares.len())..);
        let unwanted = unwanted.map(|arena| Spare { base: arena.base, bytes: self.arena_bytes }).collect();
        (added > 0, unwanted)
    }

    /// Whether an arena should be touched ahead: some were put to use lately or the last page of the present ones is near, and
    /// the limit allows one.
    pub(super) fn wants_spare(&self) -> bool {
        !self.arenas.is_empty()
            && self.spares.len() < self.spares_wanted
            && self.bytes() + self.arena_cost() <= self.bytes_max
            && (self.is_growing() || self.is_nearly_full())
    }

    /// Whether arenas were put to use lately, and less than one is left of them.
    fn is_growing(&self) -> bool {
        self.calm < STEADY_FOR && self.arenas.len() > 1 && self.free_pages < self.arena_bytes / PAGE_BYTES
    }

    /// What was put to use so far says nothing about what is to come.
    pub(super) fn forget_demand(&mut self) {
        self.added = 0;
    }

    fn is_nearly_full(&self) -> bool {
        let last = self.roomy.last().and_then(|base| self.arenas.get(base));
        let free = last.map_or(0, |arena| arena.free_pages.count_ones() as usize);
        self.roomy.len() <= 1 && free * PAGE_BYTES < self.arena_bytes / 2
    }

    /// The size of one arena.
    pub(super) fn arena_bytes(&self) -> usize {
        self.arena_bytes
    }

    /// Accepts an arena touched ahead by [`Spare::touch`]. Without need for it, it is returned.
    pub(super) fn accept(&mut self, spare: Spare) -> Option<Spare> {
        if self.wants_spare() && spare.bytes == self.arena_bytes {
            self.spares.push(Arena::new(spare.into_base(), self.arena_bytes));
            return None;
        }
        Some(spare)
    }

    /// Takes out the arenas in which nothing stands, all but `keep` of them; dropping them unmaps them.
    pub(super) fn drained(&mut self, keep: usize) -> Vec<Spare> {
        let whole = all_pages(self.arena_bytes);
        let mut empty: Vec<usize> = self
            .roomy
            .iter()
            .copied()
            .filter(|base| self.arenas.get(base).is_some_and(|a| a.free_pages == whole))
            .collect();
        let surplus = empty.split_off(keep.min(empty.len()));
        let mut out: Vec<Spare> = Vec::new();
        for base in surplus {
            self.roomy.remove(&base);
            self.free_pages -= self.arena_bytes / PAGE_BYTES;
            out.extend(self.arenas.remove(&base).map(|arena| Spare { base: arena.base, bytes: self.arena_bytes }));
        }
        if !out.is_empty() || !empty.is_empty() {
            out.extend(self.spares.drain(..).map(|arena| Spare { base: arena.base, bytes: self.arena_bytes }));
        }
        out
    }

    fn base_of(&self, address: usize) -> usize {
        address & !(self.arena_bytes - 1)
    }

    fn cut_page(&mut self, class: u32) -> Result<usize, NoMemory> {
        let kept = if class == CLASS_MIN { 0 } else { self.reserved_pages };
        if self.free_pages <= kept {
            self.add_arena()?;
        }
        let Some(base) = self.roomy.first().copied() else { return Err(NoMemory) };
        let Some(arena) = self.arenas.get_mut(&base) else { return Err(NoMemory) };
        let number = arena.free_pages.trailing_zeros() as usize;
        arena.free_pages &= arena.free_pages - 1;
        self.free_pages -= 1;
        arena.pages[number] = Page { class, free: all_free(class) };
        if arena.free_pages == 0 {
            self.roomy.remove(&base);
        }
        let page = base + number * PAGE_BYTES;
        self.cut[class as usize].insert(page);
        Ok(page)
    }

    fn add_arena(&mut self) -> Result<(), NoMemory> {
        let arena = match self.spares.pop() {
            Some(spare) => spare,
            None if self.bytes() + self.arena_cost() > self.bytes_max => return Err(NoMemory),
            None => Arena::new(system::map(self.arena_bytes).ok_or(NoMemory)?, self.arena_bytes),
        };
        let base = arena.base.addr().get();
        self.arenas.insert(base, arena);
        self.added += 1;
        self.roomy.insert(base);
        self.free_pages += self.arena_bytes / PAGE_BYTES;
        Ok(())
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        for arena in std::mem::take(&mut self.arenas).into_values().chain(std::mem::take(&mut self.spares)) {
            drop(Spare { base: arena.base, bytes: self.arena_bytes });
        }
    }
}

impl Arena {
    fn new(base: NonNull<u8>, bytes: usize) -> Self {
        let pages = vec![Page { class: 0, free: 0 }; bytes / PAGE_BYTES].into_boxed_slice();
        Self { base, free_pages: all_pages(bytes), pages }
    }
}

/// A mapped arena that no set owns: on its way in, touched ahead of need, or on its way out.
#[derive(Debug)]
pub(super) struct Spare {
    base: NonNull<u8>,
    bytes: usize,
}

// SAFETY: as for `Arena`.
unsafe impl Send for Spare {}

impl Spare {
    /// Maps an arena of `bytes` and touches it, which costs about 0.1 ms for 2 MiB: not for a caller's path.
    pub(super) fn touch(bytes: usize) -> Option<Self> {
        let base = system::map(bytes)?;
        for offset in (0..bytes).step_by(4096) {
            // SAFETY: the offset is below the size that was just mapped, readable and writable.
            unsafe { base.add(offset).write_volatile(0) };
        }
        Some(Self { base, bytes })
    }

    fn into_base(self) -> NonNull<u8> {
        std::mem::ManuallyDrop::new(self).base
    }
}

impl Drop for Spare {
    fn drop(&mut self) {
        // SAFETY: a `Spare` owns `bytes` bytes from `system::map` that nothing refers to (invariant 2).
        unsafe { system::unmap(self.base, self.bytes) };
    }
}

/// Arenas touched ahead while the set grows.
const SPARES_MAX: usize = 2;
/// How often nothing must have been put to use before the set counts as one that does not grow at the moment.
const STEADY_FOR: u32 = 8;
/// How often nothing must have been put to use before spare arenas are given back: with a housekeeping thread, 0.7 s after the
/// last was.
const CALM_AFTER: u32 = 60;
/// Chunks of the smallest class in a page.
const CHUNKS_MAX: usize = 1 << (CLASS_MAX - CLASS_MIN);

const fn all_free(class: u32) -> u128 {
    u128::MAX >> (128 - (1_u32 << (CLASS_MAX - class)))
}

const fn all_pages(arena_bytes: usize) -> u128 {
    u128::MAX >> (128 - arena_bytes / PAGE_BYTES)
}

/// Log2 of the bytes in a line.
const LINE_SHIFT: u32 = size_of::<Line>().trailing_zeros();
/// Bytes in the largest chunk.
const PAGE_BYTES: usize = size_of::<Line>() << CLASS_MAX;
/// One huge page of x86-64 and of AArch64 with 4 KiB pages.
const ARENA_BYTES_MAX: usize = 2 << 20;
/// Under a limit so small that fewer arenas than this fit, arenas are smaller.
const ARENAS_WANTED: usize = 16;

/// Anonymous mappings that ask for huge pages.
#[cfg(not(any(miri, loom)))]
mod system {
    use std::ptr::NonNull;

    /// Maps `bytes` (a power of two), aligned to their size.
    pub(super) fn map(bytes: usize) -> Option<NonNull<u8>> {
        // Most often the kernel places mappings side by side, so the first try is aligned already.
        let first = anonymous(bytes)?;
        if first.addr().get().is_multiple_of(bytes) {
            return Some(advise(first, bytes));
        }
        // SAFETY: `first` was mapped just now with this size.
        unsafe { unmap(first, bytes) };
        let wide = anonymous(bytes * 2)?;
        let head = wide.addr().get().next_multiple_of(bytes) - wide.addr().get();
        // SAFETY: `wide` spans twice `bytes`, so `head + bytes` lies in it; what is outside of that is not used.
        let base = unsafe {
            let base = wide.add(head);
            if head > 0 {
                unmap(wide, head);
            }
            if head < bytes {
                unmap(base.add(bytes), bytes - head);
            }
            base
        };
        Some(advise(base, bytes))
    }

    /// # Safety
    /// The range was mapped by this module and nothing refers to it.
    pub(super) unsafe fn unmap(base: NonNull<u8>, bytes: usize) {
        // SAFETY: promised by the caller.
        unsafe { libc::munmap(base.as_ptr().cast(), bytes) };
    }

    fn anonymous(bytes: usize) -> Option<NonNull<u8>> {
        // SAFETY: a new private anonymous mapping at an address of the kernel's choice touches no memory in use.
        let base = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                bytes,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                -1,
                0,
            )
        };
        if base == libc::MAP_FAILED { None } else { NonNull::new(base.cast()) }
    }

    fn advise(base: NonNull<u8>, bytes: usize) -> NonNull<u8> {
        #[cfg(target_os = "linux")]
        if bytes == super::ARENA_BYTES_MAX {
            // SAFETY: the range is one mapping of ours; the advice changes no content. Failure costs speed only.
            unsafe { libc::madvise(base.as_ptr().cast(), bytes, libc::MADV_HUGEPAGE) };
        }
        #[cfg(not(target_os = "linux"))]
        let _ = bytes;
        base
    }
}

/// The allocator of the standard library: for models and interpreters that know no `mmap`.
#[cfg(any(miri, loom))]
mod system {
    use std::alloc::{Layout, alloc_zeroed, dealloc};
    use std::ptr::NonNull;

    pub(super) fn map(bytes: usize) -> Option<NonNull<u8>> {
        let layout = Layout::from_size_align(bytes, bytes).ok()?;
        // SAFETY: the layout has a size above zero.
        NonNull::new(unsafe { alloc_zeroed(layout) })
    }

    /// # Safety
    /// The range came from [`map`] with the same size, and nothing refers to it.
    pub(super) unsafe fn unmap(base: NonNull<u8>, bytes: usize) {
        if let Ok(layout) = Layout::from_size_align(bytes, bytes) {
            // SAFETY: promised by the caller.
            unsafe { dealloc(base.as_ptr(), layout) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_do_not_overlap_and_come_back() {
        let mut memory = Memory::new(usize::MAX, 0, 0).unwrap();
        let mut out = Vec::new();
        for round in 0..3_000_u32 {
            let class = CLASS_MIN + round % CLASS_MAX;
            out.push((memory.allocate(class).unwrap(), class));
        }
        let mut ranges: Vec<_> =
            out.iter().map(|(chunk, class)| (chunk.addr().get(), size_of::<Line>() << class)).collect();
        ranges.sort_unstable();
        assert!(ranges.windows(2).all(|pair| pair[0].0 + pair[0].1 <= pair[1].0));
        assert!(ranges.iter().all(|(address, bytes)| address.is_multiple_of(*bytes)));
        for (chunk, class) in out {
            memory.release(chunk, class);
        }
        drop(memory.drained(0));
        assert_eq!(memory.bytes(), 0);
    }

    #[test]
    fn the_limit_is_kept() {
        let mut memory = Memory::new(1 << 20, 1 << 18, 0).unwrap();
        let mut chunks = 0;
        while memory.allocate(CLASS_MAX).is_ok() {
            chunks += 1;
        }
        assert!(memory.bytes() <= 1 << 20);
        let arenas = ((1 << 20) - (1 << 18)) / memory.arena_cost();
        assert_eq!(chunks, arenas * (memory.arena_bytes / PAGE_BYTES));
    }

    /// Callers should not have to wait for fresh memory, and what does not grow should not hold any.
    #[test]
    fn an_arena_is_wanted_ahead_while_arenas_are_put_to_use() {
        let mut memory = Memory::new(usize::MAX, 0, 0).unwrap();
        let pages = memory.arena_bytes() / PAGE_BYTES;
        fn fill(memory: &mut Memory, pages: usize) {
            for _ in 0..pages {
                memory.allocate(CLASS_MAX).unwrap();
            }
        }
        fill(&mut memory, 1);
        memory.demand();
        assert!(!memory.wants_spare(), "a small set");
        fill(&mut memory, pages);
        memory.demand();
        assert!(memory.wants_spare(), "the second arena is all but empty, and will be full before anybody looks again");
        for _ in 0..STEADY_FOR {
            memory.demand();
        }
        assert!(!memory.wants_spare(), "nothing was put to use for a while");
        fill(&mut memory, pages / 2 + 1);
        assert!(memory.wants_spare(), "it is nearly full");

        let mut presized = Memory::new(usize::MAX, 0, 0).unwrap();
        fill(&mut presized, 2 * pages + pages / 4);
        presized.forget_demand();
        presized.demand();
        assert!(!presized.wants_spare(), "it was made large enough");
    }

    #[test]
    fn an_arena_leaves_only_when_it_is_empty() {
        let mut memory = Memory::new(usize::MAX, 0, 0).unwrap();
        let first = memory.allocate(CLASS_MAX).unwrap();
        let rest: Vec<_> = (0..200).map(|_| memory.allocate(CLASS_MAX).unwrap()).collect();
        assert_eq!(memory.bytes(), 2 * memory.arena_cost());
        for chunk in rest {
            memory.release(chunk, CLASS_MAX);
        }
        drop(memory.drained(0));
        assert_eq!(memory.bytes(), memory.arena_cost());
        memory.release(first, CLASS_MAX);
        drop(memory.drained(0));
        assert_eq!(memory.bytes(), 0);
    }
}
