//! The first page of a segment: what it is, what it was salted with, and where it goes on.

use super::fields::{u32_at, u64_at};

/// The header of a segment. Written once, before the segment has its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SegmentHeader {
    pub(super) number: u64,
    pub(super) salt: u64,
    pub(super) start: Start,
    pub(super) is_recycled: bool,
    /// Size of the file when it was prepared.
    pub(super) bytes: u64,
    pub(super) identity: [u8; IDENTITY_BYTES],
}

/// How a segment stands to the frames before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Start {
    /// Its first frame follows the last one of the segment before.
    Follows,
    /// Everything up to this place is on disk, and what older segments hold after it is dead.
    Resumes(Place),
}

/// A place in the row of frames: after the frame of this sequence.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Place {
    pub(super) sequence: u64,
    /// The checksum of that frame, or 0 before the first one.
    pub(super) chain: u32,
}

/// Why a page is no header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NoHeader {
    /// It does not check.
    Damaged,
    /// It checks, and was written by a newer version.
    Newer { version: u32 },
}

impl SegmentHeader {
    pub(super) fn encode(&self) -> [u8; PAGE_BYTES] {
        let (resumes, place) = match self.start {
            Start::Follows => (0, Place::default()),
            Start::Resumes(place) => (RESUMES, place),
        };
        let flags = resumes | if self.is_recycled { RECYCLED } else { 0 };
        let mut page = [0; PAGE_BYTES];
        page[..8].copy_from_slice(MAGIC);
        page[8..12].copy_from_slice(&VERSION.to_le_bytes());
        page[12..16].copy_from_slice(&flags.to_le_bytes());
        page[16..24].copy_from_slice(&self.number.to_le_bytes());
        page[SALT_AT..32].copy_from_slice(&self.salt.to_le_bytes());
        page[32..40].copy_from_slice(&place.sequence.to_le_bytes());
        page[40..44].copy_from_slice(&place.chain.to_le_bytes());
        page[48..56].copy_from_slice(&self.bytes.to_le_bytes());
        page[56..FIELDS_END].copy_from_slice(&self.identity);
        let crc = crc32c::crc32c(&page[..CRC_AT]);
        page[CRC_AT..].copy_from_slice(&crc.to_le_bytes());
        page
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, NoHeader> {
        let page = bytes.first_chunk::<PAGE_BYTES>().ok_or(NoHeader::Damaged)?;
        let checks = page.starts_with(MAGIC) && u32_at(page, CRC_AT) == Some(crc32c::crc32c(&page[..CRC_AT]));
        if !checks {
            return Err(NoHeader::Damaged);
        }
        Self::fields(page).ok_or(NoHeader::Damaged)?
    }

    /// The header in a page that does not check only because bytes are set where none should be.
    pub(super) fn mended(bytes: &[u8]) -> Option<Self> {
        let mut page = *bytes.first_chunk::<PAGE_BYTES>()?;
        page[44..48].fill(0);
        page[FIELDS_END..CRC_AT].fill(0);
        Self::decode(&page).ok()
    }

    fn fields(page: &[u8; PAGE_BYTES]) -> Option<Result<Self, NoHeader>> {
        let (version, flags) = (u32_at(page, 8)?, u32_at(page, 12)?);
        if version != VERSION || flags & !(RESUMES | RECYCLED) != 0 {
            return Some(Err(NoHeader::Newer { version }));
        }
        let place = Place { sequence: u64_at(page, 32)?, chain: u32_at(page, 40)? };
        // The last sequences of all would have no successor.
        if place.sequence >= u64::MAX - 1 {
            return None;
        }
        Some(Ok(Self {
            number: u64_at(page, 16)?,
            salt: u64_at(page, SALT_AT)?,
            start: if flags & RESUMES == 0 { Start::Follows } else { Start::Resumes(place) },
            is_recycled: flags & RECYCLED != 0,
            bytes: u64_at(page, 48)?,
            identity: *page.get(56..)?.first_chunk()?,
        }))
    }
}

/// The name of the segment of this number.
pub(crate) fn name(number: u64) -> String {
    format!("{number:016x}.log")
}

/// Whether this is the name of a segment.
pub(crate) fn is_segment(name: &str) -> bool {
    number(name).is_some()
}

/// The number of the segment of this name, when it is one.
pub(super) fn number(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(".log")?;
    let number = u64::from_str_radix(digits, 16).ok()?;
    // The last number of all would have no successor.
    (self::name(number) == name && number < u64::MAX).then_some(number)
}

/// The unit in which the kernel writes mapped files back, and the size of a segment's header.
pub(super) const PAGE_BYTES: usize = 4096;
/// Bytes that say which state a log belongs to.
pub(crate) const IDENTITY_BYTES: usize = 32;

const MAGIC: &[u8; 8] = b"DDUPLOG\0";
/// The version of the format.
pub(crate) const VERSION: u32 = 1;
const RESUMES: u32 = 1;
const RECYCLED: u32 = 2;
const CRC_AT: usize = PAGE_BYTES - 4;
const FIELDS_END: usize = 56 + IDENTITY_BYTES;
/// Where the salt stands.
pub(super) const SALT_AT: usize = 24;

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> SegmentHeader {
        let start = Start::Resumes(Place { sequence: 41, chain: 7 });
        SegmentHeader { number: 3, salt: 99, start, is_recycled: true, bytes: 1 << 20, identity: [5; IDENTITY_BYTES] }
    }

    #[test]
    fn what_was_written_is_read() {
        for start in [Start::Follows, sample().start] {
            let header = SegmentHeader { start, ..sample() };
            assert_eq!(SegmentHeader::decode(&header.encode()), Ok(header));
        }
    }

    #[test]
    fn every_flipped_bit_is_noticed() {
        let page = sample().encode();
        for at in 0..PAGE_BYTES * 8 {
            let mut bad = page;
            bad[at / 8] ^= 1 << (at % 8);
            assert_eq!(SegmentHeader::decode(&bad), Err(NoHeader::Damaged), "bit {at}");
        }
    }

    #[test]
    fn a_sequence_without_a_successor_is_none() {
        for (sequence, is_one) in [(u64::MAX, false), (u64::MAX - 1, false), (u64::MAX - 2, true)] {
            let header = SegmentHeader { start: Start::Resumes(Place { sequence, chain: 7 }), ..sample() };
            assert_eq!(SegmentHeader::decode(&header.encode()).is_ok(), is_one);
        }
    }

    #[test]
    fn bytes_that_should_be_zero_are_mended_and_others_are_not() {
        let page = sample().encode();
        for at in 0..PAGE_BYTES {
            let mut bad = page;
            bad[at] ^= 0x40;
            let is_padding = (44..48).contains(&at) || (FIELDS_END..CRC_AT).contains(&at);
            assert_eq!(SegmentHeader::mended(&bad), is_padding.then(sample), "byte {at}");
        }
    }

    #[test]
    fn a_newer_version_is_told_from_damage() {
        let mut page = sample().encode();
        page[8] = 2;
        let crc = crc32c::crc32c(&page[..CRC_AT]);
        page[CRC_AT..].copy_from_slice(&crc.to_le_bytes());
        assert_eq!(SegmentHeader::decode(&page), Err(NoHeader::Newer { version: 2 }));
    }

    #[test]
    fn names_are_numbers_in_order() {
        assert_eq!(name(26), "000000000000001a.log");
        assert_eq!(number("000000000000001a.log"), Some(26));
        for other in ["1a.log", "000000000000001A.log", "000000000000001a.tmp", "prepare.tmp", "+00000000000001a.log"] {
            assert_eq!(number(other), None, "{other}");
        }
    }
}
