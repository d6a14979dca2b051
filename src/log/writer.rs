//! The writer: the active segment and its pen, under one short lock.
//!
//! An append copies one frame. Reserving a byte range and copying outside of the lock was the other way: it lets two
//! batches copy at once, but a process that is killed in between leaves a hole with answered frames behind it, and
//! those are lost. Under the lock the row of frames in the page cache never has a hole, so a kill loses nothing that
//! was answered. What costs time, the checksum of the body, is computed before the lock is taken; 700 ids copy in
//! about a microsecond.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

use super::frame::{HEADER_BYTES, Header};
use super::header::{PAGE_BYTES, Place};
use super::recovery::Sealed;
use super::segment::Prepared;
use super::storage::{File, Pen};

/// The end of the log.
pub(super) struct Writer {
    active: Active,
    /// The segment after this one, when it is ready.
    pub(super) next: Option<Prepared>,
    /// Older segments that hold frames, by age.
    pub(super) sealed: VecDeque<Sealed>,
    /// Ends of sealed segments that no sync has begun to cover, by age.
    unsynced: Vec<Piece>,
    /// Files that are written to the end: closing one takes long, so the housekeeper does it.
    old_files: Vec<Arc<dyn File>>,
    /// After the last frame.
    place: Place,
    /// The latest engine time.
    newest: i64,
    /// The last frame that holds records.
    pub(super) last_with_records: u64,
    /// The mark in the last frame.
    pub(super) marked: u64,
    /// How many entries were appended.
    entries: u64,
}

/// The segment that is written to.
struct Active {
    number: u64,
    salt: u64,
    bytes: u64,
    pen: Box<dyn Pen>,
    file: Arc<dyn File>,
    /// Where the next frame goes.
    offset: u64,
    /// Where the last frame ended.
    end: u64,
    /// Up to where anything may stand: behind the last frame, what a write has stored that found no room for all of it.
    stored: u64,
    /// Up to where a sync has begun.
    sync_from: u64,
    /// Up to where pages were touched.
    touched: u64,
    first: Option<u64>,
}

/// What a sync is to cover.
pub(super) struct Unsynced {
    /// The last frame.
    pub(super) last: u64,
    /// [`Writer::entries`] up to it.
    pub(super) entries: u64,
    /// In this order.
    pub(super) dirty: Vec<Piece>,
}

/// Bytes of a segment: to be synced, or touched.
pub(super) struct Piece {
    pub(super) segment: Segment,
    pub(super) from: u64,
    pub(super) to: u64,
}

/// A segment whose file is open, and how long that was made.
#[derive(Clone)]
pub(super) struct Segment {
    pub(super) number: u64,
    pub(super) bytes: u64,
    pub(super) file: Arc<dyn File>,
}

/// A body and what is known about it before the lock is taken.
#[derive(Clone, Copy)]
pub(super) struct Body<'a> {
    pub(super) bytes: &'a [u8],
    pub(super) length: u32,
    pub(super) crc: u32,
    /// Fingerprints and positions that nothing else in the log says.
    pub(super) entries: u64,
}

impl Body<'_> {
    /// That of a frame without records.
    pub(super) fn empty() -> Self {
        Self { bytes: &[], length: 0, crc: crc32c::crc32c(&[]), entries: 0 }
    }
}

impl Writer {
    pub(super) fn new(segment: Prepared, place: Place, newest: i64, sealed: Vec<Sealed>) -> Self {
        Self {
            active: Active::new(segment),
            next: None,
            sealed: sealed.into(),
            unsynced: Vec::new(),
            old_files: Vec::new(),
            place,
            newest,
            last_with_records: place.sequence,
            marked: place.sequence,
            entries: 0,
        }
    }

    /// Whether a frame with `body` fits into the active segment.
    pub(super) fn has_room(&self, body: &Body<'_>) -> bool {
        self.has_room_for(body.length)
    }

    /// The same for a body of so many bytes.
    pub(super) fn has_room_for(&self, length: u32) -> bool {
        self.active.offset + HEADER_BYTES as u64 + u64::from(length) <= self.active.bytes
    }

    /// Writes one frame, for which there is room in the segment. After an error the bytes behind the last frame are not
    /// known.
    pub(super) fn append(&mut self, time: i64, synced: u64, body: Body<'_>) -> io::Result<u64> {
        let sequence = self.place.sequence + 1;
        let header =
            Header { sequence, time, synced, chain: self.place.chain, body_bytes: body.length, body_crc: body.crc };
        let (bytes, chain) = header.encode(self.active.salt);
        self.active.write(&bytes, body.bytes, sequence)?;
        self.place = Place { sequence, chain };
        self.newest = self.newest.max(time);
        self.marked = synced;
        self.entries += body.entries;
        if !body.bytes.is_empty() {
            self.last_with_records = sequence;
        }
        Ok(sequence)
    }

    /// Whether [`Writer::append`] failed only for want of room. What it has stored counts for nothing and is stored over.
    pub(super) fn lacks_room(&self, error: &io::Error) -> bool {
        self.active.pen.lacks_room(error)
    }

    /// Goes on in the next segment, when there is one.
    pub(super) fn roll(&mut self) -> bool {
        let Some(next) = self.next.take() else { return false };
        let old = std::mem::replace(&mut self.active, Active::new(next));
        if old.is_absent() {
            return true;
        }
        let (number, last, newest, end) = (old.number, self.place.sequence, self.newest, old.end);
        let has_rest = old.has_rest();
        // Also one without a frame: it goes after those before it, and before those after it.
        let first = old.first.unwrap_or(last + 1);
        self.sealed.push_back(Sealed { number, first, last, newest, end, has_rest, is_cut: false });
        self.old_files.push(Arc::clone(&old.file));
        if old.end > old.sync_from {
            self.unsynced.push(old.piece(old.sync_from, old.end));
        }
        true
    }

