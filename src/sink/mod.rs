//! Where first-seen events go.

use crate::event::Event;

/// Where first-seen events go.
///
/// Called from one worker at a time, with no lock held. May block; never sleeps to retry: that is the caller's part.
pub trait Sink: Send {
    /// Delivers `batch` in order.
    ///
    /// # Errors
    /// [`SinkError`] says how far the delivery got.
    fn deliver(&mut self, batch: &[Event<'_>]) -> Result<(), SinkError>;

    /// Makes everything delivered so far durable. Called at each commit and at the end of a drain.
    ///
    /// # Errors
    /// As [`Sink::deliver`].
    fn flush(&mut self) -> Result<(), SinkError> {
        Ok(())
    }
}

/// A delivery that failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SinkError {
    /// Writing failed.
    #[error("the sink cannot be written")]
    Io(#[from] std::io::Error),
}
