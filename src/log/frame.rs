//! Frames: one checksummed batch each, read and written field by field.
//!
//! The layout stands in the guide (`log_format`). Nothing here trusts a byte before its checksum has passed, and
//! nothing is cast: a field is a range of the slice, or there is no frame.

use super::fields::{u32_at, u64_at};

/// The header of a frame, without its checksums.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) sequence: u64,
    /// Engine time in nanoseconds.
    pub(super) time: i64,
    /// The highest sequence known to be on disk.
    pub(super) synced: u64,
    /// The checksum of the frame before.
    pub(super) chain: u32,
    pub(super) body_bytes: u32,
    pub(super) body_crc: u32,
}

/// A frame whose header and body have passed their checksums.
#[derive(Debug, Clone, Copy)]
pub(super) struct Frame<'a> {
    pub(super) header: Header,
    /// What the next frame's `chain` must be.
    pub(super) crc: u32,
    pub(super) body: &'a [u8],
}

impl Header {
    /// The bytes of this header under `salt`, and its checksum.
    pub(super) fn encode(&self, salt: u64) -> ([u8; HEADER_BYTES], u32) {
        let mut bytes = [0; HEADER_BYTES];
        bytes[4..8].copy_from_slice(&high(salt).to_le_bytes());
        bytes[8..16].copy_from_slice(&self.sequence.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.time.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.synced.to_le_bytes());
        bytes[32..36].copy_from_slice(&self.chain.to_le_bytes());
        bytes[36..40].copy_from_slice(&self.body_bytes.to_le_bytes());
        bytes[40..44].copy_from_slice(&self.body_crc.to_le_bytes());
        let crc = crc32c::crc32c_append(low(salt), &bytes[4..]);
        bytes[..4].copy_from_slice(&crc.to_le_bytes());
        (bytes, crc)
    }

    /// The header at the start of `bytes`, and its checksum, when it is one of this salt.
    pub(super) fn decode(bytes: &[u8], salt: u64) -> Option<(Self, u32)> {
        // First what costs least: a search asks this at every 8 bytes.
        if u32_at(bytes, 4)? != high(salt) {
            return None;
        }
        let crc = u32_at(bytes, 0)?;
        if crc32c::crc32c_append(low(salt), bytes.get(4..HEADER_BYTES)?) != crc {
            return None;
        }
        let header = Self {
            sequence: u64_at(bytes, 8)?,
            time: u64_at(bytes, 16)?.cast_signed(),
            synced: u64_at(bytes, 24)?,
            chain: u32_at(bytes, 32)?,
            body_bytes: u32_at(bytes, 36)?,
            body_crc: u32_at(bytes, 40)?,
        };
        // The last sequence of all would have no successor.
        let in_order = header.synced < header.sequence && header.sequence < u64::MAX;
        let sound = in_order && header.body_bytes.is_multiple_of(8) && u32_at(bytes, 44)? == 0;
        sound.then_some((header, crc))
    }
}

impl<'a> Frame<'a> {
    /// The frame at the start of `bytes`, when all of it is there and checks.
    pub(super) fn decode(bytes: &'a [u8], salt: u64) -> Option<Self> {
        let (header, crc) = Header::decode(bytes, salt)?;
        let end = HEADER_BYTES.checked_add(usize::try_from(header.body_bytes).ok()?)?;
        let body = bytes.get(HEADER_BYTES..end)?;
        (crc32c::crc32c(body) == header.body_crc).then_some(Self { header, crc, body })
    }

    /// The bytes it takes in the file.
    pub(super) fn bytes(&self) -> usize {
        HEADER_BYTES + self.body.len()
    }
}

/// The salt that the frame at the start of `bytes` was written under, when it is there and checks with one.
///
/// A checksum that is known can be run backwards to what it was started from.
pub(super) fn salt_of(bytes: &[u8]) -> Option<u64> {
    let mut state = !u32_at(bytes, 0)?;
    for byte in bytes.get(4..HEADER_BYTES)?.iter().rev() {
        // Each entry of the table has a high byte of its own, and that alone is in the high byte of the state.
        let entry = (0..=255).map(table).find(|(_, entry)| entry >> 24 == state >> 24)?;
        state = ((state ^ entry.1) << 8) | (entry.0 ^ u32::from(*byte));
    }
    let salt = u64::from(u32_at(bytes, 4)?) << 32 | u64::from(!state);
    Frame::decode(bytes, salt).map(|_| salt)
}

/// An index, and what a CRC32C that goes byte by byte adds for it.
fn table(index: u32) -> (u32, u32) {
    let entry = (0..8).fold(index, |crc, _| (crc >> 1) ^ if crc & 1 == 1 { POLYNOMIAL } else { 0 });
    (index, entry)
}

const fn high(salt: u64) -> u32 {
    (salt >> 32) as u32
}

const fn low(salt: u64) -> u32 {
    salt as u32
}

/// Bytes of a frame before its body.
pub(super) const HEADER_BYTES: usize = 48;
/// Castagnoli's, with its bits in reverse.
const POLYNOMIAL: u32 = 0x82f6_3b78;

#[cfg(test)]
mod tests {
    use super::*;

    const SALT: u64 = 0x0123_4567_89ab_cdef;

    fn sample(body: &[u8]) -> Vec<u8> {
        let header = Header {
            sequence: 7,
            time: -5,
            synced: 6,
            chain: 9,
            body_bytes: u32::try_from(body.len()).unwrap(),
            body_crc: crc32c::crc32c(body),
        };
        let (bytes, _) = header.encode(SALT);
        [&bytes[..], body].concat()
    }

    #[test]
    fn what_was_written_is_read() {
        let body = [3; 24];
        let bytes = sample(&body);
        let frame = Frame::decode(&bytes, SALT).unwrap();
        assert_eq!((frame.header.sequence, frame.header.time, frame.header.synced, frame.header.chain), (7, -5, 6, 9));
        assert_eq!(frame.body, body);
        assert_eq!(frame.bytes(), bytes.len());
    }

    #[test]
    fn the_bytes_are_a_disk_format() {
        // Computed bit by bit by another program.
        let golden = "331c79c0674523010700000000000000fbffffffffffffff0600000000000000\
                      0900000018000000d50e544c00000000";
        let bytes = sample(&[3; 24]);
        let hex: String = bytes[..HEADER_BYTES].iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, golden);
    }

    #[test]
    fn every_flipped_bit_and_every_missing_byte_is_noticed() {
        let bytes = sample(&[0; 16]);
        for at in 0..bytes.len() * 8 {
            let mut bad = bytes.clone();
            bad[at / 8] ^= 1 << (at % 8);
            assert!(Frame::decode(&bad, SALT).is_none(), "bit {at}");
        }
        for length in 0..bytes.len() {
            assert!(Frame::decode(&bytes[..length], SALT).is_none(), "{length} bytes");
        }
    }

    #[test]
    fn the_salt_of_a_frame_is_told_by_its_checksum() {
        let mut bytes = sample(&[3; 24]);
        assert_eq!(salt_of(&bytes), Some(SALT));
        assert_eq!(salt_of(&sample(&[])), Some(SALT));
        bytes[60] ^= 1;
        assert_eq!(salt_of(&bytes), None, "its body does not check");
        assert_eq!(salt_of(&[0; 4096]), None);
    }

    #[test]
    fn zeros_and_frames_of_another_salt_are_none() {
        assert!(Frame::decode(&[0; 4096], 0).is_none());
        let bytes = sample(&[]);
        for other in [SALT ^ 1, SALT ^ (1 << 32), 0] {
            assert!(Frame::decode(&bytes, other).is_none());
        }
    }
}
