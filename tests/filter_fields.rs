//! Goal: a message about one line names the line's operation ID and correlation ID, and nothing else depends on them.
//! Method: the lines before and behind the one that is spoken of have other IDs, so a message that looked at the wrong
//! line says so.

mod filter;

use filter::{Ran, dir, events, filter, write};
use serde_json::Value;

const FIELDS: [&str; 4] = ["--operation-field", "op", "--correlation-field", "trace.correlation"];

fn with_fields(args: &[&str], input: impl AsRef<[u8]>) -> Ran {
    filter(&[&FIELDS, args].concat(), input)
}

/// A line with these members and with both IDs, which end in `n`.
fn line(members: &str, n: u32) -> String {
    format!("{{{members},\"op\":\"op_{n}\",\"trace\":{{\"correlation\":\"c_{n}\"}}}}\n")
}

/// The log line of this code.
fn logged(ran: &Ran, code: &str) -> String {
    let line = ran.err.lines().find(|line| line.contains(&format!("[{code}]: ")));
    line.unwrap_or_else(|| panic!("no {code}: {}", ran.err)).to_owned()
}

/// The same, as JSON.
fn logged_json(ran: &Ran, code: &str) -> Value {
    let lines = ran.err.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    lines.into_iter().find(|line| line["code"] == code).unwrap_or_else(|| panic!("no {code}: {}", ran.err))
}

#[test]
fn each_warning_about_a_line_names_its_ids() {
    let dir = dir();
    let rejects = dir.path().join("rejects");
    let input = [
        line("\"id\":1,\"t\":100,\"v\":1", 1),
        line("\"t\":100", 2),
        line("\"id\":3,\"id\":3,\"t\":100", 3),
        line("\"id\":4,\"t\":\"soon\"", 4),
        line("\"id\":5,\"t\":10", 5),
        line("\"id\":1,\"t\":100,\"v\":2", 6),
        line("\"id\":7,\"t\":10", 7),
    ];
    let args = ["--time-field", "t", "--time-unit", "s", "--lateness", "10s", "--on-conflict", "divert", "--rejects"];
    let args = [&args[..], &[rejects.to_str().expect("UTF-8")]].concat();
    let codes = [(2, "missing_id"), (3, "ambiguous_id"), (4, "malformed"), (5, "late"), (6, "conflict")];
    let ran = with_fields(&args, input.concat());
    for (n, code) in codes {
        let byte = input[..n - 1].concat().len();
        let place = format!("standard input, line {n}, byte {byte}");
        let start = format!("dedupd: warning[{code}]: {place}, operation \"op_{n}\", correlation \"c_{n}\": ");
        assert!(logged(&ran, code).starts_with(&start), "{start}\n{}", ran.err);
        let plain = logged(&filter(&args, input.concat()), code);
        assert!(plain.starts_with(&format!("dedupd: warning[{code}]: {place}: ")), "{plain}");
    }
    let ran = with_fields(&[&args[..], &["--log-format", "json"]].concat(), input.concat());
    for (n, code) in codes {
        let logged = logged_json(&ran, code);
        assert_eq!((&logged["operation_id"], &logged["correlation_id"]), (&names("op", n), &names("c", n)), "{logged}");
        let message = logged["message"].as_str().expect("text");
        assert!(
            message.starts_with(&format!("standard input, line {n}, byte ")) && !message.contains("op_"),
            "{logged}"
        );
    }
}

fn names(prefix: &str, n: usize) -> Value {
    format!("{prefix}_{n}").into()
}

#[test]
fn the_failure_names_them_too() {
    let input = [line("\"id\":1", 1), line("\"no\":2", 2), line("\"no\":3", 3)].concat();
    for quiet in [&["--on-bad", "fail"][..], &["--on-bad", "fail", "-q"]] {
        let ran = with_fields(quiet, &input);
        assert_eq!((ran.code, ran.text()), (Some(65), line("\"id\":1", 1).as_str()));
        let place = format!("standard input, line 2, byte {}", line("\"id\":1", 1).len());
        let ids = "operation \"op_2\", correlation \"c_2\"";
        let what = "nothing is at the key's path";
        assert_eq!(logged(&ran, "missing_id"), format!("dedupd: error[missing_id]: {place}, {ids}: {what}"));
    }
    let ran = with_fields(&["--on-bad", "fail", "--log-format", "json"], &input);
    let logged = logged_json(&ran, "missing_id");
    assert_eq!((&logged["level"], &logged["operation_id"]), (&"error".into(), &"op_2".into()));
    assert_eq!(logged["correlation_id"], "c_2");
}

/// What `--operation-field path` finds in a line without an event ID.
fn found(path: &str, line: &str) -> Value {
    let ran = filter(&["--log-format", "json", "--operation-field", path], format!("{line}\n"));
    let logged = ran.err.lines().find(|line| line.contains("\"level\":\"warning\"")).expect("a warning");
    serde_json::from_str::<Value>(logged).expect("JSON")["operation_id"].clone()
}

