//! [`Tee`]: several sinks that each get every event.

mod memory;
mod position;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use self::memory::Memory;
use super::{FailureClass, Guarantees, Sink, SinkError};
use crate::event::Event;

/// Delivers each event to all of its branches.
///
/// In a pipeline each branch becomes a lane of its own, with its own attempts ([`Sink::into_branches`]), and what follows
/// does not matter. By itself it delivers to its branches one after the other, in the order in which they were added. An
/// event that one of them did not take is reported as not delivered, and the tee remembers which ones still lack it: when
/// the event comes again, the others do not get it twice.
///
/// - An event is known again by all that it carries: ID, payload, time, position, passing ids.
/// - So many events at most are remembered at a time: 65,536, or what [`Tee::remembering`] says. When one more has to be,
///   the one longest untouched is forgotten and counted in [`Tee::forgotten`]: when it comes again, every branch gets it.
/// - Its failure is [`FailureClass::Permanent`] only when no branch that lacks it would take it any more. Then nothing is
///   remembered of it. Else it is the class that asks for most patience: auth, throttled, transient, defer.
/// - Who gives up on an event that could have been delivered later says so with [`Tee::give_up`]. Otherwise the very same
///   event, sent again some day as a new one, would go only to the branches that lack it.
///
/// ```
/// use dedupd::sink::{ChannelSink, NdjsonSink, Sink, Tee};
/// use dedupd::Event;
///
/// # let dir = tempfile::tempdir()?;
/// # let path = dir.path().join("events.ndjson");
/// let (sender, receiver) = crossbeam::channel::bounded(1024);
/// let mut tee = Tee::new().with(NdjsonSink::file(&path)?).with(ChannelSink::new(sender));
/// tee.deliver(&[Event::new("evt_1", "{}")])?;
/// assert_eq!((std::fs::read(&path)?, receiver.len()), (b"{}\n".to_vec(), 1));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Default)]
pub struct Tee {
    branches: Vec<Box<dyn Sink>>,
    memory: Memory,
}

impl Tee {
    /// A tee without branches, which delivers nothing: all events fail as [`FailureClass::Transient`].
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The same with one more branch.
    #[must_use = "this returns the tee"]
    pub fn with(mut self, branch: impl Sink + 'static) -> Self {
        self.branches.push(Box::new(branch));
        self
    }

    /// The same with a memory for so many events that some branches have and others lack.
    #[must_use = "this returns the tee"]
    pub fn remembering(mut self, events: usize) -> Self {
        self.memory.events_max = events;
        self
    }

    /// How many events are remembered that some branches have and others lack.
    #[must_use]
    pub fn remembered(&self) -> usize {
        self.memory.len()
    }

    /// How many events had to be forgotten of which some branches may get a second copy.
    #[must_use]
    pub fn forgotten(&self) -> u64 {
        self.memory.forgotten
    }

    /// The event was given up on: when it comes again, every branch gets it.
    pub fn give_up(&mut self, event: &Event<'_>) {
        self.memory.take(event);
    }
}

