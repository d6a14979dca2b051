//! Goal: each way to end has its exit code and says what, where and what to do. The table is in `dedupd --help`.

mod filter;

use std::io::{BufRead, BufReader, Read};
use std::process::{Command, Stdio};

use filter::{Ran, dedupd, dir, events, filter, terminal, wait, write};

#[test]
fn a_reader_that_goes_away_is_no_failure() {
    for threads in ["1", "2"] {
        let dir = dir();
        let path = write(dir.path().join("in"), events(0..500_000));
        let mut child = dedupd(["--report", "json", "--threads", threads, &path]).spawn().expect("the binary starts");
        let mut stdout = BufReader::new(child.stdout.take().expect("piped"));
        let mut line = String::new();
        stdout.read_line(&mut line).expect("a line");
        assert_eq!(line, events([0]));
        drop(stdout);
        let mut err = String::new();
        child.stderr.take().expect("piped").read_to_string(&mut err).expect("read");
        assert_eq!(wait(&mut child).code(), Some(0), "{err}");
        let ran = Ran { code: Some(0), out: Vec::new(), err };
        assert_eq!(ran.report()["balanced"], true);
        assert!(ran.count("in_flight") > 0, "what was not written is not called delivered");
    }
}

#[test]
fn a_reader_that_goes_away_ends_a_filter_whose_input_stays_open() {
    let mut child = dedupd(["-q", "--threads", "3"]).stdin(Stdio::piped()).spawn().expect("the binary starts");
    drop(child.stdout.take());
    let mut stdin = child.stdin.take().expect("piped");
    std::io::Write::write_all(&mut stdin, events([1]).as_bytes()).expect("written");
    assert_eq!(wait(&mut child).code(), Some(0));
    drop(stdin);
}

#[test]
fn a_full_disk_is_74_and_says_where() {
    let dir = dir();
    let path = write(dir.path().join("in"), events([1, 2]));
    let full = std::fs::File::options().write(true).open("/dev/full").expect("open");
    let ran = Ran::from(dedupd(["--report", "json", &path]).stdout(full).output().expect("it ends"));
    assert_eq!(ran.code, Some(74));
    assert!(ran.err.contains("error[output]: cannot write standard output: no space left on device"), "{}", ran.err);
    assert_eq!((ran.count("delivered"), ran.count("in_flight")), (0, 2));
    for flag in ["-o", "--duplicates", "--rejects"] {
        let ran = filter(
            &["--on-bad", "divert", "--rejects", "/dev/null", flag, "/dev/full"],
            "{\"id\":1}\n{\"id\":1}\nbad\n",
        );
        if flag == "--rejects" {
            assert_eq!(ran.code, Some(2), "given twice");
            continue;
        }
        assert_eq!(ran.code, Some(74), "{flag}");
        assert!(ran.err.contains("cannot write /dev/full: no space"), "{}", ran.err);
    }
    let ran = filter(&["--on-bad", "divert", "--rejects", "/dev/full"], "bad\n");
    assert_eq!(ran.code, Some(74));
}

#[test]
fn what_could_not_be_written_is_not_called_passed_or_diverted() {
    let long = format!("{}\n", "x".repeat(2_000));
    for input in [events([1]) + "bad\n", events([1]) + &long] {
        let args = ["--report", "json", "--max-line", "1000", "--on-bad", "divert", "--rejects", "/dev/full"];
        let ran = filter(&args, input);
        assert_eq!((ran.code, ran.text()), (Some(74), events([1]).as_str()));
        assert_eq!((ran.count("bad"), ran.count("diverted"), ran.count("delivered")), (1, 0, 1), "{}", ran.err);
        assert_eq!(ran.report()["balanced"], true);
    }
    for input in ["bad\n", &long] {
        let full = std::fs::File::options().write(true).open("/dev/full").expect("open");
        let dir = dir();
        let path = write(dir.path().join("in"), input);
        let args = ["--report", "json", "--max-line", "1000", &path];
        let ran = Ran::from(dedupd(args).stdout(full).output().expect("it ends"));
        assert_eq!((ran.code, ran.count("bad"), ran.count("passed")), (Some(74), 1, 0), "{}", ran.err);
    }
}

