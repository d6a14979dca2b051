//! Goal: a file that is followed is read as it grows, across its rotation, without losing, tearing or repeating a line.
//! Method: a line that came out says how far the filter is; then the file is changed, then what must follow.

mod filter;

use std::fs::{File, rename};
use std::io::Write;
use std::path::{Path, PathBuf};

use filter::{Running, dir, events, read};

fn follow(args: &[&str], paths: &[&Path]) -> Running {
    let paths = paths.iter().map(|path| path.to_str().expect("UTF-8"));
    let args: Vec<&str> =
        ["--follow", "--report", "json"].into_iter().chain(args.iter().copied()).chain(paths).collect();
    Running::start(&args)
}

fn append(path: &Path, text: impl AsRef<[u8]>) {
    let mut file = File::options().append(true).create(true).open(path).expect("open");
    file.write_all(text.as_ref()).expect("written");
}

/// Drains the filter, and returns what is left of its output and its report.
fn drain(running: Running) -> (String, serde_json::Value, String) {
    running.signal(libc::SIGTERM);
    let (status, out, err) = running.end();
    assert_eq!(status.code(), Some(0), "{err}");
    let report = err.lines().rfind(|line| line.starts_with("{\"read\"")).expect("a report");
    let report: serde_json::Value = serde_json::from_str(report).expect("JSON");
    assert_eq!(report["balanced"], true);
    (out, report, err)
}

fn path(dir: &tempfile::TempDir, name: &str) -> PathBuf {
    dir.path().join(name)
}

#[test]
fn lines_come_out_as_the_file_grows() {
    for threads in ["1", "2"] {
        let dir = dir();
        let log = path(&dir, "log");
        append(&log, events([0]));
        let running = follow(&["--threads", threads], &[&log]);
        assert_eq!(running.line(), events([0]));
        for n in 1..20 {
            append(&log, events([n, n - 1]));
            assert_eq!(running.line(), events([n]));
        }
        let (out, report, _) = drain(running);
        assert_eq!((out.as_str(), &report["read"], &report["duplicate"]), ("", &39.into(), &19.into()));
    }
}

#[test]
fn half_a_line_waits_for_its_end_and_is_never_judged() {
    let dir = dir();
    let log = path(&dir, "log");
    append(&log, "{\"id\":1}\n{\"id\"");
    let running = follow(&[], &[&log]);
    assert_eq!(running.line(), "{\"id\":1}\n");
    append(&log, ":2");
    append(&log, "3}\n{\"id\":4");
    assert_eq!(running.line(), "{\"id\":23}\n");
    let (out, report, err) = drain(running);
    assert_eq!((out.as_str(), &report["read"], &report["bad"]), ("", &2.into(), &0.into()));
    assert!(err.contains("warning[unfinished_line]: stopped 7 bytes into a line"), "{err}");
}

#[test]
fn a_file_that_is_not_there_is_waited_for() {
    let dir = dir();
    let log = path(&dir, "log");
    let running = follow(&["-v"], &[&log]);
    assert!(running.err_line().contains("info[waiting]"));
    append(&log, events([1]));
    assert_eq!(running.line(), events([1]));
    drain(running);
}

#[test]
fn a_renamed_file_is_read_to_its_end_before_the_new_one_is_begun() {
    let dir = dir();
    let [log, old] = ["log", "log.1"].map(|name| path(&dir, name));
    append(&log, events([1]));
    let running = follow(&["-v"], &[&log]);
    assert_eq!(running.line(), events([1]));
    rename(&log, &old).expect("moved");
    // Whoever writes has the old one open still, also after an empty new one was made.
    append(&old, events([2]));
    assert_eq!(running.line(), events([2]));
    File::create(&log).expect("made");
    // So often that it has looked in between.
    for n in 3..10 {
        append(&old, events([n]));
        assert_eq!(running.line(), events([n]));
    }
    append(&log, events([10, 3]));
    assert_eq!(running.line(), events([10]));
    let (out, report, err) = drain(running);
    assert_eq!((out.as_str(), &report["inputs_replaced"], &report["duplicate"]), ("", &1.into(), &1.into()));
    assert!(err.contains("info[replaced]"), "{err}");
}

