//! Makes each event count once.
//!
//! Delivery is at-least-once nearly everywhere: webhooks are re-sent, clients retry, brokers redeliver, files are
//! replayed. This crate remembers event IDs for a window of time and answers one question fast: *is this the first
//! time?*
//!
//! ```
//! use dedupd::{Deduplicator, Verdict};
//! use std::time::Duration;
//!
//! let dedup = Deduplicator::builder().window(Duration::from_secs(3600)).build()?;
//! assert_eq!(dedup.observe(b"evt_1"), Verdict::FirstSeen);
//! assert_eq!(dedup.observe(b"evt_1"), Verdict::Duplicate);
//! # Ok::<(), dedupd::Error>(())
//! ```
//!
//! What is [built](Builder::build) lives in memory. What is [opened](Builder::open) keeps its window in a directory, across
//! restarts, `kill -9` and, as far as its [`Durability`] says, power loss; [`state`] looks into such a directory.
//!
//! The [`guide`] explains the promises and the machinery; the modules below stand in the order that an event takes
//! through them.
#![cfg_attr(docsrs, feature(doc_cfg))]
#![deny(
    missing_docs,
    missing_debug_implementations,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr
)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

#[cfg(not(unix))]
compile_error!("dedupd needs a Unix system: Linux is proven, other Unix systems compile");

pub mod guide;

pub mod decode;
mod dedup;
pub mod event;
mod log;
pub mod pipeline;
pub mod queue;
pub mod sink;
pub mod state;
mod sync;
pub mod time;
mod window;

pub use dedup::{
    BuildError, Builder, Deduplicator, Durability, Error, Explained, LogError, Loss, OnConflict, OnCorrupt,
    OnLogFailure, OpenError, Position, Progress, Recovery, RecoveryProgress, Reservation, Stats, WhenFull,
};
pub use event::{
    Digest, Event, Fingerprint, IdHash, OwnedEvent, Reason, ReserveVerdict, Secret, Source, Unjudged, Verdict,
};
pub use log::survive_sigbus;
pub use pipeline::{Delivery, Pipeline, Settled};
pub use queue::WaitStrategy;
pub use sink::{ChannelSink, ClosureSink, FailureClass, Guarantees, NdjsonSink, Sink, SinkError, Tee};
pub use time::{Clock, ManualClock, SystemClock, Timestamp};
pub use window::HashRing;

/// What the fuzz targets reach of what is private.
#[cfg(fuzzing)]
#[doc(hidden)]
pub mod fuzzing {
    pub use crate::log::fuzzing::{log_frame, log_recover};
}

/// The README's examples are tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
