//! The books: what was read, and what became of each event.

use dedupd::decode::BadReason;

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
    /// By [`BadReason`], in its order.
    pub bad: [u64; 4],
    pub late: u64,
    pub refused: u64,
    /// First-seen events that are out.
    pub delivered: u64,
    /// First-seen events that were read and could not be delivered.
    pub in_flight: u64,
    /// Bad, late and refused events by what was done with them.
    pub passed: u64,
    pub diverted: u64,
    pub dropped: u64,
    /// Newlines that were written and not read.
    pub newlines_added: u64,
}

impl Books {
    pub fn bad_total(&self) -> u64 {
        self.bad.iter().sum()
    }

    pub fn count_bad(&mut self, reason: BadReason) {
        self.bad[reason as usize] += 1;
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
        let mut books = Books { read: 5, first_seen: 2, duplicate: 1, delivered: 2, late: 1, ..Books::default() };
        assert!(!books.balance());
        books.count_bad(BadReason::TooLong);
        assert!(books.balance());
        assert_eq!((books.bad_by(BadReason::TooLong), books.bad_by(BadReason::Malformed)), (1, 0));
        books.delivered = 1;
        assert!(!books.balance());
        books.in_flight = 1;
        assert!(books.balance());
    }
}