    /// What is to be synced so that everything appended so far is on disk.
    pub(super) fn begin_sync(&mut self) -> Unsynced {
        let mut dirty = std::mem::take(&mut self.unsynced);
        dirty.extend(self.active.begin_sync());
        Unsynced { last: self.place.sequence, entries: self.entries, dirty }
    }

    /// How many entries were appended since the log was opened.
    pub(super) fn entries(&self) -> u64 {
        self.entries
    }

    /// The range of the active segment that should be at hand and was not touched yet.
    pub(super) fn touch_ahead(&mut self, bytes: u64) -> Option<Piece> {
        let active = &mut self.active;
        let (from, to) = (active.touched, active.offset.saturating_add(bytes).min(active.bytes));
        // By halves: a call per page would cost what it saves.
        if to < from.saturating_add(bytes / 2).min(active.bytes) || to <= from {
            return None;
        }
        active.touched = to;
        Some(active.piece(from, to))
    }

    /// The segments that are written to now and next.
    pub(super) fn ahead(&self) -> Vec<Segment> {
        let next = self.next.as_ref().map(|next| {
            let (number, bytes, file) = (next.number, next.bytes, Arc::clone(&next.file));
            Segment { number, bytes, file }
        });
        let active = Some(&self.active).filter(|active| !active.is_absent()).map(Active::segment);
        active.into_iter().chain(next).collect()
    }

    /// Whether the pen will soon reach pages that nobody has touched, or the end of the last segment there is.
    pub(super) fn wants_more(&self, touch_ahead_bytes: u64) -> bool {
        let active = &self.active;
        let is_close = active.touched < active.offset.saturating_add(touch_ahead_bytes / 2);
        self.next.is_none() || (is_close && active.touched < active.bytes)
    }

    /// Files that nobody needs any more.
    pub(super) fn take_old_files(&mut self) -> Vec<Arc<dyn File>> {
        self.old_files.extract_if(.., |file| Arc::strong_count(file) == 1).collect()
    }

    /// Segments right behind the oldest one that hold no frame.
    pub(super) fn empty_behind_oldest(&self) -> Vec<u64> {
        let behind = self.sealed.iter().skip(1).take_while(|sealed| sealed.is_empty());
        behind.map(|sealed| sealed.number).collect()
    }

    /// The first frame of the segment after the oldest sealed one.
    pub(super) fn second_first(&self) -> Option<u64> {
        self.sealed.get(1).map(|sealed| sealed.first).or(self.active.first)
    }

    /// Whether no frame follows those of the sealed segments, and all of those are older than `before`.
    pub(super) fn is_all_older(&self, before: i64) -> bool {
        self.active.first.is_none() && !self.sealed.is_empty() && self.newest < before
    }

    /// Whether there was no room for a segment yet: none fences off what was recovered.
    pub(super) fn is_absent(&self) -> bool {
        self.active.is_absent()
    }

    pub(super) fn active_number(&self) -> u64 {
        self.active.number
    }

    pub(super) fn active_bytes(&self) -> u64 {
        self.active.bytes
    }

    /// Where the last frame of the active segment ends, and whether the rest of a batch may stand behind it.
    pub(super) fn active_end(&self) -> (u64, bool) {
        (self.active.end, self.active.has_rest())
    }

    /// Engine time as far as it was told.
    pub(super) fn newest(&self) -> i64 {
        self.newest
    }
}

impl Active {
    fn new(segment: Prepared) -> Self {
        let Prepared { number, salt, bytes, touched, pen, file } = segment;
        let start = PAGE_BYTES as u64;
        let (offset, end, stored, sync_from) = (start, start, start, start);
        Self { number, salt, bytes, pen, file, offset, end, stored, sync_from, touched, first: None }
    }

    fn has_rest(&self) -> bool {
        self.stored > self.end
    }

    fn is_absent(&self) -> bool {
        self.bytes == 0
    }

    fn write(&mut self, header: &[u8], body: &[u8], sequence: u64) -> io::Result<()> {
        let body_at = self.offset + header.len() as u64;
        self.stored = self.stored.max(body_at + body.len() as u64);
        self.pen.write(body_at, body)?;
        self.pen.write(self.offset, header)?;
        self.offset += (header.len() + body.len()) as u64;
        self.end = self.offset;
        self.first = self.first.or(Some(sequence));
        Ok(())
    }

    fn begin_sync(&mut self) -> Option<Piece> {
        let (from, to) = (self.sync_from, self.end);
        if to <= from {
            return None;
        }
        // The page that is about to be written back stalls whoever stores to it, so the pen leaves it, unless that
        // wastes much.
        let page = self.offset.next_multiple_of(PAGE_BYTES as u64);
        if (page - self.offset) * PAGE_WASTE_SHARE <= to - from {
            self.offset = page;
        }
        self.sync_from = self.offset;
        Some(self.piece(from, to))
    }

    fn piece(&self, from: u64, to: u64) -> Piece {
        Piece { segment: self.segment(), from, to }
    }

    fn segment(&self) -> Segment {
        Segment { number: self.number, bytes: self.bytes, file: Arc::clone(&self.file) }
    }
}

/// Of the bytes written between two syncs, one in so many may be wasted for a fresh page.
const PAGE_WASTE_SHARE: u64 = 16;
