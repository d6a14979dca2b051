//! `dedupd explain --state`. Goal: what a state knows of an ID is told as it is, whoever has the state open, and nothing is
//! written. Method: make states with the library at known times, have lines explained, and compare with the next open.
#![cfg(feature = "cli")]

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Output;
use std::time::Duration;

use common::filter::{dedupd, run};
use dedupd::{Builder, Clock as _, Deduplicator, Durability, ManualClock, SystemClock, Timestamp, Verdict};

const HOUR: Duration = Duration::from_secs(3600);

fn builder(clock: &ManualClock) -> Builder {
    let builder = Deduplicator::builder().window(100 * HOUR).clock(clock.clone()).lock_timeout(Duration::from_secs(60));
    builder.durability(Durability::Process).housekeeping(false).id_paths("id")
}

/// One batch of numbers, which are their own canonical ids.
fn observe(dedup: &Deduplicator, numbers: &[u32]) {
    let ids: Vec<String> = numbers.iter().map(u32::to_string).collect();
    dedup.observe_batch(&ids, &mut Vec::new());
}

fn lines(numbers: impl IntoIterator<Item = u32>) -> Vec<u8> {
    numbers.into_iter().flat_map(|number| format!("{{\"id\":{number}}}\n").into_bytes()).collect()
}

fn explain(dir: &Path, args: &[&str], input: &[u8]) -> Output {
    run(dedupd(&[&["explain", "--state", dir.to_str().unwrap()][..], args].concat()), input)
}

/// The verdicts of all lines, up to the time that they name.
fn verdicts(dir: &Path, args: &[&str], input: &[u8]) -> Vec<String> {
    let output = explain(dir, args, input);
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().filter_map(|line| line.strip_prefix("  verdict      ")).map(without_times).collect()
}

/// With `T` for each time.
fn without_times(verdict: &str) -> String {
    let is_time = |word: &str| word.len() >= 30 && word.contains('T') && word.ends_with('Z');
    let without = |word: &str| match word.trim_end_matches([',', ';']) {
        time if is_time(time) => format!("T{}", &word[time.len()..]),
        _ => word.to_owned(),
    };
    let words: Vec<_> = verdict.split(' ').map(without).collect();
    words.join(" ")
}

fn files(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap());
    entries.map(|entry| (entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap())).collect()
}

#[test]
fn what_a_state_knows_is_told_by_age() {
    let dir = tempfile::tempdir().unwrap();
    let now = SystemClock::new().now();
    let clock = ManualClock::starting_at(now.saturating_sub(300 * HOUR));
    let dedup = builder(&clock).window(Duration::MAX).open(dir.path()).unwrap();
    observe(&dedup, &[1, 2, 3]);
    assert!(dedup.forget("3").unwrap());
    // The slack of a window of 100 h is 1 h 33 min.
    clock.set(now.saturating_sub(100 * HOUR + HOUR / 2));
    observe(&dedup, &[4]);
    clock.set(now.saturating_sub(50 * HOUR));
    assert!(dedup.forget("2").unwrap());
    observe(&dedup, &[2, 5]);
    dedup.close().unwrap();
    let before = files(dir.path());
    let told = verdicts(dir.path(), &["--window", "100h"], &lines([1, 2, 3, 4, 5, 6, 5]));
    let expected = [
        "first-seen: reappeared, as it was seen at T and its window has ended",
        "duplicate: seen at T",
        "first-seen: new, as it was forgotten, at T or later",
        "first-seen or duplicate: seen at T, and its window is just ending",
        "duplicate: seen at T",
        "first-seen: new",
        "duplicate: seen at T",
    ];
    assert_eq!(told, expected);
    let told = verdicts(dir.path(), &["--window", "forever"], &lines([1, 2, 3, 4]));
    assert_eq!(told, [expected[1], expected[1], expected[2], expected[1]]);
    assert_eq!(files(dir.path()), before, "looking changes nothing");
    let text = String::from_utf8(explain(dir.path(), &["--window", "30h"], &lines([5])).stdout).unwrap();
    let seconds = now.saturating_sub(50 * HOUR).as_nanos() / 1_000_000_000;
    let date = std::process::Command::new("date").args(["-u", "-d", &format!("@{seconds}"), "+%FT%T."]).output();
    let date = String::from_utf8(date.unwrap().stdout).unwrap();
    assert!(text.contains(&format!("reappeared, as it was seen at {}", date.trim_end())), "{text}");
}

#[test]
fn a_repeat_that_extends_is_told_by_its_last_time() {
    let dir = tempfile::tempdir().unwrap();
    let clock = ManualClock::starting_at(SystemClock::new().now().saturating_sub(150 * HOUR));
    let dedup = builder(&clock).extend_on_duplicate(true).open(dir.path()).unwrap();
    observe(&dedup, &[1, 2]);
    clock.advance(90 * HOUR);
    observe(&dedup, &[1]);
    dedup.close().unwrap();
    let told = verdicts(dir.path(), &["--window", "100h", "--extend"], &lines([1, 2]));
    assert_eq!(
        told,
        ["duplicate: seen again at T", "first-seen: reappeared, as it was seen at T and its window has ended"]
    );
}

#[test]
fn a_state_in_use_is_told_as_it_is_now() {
    let (dir, clock) = (tempfile::tempdir().unwrap(), ManualClock::starting_at(SystemClock::new().now()));
    let dedup = builder(&clock).open(dir.path()).unwrap();
    let told = || verdicts(dir.path(), &[], &lines([1, 2]));
    assert_eq!(told(), ["first-seen: new"; 2]);
    observe(&dedup, &[1, 2]);
    assert_eq!(told(), ["duplicate: seen at T"; 2]);
    assert!(dedup.forget("2").unwrap());
    assert_eq!(told(), ["duplicate: seen at T", "first-seen: new, as it was forgotten, at T or later"]);
    observe(&dedup, &[2]);
    assert_eq!(told(), ["duplicate: seen at T"; 2]);
    // It is not disturbed.
    dedup.close().unwrap();
}

