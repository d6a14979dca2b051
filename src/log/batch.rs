//! The body of a frame: records, gathered by whoever appends and taken apart by whoever replays.
//!
//! A [`Batch`] is filled outside of any lock and may be used again after [`Batch::clear`], so that a warm one allocates
//! nothing. What stands in one batch commits as one frame: all or nothing.

use crate::event::Fingerprint;
use crate::time::Timestamp;

use super::fields::u32_at;

/// What a record says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub(crate) enum Kind {
    /// Fingerprints that were seen for the first time.
    Seen = 1,
    /// Fingerprints whose window starts again.
    Refresh = 2,
    /// Fingerprints that are forgotten.
    Forget = 3,
    /// A transition of a claim.
    Claim = 4,
    /// A position of a source, by name.
    Source = 5,
    /// A position of a sink, by name.
    Sink = 6,
    /// Only the frame's own time: the highest event time has moved, and nothing else has happened.
    Watermark = 7,
    /// The engine's clock.
    Clock = 8,
    /// Fingerprints that were seen for the first time, each at a time of its own.
    SeenAt = 9,
    /// Fingerprints whose window starts again, each at a time of its own.
    RefreshAt = 10,
}

impl Kind {
    const ALL: [Self; 10] = [
        Self::Seen,
        Self::Refresh,
        Self::Forget,
        Self::Claim,
        Self::Source,
        Self::Sink,
        Self::Watermark,
        Self::Clock,
        Self::SeenAt,
        Self::RefreshAt,
    ];

    fn from_byte(byte: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| *kind as u8 == byte)
    }
}

/// Records that will be one frame.
#[derive(Debug, Clone, Default)]
pub(crate) struct Batch {
    body: Vec<u8>,
    /// How many fingerprints and positions are in it.
    entries: u64,
}

impl Batch {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// Forgets the records and keeps the memory.
    pub(crate) fn clear(&mut self) {
        self.body.clear();
        self.entries = 0;
    }

    /// Adds a record of fingerprints: one of [`Kind::Seen`], [`Kind::Refresh`], [`Kind::Forget`].
    ///
    /// # Cost
    /// 16 bytes copied per fingerprint.
    pub(crate) fn push_ids(&mut self, kind: Kind, ids: impl IntoIterator<Item = Fingerprint>) {
        let start = self.begin(kind);
        let ids = ids.into_iter();
        self.body.reserve(ids.size_hint().0 * 16);
        for id in ids {
            self.entries += 1;
            self.body.extend_from_slice(&id.as_u128().to_le_bytes());
        }
        self.end(start);
    }

    /// Adds a record of fingerprints with times: [`Kind::SeenAt`] or [`Kind::RefreshAt`].
    ///
    /// # Cost
    /// 24 bytes copied per fingerprint.
    pub(crate) fn push_ids_at(&mut self, kind: Kind, ids: impl IntoIterator<Item = (Fingerprint, Timestamp)>) {
        let start = self.begin(kind);
        let ids = ids.into_iter();
        self.body.reserve(ids.size_hint().0 * AT_BYTES);
        for (id, time) in ids {
            self.entries += 1;
            self.body.extend_from_slice(&time.as_nanos().to_le_bytes());
            self.body.extend_from_slice(&id.as_u128().to_le_bytes());
        }
        self.end(start);
    }

    /// Adds a position by name: [`Kind::Source`] or [`Kind::Sink`].
    pub(crate) fn push_named(&mut self, kind: Kind, name: &[u8], position: &[u8]) {
        let start = self.begin(kind);
        self.entries += 1;
        // A name over 4 GiB does not come: the frame would be refused.
        self.body.extend_from_slice(&u32::try_from(name.len()).unwrap_or(u32::MAX).to_le_bytes());
        self.body.extend_from_slice(name);
        self.body.extend_from_slice(position);
        self.end(start);
    }

    /// Adds a record of bytes that the log does not look into.
    pub(crate) fn push(&mut self, kind: Kind, bytes: &[u8]) {
        let start = self.begin(kind);
        self.body.extend_from_slice(bytes);
        self.end(start);
    }

    pub(super) fn body(&self) -> &[u8] {
        &self.body
    }

    pub(super) fn entries(&self) -> u64 {
        self.entries
    }

    fn begin(&mut self, kind: Kind) -> usize {
        let start = self.body.len();
        self.body.extend_from_slice(&[0, 0, 0, 0, kind as u8, 0, 0, 0]);
        start
    }

    fn end(&mut self, start: usize) {
        let bytes = self.body.len() - start - RECORD_HEADER_BYTES;
        // A body over the limit of a frame, which is below 4 GiB, is refused by the append whatever its records say.
        let length = u32::try_from(bytes).unwrap_or(u32::MAX);
        self.body[start..start + 4].copy_from_slice(&length.to_le_bytes());
        self.body.resize(self.body.len().next_multiple_of(8), 0);
    }
}

/// One record of a frame that is replayed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Record<'a> {
    pub(crate) kind: Kind,
    pub(crate) bytes: &'a [u8],
}

