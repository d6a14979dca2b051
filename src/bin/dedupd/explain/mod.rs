//! `dedupd explain`: why a line has the ID and the verdict that it has.
//!
//! Reads lines one after the other, into one set, and says what the filter would have made of them. With a state it says
//! instead what that knows of each line by itself, as it is now. For people and for bug reports, so it is simple and not
//! fast.

mod past;

use std::io::{self, Write};

use dedupd::decode::{Bad, BadTime, Decoder, ExplainedPart, Explanation, Outcome, TimeSpec};
use dedupd::{Deduplicator, Timestamp};

use crate::args::ExplainArgs;
use crate::config::{Reading, build_plain_set, inputs};
use crate::exit::{Exit, Failure};
use crate::lines::{Line, Lines};
use crate::{state, stdout_failure};
use past::{Past, Question};

pub fn run(args: &ExplainArgs) -> Result<Exit, Failure> {
    let reading = Reading::new(&args.keys)?;
    let secret = args.state.as_ref().map(|dir| state::secret(dir, &args.keys.ids, &reading)).transpose()?;
    if let Some(dir) = &args.state {
        state::check_time(dir, args.keys.time_field.is_some())?;
        state::check_digests(dir, &reading)?;
    }
    let dedup = build_plain_set(&args.keys, secret)?;
    let past = args.state.as_ref().map(|dir| Past::new(dir.clone(), &args.keys, &dedup));
    let (decoder, out) = (reading.decoder(), io::stdout().lock());
    let mut explainer = Explainer { decoder, dedup, past, reading, out, waiting: Vec::new(), waiting_bytes: 0 };
    let explained = inputs(&args.keys.lines).iter().try_for_each(|input| {
        let mut lines = Lines::open(input, explainer.reading.line_bytes_max)?;
        while let Some((number, line)) = lines.next()? {
            explainer.line(number, line)?;
        }
        Ok(())
    });
    // What came before a line that cannot be read is told, too.
    let told = explainer.tell();
    match explained.and(told) {
        Err(Stopped::Failed(failure)) => Err(failure),
        // A reader that has seen enough is no failure.
        Err(Stopped::Unread) | Ok(()) => Ok(Exit::Done),
    }
}

enum Stopped {
    Failed(Failure),
    /// The reader of standard output went away.
    Unread,
}

struct Explainer<W> {
    decoder: Decoder,
    dedup: Deduplicator,
    past: Option<Past>,
    reading: Reading,
    out: W,
    /// What is to be told, and what the state must be asked before: it is read once for many lines.
    waiting: Vec<(String, Option<Question>)>,
    waiting_bytes: usize,
}

impl<W: Write> Explainer<W> {
    fn line(&mut self, number: u64, line: Line<'_>) -> Result<(), Stopped> {
        let (said, question) = match line {
            Line::TooLong => (format!("line {number}: longer than --max-line\n  verdict      none: too_long\n"), None),
            Line::Text(text) => self.explain(number, text),
        };
        self.waiting_bytes += said.len();
        self.waiting.push((said, question));
        let is_full = self.waiting.len() == WAITING_MAX || self.waiting_bytes >= WAITING_BYTES_MAX;
        if self.past.is_none() || is_full { self.tell() } else { Ok(()) }
    }

    /// Tells what waits.
    fn tell(&mut self) -> Result<(), Stopped> {
        if let Some(past) = &mut self.past {
            let asked = self.waiting.iter().filter_map(|(_, question)| *question);
            past.look_up(asked.flat_map(|question| [question.fingerprint].into_iter().chain(question.digest)))
                .map_err(|error| state::failure(&error))?;
        }
        self.waiting_bytes = 0;
        for (said, question) in self.waiting.drain(..) {
            self.out.write_all(said.as_bytes())?;
            if let (Some(past), Some(question)) = (&self.past, question) {
                writeln!(self.out, "  verdict      {}", past.judge(question))?;
            }
        }
        Ok(self.out.flush()?)
    }

    fn explain(&mut self, number: u64, line: &[u8]) -> (String, Option<Question>) {
        let explanation = self.decoder.explain(line);
        let mut said = format!("line {number}: {} bytes\n", line.len());
        for part in &explanation.parts {
            said += &describe_part(part);
        }
        let (outcome, question) = self.describe_outcome(line, &explanation);
        (said + &outcome, question)
    }

    fn describe_outcome(&self, line: &[u8], explanation: &Explanation) -> (String, Option<Question>) {
        let none = |why: &str| (format!("  verdict      none: {why}\n"), None);
        let id = match &explanation.outcome {
            Outcome::Blank => return none("a blank line is passed on and not counted"),
            Outcome::Bad(bad) => return none(&describe_bad(bad)),
            Outcome::Id(id) => id,
        };
        let time = match explanation.time.transpose() {
            Err(bad) => return none(&format!("malformed, {}", describe_bad_time(bad))),
            Ok(time) => time,
        };
        let said = time.map_or_else(String::new, |time| self.describe_time(time));
        let said = format!("{said}  canonical    {} ({} bytes)\n", id.escape_ascii(), id.len());
        let fingerprint = self.dedup.fingerprint(id);
        let slot = fingerprint.as_u128() >> (128 - SLOT_BITS);
        let mut buffer = Vec::new();
        let payload = self.reading.payload.as_ref().map_or(&[][..], |spec| spec.payload(line, &mut buffer));
        let digest = self.reading.payload.as_ref().map(|_| self.dedup.digest(fingerprint, payload));
        let digested =
            digest.map_or_else(String::new, |digest| format!("  digest       {digest} (of {} bytes)\n", payload.len()));
        if self.past.is_some() {
            let digest = digest.map(dedupd::Digest::as_fingerprint);
            return (
                format!("{said}  fingerprint  {fingerprint} (slot {slot})\n{digested}"),
                Some(Question { fingerprint, digest, time }),
            );
        }
        let explained = match time {
            None => self.dedup.explain_payload(id, payload),
            Some(time) => self.dedup.explain_payload_at(id, payload, time),
        };
        let verdict = explained.verdict.map_or("none", |verdict| match verdict {
            dedupd::Verdict::FirstSeen => "first-seen",
            dedupd::Verdict::Duplicate => "duplicate",
        });
        let (shard, reason) = (explained.shard, explained.reason);
        let judged = format!("(slot {slot}, shard {shard})\n{digested}  verdict      {verdict}: {reason}\n");
        (format!("{said}  fingerprint  {fingerprint} {judged}"), None)
    }

    fn describe_time(&self, time: Timestamp) -> String {
        let unit = self.reading.time.as_ref().map(TimeSpec::unit);
        let unit = unit.map_or_else(String::new, |unit| format!(", read as {unit}"));
        format!("  event time   {} ns since 1970{unit}\n", time.as_nanos())
    }
}

impl From<Failure> for Stopped {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

impl From<io::Error> for Stopped {
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe { Self::Unread } else { stdout_failure(&error).into() }
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
/// Lines that wait until the state is read, at most, and bytes that are said of them.
const WAITING_MAX: usize = 1 << 16;
const WAITING_BYTES_MAX: usize = 1 << 26;