#[test]
fn a_last_line_without_a_newline_in_a_renamed_file_is_a_line() {
    let dir = dir();
    let [log, old, out] = ["log", "log.1", "out"].map(|name| path(&dir, name));
    append(&log, events([1]));
    let running = follow(&["-o", out.to_str().expect("UTF-8")], &[&log]);
    filter::eventually("the first line is out", || {
        std::fs::read(&out).is_ok_and(|bytes| bytes == events([1]).as_bytes())
    });
    rename(&log, &old).expect("moved");
    append(&old, "{\"id\":4}");
    append(&log, events([5]));
    let expected = events([1]) + "{\"id\":4}\n" + &events([5]);
    filter::eventually("all lines are out", || std::fs::read(&out).is_ok_and(|bytes| bytes == expected.as_bytes()));
    let (_, report, _) = drain(running);
    assert_eq!((&report["inputs_replaced"], &report["read"]), (&1.into(), &3.into()));
}

#[test]
fn a_truncated_file_is_read_from_its_start_and_told() {
    let dir = dir();
    let log = path(&dir, "log");
    append(&log, events([1, 2]) + "{\"id\":");
    let running = follow(&[], &[&log]);
    assert_eq!((running.line(), running.line()), (events([1]), events([2])));
    // As copytruncate does.
    File::options().write(true).open(&log).expect("open").set_len(0).expect("cut");
    assert!(running.err_line().contains("warning[truncated]"));
    append(&log, events([3, 1]));
    assert_eq!(running.line(), events([3]));
    let (out, report, _) = drain(running);
    assert_eq!((out.as_str(), &report["inputs_truncated"], &report["duplicate"]), ("", &1.into(), &1.into()));
}

#[test]
fn several_files_are_followed_and_lines_stay_whole() {
    let dir = dir();
    let [one, two] = ["one", "two"].map(|name| path(&dir, name));
    append(&one, "");
    append(&two, "{\"id\":");
    let running = follow(&[], &[&one, &two]);
    for n in 0..10 {
        append(&one, events([n]));
        assert_eq!(running.line(), events([n]));
        append(&two, format!("\"b{n}\"}}\n{{\"id\":"));
        assert_eq!(running.line(), format!("{{\"id\":\"b{n}\"}}\n"));
    }
    let (out, report, _) = drain(running);
    assert_eq!((out.as_str(), &report["read"]), ("", &20.into()));
}

#[test]
fn no_line_comes_between_the_parts_of_another() {
    let dir = dir();
    let [one, two, out] = ["one", "two", "out"].map(|name| path(&dir, name));
    let part = "x".repeat(5_000);
    append(&one, &part);
    let running = follow(&["--max-line", "1000", "-o", out.to_str().expect("UTF-8")], &[&one, &two]);
    let is_out = |bytes: usize| std::fs::metadata(&out).is_ok_and(|about| about.len() >= bytes as u64);
    filter::eventually("the first part is out", || is_out(part.len()));
    append(&two, events([1]));
    // So often that it would have looked at the other in between.
    for parts in 2..10 {
        append(&one, &part);
        filter::eventually("the next part is out", || is_out(parts * part.len()));
    }
    append(&one, "\n");
    let expected = format!("{}\n{}", part.repeat(9), events([1]));
    filter::eventually("all is out", || is_out(expected.len()));
    assert_eq!(read(&out), expected);
    drain(running);
}

#[test]
fn lines_behind_one_that_is_too_long_do_not_wait_for_more() {
    let dir = dir();
    let [a, b] = ["a", "b"].map(|name| path(&dir, name));
    append(&b, "");
    // The end of the long line is read together with all that is behind it: much, and less than is read at once.
    append(&a, format!("{}\n{}", "x".repeat(300_000), events(10_000..18_000)));
    let running = follow(&["--max-line", "64KiB", "--on-bad", "drop"], &[&a, &b]);
    for n in 10_000..18_000 {
        assert_eq!(running.line(), events([n]));
    }
    let (out, report, _) = drain(running);
    assert_eq!((out.as_str(), &report["first_seen"]), ("", &8_000.into()));
}

