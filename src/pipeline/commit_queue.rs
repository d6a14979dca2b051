//! [`CommitQueue`]: what is delivered and not committed, and when it is.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::dedup::Durability;

/// When a batch that is delivered is committed.
///
/// An ID whose event is gone would be an event lost. So what a sink holds only in memory or in the page cache has to be on disk
/// before a record that will survive a power cut says that it was delivered.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum CommitAt {
    /// At once.
    Once,
    /// At once, after a flush of the sinks.
    Synced,
    /// Together with others, so long after the first of them, after one flush of the sinks; what is delivered during a flush, so
    /// long after its end. At most a day.
    Within(Duration),
}

impl CommitAt {
    /// What `durability` asks for with sinks of which some have to be flushed, or none.
    #[must_use]
    pub fn new(durability: Option<Durability>, needs_flush: bool) -> Self {
        match durability {
            Some(Durability::Interval(interval)) if needs_flush => Self::Within(interval),
            Some(Durability::PowerLoss) if needs_flush => Self::Synced,
            _ => Self::Once,
        }
    }
}

/// Batches that are delivered and not committed, in the order of their delivery, and when they are committed: the rule of a
/// [`Stage`](super::Stage), which says more.
#[derive(Debug)]
pub(super) struct CommitQueue<B> {
    at: CommitAt,
    batches: VecDeque<B>,
    /// How many were ever put in, and how many of these may be committed.
    delivered: u64,
    flushed: u64,
    /// A flush is under way.
    is_flushing: bool,
    /// When what waits for a flush has waited long enough.
    due: Option<Instant>,
}

/// What is to be done with a [`Stage`](super::Stage).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[must_use]
pub enum CommitStep {
    /// Nothing before [`Stage::due`](super::Stage::due), or before the flush that is under way has ended.
    Wait,
    /// Flush the sinks, and say so to [`Stage::flushed`](super::Stage::flushed).
    Flush(Flush),
    /// Commit: see [`Stage::commit_next`](super::Stage::commit_next).
    Commit,
}

/// A flush of the sinks: of all that was delivered when it began.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[must_use = "until it is said to have ended, no other is due"]
pub struct Flush {
    delivered: u64,
}

impl<B> CommitQueue<B> {
    /// An empty one.
    pub(super) fn new(at: CommitAt) -> Self {
        Self { at, batches: VecDeque::new(), delivered: 0, flushed: 0, is_flushing: false, due: None }
    }

    /// When batches are committed.
    pub(super) fn at(&self) -> CommitAt {
        self.at
    }

    /// Takes a batch that was delivered at `now`.
    pub(super) fn push(&mut self, batch: B, now: Instant) {
        self.batches.push_back(batch);
        self.delivered += 1;
        if self.at == CommitAt::Once {
            self.flushed = self.delivered;
        } else if self.due.is_none() {
            self.due = Some(self.due_after(now));
        }
    }

    /// When the next flush is due, if nothing is delivered until then. `None` while one is under way, and when nothing waits for
    /// one; what can be committed is not waited for.
    pub(super) fn due(&self) -> Option<Instant> {
        self.due.filter(|_| !self.is_flushing)
    }

    /// What waits for a flush has waited long enough.
    pub(super) fn hurry(&mut self, now: Instant) {
        self.due = self.due.map(|due| due.min(now));
    }

    /// What is to be done at `now`.
    pub(super) fn step(&mut self, now: Instant) -> CommitStep {
        if self.is_ready() {
            CommitStep::Commit
        } else if self.due().is_some_and(|due| due <= now) {
            CommitStep::Flush(self.begin_flush())
        } else {
            CommitStep::Wait
        }
    }

    /// A flush that begins now, whether it is due or not: of all that was delivered until now. Until it has ended none is due.
    pub(super) fn begin_flush(&mut self) -> Flush {
        self.is_flushing = true;
        Flush { delivered: self.delivered }
    }

    /// A flush has ended, and what it was of may be committed. What was delivered since waits for the next.
    pub(super) fn flushed(&mut self, flush: Flush, now: Instant) {
        self.is_flushing = false;
        if flush.delivered > self.flushed {
            self.flushed = flush.delivered;
            self.due = (self.flushed < self.delivered).then(|| self.due_after(now));
        }
    }

    /// Takes out the next batch that may be committed.
    pub(super) fn next(&mut self) -> Option<B> {
        if self.is_ready() { self.batches.pop_front() } else { None }
    }

    /// The next batch that may be committed, which stays until it is taken out.
    pub(super) fn peek(&mut self) -> Option<&mut B> {
        if self.is_ready() { self.batches.front_mut() } else { None }
    }

    /// How many batches wait, for a flush or to be committed.
    pub(super) fn len(&self) -> usize {
        self.batches.len()
    }

    /// Whether none waits.
    pub(super) fn is_empty(&self) -> bool {
        self.batches.is_empty()
    }

    /// Whether there is something to commit.
    pub(super) fn is_ready(&self) -> bool {
        self.committable() > 0
    }

    /// All that wait, in order.
    pub(super) fn iter(&self) -> impl Iterator<Item = &B> {
        self.batches.iter()
    }

    /// Takes out all that wait, in order: they will not be committed here.
    pub(super) fn take_all(&mut self) -> impl Iterator<Item = B> + use<B> {
        (self.flushed, self.is_flushing, self.due) = (self.delivered, false, None);
        std::mem::take(&mut self.batches).into_iter()
    }

    /// How many of those that wait were flushed.
    fn committable(&self) -> usize {
        let unflushed = usize::try_from(self.delivered - self.flushed).unwrap_or(usize::MAX);
        self.batches.len().saturating_sub(unflushed)
    }

