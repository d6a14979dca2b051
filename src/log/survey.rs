//! Reading a log from outside: what it holds, without opening it.
//!
//! Nothing is locked and nothing is written, so another process may append meanwhile. What is seen then is a prefix: a
//! frame's body is stored before its header, and a read goes forward. What can look wrong is a file that was listed
//! and has aged out since, and a frame that came to be behind the place where the reading was. Both are gone at a
//! second look, so a reading starts over when a file has vanished, and damage counts when it is found twice in the
//! same place.

use std::collections::BTreeMap;
use std::io;

use crate::time::Timestamp;

use super::batch::{Kind, Record};
use super::error::OpenError;
use super::frame::HEADER_BYTES;
use super::header::{IDENTITY_BYTES, SegmentHeader};
use super::recovery::{Loss, Replayed, numbers, read_header, read_only, refused, resumed};
use super::storage::Storage;

/// What a log holds.
#[derive(Debug, Default)]
pub(crate) struct Survey {
    /// The segments by number.
    pub(crate) segments: BTreeMap<u64, Surveyed>,
    /// The last position of each source, by name.
    pub(crate) sources: BTreeMap<Vec<u8>, Vec<u8>>,
    /// The last position of each sink, by name.
    pub(crate) sinks: BTreeMap<Vec<u8>, Vec<u8>>,
}

/// One segment as far as it could be read.
#[derive(Debug, Default)]
pub(crate) struct Surveyed {
    /// None when it does not check.
    pub(crate) header: Option<Heading>,
    /// Frames that count, marks included.
    pub(crate) frames: u64,
    /// The bytes that they take.
    pub(crate) frame_bytes: u64,
    /// The sequence of its first and of its last frame.
    pub(crate) sequences: Option<(u64, u64)>,
    /// The earliest and the latest engine time.
    pub(crate) times: Option<(Timestamp, Timestamp)>,
    pub(crate) ids: Ids,
}

/// What the header of a segment says.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Heading {
    /// The sequence after which it resumes; none when it follows on from the segment before.
    pub(crate) resumes: Option<u64>,
    pub(crate) is_recycled: bool,
    pub(crate) identity: [u8; IDENTITY_BYTES],
}

/// Ids by what is said of them. An id that was seen twice counts twice.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Ids {
    pub(crate) seen: u64,
    pub(crate) refreshed: u64,
    pub(crate) forgotten: u64,
}

impl Survey {
    /// Reads all of the log in `storage`. What was read up to the place of an error is in the survey, too; without one
    /// it comes with what stands behind the last frame.
    pub(crate) fn of(storage: &dyn Storage) -> (Self, Result<Option<Loss>, OpenError>) {
        let mut survey = Self::default();
        let read = steadily(|| {
            survey = Self::default();
            survey.read_headers(storage)?;
            read_only(storage, &mut |replayed| survey.count(&replayed))
        });
        (survey, read)
    }

    /// Reads only the headers.
    pub(crate) fn of_headers(storage: &dyn Storage) -> Result<Self, OpenError> {
        steadily(|| {
            let mut survey = Self::default();
            survey.read_headers(storage)?;
            Ok(survey)
        })
    }

    fn read_headers(&mut self, storage: &dyn Storage) -> Result<(), OpenError> {
        let names = storage.list().map_err(|source| refused(storage, "list", "", source))?;
        for number in numbers(&names) {
            let header = match read_header(storage, number) {
                Ok(header) => Some(Heading::of(&header)),
                Err(error @ OpenError::Io { .. }) => return Err(error),
                Err(_) => None,
            };
            self.segments.insert(number, Surveyed { header, ..Surveyed::default() });
        }
        Ok(())
    }

    fn count(&mut self, replayed: &Replayed<'_>) {
        let (sequence, time) = (replayed.sequence, replayed.time);
        let segment = self.segments.entry(replayed.segment).or_default();
        segment.frames += 1;
        segment.frame_bytes += HEADER_BYTES as u64;
        segment.sequences = Some((segment.sequences.map_or(sequence, |(first, _)| first), sequence));
        let (oldest, newest) = segment.times.unwrap_or((time, time));
        segment.times = Some((oldest.min(time), newest.max(time)));
        for record in replayed.records {
            segment.frame_bytes += (RECORD_HEADER_BYTES + record.bytes.len().next_multiple_of(8)) as u64;
            segment.ids.count(record);
            let positions = match record.kind {
                Kind::Source => &mut self.sources,
                Kind::Sink => &mut self.sinks,
                _ => continue,
            };
            if let Some((name, position)) = record.named() {
                positions.insert(name.to_owned(), position.to_owned());
            }
        }
    }
}

impl Heading {
    fn of(header: &SegmentHeader) -> Self {
        let resumes = resumed(header).map(|place| place.sequence);
        Self { resumes, is_recycled: header.is_recycled, identity: header.identity }
    }
}

impl Ids {
    fn count(&mut self, record: Record<'_>) {
        match record.kind {
            Kind::Seen => self.seen += record.ids().len() as u64,
            Kind::SeenAt => self.seen += record.ids_at().len() as u64,
            Kind::Refresh => self.refreshed += record.ids().len() as u64,
            Kind::RefreshAt => self.refreshed += record.ids_at().len() as u64,
            Kind::Forget => self.forgotten += record.ids().len() as u64,
            Kind::Source | Kind::Sink | Kind::Claim | Kind::Watermark | Kind::Clock => {}
        }
    }
}

/// Hands every frame of the log in `storage` up to the sequence `last` to `replay`, in sequence and each once, also
/// when the reading has to start over.
pub(crate) fn replay(storage: &dyn Storage, last: u64, replay: &mut dyn FnMut(Replayed<'_>)) -> Result<(), OpenError> {
    let mut done = 0;
    steadily(|| {
        read_only(storage, &mut |replayed| {
            if replayed.sequence > done && replayed.sequence <= last {
                done = replayed.sequence;
                replay(replayed);
            }
        })
    })
    .map(drop)
}

/// Reads until a reading meets neither a file that vanished under it nor damage that is not there at the next look.
fn steadily<T>(mut read: impl FnMut() -> Result<T, OpenError>) -> Result<T, OpenError> {
    let mut damage: Option<(String, u64)> = None;
    let mut result = read();
    for _ in 1..READINGS_MAX {
        let Err(error) = &result else { break };
        let spot = error.spot().map(|(place, offset)| (place.to_owned(), offset));
        if !(has_vanished(error) || (spot.is_some() && spot != damage)) {
            break;
        }
        damage = spot;
        result = read();
    }
    result
}

/// Whether a file was gone that had been listed.
fn has_vanished(error: &OpenError) -> bool {
    matches!(error, OpenError::Io { act: "read", source, .. } if source.kind() == io::ErrorKind::NotFound)
}

/// A log whose oldest segment ages out each time that it is read ages faster than it can be read.
const READINGS_MAX: usize = 32;
/// Bytes of a record before its own.
const RECORD_HEADER_BYTES: usize = 8;
