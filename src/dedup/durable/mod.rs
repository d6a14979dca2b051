//! A set with a log: what is recorded is appended, and what was appended is known after a restart.
//!
//! [`Keeper`] answers and appends; [`Durable`] opens it, keeps its threads, and closes it.
//!
//! How an ID reaches the log:
//! - A batch is asked, and what was new in each block of it is appended as one frame, before the call returns.
//! - A single question gathers its new ID in its shard, under the lock that it holds anyway. A thread takes what all
//!   shards have gathered and appends it, about every millisecond.
//! - A commit is appended first, with the positions that belong to it, as one frame; only then its ids are marked.
//!
//! # Order
//! Recovery replays in sequence, and what it makes of records that only add (seen, refresh) does not depend on their order.
//! A *forget* does not commute with them: it must stand behind whatever it undoes, and before whatever comes later. So
//! there is one more lock, `order`: a batch holds it shared from before the question until after the append, a commit from
//! before the append until its ids are marked. Who forgets holds it alone, and `gathering` as well: what was gathered is
//! appended first, and nothing can be taken from the shards and appended behind the forgetting that was gathered before
//! it. A single question takes neither; an ID that it gathers meanwhile is taken out again, under the shard's lock. With
//! [`Durability::PowerLoss`](super::Durability::PowerLoss) everybody who asks holds `order` alone: each answer then waits for a sync
//! anyway, and a duplicate's first sight is appended before the duplicate is answered, so one wait covers both.
//!
//! Lock order: `order`, then `gathering`, then `kept`, then, where payloads are compared, `judging`, then a shard or the log. Who has
//! `judging` asks the set alone, and takes none of those before it. None is held while records are synced; an append
//! that finds no next segment ready prepares it under them.
//!
//! # Time
//! A frame has the engine's time. In event time that is the highest of any event that is *settled*, observed or committed, and not the
//! highest that was seen: events that are reserved and not committed come again after a crash, and a watermark that they
//! had moved before would make others late, or themselves. Frames from before the first event have the earliest time there is.
//!
//! # When an append fails
//! Ids of a batch that are not appended are forgotten again and not judged: whoever holds their events may ask again. Gathered ids stay gathered,
//! and as long as they cannot be appended nothing more is judged (or all is, from memory, and counted: as
//! [`OnLogFailure`](super::OnLogFailure) says). A commit changes nothing.

mod block;
mod gathering;
mod keeper;
#[cfg(all(loom, test))]
mod models;
mod open;
mod progress;
mod replay;
mod telling;
#[cfg(all(test, not(loom)))]
mod tests;
mod upkeep;

use std::sync::{Arc, PoisonError};

use super::{LogError, Recovery};
use crate::sync::{Mutex, MutexGuard};
use keeper::Keeper;
use upkeep::Upkeep;

#[cfg(all(test, not(loom)))]
pub(super) use open::Cut;
pub(super) use open::{Digests, Settings, State};
pub(super) use telling::OnRecovery;

/// A [`Keeper`] with its threads.
pub(super) struct Durable {
    keeper: Arc<Keeper>,
    upkeep: Mutex<Option<Upkeep>>,
    recovery: Recovery,
}

impl Durable {
    #[inline]
    pub(super) fn keeper(&self) -> &Keeper {
        &self.keeper
    }

    pub(super) fn recovery(&self) -> &Recovery {
        &self.recovery
    }

    /// Appends what is left, syncs it, and ends the threads. What comes later is not kept.
    pub(super) fn close(&self) -> Result<(), LogError> {
        let Some(upkeep) = lock(&self.upkeep).take() else { return Ok(()) };
        upkeep.end(&self.keeper);
        self.keeper.close()
    }
}

impl Drop for Durable {
    fn drop(&mut self) {
        // A close would have told.
        let _ = self.close();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
