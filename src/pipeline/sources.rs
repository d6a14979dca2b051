//! How far each source is settled.
//!
//! A [`Ledger`] has one entry for each event that was submitted with a position and is not settled yet, in the order of
//! submission. An entry is begun before its event can be seen by a worker and resolved when the event's final state is
//! committed; the settled position is what lies before the first unresolved entry.
//!
//! A lock per ledger, held for the length of a push or a mark: a source is mostly one producer, and its worker marks in
//! batches. An atomic ring would bind each source to a size; a stuck event must not stop its source for want of slots.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, PoisonError};

use crate::event::Source;
use crate::sync::{Mutex, MutexGuard, RwLock};

/// Where an event comes from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Origin {
    /// Which ledger.
    pub(super) ledger: u32,
    /// Which entry of it, counted from the start of the process.
    pub(super) sequence: u64,
    pub(super) position: u64,
}

/// All ledgers, by the name of their source.
pub(super) struct Sources {
    known: RwLock<Known>,
}

#[derive(Default)]
struct Known {
    by_name: HashMap<Box<[u8]>, Arc<Ledger>>,
    all: Vec<Arc<Ledger>>,
}

impl Sources {
    /// With these sources settled up to these positions, in an earlier process.
    pub(super) fn new(settled: &[(&[u8], u64)]) -> Self {
        let mut known = Known::default();
        for (name, position) in settled {
            known.add(Source::from(*name), Some(*position));
        }
        Self { known: RwLock::new(known) }
    }

    /// The ledger of `source`, made when there is none. `None` when there are too many.
    pub(super) fn ledger(&self, source: Source<'_>) -> Option<Arc<Ledger>> {
        if let Some(ledger) = self.find(source) {
            return Some(ledger);
        }
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        match known.by_name.get(source.as_bytes()) {
            Some(ledger) => Some(Arc::clone(ledger)),
            None => (known.all.len() < SOURCES_MAX).then(|| known.add(source, None)),
        }
    }

    pub(super) fn find(&self, source: Source<'_>) -> Option<Arc<Ledger>> {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        known.by_name.get(source.as_bytes()).map(Arc::clone)
    }

    /// How many there are.
    pub(super) fn count(&self) -> usize {
        self.known.read().unwrap_or_else(PoisonError::into_inner).all.len()
    }

    /// All ledgers, by number.
    pub(super) fn all(&self) -> Vec<Arc<Ledger>> {
        self.known.read().unwrap_or_else(PoisonError::into_inner).all.clone()
    }
}

impl Known {
    fn add(&mut self, source: Source<'_>, settled: Option<u64>) -> Arc<Ledger> {
        let (number, name) = (self.all.len() as u32, source.as_bytes());
        let entries = Mutex::new(Entries { settled, committed: settled, highest: settled, ..Entries::default() });
        let ledger = Arc::new(Ledger { number, name: name.into(), is_number: source.is_number(), entries });
        self.all.push(Arc::clone(&ledger));
        self.by_name.insert(name.into(), Arc::clone(&ledger));
        ledger
    }
}

/// What is not settled of one source.
pub(super) struct Ledger {
    number: u32,
    name: Box<[u8]>,
    /// The source was named by a number.
    is_number: bool,
    entries: Mutex<Entries>,
}

#[derive(Default)]
struct Entries {
    /// Positions in the order of submission; resolved ones are taken off the front.
    open: VecDeque<Entry>,
    /// The sequence of the first of them.
    first: u64,
    /// The highest position of any that was taken off.
    settled: Option<u64>,
    /// The highest position ever submitted.
    highest: Option<u64>,
    /// The sequence of the first that is not committed, and the highest position of any before it.
    uncommitted: u64,
    committed: Option<u64>,
    /// The lowest position that will never be settled here.
    refused: Option<u64>,
    /// Positions did not rise all the time.
    is_disordered: bool,
}

#[derive(Clone, Copy)]
struct Entry {
    /// `None` when the event was not taken.
    position: Option<u64>,
    /// It is in the log, which may not be on disk.
    is_committed: bool,
    is_resolved: bool,
}

