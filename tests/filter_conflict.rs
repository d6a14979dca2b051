//! Goal: `--on-conflict` does to an event whose ID is known and whose payload is not what it says, across restarts and kills,
//! and the books say so. Method: small streams by hand, random ones against a naive model, and kills of a real filter.

mod filter;

use std::collections::{HashMap, HashSet};
use std::process::Stdio;
use std::time::Duration;

use filter::{Ran, dedupd, dir, files_in, filter, filter_counted, outputs_in, read, write};

/// The first, its repeat, the same ID with another payload, that again, another ID, and the first again.
const STREAM: [&str; 6] = [
    "{\"id\":\"a\",\"v\":1}\n",
    "{\"id\":\"a\",\"v\":1}\n",
    "{\"id\":\"a\",\"v\":2}\n",
    "{\"id\":\"a\",\"v\":2}\r\n",
    "{\"id\":\"b\",\"v\":2}\n",
    "{\"id\":\"a\",\"v\":1}",
];

fn lines(which: &[usize]) -> String {
    which.iter().map(|line| STREAM[*line]).collect()
}

struct Place(tempfile::TempDir);

impl Place {
    fn path(&self, name: &str) -> String {
        self.0.path().join(name).to_str().expect("UTF-8").to_owned()
    }

    /// Filters `input` with a state, through a pipe, to files.
    fn run(&self, on_conflict: &str, more: &[&str], input: &str) -> Ran {
        let files = files_in(self.0.path());
        let files: Vec<_> = files.iter().map(String::as_str).collect();
        filter_counted(&[&files[..], &["--durability", "process", "--on-conflict", on_conflict], more].concat(), input)
    }

    fn outputs(&self) -> [String; 3] {
        outputs_in(self.0.path()).map(|output| String::from_utf8(output).expect("UTF-8"))
    }
}

#[test]
fn each_setting_does_what_it_says() {
    for (on_conflict, code, out, rejects, duplicates, conflicts) in [
        ("ignore", 0, &[0, 4][..], &[][..], &[1, 2, 3, 5][..], 0),
        ("count", 0, &[0, 4], &[], &[1, 2, 3, 5], 2),
        ("pass", 0, &[0, 2, 4], &[], &[1, 3, 5], 1),
        ("divert", 1, &[0, 4], &[2], &[1, 3, 5], 1),
    ] {
        for threads in ["1", "4"] {
            let dir = dir();
            let path = |name: &str| dir.path().join(name).to_str().expect("UTF-8").to_owned();
            let (rejects_file, duplicates_file) = (path("rejects"), path("duplicates"));
            let args = ["--on-conflict", on_conflict, "--rejects", &rejects_file, "--duplicates", &duplicates_file];
            let ran = filter_counted(&[&args[..], &["--threads", threads]].concat(), lines(&[0, 1, 2, 3, 4, 5]));
            assert_eq!((ran.code, ran.text()), (Some(code), &*lines(out)), "{on_conflict}");
            assert_eq!((read(path("rejects")), read(path("duplicates"))), (lines(rejects), lines(duplicates)));
            let counts = ["read", "first_seen", "duplicate", "conflicts", "dropped"].map(|name| ran.count(name));
            assert_eq!(counts, [6, 2, 4, conflicts, 0], "{on_conflict}");
            let through = u64::from(on_conflict == "pass");
            assert_eq!((ran.count("passed"), ran.count("diverted")), (through, rejects.len() as u64));
            assert_eq!(
                ran.count("live_ids"),
                if conflicts == 0 { 2 } else { 4 + (out.len() + rejects.len() > 2) as u64 }
            );
            let warnings = ran.err.lines().filter(|line| line.contains("warning[conflict]")).count();
            assert_eq!(warnings as u64, conflicts.min(1), "{}", ran.err);
        }
    }
}

#[test]
fn the_warning_names_the_line_and_the_report_counts() {
    let dir = dir();
    let input = write(dir.path().join("in"), lines(&[0, 1, 2, 3]));
    let ran = filter(&["--on-conflict", "count", &input], "");
    let warning = format!("{input}, line 3, byte 34: its ID was seen with another payload; such lines are dropped");
    assert!(ran.err.contains(&warning), "{}", ran.err);
    assert!(ran.err.contains("3 duplicates (75.0 %), 0 bad, 0 late, 2 conflicts\n"), "{}", ran.err);
    let ran = filter(&["--on-conflict", "pass", &input], "");
    assert!(ran.err.contains("0 late, 1 conflict, 1 passed\n"), "{}", ran.err);
}

