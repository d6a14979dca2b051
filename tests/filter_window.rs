//! Goal: windows, event time and limits reach the set, and what cannot be judged is passed on and counted.

mod filter;

use filter::{Running, dir, events, filter_counted, read};

/// Events with an ID and a time in seconds.
fn timed(events: &[(u32, i64)]) -> String {
    events.iter().map(|(id, time)| format!("{{\"id\":{id},\"at\":{time}}}\n")).collect()
}

const EVENT_TIME: [&str; 6] = ["--time-field", "at", "--time-unit", "s", "--window", "60s"];

fn with<'a>(args: &[&'a str]) -> Vec<&'a str> {
    [&EVENT_TIME[..], args].concat()
}

#[test]
fn in_event_time_a_repeat_after_the_window_is_new_also_within_one_chunk() {
    let input = timed(&[(1, 0), (1, 59), (2, 60), (1, 70), (1, 100), (1, 1_000), (2, 1_000), (1, 1_001)]);
    let ran = filter_counted(&with(&["--lateness", "10s"]), &input);
    assert_eq!(ran.text(), timed(&[(1, 0), (2, 60), (1, 70), (1, 1_000), (2, 1_000)]));
    assert_eq!((ran.count("duplicate"), ran.count("late")), (3, 0));
}

#[test]
fn the_age_of_duplicates_is_told_in_event_time() {
    let ran = filter_counted(&with(&[]), timed(&[(1, 0), (1, 10), (1, 20), (1, 30)]));
    let age = &ran.report()["duplicate_age"];
    assert_eq!(age["max_ms"].as_u64().map(|ms| ms / 100), Some(300));
    assert_eq!(age["median_ms"].as_u64().map(|ms| ms / 100), Some(200));
}

#[test]
fn late_events_are_passed_dropped_or_diverted() {
    let dir = dir();
    let rejects = dir.path().join("rejects");
    let path = rejects.to_str().expect("UTF-8");
    let input = timed(&[(1, 1_000), (2, 900), (3, 999), (2, 900)]);
    let ran = filter_counted(&with(&["--lateness", "10s"]), &input);
    assert_eq!(ran.text(), input);
    assert_eq!((ran.count("late"), ran.count("passed"), ran.code), (2, 2, Some(0)));
    assert_eq!(ran.err.matches("warning[late]").count(), 1);
    let ran = filter_counted(&with(&["--lateness", "10s", "--late", "drop"]), &input);
    assert_eq!(ran.text(), timed(&[(1, 1_000), (3, 999)]));
    assert_eq!(ran.count("dropped"), 2);
    let ran = filter_counted(&with(&["--lateness", "10s", "--late", "divert", "--rejects", path]), &input);
    assert_eq!((ran.code, ran.count("diverted")), (Some(1), 2));
    assert_eq!(read(&rejects), timed(&[(2, 900), (2, 900)]));
}

#[test]
fn a_time_far_ahead_moves_nothing_and_is_counted() {
    let ran =
        filter_counted(&with(&["--lateness", "10s"]), timed(&[(1, 1_000), (2, 9_000_000_000), (3, 1_001), (1, 1_002)]));
    assert_eq!(ran.text(), timed(&[(1, 1_000), (2, 9_000_000_000), (3, 1_001)]));
    assert_eq!((ran.count("future"), ran.count("late")), (1, 0));
}

#[test]
fn a_time_that_cannot_be_read_makes_a_bad_line() {
    let input = "{\"id\":1,\"at\":5}\n{\"id\":2}\n{\"id\":3,\"at\":\"noon\"}\n{\"id\":4,\"at\":1,\"at\":2}\n{\"id\":1,\"at\":6}\n";
    let ran = filter_counted(&with(&["--on-bad", "drop"]), input);
    assert_eq!(ran.text(), "{\"id\":1,\"at\":5}\n");
    assert_eq!(ran.report()["bad_reasons"]["malformed"], 3);
    let ran = filter_counted(&["--time-field", "t"], "{\"id\":1,\"t\":\"2024-01-01T00:00:00Z\"}\n{\"id\":2,\"t\":7}\n");
    assert_eq!((ran.count("first_seen"), ran.count("bad")), (1, 1));
}

#[test]
fn repeats_can_extend_the_window() {
    let input = timed(&[(1, 0), (1, 40), (1, 80), (1, 120), (1, 300)]);
    let ran = filter_counted(&with(&["--extend"]), &input);
    assert_eq!(ran.text(), timed(&[(1, 0), (1, 300)]));
    let ran = filter_counted(&with(&[]), &input);
    assert_eq!(ran.text(), timed(&[(1, 0), (1, 80), (1, 300)]));
}

