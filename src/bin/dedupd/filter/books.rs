//! The books: what was read, and what became of each event.

use dedupd::decode::BadReason;

use super::fate::Fate;
use crate::config::Action;

/// Counts of one run. Words as in the report.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Books {
    /// Lines that are not blank.
    pub read: u64,
    /// Bytes of all lines.
    pub bytes: u64,
    pub blank: u64,
    pub first_seen: u64,
    pub duplicate: u64,
    /// Duplicates that came with another payload.
    pub conflicts: u64,
    /// By [`BadReason`], in its order.
    pub bad: [u64; 4],
    pub late: u64,
    pub refused: u64,
    /// First-seen events that are out.
    pub delivered: u64,
    /// First-seen events that were read and could not be delivered: none, unless the run ended before it had drained.
    pub in_flight: u64,
    /// Bad, late and refused events, and conflicts that are let through, by what was done with them.
    pub passed: u64,
    pub diverted: u64,
    pub dropped: u64,
    /// Newlines that were written and not read.
    pub newlines_added: u64,
    /// First-seen events that are out and whose ids could not be recorded.
    pub bypassed: u64,
}

impl Books {
    pub fn bad_total(&self) -> u64 {
        self.bad.iter().sum()
    }

    /// Counts a line by what it was found to be and by what is done with it. What is to go out is called delivered: who
    /// finds that it did not, corrects that.
    #[inline]
    pub fn count(&mut self, fate: Fate, action: Option<Action>, bytes: usize) {
        self.bytes += bytes as u64;
        self.read += u64::from(fate != Fate::Blank);
        match fate {
            Fate::Blank => self.blank += 1,
            Fate::FirstSeen => {
                self.first_seen += 1;
                self.delivered += 1;
            }
            Fate::Duplicate => self.duplicate += 1,
            Fate::Conflict => {
                self.duplicate += 1;
                self.conflicts += 1;
            }
            Fate::Bad(reason) => self.bad[reason as usize] += 1,
            Fate::Late => self.late += 1,
            Fate::Refused => self.refused += 1,
        }
        match action {
            Some(Action::Pass) => self.passed += 1,
            Some(Action::Divert) => self.diverted += 1,
            Some(Action::Drop) => self.dropped += 1,
            Some(Action::Fail) | None => {}
        }
    }

    /// Takes back that an event was passed or diverted, which failed.
    pub fn take_back(&mut self, action: Action) {
        match action {
            Action::Pass => self.passed -= 1,
            Action::Divert => self.diverted -= 1,
            Action::Drop | Action::Fail => {}
        }
    }

    pub fn bad_by(&self, reason: BadReason) -> u64 {
        self.bad[reason as usize]
    }

    /// Whether every event that was read is accounted for, and every first-seen one is out or known not to be.
    pub fn balance(&self) -> bool {
        self.read == self.first_seen + self.duplicate + self.bad_total() + self.late + self.refused
            && self.first_seen == self.delivered + self.in_flight
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn books_with_an_event_too_few_do_not_balance() {
        let mut books = Books::default();
        for fate in [Fate::FirstSeen, Fate::Duplicate, Fate::FirstSeen, Fate::Blank, Fate::Late] {
            books.count(fate, None, 10);
        }
        books.count(Fate::Bad(BadReason::TooLong), Some(Action::Drop), 10);
        assert!(books.balance());
        let mut with_conflicts = books.clone();
        with_conflicts.count(Fate::Conflict, Some(Action::Divert), 10);
        with_conflicts.count(Fate::Conflict, None, 10);
        assert!(with_conflicts.balance());
        assert_eq!((with_conflicts.conflicts, with_conflicts.duplicate, with_conflicts.diverted), (2, 3, 1));
        assert_eq!((books.read, books.bytes, books.dropped, books.bad_total()), (5, 60, 1, 1));
        assert_eq!((books.bad_by(BadReason::TooLong), books.bad_by(BadReason::Malformed)), (1, 0));
        books.read += 1;
        assert!(!books.balance());
        books.refused += 1;
        assert!(books.balance());
        books.delivered = 1;
        assert!(!books.balance());
        books.in_flight = 1;
        assert!(books.balance());
    }
}