#[test]
fn members_can_be_left_out() {
    let input = "{\"id\":1,\"attempt\":1,\"v\":7}\n{\"id\":1,\"attempt\":2,\"v\":7}\n{\"attempt\":3,\"id\":1, \"v\":7}\r\n\
                 {\"id\":1,\"v\":7}\n{\"id\":1,\"at.tempt\":0,\"attempt\":{\"v\":8},\"v\":7}\n{\"id\":1,\"v\":8}\n";
    let ran = filter_counted(
        &["--on-conflict", "pass", "--conflict-ignore", "attempt", "--conflict-ignore", "/at.tempt"],
        input,
    );
    assert_eq!(ran.text(), "{\"id\":1,\"attempt\":1,\"v\":7}\n{\"id\":1,\"v\":8}\n");
    assert_eq!(filter_counted(&["--on-conflict", "pass"], input).count("conflicts"), 5);
}

#[test]
fn a_state_knows_payloads_and_keeps_to_them() {
    let place = Place(dir());
    place.run("pass", &["--conflict-ignore", "n"], &lines(&[0, 2]));
    let again = place.run("divert", &["--conflict-ignore", "n"], &lines(&[2, 0, 1, 3, 4]));
    assert_eq!((again.code, again.count("duplicate"), again.count("conflicts")), (Some(0), 4, 0));
    let another = place.run("divert", &["--conflict-ignore", "n"], "{\"id\":\"a\",\"v\":3}\n");
    assert_eq!((another.code, another.count("conflicts")), (Some(1), 1));
    let state = place.path("state");
    for (args, why) in [
        (&["--on-conflict", "count"][..], "what is left out when payloads are compared"),
        (&["--on-conflict", "count", "--conflict-ignore", "m"], "what is left out when payloads are compared"),
        (&[], "whether payloads are compared"),
    ] {
        let ran = filter(&[&["--state", &state][..], args].concat(), "");
        assert_eq!(ran.code, Some(78), "{}", ran.err);
        assert!(ran.err.contains(why) && ran.err.contains("--on-conflict"), "{}", ran.err);
    }
    let inspected = Ran::from(dedupd(["inspect", "--json", &state]).output().expect("it ends"));
    assert!(inspected.text().contains("\"payload_digests\":true"), "{}", inspected.text());
    let inspected = Ran::from(dedupd(["inspect", &state]).output().expect("it ends"));
    assert!(inspected.text().contains(", payload digests beside the ids\n"), "{}", inspected.text());
}

#[test]
fn a_state_without_payloads_is_not_opened_with_them() {
    let place = Place(dir());
    place.run("ignore", &[], &lines(&[0]));
    let state = place.path("state");
    for command in ["", "explain"] {
        let args = [command, "--state", &state, "--on-conflict", "pass"];
        let ran = filter(&args[usize::from(command.is_empty())..], lines(&[0]));
        assert_eq!((ran.code, ran.text()), (Some(78), ""), "{}", ran.err);
        assert!(ran.err.contains("--on-conflict"), "{}", ran.err);
    }
}

#[test]
fn what_is_forgotten_is_first_seen_with_any_payload() {
    let place = Place(dir());
    place.run("pass", &[], &lines(&[0, 2, 4]));
    let forgot = filter(&["forget", &place.path("state")], lines(&[0]));
    assert_eq!(forgot.text(), "read 1: 1 forgotten, 0 not known, 0 bad\n", "{}", forgot.err);
    let again = place.run("pass", &[], &(lines(&[0, 2, 4]) + "{\"id\":\"a\",\"v\":3}\n"));
    let counts = ["first_seen", "duplicate", "conflicts"].map(|name| again.count(name));
    assert_eq!(counts, [1, 3, 1], "a payload of its own is remembered");
}