#[test]
fn the_paths_are_those_of_the_key() {
    for (path, line, id) in [
        ("op", r#"{"op":"a"}"#, "a"),
        ("data.op", r#"{"op":"no","data":{"op":"b"}}"#, "b"),
        ("/data/ops/1", r#"{"data":{"ops":["no","c"]}}"#, "c"),
        ("op|data.op", r#"{"op":null,"data":{"op":"d"}}"#, "d"),
        ("op", r#"{"\u006fp":"\u0065\u00e9"}"#, "e\u{e9}"),
        ("op", r#"{"op":12345678901234567890.10}"#, "12345678901234567890.10"),
        ("op", r#"{"op":true}"#, "true"),
    ] {
        assert_eq!(found(path, line), id, "{path} in {line}");
    }
}

#[test]
fn what_could_not_be_an_event_id_is_none() {
    let long = |bytes| format!("{{\"op\":\"{}\"}}", "x".repeat(bytes));
    assert_eq!(found("op", &long(1024)), "x".repeat(1024));
    for line in [
        r#"{"no":1}"#,
        r#"{"op":null}"#,
        r#"{"op":""}"#,
        r#"{"op":{"a":1}}"#,
        r#"{"op":["a"]}"#,
        r#"{"op":"a","op":"a"}"#,
        r#"{"op":"\ud800"}"#,
        r#"{"op":"a""#,
        r#"{"op":"a"} x"#,
        "not JSON",
        &long(1025),
    ] {
        assert_eq!(found("op", line), Value::Null, "{line}");
        let ran = filter(&["--operation-field", "op"], format!("{line}\n"));
        assert!(!ran.err.contains("operation"), "{}", ran.err);
    }
    // What is not there has no name in JSON either.
    let ran = with_fields(&["--log-format", "json"], "{\"op\":\"a\"}\n");
    assert!(ran.err.contains("operation_id") && !ran.err.contains("correlation_id"), "{}", ran.err);
}

#[test]
fn an_id_cannot_forge_a_log_line() {
    let id = r#"a\" ok\ndedupd: error[panic]: \u001b[2J\u202eb\\"#;
    let input = format!("{{\"op\":\"{id}\"}}\n");
    let ran = with_fields(&[], &input);
    let shown = r#"operation "a\" ok\ndedupd: error[panic]: \u{1b}[2J\u{202e}b\\": nothing"#;
    assert!(logged(&ran, "missing_id").contains(shown), "{}", ran.err);
    assert!(
        !ran.err.contains('\u{1b}') && !ran.err.lines().any(|line| line.starts_with("dedupd: error")),
        "{}",
        ran.err
    );
    let ran = with_fields(&["--log-format", "json"], &input);
    let id = "a\" ok\ndedupd: error[panic]: \u{1b}[2J\u{202e}b\\";
    assert_eq!(logged_json(&ran, "missing_id")["operation_id"], id);
}

#[test]
fn a_byte_order_mark_is_no_part_of_the_line() {
    let ran = with_fields(&[], format!("\u{feff}{}", line("\"no\":1", 1)));
    assert!(logged(&ran, "missing_id").contains("byte 0, operation \"op_1\", correlation \"c_1\": "), "{}", ran.err);
}

#[test]
fn a_line_that_is_longer_than_allowed_is_not_looked_into() {
    // In one chunk, and in parts, of which the first would be JSON by itself.
    for pad in [100, 1 << 20] {
        let input = line("\"no\":1", 1).replace('\n', &" ".repeat(pad)) + "\n" + &events([1]);
        let ran = with_fields(&["--max-line", "64"], &input);
        assert!(logged(&ran, "too_long").contains("line 1, byte 0: "), "{}", ran.err);
    }
    // An ID that is too long stands in a line that is not.
    let ran = with_fields(&[], line(&format!("\"id\":\"{}\"", "x".repeat(2_000)), 1));
    assert!(logged(&ran, "too_long").contains("byte 0, operation \"op_1\", correlation \"c_1\": "), "{}", ran.err);
}

#[test]
fn paths_that_cannot_find_anything_are_refused() {
    for flag in ["--operation-field", "--correlation-field"] {
        for (args, why) in [
            (&[flag, ""][..], "a key is empty"),
            (&[flag, "a..b"], "a name between dots is empty"),
            (&[flag, "@line"], "@line takes the whole line"),
            (&[flag, "op", "--key", "@line"], "finds nothing with --key @line, which reads no JSON"),
        ] {
            let ran = filter(args, events([1]));
            assert_eq!((ran.code, ran.text()), (Some(2), ""), "{args:?}: {}", ran.err);
            assert!(ran.err.contains(&format!("error[usage]: {flag}")) && ran.err.contains(why), "{}", ran.err);
        }
    }
}

/// Where the event time is read from lines that are their own IDs, there is JSON.
#[test]
fn with_an_event_time_whole_lines_have_them_too() {
    let args = ["--key", "@line", "--time-field", "t", "--time-unit", "s", "--lateness", "10s"];
    let ran = with_fields(&args, [line("\"t\":100", 1), line("\"t\":10", 2)].concat());
    assert!(logged(&ran, "late").contains(", line 2, byte "), "{}", ran.err);
    assert!(logged(&ran, "late").contains(", operation \"op_2\", correlation \"c_2\": "), "{}", ran.err);
}

#[test]
fn they_are_no_part_of_an_events_identity() {
    let dir = dir();
    let state = dir.path().join("state");
    let state = ["-q", "-s", state.to_str().expect("UTF-8")];
    let ran = with_fields(&state, [line("\"id\":1", 1), line("\"id\":1", 2)].concat());
    assert_eq!((ran.code, ran.text()), (Some(0), line("\"id\":1", 1).as_str()));
    let input = write(dir.path().join("in"), [line("\"id\":1", 3), line("\"id\":2", 4)].concat());
    let again = filter(&[&state[..], &[&input]].concat(), "");
    assert_eq!((again.code, again.text()), (Some(0), line("\"id\":2", 4).as_str()), "{}", again.err);
    let other = filter(&[&state[..], &["--operation-field", "id", &input]].concat(), "");
    assert_eq!((other.code, other.text()), (Some(0), ""), "{}", other.err);
}
