//! Goal: `--state` keeps the window across runs, says what its promises rest on, and refuses what it cannot keep; each
//! refusal has its exit code and says what to do.

mod filter;

use std::path::{Path, PathBuf};

use filter::{Ran, Running, dedupd, dir, events, filter, filter_counted, read, write};

fn text(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

#[test]
fn what_one_run_has_seen_the_next_one_knows() {
    let dir = dir();
    let state = dir.path().join("state");
    for durability in ["process", "interval=50ms", "power-loss"] {
        let args = ["--state", text(&state), "--durability", durability];
        let new = format!("only with {durability}");
        let ran = filter_counted(&args, events(["a", "b", &new]));
        let expected = if durability == "process" { events(["a", "b", &new]) } else { events([&new]) };
        assert_eq!((ran.code, ran.text()), (Some(0), expected.as_str()));
        assert_eq!(
            (&ran.report()["durability"], &ran.report()["delivery"]),
            (&durability.into(), &"at-least-once".into())
        );
        assert_eq!(filter(&args, events(["b", &new])).text(), "");
    }
    let ran = filter_counted(&["--state", text(&state)], "");
    assert_eq!((&ran.report()["recovered"]["ids"], &ran.report()["live_ids"]), (&5.into(), &5.into()));
    assert_eq!(ran.report()["recovered"]["lost"], serde_json::Value::Null);
}

#[test]
fn what_is_recovered_is_counted_in_ids_and_not_in_records() {
    let dir = dir();
    let state = dir.path().join("state");
    let args = ["--state", text(&state)];
    let forget = |id| filter(&["forget", text(&state)], events([id])).code;
    assert_eq!(filter(&args, events([1, 2, 3])).code, Some(0));
    assert_eq!((forget(3), filter(&args, events([3, 1])).text()), (Some(0), events([3]).as_str()));
    assert_eq!(forget(1), Some(0));
    let ran = filter_counted(&args, "");
    let recovered = &ran.report()["recovered"];
    assert_eq!((&recovered["ids"], &recovered["records"]), (&2.into(), &4.into()), "{}", ran.err);
    assert!(filter(&args, "").err.contains("recovered 2 ids, nothing lost"));
}

#[test]
fn nothing_new_is_kept_with_none() {
    let dir = dir();
    let state = dir.path().join("state");
    assert_eq!(filter(&["-s", text(&state)], events([1])).text(), events([1]));
    for _ in 0..2 {
        let ran = filter_counted(&["-s", text(&state), "--durability", "none"], events([1, 2]));
        assert_eq!((ran.text(), &ran.report()["durability"]), (events([2]).as_str(), &"none".into()));
    }
}

#[test]
fn the_third_line_says_what_the_promises_rest_on() {
    let dir = dir();
    let [state, input, out] = ["state", "in", "out"].map(|name| dir.path().join(name));
    write(&input, events([1, 2, 1]));
    let args = ["-s", text(&state), "-i", text(&input), "-o", text(&out), "--durability", "process"];
    for recovered in ["recovered 0 ids, nothing lost", "recovered 2 ids, nothing lost"] {
        let ran = filter(&args, "");
        let third = ran.err.lines().skip_while(|line| !line.starts_with("read ")).nth(2).expect("a third line");
        let promises = "kept: nothing evicted early, no clock held; delivery exactly-once, durability process";
        assert_eq!(third, format!("{promises}; {recovered}"));
    }
}

#[test]
fn a_state_that_is_in_use_is_75() {
    let dir = dir();
    let state = dir.path().join("state");
    let mut first = Running::start(&["-q", "--state", text(&state)]);
    first.write(events([1]));
    assert_eq!(first.line(), events([1]));
    let ran = filter(&["--state", text(&state), "--lock-timeout", "20ms"], events([2]));
    assert_eq!((ran.code, ran.text()), (Some(75), ""), "{}", ran.err);
    assert!(ran.err.contains("error[state_locked]") && ran.err.contains("--lock-timeout"), "{}", ran.err);
    let holder = format!("in use by process {} (dedupd)", first.child.id());
    assert!(!cfg!(target_os = "linux") || ran.err.contains(&holder), "{}", ran.err);
    assert!(first.end().0.success());
}

#[test]
fn a_state_that_is_free_in_time_is_waited_for() {
    let dir = dir();
    let state = dir.path().join("state");
    let mut first = Running::start(&["-q", "--state", text(&state)]);
    first.write(events([1]));
    assert_eq!(first.line(), events([1]));
    let mut second = Running::start(&["-q", "--state", text(&state), "--lock-timeout", "1h"]);
    second.write(events([1, 2]));
    assert!(first.end().0.success());
    assert_eq!(second.line(), events([2]));
    assert!(second.end().0.success());
}

#[test]
fn a_state_of_another_configuration_is_78() {
    let dir = dir();
    let state = dir.path().join("state");
    assert_eq!(filter(&["--state", text(&state)], events([1])).code, Some(0));
    for (args, differs) in [
        (&["--key", "other"][..], "what differs is the id paths"),
        (&["--key", "@line"], "what differs is the id paths"),
        (&["--hash", "xxh3"], "what differs is the hash"),
    ] {
        let ran = filter(&[&["--state", text(&state)], args].concat(), events([1]));
        assert_eq!((ran.code, ran.text()), (Some(78), ""), "{}", ran.err);
        assert!(ran.err.contains("error[state_of_other_configuration]") && ran.err.contains(differs), "{}", ran.err);
    }
    for args in [&["--window", "1h"][..], &["--max-ids", "10"], &["--durability", "process"], &["--key", "/id"]] {
        assert_eq!(filter(&[&["--state", text(&state)], args].concat(), events([1])).code, Some(0), "{args:?}");
    }
}

/// One event happened in 2025 and is seen today, another of the same ID happens today: a year apart, and so both are first-seen. Were
/// the times of one kind taken for those of the other, the second one would be dropped.
#[test]
fn a_state_of_the_clocks_times_is_none_of_event_times_and_the_other_way_round() {
    let dir = dir();
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("a time").as_secs();
    let [before, today] = [1_735_689_600, now].map(|at| format!("{{\"id\":1,\"at\":{at}}}\n"));
    let (by_clock, by_event) = (&[][..], &["--time-field", "at", "--time-unit", "s"][..]);
    for (made, other) in [(by_clock, by_event), (by_event, by_clock)] {
        let state = dir.path().join(format!("state {}", made.len()));
        let run = |flags: &[&str], line: &str| filter(&[&["-q", "-s", text(&state)], flags].concat(), line);
        assert_eq!(run(made, &before).text(), before);
        let ran = run(other, &today);
        assert_eq!((ran.code, ran.text()), (Some(78), ""), "{}", ran.err);
        let why = "what differs is whether events bring their own times";
        assert!(ran.err.contains("error[state_of_other_configuration]") && ran.err.contains(why), "{}", ran.err);
        assert!(ran.err.contains("--time-field"), "{}", ran.err);
        let explained = filter(&[&["explain", "-s", text(&state)], other].concat(), &today);
        assert_eq!((explained.code, explained.text()), (Some(78), ""), "{}", explained.err);
        assert!(explained.err.contains("--time-field"), "{}", explained.err);
        // Nothing has changed, and what does not concern it may.
        assert_eq!(filter(&[&["explain", "-s", text(&state)], made].concat(), &before).code, Some(0));
        assert_eq!(run(&[made, &["--window", "48h"]].concat(), &before).text(), "");
        let forgotten = filter(&["forget", text(&state)], &before);
        assert!(forgotten.text().contains("1 forgotten"), "{} {}", forgotten.text(), forgotten.err);
        assert_eq!(run(made, &before).text(), before);
    }
}

/// Turns a bit in a frame of the first segment, and returns that with what is in it then.
fn corrupt(state: &Path) -> (PathBuf, Vec<u8>) {
    let files = std::fs::read_dir(state).expect("a directory").map(|entry| entry.expect("a file").path());
    let victim = files.filter(|path| path.extension().is_some_and(|name| name == "log")).min().expect("a segment");
    let mut bytes = std::fs::read(&victim).expect("a segment");
    let middle = bytes.iter().rposition(|&byte| byte != 0).expect("frames") / 2 + 2_100;
    bytes[middle] ^= 1;
    std::fs::write(&victim, &bytes).expect("written");
    (victim, bytes)
}

#[test]
fn a_corrupt_state_is_76_and_nothing_is_changed() {
    let dir = dir();
    let state = dir.path().join("state");
    for n in 0..3 {
        assert_eq!(filter(&["--state", text(&state)], events(n * 100..n * 100 + 100)).code, Some(0));
    }
    let (victim, bytes) = corrupt(&state);
    let ran = filter(&["--state", text(&state)], events([1]));
    assert_eq!((ran.code, ran.text()), (Some(76), ""), "{}", ran.err);
    assert!(ran.err.contains("error[state_corrupt]") && ran.err.contains("is corrupt at byte"), "{}", ran.err);
    assert!(ran.err.contains(text(&victim)) && ran.err.contains("repair"), "{}", ran.err);
    assert_eq!(std::fs::read(&victim).expect("a segment"), bytes);
}

#[test]
fn the_report_says_what_a_salvaged_state_has_lost() {
    for format in ["json", "text"] {
        let dir = dir();
        let state = dir.path().join("state");
        for n in 0..3 {
            assert_eq!(filter(&["--state", text(&state)], events(n * 100..n * 100 + 100)).code, Some(0));
        }
        corrupt(&state);
        let salvage = ["--state", text(&state), "--on-corrupt", "salvage", "--report", format];
        let ran = filter(&salvage, "");
        assert_eq!(ran.code, Some(0), "{}", ran.err);
        assert!(!ran.err.contains("nothing lost"), "{}", ran.err);
        match format {
            "text" => {
                assert!(ran.err.contains("recovered 200 ids, repaired, 1 frame missing with "), "{}", ran.err);
                let until = ran.err.split_once(", the window holds from 2").expect("a time").1;
                assert!(until.contains("Z on (in 24h"), "{}", ran.err);
            }
            _ => {
                let repaired = &ran.report()["recovered"]["repaired"];
                assert!(repaired["frames_missing"].as_u64() > Some(0), "{repaired}");
                assert!(repaired["ids_unknown_max"].as_u64() >= Some(100), "{repaired}");
                assert!(repaired["gaps"][0]["place"].as_str().is_some_and(|name| name.ends_with(".log")), "{repaired}");
            }
        }
        // The next run finds a sound state.
        let ran = filter_counted(&["--state", text(&state)], "");
        assert_eq!(ran.report()["recovered"]["repaired"], serde_json::Value::Null);
    }
}

#[test]
fn a_state_that_cannot_be_made_is_73() {
    let dir = dir();
    let file = write(dir.path().join("file"), "");
    for path in [file.clone(), format!("{file}/state"), "/proc/dedupd".to_owned()] {
        let ran = filter(&["--state", &path], events([1]));
        assert_eq!((ran.code, ran.text()), (Some(73), ""), "{path}: {}", ran.err);
        assert!(ran.err.contains(&path) && ran.err.contains("name a directory"), "{}", ran.err);
    }
}

/// Takes the log away from a filter that has it open: from then on nothing can be kept.
fn break_state(state: &Path) {
    for entry in std::fs::read_dir(state).expect("a directory") {
        let path = entry.expect("a file").path();
        if path.extension().is_some_and(|name| name == "log") {
            std::fs::remove_file(path).expect("removed");
        }
    }
}

#[test]
fn a_state_that_fails_stops_the_run() {
    for durability in ["interval=5ms", "power-loss"] {
        let dir = dir();
        let state = dir.path().join("state");
        let mut running = Running::start(&["-s", text(&state), "--durability", durability]);
        running.write(events([1]));
        assert_eq!(running.line(), events([1]));
        break_state(&state);
        let mut stdin = running.stdin.take().expect("open");
        let writing = std::thread::spawn(move || {
            // Until the filter is gone; it may take until its next sync that it notices.
            for n in 2.. {
                if std::io::Write::write_all(&mut stdin, events([n]).as_bytes()).is_err() {
                    return;
                }
                std::thread::yield_now();
            }
        });
        let (status, _, err) = running.end();
        writing.join().expect("written");
        assert_eq!(status.code(), Some(74), "{err}");
        assert!(err.contains("error[log_poisoned]"), "{err}");
    }
}

#[test]
fn a_state_that_fails_is_passed_by_when_that_is_asked_for() {
    let dir = dir();
    let state = dir.path().join("state");
    let args = ["--report", "json", "-s", text(&state), "--durability", "power-loss", "--when-state-fails", "pass"];
    let mut running = Running::start(&args);
    running.write(events([1]));
    assert_eq!(running.line(), events([1]));
    break_state(&state);
    for n in 2..50 {
        running.write(events([n, n, 1]));
        assert_eq!(running.line(), events([n]), "memory still knows");
    }
    let (status, _, err) = running.end();
    assert_eq!(status.code(), Some(0), "{err}");
    let report = err.lines().find(|line| line.starts_with("{\"read\"")).expect("a report");
    let report: serde_json::Value = serde_json::from_str(report).expect("JSON");
    // The first line was out, and its ID maybe not committed yet.
    assert!(report["bypassed"] == 48 || report["bypassed"] == 49, "{report}");
}

#[test]
fn what_is_out_is_committed_in_time_though_nothing_more_comes() {
    let dir = dir();
    let [state, input, out] = ["state", "in", "out"].map(|name| dir.path().join(name));
    write(&input, events([1]));
    let args = ["-s", text(&state), "--follow", "-i", text(&input), "-o", text(&out), "--durability", "interval=5ms"];
    let running = Running::start(&args);
    // Positions are written as text, so they can be found in the log.
    filter::eventually("the position is recorded", || {
        let files = std::fs::read_dir(&state).into_iter().flatten().flatten();
        let logs: Vec<u8> = files.filter_map(|file| std::fs::read(file.path()).ok()).flatten().collect();
        logs.windows(17).any(|bytes| bytes == b"offset=11 lines=1")
    });
    running.signal(libc::SIGTERM);
    assert!(running.end().0.success());
}

#[test]
fn an_input_that_is_not_there_makes_no_state() {
    let dir = dir();
    let [state, nowhere] = ["state", "nowhere"].map(|name| dir.path().join(name));
    assert_eq!(filter(&["--state", text(&state), text(&nowhere)], "").code, Some(66));
    assert!(!state.exists());
}

#[test]
fn what_needs_a_state_says_so() {
    for flags in [
        &["--durability", "process"][..],
        &["--lock-timeout", "1s"],
        &["--max-disk", "1GiB"],
        &["--when-state-fails", "pass"],
        &["--append"],
    ] {
        let ran = filter(flags, events([1]));
        assert_eq!((ran.code, ran.text()), (Some(2), ""), "{flags:?}");
        assert!(ran.err.contains("--state <DIR>"), "{}", ran.err);
    }
    let dir = dir();
    let state = dir.path().join("state");
    let ran = filter(&["--state", text(&state), "--max-disk", "1KiB"], events([1]));
    assert_eq!((ran.code, ran.text(), state.exists()), (Some(2), "", false));
    assert!(ran.err.contains("--max-disk: 1024 bytes") && ran.err.contains("(3MiB)"), "{}", ran.err);
    for (level, why) in [("interval", "it is none, process"), ("interval=0s", "power-loss"), ("interval=5", "no unit")]
    {
        let ran = filter(&["--state", "/nowhere", "--durability", level], "");
        assert!(ran.code == Some(2) && ran.err.contains(why), "{}", ran.err);
    }
}

#[test]
fn a_delivery_that_cannot_be_given_is_a_usage_error() {
    let dir = dir();
    let [state, input, out] = ["state", "in", "out"].map(|name| dir.path().join(name));
    write(&input, events([1]));
    let (state, input, out) = (text(&state), text(&input), text(&out));
    let exactly_once = ["--delivery", "exactly-once"];
    for (args, why) in [
        (&[][..], "--state"),
        (&["-i", input, "-o", out], "--state"),
        (&["-s", state, "--durability", "none", "-i", input, "-o", out], "other than none"),
        (&["-s", state, "-o", out], "standard input is no regular file"),
        (&["-s", state, "-i", input], "--output FILE"),
        (&["-s", state, "-i", input, "-o", "/dev/tty"], "/dev/tty is no regular file"),
        (&["-s", state, "-i", input, "-o", out, "--when-disk-full", "pass"], "without recording"),
        (&["-s", state, "-i", input, "-o", out, "--when-state-fails", "pass"], "without recording"),
    ] {
        let ran = filter(&[&exactly_once[..], args].concat(), events([1]));
        assert_eq!((ran.code, ran.text()), (Some(2), ""), "{args:?}: {}", ran.err);
        assert!(ran.err.contains("--delivery exactly-once cannot be given") && ran.err.contains(why), "{}", ran.err);
    }
    for args in [&[][..], &["-s", state, "--durability", "none"], &["-s", state, "--when-disk-full", "pass"]] {
        let ran = filter(&[&["--delivery", "at-most-once"][..], args].concat(), events([1]));
        assert!(ran.code == Some(2) && ran.err.contains("--delivery at-most-once cannot be given"), "{}", ran.err);
    }
    assert!(!Path::new(state).exists() && !Path::new(out).exists());
}

#[test]
fn the_mode_in_force_is_the_strongest_and_is_told() {
    let dir = dir();
    let [state, input, out] = ["state", "in", "out"].map(|name| dir.path().join(name));
    write(&input, events([1]));
    let (state, input, out) = (text(&state), text(&input), text(&out));
    let at_most = ["--delivery", "at-most-once"];
    for (args, mode) in [
        (vec![], "at-least-once"),
        (vec!["--delivery", "at-least-once"], "at-least-once"),
        (vec!["-s", state], "at-least-once"),
        ([&["-s", state][..], &at_most].concat(), "at-most-once"),
        (vec!["-s", state, "-i", input, "-o", out], "exactly-once"),
        ([&["-s", state, "-i", input, "-o", out][..], &at_most].concat(), "exactly-once"),
        (vec!["-s", state, "-i", input, "-o", out, "--rejects", "/dev/null"], "exactly-once"),
        (vec!["-s", state, "-i", input], "at-least-once"),
    ] {
        let ran = filter_counted(&args, "");
        assert_eq!((ran.code, &ran.report()["delivery"]), (Some(0), &mode.into()), "{args:?}");
    }
}

#[test]
fn at_most_once_forgets_nothing_that_it_did_not_deliver() {
    let dir = dir();
    let state = dir.path().join("state");
    let args = ["-q", "--state", text(&state), "--delivery", "at-most-once", "--durability", "process"];
    // A reader that has gone: what is committed and cannot be delivered is lost, as this mode says.
    let input = write(dir.path().join("in"), events([1, 2]));
    let mut child = dedupd(args).arg(&input).spawn().expect("the binary starts");
    drop(child.stdout.take());
    assert!(filter::wait(&mut child).success());
    let again = Ran::from(dedupd(args).arg(&input).output().expect("it ends"));
    let least = filter(&["-q", "--state", text(&state)], events([1, 2, 3]));
    assert!(again.text().is_empty() || again.text() == events([1, 2]), "{}", again.text());
    assert_eq!(least.text(), events([3]));
}

#[test]
fn a_window_that_has_passed_between_two_runs_is_over() {
    let dir = dir();
    let [state, input] = ["state", "in"].map(|name| dir.path().join(name));
    let timed = |id: u32, at: u32| format!("{{\"id\":{id},\"at\":{at}}}\n");
    let args = [
        "-q",
        "-s",
        text(&state),
        "-w",
        "60s",
        "--time-field",
        "at",
        "--time-unit",
        "s",
        "--lateness",
        "10s",
        text(&input),
    ];
    write(&input, timed(1, 1_000) + &timed(2, 1_030));
    assert_eq!(filter(&args, "").text(), timed(1, 1_000) + &timed(2, 1_030));
    write(&input, timed(1, 1_059) + &timed(2, 1_200) + &timed(2, 1_201));
    assert_eq!(filter(&args, "").text(), timed(2, 1_200));
}

#[test]
fn events_of_two_windows_are_not_called_repeats_while_they_wait_for_a_sync() {
    let dir = dir();
    let [state, input, out] = ["state", "in", "out"].map(|name| dir.path().join(name));
    let timed = |id: u32, at: u32| format!("{{\"id\":{id},\"at\":{at}}}\n");
    let lines: String = (0..50_000).map(|n| timed(n % 1_000, 1_000 + n / 1_000 * 61)).collect();
    write(&input, &lines);
    let event_time = ["-w", "60s", "--time-field", "at", "--time-unit", "s", "--lateness", "10s"];
    let files = ["-s", text(&state), "-i", text(&input), "-o", text(&out), "--durability", "interval=1h"];
    let ran = filter(&[&["-q"], &event_time[..], &files].concat(), "");
    assert_eq!((ran.code, ran.err.as_str()), (Some(0), ""));
    let expected = filter(&[&["-q"], &event_time[..], &[text(&input)]].concat(), "");
    assert!(read(&out) == expected.text());
}
