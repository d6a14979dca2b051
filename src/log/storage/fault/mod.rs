//! Mappings whose file is taken away: a store to one ends its log and not the process.
//!
//! When the file system cannot supply a page of a mapping any more, because somebody cut the file, the disk died or
//! memory failed, the kernel sends SIGBUS to whoever touches that page, which kills the process by default. After
//! [`survive_sigbus`] a page of ordinary memory takes its place and the mapping is *struck*: the store goes on, into
//! nothing, and the pen that made it reports an error, which poisons the log.
//!
//! A signal handler may neither lock nor allocate. So the mappings stand in a fixed table of atomics, which it walks.
//! A mapping that finds no slot is not made: its file is written with `pwrite`, which returns an error instead.
//!
//! Invariants:
//! 1. A slot counts only while its range is mapped: it is taken after the range was mapped, and given back before it is
//!    unmapped. Whoever stores to a mapping keeps it alive meanwhile, and with it its slot.
//! 2. So the slot of the address that raised a signal does not change while the handler runs, and one that changes is
//!    of another mapping. The version tells: it is odd while the slot counts, and never comes back.

#[cfg(target_os = "linux")]
mod handler;

use std::io;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering, fence};

/// Has a failure under a mapped file of a state directory end that state, with an error, and not the process.
///
/// Files of a state directory are mapped into memory on some file systems. When another program cuts such a file, or its
/// disk fails, the next access raises SIGBUS, and by default that kills the process. After this call the state is
/// poisoned instead: every later call on it returns an error, until it is opened again.
///
/// This installs a handler of the process for SIGBUS, so a library does not do it by itself: the `dedupd` binary calls
/// it, and a program with the library in it may. Signals that are not about a mapping of a state go on to the
/// handler that was there before, or to the default. Calling it again does nothing. A handler that is installed later
/// and does not pass signals on undoes it.
///
/// # Errors
/// When the system refuses the handler.
///
/// # Example
/// ```
/// dedupd::survive_sigbus()?;
/// # Ok::<(), std::io::Error>(())
/// ```
pub fn survive_sigbus() -> io::Result<()> {
    #[cfg(target_os = "linux")]
    handler::install()?;
    // Elsewhere no file is mapped.
    Ok(())
}

/// A mapping that the handler knows, until this is dropped.
#[derive(Debug)]
pub(super) struct Registered {
    slot: &'static Slot,
}

impl Registered {
    /// Registers the addresses of a mapping; none when the table is full.
    pub(super) fn of(range: Range<usize>) -> Option<Self> {
        TABLE.register(range)
    }

    /// Whether a page of the mapping was taken away: what was stored there since is lost.
    ///
    /// # Cost
    /// One load.
    pub(super) fn is_struck(&self) -> bool {
        self.slot.is_struck.load(Ordering::Relaxed)
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        self.slot.give_back();
    }
}

/// What the handler looks through.
#[derive(Debug)]
struct Table<const SLOTS: usize> {
    slots: [Slot; SLOTS],
}

#[derive(Debug)]
struct Slot {
    /// Who sets it may change the rest. Acquire and release: the next one sees all that the last one did.
    is_taken: AtomicBool,
    /// Odd while the slot counts. Changed by the one who has the slot, compared by the handler before and after it
    /// reads the range.
    version: AtomicUsize,
    start: AtomicUsize,
    end: AtomicUsize,
    /// Set by the handler; read by the thread that was interrupted, or under a lock that it has released.
    is_struck: AtomicBool,
}

impl<const SLOTS: usize> Table<SLOTS> {
    const fn new() -> Self {
        Self { slots: [const { Slot::new() }; SLOTS] }
    }

    fn register(&'static self, range: Range<usize>) -> Option<Registered> {
        let slot = self.slots.iter().find(|slot| slot.take())?;
        slot.fill(&range);
        Some(Registered { slot })
    }

    /// The slot of the mapping with `address` in it. Safe to call in a signal handler.
    fn find(&self, address: usize) -> Option<&Slot> {
        self.slots.iter().find(|slot| slot.holds(address))
    }
}

impl Slot {
    const fn new() -> Self {
        Self {
            is_taken: AtomicBool::new(false),
            version: AtomicUsize::new(0),
            start: AtomicUsize::new(0),
            end: AtomicUsize::new(0),
            is_struck: AtomicBool::new(false),
        }
    }

    fn take(&self) -> bool {
        self.is_taken.compare_exchange(false, true, Ordering::Acquire, Ordering::Relaxed).is_ok()
    }

    fn fill(&self, range: &Range<usize>) {
        // Whoever sees the new range sees that the version before it has ended.
        fence(Ordering::Release);
        self.start.store(range.start, Ordering::Relaxed);
        self.end.store(range.end, Ordering::Relaxed);
        self.is_struck.store(false, Ordering::Relaxed);
        self.version.fetch_add(1, Ordering::Release);
    }

    fn give_back(&self) {
        self.version.fetch_add(1, Ordering::Relaxed);
        self.is_taken.store(false, Ordering::Release);
    }

    fn holds(&self, address: usize) -> bool {
        let version = self.version.load(Ordering::Acquire);
        let range = self.start.load(Ordering::Relaxed)..self.end.load(Ordering::Relaxed);
        // The range is of this version when the version is still the same.
        fence(Ordering::Acquire);
        version % 2 == 1 && range.contains(&address) && self.version.load(Ordering::Relaxed) == version
    }
}

static TABLE: Table<SLOTS> = Table::new();
/// A log that is synced has three mappings at most: of the active segment, of the next, and of one that was just sealed.
const SLOTS: usize = 512;

#[cfg(test)]
mod tests {
    use super::*;

    fn table<const SLOTS: usize>() -> &'static Table<SLOTS> {
        Box::leak(Box::new(Table::new()))
    }

    #[test]
    fn an_address_is_found_while_its_mapping_is_registered() {
        let table = table::<4>();
        let _other = table.register(50..60).unwrap();
        let registered = table.register(100..200).unwrap();
        let found = |address| table.find(address).is_some();
        assert_eq!([99, 100, 199, 200].map(found), [false, true, true, false]);
        assert!(!registered.is_struck());
        table.find(150).unwrap().is_struck.store(true, Ordering::Relaxed);
        assert!(registered.is_struck());
        drop(registered);
        assert!(!found(150) && found(55));
    }

    #[test]
    fn a_full_table_registers_nothing_and_a_slot_is_used_again_unstruck() {
        let table = table::<2>();
        let _first = table.register(0..10).unwrap();
        let second = table.register(10..20).unwrap();
        assert!(table.register(20..30).is_none());
        table.find(15).unwrap().is_struck.store(true, Ordering::Relaxed);
        drop(second);
        assert!(!table.register(20..30).unwrap().is_struck());
    }

    #[test]
    fn what_others_register_meanwhile_is_never_taken_for_an_address_between() {
        let table = table::<8>();
        let _mine = table.register(1_000..1_100).unwrap();
        let is_over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    // A start of one and an end of the other would hold 5,000.
                    while !is_over.load(Ordering::Relaxed) {
                        drop(table.register(2_000..2_100).unwrap());
                        drop(table.register(8_000..8_100).unwrap());
                    }
                });
            }
            let wrong = (0..200_000).filter(|_| table.find(5_000).is_some() || table.find(1_050).is_none()).count();
            is_over.store(true, Ordering::Relaxed);
            assert_eq!(wrong, 0);
        });
    }
}
