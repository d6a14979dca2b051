//! Where first-seen events go.
//!
//! A [`Sink`] is told what to deliver and says for each event that it could not deliver what kind of failure that was. It
//! decides nothing else: whether a failure is worth another attempt, when, and when an ID counts as seen are its caller's
//! part, so that a sink stays a few lines long and can be anything that takes bytes.
//!
//! Ready are [`NdjsonSink`] (lines to a file or a stream), [`ClosureSink`] (a function), [`ChannelSink`] (another thread) and
//! [`Tee`] (several of these). `dedupd sinks` prints what each promises, and [`ready()`] returns it.

mod channel;
mod closure;
mod error;
mod guarantees;
mod identity;
mod ndjson;
mod ready;
mod tee;

use std::borrow::Cow;

use crate::event::Event;

pub use channel::ChannelSink;
pub use closure::ClosureSink;
pub use error::{FailureClass, SinkError};
pub use guarantees::{Durable, Guarantees, Idempotency, Order};
pub use identity::FileIdentity;
pub use ndjson::{NdjsonSink, WriteError};
pub use ready::{Ready, ready};
pub use tee::Tee;

/// Where first-seen events go.
///
/// Called from one worker at a time, with no lock held. May block; never sleeps to retry: that is the pipeline's part. Must not wait
/// for the pipeline that calls it: submitting to it when it is full is such a wait.
pub trait Sink: Send {
    /// Delivers `batch` in order.
    ///
    /// # Errors
    /// [`SinkError`] names each event that was not delivered, by index, with its class of failure. What it does not name was
    /// delivered; when it names none, none was ([`SinkError::of_batch`]). An event whose fate is not known (a call that
    /// timed out) is [`FailureClass::Transient`]: it is tried again under the same ID.
    fn deliver(&mut self, batch: &[Event<'_>]) -> Result<(), SinkError>;

    /// Makes everything delivered so far durable. Called at each commit that is to survive a power cut, and at the end of a
    /// drain.
    ///
    /// # Errors
    /// Nothing delivered since the last success may be counted on.
    fn flush(&mut self) -> Result<(), SinkError> {
        Ok(())
    }

    /// What this sink promises; see [`Guarantees`] for what follows from it. The default is the least: nothing.
    fn guarantees(&self) -> Guarantees {
        Guarantees::default()
    }

    /// The name under which [`Sink::position`] is kept, the same after a restart.
    fn name(&self) -> Cow<'_, [u8]> {
        Cow::Borrowed(b"sink")
    }

    /// How far this sink was written, for a sink that can be cut back: what [`Sink::resume`] of a later process is given
    /// when the commit that this went into was the last. The default is that it cannot.
    ///
    /// # Errors
    /// It cannot be told now.
    fn position(&mut self) -> Result<Option<Vec<u8>>, SinkError> {
        Ok(None)
    }

    /// Takes back everything behind `position`, the last that was committed; `None` when none ever was. Called once,
    /// before the first delivery, where positions are kept: exactly once.
    ///
    /// # Errors
    /// The target is not what it was at that position, and nothing was changed.
    fn resume(&mut self, position: Option<&[u8]>) -> Result<(), SinkError> {
        let _ = position;
        Ok(())
    }

    /// The sinks that it is made of, when each event goes to all of them: what a pipeline gives a lane of its own. The
    /// default is one, itself.
    fn into_branches(self: Box<Self>) -> Vec<Box<dyn Sink>>
    where
        Self: 'static,
    {
        vec![Box::new(self)]
    }
}

/// A sink is passed on as a reference or a box.
macro_rules! passes_on {
    ($($target:ty { $($more:item)* })*) => {$(
        impl<S: Sink + ?Sized> Sink for $target {
            $($more)*

            fn deliver(&mut self, batch: &[Event<'_>]) -> Result<(), SinkError> {
                (**self).deliver(batch)
            }

            fn flush(&mut self) -> Result<(), SinkError> {
                (**self).flush()
            }

            fn guarantees(&self) -> Guarantees {
                (**self).guarantees()
            }

            fn name(&self) -> Cow<'_, [u8]> {
                (**self).name()
            }

            fn position(&mut self) -> Result<Option<Vec<u8>>, SinkError> {
                (**self).position()
            }

            fn resume(&mut self, position: Option<&[u8]>) -> Result<(), SinkError> {
                (**self).resume(position)
            }
        }
    )*};
}

passes_on! {
    &mut S {}
    Box<S> {
        fn into_branches(self: Box<Self>) -> Vec<Box<dyn Sink>>
        where
            Self: 'static,
        {
            S::into_branches(*self)
        }
    }
}
