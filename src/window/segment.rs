//! A segment: up to 256 lines in which an entry has two lines to stand in.
//!
//! An entry stands in its home line when there is room, else in its other line, and then its home carries the overflow
//! mark. When both are full, one entry that is in the way moves to its own other place (cuckoo hashing with one step:
//! Pagh and Rodler, 2001; buckets: Dietzfelbinger and Weidling, 2007). When that does not help either, the segment is full
//! and grows. So a question looks at one line, or at two: ten places.
//!
//! An expired entry is free space where it stands; nothing searches for it.

use super::line::{ENTRIES, Entry, Line, Mark, Stored};
use super::memory::CLASS_MAX;
use super::probe::{Common, Probe};

/// The generations that count now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Era {
    /// The newest generation: new entries are made in it.
    pub(super) newest: u64,
    /// The oldest generation that is still remembered.
    pub(super) horizon: u64,
}

impl Era {
    /// Whether an entry so marked is forgotten. Pending entries never are.
    #[inline]
    pub(super) fn has_expired(self, mark: Mark) -> bool {
        !mark.is_pending() && mark.age(self.newest) > self.newest - self.horizon
    }
}

/// The answer of [`Segment::ask`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Quick {
    New,
    Seen,
    /// Nothing was done: it is nowhere, and both lines are full.
    Full,
    /// Nothing was done: it takes a closer look.
    Unusual,
}

/// The two lines of an ID.
#[derive(Debug)]
pub(super) struct Both<'a> {
    pub(super) home: &'a mut Line,
    pub(super) other: &'a mut Line,
}

/// Where an entry stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Place {
    line: usize,
    slot: usize,
}

/// The lines of one segment, held exclusively.
#[derive(Debug)]
pub(super) struct Segment<'a> {
    lines: &'a mut [Line],
    class: u32,
}

impl<'a> Segment<'a> {
    /// The segment over `lines`, whose number is a power of two and at least two.
    #[inline]
    pub(super) fn new(lines: &'a mut [Line]) -> Self {
        debug_assert!(lines.len().is_power_of_two() && lines.len() >= 2);
        let class = lines.len().trailing_zeros();
        Self { lines, class }
    }

    /// Answers in the two common cases, and records what is new: an ID of which nothing stands here and for which there is
    /// room in one of its lines, and one that was seen. Anything else is left for [`Segment::find`] and
    /// [`Segment::insert`].
    #[inline(always)]
    pub(super) fn ask<P: Probe>(&mut self, probe: P, stored: Stored, common: &Common) -> Quick {
        let (home, other) = (stored.home(self.class), stored.other(self.class));
        match self.lines.get_disjoint_mut([home, other]) {
            Ok([home, other]) => probe.ask_both(Both { home, other }, stored, common),
            Err(_) => Quick::Unusual,
        }
    }

    /// Finds the entry of `stored` where there is one at most, as in processing time.
    #[inline]
    pub(super) fn find_only(&self, stored: Stored) -> Option<Place> {
        let home = stored.home(self.class);
        if let Some(slot) = self.lines[home].slot_of(stored) {
            return Some(Place { line: home, slot });
        }
        if !self.lines[home].overflowed(stored) {
            return None;
        }
        let other = stored.other(self.class);
        self.lines[other].slot_of(stored).map(|slot| Place { line: other, slot })
    }

    /// Finds the entry of `stored` that `accept` takes, expired ones included.
    #[inline]
    pub(super) fn find(&self, stored: Stored, mut accept: impl FnMut(Mark) -> bool) -> Option<Place> {
        let home = stored.home(self.class);
        let found = self.find_in(home, stored, &mut accept);
        if found.is_some() || !self.lines[home].overflowed(stored) {
            return found;
        }
        self.find_in(stored.other(self.class), stored, &mut accept)
    }

    #[inline]
    fn find_in(&self, line: usize, stored: Stored, accept: &mut impl FnMut(Mark) -> bool) -> Option<Place> {
        let here = &self.lines[line];
        here.matches(stored).find(|slot| accept(here.mark(*slot))).map(|slot| Place { line, slot })
    }

    #[inline]
    pub(super) fn mark(&self, place: Place) -> Mark {
        self.lines[place.line].mark(place.slot)
    }

    #[inline]
    pub(super) fn set_mark(&mut self, place: Place, mark: Mark) {
        self.lines[place.line].set_mark(place.slot, mark);
    }

