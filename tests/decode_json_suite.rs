//! Data that others made: JSONTestSuite, each document as a member's value on one line, and real events.
//!
//! It is found in the folder `DEDUPD_DATA`, by default `../shared/data`; without it there is nothing to test and the tests
//! say so.

mod decode_oracle;

use std::path::PathBuf;

use decode_oracle::{Answer, keys, records};
use dedupd::decode::{BadReason, KeySpec};

#[test]
fn every_document_of_json_test_suite_is_judged_as_it_is_named() {
    let Some(documents) = documents() else { return };
    let mut judged = 0;
    for (name, document) in documents {
        let line = embedded(&name, &document);
        let lines = records(&KeySpec::default(), &line);
        let bad = |line: &decode_oracle::Line| matches!(&line.content, Answer::Bad(bad) if bad.reason == BadReason::Malformed);
        let good = lines.len() == 1 && lines[0].content == Answer::Id(b"\"k".to_vec());
        match name.as_bytes()[0] {
            b'y' => assert!(good, "{name}: {lines:?}"),
            b'n' => assert!(lines.iter().all(bad), "{name}: {lines:?}"),
            _ => assert!(lines.iter().all(bad) || good, "{name}: {lines:?}"),
        }
        judged += 1;
    }
    assert!(judged > 300, "only {judged} documents were there");
}

/// `{"id":"k","v":DOCUMENT}` on one line.
///
/// A newline in a document is white space, for which a space stands in, but in one: there it is what makes the document
/// wrong. It stays, and makes two lines that are both bad.
fn embedded(name: &str, document: &[u8]) -> Vec<u8> {
    let mut document = document.to_vec();
    if name != "n_string_unescaped_newline.json" {
        document.iter_mut().filter(|byte| **byte == b'\n').for_each(|byte| *byte = b' ');
    }
    [b"{\"id\":\"k\",\"v\":", &document[..], b"}\n"].concat()
}

#[test]
fn real_events_have_the_ids_that_serde_json_finds() {
    for (file, name) in [("events/github_events.ndjson", "id"), ("events/cloudtrail.ndjson", "eventID")] {
        let Some(path) = data(file) else { return };
        let lines = records(&keys(&[name]), &std::fs::read(path).unwrap());
        assert!(lines.len() > 100);
        for line in lines {
            let event: serde_json::Value = serde_json::from_slice(&line.bytes).unwrap();
            let id = [b"\"", event[name].as_str().unwrap().as_bytes()].concat();
            assert_eq!(line.content, Answer::Id(id));
        }
    }
}

fn documents() -> Option<Vec<(String, Vec<u8>)>> {
    let read = |entry: std::io::Result<std::fs::DirEntry>| {
        let entry = entry.unwrap();
        (entry.file_name().into_string().unwrap(), std::fs::read(entry.path()).unwrap())
    };
    Some(std::fs::read_dir(data("JSONTestSuite/test_parsing")?).unwrap().map(read).collect())
}

fn data(path: &str) -> Option<PathBuf> {
    let folder = std::env::var_os("DEDUPD_DATA").map(PathBuf::from);
    let folder = folder.unwrap_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../shared/data"));
    let path = folder.join(path);
    if !path.exists() {
        println!("skipped: {} is not there; set DEDUPD_DATA to the folder that has it", path.display());
    }
    path.exists().then_some(path)
}
