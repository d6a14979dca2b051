//! `dedupd forget`. Goal: each ID of the lines is first-seen when it comes again, and nothing else of the state changes,
//! whatever its age and its time. Method: make states with the library or the filter, forget, and ask again.
#![cfg(feature = "cli")]

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Output;
use std::time::Duration;

use common::filter::{dedupd, filtered, run};
use dedupd::{
    Builder, Clock as _, Deduplicator, Durability, ManualClock, Progress, SystemClock, Timestamp, Unjudged, Verdict,
    state,
};
use serde_json::Value;

const HOUR: Duration = Duration::from_secs(3600);
const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);

/// A state as the filter makes it, of ids that stand at `id`.
fn builder(clock: &ManualClock) -> Builder {
    let builder = Deduplicator::builder().window(HOUR).clock(clock.clone()).lock_timeout(Duration::from_secs(60));
    builder.durability(Durability::Process).housekeeping(false).id_paths("id")
}

fn lines(numbers: impl IntoIterator<Item = u32>) -> Vec<u8> {
    numbers.into_iter().flat_map(|number| format!("{{\"id\":{number}}}\n").into_bytes()).collect()
}

/// Numbers are their own canonical ids.
fn ids(numbers: std::ops::Range<u32>) -> Vec<String> {
    numbers.map(|number| number.to_string()).collect()
}

fn firsts(dedup: &Deduplicator, ids: &[String]) -> usize {
    let mut verdicts = Vec::new();
    dedup.observe_batch(ids, &mut verdicts);
    verdicts.iter().filter(|verdict| **verdict == Verdict::FirstSeen).count()
}

/// Waits for a lock, as children of other tests hold those of this process until they have become programs of their own.
fn forget(dir: &Path, args: &[&str], input: &[u8]) -> Output {
    run(dedupd(&[&["forget", dir.to_str().unwrap(), "--lock-timeout", "60s"][..], args].concat()), input)
}

/// What the report says: forgotten, not known, bad.
fn counts(output: &Output) -> (u64, u64, u64) {
    let report: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"));
    let [forgotten, not_known, bad] = ["forgotten", "not_known", "bad"].map(|name| report[name].as_u64().unwrap());
    assert_eq!(report["read"].as_u64(), Some(forgotten + not_known + bad));
    (forgotten, not_known, bad)
}

fn segments(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap());
    let files = entries.map(|entry| (entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap()));
    files.filter(|(name, _)| name.ends_with(".log")).collect()
}

#[test]
fn what_is_forgotten_is_first_seen_again_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let state = ["--quiet", "--state", dir.path().to_str().unwrap()];
    assert_eq!(filtered(&state, &lines(0..100)), lines(0..100));
    let output = forget(dir.path(), &["--report", "json"], &lines([7, 70, 700, 7]));
    assert_eq!((output.status.code(), counts(&output)), (Some(0), (2, 2, 0)), "{output:?}");
    assert!(output.stderr.is_empty(), "{output:?}");
    assert_eq!(filtered(&state, &lines(0..100)), lines([7, 70]));
    assert_eq!(filtered(&state, &lines(0..100)), b"", "they are known again");
}

#[test]
fn a_bad_line_is_named_and_the_others_are_forgotten() {
    let dir = tempfile::tempdir().unwrap();
    let state = ["--quiet", "--state", dir.path().to_str().unwrap()];
    filtered(&state, &lines(1..5));
    let mut input = b"\xef\xbb\xbf{\"id\":1}\n\n{\"id\":null}\n{\"id\":2\n{\"id\":1,\"id\":2}\n".to_vec();
    input.extend_from_slice(&[b'x'; 1_000]);
    input.extend_from_slice(b"\n{\"id\":4}");
    let output = forget(dir.path(), &["--report", "json", "--max-line", "100B"], &input);
    assert_eq!((output.status.code(), counts(&output)), (Some(1), (2, 0, 4)), "{output:?}");
    let told = String::from_utf8(output.stderr).unwrap();
    for (line, reason) in [(3, "missing_id"), (4, "malformed"), (5, "ambiguous_id"), (6, "too_long")] {
        let start = format!("dedupd: warning[{reason}]: standard input, line {line}: ");
        assert_eq!(told.matches(&start).count(), 1, "{told}");
    }
    assert_eq!(told.lines().count(), 4, "{told}");
    assert_eq!(filtered(&state, &lines(1..5)), lines([1, 4]));
}

