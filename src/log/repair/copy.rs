//! Writing the frames that check anew: in sequence, under new salts, each tied to the one before it.

use std::io;

use crate::time::Timestamp;

use super::super::batch::Records;
use super::super::error::OpenError;
use super::super::frame::{Frame, HEADER_BYTES, Header};
use super::super::header::{self, IDENTITY_BYTES, PAGE_BYTES, Place, Start};
use super::super::recovery::refused;
use super::super::segment::{Order, Prepared};
use super::super::storage::Storage;
use super::Gap;
use super::damage::{Damage, Frames, Life, read};

/// The state of copying what is left of a damaged row.
pub(super) struct Copying<'a> {
    storage: &'a dyn Storage,
    damage: &'a Damage,
    copies: Copies<'a>,
    /// The life that each segment is of. What is missing in it is skipped when all of it was on disk; otherwise the
    /// gap is the end of that life.
    lives: Vec<Life>,
    /// The life that has come to its end, by its first segment.
    ended: Option<usize>,
    /// The last frame of it.
    dropped: Option<Dropped>,
    /// After the last frame copied, as it stood in the old segments; none while the first may have any sequence.
    place: Option<Place>,
    spot: Spot,
    /// The latest engine time so far.
    newest: Option<i64>,
    gaps: Vec<Gap>,
}

/// Where the last frame copied ended.
#[derive(Debug, Clone, Copy)]
struct Spot {
    index: usize,
    offset: u64,
}

/// A frame that checks and does not count.
#[derive(Debug, Clone, Copy)]
struct Dropped {
    sequence: u64,
    time: i64,
    end: Spot,
}

impl<'a> Copying<'a> {
    pub(super) fn new(storage: &'a dyn Storage, damage: &'a Damage, first: u64) -> Result<Self, OpenError> {
        let place = damage.before.or((damage.from() == 1).then(Place::default));
        let (lives, bytes_left) = damage.lives(storage)?;
        let (identity, copied) = (damage.identity, place.unwrap_or_default());
        let copies = Copies { storage, identity, next: first, place: copied, bytes_left, open: None, kept: 0 };
        let spot = Spot { index: 0, offset: PAGE_BYTES as u64 };
        Ok(Self {
            storage,
            damage,
            copies,
            lives,
            ended: None,
            dropped: None,
            place,
            spot,
            newest: None,
            gaps: Vec::new(),
        })
    }

    /// Copies all frames that count; how many, and what was missing between them.
    pub(super) fn run(mut self) -> Result<(u64, Vec<Gap>), OpenError> {
        for (index, outline) in self.damage.row.iter().enumerate() {
            let bytes = read(self.storage, outline.header.number)?;
            let cap = self.damage.cap(index).unwrap_or(u64::MAX);
            for (at, frame) in Frames::of(&bytes, outline.header.salt) {
                if frame.header.sequence <= cap {
                    self.frame(Spot { index, offset: at as u64 }, &frame)?;
                }
            }
        }
        self.note_end();
        Ok((self.copies.finish()?, self.gaps))
    }

    /// Notes what is missing after the last frame copied.
    fn note_end(&mut self) {
        let synced = self.lives.iter().map(|life| life.synced.max(life.start.unwrap_or(0))).max().unwrap_or(0);
        let place = self.place.map(|place| place.sequence);
        let dropped = self.dropped.filter(|dropped| Some(dropped.sequence) > place && dropped.sequence >= synced);
        let is_lost = |index: usize| self.damage.row[index].is_lost;
        let gap = match (place, dropped) {
            (Some(place), Some(dropped)) => {
                self.gap(Some(dropped.end), Some(dropped.sequence - place), Some(dropped.time))
            }
            (Some(place), None) if synced > place => self.gap(None, Some(synced - place), None),
            (Some(_), None) if !(self.spot.index..self.damage.row.len()).any(is_lost) => return,
            _ => self.gap(None, None, None),
        };
        self.gaps.push(gap);
    }

