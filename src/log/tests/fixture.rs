//! Files of format 1, as they were written once: they are read for ever.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::*;

/// A frame: its sequence, its time, and its records as kind and text.
type Told = (u64, i64, Vec<(u8, String)>);

/// Two lives: the first one was killed, with its last batches not synced, and the second one was closed.
fn lives(simulated: Simulated) -> Simulated {
    let log = open(simulated.clone(), tiny()).unwrap().0;
    append_all_kinds(&log);
    log.sync().unwrap();
    log.maintain().unwrap();
    for time in 20..=23 {
        append(&log, &entry(time, 90)).unwrap();
    }
    drop(log);
    let simulated = simulated.after_kill();
    let log = open(simulated.clone(), tiny()).unwrap().0;
    let mut batch = Batch::new();
    batch.push_ids(Kind::Seen, ids(0xf0, 2));
    batch.push_named(Kind::Source, b"orders", &9_000_u64.to_le_bytes());
    batch.push_named(Kind::Sink, b"", b"");
    log.append(Timestamp::from_nanos(30), &batch).unwrap();
    log.close().unwrap();
    simulated
}

/// One frame of each kind that is ids, and one of all others.
fn append_all_kinds(log: &Log) {
    let mut batch = Batch::new();
    for (time, kind) in [(-5, Kind::Seen), (6, Kind::Refresh), (7, Kind::Forget)] {
        batch.clear();
        batch.push_ids(kind, ids(u128::MAX - 8 * u128::from(kind as u8), 3));
        log.append(Timestamp::from_nanos(time), &batch).unwrap();
    }
    for (time, kind) in [(8, Kind::SeenAt), (9, Kind::RefreshAt)] {
        batch.clear();
        let at = |offset: i64| Timestamp::from_nanos(1_700_000_000_000_000_000 + offset);
        batch.push_ids_at(kind, ids(0xa0, 2).zip([at(-1), at(1)]));
        log.append(Timestamp::from_nanos(time), &batch).unwrap();
    }
    batch.clear();
    batch.push(Kind::Claim, b"claim");
    batch.push_named(Kind::Source, b"orders", b"offset 4711");
    batch.push_named(Kind::Sink, b"out", b"99");
    batch.push(Kind::Watermark, b"");
    batch.push(Kind::Clock, b"clock");
    log.append(Timestamp::from_nanos(10), &batch).unwrap();
}

fn ids(first: u128, count: u128) -> impl Iterator<Item = Fingerprint> {
    (first..first + count).map(Fingerprint::from_u128)
}

fn text(record: Record<'_>) -> (u8, String) {
    let hex = |id: Fingerprint| format!("{:x}", id.as_u128());
    let told = match record.kind {
        Kind::Seen | Kind::Refresh | Kind::Forget if record.ids().len() > 9 => format!("{} ids", record.ids().len()),
        Kind::Seen | Kind::Refresh | Kind::Forget => record.ids().map(hex).collect::<Vec<_>>().join(" "),
        Kind::SeenAt | Kind::RefreshAt => {
            let entries = record.ids_at().map(|(id, time)| format!("{} at {}", hex(id), time.as_nanos()));
            entries.collect::<Vec<_>>().join(", ")
        }
        Kind::Source | Kind::Sink => {
            let (name, position) = record.named().unwrap();
            format!("{}: {}", name.escape_ascii(), position.escape_ascii())
        }
        Kind::Claim | Kind::Watermark | Kind::Clock => record.bytes.escape_ascii().to_string(),
    };
    (record.kind as u8, told)
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/log_v1")
}

fn files() -> BTreeMap<String, Vec<u8>> {
    let entries = std::fs::read_dir(folder()).unwrap().map(|entry| entry.unwrap());
    entries.map(|entry| (entry.file_name().into_string().unwrap(), std::fs::read(entry.path()).unwrap())).collect()
}

