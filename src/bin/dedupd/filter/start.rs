//! The outputs at the start: new ones, or those that a state has positions in.
//!
//! First all files are looked at, then they are changed: a run that is refused leaves them alone. What was written
//! behind a position comes again when the inputs are files, so it is cut off. From a pipe it does not: those lines
//! stay, and the ids in them are committed now, as the process that wrote them did not live to do it.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;

use dedupd::{Deduplicator, Progress};

use super::chunk::{Chunk, Shape};
use super::delivery::Delivery;
use super::output::{Output, Outputs, cannot_create};
use super::parse::Parser;
use super::track::Found;
use crate::config::{Config, State};
use crate::exit::Failure;
use crate::state_dir;

/// What was found and done.
#[derive(Clone, Copy, Debug, Default)]
pub struct Started {
    /// Ids of lines that were written and not recorded, and are now.
    pub ids_recovered: u64,
    /// Bytes that were cut off, as they come again or were no whole line.
    pub bytes_cut: u64,
}

/// Opens the outputs.
pub fn open(config: &Config, dedup: &Deduplicator) -> Result<(Outputs, Started), Failure> {
    match &config.state {
        None => Ok((Outputs::create(config)?, Started::default())),
        Some(state) => continue_outputs(config, state, dedup),
    }
}

fn continue_outputs(config: &Config, state: &State, dedup: &Deduplicator) -> Result<(Outputs, Started), Failure> {
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
        let Some((_, found)) = found.next() else { return Output::create(path) };
        let opened = found.open(resumes)?;
        started.bytes_cut += opened.bytes_cut;
        if let Some(from) = opened.unrecorded.filter(|_| config.output.as_deref() == Some(path)) {
            started.ids_recovered = commit_lines(config, dedup, path, from)?;
        }
        let mut output = opened.output;
        output.track = output.track.filter(|_| state.keeps());
        Ok(output)
    })?;
    record(&outputs, dedup, &known)?;
    Ok((outputs, started))
}

/// Records the positions from which this run goes on, unless they are known.
fn record(outputs: &Outputs, dedup: &Deduplicator, known: &Progress) -> Result<(), Failure> {
    let mut positions = Progress::new();
    outputs.positions(&mut positions)?;
    if positions.sinks().all(|(name, position)| known.sink(name) == Some(position)) {
        return Ok(());
    }
    dedup.record_progress(&positions).map_err(|error| state_dir::failure(&error))
}

/// Commits the ids of the whole lines of `path` from `offset` on, and says how many were not known.
fn commit_lines(config: &Config, dedup: &Deduplicator, path: &Path, offset: u64) -> Result<u64, Failure> {
    let failed = |error: io::Error| cannot_create(path, &error);
    let mut file = File::open(path).map_err(failed)?;
    file.seek(SeekFrom::Start(offset)).map_err(failed)?;
    let mut parser = Parser::new(&config.reading, dedup);
    let (mut chunk, mut tail, mut ids) = (Chunk::default(), Vec::new(), 0);
    // The start of a file may have a byte order mark.
    let mut offset = offset;
    while fill(&mut file, &mut chunk, &mut tail).map_err(failed)? {
        chunk.offset = offset;
        chunk.shape = Shape::Lines;
        parser.parse(&mut chunk);
        offset += chunk.bytes().len() as u64;
        ids += commit_ids(config, dedup, &chunk)?;
    }
    Ok(ids)
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

fn commit_ids(config: &Config, dedup: &Deduplicator, chunk: &Chunk) -> Result<u64, Failure> {
    let mut count = 0;
    let mut commit = |reserved: Result<dedupd::Reservation, dedupd::Unjudged>| {
        let mut reserved = reserved.map_err(|error| state_dir::failure(&error.into()))?;
        count +=
            reserved.verdicts().iter().filter(|verdict| **verdict == dedupd::ReserveVerdict::FirstSeen).count() as u64;
        reserved.try_commit(&Progress::new()).map_err(|error| state_dir::failure(&error))
    };
    for ids in chunk.ids.chunks(config.ids_together_max) {
        commit(dedup.reserve_fingerprints(ids))?;
    }
    for ids in chunk.timed.chunks(config.ids_together_max) {
        commit(dedup.reserve_fingerprints_at(ids))?;
    }
    Ok(count)
}

const CHUNK_BYTES: usize = 256 << 10;
