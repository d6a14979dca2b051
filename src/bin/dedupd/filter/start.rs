//! The outputs at the start: new ones, or those that a state has positions in.
//!
//! First all files are looked at, then they are changed: a run that is refused leaves them alone. What was written
//! behind a position comes again when the inputs are files, so it is cut off. From a pipe it does not: those lines
//! stay, and the ids in them are committed now, as the process that wrote them did not live to do it.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;

use dedupd::{Deduplicator, Durability, Progress, Reservation, Unjudged};

use super::chunk::{Chunk, Shape};
use super::commit::first_seen;
use super::delivery::Delivery;
use super::output::{Output, Outputs, cannot_create};
use super::parse::Parser;
use super::room::{Recorded, Room};
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
    let recorded = room.record(dedup, None, &positions).map_err(|error| state_dir::failure(&error))?;
    let survives_power =
        |state: &State| matches!(state.durability, Durability::Interval(_)) && !state.passes_on_failure;
    match recorded {
        Recorded::Yes if config.state.as_ref().is_some_and(survives_power) => {
            dedup.sync().map_err(|error| state_dir::failure(&error))
        }
        // Passed by, they are recorded with the first batch that finds room.
        _ => Ok(()),
    }
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
    let mut parser = Parser::new(&config.reading, dedup);
    let (mut chunk, mut tail) = (Chunk::default(), Vec::new());
    // The start of a file may have a byte order mark.
    let mut offset = offset;
    while fill(&mut file, &mut chunk, &mut tail).map_err(failed)? {
        chunk.offset = offset;
        chunk.shape = Shape::Lines;
        parser.parse(&mut chunk);
        offset += chunk.bytes().len() as u64;
        commit_ids(config, dedup, room, &chunk, started)?;
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

fn commit_ids(
    config: &Config,
    dedup: &Deduplicator,
    room: &mut Room,
    chunk: &Chunk,
    started: &mut Started,
) -> Result<(), Failure> {
    let mut commit = |reserved: Result<Reservation, Unjudged>| {
        let mut reserved = reserved.map_err(|error| state_dir::failure(&error.into()))?;
        let recorded = room.record(dedup, Some(&mut reserved), &Progress::new());
        match recorded.map_err(|error| state_dir::failure(&error))? {
            Recorded::Yes => started.ids_recovered += first_seen(&reserved),
            Recorded::PassedBy => started.ids_bypassed += first_seen(&reserved),
        }
        Ok(())
    };
    let ids_max = config.ids_together_max;
    if config.reading.payload.is_some() {
        let mut digests = chunk.digests.chunks(ids_max);
        let mut of = || digests.next().unwrap_or_default();
        chunk.ids.chunks(ids_max).try_for_each(|ids| commit(dedup.reserve_digests(ids, of())))?;
        return chunk.timed.chunks(ids_max).try_for_each(|ids| commit(dedup.reserve_digests_at(ids, of())));
    }
    chunk.ids.chunks(ids_max).try_for_each(|ids| commit(dedup.reserve_fingerprints(ids)))?;
    chunk.timed.chunks(ids_max).try_for_each(|ids| commit(dedup.reserve_fingerprints_at(ids)))
}

const CHUNK_BYTES: usize = 256 << 10;