    pub(super) fn free(&mut self, place: Place) {
        self.lines[place.line].free(place.slot);
    }

    /// Puts in an entry that is not there yet; false when the segment is full.
    #[inline]
    pub(super) fn insert(&mut self, entry: Entry, era: Era) -> bool {
        let home = entry.stored.home(self.class);
        let line = &mut self.lines[home];
        let room = line.room(era.newest, era.newest - era.horizon);
        if room != 0 {
            line.put(room.trailing_zeros() as usize, entry);
            return true;
        }
        self.insert_beside(entry, era, home, 1)
    }

    /// The same, moving up to two entries: for when the segment cannot grow, and the alternative is to forget ids.
    pub(super) fn insert_hard(&mut self, entry: Entry, era: Era) -> bool {
        self.insert(entry, era) || self.insert_beside(entry, era, entry.stored.home(self.class), 2)
    }

    fn insert_beside(&mut self, entry: Entry, era: Era, home: usize, moves: u32) -> bool {
        let other = entry.stored.other(self.class);
        let tries = if moves > 1 { ENTRIES } else { OTHER_TRIES };
        let place = match self.room_in(other, era) {
            Some(slot) => Some(Place { line: other, slot }),
            None => self.make_room(home, era, moves, ENTRIES).or_else(|| self.make_room(other, era, moves, tries)),
        };
        let Some(place) = place else { return false };
        self.lines[place.line].put(place.slot, entry);
        if place.line == other {
            self.lines[home].set_overflowed(entry.stored);
        }
        true
    }

    /// Moves one of the first `tries` entries of a full line to its own other place. When that is full too and there are
    /// `moves` left, makes room there first. Two moves at most: with three, the second could take away what the first has found.
    fn make_room(&mut self, line: usize, era: Era, moves: u32, tries: usize) -> Option<Place> {
        let targets = self.targets(line);
        for (slot, target) in targets.into_iter().enumerate().take(tries) {
            let entry = self.lines[line].entry(slot);
            let home = entry.stored.home(self.class);
            let found = self.room_in(target, era);
            let found = match found {
                None if moves > 1 && target != line => {
                    self.make_room(target, era, moves - 1, ENTRIES).map(|place| place.slot)
                }
                found => found,
            };
            if let Some(room) = found {
                self.lines[target].put(room, entry);
                if home == line {
                    self.lines[home].set_overflowed(entry.stored);
                }
                return Some(Place { line, slot });
            }
        }
        None
    }

    /// Where the entries of a line could move to. These lines are asked for.
    fn targets(&self, line: usize) -> [usize; ENTRIES] {
        std::array::from_fn(|slot| {
            let stored = self.lines[line].entry(slot).stored;
            let home = stored.home(self.class);
            let target = if home == line { stored.other(self.class) } else { home };
            super::prefetch(&raw const self.lines[target]);
            target
        })
    }

    /// Asks for the lines that [`Segment::insert`] will look at when `stored` finds no room in its own two.
    pub(super) fn prefetch_targets(&self, stored: Stored) {
        self.targets(stored.home(self.class));
    }

    #[inline]
    fn room_in(&self, line: usize, era: Era) -> Option<usize> {
        let room = self.lines[line].room(era.newest, era.newest - era.horizon);
        (room != 0).then(|| room.trailing_zeros() as usize)
    }

    /// Gives every entry the mark that `fate` says, or frees it, where it stands.
    pub(super) fn update_marks(&mut self, fate: impl Fn(Mark) -> Option<Mark>) {
        for line in self.lines.iter_mut() {
            for slot in 0..ENTRIES {
                let mark = line.mark(slot);
                match fate(mark) {
                    _ if mark.is_free() => {}
                    Some(mark) => line.set_mark(slot, mark),
                    None => line.free(slot),
                }
            }
        }
    }

    /// Frees what has expired, where no tag can have come round.
    pub(super) fn expire(&mut self, era: Era) {
        for line in self.lines.iter_mut() {
            line.keep(!line.room(era.newest, era.newest - era.horizon));
        }
    }

    /// How many entries still count, where no tag can have come round.
    pub(super) fn live(&self, era: Era) -> usize {
        let gone = |line: &Line| line.room(era.newest, era.newest - era.horizon).count_ones() as usize;
        self.lines.iter().map(|line| ENTRIES - gone(line)).sum()
    }

