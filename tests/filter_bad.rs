//! Goal: a line that cannot be judged is never dropped in silence, and each policy does what it says.

mod filter;

use filter::{dir, events, filter, filter_counted, read};

/// Four events, a line cut short, one without an ID, one with two.
const MIXED: &str =
    "{\"id\":1}\n{\"id\":\n{\"no\":1}\n{\"id\":2}\n{\"id\":3,\"id\":3}\n{\"id\":1}\n{\"id\":[]}\n{\"id\":4}\n";

#[test]
fn bad_lines_are_passed_on_unchanged_and_counted_by_reason() {
    let ran = filter_counted(&[], MIXED);
    assert_eq!(ran.text(), MIXED.replacen("{\"id\":1}\n{\"id\":[]}", "{\"id\":[]}", 1));
    assert_eq!(ran.code, Some(0));
    assert_eq!((ran.count("read"), ran.count("bad"), ran.count("passed")), (8, 4, 4));
    let reasons = &ran.report()["bad_reasons"];
    assert_eq!((reasons["malformed"].as_u64(), reasons["missing_id"].as_u64()), (Some(2), Some(1)));
    assert_eq!((reasons["ambiguous_id"].as_u64(), reasons["too_long"].as_u64()), (Some(1), Some(0)));
}

#[test]
fn there_is_one_warning_for_each_reason_with_the_first_place() {
    let ran = filter(&[], MIXED.repeat(3));
    let warnings: Vec<&str> = ran.err.lines().filter(|line| line.contains("warning[")).collect();
    assert_eq!(warnings.len(), 3, "{}", ran.err);
    assert!(warnings[0].contains("warning[malformed]: standard input, line 2, byte 9: "), "{}", warnings[0]);
    assert!(warnings[1].contains("warning[missing_id]: standard input, line 3, byte 16: "), "{}", warnings[1]);
    assert!(warnings[2].contains("warning[ambiguous_id]: standard input, line 5, byte 34: "), "{}", warnings[2]);
}

#[test]
fn bad_lines_can_be_dropped() {
    let ran = filter_counted(&["--on-bad", "drop"], MIXED);
    assert_eq!(ran.text(), "{\"id\":1}\n{\"id\":2}\n{\"id\":4}\n");
    assert_eq!((ran.code, ran.count("dropped")), (Some(0), 4));
}

#[test]
fn bad_lines_can_be_diverted_and_the_exit_code_says_so() {
    let dir = dir();
    let rejects = dir.path().join("rejects");
    let path = rejects.to_str().expect("UTF-8");
    let ran = filter_counted(&["--on-bad", "divert", "--on-missing", "pass", "--rejects", path], MIXED);
    assert_eq!(ran.text(), "{\"id\":1}\n{\"no\":1}\n{\"id\":2}\n{\"id\":4}\n");
    assert_eq!(read(&rejects), "{\"id\":\n{\"id\":3,\"id\":3}\n{\"id\":[]}\n");
    assert_eq!((ran.code, ran.count("diverted"), ran.count("passed")), (Some(1), 3, 1));
}

#[test]
fn nothing_diverted_is_no_reason_to_complain() {
    let dir = dir();
    let rejects = dir.path().join("rejects");
    let ran = filter(&["--on-bad", "divert", "--rejects", rejects.to_str().expect("UTF-8")], events([1]));
    assert_eq!((ran.code, read(&rejects).as_str()), (Some(0), ""));
}

#[test]
fn divert_without_a_place_is_a_usage_error() {
    for args in [&["--on-bad", "divert"][..], &["--on-missing", "divert"], &["--time-field", "t", "--late", "divert"]] {
        let ran = filter(args, MIXED);
        assert_eq!(ran.code, Some(2));
        assert!(ran.err.contains("--rejects FILE"), "{}", ran.err);
        assert!(ran.out.is_empty());
    }
}

