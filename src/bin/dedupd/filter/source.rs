//! Inputs that are read on from where a state says they were read to.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Seek;
use std::path::{Path, PathBuf};

use dedupd::Progress;
use dedupd::sink::FileIdentity;

use super::output::absolute;
use super::position::{SOURCE_TAIL_BYTES, SourcePosition, Tail};
use super::sibling::sibling;
use crate::config::Input;
use crate::exit::{Exit, Failure, cause};
use crate::log::Log;

/// A file that is read, with what is known of it before the first byte that is read now.
#[derive(Clone, Debug)]
pub struct Source {
    /// Of its position.
    pub name: Vec<u8>,
    pub path: PathBuf,
    pub start: u64,
    /// Lines before that.
    pub lines: u64,
    pub tail: Tail,
    /// It is shorter than what was read of it, and starts over.
    pub was_truncated: bool,
}

impl Source {
    /// The same file, read from its start.
    pub fn started_over(&self) -> Self {
        Self { start: 0, lines: 0, tail: Tail::new(SOURCE_TAIL_BYTES), ..self.clone() }
    }
}

/// All positions that are known.
#[derive(Clone, Debug)]
pub struct Sources {
    recorded: BTreeMap<Vec<u8>, SourcePosition>,
    /// A file may be truncated by whoever rotates it.
    follow: bool,
}

impl Sources {
    pub fn new(progress: &Progress, follow: bool) -> Self {
        let parse = |(name, position): (&[u8], &[u8])| {
            SourcePosition::parse(name, position).map(|position| (name.to_vec(), position))
        };
        Self { recorded: progress.sources().filter_map(parse).collect(), follow }
    }

    /// Looks at those inputs that are there.
    pub fn check(&self, inputs: &[Input]) -> Result<Resumed, Failure> {
        let mut resumed = Resumed { inputs: inputs.len(), follow: self.follow, files: Vec::new() };
        for input in inputs {
            if let Input::File(path) = input
                && let Ok(file) = File::open(path)
            {
                let Source { start, .. } = self.begin(&file, path)?;
                let bytes = file.metadata().map_or(start, |about| about.len());
                if start > 0 {
                    resumed.files.push((path.clone(), start, bytes));
                }
            }
        }
        Ok(resumed)
    }

    /// Where `file` is read from: its start, or behind what was read of it.
    ///
    /// # Errors
    /// What was read of it is not there any more.
    pub fn begin(&self, file: &File, path: &Path) -> Result<Source, Failure> {
        let failed = |error: std::io::Error| {
            Failure::new(Exit::NoInput, "input", format!("{}: {}", path.display(), cause(&error)))
        };
        let about = file.metadata().map_err(failed)?;
        let name = SourcePosition::name(&FileIdentity::of(&about));
        let tail = Tail::new(SOURCE_TAIL_BYTES);
        let path_told = absolute(path).unwrap_or_else(|| path.to_owned());
        let new = Source { name, path: path_told, start: 0, lines: 0, tail, was_truncated: false };
        let Some(position) = self.recorded.get(&new.name) else { return Ok(new) };
        if about.len() < position.offset {
            if self.follow {
                return Ok(Source { was_truncated: true, ..new });
            }
            let why = format!("has {} bytes, and {} were read of it before", about.len(), position.offset);
            return Err(changed(path, &why));
        }
        let tail = Tail::read(SOURCE_TAIL_BYTES, file, position.offset).map_err(failed)?;
        if tail.crc() != position.crc {
            return Err(changed(path, &format!("was changed before byte {}, where reading stopped", position.offset)));
        }
        Ok(Source { start: position.offset, lines: position.lines, tail, ..new })
    }

    /// `source` was read to where `file` stands. Should it come again in this run, it is read from there.
    pub fn ended(&mut self, source: &Source, mut file: &File) {
        let offset = file.stream_position();
        if let Ok((offset, tail)) = offset.and_then(|offset| Ok((offset, Tail::read(SOURCE_TAIL_BYTES, file, offset)?)))
        {
            let position = SourcePosition { offset, lines: source.lines, crc: tail.crc(), path: source.path.clone() };
            self.recorded.insert(source.name.clone(), position);
        }
    }

    /// What is read for `input` now: itself, or what is left of the file that had its name.
    pub fn stand_in(&self, input: &Input) -> Input {
        match input {
            Input::File(path) if self.follow => Input::File(self.unfinished(path).unwrap_or_else(|| path.clone())),
            input => input.clone(),
        }
    }

    /// The file that was read as `path` when reading stopped, has got another name in its directory since, and was not
    /// read to its end.
    fn unfinished(&self, path: &Path) -> Option<PathBuf> {
        let here = |about: &fs::Metadata| self.recorded.get(&SourcePosition::name(&FileIdentity::of(about)));
        let name = absolute(path)?;
        let is_ours = |position: &SourcePosition| position.path == name;
        if !self.recorded.values().any(is_ours) || fs::metadata(path).is_ok_and(|about| here(&about).is_some()) {
            return None;
        }
        sibling(path, |about| here(about).is_some_and(|position| is_ours(position) && position.offset < about.len()))
    }
}

/// The inputs that are not read from their start.
#[derive(Debug)]
pub struct Resumed {
    /// All that there are.
    inputs: usize,
    follow: bool,
    /// With where each is read from, and its length.
    files: Vec<(PathBuf, u64, u64)>,
}

impl Resumed {
    /// Says so once: who does not know it wonders where the lines are.
    pub fn tell(&self, log: Log) {
        let what = match self.files.as_slice() {
            [] => return,
            [(path, start, bytes)] if start == bytes && !self.follow => {
                format!(
                    "{} was read to its end, byte {start}, with this state before: nothing in it is new",
                    path.display()
                )
            }
            [(path, start, bytes)] => {
                let path = path.display();
                format!("{path} is read on from byte {start} of {bytes}, where an earlier run with this state stopped")
            }
            files => {
                let (resumed, inputs) = (files.len(), self.inputs);
                let ended = files.iter().filter(|(_, start, bytes)| start == bytes).count();
                format!(
                    "{resumed} of {inputs} inputs are read on from where earlier runs with this state stopped, and {ended} \
                     of them have nothing new"
                )
            }
        };
        log.notice(
            "resumed",
            format!("{what}; to have everything read again, use another --state and another --output"),
        );
    }
}

fn changed(path: &Path, why: &str) -> Failure {
    let what = "it is not read, as lines would be lost or come twice. Bring back what was there, or have it read from \
                its start as another file: cp it, and mv the copy over it";
    Failure::new(Exit::NoInput, "input_changed", format!("{} {why}: {what}", path.display()))
}
