//! Which delivery mode is in force: the strongest that inputs, state and outputs allow.

use std::fs;
use std::path::Path;

use dedupd::pipeline::Delivery;

use crate::config::{Config, Input, State, WhenDiskFull};
use crate::exit::Failure;

/// The mode for `config`, not weaker than what was asked for.
pub fn choose(config: &Config, floor: Option<Delivery>) -> Result<Delivery, Failure> {
    let state = config.state.as_ref().filter(|state| state.keeps());
    let obstacle = obstacle(config, state);
    match (floor, obstacle) {
        (_, None) => Ok(Delivery::ExactlyOnce),
        (Some(Delivery::ExactlyOnce), Some(obstacle)) => {
            Err(Failure::usage(format!("--delivery exactly-once cannot be given: {obstacle}")))
        }
        (Some(Delivery::AtMostOnce), _) if state.is_none() => Err(Failure::usage(
            "--delivery at-most-once cannot be given: without --state, or with --durability none, what was delivered \
             is not known after a crash",
        )),
        (Some(Delivery::AtMostOnce), Some(_)) if passes(config) => {
            Err(Failure::usage(format!("--delivery at-most-once cannot be given: {PASSES}")))
        }
        (Some(Delivery::AtMostOnce), _) => Ok(Delivery::AtMostOnce),
        (_, Some(_)) => Ok(Delivery::AtLeastOnce),
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