#[test]
fn fail_stops_at_the_line_and_everything_before_it_is_out() {
    for threads in ["1", "2"] {
        let before = events(0..30_000);
        let input = format!("{before}\n{{\"id\":oops}}\n{}", events(30_000..40_000));
        let ran = filter_counted(&["--on-bad", "fail", "--threads", threads], &input);
        assert_eq!(ran.code, Some(65));
        assert!(ran.text() == format!("{before}\n"));
        let place = format!("standard input, line 30002, byte {}: ", before.len() + 1);
        assert!(ran.err.contains(&format!("error[malformed]: {place}")), "{}", ran.err);
        assert_eq!((ran.count("read"), ran.count("bad"), ran.count("delivered")), (30_001, 1, 30_000));
    }
}

#[test]
fn missing_ids_have_a_policy_of_their_own() {
    let ran = filter(&["--on-missing", "fail"], MIXED);
    assert_eq!((ran.code, ran.text()), (Some(65), "{\"id\":1}\n{\"id\":\n"));
    let ran = filter(&["--on-bad", "fail", "--on-missing", "drop"], "{\"no\":1}\n{\"id\":1}\n{\n");
    assert_eq!((ran.code, ran.text()), (Some(65), "{\"id\":1}\n"));
}

#[test]
fn line_and_byte_are_counted_in_the_input_they_are_in() {
    let dir = dir();
    let a = filter::write(dir.path().join("a"), events(0..10));
    let b = filter::write(dir.path().join("b"), "\u{feff}{\"id\":77}\n\nbad\n");
    let ran = filter(&["--on-bad", "fail", &a, &b], "");
    assert_eq!(ran.code, Some(65));
    assert!(ran.err.contains(&format!("{b}, line 3, byte 14: ")), "{}", ran.err);
}

#[test]
fn when_no_line_has_the_id_the_members_that_were_seen_are_named() {
    let lines = "{\"type\":\"x\",\"data\":{\"object\":{\"id\":1}}}\n".repeat(2_000);
    let ran = filter(&[], &lines);
    assert!(ran.text() == lines);
    assert_eq!(ran.err.matches("warning[no_id_found]").count(), 1);
    assert!(ran.err.contains("data.object.id"), "{}", ran.err);
    assert_eq!(filter(&[], "{\"type\":\"x\"}\n").err.matches("warning[no_id_found]").count(), 1);
    assert_eq!(filter(&[], format!("{}{}", events([1]), lines)).err.matches("no_id_found").count(), 0);
    assert_eq!(
        filter(&[], format!("{}{}", "{\"a\":0}\n".repeat(999), events([1]))).err.matches("no_id_found").count(),
        0
    );
    assert_eq!(
        filter(&[], format!("{}{}", "{\"a\":0}\n".repeat(1000), events([1]))).err.matches("no_id_found").count(),
        1
    );
}

/// A line of `bytes` bytes without its newline.
fn line_of(bytes: usize) -> String {
    format!("{{\"id\":\"{}\"}}\n", "z".repeat(bytes - 9))
}

#[test]
fn a_line_is_too_long_from_one_byte_above_the_limit_on() {
    for limit in [100, 1_000, 300_000] {
        let pad = |bytes: usize| format!("{{\"id\":1,\"p\":\"{}\"}}\n", "z".repeat(bytes - 15));
        let input = [pad(limit), pad(limit + 1), pad(limit), events([2])].concat();
        let ran = filter_counted(&["--max-line", &limit.to_string()], &input);
        assert_eq!(ran.report()["bad_reasons"]["too_long"], 1, "{limit}");
        assert_eq!((ran.count("duplicate"), ran.count("read")), (1, 4));
        assert!(ran.text() == [pad(limit), pad(limit + 1), events([2])].concat());
    }
}