impl<'a> Record<'a> {
    /// The fingerprints of a record of fingerprints.
    pub(crate) fn ids(self) -> impl ExactSizeIterator<Item = Fingerprint> + 'a {
        let (ids, _) = self.bytes.as_chunks::<16>();
        ids.iter().map(|id| Fingerprint::from_u128(u128::from_le_bytes(*id)))
    }

    /// The fingerprints of a record of fingerprints with times.
    pub(crate) fn ids_at(self) -> impl ExactSizeIterator<Item = (Fingerprint, Timestamp)> + 'a {
        let (entries, _) = self.bytes.as_chunks::<AT_BYTES>();
        entries.iter().map(|entry| {
            let [t0, t1, t2, t3, t4, t5, t6, t7, id @ ..] = *entry;
            let time = i64::from_le_bytes([t0, t1, t2, t3, t4, t5, t6, t7]);
            (Fingerprint::from_u128(u128::from_le_bytes(id)), Timestamp::from_nanos(time))
        })
    }

    /// The name and the position of a record that has them.
    pub(crate) fn named(self) -> Option<(&'a [u8], &'a [u8])> {
        let length = usize::try_from(u32_at(self.bytes, 0)?).ok()?;
        self.bytes.get(4..)?.split_at_checked(length)
    }

    fn is_sound(self) -> bool {
        match self.kind {
            Kind::Seen | Kind::Refresh | Kind::Forget => self.bytes.len().is_multiple_of(16),
            Kind::SeenAt | Kind::RefreshAt => self.bytes.len().is_multiple_of(AT_BYTES),
            Kind::Source | Kind::Sink => self.named().is_some(),
            Kind::Claim | Kind::Watermark | Kind::Clock => true,
        }
    }
}

/// The records of a frame's body, in order.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Records<'a> {
    body: &'a [u8],
}

impl<'a> Records<'a> {
    /// The records of `body`, when all of it is records of known kinds.
    pub(super) fn of(body: &'a [u8]) -> Option<Self> {
        let mut rest = body;
        while !rest.is_empty() {
            (_, rest) = take(rest)?;
        }
        Some(Self { body })
    }
}

impl<'a> Iterator for Records<'a> {
    type Item = Record<'a>;

    fn next(&mut self) -> Option<Record<'a>> {
        let (record, rest) = take(self.body)?;
        self.body = rest;
        Some(record)
    }
}

/// The first record of `body`, and what follows it.
fn take(body: &[u8]) -> Option<(Record<'_>, &[u8])> {
    let length = usize::try_from(u32_at(body, 0)?).ok()?;
    let kind = Kind::from_byte(*body.get(4)?)?;
    if body.get(5..RECORD_HEADER_BYTES)? != [0; 3] {
        return None;
    }
    let end = RECORD_HEADER_BYTES.checked_add(length)?;
    let record = Record { kind, bytes: body.get(RECORD_HEADER_BYTES..end)? };
    let rest = body.get(end.checked_next_multiple_of(8)?..)?;
    record.is_sound().then_some((record, rest))
}

/// Bytes of a record before its own.
const RECORD_HEADER_BYTES: usize = 8;
/// Bytes of a fingerprint with a time.
const AT_BYTES: usize = 24;

#[cfg(test)]
mod tests {
    use super::super::frame;
    use super::*;

    fn ids(range: std::ops::Range<u128>) -> impl Iterator<Item = Fingerprint> {
        range.map(Fingerprint::from_u128)
    }

    #[test]
    fn records_come_back_in_order() {
        let mut batch = Batch::new();
        batch.push_ids(Kind::Seen, ids(1..4));
        batch.push_named(Kind::Source, b"file 7", b"12");
        batch.push(Kind::Clock, b"");
        let at = |n| (Fingerprint::from_u128(n), Timestamp::from_nanos(-(n as i64)));
        batch.push_ids_at(Kind::SeenAt, (7..9).map(at));
        let records: Vec<_> = Records::of(batch.body()).unwrap().collect();
        let kinds = [Kind::Seen, Kind::Source, Kind::Clock, Kind::SeenAt];
        assert_eq!(records.iter().map(|r| r.kind).collect::<Vec<_>>(), kinds);
        assert_eq!(records[0].ids().collect::<Vec<_>>(), ids(1..4).collect::<Vec<_>>());
        assert_eq!(records[1].named(), Some((&b"file 7"[..], &b"12"[..])));
        assert!(records[2].bytes.is_empty());
        assert_eq!(records[3].ids_at().collect::<Vec<_>>(), [at(7), at(8)]);
    }

    #[test]
    fn a_name_that_ends_outside_its_record_is_refused() {
        let mut batch = Batch::new();
        batch.push_named(Kind::Sink, b"out", b"");
        let mut body = batch.body().to_vec();
        body[RECORD_HEADER_BYTES] = 4;
        assert!(Records::of(&body).is_none());
    }

    #[test]
    fn an_id_costs_less_than_twenty_bytes() {
        for count in [100_u128, 300, 704] {
            let mut batch = Batch::new();
            batch.push_ids(Kind::Seen, ids(0..count));
            let bytes = frame::HEADER_BYTES + batch.body().len();
            assert!(bytes as u128 <= 17 * count, "{bytes} bytes for {count}");
        }
    }

    #[test]
    fn bodies_that_are_no_records_are_refused() {
        let mut batch = Batch::new();
        batch.push_ids(Kind::Seen, ids(1..3));
        let good = batch.body().to_vec();
        for length in 1..good.len() {
            assert!(Records::of(&good[..length]).is_none(), "{length} bytes");
        }
        for (at, value) in [(0, 31), (0, 33), (3, 255), (4, 0), (4, 9), (4, 11), (5, 1)] {
            let mut bad = good.clone();
            bad[at] = value;
            assert!(Records::of(&bad).is_none(), "byte {at} = {value}");
        }
    }
}
