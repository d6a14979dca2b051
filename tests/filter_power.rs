//! Goal: with `interval` and `power-loss` a power cut takes no line whose ID is known, and the same command again
//! comes to the outputs of a run that nobody disturbed. Method: ext4 and xfs on loop devices, whose file systems are
//! shut down without their journals being flushed while the filter runs (`DEDUPD_CUTS` says how often); then killed,
//! unmounted, mounted, and run again.

mod common;
mod filter;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use common::disk::Disk;
use filter::{dedupd, dir, events, files_in, outputs_in, write};

fn cuts() -> u64 {
    std::env::var("DEDUPD_CUTS").ok().and_then(|cuts| cuts.parse().ok()).unwrap_or(5)
}

fn command(input: &Path, root: &Path, durability: &str) -> Command {
    let mut command =
        dedupd(["-q", "--delivery", "exactly-once", "--durability", durability, "--on-bad", "divert", "--input"]);
    command.arg(input).args(files_in(root)).stdout(Stdio::null()).stderr(Stdio::piped());
    command
}

/// Runs with the power cut again and again, and at last to the end.
fn survive(kind: &str, durability: &str) {
    let dir = dir();
    let lines: String =
        (0..300_000).map(|n| if n % 50 == 0 { "bad\n".to_owned() } else { events([n / 3 * 2 + n % 2]) }).collect();
    let input = PathBuf::from(write(dir.path().join("in"), lines));
    assert_eq!(command(&input, dir.path(), durability).output().expect("it ends").status.code(), Some(1));
    let expected = outputs_in(dir.path());
    for round in 0..cuts().div_ceil(5) {
        let Some(disk) = Disk::new(kind) else { return };
        for cut in 0..5 {
            let mut child = command(&input, &disk.root(), durability).spawn().expect("the binary starts");
            // Each time a little further, and now and then before anything is out.
            let wanted = expected[0].len() as u64 * cut / 5;
            filter::eventually("enough is out", || {
                let out = std::fs::metadata(disk.root().join("out"));
                out.is_ok_and(|about| about.len() >= wanted) || child.try_wait().expect("a child of ours").is_some()
            });
            std::thread::sleep(Duration::from_micros(round * 1_000 + cut * 300));
            disk.cut();
            child.kill().expect("a child of ours");
            let ended = child.wait_with_output().expect("it ends");
            let err = String::from_utf8_lossy(&ended.stderr).into_owned();
            assert!(matches!(ended.status.code(), None | Some(0 | 1 | 73 | 74)), "{kind}, {durability}: {err}");
            disk.restart();
        }
        let ended = command(&input, &disk.root(), durability).output().expect("it ends");
        let err = String::from_utf8_lossy(&ended.stderr).into_owned();
        assert!(matches!(ended.status.code(), Some(0 | 1)), "{kind}, {durability}: {err}");
        assert!(outputs_in(&disk.root()) == expected, "{kind}, {durability}: the outputs differ");
    }
}

#[test]
fn power_loss_takes_nothing_from_ext4() {
    survive("ext4", "power-loss");
    survive("ext4", "interval=2ms");
}

#[test]
fn power_loss_takes_nothing_from_xfs() {
    survive("xfs", "power-loss");
    survive("xfs", "interval=2ms");
}
