//! Where a log is damaged, and what can still be known about the segments from there on.

use super::super::error::OpenError;
use super::super::fields;
use super::super::frame::{self, Frame};
use super::super::header::{self, IDENTITY_BYTES, PAGE_BYTES, Place, SegmentHeader, Start};
use super::super::recovery::{Behind, SEGMENT_BYTES_LIMIT, numbers, read_header, refused, resumed, trace};
use super::super::storage::Storage;

/// A row of segments of which the first one is damaged.
#[derive(Debug)]
pub(super) struct Damage {
    pub(super) identity: [u8; IDENTITY_BYTES],
    /// The place before the row, when it is known.
    pub(super) before: Option<Place>,
    /// Whether the row is all of the log.
    pub(super) is_all: bool,
    pub(super) row: Vec<Outline>,
}

/// A segment as far as its header is known.
#[derive(Debug, Clone, Copy)]
pub(super) struct Outline {
    pub(super) header: SegmentHeader,
    is_sound: bool,
    /// Whether all of the header is as it was written, also where the page around it is not.
    pub(super) is_known: bool,
    /// The highest sequence that counts in the segments before, as far as this one tells.
    limit: Option<u64>,
    /// Whether nobody knows what stood in it.
    pub(super) is_lost: bool,
}

impl Damage {
    /// Finds the first damage; none when the log in `storage` is sound.
    pub(super) fn find(
        storage: &dyn Storage,
        identity: Option<&[u8; IDENTITY_BYTES]>,
    ) -> Result<Option<Self>, OpenError> {
        let names = storage.list().map_err(|source| refused(storage, "list", "", source))?;
        let (mut row, mut floor) = (Vec::new(), None);
        for number in numbers(&names) {
            let name = header::name(number);
            storage.write_back(&name).map_err(|source| refused(storage, "write back", &name, source))?;
            let outline = Outline::of(storage, number, floor)?;
            if row.is_empty() {
                floor = outline.floor(storage)?;
            }
            row.push(outline);
        }
        let told = common_identity(storage, &row)?.or(identity.copied());
        let Some((first, before)) = first_damaged(storage, &row)? else { return Ok(None) };
        row.drain(..first);
        let Some(identity) = told else {
            let number = row.first().map_or(0, |outline| outline.header.number);
            return Err(OpenError::Header { place: storage.place(&header::name(number)) });
        };
        Ok(Some(Self { identity, before, is_all: first == 0, row }))
    }

    /// The number of the first damaged segment.
    pub(super) fn from(&self) -> u64 {
        self.row.first().map_or(0, |outline| outline.header.number)
    }

    /// The highest sequence that counts in the segment of this index.
    pub(super) fn cap(&self, index: usize) -> Option<u64> {
        cap(&self.row, index)
    }

    /// The life that each segment is of, and the bytes that all frames can take.
    pub(super) fn lives(&self, storage: &dyn Storage) -> Result<(Vec<Life>, u64), OpenError> {
        let (mut lives, mut all_bytes): (Vec<Life>, u64) = (Vec::new(), 0);
        for (index, outline) in self.row.iter().enumerate() {
            let behind = Behind::of(&read(storage, outline.header.number)?, PAGE_BYTES, &outline.header, 0);
            // The last frame may end in zeros.
            all_bytes += behind.bytes.next_multiple_of(PAGE_BYTES as u64);
            // Where a header is lost a life may have ended before what was found of the next one.
            let next = self.row[index + 1..].iter().find(|outline| outline.limit.is_some() || !outline.is_known);
            let reached = next.filter(|outline| outline.is_known).and_then(|outline| outline.limit);
            let synced = behind.synced.max(reached.unwrap_or(0));
            let begins = !outline.is_known || matches!(outline.header.start, Start::Resumes(_));
            let life = match lives.last().filter(|_| !begins) {
                Some(life) => Life { synced: life.synced.max(synced), ..*life },
                None => Life { first: index, start: outline.limit.filter(|_| outline.is_known), synced },
            };
            lives.push(life);
        }
        // What the last segment of a life knows holds for all of them.
        for index in (1..lives.len()).rev() {
            if lives[index - 1].first == lives[index].first {
                lives[index - 1] = lives[index];
            }
        }
        Ok((lives, all_bytes))
    }
}

/// What one process wrote. Sequences go on from life to life, but what a life has lost the next one uses again: so
/// what a mark says holds for its own life only.
#[derive(Debug, Clone, Copy)]
pub(super) struct Life {
    /// The index of its first segment.
    pub(super) first: usize,
    /// The sequence that it goes on after, when that is known.
    pub(super) start: Option<u64>,
    /// The highest sequence that is known to have been on disk.
    pub(super) synced: u64,
}

