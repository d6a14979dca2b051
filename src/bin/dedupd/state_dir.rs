//! The state that `--state` names: opening it, and what its errors mean for whoever runs this.

use std::error::Error as _;
use std::io::ErrorKind;
use std::path::Path;

use dedupd::{Builder, Deduplicator, Error, LogError, OnCorrupt, OnLogFailure, OpenError};

use crate::args::{CorruptArg, FilterArgs, StateFailsArg};
use crate::config::{Reading, refused};
use crate::exit::{Exit, Failure, cause};
use crate::recovery;

/// Opens the state that the flags name, or makes a set in memory.
pub fn open(builder: Builder, args: &FilterArgs) -> Result<Deduplicator, Failure> {
    let state = &args.state;
    let Some(directory) = &state.state else { return builder.build().map_err(|error| failure(&error)) };
    let builder = builder
        .durability(state.durability)
        .lock_timeout(state.lock_timeout)
        .id_paths(Reading::new(&args.keys)?.keys.to_string())
        .on_corrupt(match state.on_corrupt {
            CorruptArg::Refuse => OnCorrupt::Refuse,
            CorruptArg::Salvage => OnCorrupt::Salvage,
        })
        .on_log_failure(match state.when_state_fails {
            StateFailsArg::Stop => OnLogFailure::Refuse,
            StateFailsArg::Pass => OnLogFailure::Continue,
        });
    let builder = match state.max_disk {
        Some(bytes) => builder.max_disk(bytes),
        None => builder,
    };
    let builder = recovery::show(builder, directory, args.progress, args.quiet);
    builder.open(directory).map_err(|error| failure(&error))
}

/// The failure that an error of the set is.
pub fn failure(error: &Error) -> Failure {
    let (exit, advice) = match error {
        Error::Open(error) => advise(error),
        Error::Log(LogError::Poisoned { .. }) => (
            Exit::Io,
            "; what is out and not committed comes again at the next start, unless it was a file that is cut back",
        ),
        Error::Log(LogError::NoRoom { .. }) => {
            (Exit::Io, "; make room there, or raise --max-disk; what is out is committed up to here")
        }
        Error::Log(LogError::Io { .. }) => {
            (Exit::Io, "; nothing is committed from here on: look after the disk or the limit, and run it again")
        }
        Error::Log(_) => (Exit::Io, ""),
        error => return refused(error),
    };
    let because = match error {
        Error::Open(error) => error.source(),
        Error::Log(error) => error.source(),
        _ => None,
    };
    let because = because.and_then(|source| source.downcast_ref()).map(|source| format!(": {}", cause(source)));
    Failure::new(exit, error.code(), format!("{error}{}{advice}", because.unwrap_or_default()))
}

fn advise(error: &OpenError) -> (Exit, &'static str) {
    match error {
        OpenError::Locked { .. } => (Exit::Locked, " (--lock-timeout)"),
        OpenError::Corrupt { .. } => {
            (Exit::Corrupt, "; dedupd verify says more, dedupd repair or --on-corrupt salvage moves the bad part aside")
        }
        OpenError::NoSecret { .. } => (Exit::Corrupt, ""),
        OpenError::OtherSecret { .. } | OpenError::Newer { .. } => (Exit::OtherState, ""),
        OpenError::OtherState { .. } => (Exit::OtherState, FLAGS_OF_A_STATE),
        OpenError::Io { place, source, .. } if is_refusal(source.kind()) => {
            (Exit::CannotCreate, way_out(source.kind(), place.as_ref()))
        }
        _ => (Exit::Io, ""),
    }
}

/// What to do when `--state` names a place where no state can be.
fn way_out(kind: ErrorKind, place: &Path) -> &'static str {
    let has_no_parent = || place.parent().is_some_and(|parent| !parent.as_os_str().is_empty() && !parent.exists());
    match kind {
        ErrorKind::AlreadyExists => "; what has that name is no directory: name a directory, or nothing that is there",
        ErrorKind::NotADirectory => "; a part of that path is no directory: name a directory, or nothing that is there",
        ErrorKind::NotFound if has_no_parent() => {
            "; the directory that it is to be made in is not there: make that first"
        }
        ErrorKind::PermissionDenied => "; whoever runs this must be able to write there: name a directory of theirs",
        _ => "; name a directory that may be written to",
    }
}

/// What a state belongs to, as it is said on the command line.
pub const FLAGS_OF_A_STATE: &str = "; the hash is --hash, the id paths are --key";

/// Whether it is the place that is wrong, and not the disk.
fn is_refusal(kind: ErrorKind) -> bool {
    use ErrorKind as Kind;
    matches!(
        kind,
        Kind::PermissionDenied | Kind::NotFound | Kind::NotADirectory | Kind::AlreadyExists | Kind::ReadOnlyFilesystem
    )
}