impl Sink for Tee {
    fn deliver(&mut self, batch: &[Event<'_>]) -> Result<(), SinkError> {
        if self.branches.is_empty() {
            return Err(SinkError::rest(0..batch.len(), FailureClass::Transient).because("the tee has no branches"));
        }
        let lacking: Vec<_> = batch.iter().map(|event| self.memory.take(event)).collect();
        let mut undone = BTreeMap::<usize, Undone>::new();
        let mut cause = None;
        for (number, branch) in self.branches.iter_mut().enumerate() {
            let wanted = |index: &usize| lacking[*index].as_ref().is_none_or(|branches| branches.contains(&number));
            let part: Vec<usize> = (0..batch.len()).filter(wanted).collect();
            if let Err(error) = deliver_part(branch, batch, &part) {
                for (index, class) in error.failures() {
                    undone
                        .entry(part[*index])
                        .and_modify(|undone| undone.add(number, *class))
                        .or_insert_with(|| Undone { class: *class, branches: vec![number] });
                }
                cause.get_or_insert(BranchError { number, source: error });
            }
        }
        let Some(cause) = cause else { return Ok(()) };
        let failures: Vec<_> = undone.iter().map(|(index, undone)| (*index, undone.class)).collect();
        for (index, undone) in undone {
            if undone.class.is_retryable() && undone.branches.len() < self.branches.len() {
                self.memory.put(&batch[index], undone.branches.into());
            }
        }
        Err(SinkError::new(failures).because(cause))
    }

    /// Flushes every branch, also after one has failed.
    fn flush(&mut self) -> Result<(), SinkError> {
        let flushed = self.branches.iter_mut().map(|branch| branch.flush()).enumerate();
        let failed = flushed.fold(None, |first, (number, flushed)| {
            first.or_else(|| flushed.err().map(|source| BranchError { number, source }))
        });
        failed.map_or(Ok(()), |error| Err(SinkError::other(error)))
    }

    /// The weakest of its branches'.
    fn guarantees(&self) -> Guarantees {
        let all = self.branches.iter().map(|branch| branch.guarantees());
        all.reduce(Guarantees::weakest).unwrap_or_default()
    }

    fn name(&self) -> Cow<'_, [u8]> {
        Cow::Borrowed(b"tee")
    }

    /// The positions of all branches, when each has one.
    fn position(&mut self) -> Result<Option<Vec<u8>>, SinkError> {
        position::of(&mut self.branches)
    }

    /// Cuts the branches back, one after the other. When one refuses, those before it are cut back already, to where they
    /// have to be in any case.
    fn resume(&mut self, position: Option<&[u8]>) -> Result<(), SinkError> {
        position::resume(&mut self.branches, position)
    }

    fn into_branches(self: Box<Self>) -> Vec<Box<dyn Sink>> {
        if self.branches.is_empty() {
            return vec![self];
        }
        self.branches.into_iter().flat_map(Sink::into_branches).collect()
    }
}

impl fmt::Debug for Tee {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tee").field("branches", &self.branches.len()).field("memory", &self.memory).finish()
    }
}

/// What is known of an event that not every branch has.
struct Undone {
    class: FailureClass,
    /// Those that lack it.
    branches: Vec<usize>,
}

impl Undone {
    fn add(&mut self, number: usize, class: FailureClass) {
        self.class = patient(self.class, class);
        if self.branches.last() != Some(&number) {
            self.branches.push(number);
        }
    }
}

/// Delivers the events of `batch` at these indices.
fn deliver_part(branch: &mut dyn Sink, batch: &[Event<'_>], part: &[usize]) -> Result<(), SinkError> {
    let delivered = match part.len() {
        0 => Ok(()),
        all if all == batch.len() => branch.deliver(batch),
        _ => branch.deliver(&part.iter().map(|index| batch[*index]).collect::<Vec<_>>()),
    };
    delivered.map_err(|error| error.of_batch(part.len()))
}

/// The class of both that asks for more patience.
fn patient(one: FailureClass, other: FailureClass) -> FailureClass {
    use FailureClass::{Auth, Defer, Permanent, Throttled, Transient};
    match (one, other) {
        (Throttled { not_before: one }, Throttled { not_before: other }) => Throttled { not_before: one.max(other) },
        (Defer(one), Defer(other)) => Defer(one.max(other)),
        (one, other) => {
            // A deferral is no attempt: it must not hide one that failed.
            let rank = |class| match class {
                Auth => 4,
                Throttled { .. } => 3,
                Transient => 2,
                Defer(_) => 1,
                Permanent => 0,
            };
            if rank(one) >= rank(other) { one } else { other }
        }
    }
}

/// The first branch that failed, and how.
#[derive(Debug, thiserror::Error)]
#[error("branch {number} of the tee failed")]
struct BranchError {
    number: usize,
    source: SinkError,
}
