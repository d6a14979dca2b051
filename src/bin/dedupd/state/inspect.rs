//! `dedupd inspect`: what a state holds.

use std::fmt::Write as _;
use std::path::Path;

use dedupd::Timestamp;
use dedupd::state::{self, Inspection, Named, Problem, Segment, Use, Verification};

use super::json::{InspectReport, hash_name, hex, loss_kind, secret_word, text_or_hex};
use super::time::rfc3339;
use super::{failure, problem_failure};
use crate::exit::{Exit, Failure};
use crate::quantity::{show_count, show_number, show_size};
use crate::{print_document, stdout_failure};

pub fn inspect(dir: &Path, json: bool) -> Result<Exit, Failure> {
    let found = state::inspect(dir).map_err(|error| failure(&error))?;
    let document = if json {
        let report = InspectReport::new(dir.display().to_string(), &found);
        serde_json::to_string(&report).map_err(|error| stdout_failure(&error.into()))? + "\n"
    } else {
        text(dir, &found)
    };
    let exit = print_document(document.as_bytes())?;
    found.verification.problem.as_ref().map_or(Ok(exit), |problem| Err(problem_failure(problem)))
}

fn text(dir: &Path, found: &Inspection) -> String {
    let mut text = format!("state        {}: {}\n", dir.display(), condition(&found.verification));
    text += &configuration(found);
    text += &totals(found);
    for (what, positions) in [("source", &found.sources), ("sink", &found.sinks)] {
        positions.iter().for_each(|named| text += &position(what, named));
    }
    for file in &found.quarantined {
        text += &format!("moved aside  {}, {}\n", file.file, show_size(file.bytes));
    }
    if !found.segments.is_empty() {
        text += "\nsegment                    bytes   frames     records  first to last sequence, oldest to newest\n";
        found.segments.iter().for_each(|one| text += &segment(one));
    }
    text
}

fn condition(found: &Verification) -> String {
    let mut words = match &found.problem {
        Some(problem) => in_words(problem).to_owned(),
        None => "sound".to_owned(),
    };
    if let Some(loss) = &found.loss {
        let kind = loss_kind(loss).replace('_', " ");
        let _ = write!(
            words,
            ", with a {kind} of {} in {} at byte {}",
            show_number(loss.bytes, "byte"),
            loss.file,
            loss.offset
        );
    }
    match found.in_use {
        Use::By(pid) => words + &format!(", in use by process {pid}"),
        Use::Free => words + ", not in use",
        _ => words,
    }
}

fn in_words(problem: &Problem) -> &'static str {
    match problem.code {
        "state_newer" => "written by a newer version",
        "state_of_other_configuration" if problem.file.as_deref() == Some("SECRET") => {
            "with another secret than the log's"
        }
        "state_of_other_configuration" => "with segments of another state",
        _ => "corrupt",
    }
}

fn configuration(found: &Inspection) -> String {
    let unknown = || "unknown".to_owned();
    format!(
        "made with    format {}, hash {}, id paths {}, secret {} ({}){}\n",
        found.format_version,
        found.hash.and_then(hash_name).unwrap_or("unknown"),
        found.id_paths_digest.map_or_else(unknown, |digest| hex(&digest)),
        found.secret_check.map_or_else(unknown, |check| hex(&check)),
        secret_word(found.secret),
        if found.has_digests == Some(true) { ", payload digests beside the ids" } else { "" },
    )
}

fn totals(found: &Inspection) -> String {
    let ids = found.verification.ids;
    let mut text = format!(
        "records      {} seen, {} refreshed, {} forgotten, in {}\n",
        show_count(ids.seen),
        show_count(ids.refreshed),
        show_count(ids.forgotten),
        show_number(found.verification.frames, "frame"),
    );
    let per_id = found.bytes_per_id().map_or_else(String::new, |bytes| format!(", {bytes:.1} bytes per record"));
    let (files, frames) = (show_size(found.verification.bytes), show_size(found.frame_bytes));
    let _ = writeln!(
        text,
        "size         {files} in {}, {frames} in frames{per_id}",
        show_number(found.segments.len() as u64, "file")
    );
    if let Some(times) = found.times() {
        let _ = writeln!(text, "times        {}", range(times));
    }
    text
}

fn position(what: &str, named: &Named) -> String {
    format!("{what:<12} {} at {}\n", text_or_hex(&named.name), text_or_hex(&named.position))
}

fn segment(segment: &Segment) -> String {
    let ids = segment.ids.seen + segment.ids.refreshed + segment.ids.forgotten;
    let (bytes, frames, ids) = (show_size(segment.bytes), show_count(segment.frames), show_count(ids));
    let mut line = format!("{:<20} {bytes:>11} {frames:>8} {ids:>11}", segment.file);
    if let Some((first, last)) = segment.sequences {
        let _ = write!(line, "  {first} to {last}");
    }
    if let Some(times) = segment.times {
        let _ = write!(line, ", {}", range(times));
    }
    if let Some(sequence) = segment.resumes {
        let _ = write!(line, "  resumes after {sequence}");
    }
    if segment.is_recycled {
        line += "  recycled";
    }
    if !segment.is_readable {
        line += "  its first page cannot be read";
    }
    line + "\n"
}

fn range((oldest, newest): (Timestamp, Timestamp)) -> String {
    format!("{} to {}", rfc3339(oldest), rfc3339(newest))
}
