//! [`repair`]: a state that is refused for corruption is made one that opens.

use std::path::Path;
use std::time::Duration;

use crate::log::{self, Directory, Survey};
use crate::time::Timestamp;

use super::StateError;
use super::reader::{Reader, named};
use super::verify::secret_problem;

/// What a repair did, and what it could not bring back.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Repair {
    /// Where frames were missing. Empty when an earlier repair had found them, and was cut short after it had written
    /// anew what could be kept.
    pub gaps: Vec<Gap>,
    /// Frames that were written anew. Those in undamaged files before them stay where they are.
    pub frames_kept: u64,
    /// Frames that are missing, when that is known.
    pub frames_missing: Option<u64>,
    /// Ids that they can have held, at the most, when that is known.
    pub ids_unknown_max: Option<u64>,
    /// An engine time that none of them was recorded after, when one is known; otherwise it is that of the repair.
    pub latest: Option<Timestamp>,
    /// The names that the damaged files, and those after them, now have.
    pub set_aside: Vec<String>,
}

/// One stretch of bad bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Gap {
    /// The file that it begins in, by its name before the repair.
    pub file: String,
    /// Where in it the last good frame before it ends.
    pub offset: u64,
    /// Frames that are missing, when that is known.
    pub frames: Option<u64>,
    /// Ids that they can have held, at the most, when that is known.
    pub ids_max: Option<u64>,
}

impl Repair {
    /// Until when ids that are missing would have been remembered under `window`, at the latest, when nothing was recorded
    /// after `now`. From then on all is as if nothing had been lost.
    #[must_use]
    pub fn unknown_until(&self, window: Duration, now: Timestamp) -> Timestamp {
        // The slack is one generation, at most.
        self.latest.unwrap_or(now).saturating_add(window).saturating_add(window / 64)
    }
}

/// Repairs the state at `path`: every frame that checks is kept, and the damaged files are moved aside. None when it is
/// sound. Waits up to `lock_timeout` for who has it open.
///
/// What is lost are records. An ID of them is first-seen once more; one that was to be forgotten is remembered; and
/// positions of sources and sinks are the last ones that were kept.
///
/// A secret that is lost cannot be repaired: that is an error, and nothing is done.
///
/// It may be killed at any time: then the state is refused until a repair has come to its end.
///
/// # Errors
/// [`StateError`]. The state is as before, or refused until the next repair; nothing of it was deleted.
///
/// # Cost
/// Reads the log three times from the first damage on, and writes it once: there must be room for a second copy of that part.
pub fn repair(path: impl AsRef<Path>, lock_timeout: Duration) -> Result<Option<Repair>, StateError> {
    let reader = Reader::open(path.as_ref())?;
    let _lock = Directory::open(path.as_ref(), lock_timeout)?;
    let survey = Survey::of_headers(&reader.disk)?;
    if let Some(problem) = secret_problem(&reader, &survey)? {
        return Err(problem.into());
    }
    Ok(log::repair(&reader.disk, None)?.map(Repair::of))
}

impl Repair {
    pub(crate) fn of(repaired: log::Repaired) -> Self {
        let totals = repaired.totals;
        Self {
            gaps: repaired.gaps.into_iter().map(Gap::of).collect(),
            frames_kept: totals.kept,
            frames_missing: totals.frames,
            ids_unknown_max: totals.ids_max,
            latest: totals.latest,
            set_aside: repaired.set_aside,
        }
    }
}

impl Gap {
    fn of(gap: log::Gap) -> Self {
        Self { file: named(&gap.place), offset: gap.offset, frames: gap.frames, ids_max: gap.ids_max }
    }
}
