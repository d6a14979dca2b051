//! What verify and inspect say as JSON. The names are stable: programs read them.

use std::fmt::Write as _;

use dedupd::state::{Ids, Inspection, Loss, Named, Problem, SecretFile, Segment, Use, Verification};
use dedupd::{IdHash, Timestamp};
use serde::Serialize;

use super::time::rfc3339;

#[derive(Debug, Serialize)]
pub struct VerifyReport {
    #[serde(flatten)]
    condition: ConditionReport,
    segments: u64,
}

/// What both say.
#[derive(Debug, Serialize)]
struct ConditionReport {
    state: String,
    sound: bool,
    problem: Option<ProblemReport>,
    /// Null also while somebody is writing there.
    loss: Option<LossReport>,
    /// Null when it cannot be told.
    in_use: Option<bool>,
    /// The process that has it open.
    pid: Option<u32>,
    bytes: u64,
    frames: u64,
    ids: IdsReport,
}

#[derive(Debug, Serialize)]
struct ProblemReport {
    code: &'static str,
    file: Option<String>,
    offset: Option<u64>,
    message: String,
}

#[derive(Debug, Serialize)]
struct LossReport {
    kind: &'static str,
    file: String,
    offset: u64,
    bytes: u64,
    frames: u64,
}

#[derive(Debug, Serialize)]
struct IdsReport {
    seen: u64,
    refreshed: u64,
    forgotten: u64,
}

#[derive(Debug, Serialize)]
pub struct InspectReport {
    #[serde(flatten)]
    condition: ConditionReport,
    format_version: u32,
    hash: Option<&'static str>,
    id_paths_digest: Option<String>,
    /// Payload digests stand beside the ids, and are counted and written like them.
    payload_digests: Option<bool>,
    secret_check: Option<String>,
    secret: &'static str,
    oldest: Option<String>,
    newest: Option<String>,
    frame_bytes: u64,
    bytes_per_id: Option<f64>,
    sources: Vec<PositionReport>,
    sinks: Vec<PositionReport>,
    segments: Vec<SegmentReport>,
    quarantined: Vec<FileReport>,
}

#[derive(Debug, Serialize)]
struct PositionReport {
    name: String,
    position: String,
}

#[derive(Debug, Serialize)]
struct SegmentReport {
    number: u64,
    file: String,
    bytes: u64,
    readable: bool,
    frames: u64,
    first_sequence: Option<u64>,
    last_sequence: Option<u64>,
    oldest: Option<String>,
    newest: Option<String>,
    ids: IdsReport,
    /// The sequence that the process before had come to, in the first segment of a process.
    resumes: Option<u64>,
    recycled: bool,
}

#[derive(Debug, Serialize)]
struct FileReport {
    file: String,
    bytes: u64,
}

impl VerifyReport {
    pub fn new(state: String, found: &Verification) -> Self {
        Self { condition: ConditionReport::new(state, found), segments: found.segments }
    }
}

impl ConditionReport {
    fn new(state: String, found: &Verification) -> Self {
        Self {
            state,
            sound: found.is_sound(),
            problem: found.problem.as_ref().map(ProblemReport::new),
            loss: found.loss.as_ref().map(LossReport::new),
            in_use: found.in_use.is_in_use(),
            pid: match found.in_use {
                Use::By(pid) => Some(pid),
                _ => None,
            },
            bytes: found.bytes,
            frames: found.frames,
            ids: IdsReport::new(found.ids),
        }
    }
}

impl ProblemReport {
    fn new(problem: &Problem) -> Self {
        let Problem { code, file, offset, message, .. } = problem.clone();
        Self { code, file, offset, message }
    }
}

impl LossReport {
    fn new(loss: &Loss) -> Self {
        let kind = loss_kind(loss);
        Self { kind, file: loss.file.clone(), offset: loss.offset, bytes: loss.bytes, frames: loss.frames }
    }
}

pub fn loss_kind(loss: &Loss) -> &'static str {
    if loss.frames == 0 { "torn_tail" } else { "hole" }
}

impl IdsReport {
    fn new(ids: Ids) -> Self {
        Self { seen: ids.seen, refreshed: ids.refreshed, forgotten: ids.forgotten }
    }
}

impl InspectReport {
    pub fn new(state: String, found: &Inspection) -> Self {
        let times = found.times();
        Self {
            condition: ConditionReport::new(state, &found.verification),
            format_version: found.format_version,
            hash: found.hash.and_then(hash_name),
            id_paths_digest: found.id_paths_digest.map(|digest| hex(&digest)),
            payload_digests: found.has_digests,
            secret_check: found.secret_check.map(|check| hex(&check)),
            secret: secret_word(found.secret),
            oldest: times.map(|(oldest, _)| rfc3339(oldest)),
            newest: times.map(|(_, newest)| rfc3339(newest)),
            frame_bytes: found.frame_bytes,
            bytes_per_id: found.bytes_per_id(),
            sources: found.sources.iter().map(PositionReport::new).collect(),
            sinks: found.sinks.iter().map(PositionReport::new).collect(),
            segments: found.segments.iter().map(SegmentReport::new).collect(),
            quarantined: found
                .quarantined
                .iter()
                .map(|file| FileReport { file: file.file.clone(), bytes: file.bytes })
                .collect(),
        }
    }
}

impl PositionReport {
    fn new(named: &Named) -> Self {
        Self { name: text_or_hex(&named.name), position: text_or_hex(&named.position) }
    }
}

impl SegmentReport {
    fn new(segment: &Segment) -> Self {
        let time = |time: Option<Timestamp>| time.map(rfc3339);
        Self {
            number: segment.number,
            file: segment.file.clone(),
            bytes: segment.bytes,
            readable: segment.is_readable,
            frames: segment.frames,
            first_sequence: segment.sequences.map(|(first, _)| first),
            last_sequence: segment.sequences.map(|(_, last)| last),
            oldest: time(segment.times.map(|(oldest, _)| oldest)),
            newest: time(segment.times.map(|(_, newest)| newest)),
            ids: IdsReport::new(segment.ids),
            resumes: segment.resumes,
            recycled: segment.is_recycled,
        }
    }
}

/// As `--hash` is given.
pub fn hash_name(hash: IdHash) -> Option<&'static str> {
    match hash {
        IdHash::SipHash13 => Some("siphash13"),
        IdHash::Xxh3 => Some("xxh3"),
        _ => None,
    }
}

pub fn secret_word(secret: SecretFile) -> &'static str {
    match secret {
        SecretFile::Right => "right",
        SecretFile::Other => "other",
        SecretFile::Missing => "missing",
        SecretFile::Bad => "bad",
        _ => "unknown",
    }
}

/// Bytes as they are when that can be printed, and otherwise in hexadecimal after `0x`.
pub fn text_or_hex(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) if !text.chars().any(char::is_control) && !text.starts_with("0x") => text.to_owned(),
        _ => format!("0x{}", hex(bytes)),
    }
}

pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_text_when_that_is_clear() {
        assert_eq!(text_or_hex(b"orders 12"), "orders 12");
        assert_eq!(text_or_hex("tür".as_bytes()), "tür");
        assert_eq!(text_or_hex(b""), "");
        assert_eq!(text_or_hex(&[0, 255]), "0x00ff");
        assert_eq!(text_or_hex(b"a\nb"), "0x610a62");
        assert_eq!(text_or_hex(b"0x00ff"), "0x307830306666", "it is not taken for the bytes 0 and 255");
    }
}
