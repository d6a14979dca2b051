//! `dedupd verify`: whether a state is sound.

use std::path::Path;

use dedupd::state;

use super::json::VerifyReport;
use super::{failure, problem_failure};
use crate::exit::{Exit, Failure};
use crate::{print_document, stdout_failure};

pub fn verify(dir: &Path) -> Result<Exit, Failure> {
    let found = state::verify(dir).map_err(|error| failure(&error))?;
    let report = VerifyReport::new(dir.display().to_string(), &found);
    let mut line = serde_json::to_vec(&report).map_err(|error| stdout_failure(&error.into()))?;
    line.push(b'\n');
    let exit = print_document(&line)?;
    found.problem.as_ref().map_or(Ok(exit), |problem| Err(problem_failure(problem)))
}