    /// Copies `frame`, which stands at `spot`, when it counts.
    fn frame(&mut self, spot: Spot, frame: &Frame<'_>) -> Result<(), OpenError> {
        let header = &frame.header;
        let end = Spot { offset: spot.offset + frame.bytes() as u64, ..spot };
        if self.ended == Some(self.lives[spot.index].first) || !self.comes_next(spot, header) {
            let dropped = Dropped { sequence: header.sequence, time: header.time, end };
            self.dropped = self.dropped.filter(|before| before.sequence > dropped.sequence).or(Some(dropped));
            return Ok(());
        }
        if Records::of(frame.body).is_none() {
            let place = self.storage.place(&header::name(self.damage.row[spot.index].header.number));
            return Err(OpenError::Records { place, offset: spot.offset });
        }
        self.copies.push(header.time, frame.body, header.body_crc)?;
        self.place = Some(Place { sequence: header.sequence, chain: frame.crc });
        self.spot = end;
        self.newest = self.newest.max(Some(header.time));
        Ok(())
    }

    /// Whether the frame with `header` comes next, after a gap or not. A gap is noted.
    fn comes_next(&mut self, spot: Spot, header: &Header) -> bool {
        let before = header.sequence - 1;
        let missing = match self.place {
            Some(place) if before < place.sequence => return false,
            Some(place) if before == place.sequence && header.chain == place.chain => return true,
            Some(place) => Some(before - place.sequence),
            None => None,
        };
        let life = &self.lives[spot.index];
        // What is missing in this life, and not only before it, must have been on disk, all of it: a frame behind one
        // that may never have been there is dead. The lowest segment of a log begins with a frame that was.
        let is_lowest = self.place.is_none() && (spot.index, spot.offset) == (0, PAGE_BYTES as u64);
        if !is_lowest && life.start != Some(before) && life.synced < before {
            self.ended = Some(life.first);
            return false;
        }
        if !is_lowest {
            self.gaps.push(self.gap(Some(spot), missing, Some(header.time)));
        }
        if self.place.is_none() {
            // The sequence before this one may be any, and so is kept.
            self.copies.place.sequence = before;
        }
        true
    }

    /// What is missing between the last frame copied and `end`, where a frame of time `next` stands.
    fn gap(&self, end: Option<Spot>, frames: Option<u64>, next: Option<i64>) -> Gap {
        let number = self.damage.row[self.spot.index].header.number;
        let bytes = self.bytes_to(end);
        let ids = |bytes: u64, frames: u64| bytes.checked_sub(frames.checked_mul(FRAME_BYTES)?).map(|bytes| bytes / 16);
        Gap {
            place: self.storage.place(&header::name(number)),
            offset: self.spot.offset,
            frames,
            ids_max: bytes.and_then(|bytes| ids(bytes, frames.unwrap_or(1))),
            latest: next.map(|next| Timestamp::from_nanos(self.newest.map_or(next, |newest| newest.max(next)))),
        }
    }

    /// The bytes from the last frame copied to `end`, at the most; none when that cannot be told.
    fn bytes_to(&self, end: Option<Spot>) -> Option<u64> {
        if self.newest.is_none() && !self.damage.is_all {
            // It may begin in the segment before.
            return None;
        }
        let last = self.damage.row.len() - 1;
        let end = end.unwrap_or(Spot { index: last, offset: self.prepared_bytes(last)? });
        if end.index == self.spot.index {
            return Some(end.offset.saturating_sub(self.spot.offset));
        }
        // Segments may be gone as files, and then nothing is known about them.
        let numbers = |index: usize| self.damage.row[index].header.number;
        let is_dense = numbers(end.index) - numbers(self.spot.index) == (end.index - self.spot.index) as u64;
        let between = (self.spot.index..end.index).map(|index| self.prepared_bytes(index)).sum::<Option<u64>>();
        between.filter(|_| is_dense).map(|between| (between + end.offset).saturating_sub(self.spot.offset))
    }

