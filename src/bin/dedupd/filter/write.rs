//! The decide and write role: verdicts, delivery, then the commit. One thread at a time, chunks in input order.

use std::sync::Arc;

use dedupd::decode::{Bad, BadReason};
use dedupd::pipeline::{CommitAt, Delivery, Ids};
use dedupd::sink::WriteError;
use dedupd::{Clock, Deduplicator, Progress, Reason, Reservation, ReserveVerdict, SystemClock, Unjudged};

use super::books::Books;
use super::chunk::{Chunk, Kind, Shape};
use super::commit::{Commits, Unfinished, what_becomes_of_uncommitted};
use super::control::{Control, lock};
use super::fate::{Batch, Fate, Fated, Target};
use super::output::{Output, Outputs};
use super::place::Place;
use super::room::Room;
use super::routes::{Routes, lines_out};
use super::stop::Stop;
use super::warn::Warnings;
use crate::config::{Action, Config};
use crate::exit::{Exit, Failure};
use crate::log::About;
use crate::state_dir;

pub struct Writer<'a> {
    config: &'a Config,
    dedup: &'a Deduplicator,
    control: Arc<Control>,
    clock: SystemClock,
    outputs: Outputs,
    commits: Commits,
    /// Each commit says how far inputs and outputs are.
    keeps_positions: bool,
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

impl<'a> Writer<'a> {
    /// `ids_bypassed` could not be recorded at the start.
    pub fn new(
        config: &'a Config,
        dedup: &'a Deduplicator,
        control: Arc<Control>,
        outputs: Outputs,
        room: Room,
        ids_bypassed: u64,
    ) -> Self {
        let mut commits = Commits::new(dedup, commit_at(config, &outputs), config, room, &outputs);
        commits.bypassed = ids_bypassed;
        Self {
            config,
            dedup,
            control,
            clock: SystemClock::new(),
            commits,
            keeps_positions: config.delivery == Delivery::ExactlyOnce || outputs.output.track.is_some(),
            outputs,
            books: Books::default(),
            warnings: Warnings::new(config.log, config.reading.keys.is_line()),
            places: config.inputs.iter().map(|_| Place::default()).collect(),
            routes: Routes::default(),
            long_line: Action::Pass,
            in_long_line: false,
        }
    }

    /// Judges and delivers a chunk; what is not out is not committed.
    pub fn write(&mut self, chunk: &Chunk) -> Result<(), Stop> {
        self.in_long_line &= chunk.shape == Shape::Part { first: false };
        self.reopen_if_asked()?;
        if self.places[chunk.input].enter(chunk) && self.config.follow {
            self.record_opening(chunk)?;
        }
        let written = match chunk.shape {
            Shape::Lines => self.write_lines(chunk),
            Shape::Part { first } => self.write_part(chunk, first),
        };
        self.publish();
        written
    }

    /// Records that a followed file was begun, before anything of it is out: should the process die before the first
    /// commit, and the file be renamed before the next start, it is known to be ours.
    fn record_opening(&mut self, chunk: &Chunk) -> Result<(), Failure> {
        let mut progress = Progress::new();
        self.places[chunk.input].advance(&[], chunk.offset, 0, &mut progress);
        // What the input was before has to be known as read to its end: it is not looked for once this one is known.
        self.commits.flush(&mut self.outputs)?;
        self.commits.record(&progress, &self.outputs)
    }

    /// Not in the middle of a line: it would be torn across two files.
    pub fn reopen_if_asked(&mut self) -> Result<(), Stop> {
        if !self.in_long_line && self.control.take_reopen() {
            self.commits.flush(&mut self.outputs)?;
            self.outputs.reopen(&mut self.commits.room)?;
            self.record_positions()?;
            self.config.log.info("reopened", "the output files were reopened");
        }
        Ok(())
    }

    /// Commits all that is out, and says what is to be said once everything is read.
    pub fn end(&mut self) -> Result<(), Failure> {
        let flushed = self.commits.flush(&mut self.outputs);
        let committed = flushed.and_then(|()| match self.keeps_positions {
            true => Ok(()),
            false => self.record_positions(),
        });
        let committed = committed.and_then(|()| self.check_outputs());
        match self.config.state {
            // It has what cannot be recorded counted.
            Some(state) if state.passes_on_failure => drop(self.dedup.position()),
            Some(_) if committed.is_ok() => self.commits.room.record_gathered(self.dedup),
            _ => {}
        }
        self.warnings.end(&self.books);
        self.publish();
        committed
    }

    /// Records where the outputs are, when no batch is under way. Positions that stand in each commit are recorded there
    /// alone while lines are written: after a batch that failed the outputs hold what is not committed.
    fn record_positions(&mut self) -> Result<(), Failure> {
        let mut progress = Progress::new();
        if !self.in_long_line {
            self.outputs.positions(&mut progress)?;
        }
        if progress.is_empty() {
            return Ok(());
        }
        self.outputs.sync()?;
        self.commits.record(&progress, &self.outputs)
    }

