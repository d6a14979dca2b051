//! The decide and write role: verdicts, delivery, then the commit. One thread at a time, chunks in input order.

use std::ops::Range;
use std::sync::Arc;

use dedupd::decode::{Bad, BadReason};
use dedupd::{
    Clock, Deduplicator, Fingerprint, Reservation, ReserveVerdict, SinkError, SystemClock, Timestamp, Unjudged,
};

use super::books::Books;
use super::chunk::{Chunk, Kind, Shape};
use super::control::{Control, lock};
use super::fate::{Batch, Fate, Fated, Target};
use super::output::{Output, Outputs};
use super::warn::Warnings;
use crate::config::{Action, Config, Policy};
use crate::exit::{Exit, Failure, cause};

pub struct Writer<'a> {
    config: &'a Config,
    dedup: &'a Deduplicator,
    control: Arc<Control>,
    clock: SystemClock,
    outputs: Outputs,
    books: Books,
    warnings: Warnings,
    /// For each input.
    places: Vec<Place>,
    routes: Routes,
    /// What becomes of the line that is coming in parts.
    long_line: Action,
    /// Its end has not come yet.
    in_long_line: bool,
}

/// Why writing ends.
#[derive(Debug)]
pub enum Stop {
    /// Nobody reads standard output any more.
    ReaderGone,
    Failed(Failure),
}

impl From<Failure> for Stop {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

/// How far the lines of an input have come.
#[derive(Clone, Debug, Default)]
struct Place {
    opening: u64,
    /// Lines of this opening before the present chunk.
    lines_before: u64,
}

/// Where the lines of a chunk go: runs of neighbours, for each target.
#[derive(Default)]
struct Routes {
    output: Vec<Range<usize>>,
    rejects: Vec<Range<usize>>,
    duplicates: Vec<Range<usize>>,
}

impl<'a> Writer<'a> {
    pub fn new(config: &'a Config, dedup: &'a Deduplicator, control: Arc<Control>, outputs: Outputs) -> Self {
        Self {
            config,
            dedup,
            control,
            clock: SystemClock::new(),
            outputs,
            books: Books::default(),
            warnings: Warnings::new(config.log, config.reading.keys.is_line()),
            places: vec![Place::default(); config.inputs.len()],
            routes: Routes::default(),
            long_line: Action::Pass,
            in_long_line: false,
        }
    }

    /// Judges and delivers a chunk; what is not out is not committed.
    pub fn write(&mut self, chunk: &Chunk) -> Result<(), Stop> {
        self.in_long_line &= chunk.shape == Shape::Part { first: false };
        self.reopen_if_asked()?;
        let place = &mut self.places[chunk.input];
        if place.opening != chunk.opening {
            *place = Place { opening: chunk.opening, lines_before: 0 };
        }
        let written = match chunk.shape {
            Shape::Lines => self.write_lines(chunk),
            Shape::Part { first } => self.write_part(chunk, first),
        };
        self.books.newlines_added = self.outputs.newlines_added();
        self.control.publish(&self.books);
        written
    }

    /// Not in the middle of a line: it would be torn across two files.
    pub fn reopen_if_asked(&mut self) -> Result<(), Stop> {
        if !self.in_long_line && self.control.take_reopen() {
            self.outputs.reopen()?;
            self.config.log.info("reopened", "the output files were reopened");
        }
        Ok(())
    }

    /// What is to be said once everything is read.
    pub fn end(&mut self) {
        self.warnings.end(&self.books);
    }

    fn write_lines(&mut self, chunk: &Chunk) -> Result<(), Stop> {
        let failing = self.first_failing(chunk);
        let end = failing.as_ref().map_or(chunk.lines.len(), |(line, _)| *line);
        self.warnings.chunk(chunk, end, &self.books);
        let mut done = Batch { lines: 0..0, ids: 0..0 };
        while done.lines.end < end {
            let batch = self.next_batch(chunk, &done, end);
            self.write_batch(chunk, &batch)?;
            done = batch;
        }
        if let Some((line, bad)) = failing {
            return Err(self.fail(chunk, line, bad).into());
        }
        self.places[chunk.input].lines_before += chunk.lines.len() as u64;
        Ok(())
    }

    /// The first line that ends the run.
    fn first_failing(&self, chunk: &Chunk) -> Option<(usize, Bad)> {
        let fails = |(_, bad): &&(usize, Bad)| self.config.policy.of(bad.reason) == Action::Fail;
        chunk.bad.iter().filter(fails).min_by_key(|(line, _)| *line).copied()
    }

