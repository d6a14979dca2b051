//! Reading a log: frames in sequence, up to the first one that is not there, and the question whether it may be
//! missing.
//!
//! What may be missing is decided by evidence: any frame header that checks, applied or found behind the gap, tells
//! up to where the disk was known to hold everything. Nothing that is read is changed; what is left over is named,
//! and tidied only when a new segment fences it off.

use std::io;

use crate::time::Timestamp;

use super::batch::Records;
use super::error::OpenError;
use super::frame::{self, Frame, Header};
use super::header::{self, IDENTITY_BYTES, NoHeader, PAGE_BYTES, Place, SegmentHeader, Start};
use super::repair;
use super::segment::{PREPARE_NAME, RECYCLED_NAME};
use super::storage::Storage;

/// A frame that is replayed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Replayed<'a> {
    /// The number of the segment that it stands in.
    pub(crate) segment: u64,
    pub(crate) sequence: u64,
    /// The engine time that it was appended with.
    pub(crate) time: Timestamp,
    /// How many bytes of all segments stand before its end.
    pub(crate) bytes: u64,
    /// What it holds; nothing when it was only a mark.
    pub(crate) records: Records<'a>,
}

/// What was found behind the last good frame and not applied: none of it was known to be on disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Loss {
    /// The segment with the gap.
    pub(crate) place: String,
    /// Where the gap starts.
    pub(crate) offset: u64,
    /// Bytes that are set behind it, in all segments, to the last one.
    pub(crate) bytes: u64,
    /// Frames behind it: with none it is a torn tail, otherwise a hole.
    pub(crate) frames: u64,
}

/// A segment that holds frames.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sealed {
    pub(super) number: u64,
    pub(super) first: u64,
    pub(super) last: u64,
    /// The latest engine time in it and before it.
    pub(super) newest: i64,
    /// Where its last frame ends.
    pub(super) end: u64,
    /// Whether the rest of a batch that found no room may stand behind it.
    pub(super) has_rest: bool,
    pub(super) is_cut: bool,
}

/// What a log held.
#[derive(Debug)]
pub(super) struct Recovered {
    pub(super) place: Place,
    pub(super) newest: i64,
    pub(super) row: Vec<Sealed>,
    pub(super) loss: Option<Loss>,
    pub(super) next_number: u64,
    leftovers: Vec<Leftover>,
}

/// What is to be done once a new segment fences off the old ones.
#[derive(Debug)]
enum Leftover {
    Remove(String),
    Quarantine(u64),
    Cut { number: u64, bytes: u64 },
}

