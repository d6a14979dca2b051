//! The operation ID and the correlation ID of a line that is spoken of, by which whoever reads a message finds the event
//! in their traces.
//!
//! They are looked up when a message is about one line, in that line alone, by the exact decoder: the others cost nothing.
//! They are no part of an event's identity. No verdict depends on them, and a state does not know them.

use dedupd::decode::{Decoder, KeyError, KeySpec, strip_bom};

use super::chunk::Chunk;
use crate::args::FilterArgs;
use crate::config::Reading;
use crate::exit::Failure;
use crate::log::About;

/// Where these IDs stand.
#[derive(Clone, Debug, Default)]
pub struct Fields {
    operation: Option<KeySpec>,
    correlation: Option<KeySpec>,
    /// A longer line is not looked into, whether it has come in parts or not.
    line_bytes_max: usize,
}

impl Fields {
    pub fn new(args: &FilterArgs, reading: &Reading) -> Result<Self, Failure> {
        let parse = |flag, path: &Option<String>| path.as_deref().map(|path| parse(flag, path, reading)).transpose();
        Ok(Self {
            operation: parse("--operation-field", &args.operation_field)?,
            correlation: parse("--correlation-field", &args.correlation_field)?,
            line_bytes_max: reading.line_bytes_max,
        })
    }

    /// Line `line` of `chunk`, which stands at `place`.
    pub fn about(&self, place: String, chunk: &Chunk, line: usize) -> About {
        let text = self.text(chunk, line).unwrap_or_default();
        let [operation_id, correlation_id] =
            [&self.operation, &self.correlation].map(|path| path.as_ref().and_then(|path| find(path, text)));
        About { place, operation_id, correlation_id }
    }

    /// The line, unless it is too long.
    fn text<'c>(&self, chunk: &'c Chunk, line: usize) -> Option<&'c [u8]> {
        // Of a part of a line nobody knows what it is.
        chunk.lines.get(line)?;
        let text = &chunk.bytes()[chunk.range(line)];
        let mark = if line == 0 && chunk.offset == 0 { strip_bom(text) } else { 0 };
        let text = text[mark..].strip_suffix(b"\n").unwrap_or(&text[mark..]);
        (text.len() <= self.line_bytes_max).then_some(text)
    }
}

fn parse(flag: &str, path: &str, reading: &Reading) -> Result<KeySpec, Failure> {
    let refused = |error: KeyError| Failure::usage(format!("{flag}: {error}"));
    let path = KeySpec::parse(&[path]).map_err(refused)?;
    if path.is_line() {
        return Err(refused(KeyError::LineCombined));
    }
    if reading.keys.is_line() && reading.time.is_none() {
        return Err(Failure::usage(format!("{flag} finds nothing with --key @line, which reads no JSON")));
    }
    Ok(path)
}

/// The value at `path`, as text; none when it could not be an event ID either.
fn find(path: &KeySpec, line: &[u8]) -> Option<String> {
    let part = Decoder::new(path.clone()).explain(line).parts.into_iter().next()?;
    String::from_utf8(part.found.ok()?.decoded).ok()
}
