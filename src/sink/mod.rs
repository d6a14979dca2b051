//! Where first-seen events go.
//!
//! A [`Sink`] is told what to deliver and says how far it got. It decides nothing: which event goes out, whether a
//! failure is worth another attempt and when an ID counts as seen are its caller's part, so that a sink stays a few
//! lines long and can be anything that takes bytes.
//!
//! [`NdjsonSink`] is the local one: lines on a descriptor.

mod ndjson;

use crate::event::Event;

pub use ndjson::NdjsonSink;

/// Where first-seen events go.
///
/// Called from one worker at a time, with no lock held. May block; never sleeps to retry: that is the caller's part.
pub trait Sink: Send {
    /// Delivers `batch` in order.
    ///
    /// # Errors
    /// [`SinkError`] says how far the delivery got. What was delivered stays delivered.
    fn deliver(&mut self, batch: &[Event<'_>]) -> Result<(), SinkError>;

    /// Makes everything delivered so far durable. Called at each commit and at the end of a drain.
    ///
    /// # Errors
    /// As [`Sink::deliver`].
    fn flush(&mut self) -> Result<(), SinkError> {
        Ok(())
    }
}

impl<S: Sink + ?Sized> Sink for &mut S {
    fn deliver(&mut self, batch: &[Event<'_>]) -> Result<(), SinkError> {
        (**self).deliver(batch)
    }

    fn flush(&mut self) -> Result<(), SinkError> {
        (**self).flush()
    }
}

impl<S: Sink + ?Sized> Sink for Box<S> {
    fn deliver(&mut self, batch: &[Event<'_>]) -> Result<(), SinkError> {
        (**self).deliver(batch)
    }

    fn flush(&mut self) -> Result<(), SinkError> {
        (**self).flush()
    }
}

/// A delivery that failed part of the way.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SinkError {
    /// The bytes could not all be written.
    #[error("{} events and {bytes} bytes were delivered, then writing failed", .events)]
    Io {
        /// Events of the batch that were delivered whole, from its start.
        events: usize,
        /// Bytes of the batch that were delivered, from its start; more than those of `events` when a line was cut.
        bytes: u64,
        /// Why the rest was not.
        #[source]
        source: std::io::Error,
    },
}

impl SinkError {
    /// Events of the batch that were delivered whole, from its start.
    #[must_use]
    pub fn delivered(&self) -> usize {
        match self {
            Self::Io { events, .. } => *events,
        }
    }

    /// The stable name of this error.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Io { .. } => "sink_io",
        }
    }

    /// Whether the same delivery may succeed later.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Io { source, .. } => source.kind() == std::io::ErrorKind::StorageFull,
        }
    }
}