/// A socket that holds `bytes` and then fails, because its other end left without reading what was sent to it.
fn reset_after(bytes: &str) -> std::os::fd::OwnedFd {
    let (mut ours, mut theirs) = std::os::unix::net::UnixStream::pair().expect("a socket");
    std::io::Write::write_all(&mut theirs, b"never read").expect("written");
    std::io::Write::write_all(&mut ours, bytes.as_bytes()).expect("written");
    theirs.into()
}

#[test]
fn an_input_that_fails_is_74_and_what_was_read_before_is_out() {
    for threads in ["1", "4"] {
        for (input, out) in [
            (events([1, 2, 1]) + "{\"id", events([1, 2])),
            (events(0..3_000), events(0..3_000)),
            ("x".repeat(50_000), "x".repeat(50_000)),
        ] {
            let args = ["--report", "json", "--threads", threads, "--max-line", "1000"];
            let ran = Ran::from(dedupd(args).stdin(reset_after(&input)).output().expect("it ends"));
            assert_eq!(ran.code, Some(74), "{}", ran.err);
            assert!(ran.err.contains("error[input]: cannot read standard input: connection reset"), "{}", ran.err);
            assert!(ran.text() == out, "{}", ran.err);
            assert_eq!(ran.report()["balanced"], true);
        }
    }
}

#[test]
fn an_input_that_cannot_be_opened_is_66_before_anything_is_written() {
    let dir = dir();
    let good = write(dir.path().join("in"), events([1]));
    let out = dir.path().join("out");
    let missing = dir.path().join("missing");
    let directory = dir.path().to_str().expect("UTF-8");
    for (bad, why) in [(missing.to_str().expect("UTF-8"), "no such file"), (directory, "is a directory")] {
        let ran = filter(&["-o", out.to_str().expect("UTF-8"), &good, bad], "");
        assert_eq!((ran.code, ran.text()), (Some(66), ""));
        assert!(ran.err.contains(&format!("error[input]: cannot read {bad}: {why}")), "{}", ran.err);
        assert!(!out.exists());
    }
}

#[test]
fn a_file_that_may_not_be_read_is_66() {
    // SAFETY: the call has no arguments and cannot fail.
    if unsafe { libc::geteuid() } == 0 {
        eprintln!("skipped: the superuser may read everything");
        return;
    }
    let dir = dir();
    let path = write(dir.path().join("in"), events([1]));
    std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o0)).expect("set");
    let ran = filter(&[&path], "");
    assert_eq!(ran.code, Some(66));
    assert!(ran.err.contains("permission denied"), "{}", ran.err);
}

#[test]
fn a_directory_as_standard_input_is_66() {
    let dir = dir();
    let directory = std::fs::File::open(dir.path()).expect("open");
    let ran = Ran::from(dedupd::<[&str; 0]>([]).stdin(directory).output().expect("it ends"));
    assert_eq!(ran.code, Some(66));
    assert!(ran.err.contains("standard input: is a directory"), "{}", ran.err);
}

/// The filter run by a shell, for redirections that only a shell makes.
fn shell(script: &str) -> Ran {
    let script = script.replace("dedupd", env!("CARGO_BIN_EXE_dedupd"));
    Ran::from(Command::new("sh").args(["-c", &script]).output().expect("a shell"))
}

#[test]
fn closed_standard_descriptors_are_said_to_be_closed() {
    let ran = shell("dedupd <&-");
    assert_eq!(ran.code, Some(66));
    assert!(ran.err.contains("error[input]: standard input is closed"), "{}", ran.err);
    let ran = shell("echo '{\"id\":1}' | dedupd >&-");
    assert_eq!(ran.code, Some(74));
    assert!(ran.err.contains("error[output]: standard output is closed"), "{}", ran.err);
    let ran = shell("echo '{\"id\":1}' | dedupd 2>&-");
    assert_eq!((ran.code, ran.text()), (Some(0), "{\"id\":1}\n"));
    assert_eq!(shell("dedupd </dev/null").code, Some(0));
    assert_eq!(shell("dedupd 0<>/dev/null").code, Some(0));
}

