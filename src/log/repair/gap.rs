//! What is missing, and how much it can have been.
//!
//! How many frames are missing is told by their sequences. How many ids those held at the most is told by the bytes
//! between their neighbours, or up to where the last of them ended; where neither is known it is not told.

use crate::time::Timestamp;

use super::super::frame::{HEADER_BYTES, Header};
use super::super::header;
use super::Gap;
use super::copy::{Copying, Spot};
use super::damage::read;

impl Copying<'_> {
    /// What is missing between the last frame copied and `end`, where a frame of time `next` stands.
    pub(super) fn gap(&self, end: Option<Spot>, frames: Option<u64>, next: Option<i64>) -> Gap {
        let number = self.damage.row[self.spot.index].header.number;
        let bytes = self.bytes_to(end, frames);
        let ids = |bytes: u64, frames: u64| bytes.checked_sub(frames.checked_mul(FRAME_BYTES)?).map(|bytes| bytes / 16);
        Gap {
            place: self.storage.place(&header::name(number)),
            offset: self.spot.offset,
            frames,
            ids_max: bytes.and_then(|bytes| ids(bytes, frames.unwrap_or(1))),
            latest: next.map(|next| Timestamp::from_nanos(self.newest.map_or(next, |newest| newest.max(next)))),
        }
    }

    /// The bytes from the last frame copied to the end of the last one that is missing, which is before `end`, at the most;
    /// none when that cannot be told.
    fn bytes_to(&self, end: Option<Spot>, frames: Option<u64>) -> Option<u64> {
        if self.newest.is_none() && !self.damage.is_all {
            // It may begin in the segment before.
            return None;
        }
        let last = self.damage.row.len() - 1;
        if let Some(end) = end.filter(|end| end.index == self.spot.index) {
            return Some(end.offset.saturating_sub(self.spot.offset));
        }
        // With the next segment whole, or none, all that is missing stood in the one where the gap begins.
        let is_here = end.map_or(self.spot.index == last, |end| {
            let is_next = (end.index, end.offset) == (self.spot.index + 1, header::PAGE_BYTES as u64);
            is_next && self.damage.row[end.index].is_known
        });
        if let Some(tail) = frames.filter(|_| is_here).and_then(|frames| self.missing_end(frames)) {
            return Some(tail - self.spot.offset);
        }
        let end = end.unwrap_or(Spot { index: last, offset: self.prepared_bytes(last)? });
        // Segments may be gone as files, and then nothing is known about them.
        let number = |index: usize| self.damage.row[index].header.number;
        let is_dense = number(end.index) - number(self.spot.index) == (end.index - self.spot.index) as u64;
        let between = (self.spot.index..end.index).map(|index| self.prepared_bytes(index)).sum::<Option<u64>>();
        between.filter(|_| is_dense).map(|between| (between + end.offset).saturating_sub(self.spot.offset))
    }

    /// Where the last of so many missing frames ended in the segment where the gap begins: its header tells, or it is the
    /// only one.
    fn missing_end(&self, frames: u64) -> Option<u64> {
        let segment = &self.damage.row[self.spot.index].header;
        let bytes = read(self.storage, segment.number).ok()?;
        let start = usize::try_from(self.spot.offset).ok()?;
        let rest = bytes.get(start..)?;
        let last = self.place?.sequence.checked_add(frames)?;
        let headers =
            (0..rest.len()).step_by(8).filter_map(|at| Some((at, Header::decode(&rest[at..], segment.salt)?.0)));
        let mut known = headers.filter(|(_, header)| header.sequence == last);
        if let Some((at, header)) = known.next() {
            return Some((start + at + HEADER_BYTES) as u64 + u64::from(header.body_bytes));
        }
        let end = end_of_one(rest).filter(|_| frames == 1)?;
        Some(self.spot.offset + end)
    }

    /// The size of a segment before anything could have cut it.
    fn prepared_bytes(&self, index: usize) -> Option<u64> {
        let bytes = self.damage.row[index].header.bytes;
        (bytes > 0).then_some(bytes)
    }
}

/// Where the one frame in `bytes` ends that does not check and has nothing behind it, when it was damaged in its header
/// only, or else is whole in length.
fn end_of_one(bytes: &[u8]) -> Option<u64> {
    let set = bytes.iter().rposition(|byte| *byte != 0)? + 1;
    let header = bytes.first_chunk::<HEADER_BYTES>()?;
    // A mark ends in zeros, after the chain.
    if set <= HEADER_BYTES {
        return (header[32..36] != [0; 4]).then_some(HEADER_BYTES as u64);
    }
    // Ids have no zeros in such a number, so those behind it are no part of it.
    (bytes.len() - set >= ZEROS_AFTER).then_some(set as u64)
}

/// What a frame takes at the least: a mark has no records.
const FRAME_BYTES: u64 = HEADER_BYTES as u64;
const ZEROS_AFTER: usize = 24;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_frame_is_told_by_what_is_behind_it() {
        let mut bytes = vec![0; 4_096];
        assert_eq!(end_of_one(&bytes), None, "nothing is there");
        bytes[..36].fill(7);
        assert_eq!(end_of_one(&bytes), Some(48), "a mark");
        bytes[32..36].fill(0);
        assert_eq!(end_of_one(&bytes), None, "cut inside of its header");
        bytes[..200].fill(7);
        assert_eq!(end_of_one(&bytes), Some(200));
        assert_eq!(end_of_one(&bytes[..210]), None, "it may have been longer");
    }
}
