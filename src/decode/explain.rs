//! Why a line has the ID that it has: for `dedupd explain`, not for the hot path.

use super::canonical::{self, Value};
use super::judge::{Judge, without_terminator};
use super::record::{Bad, BadTime, Content};
use crate::time::Timestamp;

/// How the ID of one line came about.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Explanation {
    /// One entry per part of the key; none for `@line`, and for lines that are blank or not JSON.
    pub parts: Vec<ExplainedPart>,
    /// What the line comes to.
    pub outcome: Outcome,
    /// Its event time, when one is asked for and the line can be read.
    pub time: Option<Result<Timestamp, BadTime>>,
}

/// What one part of the key found.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ExplainedPart {
    /// The canonical text of the whole part, alternatives included.
    pub key: String,
    /// What was found there, or why nothing can be used.
    pub found: Result<ExplainedValue, Bad>,
}

/// A value that took part in an ID.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ExplainedValue {
    /// Which alternative won, counted from 0.
    pub alternative: usize,
    /// The canonical text of the path that won.
    pub path: String,
    /// `string`, `number` or `boolean`.
    pub json_type: &'static str,
    /// Where the value starts in the line.
    pub offset: usize,
    /// The decoded bytes: a string's value, a number or literal as it is written.
    pub decoded: Vec<u8>,
    /// The canonical bytes of this part alone.
    pub canonical: Vec<u8>,
}

/// What a line comes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Not an event.
    Blank,
    /// The canonical bytes that name the event.
    Id(Vec<u8>),
    /// The event cannot be named.
    Bad(Bad),
}

pub(super) fn explain(judge: &mut Judge, line: &[u8]) -> Explanation {
    let record = judge.judge(line, 0);
    let time = record.time;
    let outcome = match record.content {
        Content::Blank => Outcome::Blank,
        Content::Id(id) => Outcome::Id(id.to_vec()),
        Content::Bad(bad) => Outcome::Bad(bad),
    };
    let text = without_terminator(line);
    let searched = outcome != Outcome::Blank && !judge.keys.is_line() && judge.check(text).is_ok();
    let parts = if searched { judge.search.parts() - usize::from(judge.time.is_some()) } else { 0 };
    Explanation { parts: (0..parts).map(|part| explain_part(judge, text, part)).collect(), outcome, time }
}

fn explain_part(judge: &Judge, text: &[u8], part: usize) -> ExplainedPart {
    let alternatives = judge.search.alternatives(part);
    let paths: Vec<String> = alternatives.iter().map(|wanted| wanted.path().to_string()).collect();
    let found = canonical::choose(text, alternatives).and_then(|chosen| {
        let mut canonical = Vec::new();
        canonical::write(chosen.value, chosen.at, &mut canonical)?;
        let tag_bytes = usize::from(matches!(chosen.value, Value::Text(_)));
        Ok(ExplainedValue {
            alternative: chosen.alternative,
            path: paths[chosen.alternative].clone(),
            json_type: chosen.value.kind(),
            offset: chosen.at,
            decoded: canonical[tag_bytes..].to_vec(),
            canonical,
        })
    });
    ExplainedPart { key: paths.join("|"), found }
}
