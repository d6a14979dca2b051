//! A state on file systems of each kind. Goal: what is copied on write, or stands on another file system, is written with
//! `pwrite` and what is known to write in place through a mapping; either way a kill loses nothing, and a full disk is an
//! error and never a signal. Method: mount each kind, look into `/proc/PID/maps` of who has a state open there, and kill
//! it, as `common/kills.rs` says (`DEDUPD_KILLS` says how often); fill it up, in the library and under the filter.
#![cfg(feature = "cli")]

mod common;
mod filter;

use std::fs;
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use common::kills::{Books, child, count, run_and_kill, told};
use common::mounts::{KINDS, Mount};
use common::state::HOUR;
use dedupd::{Deduplicator, Durability, ManualClock, Verdict};
use filter::{Ran, Running, dedupd, dir, events, eventually, write};

const TEST: &str = "what_was_answered_survives_kills_on_each_file_system";
const ROOM: u64 = 400 << 20;
/// As small as XFS may be, about; a filler takes most of it.
const LITTLE_ROOM: u64 = 320 << 20;
const LEVELS: [(&str, Durability); 3] = [
    ("process", Durability::Process),
    ("interval=5ms", Durability::Interval(Duration::from_millis(5))),
    ("power-loss", Durability::PowerLoss),
];

/// The segments among the files that a process has open, and among those that it has mapped.
fn segments(pid: u32) -> [usize; 2] {
    let open = fs::read_dir(format!("/proc/{pid}/fd")).expect("a process of ours").flatten();
    let open = open.filter_map(|file| fs::read_link(file.path()).ok()).filter(|file| is_segment(file)).count();
    let maps = fs::read_to_string(format!("/proc/{pid}/maps")).expect("a process of ours");
    let mapped = maps.lines().filter_map(|line| line.splitn(6, ' ').nth(5)).map(|file| file.trim_start());
    [open, mapped.filter(|file| is_segment(Path::new(file))).count()]
}

fn is_segment(file: &Path) -> bool {
    file.extension().is_some_and(|end| end == "log")
}

#[track_caller]
fn assert_mapped([open, mapped]: [usize; 2], kind: &str, is_mapped: bool) {
    assert!(open > 0, "{kind}: no segment is open");
    assert_eq!(mapped > 0, is_mapped, "{kind}: {mapped} segments are mapped");
}

#[test]
fn what_was_answered_survives_kills_on_each_file_system() {
    if let Some(told) = told() {
        return child(&told);
    }
    let kills = count("DEDUPD_KILLS", 24).div_ceil(8);
    for (kind, is_mapped) in KINDS {
        let Some(mount) = Mount::new(kind, ROOM) else { continue };
        for level in ["process", "interval", "power-loss"] {
            let (dir, mut books) = (mount.root().join(level), Books::default());
            let mut kill = 0;
            while books.want_another(kill, kills) {
                run_and_kill(TEST, &dir, level, &mut books, kill, |pid| assert_mapped(segments(pid), kind, is_mapped));
                books.check(&dir, level, kill);
                kill += 1;
            }
            books.check_that_something_was_tested(&format!("{kind}, {level}"));
        }
    }
}

/// The filter of `input` with its state and its output under `root`.
fn command(input: &Path, root: &Path, durability: &str) -> Command {
    let mut command = dedupd(["-q", "--delivery", "exactly-once", "--durability", durability, "--input"]);
    command.arg(input).arg("--state").arg(root.join("state")).arg("--output").arg(root.join("out"));
    command
}

#[test]
fn a_killed_filter_comes_to_the_same_output_on_each_file_system() {
    let dir = dir();
    let lines = events((0..200_000).map(|n| n / 3 * 2 + n % 2));
    let input = PathBuf::from(write(dir.path().join("in"), lines));
    assert!(command(&input, dir.path(), "process").status().expect("it ends").success());
    let expected = fs::read(dir.path().join("out")).expect("an output");
    for (kind, is_mapped) in KINDS {
        let Some(mount) = Mount::new(kind, ROOM) else { continue };
        for (durability, _) in LEVELS {
            let root = mount.root().join(durability);
            fs::create_dir(&root).expect("a directory");
            for kill in 0..4_u64 {
                // It stays until it is killed.
                let mut child = command(&input, &root, durability).arg("--follow").spawn().expect("the binary starts");
                let wanted = expected.len() as u64 * (kill + 1) / 4;
                eventually("enough is out", || {
                    let out = fs::metadata(root.join("out"));
                    segments(child.id())[0] > 0 && out.is_ok_and(|out| out.len() >= wanted)
                });
                let segments = segments(child.id());
                child.kill().expect("a child of ours");
                child.wait().expect("it ends");
                // Later ones find an output, and may not have come that far.
                if kill == 0 {
                    assert_mapped(segments, kind, is_mapped);
                }
            }
            let ran = Ran::from(command(&input, &root, durability).output().expect("it ends"));
            assert_eq!(ran.code, Some(0), "{kind}, {durability}: {}", ran.err);
            let out = fs::read(root.join("out")).expect("an output");
            assert!(out == expected, "{kind}, {durability}: the outputs differ");
        }
    }
}

