//! [`SinkError`]: what a sink could not deliver, and why.

use std::error::Error;
use std::fmt;
use std::ops::Range;
use std::time::Duration;

use crate::time::Timestamp;

/// What kind of failure it is that an event could not be delivered: what is to be done about it follows from that.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum FailureClass {
    /// It may work the next time: a timeout, a connection lost, a full disk. Also when it is not known whether the event
    /// arrived.
    Transient,
    /// The target wants no more until then.
    Throttled {
        /// The earliest time of the next attempt.
        not_before: Timestamp,
    },
    /// Not now: the target asks for this event again after a while. That is no failed attempt.
    Defer(Duration),
    /// This event will never be taken: it is malformed for the target, or refused.
    Permanent,
    /// The target does not know or trust the caller: no event will be taken until somebody mends that.
    Auth,
}

impl FailureClass {
    /// The stable name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Transient => "transient",
            Self::Throttled { .. } => "throttled",
            Self::Defer(_) => "defer",
            Self::Permanent => "permanent",
            Self::Auth => "auth",
        }
    }

    /// Whether another attempt may succeed.
    #[must_use]
    pub fn is_retryable(self) -> bool {
        !matches!(self, Self::Permanent)
    }
}

/// The events of a batch that were not delivered, each with its class of failure, and the cause when there is one.
///
/// ```
/// use dedupd::sink::{FailureClass, SinkError};
///
/// let error = SinkError::rest(3..5, FailureClass::Transient).because("connection lost");
/// assert_eq!(error.failures(), [(3, FailureClass::Transient), (4, FailureClass::Transient)]);
/// ```
#[derive(Debug)]
pub struct SinkError {
    failures: Vec<(usize, FailureClass)>,
    cause: Option<Box<dyn Error + Send + Sync>>,
}

impl SinkError {
    /// Of these events, by index in the batch. All others were delivered.
    #[must_use]
    pub fn new(failures: impl IntoIterator<Item = (usize, FailureClass)>) -> Self {
        Self { failures: failures.into_iter().collect(), cause: None }
    }

    /// Of all events with an index in `undelivered`, for one reason.
    #[must_use]
    pub fn rest(undelivered: Range<usize>, class: FailureClass) -> Self {
        Self::new(undelivered.map(|index| (index, class)))
    }

    /// Of what is about no event: a flush, a position.
    #[must_use]
    pub fn other(cause: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self { failures: Vec::new(), cause: Some(cause.into()) }
    }

    /// The same error with its cause.
    #[must_use]
    pub fn because(self, cause: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self { cause: Some(cause.into()), ..self }
    }

    /// The same error, of a batch of this many events. When it names none of them, or one that is not there, it becomes one
    /// of all, as [`FailureClass::Transient`]: what an error leaves open was not delivered.
    #[must_use]
    pub fn of_batch(mut self, events: usize) -> Self {
        if self.failures.is_empty() || self.failures.iter().any(|(index, _)| *index >= events) {
            self.failures = (0..events).map(|index| (index, FailureClass::Transient)).collect();
        }
        self
    }

    /// The events that were not delivered, by index, with the class of failure; in the order in which the sink named them.
    #[must_use]
    pub fn failures(&self) -> &[(usize, FailureClass)] {
        &self.failures
    }

    /// The stable name of this error.
    #[must_use]
    pub fn code(&self) -> &'static str {
        self.failures.first().map_or("sink", |(_, class)| class.as_str())
    }

    /// Whether the same delivery may succeed later, for one event at least.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        self.failures.iter().any(|(_, class)| class.is_retryable())
    }
}

impl fmt::Display for SinkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.failures.as_slice() {
            [] => f.write_str("the sink failed"),
            [(index, class)] => write!(f, "event {index} of the batch was not delivered ({})", class.as_str()),
            [(index, class), ..] => {
                let count = self.failures.len();
                write!(f, "{count} events of the batch were not delivered, the first is {index} ({})", class.as_str())
            }
        }
    }
}

impl Error for SinkError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.cause.as_deref().map(|cause| cause as _)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_error_leaves_open_was_not_delivered() {
        let all = [(0, FailureClass::Transient), (1, FailureClass::Transient)];
        assert_eq!(SinkError::other("lost").of_batch(2).failures(), all);
        assert_eq!(SinkError::rest(1..3, FailureClass::Permanent).of_batch(2).failures(), all);
        let named = SinkError::rest(1..2, FailureClass::Permanent).because("no").of_batch(2);
        assert_eq!(named.failures(), [(1, FailureClass::Permanent)]);
        assert!(named.source().is_some());
    }
}
