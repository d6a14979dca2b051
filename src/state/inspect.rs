//! [`inspect()`]: what a state holds.

use std::collections::BTreeMap;
use std::path::Path;

use crate::event::IdHash;
use crate::log::{self, Survey, segment_name};
use crate::time::Timestamp;

use super::identity::{Identity, SecretFile};
use super::reader::{Ids, Reader};
use super::verify::{Verification, identity};
use super::{StateError, Use};

/// What a state holds, and what it is of.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Inspection {
    /// Whether it is sound, and the sums over all segments.
    pub verification: Verification,
    /// The version of the format.
    pub format_version: u32,
    /// The hash of ids; none when no segment tells, or it is one that this version does not know.
    pub hash: Option<IdHash>,
    /// A digest of the id paths.
    pub id_paths_digest: Option<[u8; 8]>,
    /// Whether each event has a digest of its payload beside its ID: then records of ids are of both, about half each. `None`
    /// when no segment tells.
    pub has_digests: Option<bool>,
    /// What the secret is checked with. The secret cannot be told from it.
    pub secret_check: Option<[u8; 8]>,
    /// Whether the secret is the right one.
    pub secret: SecretFile,
    /// The segments, oldest first.
    pub segments: Vec<Segment>,
    /// Bytes that the frames take.
    pub frame_bytes: u64,
    /// The last position of each source.
    pub sources: Vec<Named>,
    /// The last position of each sink.
    pub sinks: Vec<Named>,
    /// Files that were moved aside.
    pub quarantined: Vec<FileBytes>,
}

/// One file of the log.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Segment {
    /// The number that its name is.
    pub number: u64,
    /// The name of the file.
    pub file: String,
    /// The size of the file, with what is kept ready for more.
    pub bytes: u64,
    /// Whether its header checks.
    pub is_readable: bool,
    /// Frames that count in it.
    pub frames: u64,
    /// The sequences of the first and the last of them.
    pub sequences: Option<(u64, u64)>,
    /// The earliest and the latest engine time of them.
    pub times: Option<(Timestamp, Timestamp)>,
    /// The ids in them.
    pub ids: Ids,
    /// With which sequence an earlier process had ended, when this is the first segment of a process.
    pub resumes: Option<u64>,
    /// Whether the file was one of an older segment before.
    pub is_recycled: bool,
}

/// A position by name.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Named {
    /// The name.
    pub name: Vec<u8>,
    /// The position.
    pub position: Vec<u8>,
}

/// A file and its size.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct FileBytes {
    /// Its name.
    pub file: String,
    /// Its size.
    pub bytes: u64,
}

impl Inspection {
    /// The earliest and the latest engine time of any frame.
    #[must_use]
    pub fn times(&self) -> Option<(Timestamp, Timestamp)> {
        let times = || self.segments.iter().filter_map(|segment| segment.times);
        Some((times().map(|(oldest, _)| oldest).min()?, times().map(|(_, newest)| newest).max()?))
    }

    /// What a record of an ID takes on average; none when there is no ID.
    #[must_use]
    pub fn bytes_per_id(&self) -> Option<f64> {
        let ids = self.verification.ids;
        let records = ids.seen + ids.refreshed + ids.forgotten;
        (records > 0).then(|| self.frame_bytes as f64 / records as f64)
    }
}

/// Reads all of the state at `path`, and says what is in it, up to the first place that is wrong.
///
/// # Errors
/// As [`verify()`](super::verify()).
pub fn inspect(path: impl AsRef<Path>) -> Result<Inspection, StateError> {
    let reader = Reader::open(path.as_ref())?;
    let (survey, read) = Survey::of(&reader.disk);
    let verification = Verification::of(&reader, &survey, read)?;
    let identity = identity(&survey);
    let mut segments = Vec::new();
    for (number, segment) in &survey.segments {
        segments.push(Segment::of(&reader, *number, segment)?);
    }
    Ok(Inspection {
        verification,
        format_version: log::VERSION,
        hash: identity.as_ref().and_then(Identity::hash),
        id_paths_digest: identity.as_ref().map(Identity::id_paths_digest),
        has_digests: identity.as_ref().map(Identity::has_digests),
        secret_check: identity.as_ref().map(Identity::secret_check),
        secret: SecretFile::of(&reader, identity.as_ref())?,
        segments,
        frame_bytes: survey.segments.values().map(|segment| segment.frame_bytes).sum(),
        sources: named(survey.sources),
        sinks: named(survey.sinks),
        quarantined: quarantined(&reader)?,
    })
}

impl Segment {
    fn of(reader: &Reader, number: u64, segment: &log::Surveyed) -> Result<Self, StateError> {
        let file = segment_name(number);
        let mut ids = Ids::default();
        ids.add(&segment.ids);
        Ok(Self {
            number,
            bytes: reader.bytes(&file)?.unwrap_or(0),
            file,
            is_readable: segment.header.is_some(),
            frames: segment.frames,
            sequences: segment.sequences,
            times: segment.times,
            ids,
            resumes: segment.header.and_then(|header| header.resumes),
            is_recycled: segment.header.is_some_and(|header| header.is_recycled),
        })
    }
}

fn named(positions: BTreeMap<Vec<u8>, Vec<u8>>) -> Vec<Named> {
    positions.into_iter().map(|(name, position)| Named { name, position }).collect()
}

fn quarantined(reader: &Reader) -> Result<Vec<FileBytes>, StateError> {
    let mut files = Vec::new();
    for file in reader.names()?.into_iter().filter(|name| log::is_quarantined(name)) {
        if let Some(bytes) = reader.bytes(&file)? {
            files.push(FileBytes { file, bytes });
        }
    }
    Ok(files)
}

impl Use {
    /// Whether somebody has it open, when that can be told.
    #[must_use]
    pub fn is_in_use(self) -> Option<bool> {
        match self {
            Self::Free => Some(false),
            Self::By(_) => Some(true),
            Self::Unknown => None,
        }
    }
}