/// A file that takes the room that others would need.
struct Filler(PathBuf);

impl Filler {
    /// Leaves about so many bytes.
    fn all_but(bytes: u64, mount: &Mount) -> Self {
        let path = mount.root().join("filler");
        let file = fs::File::create(&path).expect("made");
        let mut length = 0;
        for step in [16 << 20, 1 << 20, 64 << 10, 4 << 10] {
            while allocate(&file, length, step) {
                length += step;
            }
        }
        file.set_len(length.saturating_sub(bytes)).and_then(|()| file.sync_all()).expect("cut");
        Self(path)
    }

    fn remove(self, mount: &Mount) {
        fs::remove_file(&self.0).expect("removed");
        // Only then it is free for others, on some.
        let synced = Command::new("sync").arg("-f").arg(mount.root()).status();
        assert!(synced.is_ok_and(|status| status.success()));
    }
}

/// Takes the space from `from` on; false when there is not enough.
fn allocate(file: &fs::File, from: u64, bytes: u64) -> bool {
    let [from, bytes] = [from, bytes].map(|offset| libc::off64_t::try_from(offset).expect("small"));
    // SAFETY: the descriptor is open for as long as `file` is borrowed; no memory is passed.
    unsafe { libc::fallocate64(file.as_raw_fd(), 0, from, bytes) == 0 }
}

/// A state that is filled up.
struct Full<'a> {
    state: PathBuf,
    clock: ManualClock,
    durability: Durability,
    mount: &'a Mount,
    next: u64,
}

impl<'a> Full<'a> {
    fn new(mount: &'a Mount, durability: Durability) -> Self {
        Self { state: mount.root().join("state"), clock: ManualClock::new(), durability, mount, next: 0 }
    }

    fn open(&self, dir: &Path) -> Deduplicator {
        let builder = Deduplicator::builder().window(HOUR).clock(self.clock.clone()).durability(self.durability);
        // A process that another test starts has the lock until it runs its own program.
        builder.lock_timeout(filter::DEADLINE).open(dir).expect("a state")
    }

    /// Asks about so many new ids, or until one is refused. Returns those that were answered, and whether one was refused.
    fn ask(&mut self, dedup: &Deduplicator, count: u64) -> (Vec<u64>, bool) {
        let (mut answered, mut verdicts, end) = (Vec::new(), Vec::new(), self.next + count);
        while self.next < end {
            let ids: Vec<u64> = (self.next..self.next + 1_000).collect();
            self.next += 1_000;
            dedup.try_observe_batch(&ids.iter().map(|id| id.to_le_bytes()).collect::<Vec<_>>(), &mut verdicts);
            let told = ids.into_iter().zip(&verdicts);
            answered.extend(told.filter(|(_, verdict)| **verdict == Ok(Verdict::FirstSeen)).map(|(id, _)| id));
            if verdicts.iter().any(Result::is_err) {
                return (answered, true);
            }
        }
        (answered, false)
    }

    /// What a kill at this moment would leave knows what was answered. With room again the state goes on, and after its end
    /// the next one knows it too.
    fn assert_kept(&self, dedup: Deduplicator, filler: Filler, answered: &[u64], what: &str) {
        let copy = dir();
        for file in fs::read_dir(&self.state).expect("a directory").flatten() {
            // What has no name of its own yet may be gone again, and is not needed.
            if file.path().extension().is_none_or(|end| end != "tmp") {
                fs::copy(file.path(), copy.path().join(file.file_name())).expect("copied");
            }
        }
        assert_known(&self.open(copy.path()), answered, what);
        filler.remove(self.mount);
        // On others a failed write may be final.
        if !what.starts_with("fuse") {
            goes_on(&dedup, what);
        }
        let is_clean = dedup.close().is_ok();
        let dedup = self.open(&self.state);
        let loss = dedup.recovery().and_then(|found| found.loss.as_ref());
        assert!(!is_clean || loss.is_none(), "{what}: what found no room is taken for a loss: {loss:?}");
        assert_known(&dedup, answered, what);
        assert_eq!(dedup.try_observe("and now"), Ok(Verdict::FirstSeen), "{what}");
    }
}

