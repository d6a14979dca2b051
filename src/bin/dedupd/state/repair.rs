//! `dedupd repair`: a state that is refused for corruption is made one that opens. And what is told of that when it
//! happens at the start of a run.

use std::path::Path;
use std::time::Duration;

use dedupd::state::{self, Gap, Repair};
use dedupd::{Clock, Deduplicator, SystemClock};

use super::failure;
use super::time::rfc3339;
use crate::exit::{Exit, Failure};
use crate::log::Log;
use crate::print_document;
use crate::quantity::{show_duration, show_number};

pub fn repair(dir: &Path, window: Option<Duration>, lock_timeout: Duration) -> Result<Exit, Failure> {
    let done = state::repair(dir, lock_timeout).map_err(|error| failure(&error))?;
    let text = match done {
        None => format!("{} is sound: nothing was changed\n", dir.display()),
        Some(repair) => tell(dir, &repair, window),
    };
    print_document(text.as_bytes())
}

/// Warns of what was repaired when the state was opened.
pub fn warn(log: Log, dir: &Path, dedup: &Deduplicator) {
    if let Some(repair) = dedup.recovery().and_then(|recovery| recovery.repair.as_ref()) {
        let text = tell(dir, repair, Some(dedup.window()));
        log.warning("state_repaired", text.trim_end().replace('\n', "; "));
    }
}

fn tell(dir: &Path, repair: &Repair, window: Option<Duration>) -> String {
    let mut text = format!("repaired {}: {} written anew\n", dir.display(), frames(repair.frames_kept));
    repair.gaps.iter().for_each(|gap| text += &tell_gap(gap));
    if repair.gaps.is_empty() && repair.frames_missing != Some(0) {
        text += "an earlier repair, which was cut short, had found what is missing\n";
    }
    text += &tell_missing(repair, window);
    for file in &repair.set_aside {
        text += &format!("moved aside: {}\n", dir.join(file).display());
    }
    text
}

fn tell_gap(gap: &Gap) -> String {
    let missing = gap.frames.map_or_else(|| "frames".to_owned(), frames);
    format!("{missing} missing in {} after byte {}, with {}\n", gap.file, gap.offset, ids(gap.ids_max))
}

/// How many ids may be unknown, and until when.
fn tell_missing(repair: &Repair, window: Option<Duration>) -> String {
    if repair.frames_missing == Some(0) {
        return "nothing is missing\n".to_owned();
    }
    let ids = ids(repair.ids_unknown_max);
    let now = SystemClock::new().now();
    match window {
        Some(Duration::MAX) => format!("unknown: {ids}, for good, as the window is forever\n"),
        Some(window) => {
            let until = rfc3339(repair.unknown_until(window, now));
            format!("unknown: {ids}, until {until} at the latest, with a window of {}\n", show_duration(window))
        }
        None => {
            let from = rfc3339(repair.latest.unwrap_or(now));
            format!("unknown: {ids}, until the window has passed since {from}; --window says when that is\n")
        }
    }
}

fn frames(count: u64) -> String {
    show_number(count, "frame")
}

fn ids(max: Option<u64>) -> String {
    max.map_or_else(|| "nobody knows how many ids".to_owned(), |max| format!("{} at the most", show_number(max, "id")))
}