/// Runs only when asked for: has the files written that a new version of the format will be read by.
#[test]
fn write() {
    let Ok(folder) = std::env::var("DEDUPD_TEST_LOG_FIXTURE") else { return };
    for (name, bytes) in lives(Simulated::new(512)).files() {
        std::fs::write(Path::new(&folder).join(name), bytes).unwrap();
    }
}

#[test]
fn a_log_of_format_1_is_read_to_the_last_byte() {
    let mut told: Vec<Told> = Vec::new();
    let simulated = Simulated::with_files(&files());
    let (_, opening) = Log::open(Arc::new(simulated), tiny(), |replayed| {
        let records = replayed.records.map(text).collect();
        told.push((replayed.sequence, replayed.time.as_nanos(), records));
    })
    .unwrap();
    assert_eq!((opening.position, opening.newest, opening.loss), (Position(13), Some(Timestamp::from_nanos(30)), None));
    let expected: Vec<Told> = EXPECTED
        .iter()
        .map(|(sequence, time, records)| {
            (*sequence, *time, records.iter().map(|(kind, text)| (*kind, (*text).to_owned())).collect())
        })
        .collect();
    assert_eq!(told, expected);
    let entries = open(Simulated::with_files(&files()), tiny()).unwrap().2;
    let of_90: Vec<Entry> = entries.into_iter().filter(|entry| entry.1.len() == 90).collect();
    assert_eq!(of_90, (20..=23).map(|time| entry(time, 90)).collect::<Vec<_>>());
}

#[test]
fn every_byte_of_it_that_is_flipped_is_noticed_or_does_not_matter() {
    let files = files();
    let read = |files: &BTreeMap<String, Vec<u8>>| {
        let mut frames = 0;
        Log::open(Arc::new(Simulated::with_files(files)), tiny(), |_| frames += 1).map(|_| frames)
    };
    let mut refused = 0;
    for (name, bytes) in &files {
        for at in 0..bytes.len() {
            let mut bad = files.clone();
            bad.get_mut(name).unwrap()[at] ^= 0x10;
            match read(&bad) {
                // Nothing says that the last mark was on disk.
                Ok(frames) => assert!(frames + 1 >= EXPECTED.len(), "{name}, byte {at}: {frames} frames"),
                Err(error) => refused += usize::from(error.is_corruption()),
            }
        }
    }
    assert!(refused > 3 * 4_096, "{refused} flips were refused");
}

type Expected = (u64, i64, &'static [(u8, &'static str)]);

/// Told once, when the files were written; the last frame of each life that ended well is a mark.
const EXPECTED: &[Expected] = &[
    (
        1,
        -5,
        &[(1, "fffffffffffffffffffffffffffffff7 fffffffffffffffffffffffffffffff8 fffffffffffffffffffffffffffffff9")],
    ),
    (
        2,
        6,
        &[(2, "ffffffffffffffffffffffffffffffef fffffffffffffffffffffffffffffff0 fffffffffffffffffffffffffffffff1")],
    ),
    (
        3,
        7,
        &[(3, "ffffffffffffffffffffffffffffffe7 ffffffffffffffffffffffffffffffe8 ffffffffffffffffffffffffffffffe9")],
    ),
    (4, 8, &[(9, "a0 at 1699999999999999999, a1 at 1700000000000000001")]),
    (5, 9, &[(10, "a0 at 1699999999999999999, a1 at 1700000000000000001")]),
    (6, 10, &[(4, "claim"), (5, "orders: offset 4711"), (6, "out: 99"), (7, ""), (8, "clock")]),
    (7, 10, &[]),
    (8, 20, &[(1, "90 ids")]),
    (9, 21, &[(1, "90 ids")]),
    (10, 22, &[(1, "90 ids")]),
    (11, 23, &[(1, "90 ids")]),
    (12, 30, &[(1, "f0 f1"), (5, r"orders: (#\x00\x00\x00\x00\x00\x00"), (6, ": ")]),
    (13, 30, &[]),
];
