//! Goal: on a device whose writes fail, nothing is said to be durable that is not, and no success comes after a failure,
//! although the kernel reports a failed sync once and succeeds from then on; what was answered before is known afterwards,
//! and the same command again comes to the outputs of a run that nobody disturbed. Method: ext4 and xfs on a loop device
//! whose bytes are served by a program that fails each write on demand; then it heals, is mounted again, and read.
#![cfg(feature = "cli")]

mod common;
mod filter;

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use common::disk::Disk;
use common::state::HOUR;
use dedupd::{Deduplicator, Durability, ManualClock, Unjudged, Verdict};
use filter::{dedupd, dir, events, eventually, write};

fn id(n: u32) -> [u8; 4] {
    n.to_le_bytes()
}

fn nothing_is_durable_after_a_failure(kind: &str) {
    let Some(disk) = Disk::failing(kind) else { return };
    let clock = ManualClock::new();
    let builder = || Deduplicator::builder().window(HOUR).clock(clock.clone()).durability(Durability::PowerLoss);
    let dedup = builder().open(disk.root().join("state")).expect("a state");
    for n in 0..200 {
        assert_eq!(dedup.try_observe(id(n)), Ok(Verdict::FirstSeen), "{kind}");
    }
    disk.fail(true);
    let refused = (200..1_000).find(|n| dedup.try_observe(id(*n)).is_err()).expect("a failure is noticed");
    assert_eq!(refused, 200, "{kind}: each answer rests on a sync");
    assert_eq!(
        dedup.try_observe(id(0)),
        Err(Unjudged::LogFailed),
        "{kind}: whether it is a duplicate is not known to last"
    );
    disk.fail(false);
    for n in 200..300 {
        assert_eq!(dedup.try_observe(id(n)), Err(Unjudged::LogFailed), "{kind}: no success after a failure");
    }
    assert!(dedup.sync().is_err(), "{kind}");
    assert!(dedup.close().is_err(), "{kind}: what is missing is told once more");
    disk.restart();
    let dedup = builder().open(disk.root().join("state")).expect("the state again");
    for n in 0..200 {
        assert_eq!(dedup.try_observe(id(n)), Ok(Verdict::Duplicate), "{kind}: {n} was answered");
    }
    for n in 1_000..1_100 {
        assert_eq!(dedup.try_observe(id(n)), Ok(Verdict::FirstSeen), "{kind}: {n} was never asked about");
    }
    dedup.close().expect("closed");
}

fn command(input: &Path, root: &Path, durability: &str) -> Command {
    let mut command = dedupd(["-q", "--delivery", "exactly-once", "--durability", durability, "--input"]);
    command.arg(input).arg("--state").arg(root.join("state")).arg("--output").arg(root.join("out"));
    command.stdout(Stdio::null()).stderr(Stdio::piped());
    command
}

fn a_run_comes_to_the_same_outputs(kind: &str, durability: &str) {
    let dir = dir();
    let lines: String = (0..400_000).map(|n| events([n / 3 * 2 + n % 2])).collect();
    let input = write(dir.path().join("in"), lines);
    let ended = command(input.as_ref(), dir.path(), durability).output().expect("it ends");
    assert!(ended.status.success());
    let expected = std::fs::read(dir.path().join("out")).expect("an output");
    let Some(disk) = Disk::failing(kind) else { return };
    let mut failures = 0;
    for part in 0..4 {
        let mut child = command(input.as_ref(), &disk.root(), durability).spawn().expect("the binary starts");
        let wanted = expected.len() as u64 * part / 4;
        eventually("enough is out", || {
            let out = std::fs::metadata(disk.root().join("out"));
            out.is_ok_and(|about| about.len() >= wanted) || child.try_wait().expect("a child of ours").is_some()
        });
        disk.fail(true);
        let ended = child.wait_with_output().expect("it ends");
        let err = String::from_utf8_lossy(&ended.stderr).into_owned();
        failures += u32::from(ended.status.code() == Some(74));
        assert!(matches!(ended.status.code(), Some(0 | 73 | 74)), "{kind}, {durability}: {err}");
        std::thread::sleep(Duration::from_millis(part));
        disk.fail(false);
        disk.restart();
    }
    assert!(failures > 0, "{kind}, {durability}: no run noticed that the disk fails");
    let ended = command(input.as_ref(), &disk.root(), durability).output().expect("it ends");
    let err = String::from_utf8_lossy(&ended.stderr).into_owned();
    assert!(ended.status.success(), "{kind}, {durability}: {err}");
    let out = std::fs::read(disk.root().join("out")).expect("an output");
    assert!(out == expected, "{kind}, {durability}: the outputs differ: {} bytes of {}", out.len(), expected.len());
}

#[test]
fn nothing_is_durable_on_ext4_after_a_failure() {
    nothing_is_durable_after_a_failure("ext4");
}

#[test]
fn nothing_is_durable_on_xfs_after_a_failure() {
    nothing_is_durable_after_a_failure("xfs");
}

#[test]
fn a_run_on_ext4_comes_to_the_same_outputs() {
    a_run_comes_to_the_same_outputs("ext4", "power-loss");
    a_run_comes_to_the_same_outputs("ext4", "interval=2ms");
}

#[test]
fn a_run_on_xfs_comes_to_the_same_outputs() {
    a_run_comes_to_the_same_outputs("xfs", "power-loss");
    a_run_comes_to_the_same_outputs("xfs", "interval=2ms");
}