/// Reads the log in `storage` and hands each frame to `replay`, in sequence.
///
/// On an error `replay` may have seen frames already: what it made of them is to be dropped.
pub(super) fn recover(
    storage: &dyn Storage,
    identity: &[u8; IDENTITY_BYTES],
    replay: &mut dyn FnMut(Replayed<'_>),
) -> Result<Recovered, OpenError> {
    let names = list(storage)?;
    let row = headers(storage, &names, Some(identity))?;
    write_back(storage, &row)?;
    let mut scan = Scan::new(storage, replay);
    scan.all(&row)?;
    scan.finish(&row, &names)
}

/// Reads the log in `storage` as [`recover`] does, whatever its configuration, and changes nothing at all: somebody
/// else may be writing to it. What stands behind the last frame is returned.
pub(super) fn read_only(
    storage: &dyn Storage,
    replay: &mut dyn FnMut(Replayed<'_>),
) -> Result<Option<Loss>, OpenError> {
    let names = list(storage)?;
    let row = headers(storage, &names, None)?;
    let mut scan = Scan::new(storage, replay);
    scan.all(&row)?;
    scan.loss(&row)
}

/// Reads all of `row`, whose segments hold no frame that counts above what `cap` says, and says where that cannot go
/// on.
pub(super) fn trace(
    storage: &dyn Storage,
    row: &[SegmentHeader],
    cap: &dyn Fn(usize) -> Option<u64>,
    replay: &mut dyn FnMut(Replayed<'_>),
) -> Trace {
    let mut scan = Scan::new(storage, replay);
    let read = row.iter().enumerate().try_for_each(|(index, segment)| scan.segment(index, segment, cap(index)));
    let read = read.and_then(|()| scan.loss(row).map(drop));
    let spot = scan.spot.map_or(0, |spot| spot.index);
    Trace { read, spot, before: scan.entries.get(spot).copied().flatten(), place: scan.place }
}

/// How far a row of segments could be read.
pub(super) struct Trace {
    pub(super) read: Result<(), OpenError>,
    /// The segment that the last frame stands in, by its index.
    pub(super) spot: usize,
    /// The place before that segment, when it is known.
    pub(super) before: Option<Place>,
    /// The place after the last frame.
    pub(super) place: Option<Place>,
}

/// The names in `storage`; none may say that a repair was cut short.
fn list(storage: &dyn Storage) -> Result<Vec<String>, OpenError> {
    let names = storage.list().map_err(|source| refused(storage, "list", "", source))?;
    match names.iter().find(|name| repair::is_mark(name)) {
        Some(name) => Err(OpenError::Unrepaired { place: storage.place(name) }),
        None => Ok(names),
    }
}

impl Recovered {
    /// Gives back, on a full disk, what holds nothing and is not needed to read the log: unfinished files, segments
    /// without a frame above the last one with frames, and the unused ends of segments. Recovery finds the same
    /// without any of them.
    pub(super) fn make_room(&self, storage: &dyn Storage) {
        let Some(last) = self.row.last() else { return };
        for leftover in &self.leftovers {
            let is_spare = match leftover {
                Leftover::Remove(name) => header::number(name).is_none_or(|number| number > last.number),
                Leftover::Cut { .. } => true,
                Leftover::Quarantine(_) => false,
            };
            if is_spare {
                // What cannot be given back makes no room; the next step tells.
                let _ = leftover.tidy(storage);
            }
        }
    }

    /// Removes, cuts and moves aside what no frame of the log stands in.
    pub(super) fn tidy(&mut self, storage: &dyn Storage) -> Result<(), OpenError> {
        for leftover in &self.leftovers {
            leftover.tidy(storage)?;
        }
        storage.sync_directory().map_err(|source| refused(storage, "sync", "", source))
    }
}

impl Recovered {
    /// The names of segments without a frame between those with frames.
    pub(super) fn empty_between(&self) -> Vec<String> {
        let last = self.row.last().map_or(0, |last| last.number);
        let is_between = |name: &str| header::number(name).is_some_and(|number| number < last);
        let names = self.leftovers.iter().filter_map(|leftover| match leftover {
            Leftover::Remove(name) if is_between(name) => Some(name.clone()),
            _ => None,
        });
        names.collect()
    }

    /// Notes that there is no file of this name any more, or that it is another one.
    pub(super) fn is_gone(&mut self, name: &str) {
        self.leftovers.retain(|leftover| match leftover {
            Leftover::Remove(left) => left != name,
            Leftover::Quarantine(number) | Leftover::Cut { number, .. } => header::name(*number) != name,
        });
    }
}

impl Sealed {
    /// Whether no frame stands in it.
    pub(super) fn is_empty(&self) -> bool {
        self.first > self.last
    }

    /// The latest engine time in it and before it.
    pub(super) fn until(&self) -> Timestamp {
        Timestamp::from_nanos(self.newest)
    }
}

impl Leftover {
    fn tidy(&self, storage: &dyn Storage) -> Result<(), OpenError> {
        let (act, name, result) = match self {
            Self::Remove(name) => ("remove", name.clone(), storage.remove(name).or_else(gone_is_fine)),
            Self::Quarantine(number) => {
                let name = header::name(*number);
                let result = storage.rename(&name, &format!("{number:016x}{QUARANTINE_SUFFIX}"));
                ("move aside", name, result)
            }
            Self::Cut { number, bytes } => {
                let name = header::name(*number);
                let result = storage.cut(&name, *bytes);
                ("cut", name, result)
            }
        };
        result.map_err(|source| refused(storage, act, &name, source))
    }
}

/// The headers of all segments, by number.
fn headers(
    storage: &dyn Storage,
    names: &[String],
    identity: Option<&[u8; IDENTITY_BYTES]>,
) -> Result<Vec<SegmentHeader>, OpenError> {
    let row: Vec<SegmentHeader> =
        numbers(names).into_iter().map(|number| read_header(storage, number)).collect::<Result<_, _>>()?;
    let wanted = identity.or(row.first().map(|header| &header.identity));
    match row.iter().find(|header| Some(&header.identity) != wanted) {
        Some(header) => {
            let place = storage.place(&header::name(header.number));
            Err(OpenError::OtherState { place, found: header.identity })
        }
        None => Ok(row),
    }
}

/// The numbers of the segments among `names`, in order.
pub(super) fn numbers(names: &[String]) -> Vec<u64> {
    let mut numbers: Vec<u64> = names.iter().filter_map(|name| header::number(name)).collect();
    numbers.sort_unstable();
    numbers
}

/// Has everything on disk that is going to be read. What stands before the last segment that resumes was when that
/// one was made.
fn write_back(storage: &dyn Storage, row: &[SegmentHeader]) -> Result<(), OpenError> {
    let from = row.iter().rposition(|segment| resumed(segment).is_some()).unwrap_or(0);
    row[from..].iter().try_for_each(|segment| {
        let name = header::name(segment.number);
        storage.write_back(&name).map_err(|source| refused(storage, "write back", &name, source))
    })
}

pub(super) fn read_header(storage: &dyn Storage, number: u64) -> Result<SegmentHeader, OpenError> {
    let name = header::name(number);
    let page = storage.read(&name, PAGE_BYTES as u64).map_err(|source| refused(storage, "read", &name, source))?;
    let place = storage.place(&name);
    match SegmentHeader::decode(&page) {
        Err(NoHeader::Newer { version }) => Err(OpenError::Newer { place, version }),
        Ok(header) if header.number != number => Err(OpenError::Header { place }),
        Err(NoHeader::Damaged) => Err(OpenError::Header { place }),
        Ok(header) => Ok(header),
    }
}

/// The state of reading.
struct Scan<'a> {
    storage: &'a dyn Storage,
    replay: &'a mut dyn FnMut(Replayed<'_>),
    /// After the last frame applied; none while the first frame may have any sequence.
    place: Option<Place>,
    newest: i64,
    found: Vec<Found>,
    /// The place before each segment, as far as it is known.
    entries: Vec<Option<Place>>,
    spot: Option<Spot>,
    /// Bytes of the segments before this one.
    passed: u64,
    /// The bytes of a segment: fresh memory for each would cost more than reading it.
    buffer: Vec<u8>,
}

/// What one segment held.
struct Found {
    number: u64,
    /// With the frames in it that were applied, when there are any.
    sealed: Option<Sealed>,
    /// Whether bytes stand in it that no frame explains.
    holds_more: bool,
}

/// Where the next frame would stand.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Spot {
    index: usize,
    offset: usize,
}

