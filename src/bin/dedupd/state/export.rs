//! `dedupd export`: what a state remembers, as lines of JSON.

use std::io::{self, BufWriter, Write};
use std::ops::ControlFlow;
use std::path::Path;

use dedupd::Fingerprint;
use dedupd::state::{self, Record, What};
use serde::Serialize;

use super::failure;
use super::json::{hex, text_or_hex};
use super::time::rfc3339;
use crate::exit::{Exit, Failure};
use crate::stdout_failure;

/// A line. The names are stable: programs read them.
#[derive(Debug, Default, Serialize)]
struct Line {
    #[serde(skip_serializing_if = "Option::is_none")]
    sequence: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    fingerprint: Option<String>,
    time: String,
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    position: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    bytes: Option<String>,
}

pub fn export(dir: &Path, all: bool) -> Result<Exit, Failure> {
    let mut out = BufWriter::with_capacity(1 << 16, io::stdout().lock());
    let mut written = Ok(());
    let each = |record: Record<'_>| {
        written = write(&mut out, &record, all);
        if written.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    };
    let read = if all { state::records(dir, each) } else { state::export(dir, each) };
    match written.and_then(|()| out.flush()) {
        // A reader that has seen enough is no failure.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(Exit::Done),
        Err(error) => Err(stdout_failure(&error)),
        Ok(()) => read.map(|()| Exit::Done).map_err(|error| failure(&error)),
    }
}

fn write(out: &mut impl Write, record: &Record<'_>, all: bool) -> io::Result<()> {
    let sequence = all.then_some(record.sequence);
    let line = Line { sequence, time: rfc3339(record.time), ..Line::of(record.what) };
    serde_json::to_writer(&mut *out, &line)?;
    out.write_all(b"\n")
}

impl Line {
    fn of(what: What<'_>) -> Self {
        let bare = |kind| Self { kind, ..Self::default() };
        let id = |kind, id: Fingerprint| Self { fingerprint: Some(format!("{:032x}", id.as_u128())), ..bare(kind) };
        let named = |kind, name: &[u8], position: &[u8]| Self {
            name: Some(text_or_hex(name)),
            position: Some(text_or_hex(position)),
            ..bare(kind)
        };
        let opaque = |kind, bytes: &[u8]| Self { bytes: Some(hex(bytes)), ..bare(kind) };
        match what {
            What::Seen(fingerprint) => id("seen", fingerprint),
            What::Refresh(fingerprint) => id("refresh", fingerprint),
            What::Forget(fingerprint) => id("forget", fingerprint),
            What::Source { name, position } => named("source", name, position),
            What::Sink { name, position } => named("sink", name, position),
            What::Claim(bytes) => opaque("claim", bytes),
            What::Watermark => bare("watermark"),
            What::Clock(bytes) => opaque("clock", bytes),
            _ => bare("other"),
        }
    }
}