#[test]
fn ids_of_any_age_are_forgotten_and_no_segment_is_touched() {
    let dir = tempfile::tempdir().unwrap();
    let clock = ManualClock::starting_at(SystemClock::new().now().saturating_sub(10 * YEAR));
    let mut progress = Progress::new();
    progress.set_source("in", "17");
    for life in 0..3 {
        // A window that never ends keeps the segments of all three lives.
        let dedup = builder(&clock).window(Duration::MAX).open(dir.path()).unwrap();
        assert_eq!(firsts(&dedup, &ids(life * 100..life * 100 + 100)), 100);
        if life == 0 {
            dedup.record_progress(&progress).unwrap();
        }
        dedup.close().unwrap();
        clock.advance(3 * YEAR);
    }
    let before = segments(dir.path());
    assert_eq!(before.len(), 3);
    let output = forget(dir.path(), &["--report", "json"], &lines([0, 100, 200, 300]));
    assert_eq!((output.status.code(), counts(&output)), (Some(0), (3, 1, 0)), "{output:?}");
    let after = segments(dir.path());
    assert_eq!(after.len(), 4);
    for (name, bytes) in &before {
        assert!(after[name] == *bytes, "{name} is not what it was");
    }
    let dedup = builder(&clock).window(Duration::MAX).open(dir.path()).unwrap();
    assert_eq!(dedup.progress(), progress);
    assert_eq!(firsts(&dedup, &ids(0..300)), 3);
}

#[test]
fn forgetting_moves_no_event_time() {
    let dir = tempfile::tempdir().unwrap();
    let clock = ManualClock::starting_at(SystemClock::new().now());
    let open = || builder(&clock).lateness(HOUR).open(dir.path()).unwrap();
    // Events of ten years ago, as when old files are read.
    let then = clock.now().saturating_sub(10 * YEAR);
    let dedup = open();
    for (number, minutes) in [("1", 0), ("2", 10), ("3", 20)] {
        assert_eq!(dedup.try_observe_at(number, then.saturating_add(minutes * HOUR / 60)), Ok(Verdict::FirstSeen));
    }
    dedup.close().unwrap();
    let output = forget(dir.path(), &["--report", "json"], &lines([2, 9]));
    assert_eq!(counts(&output), (1, 1, 0), "{output:?}");
    let dedup = open();
    assert_eq!(dedup.recovery().unwrap().newest, Some(then.saturating_add(HOUR / 3)));
    let ask = |number: &str, time: Timestamp| dedup.try_observe_at(number, time);
    assert_eq!(ask("1", then), Ok(Verdict::Duplicate));
    assert_eq!(ask("2", then), Ok(Verdict::FirstSeen), "it was forgotten, and is not late");
    assert_eq!(ask("4", then.saturating_sub(HOUR)), Err(Unjudged::Late));
}

