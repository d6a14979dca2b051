//! Goal: the report tells how long delivered events were under way, from when they were read to when they were out.
//! Method: how long that takes is nobody's promise, so what is looked at is whether there is a latency, that its
//! quantiles are in order, and that it is not longer than whoever wrote a line has waited for it.

mod filter;

use std::time::{Duration, Instant};

use filter::{Ran, Running, dir, events, filter, filter_counted, write};
use serde_json::Value;

/// The quantiles and the maximum of a report, in microseconds.
fn latency(report: &Value) -> [u64; 4] {
    let latency = &report["latency"];
    ["p50_us", "p99_us", "p999_us", "max_us"].map(|name| latency[name].as_u64().unwrap_or_else(|| panic!("{report}")))
}

fn last_report(err: &str) -> Value {
    Ran { code: None, out: Vec::new(), err: err.to_owned() }.report()
}

#[test]
fn quantiles_are_in_order_on_any_number_of_threads() {
    for threads in ["1", "4"] {
        let ran = filter_counted(&["--threads", threads], events((0..50_000).chain(0..1_000)));
        let latency = latency(&ran.report());
        assert!(latency.is_sorted() && latency[0] > 0, "{latency:?}");
    }
}

#[test]
fn the_text_report_has_it_in_a_line_of_its_own_behind_the_others() {
    let ran = filter(&[], events([1, 2, 1]));
    let lines: Vec<&str> = ran.err.lines().collect();
    let starts = ["read 3 in ", "window 24h +", "kept: ", "latency: events were out "];
    assert_eq!(lines.len(), starts.len(), "{}", ran.err);
    assert!(lines.iter().zip(starts).all(|(line, start)| line.starts_with(start)), "{}", ran.err);
    for part in [" after they were read (median), 99 % within ", ", 99.9 % within ", " at most"] {
        assert!(lines[3].contains(part), "{}", lines[3]);
    }
}

#[test]
fn without_a_delivered_event_there_is_none() {
    let dir = dir();
    let state = dir.path().join("state");
    let with_state = ["-s", state.to_str().expect("UTF-8")];
    assert_ne!(filter_counted(&with_state, events([1])).report()["latency"], Value::Null);
    for (args, input) in [
        (&[][..], String::new()),
        // Bad lines are passed on, and are no events to deliver; neither are blank ones, nor repeats.
        (&[], "{\"no\":1}\nbad\n\n".to_owned()),
        (&with_state, events([1, 1])),
        (&["-o", "/dev/full"], events([1])),
    ] {
        let ran = filter_counted(args, &input);
        assert_eq!((ran.count("delivered"), &ran.report()["latency"]), (0, &Value::Null), "{args:?}: {}", ran.err);
        assert!(!filter(args, &input).err.contains("latency:"), "{args:?}");
    }
}

#[test]
fn a_last_line_without_a_newline_counts() {
    let dir = dir();
    let input = write(dir.path().join("in"), "{\"id\":1}");
    assert!(latency(&filter_counted(&[&input], "").report()).is_sorted());
}

#[test]
fn a_line_behind_one_that_is_too_long_counts() {
    let mut running = Running::start(&["--report", "json", "--max-line", "64KiB", "--on-bad", "drop"]);
    running.write(format!("{}\n{}", "x".repeat(1 << 20), events([1])));
    assert_eq!(running.line(), events([1]));
    let (_, _, err) = running.end();
    assert!(latency(&last_report(&err)).is_sorted());
}

/// What the filter waited for its input, or for the end of a line, is no time under way. Its reports say that time has
/// passed.
#[test]
fn no_line_takes_longer_than_its_writer_has_waited() {
    for (begun, rest) in [("", "{\"id\":1}\n"), ("{\"id\"", ":1}\n")] {
        let mut running = Running::start(&["--report", "json", "--report-every", "300ms"]);
        running.write(begun);
        for _ in 0..2 {
            assert_eq!(last_report(&running.err_line())["latency"], Value::Null);
        }
        let written = Instant::now();
        running.write(rest);
        assert_eq!(running.line(), "{\"id\":1}\n");
        let (_, _, err) = running.end();
        // Until its end: it may look at the clock only after the line is here.
        let waited = written.elapsed();
        let [.., max_us] = latency(&last_report(&err));
        // A latency is rounded up to two digits.
        assert!(Duration::from_micros(max_us) <= waited + waited / 50, "{begun:?}: {max_us} us, waited {waited:?}");
    }
}
