//! Goal: after `kill -9` at any time, the same command again comes to the outputs of a run that nobody killed, byte
//! for byte; and from a pipe no line is lost, and none comes twice but those in flight. Method: kill a real filter at
//! random moments, many times (`DEDUPD_KILLS` says how many for each test, `DEDUPD_SEED` which moments), then let it
//! end and compare.

mod filter;

use std::collections::HashMap;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use filter::{dedupd, dir, files_in, outputs_in};

/// A small generator, so that a failure can be repeated.
struct Random(u64);

impl Random {
    fn new(salt: u64) -> Self {
        let seed = std::env::var("DEDUPD_SEED").ok().and_then(|seed| seed.parse().ok());
        let seed = seed.unwrap_or_else(|| u64::from(std::process::id()));
        eprintln!("DEDUPD_SEED={seed}");
        Self(seed ^ (salt << 32))
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        ((mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB) >> 33) % limit
    }
}

fn kills() -> u64 {
    std::env::var("DEDUPD_KILLS").ok().and_then(|kills| kills.parse().ok()).unwrap_or(24)
}

/// Events with repeats, bad lines, blank ones, long ones, and no newline at the end.
fn mixed_lines(random: &mut Random, lines: u64) -> String {
    let mut text = String::new();
    for n in 0..lines {
        match random.below(100) {
            0 => text += "not json at all\n",
            1 => text += " \t\n",
            2 if n % 7 == 0 => text += &format!("{{\"id\":\"long {n}\",\"pad\":\"{}\"}}\n", "x".repeat(3_000)),
            3..30 => text += &format!("{{\"id\":{},\"again\":{n}}}\n", random.below(n + 1)),
            _ => text += &format!("{{\"id\":{n},\"pad\":\"{}\"}}\n", "y".repeat(random.below(200) as usize)),
        }
    }
    text + "{\"id\":\"last\"}"
}

/// A command in a directory of its own: inputs `in1` and `in2`, outputs beside them.
struct Files {
    dir: PathBuf,
    level: &'static str,
    threads: &'static str,
}

impl Files {
    fn new(dir: &Path, inputs: &[String; 2], level: &'static str, threads: &'static str) -> Self {
        std::fs::create_dir_all(dir).expect("a directory");
        for (name, text) in ["in1", "in2"].iter().zip(inputs) {
            std::fs::write(dir.join(name), text).expect("written");
        }
        Self { dir: dir.to_owned(), level, threads }
    }

    fn command(&self) -> Command {
        let mut command = dedupd(["-q", "--max-line", "1000", "--on-bad", "divert", "--delivery", "exactly-once"]);
        command.args(["--durability", self.level, "--threads", self.threads]);
        for input in ["in1", "in2"] {
            command.arg("--input").arg(self.dir.join(input));
        }
        command.args(files_in(&self.dir)).stdout(Stdio::null());
        command
    }

    /// Starts it and kills it after a while; false when it had ended before.
    fn kill_after(&self, delay: Duration) -> bool {
        let mut child = self.command().stderr(Stdio::piped()).spawn().expect("the binary starts");
        std::thread::sleep(delay);
        child.kill().expect("a child of ours");
        let ended = child.wait_with_output().expect("it ends");
        match ended.status.code() {
            None => true,
            Some(0 | 1) => false,
            Some(code) => panic!("exit {code}: {}", String::from_utf8_lossy(&ended.stderr)),
        }
    }

    fn finish(&self) {
        let ended = self.command().stderr(Stdio::piped()).output().expect("it ends");
        let code = ended.status.code();
        assert!(matches!(code, Some(0 | 1)), "{code:?}: {}", String::from_utf8_lossy(&ended.stderr));
    }
}

fn kill_files(level: &'static str, salt: u64) {
    let mut random = Random::new(salt);
    let dir = dir();
    let mut killed = 0;
    for round in 0.. {
        let inputs = [mixed_lines(&mut random, 15_000), mixed_lines(&mut random, 15_000)];
        let threads = ["1", "2", "4"][random.below(3) as usize];
        let whole = Files::new(&dir.path().join(format!("whole {round}")), &inputs, level, threads);
        whole.finish();
        let expected = outputs_in(&whole.dir);
        let files = Files::new(&dir.path().join(format!("killed {round}")), &inputs, level, threads);
        // Some runs live long enough to commit, whatever the level; and a slow machine comes to an end, too.
        let enough = killed + kills().div_ceil(2);
        let longest_us = if level == "interval=50ms" { 120_000 } else { 40_000 };
        while killed < enough && files.kill_after(Duration::from_micros(random.below(longest_us))) {
            killed += 1;
        }
        files.finish();
        assert!(outputs_in(&files.dir) == expected, "level {level}, round {round}: the outputs differ, {}", kept(dir));
        if killed >= kills() {
            return;
        }
    }
}