impl<'s> Scan<'s> {
    fn new(storage: &'s dyn Storage, replay: &'s mut dyn FnMut(Replayed<'_>)) -> Self {
        Self {
            storage,
            replay,
            place: None,
            newest: i64::MIN,
            found: Vec::new(),
            entries: Vec::new(),
            spot: None,
            passed: 0,
            buffer: Vec::new(),
        }
    }

    /// Applies the frames of all segments.
    fn all(&mut self, row: &[SegmentHeader]) -> Result<(), OpenError> {
        row.iter().enumerate().try_for_each(|(index, segment)| {
            let cap = row[index + 1..].iter().filter_map(resumed).map(|place| place.sequence).min();
            self.segment(index, segment, cap)
        })
    }

    /// Applies the frames of one segment that come next, none above `cap`.
    fn segment(&mut self, index: usize, segment: &SegmentHeader, cap: Option<u64>) -> Result<(), OpenError> {
        self.enter(index, segment, cap)?;
        self.entries.push(self.place);
        let mut bytes = std::mem::take(&mut self.buffer);
        self.read_into(segment.number, &mut bytes)?;
        let mut sealed: Option<Sealed> = None;
        let mut offset = PAGE_BYTES;
        while let Some((at, frame)) = self.next(&bytes, offset, segment.salt, cap) {
            self.apply(segment.number, at, &frame)?;
            offset = at + frame.bytes();
            self.spot = Some(Spot { index, offset });
            let first = sealed.map_or(frame.header.sequence, |sealed| sealed.first);
            let (number, last, newest, end) = (segment.number, frame.header.sequence, self.newest, offset as u64);
            let is_cut = bytes.len() as u64 <= cut_to(end);
            sealed = Some(Sealed { number, first, last, newest, end, has_rest: false, is_cut });
        }
        if self.place.is_none() {
            let place = self.storage.place(&header::name(segment.number));
            return Err(OpenError::FirstFrame { place, offset: PAGE_BYTES as u64 });
        }
        let behind = Behind::of(&bytes, offset, segment, self.missing_sequence());
        self.found.push(Found { number: segment.number, sealed, holds_more: behind.is_something(segment) });
        self.passed += bytes.len() as u64;
        self.buffer = bytes;
        Ok(())
    }

    /// Checks that `segment` goes on where the last one ended.
    fn enter(&mut self, index: usize, segment: &SegmentHeader, cap: Option<u64>) -> Result<(), OpenError> {
        let here = Spot { index, offset: PAGE_BYTES };
        let Some(resumed) = resumed(segment) else {
            if index == 0 {
                // Number 1 starts at the start, and where a later one resumes at the start there is nothing yet. Any
                // other that became the lowest starts with a frame that was synced.
                self.place = (segment.number == 1 || cap == Some(0)).then(Place::default);
                self.spot = Some(here);
            }
            return Ok(());
        };
        if index > 0 && self.place != Some(resumed) {
            return Err(self.missing(resumed.sequence));
        }
        (self.place, self.spot) = (Some(resumed), Some(here));
        Ok(())
    }

    /// The next frame in sequence, at `offset` or on the page after it, and where it is.
    fn next<'b>(&self, bytes: &'b [u8], offset: usize, salt: u64, cap: Option<u64>) -> Option<(usize, Frame<'b>)> {
        if let (Some(place), Some(cap)) = (self.place, cap)
            && place.sequence >= cap
        {
            return None;
        }
        [offset, offset.next_multiple_of(PAGE_BYTES)].into_iter().find_map(|at| {
            let frame = Frame::decode(bytes.get(at..)?, salt)?;
            self.continues(&frame.header).then_some((at, frame))
        })
    }