#[test]
fn much_at_once_is_read_in_order() {
    let dir = dir();
    let [one, two] = ["one", "two"].map(|name| path(&dir, name));
    let numbers = |prefix: &str| events((0..50_000).map(|n| format!("{prefix}{n}")));
    append(&one, numbers("a"));
    append(&two, numbers("b"));
    let running = follow(&["-v"], &[&one, &two]);
    let mut lines: Vec<String> = (0..100_000).map(|_| running.line()).collect();
    // Each input keeps its order.
    lines.sort_by_key(|line| line.contains('b'));
    assert_eq!(lines.concat(), numbers("a") + &numbers("b"));
    drain(running);
}

#[test]
fn without_follow_a_growing_file_has_an_end() {
    let dir = dir();
    let log = path(&dir, "log");
    append(&log, "{\"id\":1}");
    let ran = filter::filter(&[log.to_str().expect("UTF-8")], "");
    assert_eq!((ran.code, ran.text()), (Some(0), "{\"id\":1}"));
}

/// Empties the file and writes it anew while the filter stands still.
fn write_anew(running: &Running, log: &Path, text: &str) {
    running.signal(libc::SIGSTOP);
    File::options().write(true).open(log).expect("open").set_len(0).expect("cut");
    append(log, text);
    running.signal(libc::SIGCONT);
}

#[test]
fn a_truncated_file_that_has_outgrown_what_was_read_is_read_from_its_start() {
    for (before, after) in [(3, 6), (3, 4), (1_000, 5_000), (50_000, 80_000)] {
        let dir = dir();
        let log = path(&dir, "log");
        append(&log, events((0..before).map(|n| format!("{n:06}"))));
        let running = follow(&[], &[&log]);
        (0..before).for_each(|n| assert_eq!(running.line(), events([format!("{n:06}")])));
        // Half a line more, as it would be read from the old place.
        let lines = events((0..after).map(|n| format!("x{n:06}")));
        write_anew(&running, &log, &lines);
        let out: String = (0..after).map(|_| running.line()).collect();
        assert!(out == lines, "{before} {after}");
        let (out, report, err) = drain(running);
        assert_eq!((out.as_str(), &report["inputs_truncated"], &report["bad"]), ("", &1.into(), &0.into()), "{err}");
    }
}

#[test]
fn a_file_that_was_written_anew_to_the_same_length_is_read_from_its_start() {
    let dir = dir();
    let log = path(&dir, "log");
    append(&log, events([1, 2]));
    let running = follow(&[], &[&log]);
    assert_eq!((running.line(), running.line()), (events([1]), events([2])));
    // The time of the last write tells, and has a grain.
    std::thread::sleep(std::time::Duration::from_millis(50));
    write_anew(&running, &log, &events([3, 4]));
    assert_eq!((running.line(), running.line()), (events([3]), events([4])));
    assert_eq!(drain(running).1["inputs_truncated"], 1);
}

#[test]
fn whoever_is_late_with_the_old_file_loses_nothing_when_the_new_one_has_begun() {
    let dir = dir();
    let [log, old, older, state] = ["log", "log.1", "log.2", "state"].map(|name| path(&dir, name));
    append(&log, events([1]));
    let running = follow(&["-s", state.to_str().expect("UTF-8")], &[&log]);
    assert_eq!(running.line(), events([1]));
    rename(&log, &old).expect("moved");
    append(&log, events([5]));
    for n in 2..4 {
        // So late that it has looked in between.
        std::thread::sleep(std::time::Duration::from_millis(100));
        append(&old, events([n]));
        assert_eq!(running.line(), events([n]));
    }
    // The next rotation, before it has come to the new one.
    rename(&old, &older).expect("moved");
    rename(&log, &old).expect("moved");
    append(&log, events([6]));
    append(&older, events([4]));
    for n in 4..7 {
        assert_eq!(running.line(), events([n]));
    }
    let (out, report, _) = drain(running);
    assert_eq!((out.as_str(), &report["inputs_replaced"], &report["read"]), ("", &2.into(), &6.into()));
}