/// Keeps the directory for whoever looks into a failure.
fn kept(dir: tempfile::TempDir) -> String {
    format!("see {}", dir.keep().display())
}

#[test]
fn files_come_out_as_if_nobody_had_killed_it_with_process() {
    kill_files("process", 1);
}

#[test]
fn files_come_out_as_if_nobody_had_killed_it_with_interval() {
    kill_files("interval=50ms", 2);
}

#[test]
fn files_come_out_as_if_nobody_had_killed_it_with_a_short_interval() {
    kill_files("interval=2ms", 3);
}

#[test]
fn files_come_out_as_if_nobody_had_killed_it_with_power_loss() {
    kill_files("power-loss", 4);
}

#[test]
fn a_followed_file_that_is_rotated_comes_out_whole() {
    let mut random = Random::new(10);
    let dir = dir();
    let path = |name: &str| dir.path().join(name);
    let start = || {
        let mut command = dedupd(["-q", "--follow", "--delivery", "exactly-once", "--durability", "interval=3ms"]);
        command.arg("--state").arg(path("state")).arg("--input").arg(path("in")).arg("--output").arg(path("out"));
        command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("the binary starts")
    };
    let (mut expected, mut child, mut id) = (String::new(), start(), 0);
    for kill in 0..kills() {
        // A file that came and went while nobody looked cannot be known, so the present one was seen before it goes.
        filter::eventually("it has caught up", || {
            if child.try_wait().expect("a child of ours").is_some() {
                let mut err = String::new();
                child.stderr.take().expect("piped").read_to_string(&mut err).expect("read");
                panic!("it has ended: {err}");
            }
            std::fs::read(path("out")).is_ok_and(|out| out == expected.as_bytes())
        });
        let mut file = std::fs::File::options().append(true).create(true).open(path("in")).expect("open");
        for part in 0..4 {
            let lines: String = (0..random.below(200)).map(|n| format!("{{\"id\":{}}}\n", id + n)).collect();
            id += lines.lines().count() as u64;
            expected += &lines;
            file.write_all(lines.as_bytes()).expect("written");
            if part == random.below(4) {
                child.kill().expect("a child of ours");
                child.wait().expect("it ends");
                child = start();
            }
            if part == 2 && kill % 2 == 1 {
                std::fs::rename(path("in"), path(&format!("in.{kill}"))).expect("moved");
            }
        }
        if kill % 2 == 1 {
            // Something has to be in the new file before the old one has ended.
            let line = format!("{{\"id\":\"new {kill}\"}}\n");
            expected += &line;
            std::fs::write(path("in"), line).expect("written");
        }
    }
    filter::eventually("it has caught up", || std::fs::read(path("out")).is_ok_and(|out| out == expected.as_bytes()));
    child.kill().expect("a child of ours");
    child.wait().expect("it ends");
}

/// What a producer does that sends again what it does not know to be out: everything.
fn kill_pipe(level: &'static str, delivery: &'static str, to_file: bool, salt: u64) {
    let mut random = Random::new(salt);
    let dir = dir();
    let (state, out) = (dir.path().join("state"), dir.path().join("out"));
    let ids = 20_000;
    let lines: String = (0..ids).map(|id| format!("{{\"id\":{id},\"pad\":\"{}\"}}\n", "z".repeat(50))).collect();
    let mut killed = 0;
    let run = |delay: Option<Duration>| {
        let mut command = dedupd(["-q", "--durability", level, "--delivery", delivery, "--state"]);
        command.arg(&state).stdin(Stdio::piped()).stderr(Stdio::piped());
        if to_file {
            command.arg("--output").arg(&out);
        }
        let mut child = command.spawn().expect("the binary starts");
        let mut stdin = child.stdin.take().expect("piped");
        let mut stdout = child.stdout.take().expect("piped");
        let lines = lines.clone();
        let writing = std::thread::spawn(move || drop(stdin.write_all(lines.as_bytes())));
        let copy = out.clone();
        let reading = std::thread::spawn(move || {
            // A consumer that outlives the filter.
            let mut copy = std::fs::File::options().append(true).create(true).open(copy).expect("open");
            std::io::copy(&mut stdout, &mut copy).expect("read");
        });
        if let Some(delay) = delay {
            std::thread::sleep(delay);
            child.kill().expect("a child of ours");
        }
        let ended = child.wait_with_output().expect("it ends");
        writing.join().expect("written");
        reading.join().expect("read");
        match ended.status.code() {
            None => true,
            Some(0) => false,
            Some(code) => panic!("exit {code}: {}", String::from_utf8_lossy(&ended.stderr)),
        }
    };
    for _ in 0..kills() {
        killed += usize::from(run(Some(Duration::from_micros(random.below(30_000)))));
    }
    assert!(!run(None));
    audit(&out, ids, killed, to_file, delivery);
}