impl Ledger {
    /// The name of the source.
    pub(super) fn source(&self) -> Source<'_> {
        Source::named(&self.name, self.is_number)
    }

    pub(super) fn number(&self) -> usize {
        self.number as usize
    }

    /// An event with this position is about to be submitted.
    pub(super) fn begin(&self, position: u64) -> Origin {
        let mut entries = self.entries();
        entries.is_disordered |= entries.highest.is_some_and(|highest| position <= highest);
        entries.highest = entries.highest.max(Some(position));
        entries.open.push_back(Entry { position: Some(position), is_committed: false, is_resolved: false });
        let sequence = entries.first + entries.open.len() as u64 - 1;
        Origin { ledger: self.number, sequence, position }
    }

    /// The event was not taken and never will be: nothing behind it counts as settled here, or whoever hears that would not
    /// send it to the next pipeline.
    pub(super) fn refuse(&self, origin: Origin) {
        let mut entries = self.entries();
        if entries.settled < Some(origin.position) {
            entries.refused = Some(entries.refused.map_or(origin.position, |lowest| lowest.min(origin.position)));
        }
        drop(entries);
        self.withdraw(origin);
    }

    /// The event was not taken after all; it may be later.
    pub(super) fn withdraw(&self, origin: Origin) {
        let mut entries = self.entries();
        let index = (origin.sequence - entries.first) as usize;
        if index + 1 == entries.open.len() {
            entries.open.pop_back();
        } else if let Some(entry) = entries.open.get_mut(index) {
            *entry = Entry { position: None, is_committed: true, is_resolved: true };
        }
        entries.advance();
    }

    /// These events are in their final state, for good. By sequence.
    pub(super) fn resolve(&self, sequences: impl Iterator<Item = u64>) {
        let mut entries = self.entries();
        let first = entries.first;
        for sequence in sequences {
            if let Some(entry) = entries.open.get_mut((sequence - first) as usize) {
                entry.is_resolved = true;
            }
        }
        entries.advance();
    }

    /// What will be settled once what is committed is, and these besides: what the frame that commits them may say. By
    /// sequence, rising.
    pub(super) fn settled_with(&self, sequences: &[u64]) -> Option<u64> {
        let entries = self.entries();
        let (mut sequence, mut committed) = (entries.uncommitted, entries.committed);
        while let Some(entry) = entries.open.get((sequence - entries.first) as usize)
            && (entry.is_committed || sequences.binary_search(&sequence).is_ok())
        {
            committed = committed.max(entry.position);
            sequence += 1;
        }
        let lowest = entries.lowest_unsettled(|number, _| number >= (sequence - entries.first) as usize);
        below(lowest, committed?)
    }

    /// These are committed. By sequence.
    pub(super) fn commit(&self, sequences: &[u64]) {
        let mut entries = self.entries();
        let first = entries.first;
        for sequence in sequences {
            if let Some(entry) = entries.open.get_mut((sequence - first) as usize) {
                entry.is_committed = true;
            }
        }
        entries.advance_committed();
    }

    /// The highest position so that it and all below it that were submitted are resolved.
    pub(super) fn settled(&self) -> Option<u64> {
        let entries = self.entries();
        let settled = entries.settled?;
        below(entries.lowest_unsettled(|_, entry| !entry.is_resolved), settled)
    }

    fn entries(&self) -> MutexGuard<'_, Entries> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entries {
    fn advance(&mut self) {
        while let Some(entry) = self.open.front()
            && entry.is_resolved
        {
            self.settled = self.settled.max(entry.position);
            self.open.pop_front();
            self.first += 1;
        }
        if self.uncommitted < self.first {
            self.uncommitted = self.first;
            self.committed = self.committed.max(self.settled);
        }
        if self.open.is_empty() && self.settled >= self.highest {
            self.is_disordered = false;
        }
    }

    fn advance_committed(&mut self) {
        while let Some(entry) = self.open.get((self.uncommitted - self.first) as usize)
            && entry.is_committed
        {
            self.committed = self.committed.max(entry.position);
            self.uncommitted += 1;
        }
    }

    /// The lowest position that counts as unsettled when those entries do that `is_open` chooses; only looked for where positions
    /// did not rise: what was settled and is not waited for may lie above it.
    fn lowest_unsettled(&self, is_open: impl Fn(usize, &Entry) -> bool) -> Option<u64> {
        let open = self.open.iter().enumerate().filter(|(number, entry)| is_open(*number, entry));
        let open = if self.is_disordered { open.filter_map(|(_, entry)| entry.position).min() } else { None };
        self.refused.into_iter().chain(open).min()
    }
}