    /// The lines after `last`: all of the chunk, or as many as may be reserved together; in event time those within one
    /// window, so that a repeat within the batch is a duplicate for certain.
    fn next_batch(&self, chunk: &Chunk, last: &Batch, end: usize) -> Batch {
        let (first_line, first_id) = (last.lines.end, last.ids.end);
        let (mut id, mut times) = (first_id, (Timestamp::MAX, Timestamp::MIN));
        let ids_max = self.config.ids_together_max;
        if chunk.timed.is_empty() && chunk.ids.len() - first_id <= ids_max && end == chunk.lines.len() {
            return Batch { lines: first_line..end, ids: first_id..chunk.ids.len() };
        }
        for line in first_line..end {
            if chunk.lines[line].kind != Kind::Id {
                continue;
            }
            if let Some((_, time)) = chunk.timed.get(id) {
                times = (times.0.min(*time), times.1.max(*time));
            }
            let spread = id > first_id && times.1.saturating_since(times.0) >= self.dedup.window();
            if spread || id - first_id >= ids_max {
                return Batch { lines: first_line..line, ids: first_id..id };
            }
            id += 1;
        }
        Batch { lines: first_line..end, ids: first_id..id }
    }

    /// Judges, delivers and commits `batch`. It is asked about once: what the set refuses now is passed on, as asking again
    /// would be about events that are older than those that came after them.
    fn write_batch(&mut self, chunk: &Chunk, batch: &Batch) -> Result<(), Stop> {
        let reserved = self.reserve(chunk, batch);
        let before = self.books.clone();
        self.route(chunk, batch, reserved.as_ref().ok().map_or(&[], Reservation::verdicts));
        if let Err(error) = self.outputs.output.sink.write_lines(chunk.bytes(), &self.routes.output) {
            let verdicts = reserved.as_ref().ok().map_or(&[][..], Reservation::verdicts);
            return Err(self.delivery_failed(chunk, batch, &before, verdicts, error));
        }
        if let Some(rejects) = &mut self.outputs.rejects
            && let Err(error) = rejects.sink.write_lines(chunk.bytes(), &self.routes.rejects)
        {
            let verdicts = reserved.as_ref().ok().map_or(&[][..], Reservation::verdicts);
            let out = lines_out(chunk, batch, verdicts, self.config.policy, Target::Rejects, &error).count();
            self.books.diverted = before.diverted + out as u64;
            return Err(stop(rejects, error));
        }
        if let Some(duplicates) = &mut self.outputs.duplicates {
            let written = duplicates.sink.write_lines(chunk.bytes(), &self.routes.duplicates);
            written.map_err(|error| stop(duplicates, error))?;
        }
        if let Ok(reserved) = reserved {
            let repeats = self.repeats_that_extend(chunk, batch, &reserved);
            reserved.commit().map_err(|error| Failure::new(Exit::Io, error.code(), error.to_string()))?;
            // All of these are duplicates now; asking is what extends their windows.
            if !repeats.is_empty() {
                drop(self.dedup.reserve_fingerprints_at(&repeats));
            }
        }
        Ok(())
    }

    /// Repeats within the batch, when they matter later: in event time they may be younger than what they repeat.
    fn repeats_that_extend(
        &self,
        chunk: &Chunk,
        batch: &Batch,
        reserved: &Reservation,
    ) -> Vec<(Fingerprint, Timestamp)> {
        if !self.config.policy.extends || chunk.timed.is_empty() {
            return Vec::new();
        }
        let asked = chunk.timed[batch.ids.clone()].iter().zip(reserved.verdicts());
        asked.filter(|(_, verdict)| **verdict == ReserveVerdict::InFlight).map(|(event, _)| *event).collect()
    }

    fn reserve(&self, chunk: &Chunk, batch: &Batch) -> Result<Reservation, Unjudged> {
        match chunk.timed.is_empty() {
            true => self.dedup.reserve_fingerprints(&chunk.ids[batch.ids.clone()]),
            false => self.dedup.reserve_fingerprints_at(&chunk.timed[batch.ids.clone()]),
        }
    }

    /// Counts each line and decides where it goes.
    fn route(&mut self, chunk: &Chunk, batch: &Batch, verdicts: &[ReserveVerdict]) {
        self.routes.clear();
        let now = self.clock.now();
        let control = Arc::clone(&self.control);
        let mut ages = lock(&control.ages);
        let policy = self.config.policy;
        for Fated { line, id, bytes, fate } in batch.fates(chunk, verdicts) {
            self.books.count(fate, fate.action(&policy), bytes.len());
            match fate {
                Fate::Blank => {}
                Fate::FirstSeen | Fate::Duplicate => {
                    let (fingerprint, time) = chunk.timed.get(id).copied().unwrap_or_else(|| (chunk.ids[id], now));
                    match fate {
                        Fate::FirstSeen => ages.first_seen(fingerprint, time),
                        _ => ages.repeated(fingerprint, time),
                    }
                }
                Fate::Bad(reason) if self.warnings.is_new(reason.into()) => self.warn_bad(chunk, line, reason),
                Fate::Bad(_) => {}
                Fate::Late => self.warnings.late(policy.late),
                Fate::Refused => self.warnings.refused(),
            }
            self.routes.add(fate.target(&policy), bytes);
        }
    }