    fn due_after(&self, now: Instant) -> Instant {
        match self.at {
            CommitAt::Within(interval) => now + interval.min(INTERVAL_MAX),
            _ => now,
        }
    }
}

/// A longer one is cut: nothing waits for a day.
const INTERVAL_MAX: Duration = Duration::from_secs(24 * 3600);

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL: Duration = Duration::from_millis(50);

    fn at(millis: u64, start: Instant) -> Instant {
        start + Duration::from_millis(millis)
    }

    fn flush(queue: &mut CommitQueue<u32>, now: Instant) -> Flush {
        match queue.step(now) {
            CommitStep::Flush(flush) => flush,
            other => panic!("{other:?}"),
        }
    }

    fn all(queue: &mut CommitQueue<u32>) -> Vec<u32> {
        std::iter::from_fn(|| queue.next()).collect()
    }

    #[test]
    fn what_needs_no_flush_is_committed_at_once() {
        let now = Instant::now();
        let mut queue = CommitQueue::new(CommitAt::Once);
        assert_eq!((queue.step(now), queue.due()), (CommitStep::Wait, None));
        for batch in 0..3 {
            queue.push(batch, now);
        }
        assert_eq!((queue.step(now), queue.peek().copied()), (CommitStep::Commit, Some(0)));
        assert_eq!(all(&mut queue), [0, 1, 2]);
        assert_eq!((queue.step(now), queue.is_empty()), (CommitStep::Wait, true));
    }

    #[test]
    fn with_synced_each_flush_is_due_at_once() {
        let now = Instant::now();
        let mut queue = CommitQueue::new(CommitAt::Synced);
        queue.push(0, now);
        let first = flush(&mut queue, now);
        queue.push(1, now);
        assert_eq!((queue.step(now), queue.next()), (CommitStep::Wait, None));
        queue.flushed(first, now);
        assert_eq!((queue.step(now), all(&mut queue)), (CommitStep::Commit, vec![0]));
        let second = flush(&mut queue, now);
        queue.flushed(second, now);
        assert_eq!((all(&mut queue), queue.due()), (vec![1], None));
    }

    #[test]
    fn an_interval_begins_with_the_first_that_waits() {
        let start = Instant::now();
        let mut queue = CommitQueue::new(CommitAt::Within(INTERVAL));
        queue.push(0, start);
        queue.push(1, at(40, start));
        assert_eq!((queue.due(), queue.step(at(49, start))), (Some(at(50, start)), CommitStep::Wait));
        let first = flush(&mut queue, at(50, start));
        queue.push(2, at(60, start));
        // Nothing is due while a flush is under way, however long it takes.
        assert_eq!((queue.due(), queue.step(at(900, start))), (None, CommitStep::Wait));
        queue.flushed(first, at(900, start));
        assert_eq!((all(&mut queue), queue.due()), (vec![0, 1], Some(at(950, start))));
        queue.hurry(at(901, start));
        let second = flush(&mut queue, at(901, start));
        queue.flushed(second, at(902, start));
        assert_eq!((all(&mut queue), queue.due(), queue.len()), (vec![2], None, 0));
        queue.hurry(at(903, start));
        assert_eq!((queue.due(), queue.step(at(903, start))), (None, CommitStep::Wait), "there is nothing to hurry");
    }

    /// One that was asked for may begin while another is under way, and end first.
    #[test]
    fn of_two_flushes_the_later_one_says_more() {
        let start = Instant::now();
        let mut queue = CommitQueue::new(CommitAt::Within(INTERVAL));
        queue.push(0, start);
        let first = flush(&mut queue, at(50, start));
        queue.push(1, at(51, start));
        let second = queue.begin_flush();
        queue.flushed(second, at(52, start));
        assert_eq!((all(&mut queue), queue.due()), (vec![0, 1], None));
        queue.push(2, at(53, start));
        queue.flushed(first, at(54, start));
        assert_eq!((queue.step(at(54, start)), queue.next()), (CommitStep::Wait, None), "it was of what is gone");
        let third = flush(&mut queue, at(103, start));
        queue.flushed(third, at(103, start));
        assert_eq!(all(&mut queue), [2]);
    }

    #[test]
    fn what_is_taken_out_is_not_committed_nor_is_anything_for_it() {
        let start = Instant::now();
        let mut queue = CommitQueue::new(CommitAt::Within(INTERVAL));
        queue.push(0, start);
        let old = flush(&mut queue, at(50, start));
        queue.push(1, at(50, start));
        assert_eq!(queue.take_all().collect::<Vec<_>>(), [0, 1]);
        queue.push(2, at(60, start));
        // The flush need not have ended: it failed, for instance.
        assert_eq!(queue.due(), Some(at(110, start)));
        queue.flushed(old, at(70, start));
        assert_eq!((queue.next(), queue.iter().count(), queue.due()), (None, 1, Some(at(110, start))));
        let flush = flush(&mut queue, at(120, start));
        queue.flushed(flush, at(120, start));
        assert_eq!(all(&mut queue), [2]);
    }

    #[test]
    fn only_sinks_that_hold_something_back_are_waited_for() {
        let (none, interval) = (Durability::None, Durability::Interval(INTERVAL));
        for (durability, needs_flush, expected) in [
            (None, true, CommitAt::Once),
            (Some(none), true, CommitAt::Once),
            (Some(Durability::Process), true, CommitAt::Once),
            (Some(interval), true, CommitAt::Within(INTERVAL)),
            (Some(interval), false, CommitAt::Once),
            (Some(Durability::PowerLoss), true, CommitAt::Synced),
            (Some(Durability::PowerLoss), false, CommitAt::Once),
        ] {
            assert_eq!(CommitAt::new(durability, needs_flush), expected, "{durability:?} {needs_flush}");
        }
    }
}
