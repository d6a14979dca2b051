//! The state that `--state` names: opening it, and what its errors mean for whoever runs this.

use std::error::Error as _;
use std::io::ErrorKind;
use std::path::Path;

use dedupd::{Builder, Deduplicator, Error, LogError, OnCorrupt, OnLogFailure, OpenError};

use crate::args::{CorruptArg, FilterArgs, StateFailsArg};
use crate::config::{Reading, refused};
use crate::exit::{Exit, Failure, cause};
use crate::filter::{Room, STATE, is_full};
use crate::recovery;

/// Opens the state that the flags name, or makes a set in memory. Where it finds no room it is opened again when there is,
/// if that is waited for.
pub fn open(builder: impl Fn() -> Builder, args: &FilterArgs, room: &mut Room) -> Result<Deduplicator, Failure> {
    let Some(directory) = &args.state.state else { return builder().build().map_err(|error| failure(&error)) };
    let reading = Reading::new(&args.keys)?;
    let passes = args.state.when_state_fails == StateFailsArg::Pass;
    loop {
        let builder = with_state(builder(), args, &reading).open_full(passes || room.passes());
        match recovery::show(builder, directory, args.progress, args.quiet).open(directory) {
            Err(Error::Open(OpenError::Io { source, .. })) if is_full(&source) && room.wait(STATE) => {}
            opened => {
                if opened.is_ok() {
                    room.found(STATE);
                }
                return opened.map_err(|error| failure(&error));
            }
        }
    }
}

fn with_state(builder: Builder, args: &FilterArgs, reading: &Reading) -> Builder {
    let state = &args.state;
    let builder = builder
        .durability(state.durability)
        .lock_timeout(state.lock_timeout)
        .id_paths(reading.keys.to_string())
        .conflict_ignore(reading.payload.as_ref().map_or_else(String::new, ToString::to_string))
        .on_corrupt(match state.on_corrupt {
            CorruptArg::Refuse => OnCorrupt::Refuse,
            CorruptArg::Salvage => OnCorrupt::Salvage,
        })
        .on_log_failure(match state.when_state_fails {
            StateFailsArg::Stop => OnLogFailure::Refuse,
            StateFailsArg::Pass => OnLogFailure::Continue,
        });
    match state.max_disk {
        Some(bytes) => builder.max_disk(bytes),
        None => builder,
    }
}

/// The failure that an error of the set is.
pub fn failure(error: &Error) -> Failure {
    let (exit, advice) = match error {
        Error::Open(error) => advise(error),
        Error::Log(LogError::NoRoom { .. }) => (Exit::Io, "; make room there, or raise --max-disk"),
        Error::Log(LogError::Io { .. }) => (Exit::Io, "; look after the disk or the limit, and run it again"),
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
        OpenError::Io { source, .. } if is_full(source) => (Exit::Io, "; make room there, and run it again"),
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
pub const FLAGS_OF_A_STATE: &str = "; the hash is --hash, the id paths are --key, event time is whether there is a --time-field, payloads are those of \
     --on-conflict and --conflict-ignore";

/// Whether it is the place that is wrong, and not the disk.
fn is_refusal(kind: ErrorKind) -> bool {
    use ErrorKind as Kind;
    matches!(
        kind,
        Kind::PermissionDenied | Kind::NotFound | Kind::NotADirectory | Kind::AlreadyExists | Kind::ReadOnlyFilesystem
    )
}
