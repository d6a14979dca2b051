//! JSONTestSuite, each document as a member's value on one line, judged by every engine.
//!
//! The documents are found in `DEDUPD_DATA/JSONTestSuite/test_parsing`, by default in `../shared/data`; without them
//! there is nothing to test and the test says so.

mod decode_oracle;

use std::path::PathBuf;

use decode_oracle::{Answer, records};
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

fn documents() -> Option<Vec<(String, Vec<u8>)>> {
    let data = std::env::var_os("DEDUPD_DATA").map(PathBuf::from);
    let data = data.unwrap_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../shared/data"));
    let folder = data.join("JSONTestSuite/test_parsing");
    let Ok(entries) = std::fs::read_dir(&folder) else {
        println!("skipped: {} is not there; set DEDUPD_DATA to the folder that has JSONTestSuite", folder.display());
        return None;
    };
    let read = |entry: std::io::Result<std::fs::DirEntry>| {
        let entry = entry.unwrap();
        (entry.file_name().into_string().unwrap(), std::fs::read(entry.path()).unwrap())
    };
    Some(entries.map(read).collect())
}
