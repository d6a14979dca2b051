//! Goal: who waits at a terminal for a state to be read sees how far that has come, and nobody else does. Method: the
//! binary on a pseudo terminal, with a state that is read in a moment: asked for progress from the start, or held up.
#![cfg(feature = "cli")]

mod filter;

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use dedupd::{Builder, Deduplicator, Durability};
use filter::{dedupd, dir, eventually, terminal, write};

const IDS: u32 = 1_000_000;

fn builder() -> Builder {
    // A process that another test starts has the lock until it runs its own program.
    Deduplicator::builder().durability(Durability::Process).id_paths("id").lock_timeout(filter::DEADLINE)
}

/// A state with ids.
fn state(dir: &Path) -> PathBuf {
    let state = dir.join("state");
    let dedup = builder().open(&state).expect("a state");
    let ids: Vec<[u8; 4]> = (0..IDS).map(u32::to_le_bytes).collect();
    dedup.observe_batch(&ids, &mut Vec::new());
    dedup.close().expect("closed");
    state
}

/// The filter of one new line with the state that is in `dir`, told to wait for it.
fn command(dir: &Path, flags: &[&str]) -> Command {
    write(dir.join("in"), filter::events(["new"]));
    let mut command = dedupd(["--durability", "process", "--lock-timeout", "20s", "--append"]);
    command.args(["-i", "in", "-o", "out", "-s", "state"]).args(flags).current_dir(dir);
    command
}

/// What is seen on the terminal that is the standard error of `command`, which must succeed; `meanwhile` gets its pid.
fn seen(mut command: Command, meanwhile: impl FnOnce(u32)) -> String {
    let (mut ours, theirs) = terminal();
    let mut child = command.stderr(theirs).spawn().expect("the binary starts");
    // Our copy of their end.
    drop(command);
    let reading = std::thread::spawn(move || {
        let mut seen = Vec::new();
        // Ends with an error, when nobody has the other end any more.
        let _ = ours.read_to_end(&mut seen);
        String::from_utf8_lossy(&seen).into_owned()
    });
    meanwhile(child.id());
    let status = filter::wait(&mut child);
    let seen = reading.join().expect("read");
    assert!(status.success(), "{status}: {seen}");
    seen
}

/// Holds the state until process `pid` has waited for it longer than a terminal is left alone.
fn hold_up(held: Deduplicator, pid: u32) {
    eventually("it waits for the state", || {
        let mut open = std::fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
        open.any(|file| std::fs::read_link(file.path()).is_ok_and(|file| file.ends_with("state/LOCK")))
    });
    let since = Instant::now();
    eventually("long enough", || since.elapsed() > Duration::from_millis(500));
    held.close().expect("closed");
}

#[test]
fn a_terminal_shows_how_far_the_reading_of_a_state_has_come() {
    let dir = dir();
    state(dir.path());
    let seen = seen(command(dir.path(), &["--progress"]), |_| {});
    let shown: Vec<usize> = ["0 % (0 ids)", "100 % (1,000,000 ids)"]
        .iter()
        .map(|rest| seen.find(&format!("recovering state: {rest}")).expect(&seen))
        .collect();
    assert!(shown.is_sorted() && seen.matches("recovering").count() > 3, "{seen}");
    // And it is gone before anything else is said.
    let (_, after) = seen.rsplit_once("1,000,000 ids)").expect("shown");
    assert!(after.find(CLEARED).expect("cleared") < after.find("read 1 in").expect("the report"), "{after:?}");
}

#[test]
fn a_terminal_shows_it_unasked_when_it_takes_long_unless_that_is_to_be_quiet() {
    let dir = dir();
    let state = state(dir.path());
    for (flags, shows) in [(&[][..], true), (&["-q"], false)] {
        let held = builder().open(&state).expect("a state");
        let seen = seen(command(dir.path(), flags), |pid| hold_up(held, pid));
        assert_eq!(seen.contains("recovering state: 0 % (0 ids)"), shows, "{flags:?}: {seen}");
        assert_eq!(seen.is_empty(), !shows, "{flags:?}: {seen}");
    }
}

#[test]
fn what_is_no_terminal_is_shown_nothing() {
    let dir = dir();
    state(dir.path());
    let ran = filter::Ran::from(command(dir.path(), &["--progress"]).output().expect("it ends"));
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    assert!(
        ran.err.contains("read 1 in") && !ran.err.contains("recovering") && !ran.err.contains('\x1b'),
        "{}",
        ran.err
    );
}

#[test]
fn after_a_repair_it_starts_again() {
    let dir = dir();
    let state = state(dir.path());
    let segment = state.join("0000000000000004.log");
    let mut bytes = std::fs::read(&segment).expect("a segment");
    bytes[5_000] ^= 1;
    std::fs::write(&segment, bytes).expect("damaged");
    let seen = seen(command(dir.path(), &["--progress", "--on-corrupt", "salvage"]), |_| {});
    assert_eq!(seen.matches("recovering state: 0 % (0 ids)").count(), 2, "{seen}");
    let (_, after) = seen.rsplit_once("recovering state: 100 %").expect(&seen);
    assert!(after.find(CLEARED).expect("cleared") < after.find("warning[").expect("the warning"), "{after:?}");
}

/// What a terminal is sent to clear a line.
const CLEARED: &str = "\x1b[2K";
