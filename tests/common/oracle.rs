//! The set as a map and a few comparisons: what every clever implementation is compared with.
//!
//! It answers in the three zones of the promise. An ID younger than the window must be a duplicate; from the window to
//! the window and its slack either answer is right; beyond, it must be first-seen. As either answer may be right, the
//! oracle is told which one was given, and goes on from there.

use std::collections::HashMap;
use std::time::Duration;

use dedupd::Timestamp;

/// What the promise allows as the answer to one question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expected {
    MustBeDuplicate,
    Either,
    MustBeFirstSeen,
    /// The ID is reserved and not yet resolved: in flight for a reservation, a duplicate for `observe`.
    MustBePending,
}

impl Expected {
    /// Whether `first_seen` is an answer that the promise allows.
    pub fn allows(self, first_seen: bool) -> bool {
        match self {
            Self::Either => true,
            Self::MustBeFirstSeen => first_seen,
            Self::MustBeDuplicate | Self::MustBePending => !first_seen,
        }
    }
}

/// The set in processing time, without limits.
#[derive(Clone, Debug)]
pub struct Oracle {
    window: Duration,
    slack: Duration,
    extend: bool,
    ids: HashMap<Vec<u8>, Entry>,
}

#[derive(Clone, Copy, Debug)]
enum Entry {
    Pending {
        since: Timestamp,
    },
    /// First seen not before `from` and not after `to`: they differ when it was reserved at one time and committed at
    /// another.
    Seen {
        from: Timestamp,
        to: Timestamp,
    },
}

impl Oracle {
    pub fn new(window: Duration, slack: Duration) -> Self {
        Self { window, slack, extend: false, ids: HashMap::new() }
    }

    /// Repeats extend the window.
    pub fn extending(self) -> Self {
        Self { extend: true, ..self }
    }

    /// What the answer to a question about `id` at `now` may be. Changes nothing.
    pub fn expected(&self, id: &[u8], now: Timestamp) -> Expected {
        match self.ids.get(id) {
            None => Expected::MustBeFirstSeen,
            Some(Entry::Pending { .. }) => Expected::MustBePending,
            Some(Entry::Seen { from, .. }) if now < from.saturating_add(self.window) => Expected::MustBeDuplicate,
            Some(Entry::Seen { to, .. }) if now < to.saturating_add(self.window + self.slack) => Expected::Either,
            Some(Entry::Seen { .. }) => Expected::MustBeFirstSeen,
        }
    }

    /// Takes note of the answer that `observe` gave.
    pub fn record(&mut self, id: &[u8], now: Timestamp, first_seen: bool) {
        let pending = matches!(self.ids.get(id), Some(Entry::Pending { .. }));
        if first_seen || (self.extend && !pending) {
            self.ids.insert(id.to_vec(), Entry::Seen { from: now, to: now });
        }
    }

    /// Takes note that `id` was reserved, which only a first-seen one can be.
    pub fn reserve(&mut self, id: &[u8], now: Timestamp) {
        self.ids.insert(id.to_vec(), Entry::Pending { since: now });
    }

    /// Takes note that the reservation of `id` was committed.
    pub fn commit(&mut self, id: &[u8], now: Timestamp) {
        if let Some(entry) = self.ids.get_mut(id)
            && let Entry::Pending { since } = *entry
        {
            *entry = Entry::Seen { from: since, to: now };
        }
    }

    /// Takes note that the reservation of `id` was released, or that `id` was forgotten.
    pub fn forget(&mut self, id: &[u8]) {
        self.ids.remove(id);
    }

    /// How many ids must still be known at `now`, and how many may be.
    pub fn live(&self, now: Timestamp) -> (usize, usize) {
        let known = self.ids.keys().filter(|id| self.expected(id, now) != Expected::MustBeFirstSeen);
        let sure = self.ids.keys().filter(|id| !self.expected(id, now).allows(true));
        (sure.count(), known.count())
    }
}