#[test]
fn a_full_set_that_may_not_forget_passes_on_what_it_cannot_judge() {
    let input = events((0..3_000).chain(0..3_000));
    let ran = filter_counted(&["--max-ids", "1000", "--when-full", "refuse"], &input);
    assert_eq!(ran.count("first_seen") + ran.count("duplicate") + ran.count("refused"), 6_000);
    assert!(ran.count("refused") >= 4_000 && ran.count("evicted_early") == 0, "{}", ran.err);
    assert_eq!(ran.count("passed"), ran.count("refused"));
    assert_eq!(ran.text().lines().count() as u64, ran.count("first_seen") + ran.count("refused"));
    assert_eq!(ran.err.matches("warning[full]").count(), 1);
    assert_eq!(ran.code, Some(0));
}

#[test]
fn a_full_set_forgets_the_oldest_and_says_so() {
    let ran = filter_counted(&["--max-ids", "1000"], events(0..10_000));
    assert!(ran.count("evicted_early") >= 9_000, "{}", ran.err);
    assert!(ran.count("live_ids") <= 1_000);
    assert_eq!(ran.count("refused"), 0);
}

#[test]
fn a_set_smaller_than_a_chunk_judges_every_event() {
    let unique = events(0..400);
    // Each id twice, one after the other: the second is known whatever was forgotten.
    let repeated = events((0..400).flat_map(|id| [id, id]));
    for threads in ["1", "4"] {
        for _ in 0..20 {
            for (limit, evicted) in [("64", 336), ("1", 399), ("2", 398)] {
                let args = ["--max-ids", limit, "--threads", threads];
                let ran = filter_counted(&args, &unique);
                assert!(ran.text() == unique, "{limit} ids: {}", ran.err);
                assert_eq!(ran.count("refused"), 0, "{limit} ids: {}", ran.err);
                assert!(ran.count("evicted_early") >= evicted, "{limit} ids: {}", ran.err);
                let ran = filter_counted(&args, &repeated);
                assert!(ran.text() == unique, "{limit} ids: {}", ran.err);
                assert_eq!((ran.count("duplicate"), ran.count("refused")), (400, 0), "{limit} ids: {}", ran.err);
            }
        }
    }
}

#[test]
fn a_full_set_knows_the_newest_ids_across_reservations() {
    let input = events((0..400).chain(390..400));
    for _ in 0..20 {
        let ran = filter_counted(&["--max-ids", "64"], &input);
        assert!(ran.text() == events(0..400), "{}", ran.err);
        assert_eq!((ran.count("duplicate"), ran.count("refused")), (10, 0));
    }
}

#[test]
fn in_event_time_a_set_smaller_than_a_chunk_makes_nothing_late() {
    let input = timed(&(0..5_000).map(|n| (n, i64::from(n) + 1_000)).collect::<Vec<_>>());
    let args = ["--time-field", "at", "--time-unit", "s", "--lateness", "1s", "--late", "drop"];
    for (limit, evicted) in [("1000", 4_000), ("64", 4_936)] {
        for threads in ["1", "4"] {
            let ran = filter_counted(&[&args[..], &["--max-ids", limit, "--threads", threads]].concat(), &input);
            assert!(ran.text() == input, "{}", ran.err);
            assert_eq!((ran.count("late"), ran.count("refused")), (0, 0), "{}", ran.err);
            assert!(ran.count("evicted_early") >= evicted, "{}", ran.err);
        }
    }
}

#[test]
fn a_set_with_little_memory_judges_every_event() {
    let ran = filter_counted(&["--max-memory", "4MiB"], events(0..400_000));
    assert_eq!((ran.count("first_seen"), ran.count("refused")), (400_000, 0), "{}", ran.err);
}

#[test]
fn the_window_runs_by_the_clock() {
    let mut running = Running::start(&["-q", "--window", "1s"]);
    running.write(events([1]));
    assert_eq!(running.line(), events([1]));
    let started = std::time::Instant::now();
    // Asked until it is new again: not before the window has passed, and soon after it.
    let mut asked = 0;
    while started.elapsed() < filter::DEADLINE {
        asked += 1;
        running.write(format!("{}{}", events([1]), events([format!("probe{asked}")])));
        if running.line() == events([1]) {
            assert!(started.elapsed().as_millis() >= 950, "{:?}", started.elapsed());
            break;
        }
    }
    assert!(asked > 1 && started.elapsed() < filter::DEADLINE);
    drop(running.stdin.take());
    assert!(running.end().0.success());
}

#[test]
fn for_ever_is_a_window_too() {
    let ran = filter_counted(&["--window", "forever"], events([1, 1, 2]));
    assert_eq!((ran.text(), &ran.report()["window_seconds"]), (events([1, 2]).as_str(), &serde_json::Value::Null));
}
