//! A million generated events through the filter, against the answer that the generator knows without parsing.
//!
//! Goal: no first-seen event is lost, no duplicate comes through, no byte changes, the books balance. Method: one
//! generator feeds the filter while another one, with the same seed, says what must come out; nothing is kept.
#![cfg(feature = "cli")]

mod common;
#[path = "../tools/gen/events/mod.rs"]
#[allow(dead_code, reason = "only a part of the generator is used here")]
mod events;

use std::io::{BufRead, BufReader, Read};

use common::filter::{dedupd, feed};
use events::{Answer, Generator, Options};

#[test]
fn a_million_events_come_out_as_the_generator_says() {
    let options = Options { bad: 0.003, unusual: 0.5, ..Options::default() };
    let mut child = dedupd(&["--report", "json"]).spawn().unwrap();
    let fed = options.clone();
    feed(&mut child, move |stdin| {
        let (mut generator, mut line) = (Generator::new(fed), Vec::new());
        for _ in 0..EVENTS {
            line.clear();
            generator.append_line(&mut line);
            stdin.write_all(&line)?;
        }
        Ok(())
    });

    let mut stderr = child.stderr.take().unwrap();
    let stderr = std::thread::spawn(move || {
        let mut text = String::new();
        stderr.read_to_string(&mut text).map(|_| text)
    });
    let books = compare(options, BufReader::with_capacity(1 << 18, child.stdout.take().unwrap()));
    let stderr = stderr.join().unwrap().unwrap();
    let status = child.wait().unwrap();
    assert!(status.success(), "{status}: {stderr}");
    assert_eq!(reported(&stderr), books);
}

/// Reads what the filter writes and compares it with what it must be, line by line; returns the books.
fn compare(options: Options, mut output: impl BufRead) -> Books {
    let mut generator = Generator::new(options);
    let mut books = Books { read: EVENTS, ..Books::default() };
    let (mut expected, mut actual) = (Vec::new(), Vec::new());
    for number in 1..=EVENTS {
        expected.clear();
        match generator.append_line(&mut expected) {
            Answer::Duplicate => {
                books.duplicate += 1;
                continue;
            }
            Answer::FirstSeen => books.first_seen += 1,
            Answer::Bad => books.bad += 1,
        }
        actual.clear();
        output.read_until(b'\n', &mut actual).unwrap();
        assert!(
            actual == expected,
            "input line {number}:\n  actual   {}\n  expected {}",
            String::from_utf8_lossy(&actual),
            String::from_utf8_lossy(&expected)
        );
    }
    assert!(output.fill_buf().unwrap().is_empty(), "there is more output than there are first-seen events");
    books
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Books {
    read: u64,
    first_seen: u64,
    duplicate: u64,
    bad: u64,
}

/// The books in the JSON report, which is the last line of stderr.
fn reported(stderr: &str) -> Books {
    let report: serde_json::Value = serde_json::from_str(stderr.lines().last().unwrap_or_default())
        .unwrap_or_else(|error| panic!("no JSON report: {error}: {stderr}"));
    let count = |name: &str| report[name].as_u64().unwrap_or_else(|| panic!("no `{name}` in {report}"));
    Books { read: count("read"), first_seen: count("first_seen"), duplicate: count("duplicate"), bad: count("bad") }
}

const EVENTS: u64 = 1_000_000;