#[test]
fn in_event_time_the_nearest_sight_counts() {
    let dir = tempfile::tempdir().unwrap();
    let clock = ManualClock::starting_at(SystemClock::new().now());
    let then = Timestamp::from_secs(1_000_000_000);
    let dedup = builder(&clock).window(HOUR).lateness(5 * HOUR).open(dir.path()).unwrap();
    for hours in [0, 2, 4] {
        assert!(dedup.try_observe_at("1", then.saturating_add(hours * HOUR)).is_ok());
    }
    dedup.close().unwrap();
    let flags = ["--time-field", "at", "--time-unit", "s", "--window", "1h", "--lateness", "5h"];
    let line = |id: u32, minutes: i64| format!("{{\"id\":{id},\"at\":{}}}\n", 1_000_000_000 + 60 * minutes);
    let input = [line(1, 30), line(1, -59), line(1, 60), line(1, 179), line(1, -61), line(2, 0), line(1, 600)].concat();
    let told = verdicts(dir.path(), &flags, input.as_bytes());
    let reappeared = "first-seen: reappeared, as it was seen at T and its window has ended";
    let expected = [
        "duplicate: seen at T",
        "duplicate: seen at T",
        "first-seen or duplicate: seen at T, and its window is just ending",
        "duplicate: seen at T",
        "none: late, as the state has come to T",
        "first-seen: new",
        reappeared,
    ];
    assert_eq!(told, expected);
    let latest = verdicts(dir.path(), &[&flags[..], &["--extend"]].concat(), line(1, 30).as_bytes());
    assert_eq!(latest, [reappeared], "where repeats extend, only the latest sight counts");
    let future = verdicts(dir.path(), &flags, b"{\"id\":1,\"at\":9000000000}\n");
    assert_eq!(future, ["duplicate: seen at T; future, so judged as if it were at T"]);
}

#[test]
fn in_event_time_a_window_that_started_again_has_moved() {
    let dir = tempfile::tempdir().unwrap();
    let clock = ManualClock::starting_at(SystemClock::new().now());
    let then = Timestamp::from_secs(1_000_000_000);
    let open = || builder(&clock).window(HOUR).lateness(5 * HOUR);
    let dedup = open().extend_on_duplicate(true).open(dir.path()).unwrap();
    for minutes in [0, 30, 300] {
        assert!(dedup.try_observe_at("1", then.saturating_add(minutes * HOUR / 60)).is_ok());
    }
    dedup.close().unwrap();
    let flags = ["--time-field", "at", "--time-unit", "s", "--window", "1h", "--lateness", "5h"];
    let line = |minutes: i64| format!("{{\"id\":1,\"at\":{}}}\n", 1_000_000_000 + 60 * minutes);
    let told = verdicts(dir.path(), &flags, [line(5), line(89), line(93)].concat().as_bytes());
    let reappeared = "first-seen: reappeared, as it was seen again at T and its window has ended";
    assert_eq!(told, ["duplicate: seen again at T", "duplicate: seen again at T", reappeared]);
    let dedup = open().open(dir.path()).unwrap();
    for (minutes, verdict) in [(5, Verdict::Duplicate), (89, Verdict::Duplicate), (93, Verdict::FirstSeen)] {
        assert_eq!(dedup.try_observe_at("1", then.saturating_add(minutes * HOUR / 60)), Ok(verdict), "{minutes}");
    }
}

#[test]
fn many_lines_are_told_in_order() {
    let (dir, clock) = (tempfile::tempdir().unwrap(), ManualClock::starting_at(SystemClock::new().now()));
    let dedup = builder(&clock).open(dir.path()).unwrap();
    observe(&dedup, &(0..70_000).filter(|number| number % 3 == 0).collect::<Vec<_>>());
    dedup.close().unwrap();
    // More than are looked up together.
    let told = verdicts(dir.path(), &[], &lines(0..70_000));
    assert_eq!(told.len(), 70_000);
    for (number, told) in told.iter().enumerate() {
        let expected = if number % 3 == 0 { "duplicate: seen at T" } else { "first-seen: new" };
        assert_eq!(told, expected, "{number}");
    }
}

#[test]
fn each_refusal_has_its_exit_code() {
    let (dir, clock) = (tempfile::tempdir().unwrap(), ManualClock::starting_at(SystemClock::new().now()));
    let dedup = builder(&clock).open(dir.path()).unwrap();
    observe(&dedup, &[1]);
    dedup.close().unwrap();
    for other in [["--key", "name"], ["--hash", "xxh3"]] {
        assert_eq!(explain(dir.path(), &other, &lines([1])).status.code(), Some(78), "{other:?}");
    }
    assert_eq!(explain(&dir.path().join("nowhere"), &[], &lines([1])).status.code(), Some(74));
    let path = dir.path().join("SECRET");
    let secret = fs::read(&path).unwrap();
    fs::write(&path, [9; 32]).unwrap();
    assert_eq!(explain(dir.path(), &[], &lines([1])).status.code(), Some(78));
    fs::write(&path, secret).unwrap();
    let first = dir.path().join("0000000000000001.log");
    let mut bytes = fs::read(&first).unwrap();
    bytes[4_160] ^= 1;
    fs::write(&first, bytes).unwrap();
    assert_eq!(explain(dir.path(), &[], &lines([1])).status.code(), Some(76));
}
