//! Which branches lack an event that others have, for as many events as fit.
//!
//! An event is known by 128 bits of a keyed hash over all that it carries. The same event may be remembered more than once,
//! as it may be delivered more than once; whichever comes again takes the oldest.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::fmt;
use std::hash::{BuildHasher, Hash, RandomState};

use siphasher::sip128::{Hasher128, SipHasher13};

use crate::event::Event;

/// The branches that lack an event, by number.
type Lacking = Box<[usize]>;

pub(super) struct Memory {
    pub events_max: usize,
    /// How many there was no room for.
    pub forgotten: u64,
    known: HashMap<u128, VecDeque<(u64, Lacking)>>,
    /// What is known, by when it was put there.
    by_age: BTreeMap<u64, u128>,
    puts: u64,
    hasher: SipHasher13,
}

impl Memory {
    pub fn len(&self) -> usize {
        self.by_age.len()
    }

    /// Takes out which branches lack `event`; none when it is not remembered.
    pub fn take(&mut self, event: &Event<'_>) -> Option<Lacking> {
        if self.by_age.is_empty() {
            return None;
        }
        let key = self.key(event);
        let (put, lacking) = self.known.get_mut(&key)?.pop_front()?;
        self.by_age.remove(&put);
        self.drop_empty(key);
        Some(lacking)
    }

    /// Remembers which branches lack `event`, and forgets the oldest when there are too many.
    pub fn put(&mut self, event: &Event<'_>, lacking: Lacking) {
        let (key, put) = (self.key(event), self.puts);
        self.puts += 1;
        self.known.entry(key).or_default().push_back((put, lacking));
        self.by_age.insert(put, key);
        while self.by_age.len() > self.events_max {
            let Some((_, oldest)) = self.by_age.pop_first() else { break };
            self.known.get_mut(&oldest).map(VecDeque::pop_front);
            self.drop_empty(oldest);
            self.forgotten += 1;
        }
    }

    fn drop_empty(&mut self, key: u128) {
        if self.known.get(&key).is_some_and(VecDeque::is_empty) {
            self.known.remove(&key);
        }
    }

    fn key(&self, event: &Event<'_>) -> u128 {
        let mut hasher = self.hasher;
        event.hash(&mut hasher);
        hasher.finish128().as_u128()
    }
}

impl Default for Memory {
    fn default() -> Self {
        let [high, low] = [0_u8, 1].map(|part| RandomState::new().hash_one(part));
        Self {
            events_max: EVENTS_MAX,
            forgotten: 0,
            known: HashMap::new(),
            by_age: BTreeMap::new(),
            puts: 0,
            hasher: SipHasher13::new_with_keys(high, low),
        }
    }
}

/// Shows counts, and not what keys the hash.
impl fmt::Debug for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Memory")
            .field("events", &self.len())
            .field("events_max", &self.events_max)
            .field("forgotten", &self.forgotten)
            .finish_non_exhaustive()
    }
}

/// About 10 MB when all are in use.
const EVENTS_MAX: usize = 1 << 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_known_by_all_that_it_carries() {
        let mut memory = Memory::default();
        let event = Event::new("a", "b").with_position("s", 1);
        memory.put(&event, [1].into());
        for other in [Event::new("a", "b"), Event::new("ab", "").with_position("s", 1), event.with_position("s", 2)] {
            assert_eq!(memory.take(&other), None);
        }
        assert_eq!(memory.take(&event), Some([1].into()));
        assert_eq!((memory.take(&event), memory.len(), memory.known.len()), (None, 0, 0));
    }

    #[test]
    fn the_oldest_is_forgotten_and_counted_when_there_are_too_many() {
        let mut memory = Memory { events_max: 2, ..Memory::default() };
        let [one, two] = [Event::new("1", ""), Event::new("2", "")];
        for (event, branch) in [(&one, 0), (&two, 1), (&one, 2)] {
            memory.put(event, [branch].into());
        }
        assert_eq!((memory.len(), memory.forgotten), (2, 1));
        assert_eq!(memory.take(&one), Some([2].into()));
        assert_eq!(memory.take(&two), Some([1].into()));
        assert_eq!(memory.known.len(), 0);
        memory.events_max = 0;
        memory.put(&one, [0].into());
        assert_eq!((memory.take(&one), memory.forgotten), (None, 2));
    }
}
