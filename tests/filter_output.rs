//! Goal: outputs are opened as a Unix user expects, and nothing that was there is lost or glued to.

mod filter;

use std::io::{Seek, SeekFrom, Write};

use filter::{dedupd, dir, events, filter, filter_counted, read, write};

#[test]
fn output_goes_to_a_file_that_is_emptied_first() {
    let dir = dir();
    let out = write(dir.path().join("out"), "what was there before, and longer than what comes");
    let ran = filter(&["-o", &out], events([1, 1]));
    assert_eq!((ran.code, ran.text()), (Some(0), ""));
    assert_eq!(read(&out), events([1]));
    assert_eq!(filter(&["-o", "-"], events([1])).text(), events([1]));
}

#[test]
fn an_output_that_is_an_input_is_refused_and_left_alone() {
    let dir = dir();
    let input = write(dir.path().join("in"), events([1]));
    let link = dir.path().join("link");
    std::os::unix::fs::symlink(&input, &link).expect("linked");
    let hard = dir.path().join("hard");
    std::fs::hard_link(&input, &hard).expect("linked");
    for flag in ["-o", "--rejects", "--duplicates"] {
        for path in [input.as_str(), link.to_str().expect("UTF-8"), hard.to_str().expect("UTF-8")] {
            let ran = filter(&[flag, path, &input], "");
            assert_eq!(ran.code, Some(2));
            assert!(ran.err.contains(&format!("is the input {input}")), "{}", ran.err);
            assert_eq!(read(&input), events([1]));
        }
    }
}

#[test]
fn standard_output_that_is_an_input_is_refused() {
    let dir = dir();
    let input = write(dir.path().join("in"), events([1]));
    let append = std::fs::File::options().append(true).open(&input).expect("open");
    let status = dedupd([&input]).stdout(append).status().expect("it ends");
    assert_eq!((status.code(), read(&input)), (Some(2), events([1])));
    let append = std::fs::File::options().append(true).open(&input).expect("open");
    let from_itself = dedupd::<[&str; 0]>([]).stdin(std::fs::File::open(&input).expect("open")).stdout(append).status();
    assert_eq!((from_itself.expect("it ends").code(), read(&input)), (Some(2), events([1])));
}

#[test]
fn two_outputs_in_one_file_are_refused() {
    let dir = dir();
    let path = dir.path().join("new");
    let path = path.to_str().expect("UTF-8");
    let ran = filter(&["--rejects", path, "--duplicates", path], events([1]));
    assert_eq!(ran.code, Some(2));
    assert!(ran.err.contains("--duplicates is --rejects too"), "{}", ran.err);
    assert_eq!(filter(&["--rejects", "/dev/null", "--duplicates", "/dev/null"], events([1])).code, Some(0));
}

#[test]
fn a_half_line_on_standard_output_is_ended_first_and_counted() {
    let dir = dir();
    for (before, expected, added) in
        [("half", "half\n{\"id\":1}\n", 1), ("whole\n", "whole\n{\"id\":1}\n", 0), ("", "{\"id\":1}\n", 0)]
    {
        let path = write(dir.path().join("out"), before);
        for append in [true, false] {
            std::fs::write(&path, before).expect("written");
            let mut out = std::fs::File::options().append(append).write(true).open(&path).expect("open");
            out.seek(SeekFrom::End(0)).expect("at the end");
            let input = write(dir.path().join("in"), "{\"id\":1}\n");
            let ran = filter::Ran::from(dedupd(["--report", "json", &input]).stdout(out).output().expect("it ends"));
            assert_eq!(read(&path), expected, "append: {append}");
            assert_eq!(ran.count("newlines_added"), added);
        }
    }
}

#[test]
fn a_half_line_stays_as_it_is_when_nothing_follows() {
    let dir = dir();
    let path = write(dir.path().join("out"), "half");
    let out = std::fs::File::options().append(true).open(&path).expect("open");
    assert!(dedupd(["-q", "/dev/null"]).stdout(out).status().expect("it ends").success());
    assert_eq!(read(&path), "half");
}

#[test]
fn standard_output_is_written_at_its_offset_and_not_truncated() {
    let dir = dir();
    let path = write(dir.path().join("out"), "0123456789\nrest of the file\n");
    let mut out = std::fs::File::options().write(true).open(&path).expect("open");
    out.write_all(b"abcdefghij\n").expect("written");
    let input = write(dir.path().join("in"), "{\"id\":1}\n");
    assert!(dedupd(["-q", &input]).stdout(out).status().expect("it ends").success());
    assert_eq!(read(&path), "abcdefghij\n{\"id\":1}\nhe file\n");
}

#[test]
fn the_report_tells_people_and_programs_the_same() {
    let ran = filter(&["--window", "1h30m"], events([1, 2, 1]));
    let lines: Vec<&str> = ran.err.lines().collect();
    assert_eq!(lines.len(), 4, "{}", ran.err);
    assert!(lines[0].starts_with("read 3 in 0."), "{}", lines[0]);
    assert!(lines[0].ends_with("/s): 2 first-seen, 1 duplicate (33.3 %), 0 bad, 0 late"), "{}", lines[0]);
    assert!(lines[1].starts_with("window 1h30m +1m24s: 2 ids live in "), "{}", lines[1]);
    assert!(lines[1].contains("; duplicates came "), "{}", lines[1]);
    assert_eq!(lines[2], "kept: nothing evicted early, no clock held; delivery at-least-once, durability none");
    assert!(lines[3].starts_with("latency: events were out "), "{}", lines[3]);
    let report = filter_counted(&["--window", "1h30m"], events([1, 2, 1])).report();
    assert_eq!((&report["window_seconds"], &report["live_ids"]), (&5400.0.into(), &2.into()));
    assert_eq!((&report["delivery"], &report["durability"]), (&"at-least-once".into(), &"none".into()));
    assert_eq!(report["duplicate_age"]["sampled"], false);
    assert!(report["latency"]["max_us"].is_u64());
}
