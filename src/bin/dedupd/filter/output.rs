//! Where lines go: the output, the rejects, the duplicates.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use dedupd::NdjsonSink;

use crate::config::{Config, Input};
use crate::exit::{Exit, Failure, cause};
use crate::stdio;

/// A sink and what it is called.
#[derive(Debug)]
pub struct Output {
    pub sink: NdjsonSink,
    /// None for standard output.
    path: Option<PathBuf>,
    /// Newlines added by the sinks before a reopening.
    newlines_added: u64,
}

/// All that is written to.
#[derive(Debug)]
pub struct Outputs {
    pub output: Output,
    pub rejects: Option<Output>,
    pub duplicates: Option<Output>,
}

impl Output {
    fn stdout() -> Result<Self, Failure> {
        if stdio::stdout_was_closed() {
            return Err(Failure::new(
                Exit::Io,
                "output",
                "standard output is closed: connect it, or use --output FILE",
            ));
        }
        let sink = NdjsonSink::stdout()
            .map_err(|error| Failure::new(Exit::Io, "output", format!("standard output: {}", cause(&error))))?;
        Ok(Self { sink, path: None, newlines_added: 0 })
    }

    fn create(path: &Path) -> Result<Self, Failure> {
        let sink = NdjsonSink::create(path).map_err(|error| cannot_create(path, &error))?;
        Ok(Self { sink, path: Some(path.to_owned()), newlines_added: 0 })
    }

    /// Opens the path again, which may be another file by now; from its end on.
    fn reopen(&mut self) -> Result<(), Failure> {
        if let Some(path) = &self.path {
            let sink = NdjsonSink::file(path).map_err(|error| cannot_create(path, &error))?;
            self.newlines_added += self.sink.newlines_added();
            self.sink = sink;
        }
        Ok(())
    }

    pub fn newlines_added(&self) -> u64 {
        self.newlines_added + self.sink.newlines_added()
    }

    pub fn is_stdout(&self) -> bool {
        self.path.is_none()
    }

    pub fn name(&self) -> String {
        self.path.as_ref().map_or_else(|| "standard output".to_owned(), |path| path.display().to_string())
    }
}

impl Outputs {
    /// Makes the outputs, unless one of them is an input or another output.
    pub fn open(config: &Config) -> Result<Self, Failure> {
        refuse_collisions(config)?;
        let create = |path: &Option<PathBuf>| path.as_deref().map(Output::create).transpose();
        Ok(Self {
            output: create(&config.output)?.map_or_else(Output::stdout, Ok)?,
            rejects: create(&config.rejects)?,
            duplicates: create(&config.duplicates)?,
        })
    }

    pub fn reopen(&mut self) -> Result<(), Failure> {
        self.all_mut().try_for_each(Output::reopen)
    }

    pub fn newlines_added(&self) -> u64 {
        let others = self.rejects.iter().chain(&self.duplicates);
        others.map(Output::newlines_added).sum::<u64>() + self.output.newlines_added()
    }

    fn all_mut(&mut self) -> impl Iterator<Item = &mut Output> {
        std::iter::once(&mut self.output).chain(&mut self.rejects).chain(&mut self.duplicates)
    }
}

fn cannot_create(path: &Path, error: &io::Error) -> Failure {
    Failure::new(Exit::CannotCreate, "output", format!("cannot write {}: {}", path.display(), cause(error)))
}

/// Two names for one file would empty an input, or write lines over each other.
fn refuse_collisions(config: &Config) -> Result<(), Failure> {
    let mut taken: Vec<(Identity, String)> = Vec::new();
    for input in &config.inputs {
        let identity = match input {
            Input::Stdin => Identity::of("/proc/self/fd/0".as_ref()),
            Input::File(path) => Identity::of(path),
        };
        taken.extend(identity.map(|identity| (identity, format!("the input {input}"))));
    }
    let named = [("--output", &config.output), ("--rejects", &config.rejects), ("--duplicates", &config.duplicates)];
    let stdout = config.output.is_none().then(|| ("standard output", Path::new("/proc/self/fd/1")));
    let named = named.iter().filter_map(|(flag, path)| path.as_deref().map(|path| (*flag, path)));
    for (flag, path) in stdout.into_iter().chain(named) {
        let Some(identity) = Identity::of(path) else { continue };
        if let Some((_, other)) = taken.iter().find(|(known, _)| *known == identity) {
            return Err(Failure::usage(format!("{flag} is {other}: name another file")));
        }
        taken.push((identity, if flag.starts_with('-') { format!("{flag} too") } else { flag.to_owned() }));
    }
    Ok(())
}

/// What a regular file is, whatever it is called; a path that is not there yet is known by its place.
#[derive(PartialEq, Eq)]
enum Identity {
    Inode(u64, u64),
    Place(PathBuf),
}

impl Identity {
    /// None for what may well be written by several: a pipe, a terminal, `/dev/null`.
    fn of(path: &Path) -> Option<Self> {
        match fs::metadata(path) {
            Ok(about) => about.is_file().then(|| Self::Inode(about.dev(), about.ino())),
            Err(_) => {
                let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
                Some(Self::Place(parent.canonicalize().ok()?.join(path.file_name()?)))
            }
        }
    }
}
