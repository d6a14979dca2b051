//! Canonical IDs and their fingerprints are a disk format: a change here is a new format, not a fix.

mod decode_oracle;

use decode_oracle::{Answer, answer, keys};
use dedupd::{Deduplicator, IdHash};

const LINE: &str =
    r#"{"id":"evt_1","esc":"\u0061\n\u00e9\ud83d\ude00","n":1.0,"ok":true,"z":"\u0000","data":{"id":-0}}"#;

/// Key, canonical bytes, SipHash13 and Xxh3 fingerprints under the secret of 32 sevens.
const GOLDEN: &[(&[&str], &[u8], &str, &str)] = &[
    (&["id"], b"\"evt_1", "aeddb868a7452677d1a469857d5d1674", "481ab08af6199078cb02eca5d995d329"),
    (
        &["esc"],
        b"\"a\n\xc3\xa9\xf0\x9f\x98\x80",
        "28804d6b1daae436a2cd2fdeaad03d21",
        "785a78d7b8736ece96517e3c9eafc2a0",
    ),
    (&["n"], b"1.0", "c12591c84ea6c4902e4c214b2376b142", "5c8a3f674678c9a9578f04b9ed04a2a1"),
    (&["ok"], b"true", "d6cb3892099d9a860b21b367e26d6c69", "bda20e3ca619fce4753a153db2b0a72d"),
    (&["z"], b"\"\0", "cb114c92a92707bb0d8ff3d9d18078f2", "a9cf31015ffc74ace133ab372e66cc56"),
    (&["data.id"], b"-0", "e33d1ea02e8fa9383ebe3bda1e0f0c0e", "cef5c1c9d74006ba941cbb43e98bda44"),
    (
        &["id", "n"],
        b"\x06\0\0\0\"evt_1\x03\0\0\x001.0",
        "cd9e6e3abb12bde4489342642c834719",
        "dd925867030b75b83393e47143582b70",
    ),
    (
        &["ok", "data.id", "esc"],
        b"\x04\0\0\0true\x02\0\0\0-0\x09\0\0\0\"a\n\xc3\xa9\xf0\x9f\x98\x80",
        "cdf472884f16f5627e924ccfa31ec824",
        "6f565710714b6fdf660afaeff1ee46b8",
    ),
    (&["@line"], LINE.as_bytes(), "b42b325065001adf0a17e519ecef211f", "934ce5383156c64e7df297939cc207df"),
];

#[test]
fn canonical_bytes_and_fingerprints_stay_what_they_are() {
    let fingerprint = |hash, id: &[u8]| {
        let dedup = Deduplicator::builder().secret([7_u8; 32]).hash(hash).build().unwrap();
        dedup.fingerprint(id).to_string()
    };
    let mut wrong = Vec::new();
    for (key, canonical, siphash13, xxh3) in GOLDEN {
        assert_eq!(answer(&keys(key), format!("{LINE}\n").as_bytes()), Answer::Id(canonical.to_vec()), "{key:?}");
        let now = (fingerprint(IdHash::SipHash13, canonical), fingerprint(IdHash::Xxh3, canonical));
        if (now.0.as_str(), now.1.as_str()) != (siphash13, xxh3) {
            wrong.push((key, now));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}
