//! What the decoder's tests share: owned records, and an oracle made of serde_json.
//!
//! The oracle knows where serde_json is not a judge: `IgnoredAny` reads every JSON value without a limit on depth,
//! without converting numbers and without refusing lone surrogates, but trusts its input to be UTF-8. So UTF-8 comes
//! from the standard library, and depth is counted here.
#![allow(dead_code, reason = "each test binary uses its part")]

use dedupd::Timestamp;
use dedupd::decode::{Bad, BadReason, BadTime, Content, Decoder, Engine, KeySpec};
use serde_json::value::RawValue;

/// One decoded line, owned.
#[derive(Clone, Debug, PartialEq)]
pub struct Line {
    pub start: usize,
    pub bytes: Vec<u8>,
    pub content: Answer,
    pub time: Option<Result<Timestamp, BadTime>>,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    Blank,
    Id(Vec<u8>),
    Bad(Bad),
}

pub const ENGINES: [Engine; 3] = [Engine::Scalar, Engine::Avx2, Engine::Avx512];

pub fn keys(texts: &[&str]) -> KeySpec {
    KeySpec::parse(texts).unwrap()
}

pub fn decode(decoder: &mut Decoder, bytes: &[u8]) -> Vec<Line> {
    let mut lines = Vec::new();
    decoder.decode(bytes, &mut |record| {
        let content = match record.content {
            Content::Blank => Answer::Blank,
            Content::Id(id) => Answer::Id(id.to_vec()),
            Content::Bad(bad) => Answer::Bad(bad),
        };
        lines.push(Line { start: record.start, bytes: record.line.to_vec(), content, time: record.time });
    });
    lines
}

/// The records of `bytes`, which all engines agree on, and which together are `bytes`.
pub fn records(key: &KeySpec, bytes: &[u8]) -> Vec<Line> {
    let [scalar, others @ ..] = ENGINES.map(|engine| decode(&mut Decoder::new(key.clone()).with_engine(engine), bytes));
    for (other, engine) in others.iter().zip(&ENGINES[1..]) {
        assert_eq!(&scalar, other, "{engine:?}: {:?}", String::from_utf8_lossy(bytes));
    }
    assert!(scalar.iter().flat_map(|line| &line.bytes).eq(bytes), "every byte is in one line");
    let mut start = 0;
    for line in &scalar {
        assert_eq!(line.start, start);
        start += line.bytes.len();
    }
    scalar
}

/// The answer for one line.
pub fn answer(key: &KeySpec, line: &[u8]) -> Answer {
    let lines = records(key, line);
    assert_eq!(lines.len(), 1, "{:?}", String::from_utf8_lossy(line));
    lines[0].content.clone()
}

pub fn reason(key: &KeySpec, line: &[u8]) -> Option<BadReason> {
    match answer(key, line) {
        Answer::Bad(bad) => Some(bad.reason),
        _ => None,
    }
}

/// Whether a line without its newline is RFC 8259 JSON, nested up to 512.
pub fn is_json(line: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(line) else { return false };
    serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok() && depth(line) <= 512
}

/// How deep a valid line is nested.
pub fn depth(line: &[u8]) -> usize {
    let (mut depth, mut deepest, mut in_string, mut escaped) = (0_usize, 0, false, false);
    for byte in line {
        match (in_string, byte) {
            (true, _) if escaped => escaped = false,
            (true, b'\\') => escaped = true,
            (_, b'"') => in_string = !in_string,
            (false, b'{' | b'[') => depth += 1,
            (false, b'}' | b']') => depth = depth.saturating_sub(1),
            _ => {}
        }
        deepest = deepest.max(depth);
    }
    deepest
}

/// What the member `name` of a valid line comes to; `None` when serde_json cannot tell, because a name at the top has a
/// lone surrogate.
pub fn expected(line: &[u8], name: &str) -> Option<Result<Vec<u8>, BadReason>> {
    let text = std::str::from_utf8(line).ok()?;
    if !text.trim_start_matches([' ', '\t', '\r']).starts_with('{') {
        return Some(Err(BadReason::MissingId));
    }
    let Members(members) = serde_json::from_str(text).ok()?;
    let found: Vec<&str> = members.iter().filter(|(key, _)| key == name).map(|(_, value)| value.get()).collect();
    Some(match found[..] {
        [] => Err(BadReason::MissingId),
        [value] => canonical(value),
        _ => Err(BadReason::AmbiguousId),
    })
}

fn canonical(value: &str) -> Result<Vec<u8>, BadReason> {
    let bytes = match value.as_bytes()[0] {
        b'{' | b'[' => return Err(BadReason::Malformed),
        b'n' => return Err(BadReason::MissingId),
        b'"' => {
            // serde_json decodes a lone surrogate into bytes that are not UTF-8, when asked for bytes.
            let decoded: serde_bytes_like::Bytes = serde_json::from_str(value).map_err(|_| BadReason::Malformed)?;
            match decoded.0.len() {
                0 => return Err(BadReason::MissingId),
                _ => [b"\"", &decoded.0[..]].concat(),
            }
        }
        _ => value.as_bytes().to_vec(),
    };
    let tag = usize::from(bytes[0] == b'"');
    let lone_at = std::str::from_utf8(&bytes).err().map(|error| error.valid_up_to());
    // What comes first decides, as the decoder reads from left to right.
    match lone_at {
        Some(at) if at - tag <= 1024 => Err(BadReason::Malformed),
        _ if bytes.len() - tag > 1024 => Err(BadReason::TooLong),
        _ => Ok(bytes),
    }
}

/// The members of an object in order, duplicates included.
struct Members(Vec<(String, Box<RawValue>)>);

impl<'de> serde::Deserialize<'de> for Members {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> serde::de::Visitor<'de> for Visitor {
            type Value = Members;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: serde::de::MapAccess<'de>>(self, mut map: A) -> Result<Members, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(Visitor)
    }
}

mod serde_bytes_like {
    /// A string's decoded bytes.
    pub struct Bytes(pub Vec<u8>);

    impl<'de> serde::Deserialize<'de> for Bytes {
        fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            struct Visitor;
            impl serde::de::Visitor<'_> for Visitor {
                type Value = Bytes;

                fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                    f.write_str("a string")
                }

                fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Bytes, E> {
                    Ok(Bytes(bytes.to_vec()))
                }
            }
            deserializer.deserialize_bytes(Visitor)
        }
    }
}