    fn continues(&self, header: &Header) -> bool {
        self.place
            .is_none_or(|place| Some(header.sequence) == place.sequence.checked_add(1) && header.chain == place.chain)
    }

    fn apply(&mut self, number: u64, at: usize, frame: &Frame<'_>) -> Result<(), OpenError> {
        let Some(records) = Records::of(frame.body) else {
            return Err(OpenError::Records { place: self.storage.place(&header::name(number)), offset: at as u64 });
        };
        let header = &frame.header;
        self.place = Some(Place { sequence: header.sequence, chain: frame.crc });
        self.newest = self.newest.max(header.time);
        let (segment, sequence, time) = (number, header.sequence, Timestamp::from_nanos(header.time));
        let bytes = self.passed + (at + frame.bytes()) as u64;
        (self.replay)(Replayed { segment, sequence, time, bytes, records });
        Ok(())
    }

    /// Judges what stands behind the last frame, and says what is to be done with it.
    fn finish(mut self, row: &[SegmentHeader], names: &[String]) -> Result<Recovered, OpenError> {
        let loss = self.loss(row)?;
        let place = self.place.unwrap_or_default();
        let sealed: Vec<Sealed> = self.found.iter().filter_map(|found| found.sealed).collect();
        let mut leftovers: Vec<Leftover> = self.found.iter().filter_map(Found::leftover).collect();
        let lowest = sealed.first().map_or(0, |sealed| sealed.number);
        let outlived = |name: &&String| {
            name.as_str() == PREPARE_NAME || name.as_str() == RECYCLED_NAME || is_outlived(name, lowest)
        };
        leftovers.extend(names.iter().filter(outlived).cloned().map(Leftover::Remove));
        let next_number = row.last().map_or(1, |segment| segment.number + 1);
        Ok(Recovered { place, newest: self.newest, row: sealed, loss, next_number, leftovers })
    }