#[test]
fn each_refusal_has_its_exit_code_and_changes_nothing() {
    let (dir, clock) = (tempfile::tempdir().unwrap(), ManualClock::starting_at(SystemClock::new().now()));
    let dedup = builder(&clock).open(dir.path()).unwrap();
    assert_eq!(firsts(&dedup, &ids(0..10)), 10);
    let output = run(dedupd(&["forget", dir.path().to_str().unwrap()]), &lines([1]));
    assert_eq!(output.status.code(), Some(75));
    let output = std::thread::scope(|scope| {
        let waiting = scope.spawn(|| forget(dir.path(), &["--report", "json"], &lines([1])));
        dedup.close().unwrap();
        waiting.join().unwrap()
    });
    assert_eq!(counts(&output), (1, 0, 0), "{output:?}");
    let before = segments(dir.path());
    for other in [["--key", "name"], ["--hash", "xxh3"]] {
        assert_eq!(forget(dir.path(), &other, &lines([2])).status.code(), Some(78), "{other:?}");
    }
    let nowhere = dir.path().join("nowhere");
    assert_eq!(forget(&nowhere, &[], &lines([2])).status.code(), Some(74));
    assert!(!nowhere.exists(), "no state is made");
    let secret = fs::read(dir.path().join("SECRET")).unwrap();
    fs::remove_file(dir.path().join("SECRET")).unwrap();
    assert_eq!(forget(dir.path(), &[], &lines([2])).status.code(), Some(76));
    fs::write(dir.path().join("SECRET"), secret).unwrap();
    assert_eq!(segments(dir.path()), before);
    // The first frame of the first segment.
    let first = dir.path().join(before.keys().next().unwrap());
    let mut bytes = fs::read(&first).unwrap();
    bytes[4_200] ^= 1;
    fs::write(&first, bytes).unwrap();
    assert_eq!(forget(dir.path(), &[], &lines([2])).status.code(), Some(76));
    assert!(!state::verify(dir.path()).unwrap().is_sound());
}

#[test]
fn what_was_forgotten_before_an_input_fails_stays_so_and_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let (state, input) = (dir.path().join("state"), dir.path().join("input"));
    let flags = ["--quiet", "--state", state.to_str().unwrap()];
    filtered(&flags, &lines(0..10));
    fs::write(&input, lines([3])).unwrap();
    let output = forget(&state, &["--report", "json", input.to_str().unwrap(), "nowhere"], b"");
    assert_eq!((output.status.code(), counts(&output)), (Some(66), (1, 0, 0)), "{output:?}");
    assert_eq!(filtered(&flags, &lines(0..10)), lines([3]));
}

/// As `repair` has it.
#[test]
fn without_room_for_a_segment_the_exit_code_is_that_of_what_cannot_be_made() {
    let (dir, clock) = (tempfile::tempdir().unwrap(), ManualClock::starting_at(SystemClock::new().now()));
    let dedup = builder(&clock).open(dir.path()).unwrap();
    assert_eq!(firsts(&dedup, &ids(0..10)), 10);
    dedup.close().unwrap();
    let before = segments(dir.path());
    let mut command = dedupd(&["forget", dir.path().to_str().unwrap(), "--lock-timeout", "60s"]);
    let limit = || {
        let limit = libc::rlimit { rlim_cur: 2_048, rlim_max: 2_048 };
        // SAFETY: `limit` is valid for the duration of the call, which may be made between fork and exec.
        match unsafe { libc::setrlimit(libc::RLIMIT_FSIZE, &raw const limit) } {
            0 => Ok(()),
            _ => Err(std::io::Error::last_os_error()),
        }
    };
    // SAFETY: the closure makes one system call and touches nothing that is shared.
    unsafe { command.pre_exec(limit) };
    let output = run(command, &lines([1]));
    assert_eq!(output.status.code(), Some(73), "{output:?}");
    assert_eq!(segments(dir.path()), before);
}

/// Whose times it goes by is the filter's to say.
#[test]
fn a_state_without_a_log_has_nothing_to_forget_and_is_of_no_time_yet() {
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().to_str().unwrap();
    drop(builder(&ManualClock::new()).open(dir.path()).unwrap());
    segments(dir.path()).into_keys().for_each(|name| fs::remove_file(dir.path().join(name)).unwrap());
    let output = forget(dir.path(), &["--report", "json"], &lines([1, 2]));
    assert_eq!((output.status.code(), counts(&output)), (Some(0), (0, 2, 0)), "{output:?}");
    assert!(segments(dir.path()).is_empty(), "no log is made");
    let event = b"{\"id\":1,\"at\":1000000}\n";
    let time = ["--time-field", "at", "--time-unit", "s"];
    for flags in [&[][..], &time] {
        let output = run(dedupd(&[&["explain", "--state", state], flags].concat()), event);
        assert_eq!(output.status.code(), Some(0), "{output:?}");
    }
    assert_eq!(filtered(&[&["--quiet", "--state", state], &time[..]].concat(), event), event);
}