#[test]
fn an_explanation_says_conflict() {
    let place = Place(dir());
    let explain = |more: &[&str]| {
        let ran = filter(&[&["explain", "--on-conflict", "pass"][..], more].concat(), lines(&[0, 1, 2, 3, 4]));
        assert_eq!(ran.code, Some(0), "{}", ran.err);
        let verdicts = ran.text().lines().filter_map(|line| line.strip_prefix("  verdict      ").map(str::to_owned));
        verdicts.collect::<Vec<_>>()
    };
    let expected = ["first-seen: new", "duplicate: seen", "duplicate: conflict", "duplicate: seen", "first-seen: new"];
    assert_eq!(explain(&[]), expected);
    place.run("pass", &[], &lines(&[0]));
    let told = explain(&["--state", &place.path("state")]);
    assert!(told[0].starts_with("duplicate: seen at ") && told[1] == told[0], "{told:?}");
    let conflict = |told: &str| told.starts_with("duplicate: conflict, as it was seen at ");
    assert!(conflict(&told[2]) && told[2].ends_with(" with another payload") && told[3] == told[2], "{told:?}");
    assert_eq!(told[4], "first-seen: new");
}

#[test]
fn events_are_compared_at_their_own_times() {
    let line = |id: u8, v: u8, second: u32| format!("{{\"id\":{id},\"v\":{v},\"at\":{second}}}\n");
    let lates = [line(1, 1, 1_000), line(2, 1, 1_500), line(1, 2, 1_010), line(1, 1, 1_005), line(2, 1, 1_580)];
    for extend in [&[][..], &["--extend"]] {
        let args = ["--on-conflict", "pass", "--conflict-ignore", "at", "--time-field", "at", "--time-unit", "s"];
        let more = ["--window", "100s", "--lateness", "500s", "--max-future", "1h"];
        let ran = filter_counted(&[&args[..], &more, extend].concat(), lates.concat());
        assert_eq!(ran.text(), [&*lates[0], &lates[1], &lates[2]].concat());
        assert_eq!((ran.count("conflicts"), ran.count("future"), ran.count("late")), (1, 0, 0));
    }
}

/// A repeat makes the windows of both start again.
#[test]
fn repeats_extend_a_payload_with_its_id() {
    let line = |second: u32| format!("{{\"id\":1,\"at\":{second}}}\n");
    let stream: String = (0..20).map(|n| line(1_000 + n * 60)).collect();
    let args =
        ["--on-conflict", "divert", "--conflict-ignore", "at", "--time-field", "at", "--time-unit", "s", "--extend"];
    let dir = dir();
    let rejects = dir.path().join("rejects").to_str().expect("UTF-8").to_owned();
    let ran = filter_counted(&[&args[..], &["--window", "100s", "--rejects", &rejects]].concat(), stream);
    assert_eq!((ran.code, ran.text(), ran.count("duplicate")), (Some(0), &*line(1_000), 19));
}

/// A process that was killed had written a line and not recorded it.
#[test]
fn payloads_of_lines_that_are_out_and_not_recorded_are_known() {
    let place = Place(dir());
    place.run("pass", &[], &lines(&[0]));
    let out = place.path("out");
    write(&out, read(&out) + STREAM[2]);
    let ran = place.run("pass", &[], &lines(&[2, 0, 1]));
    assert_eq!((ran.count("conflicts"), ran.count("duplicate")), (0, 3), "{}", ran.err);
    assert_eq!(read(&out), lines(&[0, 2]));
}

#[test]
fn a_line_is_a_payload_that_never_conflicts_with_itself() {
    let ran = filter_counted(&["--key", "@line", "--on-conflict", "pass"], "a\na\r\nb\na");
    assert_eq!((ran.text(), ran.count("conflicts")), ("a\nb\n", 0));
}

/// A full set forgets ids and payloads together, the oldest first.
#[test]
fn under_a_limit_no_repeat_is_a_conflict() {
    let mut random = Random(7);
    for policy in ["evict-oldest", "refuse"] {
        let line = |id: u64| format!("{{\"id\":{id},\"payload\":\"{id}\"}}\n");
        let input: String = (0..40_000).map(|_| line(random.below(5_000))).collect();
        for max_ids in ["2", "100", "3000"] {
            let ran = filter_counted(&["--on-conflict", "pass", "--max-ids", max_ids, "--when-full", policy], &input);
            assert_eq!((ran.code, ran.count("conflicts")), (Some(0), 0), "{policy}, {max_ids}: {}", ran.err);
            assert!(ran.count("live_ids") <= max_ids.parse().expect("a number"));
        }
    }
}

/// The naive model: which payloads of an ID were let through.
#[derive(Default)]
struct Model {
    known: HashMap<u64, HashSet<u64>>,
    out: String,
    rejects: String,
    duplicates: String,
    conflicts: u64,
}

