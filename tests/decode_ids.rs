//! Each sentence that is promised about event IDs from JSON, as a test. All engines answer.

mod decode_oracle;

use decode_oracle::{Answer, answer, decode, keys, reason, records};
use dedupd::decode::{BadReason, BadTime, Decoder, Engine, KeySpec, Outcome, TimeSpec, TimeUnit};
use dedupd::{Reason, Timestamp};

fn id(key: &KeySpec, line: &str) -> Vec<u8> {
    match answer(key, line.as_bytes()) {
        Answer::Id(id) => id,
        other => panic!("{line}: {other:?}"),
    }
}

fn why(key: &KeySpec, line: &str) -> Option<BadReason> {
    reason(key, line.as_bytes())
}

#[test]
fn a_string_is_found_at_its_member_wherever_that_stands() {
    let key = KeySpec::default();
    for line in [
        r#"{"id":"evt_1"}"#,
        r#"{"id":"evt_1","b":[1,{"id":2}]}"#,
        r#"{"a":{"id":"no"},"id":"evt_1","b":{"id":"no"}}"#,
        r#"{"a":"\"id\":\"no\"","idx":1,"xid":2,"id" : "evt_1"}"#,
        "\t{ \"id\"\t:\r\"evt_1\" }\r\n",
    ] {
        assert_eq!(id(&key, line), b"\"evt_1", "{line}");
    }
}

