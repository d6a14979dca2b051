//! [`verify()`]: whether a state is sound.

use std::path::Path;

use crate::log::{self, Survey, segment_name};

use super::identity::{Identity, SecretFile};
use super::reader::{Ids, Reader, named};
use super::{Problem, StateError, Use};

/// What a state is like.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Verification {
    /// Segment files.
    pub segments: u64,
    /// Their size, with what is kept ready for more.
    pub bytes: u64,
    /// Frames that check, in their order, up to the first problem.
    pub frames: u64,
    /// Ids in them.
    pub ids: Ids,
    /// Who has the state open.
    pub in_use: Use,
    /// What stands behind the last frame: lost in a crash, and never known to be on disk. The state is sound with it. While
    /// the state is open there is none: somebody is writing there.
    pub loss: Option<Loss>,
    /// What is wrong.
    pub problem: Option<Problem>,
}

/// What the last process had not put on disk: normal after a crash.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Loss {
    /// The file with the gap, by its name in the directory.
    pub file: String,
    /// Where in it the gap starts.
    pub offset: u64,
    /// Bytes behind it that are not zero, to the last one.
    pub bytes: u64,
    /// Whole frames behind it: with none it is a torn tail, otherwise a hole.
    pub frames: u64,
}

impl Verification {
    /// Whether the state would be opened, by who knows what it is of.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.problem.is_none()
    }
}

/// Reads all of the state at `path`, and says whether it is sound.
///
/// The end of a log has no witness: a newest segment that somebody removed, or cut before the mark that a close writes
/// last, leaves what a crash or an older copy leaves, and so does an oldest one that was removed. That is sound; it knows
/// less, and nothing wrong.
///
/// # Errors
/// [`StateError`] when it cannot be read. What is wrong with it is no error, but [`Verification::problem`].
///
/// # Cost
/// Reads each file of the log once, or twice when it seems corrupt.
pub fn verify(path: impl AsRef<Path>) -> Result<Verification, StateError> {
    let reader = Reader::open(path.as_ref())?;
    let (survey, read) = Survey::of(&reader.disk);
    Verification::of(&reader, &survey, read)
}

impl Verification {
    pub(super) fn of(
        reader: &Reader,
        survey: &Survey,
        read: Result<Option<log::Loss>, log::OpenError>,
    ) -> Result<Self, StateError> {
        let in_use = Use::of(&reader.path);
        let (loss, mut problem) = match read.map_err(StateError::from) {
            Ok(loss) => (loss.filter(|_| !matches!(in_use, Use::By(_))), None),
            Err(StateError::Problem(problem)) => (None, Some(problem)),
            Err(error) => return Err(error),
        };
        let (mut bytes, mut frames, mut ids) = (0, 0, Ids::default());
        for (number, segment) in &survey.segments {
            bytes += reader.bytes(&segment_name(*number))?.unwrap_or(0);
            frames += segment.frames;
            ids.add(&segment.ids);
        }
        if problem.is_none() {
            problem = secret_problem(reader, survey)?;
        }
        let segments = survey.segments.len() as u64;
        Ok(Self { segments, bytes, frames, ids, in_use, loss: loss.map(Loss::of), problem })
    }
}

impl Loss {
    fn of(loss: log::Loss) -> Self {
        Self { file: named(&loss.place), offset: loss.offset, bytes: loss.bytes, frames: loss.frames }
    }
}

/// What is wrong with the secret, where there is a log.
pub(super) fn secret_problem(reader: &Reader, survey: &Survey) -> Result<Option<Problem>, StateError> {
    if survey.segments.is_empty() {
        return Ok(None);
    }
    Ok(SecretFile::of(reader, identity(survey).as_ref())?.problem(reader))
}

/// What the first segment that can be read says.
pub(super) fn identity(survey: &Survey) -> Option<Identity> {
    survey.segments.values().find_map(|segment| segment.header).map(|header| Identity(header.identity))
}