/// The index of the first segment that does not hold what it must, and the place before it.
fn first_damaged(storage: &dyn Storage, row: &[Outline]) -> Result<Option<(usize, Option<Place>)>, OpenError> {
    let sound: Vec<SegmentHeader> =
        row.iter().take_while(|outline| outline.is_sound).map(|outline| outline.header).collect();
    let traced = trace(storage, &sound, &|index| cap(row, index), &mut |_| ());
    match traced.read {
        Err(error) if error.is_corruption() => Ok(Some((traced.spot, traced.before))),
        Err(error) => Err(error),
        Ok(()) if sound.len() == row.len() => Ok(None),
        Ok(()) => Ok(Some((sound.len(), traced.place))),
    }
}

fn cap(row: &[Outline], index: usize) -> Option<u64> {
    row[index + 1..].iter().filter_map(|outline| outline.limit).min()
}

/// What all segments say that they belong to.
fn common_identity(storage: &dyn Storage, row: &[Outline]) -> Result<Option<[u8; IDENTITY_BYTES]>, OpenError> {
    let mut told = row.iter().filter(|outline| outline.is_known).map(|outline| &outline.header);
    let first = told.next();
    match told.find(|header| first.is_some_and(|first| first.identity != header.identity)) {
        Some(other) => {
            let place = storage.place(&header::name(other.number));
            Err(OpenError::OtherState { place, found: other.identity })
        }
        None => Ok(first.map(|header| header.identity)),
    }
}

impl Outline {
    /// What is known of segment `number` of a log that begins after the sequence `floor`.
    fn of(storage: &dyn Storage, number: u64, floor: Option<u64>) -> Result<Self, OpenError> {
        let is_sound = match read_header(storage, number) {
            Ok(header) => return Ok(Self::known(header, true)),
            Err(OpenError::Header { .. }) => false,
            Err(error) => return Err(error),
        };
        let bytes = read(storage, number)?;
        let mended = SegmentHeader::mended(&bytes).filter(|header| header.number == number);
        Ok(mended.map_or_else(|| Self::guess(&bytes, number, floor), |header| Self::known(header, is_sound)))
    }

    fn known(header: SegmentHeader, is_sound: bool) -> Self {
        let limit = resumed(&header).map(|place| place.sequence);
        Self { header, is_sound, is_known: true, limit, is_lost: false }
    }

    /// What a segment whose header is lost must be, by the frames in it.
    fn guess(bytes: &[u8], number: u64, floor: Option<u64>) -> Self {
        let salts = [fields::u64_at(bytes, header::SALT_AT), bytes.get(PAGE_BYTES..).and_then(frame::salt_of)];
        let found = salts.into_iter().flatten().find_map(|salt| {
            let (_, frame) = Frames::of(bytes, salt).next()?;
            Some((salt, frame.header.sequence - 1))
        });
        // Frames from an earlier life of the file are older than the log.
        let found = found.filter(|(_, before)| floor.is_none_or(|floor| *before > floor));
        let (start, identity) = (Start::Follows, [0; IDENTITY_BYTES]);
        let salt = found.map_or(0, |(salt, _)| salt);
        let header = SegmentHeader { number, salt, start, is_recycled: true, bytes: 0, identity };
        // Without a floor it may be such a frame, which says nothing about those before it.
        let limit = found.filter(|_| floor.is_some()).map(|(_, before)| before);
        // Only one that is as it was made, all zeros, is known to have held nothing.
        let is_unused = bytes.len() > PAGE_BYTES && bytes.iter().skip(PAGE_BYTES).all(|byte| *byte == 0);
        let is_lost = found.is_none() && !is_unused;
        Self { header, is_sound: false, is_known: false, limit, is_lost }
    }

    /// The sequence before this segment, which is the lowest.
    fn floor(&self, storage: &dyn Storage) -> Result<Option<u64>, OpenError> {
        let number = self.header.number;
        if self.limit.is_some() || number == 1 {
            return Ok(Some(self.limit.unwrap_or(0)));
        }
        let bytes = read(storage, number)?;
        Ok(Frames::of(&bytes, self.header.salt).next().map(|(_, frame)| frame.header.sequence - 1))
    }
}

/// The frames in a segment that check, wherever they stand.
pub(super) struct Frames<'a> {
    bytes: &'a [u8],
    salt: u64,
    at: usize,
}

impl<'a> Frames<'a> {
    pub(super) fn of(bytes: &'a [u8], salt: u64) -> Self {
        Self { bytes, salt, at: PAGE_BYTES }
    }
}

impl<'a> Iterator for Frames<'a> {
    type Item = (usize, Frame<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        while let Some(rest) = self.bytes.get(self.at..).filter(|rest| rest.len() >= frame::HEADER_BYTES) {
            let at = self.at;
            if let Some(frame) = Frame::decode(rest, self.salt) {
                self.at += frame.bytes();
                return Some((at, frame));
            }
            // Frames stand at multiples of 8.
            self.at += 8;
        }
        None
    }
}

pub(super) fn read(storage: &dyn Storage, number: u64) -> Result<Vec<u8>, OpenError> {
    let name = header::name(number);
    storage.read(&name, SEGMENT_BYTES_LIMIT).map_err(|source| refused(storage, "read", &name, source))
}
