//! What the fuzz targets reach of the log: one function each, which panics when a promise is broken.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::batch::{Batch, Kind, Records};
use super::frame::{Frame, HEADER_BYTES, Header};
use super::header::{self, PAGE_BYTES, Place, SegmentHeader, Start};
use super::storage::simulated::Simulated;
use super::{Config, Log, Opening};
use crate::event::Fingerprint;
use crate::time::Timestamp;

/// Bytes of any kind are no frame, or the frame that encodes to them; and what is encoded is decoded again.
pub fn log_frame(input: &[u8]) {
    let mut input = Input(input);
    let salt = input.u64();
    if let Some(frame) = Frame::decode(input.0, salt) {
        let (bytes, crc) = frame.header.encode(salt);
        assert!(input.0.starts_with(&bytes) && crc == frame.crc);
        assert_eq!(&input.0[HEADER_BYTES..frame.bytes()], frame.body);
    }
    // Whatever a header says.
    let _ = SegmentHeader::decode(input.0).map(|header| assert!(input.0.starts_with(&header.encode()[..88])));
    records(input.0);

    let (sequence, chain, time) = (input.u64() % (u64::MAX - 1) + 1, input.u64() as u32, input.u64().cast_signed());
    let synced = input.u64() % sequence;
    let mut body = input.0.to_vec();
    body.resize(body.len().next_multiple_of(8), 0);
    let (body_bytes, body_crc) = (u32::try_from(body.len()).unwrap(), crc32c::crc32c(&body));
    let header = Header { sequence, time, synced, chain, body_bytes, body_crc };
    let (bytes, crc) = header.encode(salt);
    let mut all = [&bytes[..], &body].concat();
    let frame = Frame::decode(&all, salt).expect("what was encoded is decoded");
    assert_eq!((frame.header, frame.crc, frame.body), (header, crc, &body[..]));
    let bit = usize::try_from(time.cast_unsigned() % (all.len() as u64 * 8)).unwrap();
    all[bit / 8] ^= 1 << (bit % 8);
    assert!(Frame::decode(&all, salt).is_none(), "bit {bit} is flipped");
}

/// Looks at all that records say.
fn records(body: &[u8]) {
    for record in Records::of(body).into_iter().flatten() {
        match record.kind {
            Kind::SeenAt | Kind::RefreshAt => assert_eq!(record.ids_at().len() * 24, record.bytes.len()),
            Kind::Seen | Kind::Refresh | Kind::Forget => assert_eq!(record.ids().len() * 16, record.bytes.len()),
            Kind::Source | Kind::Sink => assert!(record.named().is_some()),
            Kind::Claim | Kind::Watermark | Kind::Clock => {}
        }
    }
}

/// A damaged log, or files that no log has written: opening one gives a prefix of what was appended, or an error and
/// no change; and opening it again gives the same.
pub fn log_recover(input: &[u8]) {
    let mut input = Input(input);
    if input.u8() % 2 == 0 {
        let (mut files, history) = lived(&mut input);
        while !input.0.is_empty() {
            damage(&mut files, &mut input);
        }
        if let Some(frames) = opened_twice(&files) {
            let found: Vec<u64> = frames.into_iter().flat_map(|frame| frame.ids).collect();
            let is_prefix = found.is_empty() || history.windows(found.len()).any(|part| part == found);
            assert!(is_prefix, "{found:?} are no part of {history:?}");
        }
    } else {
        let mut files = BTreeMap::new();
        let mut place = Place::default();
        for _ in 0..4 {
            forge(&mut files, &mut place, &mut input);
        }
        opened_twice(&files);
    }
}

/// What a frame says.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Found {
    sequence: u64,
    time: Timestamp,
    ids: Vec<u64>,
}

fn config() -> Config {
    let (segment_bytes_min, segment_bytes_max, touch_ahead_bytes) = (8_192, 16_384, 4_096);
    Config { segment_bytes_min, segment_bytes_max, touch_ahead_bytes, ..Config::new([7; 32]) }
}

fn open(simulated: &Simulated) -> Result<(Log, Opening, Vec<Found>), String> {
    let mut frames = Vec::new();
    let opened = Log::open(Arc::new(simulated.clone()), config(), |replayed| {
        let records: Vec<_> = replayed.records.collect();
        let ids = records.iter().filter(|record| record.kind == Kind::Seen).flat_map(|record| record.ids());
        let ids = ids.map(|id| id.as_u128() as u64).collect();
        frames.push(Found { sequence: replayed.sequence, time: replayed.time, ids });
    });
    let (log, opening) = opened.map_err(|error| error.to_string())?;
    Ok((log, opening, frames))
}

/// Opens a log of these files, uses it, and opens it again; none when it is refused.
fn opened_twice(files: &BTreeMap<String, Vec<u8>>) -> Option<Vec<Found>> {
    let simulated = Simulated::with_files(files);
    let (log, _, frames) = match open(&simulated) {
        Ok(opened) => opened,
        Err(error) => {
            assert_eq!(simulated.files(), *files, "refused, and yet something has changed: {error}");
            assert_eq!(open(&simulated).map(|_| ()).err(), Some(error), "refused the second time as the first");
            return None;
        }
    };
    let is_dense = frames.windows(2).all(|pair| pair[1].sequence == pair[0].sequence + 1);
    assert!(is_dense, "{frames:?}");
    let again = open(&simulated.after_power_cut(&mut || false)).expect("what was opened opens again");
    assert_eq!((&again.2, again.1.loss), (&frames, None), "it is as the first time, and a loss is told once");
    let position = append(&log, 77);
    log.wait_durable(position).expect("nothing fails");
    drop(log);
    let left = simulated.after_power_cut(&mut || false);
    let (_, opening, after) = open(&left).expect("what was appended to opens again");
    assert_eq!((&after[..frames.len()], after.len(), opening.loss), (&frames[..], frames.len() + 1, None));
    Some(frames)
}