    /// What stands behind the last frame in its segment and all later ones; an error when that frame was not the last.
    fn loss(&mut self, row: &[SegmentHeader]) -> Result<Option<Loss>, OpenError> {
        let (Some(spot), Some(place)) = (self.spot, self.place) else { return Ok(None) };
        let (mut all, mut is_loss, mut gap) = (Behind::default(), false, spot);
        for (index, segment) in row.iter().enumerate().skip(spot.index) {
            let from = if index == spot.index { spot.offset } else { PAGE_BYTES };
            let mut bytes = std::mem::take(&mut self.buffer);
            self.read_into(segment.number, &mut bytes)?;
            let behind = Behind::of(&bytes, from, segment, self.missing_sequence());
            is_loss |= behind.is_something(segment);
            if index == gap.index + 1 && all.bytes == 0 && behind.begins_with_gap {
                gap = Spot { index, offset: PAGE_BYTES };
            }
            all.add(&behind);
        }
        if all.synced > place.sequence {
            return Err(self.missing_at(gap, all.synced));
        }
        let place = row.get(gap.index).map(|segment| self.storage.place(&header::name(segment.number)));
        let report = |place| Loss { place, offset: gap.offset as u64, bytes: all.bytes, frames: all.frames };
        Ok(place.filter(|_| is_loss).map(report))
    }

    /// The error for a next frame that is not there and was on disk, as all up to `synced`.
    fn missing(&self, synced: u64) -> OpenError {
        self.missing_at(self.spot.unwrap_or(Spot { index: 0, offset: 0 }), synced)
    }

    fn missing_at(&self, gap: Spot, synced: u64) -> OpenError {
        let name = self.found.get(gap.index).map_or_else(String::new, |found| header::name(found.number));
        let (place, sequence) = (self.storage.place(&name), self.missing_sequence());
        OpenError::Corrupt { place, offset: gap.offset as u64, sequence, synced }
    }

    /// The sequence that comes next.
    fn missing_sequence(&self) -> u64 {
        self.place.map_or(0, |place| place.sequence.saturating_add(1))
    }

    fn read_into(&self, number: u64, bytes: &mut Vec<u8>) -> Result<(), OpenError> {
        let name = header::name(number);
        let read = self.storage.read_into(&name, SEGMENT_BYTES_LIMIT, bytes);
        read.map_err(|source| refused(self.storage, "read", &name, source))
    }
}

impl Found {
    fn leftover(&self) -> Option<Leftover> {
        match self.sealed {
            Some(sealed) if sealed.is_cut || self.holds_more => None,
            Some(sealed) => Some(Leftover::Cut { number: sealed.number, bytes: cut_to(sealed.end) }),
            None if self.holds_more => Some(Leftover::Quarantine(self.number)),
            None => Some(Leftover::Remove(header::name(self.number))),
        }
    }
}

