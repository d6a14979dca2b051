//! How much a log holds, told before it is read.

use super::frame::{HEADER_BYTES, Header};
use super::header::{self, PAGE_BYTES, SegmentHeader};
use super::recovery::numbers;
use super::storage::Storage;

/// About how many ids stand in frames that are not older than `time`: too few rather than too many. A hint, so what cannot
/// be read counts nothing.
pub(crate) fn ids_since(storage: &dyn Storage, time: i64) -> u64 {
    let names = storage.list().unwrap_or_default();
    let volumes: Vec<Volume> = numbers(&names).into_iter().filter_map(|number| Volume::of(storage, number)).collect();
    // A segment whose successor begins later holds something that young, and the last one may.
    let is_young = |index: usize| volumes.get(index + 1).is_none_or(|next| next.first >= time);
    let young = volumes.iter().enumerate().filter(|(index, _)| is_young(*index));
    young.map(|(_, volume)| volume.bytes).sum::<u64>() / BYTES_PER_ID
}

/// What all segments take. A hint, as above.
pub(crate) fn segment_bytes(storage: &dyn Storage) -> u64 {
    let names = storage.list().unwrap_or_default();
    let lengths = numbers(&names).into_iter().filter_map(|number| storage.status(&header::name(number)).ok());
    lengths.map(|status| status.bytes).sum()
}

/// A segment.
struct Volume {
    /// The time of its first frame.
    first: i64,
    /// Bytes of frames.
    bytes: u64,
}

impl Volume {
    /// None when there is no frame in it.
    fn of(storage: &dyn Storage, number: u64) -> Option<Self> {
        let name = header::name(number);
        let start = storage.read(&name, (PAGE_BYTES + HEADER_BYTES) as u64).ok()?;
        let segment = SegmentHeader::decode(start.get(..PAGE_BYTES)?).ok()?;
        let (first, _) = Header::decode(start.get(PAGE_BYTES..)?, segment.salt)?;
        let bytes = storage.status(&name).ok()?.bytes;
        // One that is as long as it was made was not cut: how much of it is used is not known.
        let used = if bytes < segment.bytes { bytes.saturating_sub(PAGE_BYTES as u64) } else { 0 };
        Some(Self { first: first.time, bytes: used })
    }
}

/// In large frames.
const BYTES_PER_ID: u64 = 17;