    fn publish(&mut self) {
        self.books.newlines_added = self.outputs.newlines_added();
        self.books.bypassed = self.commits.bypassed;
        self.control.publish(&self.books);
    }

    /// Commits what has been synced.
    pub fn finish_commit(&mut self, commit: &Unfinished) -> Result<(), Stop> {
        commit.finish(&mut self.outputs, &mut self.commits, &self.control.alarm)?;
        self.publish();
        Ok(())
    }

    /// Whether the outputs still hold what was written to them.
    pub fn check_outputs(&self) -> Result<(), Failure> {
        self.outputs.check()
    }

    /// What is to be synced before all that is out now can be committed.
    pub fn begin_commit(&mut self) -> Unfinished {
        Unfinished::new(&self.outputs, &mut self.commits)
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

    /// The lines after `last`: all of the chunk, or as many as may be reserved together.
    fn next_batch(&self, chunk: &Chunk, last: &Batch, end: usize) -> Batch {
        let (first_line, first_id) = (last.lines.end, last.ids.end);
        let rest = chunk.ids_at(first_id..chunk.ids_count());
        let together = self.commits.stage.together(rest);
        if together == rest.len() && end == chunk.lines.len() {
            return Batch { lines: first_line..end, ids: first_id..chunk.ids_count() };
        }
        let mut id = first_id;
        for line in (first_line..end).filter(|line| chunk.lines[*line].kind == Kind::Id) {
            if id - first_id == together {
                return Batch { lines: first_line..line, ids: first_id..id };
            }
            id += 1;
        }
        Batch { lines: first_line..end, ids: first_id..id }
    }

    /// Judges, delivers and commits `batch`. It is asked about once: what the set refuses now is passed on, as asking
    /// again would be about events that are older than those that came after them.
    fn write_batch(&mut self, chunk: &Chunk, batch: &Batch) -> Result<(), Stop> {
        let ids = chunk.ids_at(batch.ids.clone());
        self.commits.make_room(ids, &mut self.outputs)?;
        let mut reserved = match self.commits.stage.reserve(ids) {
            Err(Unjudged::LogFailed) => return Err(self.log_failed().into()),
            reserved => reserved.ok(),
        };
        if let Some(reserved) = &mut reserved {
            self.commits.commit_ahead(reserved, &self.outputs)?;
        }
        self.deliver(chunk, batch, reserved.as_ref().map_or(&[], Reservation::verdicts))?;
        let progress = self.progress_behind(chunk, batch)?;
        self.commits.take(reserved, ids, progress, &mut self.outputs, &self.control.alarm)?;
        Ok(())
    }

    /// Why the state cannot be kept any more, in the words of the one who found out.
    fn log_failed(&self) -> Failure {
        let mut failure = match self.dedup.sync() {
            Err(error) => state_dir::failure(&error),
            Ok(()) => {
                let what = "the state cannot be kept any more: start again to see what is on disk";
                Failure::new(Exit::Io, "log_failed", what)
            }
        };
        failure.message += what_becomes_of_uncommitted(self.config, &self.outputs);
        failure
    }

    /// Counts each line and writes it where it goes.
    fn deliver(&mut self, chunk: &Chunk, batch: &Batch, verdicts: &[ReserveVerdict]) -> Result<(), Stop> {
        let before = self.books.clone();
        self.route(chunk, batch, verdicts);
        let bytes = chunk.bytes();
        let written = self.outputs.output.write_lines(bytes, &self.routes.output, &mut self.commits.room);
        let written = written.map_err(|error| self.delivery_failed(chunk, batch, &before, verdicts, error));
        lock(&self.control.latencies).out(chunk.arrived, self.books.delivered - before.delivered);
        written?;
        let room = &mut self.commits.room;
        if let Some(rejects) = &mut self.outputs.rejects
            && let Err(error) = rejects.write_lines(bytes, &self.routes.rejects, room)
        {
            let out = lines_out(chunk, batch, verdicts, self.config.policy, Target::Rejects, &error).count();
            self.books.diverted = before.diverted + out as u64;
            return Err(Stop::by(rejects, error));
        }
        if let Some(duplicates) = &mut self.outputs.duplicates {
            let written = duplicates.write_lines(bytes, &self.routes.duplicates, room);
            written.map_err(|error| Stop::by(duplicates, error))?;
        }
        Ok(())
    }

    /// Where outputs and the input stand behind `batch`.
    fn progress_behind(&mut self, chunk: &Chunk, batch: &Batch) -> Result<Progress, Failure> {
        let mut progress = Progress::new();
        if self.keeps_positions && !batch.lines.is_empty() {
            self.outputs.positions(&mut progress)?;
            let bytes = chunk.range(batch.lines.start).start..chunk.range(batch.lines.end - 1).end;
            let offset = chunk.offset + bytes.end as u64;
            let place = &mut self.places[chunk.input];
            place.advance(&chunk.bytes()[bytes], offset, batch.lines.end as u64, &mut progress);
        }
        Ok(progress)
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
                Fate::FirstSeen | Fate::Duplicate | Fate::Conflict => {
                    if fate == Fate::Conflict && self.warnings.is_new(Reason::Conflict) {
                        self.warnings.conflict(&self.about(chunk, line), fate.action(&policy));
                    }
                    let (fingerprint, time) = chunk.timed.get(id).copied().unwrap_or_else(|| (chunk.ids[id], now));
                    match fate {
                        Fate::FirstSeen => ages.first_seen(fingerprint, time),
                        _ => ages.repeated(fingerprint, time),
                    }
                }
                Fate::Bad(reason) if self.warnings.is_new(reason.into()) => self.warn_bad(chunk, line, reason),
                Fate::Late if self.warnings.is_new(Reason::Late) => {
                    self.warnings.late(&self.about(chunk, line), policy.late);
                }
                Fate::Bad(_) | Fate::Late => {}
                Fate::Refused => self.warnings.refused(),
            }
            self.routes.add(fate.target(&policy), bytes);
        }
    }

    fn write_part(&mut self, chunk: &Chunk, first: bool) -> Result<(), Stop> {
        self.in_long_line = !chunk.bytes().ends_with(b"\n") && !chunk.is_last;
        if first {
            let bad = Bad { reason: BadReason::TooLong, offset: 0, what: "the line is longer than --max-line" };
            self.long_line = self.config.policy.bad;
            if self.long_line == Action::Fail {
                return Err(self.fail(chunk, 0, bad).into());
            }
            if self.warnings.is_new(BadReason::TooLong.into()) {
                self.warnings.bad(&self.about(chunk, 0), &bad, self.long_line);
            }
            self.books.count(Fate::Bad(BadReason::TooLong), Some(self.long_line), 0);
            self.places[chunk.input].lines_before += 1;
        }
        self.books.bytes += chunk.bytes().len() as u64;
        self.deliver_part(chunk, first)?;
        let mut progress = Progress::new();
        let place = &mut self.places[chunk.input];
        place.advance(chunk.bytes(), chunk.offset + chunk.bytes().len() as u64, 0, &mut progress);
        if self.keeps_positions && !self.in_long_line {
            self.outputs.positions(&mut progress)?;
            let none = Ids::new(&[]);
            self.commits.make_room(none, &mut self.outputs)?;
            self.commits.take(None, none, progress, &mut self.outputs, &self.control.alarm)?;
        }
        Ok(())
    }

    fn deliver_part(&mut self, chunk: &Chunk, first: bool) -> Result<(), Stop> {
        let target = match self.long_line {
            Action::Pass => Some(&mut self.outputs.output),
            Action::Divert => self.outputs.rejects.as_mut(),
            Action::Drop | Action::Fail => None,
        };
        let Some(target) = target else { return Ok(()) };
        let Err(error) = target.write_part(chunk.bytes(), first, &mut self.commits.room) else { return Ok(()) };
        let stop = Stop::by(target, error);
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
        error: WriteError,
    ) -> Stop {
        let (mut delivered, mut passed) = (before.delivered, before.passed);
        for fate in lines_out(chunk, batch, verdicts, self.config.policy, Target::Output, &error) {
            delivered += u64::from(fate == Fate::FirstSeen);
            passed += u64::from(!matches!(fate, Fate::FirstSeen | Fate::Blank));
        }
        self.books.in_flight += self.books.delivered - delivered;
        (self.books.delivered, self.books.passed, self.books.diverted) = (delivered, passed, before.diverted);
        Stop::by(&self.outputs.output, error)
    }

    fn warn_bad(&mut self, chunk: &Chunk, line: usize, reason: BadReason) {
        let Some((_, bad)) = chunk.bad.iter().find(|(_, bad)| bad.reason == reason) else { return };
        self.warnings.bad(&self.about(chunk, line), bad, self.config.policy.of(reason));
    }

    /// The failure that a bad line is under `fail`; the line itself is read and bad, and nothing is done with it.
    fn fail(&mut self, chunk: &Chunk, line: usize, bad: Bad) -> Failure {
        self.books.count(Fate::Bad(bad.reason), None, 0);
        Failure::new(Exit::BadInput, Warnings::code(&bad), Warnings::what(&bad)).at(self.about(chunk, line))
    }

    /// The line that is spoken of, or the part of one.
    fn about(&self, chunk: &Chunk, line: usize) -> About {
        let start = if chunk.lines.is_empty() { 0 } else { chunk.range(line).start };
        let (input, before) = (&self.config.inputs[chunk.input], self.places[chunk.input].lines_before);
        let place = format!("{input}, line {}, byte {}", before + line as u64 + 1, chunk.offset + start as u64);
        self.config.fields.about(place, chunk, line)
    }
}

/// What the durability asks for, given where the lines go.
fn commit_at(config: &Config, outputs: &Outputs) -> CommitAt {
    // What goes to a pipe comes again until it is committed. Only a file beside it is worth the wait for a sync.
    let needs_flush = match config.delivery {
        Delivery::AtMostOnce => false,
        Delivery::ExactlyOnce => true,
        _ => outputs.all().any(Output::is_regular),
    };
    CommitAt::new(config.state.map(|state| state.durability), needs_flush)
}
