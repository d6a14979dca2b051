//! The filter on real events, compared byte for byte with twenty lines of Python and a dict (`common/oracle.py`).
//!
//! Goal: events that nobody made up for this project, and an answer that shares no line of code with it. Method: the
//! files have no duplicates of their own, so they are replayed, shuffled with a fixed seed, and retried with changed
//! bytes. The files are read from `$DEDUPD_DATA` or `../shared/data`; where they or Python are absent, the tests say so.
#![cfg(feature = "cli")]

mod common;

use std::path::{Path, PathBuf};
use std::process::Command;

use common::filter::{assert_same_lines, filtered, run};

#[test]
fn events_without_duplicates_pass_unchanged() {
    for (file, key) in real_files() {
        let events = std::fs::read(&file).unwrap();
        assert_same_lines(&filtered(&["--key", key], &events), &events);
    }
}

#[test]
fn a_replayed_file_is_dropped_whole() {
    for (file, key) in real_files() {
        let events = std::fs::read(&file).unwrap();
        assert_same_lines(&filtered(&["--key", key], &events.repeat(3)), &events);
    }
}

#[test]
fn shuffled_retries_with_changed_bytes_are_dropped() {
    for (file, key) in real_files() {
        for seed in 1..=8 {
            let input = retried(&std::fs::read(&file).unwrap(), seed);
            assert_like_python(key, &input);
        }
    }
}

#[test]
fn threads_change_nothing() {
    for (file, key) in real_files() {
        let input = retried(&std::fs::read(&file).unwrap(), 9);
        let one = filtered(&["--key", key, "--threads", "1"], &input);
        for threads in ["2", "3", "8"] {
            assert_same_lines(&filtered(&["--key", key, "--threads", threads], &input), &one);
        }
    }
}

#[test]
fn nested_members_name_events_too() {
    for (file, _) in real_files() {
        let input = retried(&std::fs::read(&file).unwrap(), 10);
        for key in
            ["actor.id", "repo.name", "payload.push_id", "userIdentity.type", "eventName", "created_at", "public"]
        {
            assert_like_python(key, &input);
        }
    }
}

#[test]
fn lines_that_were_cut_pass_unchanged() {
    for (file, key) in real_files() {
        let mut rng = Rng(11);
        let mut input = Vec::new();
        for line in retried(&std::fs::read(&file).unwrap(), 11).split_inclusive(|byte| *byte == b'\n') {
            match rng.below(8) {
                0 => input.extend([&line[..rng.below(line.len() - 3)], b"\n"].concat()),
                _ => input.extend_from_slice(line),
            }
        }
        assert_like_python(key, &input);
    }
}

#[track_caller]
fn assert_like_python(key: &str, input: &[u8]) {
    let mut python = Command::new("python3");
    python.arg(manifest().join("tests/common/oracle.py")).arg(key);
    if Command::new("python3").arg("--version").output().is_err() {
        eprintln!("skipped: no python3 to compare with");
        return;
    }
    let oracle = run(python, input);
    assert!(oracle.status.success(), "{}", String::from_utf8_lossy(&oracle.stderr));
    assert_same_lines(&filtered(&["--key", key], input), &oracle.stdout);
}

/// Each line one to four times, in any order; of repeats and first deliveries alike half have other bytes.
fn retried(events: &[u8], seed: u64) -> Vec<u8> {
    let mut rng = Rng(seed);
    let mut lines = Vec::new();
    for line in events.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        for attempt in 0..=rng.below(4) {
            lines.push(match rng.below(6) {
                0 => [format!("{{\"attempt\":{attempt},").as_bytes(), &line[1..]].concat(),
                1 => [b" \t{ ", &line[1..], b"  "].concat(),
                2 => [&line[..line.len() - 1], b", \"retried\" : {\"id\":[null]} }\r"].concat(),
                _ => line.to_vec(),
            });
        }
    }
    for last in (1..lines.len()).rev() {
        lines.swap(last, rng.below(last + 1));
    }
    lines.iter_mut().for_each(|line| line.push(b'\n'));
    lines.concat()
}

/// The real files that are there, each with the member that names its events.
fn real_files() -> Vec<(PathBuf, &'static str)> {
    let data = std::env::var_os("DEDUPD_DATA").map_or_else(|| manifest().join("../shared/data"), PathBuf::from);
    let files = [("events/github_events.ndjson", "id"), ("events/cloudtrail.ndjson", "eventID")];
    let found: Vec<_> =
        files.map(|(file, key)| (data.join(file), key)).into_iter().filter(|(file, _)| file.exists()).collect();
    if found.is_empty() {
        eprintln!("skipped: no real events in {} (set DEDUPD_DATA)", data.display());
    }
    found
}

fn manifest() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A linear congruential generator (Knuth, MMIX): enough to shuffle with.
struct Rng(u64);

impl Rng {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % bound
    }
}
