//! A state directory from outside: whether it is sound, what it holds, and how to have it open again after damage.
//!
//! [`verify()`], [`inspect()`], [`export()`], [`records()`], [`secret()`], [`is_in_event_time()`] and [`has_digests()`] only read. They take no lock and write nothing, so they may look
//! at a directory that another process has open: they see all of its log up to the last committed frame. [`repair()`]
//! takes the lock.
//!
//! ```
//! use dedupd::{Deduplicator, state};
//!
//! let dir = tempfile::tempdir()?;
//! let dedup = Deduplicator::builder().open(dir.path())?;
//! dedup.observe_batch(&["evt_1", "evt_2"], &mut Vec::new());
//! let found = state::verify(dir.path())?;
//! assert!(found.is_sound() && found.ids.seen == 2);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Nothing here knows the window: whether an ID is still remembered is for a [`Deduplicator`](crate::Deduplicator) to
//! say.

mod error;
mod export;
mod identity;
mod in_use;
mod inspect;
mod reader;
mod repair;
mod secret;
mod verify;

pub use error::{Problem, StateError};
pub use export::{Record, What, export, records};
pub use identity::SecretFile;
pub(crate) use identity::{Identity, not_the_secret};
pub use in_use::Use;
pub use inspect::{FileBytes, Inspection, Named, Segment, inspect};
pub use reader::Ids;
pub use repair::{Gap, Repair, repair};
pub use secret::{has_digests, is_in_event_time, secret};
pub use verify::{Loss, Verification, verify};