    fn write_part(&mut self, chunk: &Chunk, first: bool) -> Result<(), Stop> {
        self.in_long_line = !chunk.bytes().ends_with(b"\n");
        if first {
            let bad = Bad { reason: BadReason::TooLong, offset: 0, what: "the line is longer than --max-line" };
            self.long_line = self.config.policy.bad;
            if self.long_line == Action::Fail {
                return Err(self.fail(chunk, 0, bad).into());
            }
            if self.warnings.is_new(BadReason::TooLong.into()) {
                self.warnings.bad(&self.place(chunk, 0, 0), &bad, self.long_line);
            }
            self.books.count(Fate::Bad(BadReason::TooLong), Some(self.long_line), 0);
            self.places[chunk.input].lines_before += 1;
        }
        self.books.bytes += chunk.bytes().len() as u64;
        let target = match self.long_line {
            Action::Pass => Some(&mut self.outputs.output),
            Action::Divert => self.outputs.rejects.as_mut(),
            Action::Drop | Action::Fail => None,
        };
        let Some(target) = target else { return Ok(()) };
        let begun = if first { target.sink.end_line() } else { Ok(()) };
        let Err(error) = begun.and_then(|()| target.sink.write_part(chunk.bytes())) else { return Ok(()) };
        let stop = stop(target, error);
        // The line was counted when it began; it is not out whole.
        self.books.take_back(self.long_line);
        Err(stop)
    }

    /// Corrects the books for what did not get out, and says why writing ends.
    fn delivery_failed(
        &mut self,
        chunk: &Chunk,
        batch: &Batch,
        before: &Books,
        verdicts: &[ReserveVerdict],
        error: SinkError,
    ) -> Stop {
        let (mut delivered, mut passed) = (before.delivered, before.passed);
        for fate in lines_out(chunk, batch, verdicts, self.config.policy, Target::Output, &error) {
            delivered += u64::from(fate == Fate::FirstSeen);
            passed += u64::from(!matches!(fate, Fate::FirstSeen | Fate::Blank));
        }
        self.books.in_flight += self.books.delivered - delivered;
        (self.books.delivered, self.books.passed, self.books.diverted) = (delivered, passed, before.diverted);
        stop(&self.outputs.output, error)
    }

    fn warn_bad(&mut self, chunk: &Chunk, line: usize, reason: BadReason) {
        let Some((_, bad)) = chunk.bad.iter().find(|(_, bad)| bad.reason == reason) else { return };
        let place = self.place(chunk, line, chunk.range(line).start);
        self.warnings.bad(&place, bad, self.config.policy.of(reason));
    }

    /// The failure that a bad line is under `fail`; the line itself is read and bad, and nothing is done with it.
    fn fail(&mut self, chunk: &Chunk, line: usize, bad: Bad) -> Failure {
        let start = if chunk.lines.is_empty() { 0 } else { chunk.range(line).start };
        self.books.count(Fate::Bad(bad.reason), None, 0);
        let place = self.place(chunk, line, start);
        Failure::new(Exit::BadInput, Warnings::code(&bad), format!("{place}: {}", Warnings::what(&bad)))
    }

    fn place(&self, chunk: &Chunk, line: usize, start: usize) -> String {
        let (input, before) = (&self.config.inputs[chunk.input], self.places[chunk.input].lines_before);
        format!("{input}, line {}, byte {}", before + line as u64 + 1, chunk.offset + start as u64)
    }
}

impl Routes {
    fn clear(&mut self) {
        self.output.clear();
        self.rejects.clear();
        self.duplicates.clear();
    }

    /// Adds a line to its target's runs; to the last one if it follows it.
    #[inline]
    fn add(&mut self, target: Target, line: Range<usize>) {
        let runs = match target {
            Target::Output => &mut self.output,
            Target::Rejects => &mut self.rejects,
            Target::Duplicates => &mut self.duplicates,
            Target::Nowhere => return,
        };
        match runs.last_mut() {
            Some(last) if last.end == line.start => last.end = line.end,
            _ => runs.push(line),
        }
    }
}

/// The fates of those lines for `target` that were out whole when writing failed.
fn lines_out<'c>(
    chunk: &'c Chunk,
    batch: &Batch,
    verdicts: &'c [ReserveVerdict],
    policy: Policy,
    target: Target,
    error: &SinkError,
) -> impl Iterator<Item = Fate> + use<'c> {
    let mut left = match error {
        SinkError::Io { bytes, .. } => *bytes,
        _ => 0,
    };
    let lines = batch.fates(chunk, verdicts).filter(move |line| line.fate.target(&policy) == target);
    lines.map_while(move |line| {
        left = left.checked_sub(line.bytes.len() as u64)?;
        Some(line.fate)
    })
}

fn stop(target: &Output, error: SinkError) -> Stop {
    match error {
        SinkError::Io { source, .. } if target.is_stdout() && source.kind() == std::io::ErrorKind::BrokenPipe => {
            Stop::ReaderGone
        }
        SinkError::Io { source, .. } => {
            Failure::new(Exit::Io, "output", format!("cannot write {} on: {}", target.name(), cause(&source))).into()
        }
        other => Failure::new(Exit::Io, other.code(), format!("{}: {other}", target.name())).into(),
    }
}
