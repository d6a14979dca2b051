//! Goal: what goes out is what came in, byte for byte and in order, less the duplicates; nothing depends on how many
//! threads there are or how the bytes arrive. Method: compare with an answer that is made without the filter.

mod filter;

use std::collections::HashSet;

use filter::{data, dir, events, filter, filter_counted, read, write};

#[test]
fn repeats_are_dropped_and_the_rest_is_kept_in_order() {
    let ran = filter_counted(&[], events([1, 2, 1, 3, 2, 1]));
    assert_eq!(ran.text(), events([1, 2, 3]));
    assert_eq!(ran.code, Some(0));
    assert_eq!((ran.count("read"), ran.count("first_seen"), ran.count("duplicate")), (6, 3, 3));
    assert_eq!((ran.count("delivered"), ran.count("attached"), ran.count("in_flight")), (3, 0, 0));
}

#[test]
fn lines_keep_their_bytes() {
    let input =
        b"\xEF\xBB\xBF{\"id\":1}\r\n \t\r\n\n{ \"id\" : 2 , \"x\":\"\\u00e9\"}\n{\"id\":\"\xC3\xA9\"}  \n{\"id\":4}";
    let ran = filter_counted(&[], input);
    assert_eq!(ran.out, input);
    assert_eq!((ran.count("read"), ran.count("blank"), ran.count("newlines_added")), (4, 2, 0));
}

#[test]
fn nothing_in_is_nothing_out() {
    for input in ["", "\n", "\u{feff}", "\u{feff}\n"] {
        let ran = filter_counted(&[], input);
        assert_eq!((ran.text(), ran.code, ran.count("read")), (input, Some(0), 0));
    }
}

#[test]
fn a_dropped_last_line_without_a_newline_leaves_no_trace() {
    let ran = filter_counted(&[], "{\"id\":1}\n{\"id\":1}");
    assert_eq!(ran.text(), "{\"id\":1}\n");
}

#[test]
fn several_inputs_are_one_stream_and_their_lines_do_not_run_together() {
    let dir = dir();
    let [a, b, c] = ["a", "b", "c"].map(|name| dir.path().join(name));
    let (a, b, c) = (write(a, "{\"id\":1}\n{\"id\":2}"), write(b, "{\"id\":2}\n{\"id\":3}"), write(c, "{\"id\":4}"));
    let ran = filter_counted(&[&a, &b, &c], "");
    assert_eq!(ran.text(), "{\"id\":1}\n{\"id\":2}\n{\"id\":3}\n{\"id\":4}");
    assert_eq!(ran.count("newlines_added"), 2);
    let named = filter(&["--input", &b, "-i", &a], "");
    assert_eq!(named.text(), "{\"id\":2}\n{\"id\":3}\n{\"id\":1}\n");
    let with_stdin = filter(&[&a, "-", &c], events([7]));
    assert_eq!(with_stdin.text(), "{\"id\":1}\n{\"id\":2}\n{\"id\":\"7\"}\n{\"id\":4}");
}

#[test]
fn duplicates_go_to_their_file_byte_for_byte() {
    let dir = dir();
    let path = dir.path().join("duplicates");
    let input = "{\"id\":1}\r\n{\"id\":1,\"try\":2}\r\n{\"id\":2}\n {\"id\":1} \n";
    let ran = filter(&["--duplicates", path.to_str().expect("UTF-8")], input);
    assert_eq!(ran.text(), "{\"id\":1}\r\n{\"id\":2}\n");
    assert_eq!(read(path), "{\"id\":1,\"try\":2}\r\n {\"id\":1} \n");
}

#[test]
fn whole_lines_can_be_the_id() {
    let ran = filter_counted(&["-k", "@line"], "b\na\nb\r\nnot json {\n\nb\n");
    assert_eq!(ran.text(), "b\na\nnot json {\n\n");
    assert_eq!((ran.count("read"), ran.count("duplicate"), ran.count("blank")), (5, 2, 1));
}