/// What stands behind the frames that were applied.
#[derive(Default)]
pub(super) struct Behind {
    /// From the gap to the last byte that is set.
    pub(super) bytes: u64,
    /// Headers of frames that check.
    pub(super) headers: u64,
    /// Those of them that come after the frame that is missing.
    pub(super) frames: u64,
    /// The highest mark of any of them.
    pub(super) synced: u64,
    /// Whether the frame that is missing must have stood at the very start: what comes first is that frame, with a
    /// body that does not check, or stands further on.
    begins_with_gap: bool,
}

impl Behind {
    pub(super) fn of(bytes: &[u8], from: usize, segment: &SegmentHeader, missing: u64) -> Self {
        let rest = bytes.get(from..).unwrap_or_default();
        let bytes = rest.iter().rposition(|byte| *byte != 0).map_or(0, |last| last as u64 + 1);
        let mut behind = Self { bytes, ..Self::default() };
        // Frames stand at multiples of 8, and so does `from`, after a frame or a page.
        let set = usize::try_from(behind.bytes).unwrap_or(usize::MAX);
        let last = set.saturating_add(frame::HEADER_BYTES).min(rest.len());
        for at in (0..last).step_by(8) {
            if let Some((header, _)) = rest.get(at..).and_then(|bytes| Header::decode(bytes, segment.salt)) {
                behind.begins_with_gap |= behind.headers == 0 && (at > 0 || header.sequence == missing);
                behind.headers += 1;
                behind.frames += u64::from(header.sequence > missing);
                behind.synced = behind.synced.max(header.synced);
            }
        }
        behind
    }

    /// Whether any of it is of this life of the file: a recycled one is full of an older one.
    fn is_something(&self, segment: &SegmentHeader) -> bool {
        self.headers > 0 || (self.bytes > 0 && !segment.is_recycled)
    }

    fn add(&mut self, other: &Self) {
        self.bytes += other.bytes;
        self.headers += other.headers;
        self.frames += other.frames;
        self.synced = self.synced.max(other.synced);
    }
}

pub(super) fn resumed(segment: &SegmentHeader) -> Option<Place> {
    match segment.start {
        Start::Follows => None,
        Start::Resumes(place) => Some(place),
    }
}

/// Whether `name` was moved aside and is older than all that is live.
fn is_outlived(name: &str, lowest: u64) -> bool {
    quarantined_until(name).is_some_and(|until| until < lowest)
}

/// Whether this is the name of a file that was moved aside.
pub(crate) fn is_quarantined(name: &str) -> bool {
    quarantined_until(name).is_some()
}

/// The name under which a repair moves segment `number` aside, until `last` has aged out.
pub(super) fn quarantined_name(number: u64, last: u64) -> String {
    format!("{number:016x}-{last:016x}{QUARANTINE_SUFFIX}")
}

/// The number of the segment that what was moved aside as `name` outlives by an open; its own when there is no other.
pub(super) fn quarantined_until(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(QUARANTINE_SUFFIX)?;
    let until = digits.rsplit_once('-').map_or(digits, |(_, until)| until);
    u64::from_str_radix(until, 16).ok()
}

/// What a segment whose last frame ends at `end` is cut to: a whole page, so that no synced page is written again.
pub(super) fn cut_to(end: u64) -> u64 {
    end.next_multiple_of(PAGE_BYTES as u64)
}

/// The new segment was prepared under the name of one that was never finished.
fn gone_is_fine(error: io::Error) -> io::Result<()> {
    if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) }
}

pub(super) fn refused(storage: &dyn Storage, act: &'static str, name: &str, source: io::Error) -> OpenError {
    OpenError::Io { act, place: storage.place(name), source }
}

/// No segment is larger; a file that is longer is read to here.
pub(super) const SEGMENT_BYTES_LIMIT: u64 = 1 << 30;
pub(super) const QUARANTINE_SUFFIX: &str = ".quarantine";