/// How many lines there are of each ID, and how many that are not whole.
fn audit_counts(out: &Path) -> HashMap<u64, usize> {
    let text = std::fs::read_to_string(out).expect("an output");
    let mut counts = HashMap::new();
    for line in text.split_inclusive('\n') {
        let event = serde_json::from_str::<serde_json::Value>(line).ok().filter(|_| line.ends_with('\n'));
        let id = event.map_or(TORN, |event| event["id"].as_u64().expect("an ID"));
        *counts.entry(id).or_default() += 1;
    }
    counts
}

/// Of what is no whole line.
const TORN: u64 = u64::MAX;

/// Every line at least once, or at most; not twice when the output is a file of the filter's own, and few otherwise.
fn audit(out: &Path, ids: u64, killed: usize, to_file: bool, delivery: &str) {
    let mut counts = audit_counts(out);
    let torn = counts.remove(&TORN).unwrap_or(0);
    let missing: Vec<u64> = (0..ids).filter(|id| !counts.contains_key(id)).collect();
    let twice = counts.values().filter(|count| **count > 1).count();
    eprintln!("{killed} kills: {twice} lines came twice, {torn} were torn, {} are lost", missing.len());
    let in_flight_max = killed * (256 << 10) / 60;
    if delivery == "at-most-once" {
        assert_eq!(twice, 0, "lines that came twice");
        assert!(missing.len() <= in_flight_max, "more lines are lost than were in flight");
        return;
    }
    assert!(missing.is_empty(), "{} lines are lost, the first is {}", missing.len(), missing[0]);
    match to_file {
        true => assert_eq!((twice, torn), (0, 0), "lines that came twice, lines that were torn"),
        false => assert!(twice <= in_flight_max, "more lines came twice than were in flight"),
    }
}

#[test]
fn from_a_pipe_to_a_file_every_line_comes_once() {
    kill_pipe("process", "at-least-once", true, 5);
    kill_pipe("interval=50ms", "at-least-once", true, 6);
    kill_pipe("power-loss", "at-least-once", true, 7);
}

#[test]
fn from_a_pipe_to_a_pipe_no_line_is_lost() {
    kill_pipe("process", "at-least-once", false, 8);
    kill_pipe("interval=50ms", "at-least-once", false, 9);
}

#[test]
fn from_files_to_standard_output_that_is_a_file_no_line_is_lost() {
    let mut random = Random::new(13);
    let dir = dir();
    let [state, input, out] = ["state", "in", "out"].map(|name| dir.path().join(name));
    let ids = 100_000;
    let lines: String = (0..ids).map(|id| format!("{{\"id\":{id}}}\n")).collect();
    std::fs::write(&input, lines).expect("written");
    let start = || {
        let appended = std::fs::File::options().append(true).create(true).open(&out).expect("open");
        let mut command = dedupd(["-q", "--durability", "interval=2ms", "--state"]);
        command.arg(&state).arg("--input").arg(&input).stdout(appended).spawn().expect("the binary starts")
    };
    let mut killed = 0;
    for _ in 0..kills() {
        let mut child = start();
        std::thread::sleep(Duration::from_micros(random.below(30_000)));
        child.kill().expect("a child of ours");
        killed += usize::from(!child.wait().expect("it ends").success());
    }
    assert!(start().wait().expect("it ends").success());
    let counts = audit_counts(&out);
    assert!((0..ids).all(|id| counts.contains_key(&id)), "lines are lost after {killed} kills");
}

#[test]
fn at_most_once_delivers_no_line_twice() {
    kill_pipe("process", "at-most-once", false, 11);
    kill_pipe("interval=50ms", "at-most-once", true, 12);
}
