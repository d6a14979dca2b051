//! The decoder against serde_json, and its engines against each other, on made and on broken lines.

mod decode_oracle;

use decode_oracle::{Answer, expected, is_json, records};
use dedupd::decode::{BadReason, KeySpec};
use proptest::collection::vec;
use proptest::prelude::*;

/// Pieces that lines are made of: enough of each kind that a random row of them is now and then valid, and nearly
/// always almost valid.
const PIECES: &[&str] = &[
    "{",
    "}",
    "[",
    "]",
    ",",
    ":",
    "{\"id\":",
    "\"id\":",
    "\"id\"",
    ",\"id\":\"a\"",
    "\"x\":",
    ",\"x\":{",
    ",\"y\":[",
    "\"",
    "\\",
    "\\\"",
    "\\u0069d",
    "\\ud800",
    "\"\\u0069d\":1",
    " ",
    "\t",
    "\r",
    "\n",
    "\r\n",
    "0",
    "1",
    "-",
    "-1",
    "1.5e+3",
    "01",
    "1.",
    "true",
    "false",
    "null",
    "tru",
    "\"\"",
    "\"a\"",
    "\"é\"",
    "\"\u{10FFFF}\"",
    "é",
    "\"\\n\"",
    "\"\\/\"",
    "\"\\",
    "\u{1}",
    "{}",
    "[]",
    "[{}]",
    "{\"id\":1}",
    "{\"id\":\"evt\",\"n\":[1,2,{\"id\":null}]}\n",
    "x",
    "\u{FEFF}",
    "                                                               ",
    "\"                                           \"",
];

fn soup() -> impl Strategy<Value = Vec<u8>> {
    vec(proptest::sample::select(PIECES), 0..24).prop_map(|pieces| pieces.concat().into_bytes())
}

/// A JSON value as text, with free white space, duplicates and escapes.
fn json() -> impl Strategy<Value = String> {
    let space = || proptest::sample::select(&["", "", "", " ", "\t", "\r ", "      "][..]);
    let name =
        || proptest::sample::select(&["id", "i\\u0064", "a", "bid", "ID", "", "\\\"id", "data", "é", "long name"][..]);
    let leaf = prop_oneof![
        proptest::sample::select(
            &[
                "null",
                "true",
                "false",
                "0",
                "-0.0",
                "12",
                "1e9",
                "-3.25E-7",
                "18446744073709551617",
                "\"\"",
                "\"\\ud800\""
            ][..]
        )
        .prop_map(str::to_owned),
        "[a-zé\u{1F600} ,:{}\\[\\]]{0,20}".prop_map(|text| format!("\"{text}\"")),
        "(\\\\[\"\\\\/bfnrt]|\\\\u[0-9a-fA-F]{4}|[a-z]){0,12}".prop_map(|text| format!("\"{text}\"")),
    ];
    leaf.prop_recursive(4, 32, 6, move |inner| {
        let object = vec((space(), name(), space(), inner.clone()), 0..6).prop_map(|members| {
            let members: Vec<_> =
                members.iter().map(|(a, name, b, value)| format!("{a}\"{name}\"{b}:{a}{value}{b}")).collect();
            format!("{{{}}}", members.join(","))
        });
        let array = vec((space(), inner), 0..6).prop_map(|elements| {
            let elements: Vec<_> = elements.iter().map(|(a, value)| format!("{a}{value}{a}")).collect();
            format!("[{}]", elements.join(","))
        });
        prop_oneof![4 => object, 1 => array]
    })
}

/// Lines of which some are broken by a byte put in, taken out or exchanged.
fn broken() -> impl Strategy<Value = Vec<u8>> {
    let line =
        (json(), vec((any::<proptest::sample::Index>(), 0..3_u8, any::<u8>()), 0..2)).prop_map(|(json, edits)| {
            let mut line = json.into_bytes();
            for (index, kind, byte) in edits {
                let byte = if byte < 128 { b"\"\\{}[],:0 \t-ut\n\x01\xff\xc3"[usize::from(byte) % 18] } else { byte };
                let at = index.index(line.len().max(1));
                match kind {
                    0 => line.insert(at, byte),
                    1 if at < line.len() => drop(line.remove(at)),
                    _ if at < line.len() => line[at] = byte,
                    _ => {}
                }
            }
            line
        });
    (vec(line, 1..8), any::<bool>()).prop_map(|(lines, ends)| {
        let mut bytes = lines.join(&b'\n');
        bytes.extend(ends.then_some(b'\n'));
        bytes
    })
}

fn agrees_with_serde_json(bytes: &[u8]) {
    for line in records(&KeySpec::default(), bytes) {
        let text = line.bytes.strip_suffix(b"\n").unwrap_or(&line.bytes);
        let blank = text.iter().all(|byte| b" \t\r".contains(byte));
        let malformed = matches!(&line.content, Answer::Bad(bad) if bad.reason == BadReason::Malformed);
        assert!(line.bytes.len() - text.len() <= 1 && !text.contains(&b'\n'));
        assert_eq!(line.content == Answer::Blank, blank);
        if !is_json(text) {
            assert!(blank || malformed, "{:?}", String::from_utf8_lossy(text));
            continue;
        }
        let ours = match line.content {
            Answer::Id(id) => Ok(id),
            Answer::Bad(bad) => Err(bad.reason),
            Answer::Blank => unreachable!("a blank line is not JSON"),
        };
        match expected(text, "id") {
            Some(expected) => assert_eq!(ours, expected, "{:?}", String::from_utf8_lossy(text)),
            None => assert!(text.windows(3).any(|three| three.eq_ignore_ascii_case(b"\\ud"))),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3000))]

    #[test]
    fn a_row_of_pieces_is_judged_as_serde_json_judges_it(bytes in soup()) {
        agrees_with_serde_json(&bytes);
    }

    #[test]
    fn made_and_broken_lines_are_judged_as_serde_json_judges_them(bytes in broken()) {
        agrees_with_serde_json(&bytes);
    }

    #[test]
    fn any_bytes_are_judged_as_serde_json_judges_them(bytes in vec(any::<u8>(), 0..200)) {
        agrees_with_serde_json(&bytes);
    }
}
