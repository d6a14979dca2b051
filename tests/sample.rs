//! The sample file of the README. Goal: it is what the generator makes today, so nobody edits it by hand.

#[path = "../tools/gen/events/mod.rs"]
#[allow(dead_code, reason = "only a part of the generator is used here")]
mod events;

use std::path::Path;

use events::{Answer, Generator, Options};

#[test]
fn the_sample_is_what_the_generator_makes() {
    let sample = std::fs::read(sample()).unwrap();
    let (lines, answers) = made();
    assert!(
        lines == sample,
        "make it again: cargo run --example gen -- --events {SAMPLE_LINES} > tools/sample/events.ndjson"
    );
    assert_eq!(answers.iter().filter(|answer| **answer == Answer::FirstSeen).count(), SAMPLE_FIRST_SEEN);
}

fn made() -> (Vec<u8>, Vec<Answer>) {
    let mut generator = Generator::new(Options::default());
    let mut lines = Vec::new();
    let answers = (0..SAMPLE_LINES).map(|_| generator.append_line(&mut lines)).collect();
    (lines, answers)
}

fn sample() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tools/sample/events.ndjson")
}

const SAMPLE_LINES: usize = 400;
const SAMPLE_FIRST_SEEN: usize = 300;