impl Model {
    fn take(&mut self, on_conflict: &str, id: u64, payload: u64, line: &str) {
        let is_first = !self.known.contains_key(&id);
        let payloads = self.known.entry(id).or_default();
        let is_conflict = !is_first && on_conflict != "ignore" && !payloads.contains(&payload);
        self.conflicts += u64::from(is_conflict);
        if is_first || is_conflict && on_conflict != "count" {
            payloads.insert(payload);
        }
        *match on_conflict {
            _ if is_first => &mut self.out,
            "pass" if is_conflict => &mut self.out,
            "divert" if is_conflict => &mut self.rejects,
            _ => &mut self.duplicates,
        } += line;
    }
}

struct Random(u64);

impl Random {
    fn below(&mut self, below: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % below
    }

    /// An event: its ID, its payload, its line.
    fn event(&mut self, ids: u64, payloads: u64) -> (u64, u64, String) {
        let (id, payload, attempt) = (self.below(ids), self.below(payloads), self.below(9));
        (id, payload, format!("{{\"id\":{id},\"attempt\":{attempt},\"payload\":\"{payload}\"}}\n"))
    }
}

#[test]
fn random_streams_come_out_as_the_naive_model_says() {
    for seed in 0..32 {
        let mut random = Random(seed);
        let on_conflict = ["ignore", "count", "pass", "divert"][seed as usize % 4];
        let (ids, payloads) = ([2, 20, 3_000][random.below(3) as usize], 1 + random.below(4));
        let with_state = random.below(2) == 0;
        let place = Place(dir());
        let mut model = Model::default();
        let mut conflicts = 0;
        for run in 0..if with_state { 3 } else { 1 } {
            let mut input = String::new();
            for _ in 0..[3, 300, 9_000][random.below(3) as usize] {
                let (id, payload, line) = random.event(ids, payloads);
                model.take(on_conflict, id, payload, &line);
                input += &line;
            }
            let ignoring = if on_conflict == "ignore" { &[][..] } else { &["--conflict-ignore", "attempt"] };
            let threads = ["--threads", ["1", "3"][random.below(2) as usize]];
            let ran = if with_state {
                place.run(on_conflict, &[&threads[..], ignoring].concat(), &input)
            } else {
                let [out, rejects, duplicates] = ["out", "rejects", "duplicates"].map(|name| place.path(name));
                let args = ["--on-conflict", on_conflict, "--output", &out, "--rejects", &rejects];
                filter_counted(&[&args[..], &["--duplicates", &duplicates], &threads, ignoring].concat(), &input)
            };
            conflicts += ran.count("conflicts");
            assert_eq!(conflicts, model.conflicts, "seed {seed}, run {run}, {on_conflict}");
        }
        let expected = [&model.out, &model.rejects, &model.duplicates];
        assert!(place.outputs().each_ref() == expected, "seed {seed}, {on_conflict}");
    }
}

/// With files as inputs and outputs, whoever is killed and started again comes to the same.
#[test]
fn files_with_conflicts_come_out_as_if_nobody_had_killed_it() {
    for (round, on_conflict) in ["count", "pass", "divert", "pass"].into_iter().enumerate() {
        let mut random = Random(round as u64 + 100);
        let mut model = Model::default();
        let mut input = String::new();
        for _ in 0..30_000 {
            let (id, payload, line) = random.event(6_000, 3);
            model.take(on_conflict, id, payload, &line);
            input += &line;
        }
        let place = Place(dir());
        let input = write(place.path("in"), &input);
        let durability = ["process", "interval=2ms"][round % 2];
        let command = || {
            let mut command = dedupd(["-q", "--delivery", "exactly-once", "--durability", durability]);
            command.args(["--on-conflict", on_conflict, "--conflict-ignore", "attempt", "--input", &input]);
            command.args(files_in(place.0.path())).stdout(Stdio::null());
            command
        };
        for _ in 0..8 {
            let mut child = command().spawn().expect("the binary starts");
            std::thread::sleep(Duration::from_micros(random.below(60_000)));
            child.kill().expect("a child of ours");
            child.wait().expect("it ends");
        }
        let ended = Ran::from(command().output().expect("it ends"));
        assert!(matches!(ended.code, Some(0 | 1)), "{}", ended.err);
        let expected = [&model.out, &model.rejects, &model.duplicates];
        assert!(place.outputs().each_ref() == expected, "{on_conflict}, {durability}");
    }
}
