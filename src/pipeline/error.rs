//! Errors of starting, feeding and ending a pipeline.

use std::io;

use crate::dedup::Error as DedupError;
use crate::event::{Event, OwnedEvent};
use crate::queue::Refusal;
use crate::sink::SinkError;

use super::Delivery;

/// Why a pipeline does not start. No thread is left.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// There is nowhere to deliver to.
    #[error("a pipeline needs a sink")]
    NoSink,
    /// The set diverts conflicts, and there is nowhere to divert them to.
    #[error("a set that diverts conflicts needs a pipeline with a dead letter")]
    NoDeadLetter,
    /// More sinks than an event can be tracked for.
    #[error("{sinks} sinks are more than the {sinks_max} that are possible")]
    TooManySinks {
        /// As set.
        sinks: usize,
        /// The limit.
        sinks_max: usize,
    },
    /// The chain of source, state and sink cannot give what is asked for.
    #[error("delivery {asked} cannot be had: {why}; the most is {given}")]
    Delivery {
        /// As set.
        asked: Delivery,
        /// What there would be.
        given: Delivery,
        /// What stands in the way.
        why: &'static str,
    },
    /// A sink cannot go on where it was committed.
    #[error("a sink cannot go on where it was")]
    Resume(#[source] SinkError),
    /// A thread cannot be started.
    #[error("cannot start a thread")]
    Thread(#[source] io::Error),
}

impl StartError {
    /// The stable name of this error.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::NoSink => "no_sink",
            Self::NoDeadLetter => "no_dead_letter",
            Self::TooManySinks { .. } => "too_many_sinks",
            Self::Delivery { .. } => "delivery",
            Self::Resume(_) => "sink_resume",
            Self::Thread(_) => "thread",
        }
    }

    /// Whether the same call may succeed later.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Thread(_))
    }
}

/// Why an event was not taken. The caller still has it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SubmitError {
    /// There is no room now. Only where nothing waits for it.
    #[error("the pipeline is full: submit the event again later")]
    Full,
    /// The pipeline drains, or has ended.
    #[error("the pipeline is closed: its drain has begun")]
    Closed,
    /// The worker that this ID belongs to has ended after a panic or a failure.
    #[error("a worker of the pipeline has failed: drain it to see why, and start another one")]
    Poisoned,
    /// The event is larger than can be carried.
    #[error("an event, or the name of its source, of {bytes} bytes is over the limit of {bytes_max}")]
    TooLarge {
        /// ID, payload and the rest together.
        bytes: usize,
        /// The limit.
        bytes_max: usize,
    },
    /// There are more sources than can be kept apart.
    #[error("the event's source is one too many: name fewer, for example by partition")]
    TooManySources,
}

impl SubmitError {
    /// The stable name of this error.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Closed => "closed",
            Self::Poisoned => "poisoned",
            Self::TooLarge { .. } => "too_large",
            Self::TooManySources => "too_many_sources",
        }
    }

    /// Whether the same event may be taken later.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Full)
    }
}

impl From<Refusal> for SubmitError {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Full => Self::Full,
            Refusal::Closed => Self::Closed,
            Refusal::Broken => Self::Poisoned,
        }
    }
}

/// An event that was not taken, handed back, with the reason.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{reason}")]
#[non_exhaustive]
pub struct Refused<'a> {
    /// The event.
    pub event: Event<'a>,
    /// Why.
    pub reason: SubmitError,
}

/// A batch of which some events were not taken.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{} events of the batch were not taken: {reason}", .refused.len())]
#[non_exhaustive]
pub struct BatchRefused {
    /// Which, by index, rising. All others were taken.
    pub refused: Vec<usize>,
    /// Why the first of them was not.
    pub reason: SubmitError,
}

/// A drain that could not finish everything. Nothing is lost: what is not settled is here, and its source was not told.
#[derive(Debug, thiserror::Error)]
#[error("{} events are not settled{}", .unfinished.len(), .failures.first().map_or(String::new(), |failure| format!(": {failure}")))]
#[non_exhaustive]
pub struct DrainError {
    /// Events that were accepted and are not settled. Some of them may have been delivered. Their IDs are not known, but for those
    /// whose commit failed and, at most once, those that were committed before. Not among them are events that are committed, or
    /// repeat one that is, and whose source was not told so.
    pub unfinished: Vec<OwnedEvent>,
    /// What went wrong, in words; the same as in the log of what was reported.
    pub failures: Vec<String>,
    /// What the state said last, when it could not take something.
    #[source]
    pub log: Option<DedupError>,
}

impl DrainError {
    /// The stable name of this error.
    #[must_use]
    pub fn code(&self) -> &'static str {
        "unfinished"
    }

    /// Draining again finishes no more: start another pipeline and submit the events again.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        false
    }
}