    /// The size of a segment before anything could have cut it.
    fn prepared_bytes(&self, index: usize) -> Option<u64> {
        let bytes = self.damage.row[index].header.bytes;
        (bytes > 0).then_some(bytes)
    }
}

/// The new segments.
struct Copies<'a> {
    storage: &'a dyn Storage,
    identity: [u8; IDENTITY_BYTES],
    next: u64,
    /// After the last frame.
    place: Place,
    /// What may still have to be copied, at the most.
    bytes_left: u64,
    open: Option<Open>,
    kept: u64,
}

struct Open {
    segment: Prepared,
    offset: u64,
}

impl Copies<'_> {
    fn push(&mut self, time: i64, body: &[u8], body_crc: u32) -> Result<(), OpenError> {
        let sequence = self.place.sequence + 1;
        // The mark of a repair stands only when all copies are on disk, and nobody reads them before.
        let synced = self.place.sequence;
        // It was read from a frame, so it fits.
        let body_bytes = u32::try_from(body.len()).unwrap_or(u32::MAX);
        let header = Header { sequence, time, synced, chain: self.place.chain, body_bytes, body_crc };
        let bytes = (HEADER_BYTES + body.len()) as u64;
        let mut open = self.room_for(bytes)?;
        let (head, chain) = header.encode(open.segment.salt);
        let written = open.segment.pen.write(open.offset, &head);
        let written = written.and_then(|()| open.segment.pen.write(open.offset + HEADER_BYTES as u64, body));
        self.done("write", open.segment.number, written)?;
        open.offset += bytes;
        self.bytes_left = self.bytes_left.saturating_sub(bytes);
        self.open = Some(open);
        self.place = Place { sequence, chain };
        self.kept += 1;
        Ok(())
    }

    /// A segment with room for `bytes` bytes.
    fn room_for(&mut self, bytes: u64) -> Result<Open, OpenError> {
        match self.open.take() {
            Some(open) if open.offset + bytes <= open.segment.bytes => return Ok(open),
            Some(open) => self.seal(open)?,
            None => {}
        }
        self.prepare(bytes)
    }

    fn prepare(&mut self, bytes: u64) -> Result<Open, OpenError> {
        let start = if self.kept == 0 { Start::Resumes(self.place) } else { Start::Follows };
        let bytes = PAGE_BYTES as u64 + self.bytes_left.min(SEGMENT_BYTES).max(bytes);
        let bytes = bytes.next_multiple_of(PAGE_BYTES as u64);
        let order = Order { number: self.next, start, is_recycled: false, bytes, identity: self.identity };
        let prepared = order.prepare(self.storage).map_err(|error| error.into_source());
        let segment = self.done("prepare", self.next, prepared)?;
        self.next += 1;
        Ok(Open { segment, offset: PAGE_BYTES as u64 })
    }

    /// Has a segment on disk, no larger than it must be.
    fn seal(&self, open: Open) -> Result<(), OpenError> {
        let Open { segment, offset } = open;
        let (number, name) = (segment.number, header::name(segment.number));
        self.done("sync", number, segment.file.sync_all())?;
        drop(segment);
        let bytes = offset.next_multiple_of(PAGE_BYTES as u64);
        self.done("cut", number, self.storage.cut(&name, bytes))?;
        self.done("sync", number, self.storage.write_back(&name))
    }

    /// Has all of them on disk. One is made in any case: it says where the log resumes.
    fn finish(mut self) -> Result<u64, OpenError> {
        let open = match self.open.take() {
            None => self.prepare(0)?,
            Some(open) => open,
        };
        self.seal(open)?;
        Ok(self.kept)
    }

    fn done<T>(&self, act: &'static str, number: u64, result: io::Result<T>) -> Result<T, OpenError> {
        result.map_err(|source| refused(self.storage, act, &header::name(number), source))
    }
}

/// The size of the new segments, if no frame is larger.
const SEGMENT_BYTES: u64 = 64 << 20;
/// What a frame takes at the least: a mark has no records.
const FRAME_BYTES: u64 = HEADER_BYTES as u64;
