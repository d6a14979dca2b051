//! The decoder's engines against each other and against serde_json, on arbitrary bytes.
//!
//! The first byte chooses the key, so that nested paths, alternatives, composites and indexes are reached; the rest are
//! lines. The oracle is the one of the tests.
#![no_main]

#[path = "../../tests/decode_oracle/mod.rs"]
mod decode_oracle;

use decode_oracle::{Answer, decode, expected, is_json, keys, records};
use dedupd::decode::{BadReason, Decoder, Engine, KeySpec, TimeSpec, TimeUnit, member_paths};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Some((&choice, bytes)) = bytes.split_first() else { return };
    if choice % 8 == 0 {
        for line in records(&KeySpec::default(), bytes) {
            agrees_with_serde_json(&line);
        }
        return;
    }
    let key = match choice % 8 {
        1 => keys(&["data.id"]),
        2 => keys(&["a|data.id|id"]),
        3 => keys(&["id", "data.object.id", "n"]),
        4 => keys(&["/data/0/id"]),
        5 => keys(&["@line"]),
        6 => keys(&["a", "b", "c", "d", "e|id"]),
        _ => keys(&["a long name|/"]),
    };
    records(&key, bytes);
    let decoder = |engine| {
        let unit = if choice < 128 { TimeUnit::Seconds } else { TimeUnit::Rfc3339 };
        let time = TimeSpec::parse("t|data.t", unit).unwrap();
        Decoder::new(key.clone()).with_time(time).with_engine(engine)
    };
    let lines = decode(&mut decoder(Engine::Scalar), bytes);
    for engine in [Engine::Avx2, Engine::Avx512] {
        assert_eq!(lines, decode(&mut decoder(engine), bytes), "{engine:?}");
    }
    for line in &lines {
        decoder(Engine::Scalar).explain(&line.bytes);
        member_paths(&line.bytes, 8);
    }
});

fn agrees_with_serde_json(line: &decode_oracle::Line) {
    let text = line.bytes.strip_suffix(b"\n").unwrap_or(&line.bytes);
    let malformed = matches!(&line.content, Answer::Bad(bad) if bad.reason == BadReason::Malformed);
    if !is_json(text) {
        assert!(malformed || line.content == Answer::Blank);
        return;
    }
    let ours = match &line.content {
        Answer::Id(id) => Ok(id.clone()),
        Answer::Bad(bad) => Err(bad.reason),
        Answer::Blank => unreachable!("a blank line is not JSON"),
    };
    if let Some(expected) = expected(text, "id") {
        assert_eq!(ours, expected);
    }
}