#[test]
fn composites_and_alternatives_are_followed() {
    let input = "{\"a\":1,\"b\":2}\n{\"a\":1,\"b\":3}\n{\"a\":1,\"c\":2}\n{\"a\":1,\"b\":2,\"z\":0}\n";
    let ran = filter(&["-k", "a", "-k", "b|c"], input);
    assert_eq!(ran.text(), "{\"a\":1,\"b\":2}\n{\"a\":1,\"b\":3}\n");
}

#[test]
fn hashes_agree_on_what_is_a_duplicate() {
    let input = events((0..5_000).map(|n| n * n % 1_777));
    assert_eq!(filter(&["--hash", "xxh3"], &input).out, filter(&["--hash", "siphash13"], &input).out);
}

/// The first line of each ID, found without the filter.
fn first_lines(input: &[u8], id: impl Fn(&serde_json::Value) -> String) -> Vec<u8> {
    let mut seen = HashSet::new();
    let lines = input.split_inclusive(|&byte| byte == b'\n');
    lines.filter(|line| seen.insert(id(&serde_json::from_slice(line).expect("JSON")))).flatten().copied().collect()
}

/// Each line up to three times, the repeats some lines later, with changed bytes and so with other lengths.
fn with_retries(events: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut late: Vec<Vec<u8>> = Vec::new();
    for (n, line) in events.split_inclusive(|&byte| byte == b'\n').enumerate() {
        out.extend_from_slice(line);
        if n % 3 != 0 {
            let mut retry = line.trim_ascii_end().to_vec();
            retry.truncate(retry.len() - 1);
            retry.extend_from_slice(format!(",\"attempt\":{n}}}\n").as_bytes());
            late.push(retry);
        }
        if n % 7 == 0 {
            late.drain(..).for_each(|retry| out.extend(retry));
        }
    }
    out.extend(late.concat());
    out
}

#[test]
fn real_events_with_retries_are_counted_once_on_any_number_of_threads() {
    for (name, key) in [("events/github_events.ndjson", "id"), ("events/cloudtrail.ndjson", "eventID")] {
        let Some(events) = data(name) else { return };
        let input = with_retries(&events);
        let expected = first_lines(&input, |event| event[key].to_string());
        assert!(expected == events, "the events themselves have no duplicates");
        let dir = dir();
        let path = write(dir.path().join("input"), &input);
        for threads in ["1", "2", "3", "8"] {
            let args = ["-q", "--threads", threads, "-k", key];
            assert!(filter(&args, &input).out == expected, "{name}, through a pipe, {threads} threads");
            assert!(filter(&[&args[..], &[&path]].concat(), "").out == expected, "{name}, a file, {threads} threads");
        }
    }
}

#[test]
fn many_chunks_keep_their_order_on_any_number_of_threads() {
    let input: String = (0..120_000_u64)
        .map(|n| format!("{{\"id\":{},\"pad\":\"{}\"}}\n", n * n % 91_193, "x".repeat((n % 97) as usize)))
        .collect();
    let expected = first_lines(input.as_bytes(), |event| event["id"].to_string());
    for threads in ["1", "2", "5"] {
        let ran = filter_counted(&["--threads", threads], &input);
        assert!(ran.out == expected, "{threads} threads");
        assert_eq!(ran.count("read"), 120_000);
        assert_eq!(ran.count("bytes"), input.len() as u64);
    }
}

#[test]
fn lines_far_longer_than_a_chunk_come_through() {
    let long = |id: u64| format!("{{\"id\":{id},\"pad\":\"{}\"}}\n", "y".repeat(3_000_000));
    let input = [events([1]), long(2), events([3]), long(2), long(4), events([1])].concat();
    let expected = [events([1]), long(2), events([3]), long(4)].concat();
    for threads in ["1", "2"] {
        assert!(filter(&["--threads", threads], &input).out == expected.as_bytes());
    }
}