#[test]
fn an_output_that_cannot_be_created_is_73() {
    for flag in ["-o", "--rejects", "--duplicates"] {
        let ran = filter(&[flag, "/nowhere/at/all"], events([1]));
        assert_eq!(ran.code, Some(73), "{flag}");
        assert!(ran.err.contains("error[output]: cannot write /nowhere/at/all: no such file"), "{}", ran.err);
    }
}

#[test]
fn usage_errors_are_2_and_say_how_it_is_written() {
    for (args, why) in [
        (&["--window", "24"][..], "write it like 24h"),
        (&["--window", "10ms"], "the smallest window is 1s"),
        (&["--max-line", "16M"], "write it like 16MiB"),
        (&["--max-line", "0"], "must not be 0"),
        (&["--max-line", "2GiB"], "--max-line may be 1GiB at most"),
        (&["--max-memory", "1"], "too few"),
        (&["--threads", "0"], "--threads"),
        (&["--max-ids", "0"], "--max-ids"),
        (&["--report-every", "0s"], "must not be 0"),
        (&["--rejects", "-"], "--rejects needs a file of its own: name one, or ./- for a file called -"),
        (&["--duplicates", "-"], "--duplicates needs a file of its own"),
        (&["--lateness", "1s"], "--time-field"),
        (&["--key", ""], "--key"),
        (&["-k", "@line", "-k", "id"], "--key"),
        (&["--on-bad", "explode"], "divert"),
        (&["--no-such-flag"], "unexpected argument"),
        (&["--quiet", "--verbose"], "cannot be used with"),
    ] {
        let ran = filter(args, events([1]));
        assert_eq!((ran.code, ran.text()), (Some(2), ""), "{args:?}: {}", ran.err);
        assert!(ran.err.contains(why), "{args:?}: {}", ran.err);
    }
}

#[test]
fn quiet_hides_everything_but_errors() {
    let ran = filter(&["-q"], "bad\n{\"no\":1}\n");
    assert_eq!((ran.code, ran.err.as_str()), (Some(0), ""));
    let ran = filter(&["-q", "--on-bad", "fail"], "bad\n");
    assert_eq!((ran.code, ran.err.lines().count()), (Some(65), 1));
}

#[test]
fn log_lines_can_be_json() {
    let ran = filter(&["--log-format", "json", "--report", "json", "--on-missing", "fail"], "bad\n{}\n");
    let lines: Vec<serde_json::Value> =
        ran.err.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("JSON: {line}"))).collect();
    assert_eq!((&lines[0]["level"], &lines[0]["code"]), (&"warning".into(), &"malformed".into()));
    let last = lines.last().expect("a line");
    assert_eq!((&last["level"], &last["code"]), (&"error".into(), &"missing_id".into()));
    assert!(last["message"].as_str().expect("text").starts_with("standard input, line 2, byte 4: "));
}

#[test]
fn on_a_terminal_without_an_input_there_is_short_help() {
    let (_ours, theirs) = terminal();
    let ran = Ran::from(dedupd::<[&str; 0]>([]).stdin(theirs).output().expect("it ends"));
    assert_eq!((ran.code, ran.text()), (Some(2), ""));
    assert!(ran.err.contains("Usage: dedupd"), "{}", ran.err);
}

#[test]
fn a_terminal_can_be_the_input_when_it_is_named() {
    let (mut ours, theirs) = terminal();
    std::io::Write::write_all(&mut ours, b"{\"id\":1}\n{\"id\":1}\n\x04").expect("written");
    let ran = Ran::from(dedupd(["-q", "-"]).stdin(theirs).output().expect("it ends"));
    assert_eq!((ran.code, ran.text()), (Some(0), "{\"id\":1}\n"));
    drop(ours);
}

#[test]
fn progress_is_for_terminals_and_leaves_the_lines_alone() {
    let ran = filter(&["--progress"], events(0..1_000));
    assert_eq!((ran.code, ran.text()), (Some(0), events(0..1_000).as_str()));
}
