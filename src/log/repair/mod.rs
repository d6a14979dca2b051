//! Repair: a log that is refused for corruption is made one that opens, with every frame that still checks.
//!
//! From the segment of the first gap on, all frames that check are written anew into fresh segments, which resume
//! after the last frame of the segment before. The old files are then moved aside as they are. So nothing that was
//! read is changed, the format needs no word for a gap, and what opens afterwards is an ordinary log.
//!
//! Frames that were dead stay dead: one that a later segment fenced off, or that stands behind a hole which was never
//! synced, belongs to events that were answered as not recorded. To bring it back would drop those events.
//!
//! Two marks make it safe to be killed anywhere. While `*.repairing` stands, segments from its number on are copies in
//! the making, thrown away by the next try. `*.repaired` says that the copies are complete and on disk; from then on
//! each step is a rename that may be done again. A log with either mark is refused by everybody else. No step renames
//! or removes a file that the log cannot do without.
//!
//! Rejected: cutting the bad part out of its file (the bytes around a gap are the evidence for what was lost), and a
//! flag in the format for a gap (every reader would have to know it for ever).

mod copies;
mod copy;
mod damage;
mod gap;
mod mark;

use crate::time::Timestamp;

use super::error::OpenError;
use super::header::IDENTITY_BYTES;
use super::recovery::{numbers, quarantined_until, refused};
use super::storage::Storage;

use copy::Copying;
use damage::Damage;
use mark::Mark;

pub(super) use mark::is_mark;

/// What a repair did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Repaired {
    /// Where frames were missing; empty when an earlier repair got that far and was cut short later.
    pub(crate) gaps: Vec<Gap>,
    pub(crate) totals: Totals,
    /// The names of the files that were moved aside.
    pub(crate) set_aside: Vec<String>,
}

/// A stretch of the log that was on disk and does not check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Gap {
    /// The file that it begins in, under its name before the repair.
    pub(crate) place: String,
    pub(crate) offset: u64,
    /// How many frames are missing, when that is known.
    pub(crate) frames: Option<u64>,
    /// How many ids they can have held at the most, when that is known.
    pub(crate) ids_max: Option<u64>,
    /// An engine time that none of them is later than, when one is known.
    pub(crate) latest: Option<Timestamp>,
}

/// All gaps together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Totals {
    /// Frames that were written anew.
    pub(crate) kept: u64,
    pub(crate) frames: Option<u64>,
    pub(crate) ids_max: Option<u64>,
    pub(crate) latest: Option<Timestamp>,
}

impl Totals {
    fn of(kept: u64, gaps: &[Gap]) -> Self {
        let latest: Option<Vec<_>> = gaps.iter().map(|gap| gap.latest).collect();
        Self {
            kept,
            frames: gaps.iter().map(|gap| gap.frames).sum(),
            ids_max: gaps.iter().map(|gap| gap.ids_max).sum(),
            latest: latest.and_then(|all| all.into_iter().max()),
        }
    }
}

/// Repairs the log in `storage`, which is locked and not open; nothing when it is sound. The new segments are of
/// `identity` when no other segment tells which state they belong to.
///
/// # Errors
/// [`OpenError`]. The log is as before, or refused until a repair has come to its end; in either case the same call
/// may be repeated.
pub(crate) fn repair(
    storage: &dyn Storage,
    identity: Option<&[u8; IDENTITY_BYTES]>,
) -> Result<Option<Repaired>, OpenError> {
    let names = storage.list().map_err(|source| refused(storage, "list", "", source))?;
    if let Some(done) = Mark::repaired_in(&names) {
        // It may have been seen by nobody but the process that died, and what follows stands on it.
        storage.sync_directory().map_err(|source| refused(storage, "sync", "", source))?;
        let totals = done.totals(storage)?;
        let set_aside = done.finish(storage)?;
        return Ok(Some(Repaired { gaps: Vec::new(), totals, set_aside }));
    }
    let begun = Mark::repairing_in(&names);
    let first = match begun {
        Some(begun) => begun.discard_copies(storage)?,
        None => first_free(&names),
    };
    let Some(damage) = Damage::find(storage, identity)? else {
        begun.map_or(Ok(()), |begun| begun.remove(storage))?;
        return Ok(None);
    };
    Mark::Repairing { first }.make(storage, Totals::default())?;
    let (kept, gaps) = Copying::new(storage, &damage, first)?.run()?;
    let (done, totals) = (Mark::Repaired { from: damage.from(), first }, Totals::of(kept, &gaps));
    done.make(storage, totals)?;
    let set_aside = done.finish(storage)?;
    Ok(Some(Repaired { gaps, totals, set_aside }))
}

/// A number that no segment has or had, as far as the names tell.
fn first_free(names: &[String]) -> u64 {
    let aside = names.iter().filter_map(|name| quarantined_until(name));
    numbers(names).into_iter().chain(aside).max().map_or(1, |number| number.saturating_add(1))
}
