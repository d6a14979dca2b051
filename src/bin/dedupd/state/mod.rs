//! The tools for a state directory: `verify`, `inspect`, `repair`, `export`, `forget`.

mod export;
mod forget;
mod inspect;
mod json;
mod repair;
mod time;
mod verify;

use std::error::Error as _;
use std::path::Path;

use dedupd::Secret;
use dedupd::state::{Problem, StateError};

use crate::args::IdArgs;
use crate::config::Reading;
use crate::exit::{Exit, Failure};
use crate::state_dir::FLAGS_OF_A_STATE;

pub use export::export;
pub use forget::forget;
pub use inspect::inspect;
pub use repair::{repair, warn};
pub use time::{rfc3339, utc};
pub use verify::verify;

/// What an error of the library comes to.
pub fn failure(error: &StateError) -> Failure {
    if let StateError::Problem(problem) = error {
        return problem_failure(problem);
    }
    let exit = match error {
        StateError::Locked { .. } => Exit::Locked,
        StateError::Io { act: "prepare" | "create", .. } => Exit::CannotCreate,
        _ => Exit::Io,
    };
    let source = error.source().and_then(|source| source.downcast_ref());
    let why = source.map_or_else(String::new, |source| format!(": {}", crate::exit::cause(source)));
    let advice = if exit == Exit::Locked { " (--lock-timeout)" } else { "" };
    Failure::new(exit, error.code(), format!("{error}{why}{advice}"))
}

/// The secret of a state, if it is of this hash and these id paths.
pub fn secret(dir: &Path, ids: &IdArgs, reading: &Reading) -> Result<Secret, Failure> {
    let secret = dedupd::state::secret(dir, ids.hash.into(), &reading.keys.to_string());
    secret.map_err(|error| {
        let mut failure = failure(&error);
        let is_of_flags = |problem: &Problem| problem.file.as_deref() != Some("SECRET");
        if matches!(&error, StateError::Problem(problem) if failure.exit == Exit::OtherState && is_of_flags(problem)) {
            failure.message += FLAGS_OF_A_STATE;
        }
        failure
    })
}

/// Refuses a state whose times are not the ones that are asked about: the events' own, or the clock's. One without a log has
/// none yet.
pub fn check_time(dir: &Path, event_time: bool) -> Result<(), Failure> {
    let advice = match dedupd::state::is_in_event_time(dir).map_err(|error| failure(&error))? {
        None => return Ok(()),
        Some(is_so) if is_so == event_time => return Ok(()),
        Some(true) => "was made with --time-field: give the same one",
        Some(false) => "was made without --time-field: leave it out",
    };
    let message = format!("{} {advice}, or name another directory", dir.display());
    Err(Failure::new(Exit::OtherState, "state_of_other_configuration", message))
}

/// Refuses a state in which payloads are not compared as these lines are to be. One without a log is of neither yet.
pub fn check_digests(dir: &Path, reading: &Reading) -> Result<(), Failure> {
    let left_out = reading.payload.as_ref().map(ToString::to_string);
    let advice = match dedupd::state::has_digests(dir, left_out.as_deref()).map_err(|error| failure(&error))? {
        None => return Ok(()),
        Some(has_digests) if has_digests == reading.payload.is_some() => return Ok(()),
        Some(true) => "was made with --on-conflict: give it, and the same --conflict-ignore",
        Some(false) => "was made without --on-conflict: leave it out",
    };
    let message = format!("{} {advice}, or name another directory", dir.display());
    Err(Failure::new(Exit::OtherState, "state_of_other_configuration", message))
}

fn problem_failure(problem: &Problem) -> Failure {
    let exit = if problem.code == "state_corrupt" { Exit::Corrupt } else { Exit::OtherState };
    Failure::new(exit, problem.code, &problem.message)
}
