//! Choosing the frames that count among those that check, and having them written anew in sequence.

use super::super::batch::Records;
use super::super::error::OpenError;
use super::super::frame::{Frame, Header};
use super::super::header::{self, PAGE_BYTES, Place};
use super::super::storage::Storage;
use super::Gap;
use super::copies::Copies;
use super::damage::{Damage, Frames, Life, read};

/// The state of copying what is left of a damaged row.
pub(super) struct Copying<'a> {
    pub(super) storage: &'a dyn Storage,
    pub(super) damage: &'a Damage,
    copies: Copies<'a>,
    /// The life that each segment is of. What is missing in it is skipped when all of it was on disk; otherwise the
    /// gap is the end of that life.
    lives: Vec<Life>,
    /// The life that has come to its end, by its first segment.
    ended: Option<usize>,
    /// The last frame of it.
    dropped: Option<Dropped>,
    /// After the last frame copied, as it stood in the old segments; none while the first may have any sequence.
    pub(super) place: Option<Place>,
    pub(super) spot: Spot,
    /// The latest engine time so far.
    pub(super) newest: Option<i64>,
    gaps: Vec<Gap>,
}

/// Where the last frame copied ended.
#[derive(Debug, Clone, Copy)]
pub(super) struct Spot {
    pub(super) index: usize,
    pub(super) offset: u64,
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
        let copies = Copies::new(storage, identity, first, copied, bytes_left);
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
            self.copies.begin_after(before);
        }
        true
    }
}