/// With room again; unless a sync had failed, which is final.
fn goes_on(dedup: &Deduplicator, what: &str) {
    let since = Instant::now();
    while dedup.try_observe("there is room").is_err() {
        let told = dedup.forget("nobody");
        if told.as_ref().is_err_and(|error| error.to_string().contains("cannot sync")) {
            return;
        }
        assert!(since.elapsed() < filter::DEADLINE, "{what}: it does not go on: {told:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn assert_known(dedup: &Deduplicator, answered: &[u64], what: &str) {
    let lost = answered.iter().filter(|id| !dedup.contains(id.to_le_bytes())).count();
    assert_eq!(lost, 0, "{what}: of {} ids that were answered", answered.len());
}

#[test]
fn a_full_disk_is_an_error_that_passes_and_loses_nothing() {
    for (kind, _) in KINDS {
        for (level, durability) in LEVELS {
            let Some(mount) = Mount::new(kind, LITTLE_ROOM) else { break };
            let what = format!("{kind}, {level}");
            let mut full = Full::new(&mount, durability);
            let filler = Filler::all_but(12 << 20, &mount);
            let dedup = full.open(&full.state);
            let (answered, was_refused) = full.ask(&dedup, 20_000_000);
            assert!(was_refused && answered.len() > 100_000, "{what}: {} ids were answered", answered.len());
            full.assert_kept(dedup, filler, &answered, &what);
        }
    }
}

/// Such an open is refused and may be tried again; where that is asked for it succeeds, on file systems of each kind.
#[test]
fn a_state_on_a_full_disk_is_opened_when_there_is_room_or_knows_what_it_knew() {
    for (kind, _) in KINDS {
        let Some(mount) = Mount::new(kind, LITTLE_ROOM) else { continue };
        let mut full = Full::new(&mount, Durability::Process);
        let dedup = full.open(&full.state);
        let (answered, _) = full.ask(&dedup, 1_000);
        dedup.close().expect("closed");
        let filler = Filler::all_but(0, &mount);
        let builder = || Deduplicator::builder().window(HOUR).clock(full.clock.clone()).lock_timeout(filter::DEADLINE);
        let error = match builder().open(&full.state) {
            Err(error) => error,
            // It had a page left that nobody else could have.
            Ok(_) => continue,
        };
        assert!(error.code() == "state_io" && error.is_retryable(), "{kind}: {error}");
        let dedup = builder().open_full(true).open(&full.state).expect("a state");
        assert_known(&dedup, &answered, kind);
        let mut verdicts = Vec::new();
        dedup.try_observe_batch(&["new"], &mut verdicts);
        assert_eq!(verdicts, [Err(dedupd::Unjudged::LogFailed)], "{kind}");
        filler.remove(&mount);
        goes_on(&dedup, kind);
        dedup.close().expect("closed");
        let dedup = full.open(&full.state);
        assert_known(&dedup, &answered, kind);
        assert!(dedup.contains("there is room"), "{kind}");
    }
}

/// Segments that aged out are written again; a file system that copies on write needs new space for that.
#[test]
fn a_disk_that_is_full_when_segments_are_written_again_is_an_error_that_passes_and_loses_nothing() {
    for kind in ["ext4", "btrfs", "overlay", "fuse"] {
        for (level, durability) in LEVELS {
            let Some(mount) = Mount::new(kind, LITTLE_ROOM) else { break };
            let what = format!("{kind}, {level}");
            let mut full = Full::new(&mount, durability);
            let dedup = full.open(&full.state);
            assert_eq!(full.ask(&dedup, 300_000).0.len(), 300_000, "{what}");
            full.clock.advance(2 * HOUR);
            full.ask(&dedup, 1_000);
            let oldest = full.state.join("0000000000000001.log");
            eventually("segments age out", || !oldest.exists());
            let filler = Filler::all_but(1 << 20, &mount);
            let (answered, was_refused) = full.ask(&dedup, 20_000_000);
            assert!(was_refused && answered.len() > 1_000, "{what}: {} ids were answered", answered.len());
            full.assert_kept(dedup, filler, &answered, &what);
        }
    }
}

#[test]
fn a_full_disk_stops_the_filter_or_is_waited_for() {
    let dir = dir();
    let lines = events(0..300_000);
    let input = write(dir.path().join("in"), &lines);
    for (kind, _) in KINDS {
        for (durability, _) in LEVELS {
            for when_full in ["stop", "block"] {
                let Some(mount) = Mount::new(kind, LITTLE_ROOM) else { break };
                let what = format!("{kind}, {durability}, {when_full}");
                let filler = Filler::all_but(6 << 20, &mount);
                let out = dir.path().join(&what);
                let mut command = dedupd(["--when-disk-full", when_full, "--durability", durability, "-i", &input]);
                command.arg("-o").arg(&out).arg("-s").arg(mount.root().join("state"));
                if when_full == "stop" {
                    let ran = Ran::from(command.output().expect("it ends"));
                    assert_eq!(ran.code, Some(74), "{what}: {}", ran.err);
                    filler.remove(&mount);
                    let ran = Ran::from(command.output().expect("it ends"));
                    assert_eq!(ran.code, Some(0), "{what}: {}", ran.err);
                } else {
                    let running = Running::spawn(&mut command);
                    let told = running.err_line();
                    assert!(told.contains("warning[disk_full]"), "{what}: {told}");
                    filler.remove(&mount);
                    let (status, _, err) = running.end();
                    assert_eq!(status.code(), Some(0), "{what}: {err}");
                }
                assert!(fs::read_to_string(&out).expect("an output") == lines, "{what}: the output differs");
            }
        }
    }
}