    /// Moves every entry that has `bit` of the path to `sibling`, a segment of the same class, whatever is in it. Where an
    /// entry stands among the lines does not depend on the path, so it stands in the same place there. Returns how many
    /// moved. What has expired goes with it, where no tag can have come round, and overflow marks that are not needed.
    #[inline(always)]
    pub(super) fn split(&mut self, sibling: &mut Segment<'a>, bit: u32, era: Era) -> u64 {
        let mut moved = 0;
        // The marks of the homes, here and there, of which some are passed before their entries are met.
        let mut marks = [[0; 1 << CLASS_MAX]; 2];
        for (here, (line, twin)) in self.lines.iter_mut().zip(sibling.lines.iter_mut()).enumerate() {
            line.keep(!line.room(era.newest, era.newest - era.horizon));
            for stored in line.away(here, self.class) {
                marks[usize::from(stored.c & bit != 0)][stored.home(self.class)] |= stored.overflow_mark();
            }
            let moves = line.on_path(bit) & line.taken();
            moved += u64::from(moves.count_ones());
            *twin = *line;
            twin.keep(moves);
            line.keep(!moves);
        }
        for (segment, marks) in [self, sibling].into_iter().zip(marks) {
            segment.lines.iter_mut().zip(marks).for_each(|(line, marks)| line.set_overflows(marks));
        }
        moved
    }

    /// Sets the overflow marks that are needed, and no others.
    pub(super) fn mark_overflows(&mut self) {
        self.lines.iter_mut().for_each(|line| line.set_overflows(0));
        for here in 0..self.lines.len() {
            let line = self.lines[here];
            for stored in line.away(here, self.class) {
                self.lines[stored.home(self.class)].set_overflowed(stored);
            }
        }
    }

    /// Every entry that is not free, expired ones included.
    pub(super) fn entries(&self) -> impl Iterator<Item = Entry> {
        self.lines
            .iter()
            .flat_map(|line| (0..ENTRIES).map(|slot| line.entry(slot)))
            .filter(|entry| !entry.mark.is_free())
    }

    /// Empties the segment and puts in `entries`; false when they do not fit, and then its content is undefined.
    pub(super) fn fill(&mut self, entries: &[Entry]) -> bool {
        self.lines.fill(Line::EMPTY);
        let nothing_expires = Era { newest: u64::MAX, horizon: 0 };
        entries.iter().all(|entry| self.insert(*entry, nothing_expires))
    }
}

/// Entries of the other line that may make room while the segment can still grow. Trying all five saves 1 byte in 23 per id,
/// and growing takes a tenth longer.
const OTHER_TRIES: usize = 2;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Fingerprint;
    use crate::window::line::State;

    fn stored(n: u128) -> Stored {
        Stored::of(Fingerprint::from_u128((n + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15_F39C_C060_5CED_C835)))
    }

    #[test]
    fn a_split_leaves_each_entry_where_it_is_found_and_what_has_expired_nowhere() {
        let era = Era { newest: 100, horizon: 36 };
        let (mut lines, mut twins) = ([Line::EMPTY; 256], [Line::EMPTY; 256]);
        let (mut old, mut new) = (Segment::new(&mut lines), Segment::new(&mut twins));
        let expired = |n: u128| n.is_multiple_of(7);
        for n in 0..1_000 {
            let mark = Mark::new(State::Seen, if expired(n) { 35 } else { 36 + n as u64 % 65 });
            assert!(old.insert_hard(Entry { stored: stored(n), mark }, Era { newest: 100, horizon: 0 }), "{n}");
        }
        let bit = 1 << 9;
        let moved = old.split(&mut new, bit, era);
        let goes = |n: &u128| stored(*n).c & bit != 0;
        assert_eq!(moved, (0..1_000).filter(|n| goes(n) && !expired(*n)).count() as u64);
        for n in 0..1_000 {
            let found = [&old, &new].map(|segment| segment.find_only(stored(n)).is_some());
            assert_eq!(found, [!goes(&n) && !expired(n), goes(&n) && !expired(n)], "{n}");
        }
        // The marks are those that are needed, and no others.
        let mut marks = 0;
        for segment in [&mut old, &mut new] {
            let after_split = segment.lines.to_vec();
            segment.mark_overflows();
            assert_eq!(format!("{after_split:?}"), format!("{:?}", segment.lines));
            marks += (0..1_000).filter(|n| segment.lines[stored(*n).home(8)].overflowed(stored(*n))).count();
        }
        assert!(marks > 50, "{marks}");
    }
}
