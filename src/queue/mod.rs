//! The hand-off between stages: bounded, in order, and without a lock on the way through.
//!
//! A filter has three stages: fill a buffer, work on it, emit it. Only the middle one may run on many threads at once;
//! the outer two are *roles* that any thread takes, one thread at a time. [`Handoff`] hands out the next piece of work,
//! the most downstream first, so a buffer that is nearly done is finished before another is begun, and memory stays at
//! the number of buffers it was made with. One thread walks the same code as eight and never waits; two balance by
//! themselves, because neither owns a stage.
//!
//! Rejected: a thread per stage. It needs three threads to use two cores, leaves one idle whenever the stages cost
//! unequal amounts, and wakes somebody for each buffer.
//!
//! Deliberately absent: unbounded queues, priorities, a way to skip an item. An item that is given up on closes the
//! hand-off, because order could not be kept.

mod bounded;
mod handoff;
mod intake;
mod large;
mod parking;
mod ring;
mod tray;
mod wait;

pub use handoff::{Emit, Fill, Handoff, Transform, Work};
pub(crate) use intake::{Feeder, Intake, Outlet, Parcel, Refusal};
pub use wait::WaitStrategy;