fn append(log: &Log, id: u64) -> super::Position {
    let mut batch = Batch::new();
    batch.push_ids(Kind::Seen, [Fingerprint::from_u128(u128::from(id))]);
    batch.push_named(Kind::Source, b"orders", &[0; 40]);
    log.append(Timestamp::from_nanos(id.cast_signed()), &batch).expect("nothing fails")
}

/// The files of a log that has lived as the input says, and the ids appended to it, by age.
fn lived(input: &mut Input<'_>) -> (BTreeMap<String, Vec<u8>>, Vec<u64>) {
    let mut simulated = Simulated::new(512);
    let mut log = open(&simulated).expect("a new log opens").0;
    let mut history = Vec::new();
    for _ in 0..input.u8() {
        match input.u8() % 16 {
            0..10 => {
                let id = history.len() as u64 + 1;
                history.push(id);
                append(&log, id);
            }
            10 | 11 => log.sync().expect("nothing fails"),
            12 | 13 => log.maintain().expect("nothing fails"),
            14 => {
                let before = (history.len() as u64).saturating_sub(u64::from(input.u8())).cast_signed();
                log.retire(Timestamp::from_nanos(before)).expect("nothing fails");
            }
            _ => {
                if input.u8() % 2 == 0 {
                    log.close().expect("nothing fails");
                }
                simulated = simulated.after_kill();
                log = open(&simulated).expect("after a kill it opens").0;
            }
        }
    }
    (simulated.files(), history)
}

/// Flips, zeroes, copies, cuts or removes something.
fn damage(files: &mut BTreeMap<String, Vec<u8>>, input: &mut Input<'_>) {
    let count = files.len().max(1);
    let (kind, index) = (input.u8(), usize::from(input.u8()) % count);
    let (from, to) = (usize::from(input.u16()), usize::from(input.u16()));
    let Some(name) = files.keys().nth(index).cloned() else { return };
    let Some(bytes) = files.get_mut(&name) else { return };
    let length = bytes.len();
    let (from, to) = (from.min(length), to.min(length));
    match kind % 5 {
        0 => bytes.iter_mut().skip(from).take(1).for_each(|byte| *byte ^= 1 << (to % 8)),
        1 => bytes[from.min(to)..from.max(to)].fill(0),
        2 => bytes.copy_within(from..(from + 72).min(length), to.min(length.saturating_sub(72))),
        3 => bytes.truncate(from),
        _ => drop(files.remove(&name)),
    }
}

/// Adds a segment whose checksums are right, and whose fields are what the input says.
fn forge(files: &mut BTreeMap<String, Vec<u8>>, place: &mut Place, input: &mut Input<'_>) {
    let (flags, number) = (input.u8(), files.len() as u64 + 1 + u64::from(input.u8() % 2));
    let salt = u64::from(input.u8()).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let strange = Place { sequence: input.u64(), chain: 1 };
    let start = match flags % 4 {
        0 => Start::Follows,
        1 | 2 => Start::Resumes(*place),
        _ => Start::Resumes(strange),
    };
    let header = SegmentHeader { number, salt, start, is_recycled: flags & 4 != 0, bytes: 8_192, identity: [7; 32] };
    let mut bytes = header.encode().to_vec();
    for _ in 0..input.u8() % 8 {
        forge_frame(&mut bytes, salt, place, input);
    }
    bytes.resize(bytes.len() + usize::from(input.u8()) * 8, 0);
    files.insert(header::name(number), bytes);
}

fn forge_frame(bytes: &mut Vec<u8>, salt: u64, place: &mut Place, input: &mut Input<'_>) {
    let (kind, skip, synced) = (input.u8(), u64::from(input.u8() % 3), u64::from(input.u8()));
    let mut batch = Batch::new();
    for id in 0..u64::from(kind % 8) {
        batch.push_ids(Kind::Seen, [Fingerprint::from_u128(u128::from(id))]);
    }
    let sequence = place.sequence.saturating_add(1 + skip / 2).clamp(1, u64::MAX - 1);
    let (body, chain) = (batch.body(), if kind & 8 == 0 { place.chain } else { 5 });
    let (body_bytes, body_crc) = (u32::try_from(body.len()).unwrap_or(0), crc32c::crc32c(body));
    let synced = synced.min(sequence - 1);
    let header = Header { sequence, time: i64::from(kind), synced, chain, body_bytes, body_crc };
    let (frame, chain) = header.encode(salt);
    if kind & 16 != 0 {
        bytes.resize(bytes.len().next_multiple_of(PAGE_BYTES), 0);
    }
    bytes.extend_from_slice(&frame);
    bytes.extend_from_slice(body);
    *place = Place { sequence, chain };
}

/// What is left of the input; zeros after its end.
struct Input<'a>(&'a [u8]);

impl Input<'_> {
    fn u8(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    fn u16(&mut self) -> u16 {
        u16::from_le_bytes([self.u8(), self.u8()])
    }

    fn u64(&mut self) -> u64 {
        u64::from_le_bytes([(); 8].map(|()| self.u8()))
    }
}