#[test]
fn a_byte_order_mark_is_no_part_of_a_lines_length() {
    // With the mark, the first read of a file ends right before the newline.
    let limit = (256 << 10) - 3;
    let dir = dir();
    for (bytes, too_long) in [(limit, 0), (limit + 1, 1)] {
        let line = format!("{{\"id\":1,\"p\":\"{}\"}}\n", "z".repeat(bytes - 15));
        let path = filter::write(dir.path().join("in"), format!("\u{feff}{line}{}", events([2])));
        let ran = filter_counted(&["--max-line", &limit.to_string(), &path], "");
        assert_eq!(ran.report()["bad_reasons"]["too_long"], too_long, "{}", ran.err);
        let explained = filter(&["explain", "--max-line", &limit.to_string(), &path], "");
        assert_eq!(explained.text().matches("too_long").count(), too_long, "{}", explained.text());
        assert!(explained.text().contains("line 2: ") && !explained.text().contains("line 3: "));
    }
    let ran = filter_counted(&["-k", "@line", "--max-line", "1"], "\u{feff}1\n1\n\u{feff}\n");
    assert_eq!((ran.count("duplicate"), &ran.report()["bad_reasons"]["too_long"]), (1, &1.into()));
    let mut running = filter::Running::start(&["-k", "@line", "--max-line", "1", "--on-bad", "drop"]);
    for byte in "\u{feff}1\n".bytes() {
        running.write([byte]);
    }
    assert_eq!(running.line(), "\u{feff}1\n");
    assert!(running.end().0.success());
}

#[test]
fn over_long_lines_go_where_bad_lines_go_in_one_piece() {
    let dir = dir();
    let rejects = dir.path().join("rejects");
    let path = rejects.to_str().expect("UTF-8");
    let long = line_of(5_000_000);
    let input = [events([1]), long.clone(), events([2, 1]), long.clone(), long.trim_end().to_owned()].concat();
    let limit = ["--max-line", "64KiB"];
    let ran = filter_counted(&limit, &input);
    assert!(ran.text() == [&events([1]), &long, &events([2]), &long, long.trim_end()].map(String::from).concat());
    assert_eq!((ran.count("bad"), ran.count("passed"), ran.count("bytes")), (3, 3, input.len() as u64));

    let ran = filter_counted(&[&limit[..], &["--on-bad", "divert", "--rejects", path]].concat(), &input);
    assert_eq!((ran.text(), ran.code), (events([1, 2]).as_str(), Some(1)));
    assert!(read(&rejects) == [&long, &long, long.trim_end()].map(String::from).concat());

    let ran = filter_counted(&[&limit[..], &["--on-bad", "drop"]].concat(), &input);
    assert_eq!((ran.text(), ran.count("dropped")), (events([1, 2]).as_str(), 3));

    let ran = filter_counted(&[&limit[..], &["--on-bad", "fail"]].concat(), &input);
    assert_eq!((ran.text(), ran.code), (events([1]).as_str(), Some(65)));
    assert!(ran.err.contains("error[too_long]: standard input, line 2, byte 11: "), "{}", ran.err);
}

#[test]
fn an_endless_line_takes_bounded_memory() {
    let mut command =
        filter::dedupd(["-q", "--max-line", "1MiB", "--max-memory", "64MiB", "--threads", "2", "--on-bad", "drop"]);
    let mut running = filter::Running::spawn(command.stdin(std::process::Stdio::piped()));
    let block = vec![b'x'; 1 << 20];
    (0..300).for_each(|_| running.write(&block));
    let status = read(format!("/proc/{}/status", running.child.id()));
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("a peak");
    let peak_kib: u64 = peak.trim().trim_end_matches(" kB").parse().expect("a number");
    assert!(peak_kib < 100 << 10, "{peak_kib} KiB");
    running.write(format!("\n{}", events([1])));
    assert_eq!(running.line(), events([1]));
    assert!(running.end().0.success());
}

#[test]
fn with_line_ids_the_length_counts_too() {
    let ran = filter_counted(&["-k", "@line", "--max-line", "5"], "12345\n123456\n12345\n123456\n");
    assert_eq!(ran.text(), "12345\n123456\n123456\n");
    assert_eq!(ran.report()["bad_reasons"]["too_long"], 2);
}