/// `settled`, or what lies below `lowest` when that is not above it.
fn below(lowest: Option<u64>, settled: u64) -> Option<u64> {
    match lowest {
        Some(lowest) if lowest <= settled => lowest.checked_sub(1),
        _ => Some(settled),
    }
}

/// Sources of one pipeline, at most: as many as a state keeps positions of.
const SOURCES_MAX: usize = 1 << 12;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_is_settled_when_all_before_it_are() {
        let sources = Sources::new(&[(b"old", 41)]);
        assert_eq!(sources.find(Source::from("old")).unwrap().settled(), Some(41));
        let ledger = sources.ledger(Source::from("s")).unwrap();
        let origins: Vec<_> = (10..14).map(|position| ledger.begin(position)).collect();
        ledger.resolve([origins[1].sequence, origins[3].sequence].into_iter());
        assert_eq!(ledger.settled(), None);
        ledger.resolve([origins[0].sequence].into_iter());
        assert_eq!(ledger.settled(), Some(11));
        ledger.withdraw(origins[2]);
        assert_eq!(ledger.settled(), Some(13));
        let again = ledger.begin(14);
        ledger.withdraw(again);
        assert_eq!(ledger.settled(), Some(13));
    }

    #[test]
    fn a_frame_may_say_what_it_commits_itself() {
        let ledger = Sources::new(&[]).ledger(Source::from("s")).unwrap();
        let origins: Vec<_> = (10..16).map(|position| ledger.begin(position).sequence).collect();
        assert_eq!(ledger.settled_with(&origins[1..3]), None);
        assert_eq!(ledger.settled_with(&[origins[0], origins[1], origins[3]]), Some(11));
        ledger.commit(&origins[..2]);
        assert_eq!((ledger.settled(), ledger.settled_with(&[])), (None, Some(11)));
        ledger.resolve(origins[..1].iter().copied());
        assert_eq!((ledger.settled(), ledger.settled_with(&origins[2..3])), (Some(10), Some(12)));
        ledger.resolve(origins[1..4].iter().copied());
        assert_eq!((ledger.settled(), ledger.settled_with(&origins[4..])), (Some(13), Some(15)));
    }

    #[test]
    fn nothing_is_settled_behind_a_position_that_was_refused() {
        let ledger = Sources::new(&[(b"s", 3)]).ledger(Source::from("s")).unwrap();
        let origins: Vec<_> = (3..8).map(|position| ledger.begin(position)).collect();
        ledger.refuse(origins[0]);
        assert_eq!(ledger.settled(), Some(3), "it was settled before, by another process");
        ledger.refuse(origins[2]);
        ledger.resolve([origins[1], origins[3]].into_iter().map(|origin| origin.sequence));
        assert_eq!(ledger.settled(), Some(4));
        ledger.refuse(origins[4]);
        assert_eq!(ledger.settled(), Some(4));
    }

    #[test]
    fn an_earlier_position_that_comes_later_holds_back() {
        let ledger = Sources::new(&[]).ledger(Source::from(1)).unwrap();
        let (high, low) = (ledger.begin(9), ledger.begin(4));
        ledger.resolve([high.sequence].into_iter());
        assert_eq!(ledger.settled(), Some(3));
        ledger.resolve([low.sequence].into_iter());
        assert_eq!(ledger.settled(), Some(9));
    }
}
