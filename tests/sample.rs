//! The sample file of the README. Goal: it is what the generator makes today, and the filter's answer on it is known.
#![cfg(feature = "cli")]

mod common;
#[path = "../tools/gen/events/mod.rs"]
#[allow(dead_code, reason = "only a part of the generator is used here")]
mod events;

use common::filter::{assert_same_lines, dedupd, run};
use events::{Answer, Generator, Options};

#[test]
fn the_sample_is_what_the_generator_makes() {
    let (lines, first_seen) = made();
    let hint = "make it again: cargo run --example gen -- --events 400 > tools/sample/events.ndjson";
    assert!(lines == std::fs::read("tools/sample/events.ndjson").unwrap(), "{hint}");
    assert_eq!(first_seen.split_inclusive(|byte| *byte == b'\n').count(), FIRST_SEEN);
}

#[test]
fn the_first_command_of_the_readme_gives_the_known_answer() {
    let output = run(dedupd(&readme_arguments()), b"");
    let report = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {report}", output.status);
    assert_same_lines(&output.stdout, &made().1);
    assert!(report.contains(&format!("read {LINES} in")), "{report}");
    assert!(report.contains(&format!("{FIRST_SEEN} first-seen, 100 duplicates (25.0 %)")), "{report}");
}

/// What stands between `--` and `>` in the command. A test runs in the package's root, as the command does.
fn readme_arguments() -> Vec<&'static str> {
    let command = include_str!("../README.md").lines().find(|line| line.starts_with("cargo run")).unwrap();
    let (_, arguments) = command.split_once(" -- ").unwrap();
    arguments.split_whitespace().take_while(|argument| *argument != ">").collect()
}

/// The sample, and those of its lines that are first-seen.
fn made() -> (Vec<u8>, Vec<u8>) {
    let mut generator = Generator::new(Options::default());
    let (mut lines, mut first_seen) = (Vec::new(), Vec::new());
    for _ in 0..LINES {
        let start = lines.len();
        if generator.append_line(&mut lines) == Answer::FirstSeen {
            first_seen.extend_from_slice(&lines[start..]);
        }
    }
    (lines, first_seen)
}

const LINES: usize = 400;
const FIRST_SEEN: usize = 300;