#[test]
fn strings_and_names_compare_by_decoded_value() {
    let key = KeySpec::default();
    assert_eq!(id(&key, r#"{"id":"\u0061"}"#), id(&key, r#"{"id":"a"}"#));
    assert_eq!(id(&key, r#"{"\u0069\u0064":"a"}"#), b"\"a");
    assert_eq!(id(&key, r#"{"id":"\/\"\\"}"#), b"\"/\"\\");
    assert_eq!(id(&key, r#"{"id":"\u0000"}"#), b"\"\0");
    assert_eq!(id(&key, r#"{"id":"\ud83d\ude00"}"#), id(&key, r#"{"id":"😀"}"#));
    assert_eq!(id(&keys(&["é"]), r#"{"\u00e9":1}"#), b"1");
}

#[test]
fn there_is_no_unicode_normalisation() {
    let key = KeySpec::default();
    assert_ne!(id(&key, r#"{"id":"\u00e9"}"#), id(&key, r#"{"id":"e\u0301"}"#));
}

#[test]
fn numbers_compare_by_their_bytes_whatever_their_size() {
    let key = KeySpec::default();
    let ids: Vec<_> = ["1", "1.0", "1e0", "\"1\""].map(|v| id(&key, &format!("{{\"id\":{v}}}"))).to_vec();
    assert_eq!(ids, [&b"1"[..], b"1.0", b"1e0", b"\"1"]);
    let long = "9".repeat(1024);
    assert_eq!(id(&key, &format!("{{\"id\":{long}}}")), long.as_bytes());
    assert_eq!(id(&key, "{\"id\":18446744073709551617 }"), b"18446744073709551617");
}

#[test]
fn true_and_false_are_ids() {
    let key = KeySpec::default();
    assert_eq!(id(&key, r#"{"id":true}"#), b"true");
    assert_eq!(id(&key, r#"{"id":false}"#), b"false");
}

#[test]
fn null_absent_and_the_empty_string_are_missing() {
    let key = KeySpec::default();
    for line in [r#"{"id":null}"#, r#"{}"#, r#"{"id":""}"#, r#"{"x":1}"#, "[]", r#"["id"]"#, "1", "\"id\"", "null"] {
        assert_eq!(why(&key, line), Some(BadReason::MissingId), "{line}");
    }
}

#[test]
fn an_object_or_array_is_bad() {
    let key = keys(&["id|b"]);
    for line in [r#"{"id":{},"b":1}"#, r#"{"id":[],"b":1}"#, r#"{"id":{"id":1}}"#, r#"{"id":[1]}"#] {
        assert_eq!(why(&key, line), Some(BadReason::Malformed), "{line}");
    }
}

#[test]
fn a_member_on_the_path_that_occurs_twice_is_ambiguous() {
    let key = KeySpec::default();
    for line in [
        r#"{"id":1,"id":2}"#,
        r#"{"id":1,"id":1}"#,
        r#"{"id":null,"id":1}"#,
        r#"{"id":1,"x":{"id":3},"\u0069d":1}"#,
        r#"{"id":{},"id":"a"}"#,
    ] {
        assert_eq!(why(&key, line), Some(BadReason::AmbiguousId), "{line}");
    }
    let nested = keys(&["data.object.id"]);
    for line in [
        r#"{"data":{"object":{"id":1}},"data":{}}"#,
        r#"{"data":1,"data":{"object":{"id":1}}}"#,
        r#"{"data":{"object":{"id":1},"object":2}}"#,
        r#"{"data":{"object":{"id":1,"id":2}}}"#,
        r#"{"data":{},"data":{}}"#,
    ] {
        assert_eq!(why(&nested, line), Some(BadReason::AmbiguousId), "{line}");
    }
}

#[test]
fn members_off_the_path_may_occur_twice() {
    assert_eq!(id(&KeySpec::default(), r#"{"a":1,"a":2,"id":3,"x":{"id":1,"id":2}}"#), b"3");
    let nested = keys(&["data.id"]);
    assert_eq!(id(&nested, r#"{"id":1,"id":2,"data":{"x":1,"x":1,"id":3,"y":{"id":1,"id":1}}}"#), b"3");
    assert_eq!(id(&nested, r#"{"x":{"data":{"id":1}},"data":{"id":3},"z":{"data":{"id":1}}}"#), b"3");
}

#[test]
fn ids_over_one_kibibyte_are_too_long() {
    let key = KeySpec::default();
    let line = |value: &str| format!("{{\"id\":{value}}}");
    let fits = "x".repeat(1024);
    assert_eq!(id(&key, &line(&format!("\"{fits}\""))).len(), 1025);
    assert_eq!(why(&key, &line(&format!("\"{fits}x\""))), Some(BadReason::TooLong));
    let escaped = "\\u0061".repeat(1024);
    assert_eq!(id(&key, &line(&format!("\"{escaped}\""))).len(), 1025);
    assert_eq!(why(&key, &line(&format!("\"{escaped}a\""))), Some(BadReason::TooLong));
    assert_eq!(why(&key, &line(&"9".repeat(1025))), Some(BadReason::TooLong));
    assert_eq!(why(&keys(&["id", "b"]), &line(&format!("\"{fits}x\",\"b\":1"))), Some(BadReason::TooLong));
}

#[test]
fn a_lone_surrogate_is_bad_in_an_id_and_fine_elsewhere() {
    let key = KeySpec::default();
    for value in [r"\ud800", r"\udc00", r"a\ud800\u0061", r"\udc00\ud800"] {
        assert_eq!(why(&key, &format!("{{\"id\":\"{value}\"}}")), Some(BadReason::Malformed), "{value}");
    }
    assert_eq!(id(&key, r#"{"\ud800":"\udc00","id":"a","b":["\ud800"]}"#), b"\"a");
}

#[test]
fn the_first_present_alternative_wins() {
    let key = keys(&["a|b.c|d"]);
    assert_eq!(id(&key, r#"{"d":3,"b":{"c":2},"a":1}"#), b"1");
    assert_eq!(id(&key, r#"{"d":3,"b":{"c":2},"a":null}"#), b"2");
    assert_eq!(id(&key, r#"{"d":3,"b":{"c":null}}"#), b"3");
    assert_eq!(id(&key, r#"{"d":3,"b":{"c":""},"a":""}"#), b"3");
    assert_eq!(why(&key, r#"{"a":null,"b":[],"d":""}"#), Some(BadReason::MissingId));
}

#[test]
fn an_ambiguity_counts_when_its_path_is_consulted() {
    let key = keys(&["a|b"]);
    assert_eq!(id(&key, r#"{"a":1,"b":2,"b":3}"#), b"1");
    assert_eq!(why(&key, r#"{"a":null,"a":null,"b":2}"#), Some(BadReason::AmbiguousId));
    assert_eq!(why(&key, r#"{"b":2,"b":3}"#), Some(BadReason::AmbiguousId));
}

#[test]
fn a_pointer_reaches_into_arrays_and_a_dotted_path_does_not() {
    let line = r#"{"data":{"items":[{"id":1},{"id":2,"x":[[7]]}]}}"#;
    assert_eq!(id(&keys(&["/data/items/0/id"]), line), b"1");
    assert_eq!(id(&keys(&["/data/items/1/id"]), line), b"2");
    assert_eq!(id(&keys(&["/data/items/1/x/0/0"]), line), b"7");
    assert_eq!(why(&keys(&["/data/items/2/id"]), line), Some(BadReason::MissingId));
    assert_eq!(why(&keys(&["data.items.0.id"]), line), Some(BadReason::MissingId));
    assert_eq!(id(&keys(&["data.items.0.id"]), r#"{"data":{"items":{"0":{"id":"x"}}}}"#), b"\"x");
    assert_eq!(id(&keys(&["/data/0"]), r#"{"data":{"0":"x"}}"#), b"\"x");
    assert_eq!(id(&keys(&["/0"]), r#"["x","y"]"#), b"\"x");
    assert_eq!(id(&keys(&["/a~1b/~0/c.d"]), r#"{"a/b":{"~":{"c.d":5}}}"#), b"5");
}

#[test]
fn a_composite_is_each_part_behind_its_length() {
    let key = keys(&["tenant", "n", "ok"]);
    let line = r#"{"n":12,"ok":true,"tenant":"a\u0062"}"#;
    assert_eq!(id(&key, line), b"\x03\0\0\0\"ab\x02\0\0\x0012\x04\0\0\0true");
    assert_eq!(why(&key, r#"{"n":12,"tenant":"a"}"#), Some(BadReason::MissingId));
    assert_eq!(why(&key, r#"{"n":12,"tenant":"a","ok":[]}"#), Some(BadReason::Malformed));
}

#[test]
fn at_line_takes_the_lines_bytes_and_reads_no_json() {
    let key = keys(&["@line"]);
    let lines = records(&key, b"not json\r\n\xff\xfe\n{\"a\":1}");
    let ids: Vec<_> = lines.into_iter().map(|line| line.content).collect();
    assert_eq!(ids, [&b"not json"[..], b"\xff\xfe", b"{\"a\":1}"].map(|id| Answer::Id(id.to_vec())));
    assert_eq!(id(&key, &"x".repeat(100_000)).len(), 100_000);
}

#[test]
fn lines_of_only_white_space_are_blank_and_line_ends_are_kept() {
    for key in [KeySpec::default(), keys(&["@line"])] {
        let lines = records(&key, b"\n \t\r\n\r\n{\"id\":1}\r\n   ");
        let blank: Vec<_> = lines.iter().map(|line| line.content == Answer::Blank).collect();
        assert_eq!(blank, [true, true, true, false, true]);
        assert_eq!(lines[3].bytes, b"{\"id\":1}\r\n");
    }
    assert_eq!(records(&KeySpec::default(), b"").len(), 0);
}

#[test]
fn a_line_that_is_not_json_is_malformed_at_its_first_wrong_byte() {
    let cases: &[(&[u8], usize)] = &[
        (b"{\"id\":1", 7),
        (b"{\"id\":1}}", 8),
        (b"{\"id\":1} {}", 9),
        (b"{\"id\":01}", 7),
        (b"{\"id\":1,}", 8),
        (b"{\"id\" 1}", 6),
        (b"{id:1}", 1),
        (b"{\"id\":tru}", 9),
        (b"{\"id\":\"a", 8),
        (b"{\"id\":\"a\tb\"}", 8),
        (b"{\"id\":\"\\x\"}", 8),
        (b"{\"id\":\"\\u12g4\"}", 11),
        (b"{\"id\":\"\xc0\xaf\"}", 7),
        (b"{\"id\":\"\xed\xa0\x80\"}", 7),
        (b"{\"id\":\"\xf4\x90\x80\x80\"}", 7),
        (b"{\"id\":[1}", 8),
        (b"[1 2]", 3),
        (b"\xef\xbb\xbf{\"id\":1}", 0),
        (b"{\"id\":1}\0", 8),
    ];
    for (line, offset) in cases {
        match answer(&KeySpec::default(), line) {
            Answer::Bad(bad) => assert_eq!((bad.reason, bad.offset), (BadReason::Malformed, *offset), "{line:?}"),
            other => panic!("{line:?}: {other:?}"),
        }
    }
}

#[test]
fn nesting_of_512_is_read_and_of_513_is_bad() {
    let nested = |open: &str, value: &str, close: &str, levels: usize| {
        format!("{{\"id\":1,\"v\":{}{value}{}}}", open.repeat(levels), close.repeat(levels))
    };
    assert_eq!(id(&KeySpec::default(), &nested("[", "", "]", 511)), b"1");
    assert_eq!(why(&KeySpec::default(), &nested("[", "", "]", 512)), Some(BadReason::Malformed));
    assert_eq!(id(&KeySpec::default(), &nested("{\"a\":", "1", "}", 511)), b"1");
    assert_eq!(why(&KeySpec::default(), &nested("{\"a\":", "1", "}", 512)), Some(BadReason::Malformed));
    assert_eq!(why(&KeySpec::default(), &"[".repeat(100_000)), Some(BadReason::Malformed));
}

#[test]
fn a_bad_line_does_not_touch_its_neighbours() {
    let lines =
        records(&KeySpec::default(), b"{\"id\":1}\n{\"id\":\"\n{\"id\":2}\n]\n{\"id\":3}\n{\"id\":[\n{\"id\":4}");
    let ids: Vec<_> = lines.iter().map(|line| matches!(&line.content, Answer::Id(_))).collect();
    assert_eq!(ids, [true, false, true, false, true, false, true]);
}

#[test]
fn bad_reasons_have_the_stable_names() {
    let names = [BadReason::Malformed, BadReason::MissingId, BadReason::TooLong, BadReason::AmbiguousId]
        .map(|reason| Reason::from(reason).as_str());
    assert_eq!(names, ["malformed", "missing_id", "too_long", "ambiguous_id"]);
}

#[test]
fn an_event_time_is_read_beside_the_id() {
    let time = |unit, line: &str| {
        let spec = TimeSpec::parse("at.t|t", unit).unwrap();
        let mut answers = decode_oracle::ENGINES.map(|engine| {
            let mut decoder = Decoder::new(KeySpec::default()).with_time(spec.clone()).with_engine(engine);
            decode(&mut decoder, line.as_bytes()).remove(0).time
        });
        assert_eq!(answers[0], answers[1], "{line}");
        answers[0].take()
    };
    let at = Timestamp::from_millis(1_626_847_200_123);
    assert_eq!(time(TimeUnit::Seconds, r#"{"id":1,"t":1626847200.123}"#), Some(Ok(at)));
    assert_eq!(time(TimeUnit::Millis, r#"{"id":1,"t":"1626847200123"}"#), Some(Ok(at)));
    assert_eq!(time(TimeUnit::Millis, r#"{"id":1,"t":"\u0031626847200123"}"#), Some(Ok(at)));
    assert_eq!(time(TimeUnit::Rfc3339, r#"{"at":{"t":"2021-07-21T06:00:00.123Z"}}"#), Some(Ok(at)));
    assert_eq!(time(TimeUnit::Seconds, r#"{"id":1}"#), Some(Err(BadTime::Missing)));
    assert_eq!(time(TimeUnit::Seconds, r#"{"id":1,"t":null}"#), Some(Err(BadTime::Missing)));
    assert_eq!(time(TimeUnit::Seconds, r#"{"t":1,"t":2}"#), Some(Err(BadTime::Ambiguous { offset: 11 })));
    for line in [r#"{"t":"x"}"#, r#"{"t":[]}"#, r#"{"t":{}}"#, r#"{"t":true}"#, r#"{"t":1e30}"#, r#"{"t":"\ud800"}"#] {
        assert!(matches!(time(TimeUnit::Seconds, line), Some(Err(BadTime::Unreadable { offset: 5, .. }))), "{line}");
    }
    assert!(matches!(time(TimeUnit::Rfc3339, r#"{"t":1626847200}"#), Some(Err(BadTime::Unreadable { .. }))));
    assert_eq!(time(TimeUnit::Seconds, r#"{"id":1,"t":1"#), None);
    assert_eq!(time(TimeUnit::Seconds, " "), None);
}

#[test]
fn at_line_with_a_time_reads_json_for_the_time_only() {
    let spec = TimeSpec::parse("t", TimeUnit::Seconds).unwrap();
    for engine in decode_oracle::ENGINES {
        let mut decoder = Decoder::new(keys(&["@line"])).with_time(spec.clone()).with_engine(engine);
        let lines = decode(&mut decoder, b"{\"t\":5}\nnot json\n\n");
        assert_eq!(lines[0].time, Some(Ok(Timestamp::from_secs(5))));
        assert_eq!(lines[1].content, Answer::Id(b"not json".to_vec()));
        assert!(matches!(lines[1].time, Some(Err(BadTime::Unreadable { offset: 1, .. }))), "{:?}", lines[1]);
        assert_eq!(lines[2].content, Answer::Blank);
    }
}

#[test]
fn an_explanation_names_the_path_that_won() {
    let mut decoder = Decoder::new(keys(&["x|y", "n"]));
    let explained = decoder.explain(b"{\"y\":\"\\u0061\",\"n\":1.0}\n");
    let first = explained.parts[0].found.clone().unwrap();
    assert_eq!((first.alternative, first.path.as_str(), first.json_type), (1, "y", "string"));
    assert_eq!((&first.decoded[..], &first.canonical[..], first.offset), (&b"a"[..], &b"\"a"[..], 5));
    assert_eq!(explained.parts[0].key, "x|y");
    assert_eq!(explained.outcome, Outcome::Id(b"\x02\0\0\0\"a\x03\0\0\x001.0".to_vec()));

    let missing = decoder.explain(b"{\"y\":1}");
    assert!(missing.parts[0].found.is_ok());
    assert_eq!(missing.parts[1].found.as_ref().unwrap_err().reason, BadReason::MissingId);
    assert!(decoder.explain(b"{").parts.is_empty());
    assert_eq!(Decoder::new(keys(&["@line"])).explain(b"a\n").outcome, Outcome::Id(b"a".to_vec()));
}

#[test]
fn debug_output_never_shows_data() {
    let mut decoder = Decoder::new(KeySpec::default()).with_engine(Engine::Scalar);
    decoder.decode(b"{\"id\":\"sesame\"}", &mut |record| assert!(!format!("{record:?}").contains("sesame")));
}
