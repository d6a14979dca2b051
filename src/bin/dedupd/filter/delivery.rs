//! Which delivery mode is in force: the strongest that inputs, state and outputs allow.

use std::fmt;
use std::fs;
use std::path::Path;

use clap::ValueEnum;

use crate::config::{Config, Input, State, WhenDiskFull};
use crate::exit::Failure;

/// What becomes of an event when the process dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[expect(clippy::enum_variant_names, reason = "the modes are called so everywhere")]
pub enum Delivery {
    /// Deliver, then commit: the few in flight may be delivered again, none is lost.
    AtLeastOnce,
    /// Positions of files and ids are committed together: none is lost, none delivered twice.
    ExactlyOnce,
    /// Commit, then deliver: the few in flight may be lost, none is delivered twice.
    AtMostOnce,
}

impl Delivery {
    /// The mode for `config`, not weaker than what was asked for.
    pub fn choose(config: &Config, floor: Option<Self>) -> Result<Self, Failure> {
        let state = config.state.as_ref().filter(|state| state.keeps());
        let obstacle = obstacle(config, state);
        match (floor, obstacle) {
            (_, None) => Ok(Self::ExactlyOnce),
            (Some(Self::ExactlyOnce), Some(obstacle)) => {
                Err(Failure::usage(format!("--delivery exactly-once cannot be given: {obstacle}")))
            }
            (Some(Self::AtMostOnce), _) if state.is_none() => Err(Failure::usage(
                "--delivery at-most-once cannot be given: without --state, or with --durability none, what was delivered \
                 is not known after a crash",
            )),
            (Some(Self::AtMostOnce), Some(_)) if passes(config) => {
                Err(Failure::usage(format!("--delivery at-most-once cannot be given: {PASSES}")))
            }
            (Some(Self::AtMostOnce), _) => Ok(Self::AtMostOnce),
            (_, Some(_)) => Ok(Self::AtLeastOnce),
        }
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Self::AtLeastOnce => "at-least-once",
            Self::ExactlyOnce => "exactly-once",
            Self::AtMostOnce => "at-most-once",
        }
    }
}

impl fmt::Display for Delivery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What stands between these files and exactly-once.
fn obstacle(config: &Config, state: Option<&State>) -> Option<String> {
    if state.is_none() {
        return Some("it needs --state, and a durability other than none".to_owned());
    }
    if passes(config) {
        return Some(PASSES.to_owned());
    }
    let stream = config.inputs.iter().find(|input| match input {
        Input::Stdin => true,
        Input::File(path) => !is_file(path),
    });
    if let Some(input) = stream {
        return Some(format!("{input} is no regular file given by --input, so it cannot be read again"));
    }
    if config.output.is_none() {
        return Some("standard output cannot be cut back: use --output FILE".to_owned());
    }
    let outputs = [&config.output, &config.rejects, &config.duplicates].into_iter().flatten();
    let stream = outputs.into_iter().find(|path| !is_file(path) && path.as_os_str() != "/dev/null");
    stream.map(|path| format!("{} is no regular file, so it cannot be cut back", path.display()))
}

/// Whether events may come out that are recorded nowhere.
fn passes(config: &Config) -> bool {
    config.when_disk_full == WhenDiskFull::Pass || config.state.is_some_and(|state| state.passes_on_failure)
}

/// What is not there yet will be one.
fn is_file(path: &Path) -> bool {
    fs::metadata(path).map_or(true, |about| about.is_file())
}

const PASSES: &str = "--when-state-fails pass and --when-disk-full pass go on without recording";
