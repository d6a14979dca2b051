//! The new segments: frames under new salts, each tied to the one before it.

use std::io;

use super::super::error::OpenError;
use super::super::frame::{HEADER_BYTES, Header};
use super::super::header::{self, IDENTITY_BYTES, PAGE_BYTES, Place, Start};
use super::super::recovery::refused;
use super::super::segment::{Order, Prepared};
use super::super::storage::Storage;

/// The new segments.
pub(super) struct Copies<'a> {
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

impl<'a> Copies<'a> {
    /// Copies that begin with segment `first`, after `place`, and take `bytes_left` bytes at the most.
    pub(super) fn new(
        storage: &'a dyn Storage,
        identity: [u8; IDENTITY_BYTES],
        first: u64,
        place: Place,
        bytes_left: u64,
    ) -> Self {
        Self { storage, identity, next: first, place, bytes_left, open: None, kept: 0 }
    }

    /// Has the first copy follow `sequence`.
    pub(super) fn begin_after(&mut self, sequence: u64) {
        self.place.sequence = sequence;
    }

    pub(super) fn push(&mut self, time: i64, body: &[u8], body_crc: u32) -> Result<(), OpenError> {
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
    pub(super) fn finish(mut self) -> Result<u64, OpenError> {
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
