//! `dedupd explain`: why a line has the ID and the verdict that it has.
//!
//! Reads lines one after the other, into one set, and says what the filter would have made of them. For people and for
//! bug reports, so it is simple and not fast.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};

use dedupd::decode::{Bad, BadTime, Decoder, ExplainedPart, Explanation, Outcome, TimeSpec, strip_bom};
use dedupd::{Deduplicator, Timestamp};

use crate::args::ExplainArgs;
use crate::config::{Input, Reading, build_plain_set, inputs};
use crate::exit::{Exit, Failure, cause};

pub fn run(args: &ExplainArgs) -> Result<Exit, Failure> {
    let reading = Reading::new(&args.keys)?;
    let dedup = build_plain_set(&args.keys)?;
    let mut explainer = Explainer { decoder: reading.decoder(), dedup, reading, out: io::stdout().lock() };
    for input in inputs(&args.keys) {
        match explainer.input(&input) {
            Err(Stopped::Reading(error)) => {
                return Err(Failure::new(Exit::NoInput, "input", format!("cannot read {input}: {}", cause(&error))));
            }
            Err(Stopped::Writing(error)) if error.kind() != io::ErrorKind::BrokenPipe => {
                return Err(Failure::new(
                    Exit::Io,
                    "output",
                    format!("cannot write standard output: {}", cause(&error)),
                ));
            }
            Err(Stopped::Writing(_)) => break,
            Ok(()) => {}
        }
    }
    Ok(Exit::Done)
}

enum Stopped {
    Reading(io::Error),
    Writing(io::Error),
}

struct Explainer<W> {
    decoder: Decoder,
    dedup: Deduplicator,
    reading: Reading,
    out: W,
}

impl<W: Write> Explainer<W> {
    fn input(&mut self, input: &Input) -> Result<(), Stopped> {
        let mut lines: Box<dyn BufRead> = match input {
            Input::Stdin => Box::new(io::stdin().lock()),
            Input::File(path) => Box::new(BufReader::new(File::open(path).map_err(Stopped::Reading)?)),
        };
        let mut line = Vec::new();
        for number in 1_u64.. {
            line.clear();
            // One byte for the newline, one to see that the line is too long; the first may have a byte order mark.
            let limit = self.reading.line_bytes_max as u64 + if number == 1 { 5 } else { 2 };
            let count = lines.by_ref().take(limit).read_until(b'\n', &mut line).map_err(Stopped::Reading)?;
            if count == 0 {
                break;
            }
            let text = if number == 1 { &line[strip_bom(&line)..] } else { &line[..] };
            let content_bytes = text.len() - usize::from(text.ends_with(b"\n"));
            let said = if content_bytes > self.reading.line_bytes_max {
                if !line.ends_with(b"\n") {
                    lines.skip_until(b'\n').map_err(Stopped::Reading)?;
                }
                format!("line {number}: longer than --max-line\n  verdict      none: too_long\n")
            } else {
                self.explain(number, text)
            };
            self.out.write_all(said.as_bytes()).map_err(Stopped::Writing)?;
        }
        self.out.flush().map_err(Stopped::Writing)
    }

    fn explain(&mut self, number: u64, line: &[u8]) -> String {
        let explanation = self.decoder.explain(line);
        let mut said = format!("line {number}: {} bytes\n", line.len());
        for part in &explanation.parts {
            said += &describe_part(part);
        }
        said + &self.describe_outcome(&explanation)
    }

    fn describe_outcome(&self, explanation: &Explanation) -> String {
        let id = match &explanation.outcome {
            Outcome::Blank => return "  verdict      none: a blank line is passed on and not counted\n".to_owned(),
            Outcome::Bad(bad) => return format!("  verdict      none: {}\n", describe_bad(bad)),
            Outcome::Id(id) => id,
        };
        let (time, explained) = match explanation.time {
            None => (String::new(), self.dedup.explain(id)),
            Some(Err(bad)) => return format!("  verdict      none: malformed, {}\n", describe_bad_time(bad)),
            Some(Ok(time)) => (self.describe_time(time), self.dedup.explain_at(id, time)),
        };
        let verdict = explained.verdict.map_or("none", |verdict| match verdict {
            dedupd::Verdict::FirstSeen => "first-seen",
            dedupd::Verdict::Duplicate => "duplicate",
        });
        format!(
            "{time}  canonical    {} ({} bytes)\n  fingerprint  {} (slot {}, shard {})\n  verdict      {verdict}: {}\n",
            id.escape_ascii(),
            id.len(),
            explained.fingerprint,
            explained.fingerprint.as_u128() >> (128 - SLOT_BITS),
            explained.shard,
            explained.reason
        )
    }

    fn describe_time(&self, time: Timestamp) -> String {
        let unit = self.reading.time.as_ref().map(TimeSpec::unit);
        let unit = unit.map_or_else(String::new, |unit| format!(", read as {unit}"));
        format!("  event time   {} ns since 1970{unit}\n", time.as_nanos())
    }
}

fn describe_part(part: &ExplainedPart) -> String {
    match &part.found {
        Ok(value) => format!(
            "  key {}: {} at byte {}: {}{}\n",
            part.key,
            value.json_type,
            value.offset,
            value.decoded.escape_ascii(),
            if value.path == part.key { String::new() } else { format!(" (by {})", value.path) }
        ),
        Err(bad) => format!("  key {}: {}\n", part.key, describe_bad(bad)),
    }
}

fn describe_bad(bad: &Bad) -> String {
    let reason = dedupd::Reason::from(bad.reason);
    match bad.offset {
        0 => format!("{reason}, {}", bad.what),
        offset => format!("{reason}, {} (at byte {offset})", bad.what),
    }
}

fn describe_bad_time(bad: BadTime) -> String {
    match bad {
        BadTime::Missing => "the event time is missing".to_owned(),
        BadTime::Unreadable { offset, what } => format!("{what} (at byte {offset})"),
        BadTime::Ambiguous { offset } => format!("the event time occurs twice (at byte {offset})"),
    }
}

/// The hash ring has 1,024 slots.
const SLOT_BITS: u32 = 10;
