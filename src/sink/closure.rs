//! [`ClosureSink`]: a function as a sink.

use std::fmt;

use super::{Guarantees, Idempotency, Sink, SinkError};
use crate::event::Event;

/// Hands each batch to a closure.
///
/// An error of the closure that names no event counts as one of the whole batch: see [`SinkError::of_batch`].
///
/// ```
/// use dedupd::sink::{ClosureSink, Durable, Guarantees, Idempotency, Order, Sink};
/// use dedupd::Event;
///
/// let mut sum = 0;
/// let mut sink = ClosureSink::new(|batch: &[Event<'_>]| {
///     sum += batch.len();
///     Ok(())
/// })
/// .with_guarantees(Guarantees::new(Idempotency::None, Order::AsDelivered, Durable::No));
/// sink.deliver(&[Event::new("evt_1", "{}"), Event::new("evt_2", "{}")])?;
/// drop(sink);
/// assert_eq!(sum, 2);
/// # Ok::<(), dedupd::SinkError>(())
/// ```
pub struct ClosureSink<F> {
    deliver: F,
    guarantees: Guarantees,
}

impl<F: FnMut(&[Event<'_>]) -> Result<(), SinkError> + Send> ClosureSink<F> {
    /// Delivers with `deliver`, as [`Sink::deliver`] says. It promises nothing.
    pub fn new(deliver: F) -> Self {
        Self { deliver, guarantees: Guarantees::default() }
    }

    /// States what the closure promises. [`Idempotency::CutBack`] counts as none: a closure has no position.
    #[must_use = "this returns the sink"]
    pub fn with_guarantees(mut self, guarantees: Guarantees) -> Self {
        self.guarantees = guarantees;
        if guarantees.idempotency == Idempotency::CutBack {
            self.guarantees.idempotency = Idempotency::None;
        }
        self
    }
}

impl<F: FnMut(&[Event<'_>]) -> Result<(), SinkError> + Send> Sink for ClosureSink<F> {
    fn deliver(&mut self, batch: &[Event<'_>]) -> Result<(), SinkError> {
        (self.deliver)(batch).map_err(|error| error.of_batch(batch.len()))
    }

    fn guarantees(&self) -> Guarantees {
        self.guarantees
    }
}

impl<F> fmt::Debug for ClosureSink<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClosureSink").field("guarantees", &self.guarantees).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sink::{Durable, FailureClass, Order};

    #[test]
    fn what_the_closure_says_is_what_the_sink_says() {
        let mut sink = ClosureSink::new(|batch: &[Event<'_>]| match batch {
            [] => Ok(()),
            [_] => Err(SinkError::other("connection lost")),
            _ => Err(SinkError::rest(1..2, FailureClass::Permanent)),
        });
        let event = Event::new("a", "b");
        sink.deliver(&[]).unwrap();
        let all = sink.deliver(&[event]).unwrap_err();
        assert_eq!(all.failures(), [(0, FailureClass::Transient)], "an error that names nobody loses nothing");
        let one = sink.deliver(&[event; 3]).unwrap_err();
        assert_eq!(one.failures(), [(1, FailureClass::Permanent)]);
    }

    #[test]
    fn it_promises_what_was_stated_and_can_be_kept() {
        let sink = || ClosureSink::new(|_: &[Event<'_>]| Ok(()));
        assert_eq!(sink().guarantees(), Guarantees::default());
        let stated = Guarantees::new(Idempotency::ById, Order::AsDelivered, Durable::OnDelivery);
        assert_eq!(sink().with_guarantees(stated).guarantees(), stated);
        let beyond = Guarantees { idempotency: Idempotency::CutBack, ..stated };
        assert_eq!(sink().with_guarantees(beyond).guarantees().idempotency, Idempotency::None);
    }
}
