//! The outputs at the start: new ones, or those that a state has positions in.
//!
//! First all files are looked at, then they are changed: a run that is refused leaves them alone. What was written
//! behind a position comes again when the inputs are files, so it is cut off. From a pipe it does not: those lines
//! stay, and the ids in them are committed now, as the process that wrote them did not live to do it.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;
use std::time::Instant;

use dedupd::pipeline::{CommitAt, Delivery, Host, Repeats, Stage, Unrecorded};
use dedupd::{Deduplicator, Durability, Error, Progress, Reservation};

use super::chunk::{Chunk, Shape};
use super::output::{Output, Outputs, cannot_create};
use super::parse::Parser;
use super::room::{Room, STATE};
use super::track::Found;
use crate::config::{Config, State};
use crate::exit::Failure;
use crate::state_dir;

/// What was found and done.
#[derive(Clone, Copy, Debug, Default)]
pub struct Started {
    /// Ids of lines that were written and not recorded, and are now.
    pub ids_recovered: u64,
    /// Such that could not be recorded, as there was no room.
    pub ids_bypassed: u64,
    /// Bytes that were cut off, as they come again or were no whole line.
    pub bytes_cut: u64,
}

/// Opens the outputs.
pub fn open(config: &Config, dedup: &Deduplicator, room: &mut Room) -> Result<(Outputs, Started), Failure> {
    match &config.state {
        None => Ok((Outputs::create(config, room)?, Started::default())),
        Some(state) => continue_outputs(config, state, dedup, room),
    }
}

fn continue_outputs(
    config: &Config,
    state: &State,
    dedup: &Deduplicator,
    room: &mut Room,
) -> Result<(Outputs, Started), Failure> {
    let resumes = config.delivery == Delivery::ExactlyOnce;
    let known = dedup.progress();
    let mut found = Vec::new();
    for path in [&config.output, &config.rejects, &config.duplicates].into_iter().flatten() {
        let looked = match state.keeps() {
            true => Found::look(path, &known, state.appends, resumes)?,
            false => Found::look_unrecorded(path, &known, state.appends)?,
        };
        found.push((path, looked));
    }
    let mut started = Started::default();
    let mut found = found.into_iter();
    let outputs = Outputs::open(config, |path| {
        let Some((_, found)) = found.next() else { return Output::create(path, room) };
        let opened = found.open(resumes, room)?;
        started.bytes_cut += opened.bytes_cut;
        if let Some(from) = opened.unrecorded.filter(|_| config.output.as_deref() == Some(path)) {
            commit_lines(config, dedup, room, path, from, &mut started)?;
        }
        let mut output = opened.output;
        output.track = output.track.filter(|_| state.keeps());
        Ok(output)
    })?;
    record(config, &outputs, dedup, room, &known)?;
    Ok((outputs, started))
}

/// Records the positions from which this run goes on, unless they are known. They are on disk before any line of this run
/// can be: lines without a position would be somebody else's at the next start.
fn record(
    config: &Config,
    outputs: &Outputs,
    dedup: &Deduplicator,
    room: &mut Room,
    known: &Progress,
) -> Result<(), Failure> {
    let mut positions = Progress::new();
    outputs.positions(&mut positions)?;
    if positions.sinks().all(|(name, position)| known.sink(name) == Some(position)) {
        return Ok(());
    }
    let mut started = Started::default();
    let is_recorded = at_start(dedup).record_progress(&positions, &mut Starting { room, started: &mut started })?;
    let survives_power =
        |state: &State| matches!(state.durability, Durability::Interval(_)) && !state.passes_on_failure;
    // Passed by, they are recorded with the first batch that finds room.
    if is_recorded && config.state.as_ref().is_some_and(survives_power) {
        dedup.sync().map_err(|error| state_dir::failure(&error))?;
    }
    Ok(())
}

/// For what is out from before.
fn at_start(dedup: &Deduplicator) -> Stage<()> {
    Stage::new(dedup, Delivery::AtLeastOnce, CommitAt::Once, Repeats::AreDuplicates)
}

/// Commits the ids of the whole lines of `path` from `offset` on, and counts those that were not known.
fn commit_lines(
    config: &Config,
    dedup: &Deduplicator,
    room: &mut Room,
    path: &Path,
    offset: u64,
    started: &mut Started,
) -> Result<(), Failure> {
    let failed = |error: io::Error| cannot_create(path, &error);
    let mut file = File::open(path).map_err(failed)?;
    file.seek(SeekFrom::Start(offset)).map_err(failed)?;
    let (mut parser, mut stage) = (Parser::new(&config.reading, dedup), at_start(dedup));
    let (mut chunk, mut tail) = (Chunk::default(), Vec::new());
    // The start of a file may have a byte order mark.
    let mut offset = offset;
    while fill(&mut file, &mut chunk, &mut tail).map_err(failed)? {
        chunk.offset = offset;
        chunk.shape = Shape::Lines;
        parser.parse(&mut chunk);
        offset += chunk.bytes().len() as u64;
        commit_ids(&mut stage, room, &chunk, started)?;
    }
    Ok(())
}

/// Fills `chunk` with whole lines. Memory grows with the longest line that is there, of which most are cut off
/// elsewhere.
fn fill(file: &mut File, chunk: &mut Chunk, tail: &mut Vec<u8>) -> io::Result<bool> {
    chunk.reset(CHUNK_BYTES);
    chunk.append(tail);
    tail.clear();
    loop {
        let count = file.read(chunk.room(CHUNK_BYTES))?;
        if count == 0 {
            return Ok(!chunk.is_empty());
        }
        chunk.filled(count);
        if let Some(at) = chunk.bytes().iter().rposition(|&byte| byte == b'\n') {
            chunk.cut(at + 1, tail);
            return Ok(true);
        }
    }
}

/// Commits the ids of lines that are out.
fn commit_ids(stage: &mut Stage<()>, room: &mut Room, chunk: &Chunk, started: &mut Started) -> Result<(), Failure> {
    let mut rest = chunk.ids_at(0..chunk.ids_count());
    while !rest.is_empty() {
        let (ids, others) = rest.split_at(stage.together(rest));
        let reserved = stage.reserve(ids).map_err(|error| state_dir::failure(&error.into()))?;
        stage.delivered(Some(reserved), ids, (), Instant::now());
        stage.commit_next(&mut Starting { room, started })?;
        rest = others;
    }
    Ok(())
}

/// Records what is out from before.
struct Starting<'s> {
    room: &'s mut Room,
    started: &'s mut Started,
}

impl Host<()> for Starting<'_> {
    type Error = Failure;

    fn progress(&mut self, _: Option<&mut ()>, _: Option<&Reservation>) -> Result<Progress, Failure> {
        Ok(Progress::new())
    }

    fn unrecorded(&mut self, error: Error, ids: usize) -> Result<Unrecorded, Failure> {
        let how = self.room.unrecorded(error).map_err(|error| state_dir::failure(&error))?;
        self.started.ids_bypassed += if how == Unrecorded::PassBy { ids as u64 } else { 0 };
        Ok(how)
    }

    fn recorded(&mut self, ids: usize) {
        self.room.found(STATE);
        self.started.ids_recovered += ids as u64;
    }
}

const CHUNK_BYTES: usize = 256 << 10;
