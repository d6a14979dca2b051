//! The parse role: what the lines of a chunk are, and the fingerprints of their IDs. Any number of threads.

use dedupd::Deduplicator;
use dedupd::decode::{Bad, BadReason, BadTime, Content, Decoder, Record, strip_bom};

use super::chunk::{Chunk, Kind, Line, Shape};
use crate::config::Reading;

/// One thread's decoder.
pub struct Parser<'a> {
    decoder: Decoder,
    dedup: &'a Deduplicator,
    reading: &'a Reading,
    /// Of the line that is parsed.
    payload: Vec<u8>,
}

impl<'a> Parser<'a> {
    pub fn new(reading: &'a Reading, dedup: &'a Deduplicator) -> Self {
        Self { decoder: reading.decoder(), dedup, reading, payload: Vec::new() }
    }

    pub fn parse(&mut self, chunk: &mut Chunk) {
        if chunk.shape != Shape::Lines {
            return;
        }
        let (mut lines, mut ids) = (std::mem::take(&mut chunk.lines), std::mem::take(&mut chunk.ids));
        let (mut timed, mut bad) = (std::mem::take(&mut chunk.timed), std::mem::take(&mut chunk.bad));
        let bom = if chunk.offset == 0 { strip_bom(chunk.bytes()) } else { 0 };
        let (dedup, bytes_max) = (self.dedup, self.reading.line_bytes_max);
        let mut digests = std::mem::take(&mut chunk.digests);
        let (spec, payload) = (&self.reading.payload, &mut self.payload);
        self.decoder.decode(&chunk.bytes()[bom..], &mut |record| {
            let kind = match judge(&record, bytes_max) {
                Content::Id(id) => {
                    let id = dedup.fingerprint(id);
                    if let Some(spec) = spec {
                        digests.push(dedup.digest(id, spec.payload(record.line, payload)));
                    }
                    match record.time {
                        Some(Ok(time)) => timed.push((id, time)),
                        _ => ids.push(id),
                    }
                    Kind::Id
                }
                Content::Blank => Kind::Blank,
                Content::Bad(why) => {
                    if bad.iter().all(|(_, known): &(usize, Bad)| known.reason != why.reason) {
                        bad.push((lines.len(), why));
                    }
                    Kind::Bad(why.reason)
                }
            };
            lines.push(Line { end: (bom + record.start + record.line.len()) as u32, kind });
        });
        if lines.is_empty() {
            // A byte order mark and nothing else.
            lines.push(Line { end: chunk.bytes().len() as u32, kind: Kind::Blank });
        }
        (chunk.lines, chunk.ids, chunk.timed, chunk.bad) = (lines, ids, timed, bad);
        chunk.digests = digests;
    }
}

/// What the record is once its length and its time are looked at too.
fn judge<'r>(record: &Record<'r>, bytes_max: usize) -> Content<'r> {
    if record.line.len() > bytes_max && record.line.len() - usize::from(record.line.ends_with(b"\n")) > bytes_max {
        return bad(BadReason::TooLong, 0, "the line is longer than --max-line");
    }
    match (record.content, record.time) {
        (Content::Id(_), Some(Err(time))) => match time {
            BadTime::Missing => bad(BadReason::Malformed, 0, "the event time is missing"),
            BadTime::Unreadable { offset, what } => bad(BadReason::Malformed, offset, what),
            BadTime::Ambiguous { offset } => bad(BadReason::Malformed, offset, "the event time occurs twice"),
        },
        (content, _) => content,
    }
}

fn bad<'r>(reason: BadReason, offset: usize, what: &'static str) -> Content<'r> {
    Content::Bad(Bad { reason, offset, what })
}
