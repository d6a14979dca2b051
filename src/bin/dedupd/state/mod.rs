//! The tools for a state directory: `verify`, `inspect`, `repair`, `export`.

mod export;
mod inspect;
mod json;
mod repair;
mod time;
mod verify;

use std::error::Error as _;

use dedupd::state::{Problem, StateError};

use crate::exit::{Exit, Failure};

pub use export::export;
pub use inspect::inspect;
pub use repair::repair;
pub use verify::verify;

/// What an error of the library comes to.
fn failure(error: &StateError) -> Failure {
    if let StateError::Problem(problem) = error {
        return problem_failure(problem);
    }
    let exit = match error {
        StateError::Locked { .. } => Exit::InUse,
        StateError::Io { act: "prepare" | "create", .. } => Exit::CannotCreate,
        _ => Exit::Io,
    };
    let source = error.source().and_then(|source| source.downcast_ref());
    let why = source.map_or_else(String::new, |source| format!(": {}", crate::exit::cause(source)));
    Failure::new(exit, error.code(), format!("{error}{why}"))
}

fn problem_failure(problem: &Problem) -> Failure {
    let exit = if problem.code == "state_corrupt" { Exit::Corrupt } else { Exit::OtherState };
    Failure::new(exit, problem.code, &problem.message)
}
