//! Goal: with files as inputs and outputs and a state, each command goes on where the last one stopped, and what
//! somebody else did to the files meanwhile is noticed and refused, not repaired. Method: run, meddle, run again.

mod filter;

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use filter::{Ran, Running, dedupd, dir, events, eventually, read, write};

/// A directory with a state, an input and an output.
struct Place {
    dir: tempfile::TempDir,
}

impl Place {
    fn new(input: &str) -> Self {
        let place = Self { dir: dir() };
        write(place.path("in"), input);
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn run(&self, more: &[&str]) -> Ran {
        self.run_with("in", "out", more)
    }

    fn run_with(&self, input: &str, output: &str, more: &[&str]) -> Ran {
        self.run_lasting("process", input, output, more)
    }

    fn run_lasting(&self, durability: &str, input: &str, output: &str, more: &[&str]) -> Ran {
        let mut command = dedupd(["--report", "json", "--durability", durability]);
        command.arg("--state").arg(self.path("state"));
        command.arg("--input").arg(self.path(input)).arg("--output").arg(self.path(output));
        Ran::from(command.args(more).output().expect("it ends"))
    }

    /// It was refused, for this reason, and nothing was changed.
    fn is_refused(&self, ran: &Ran, code: i32, why: &str) {
        assert_eq!(ran.code, Some(code), "{}", ran.err);
        assert!(ran.err.contains(why), "{}", ran.err);
    }
}

fn append(path: &Path, text: &str) {
    let mut file = File::options().append(true).open(path).expect("open");
    file.write_all(text.as_bytes()).expect("written");
}

#[test]
fn a_file_that_was_read_is_not_read_again() {
    let place = Place::new(&(events([1, 2, 1]) + "bad\n"));
    let first = place.run(&[]);
    assert_eq!((first.code, first.count("read")), (Some(0), 4));
    let modified = std::fs::metadata(place.path("out")).expect("a file").modified().expect("a time");
    for _ in 0..2 {
        let again = place.run(&[]);
        assert_eq!((again.code, again.count("read"), again.count("bytes")), (Some(0), 0, 0));
    }
    assert_eq!(read(place.path("out")), events([1, 2]) + "bad\n");
    assert_eq!(std::fs::metadata(place.path("out")).expect("a file").modified().expect("a time"), modified);
}

#[test]
fn what_was_appended_to_an_input_is_read() {
    let place = Place::new(&events([1, 2]));
    place.run(&[]);
    append(&place.path("in"), &(events([2, 3]) + "bad\n"));
    let ran = place.run(&["--on-bad", "fail"]);
    assert_eq!((ran.code, ran.count("read")), (Some(65), 3));
    assert!(ran.err.contains("in, line 5, byte 44"), "lines and bytes are those of the file: {}", ran.err);
    assert_eq!(read(place.path("out")), events([1, 2, 3]));
    // It stands before the bad line.
    assert_eq!((place.run(&["--on-bad", "fail"]).code, place.run(&[]).count("read")), (Some(65), 1));
    assert_eq!(read(place.path("out")), events([1, 2, 3]) + "bad\n");
}

#[test]
fn tomorrows_file_of_the_same_name_is_read_from_its_start() {
    let place = Place::new(&events(0..100));
    place.run(&[]);
    std::fs::remove_file(place.path("in")).expect("removed");
    write(place.path("in"), events(50..200));
    let ran = place.run(&[]);
    assert_eq!((ran.code, ran.count("read"), ran.count("duplicate")), (Some(0), 150, 50));
    assert_eq!(read(place.path("out")), events(0..200));
}

#[test]
fn a_file_is_known_under_another_name() {
    let place = Place::new(&events([1, 2]));
    place.run(&[]);
    std::fs::rename(place.path("in"), place.path("in.1")).expect("moved");
    write(place.path("in"), events([3]));
    let ran = place.run(&[place.path("in.1").to_str().expect("UTF-8")]);
    assert_eq!((ran.code, ran.count("read")), (Some(0), 1));
}

#[test]
fn a_file_that_is_named_twice_is_read_once() {
    let place = Place::new(&events([1, 2]));
    let ran = place.run(&[place.path("in").to_str().expect("UTF-8")]);
    assert_eq!((ran.code, ran.count("read")), (Some(0), 2));
}

#[test]
fn an_input_that_was_cut_or_edited_is_refused() {
    let place = Place::new(&events(0..1_000));
    place.run(&[]);
    let out = read(place.path("out"));
    let whole = read(place.path("in"));
    File::options().write(true).open(place.path("in")).expect("open").set_len(500).expect("cut");
    let ran = place.run(&[]);
    place.is_refused(&ran, 66, "error[input_changed]");
    assert!(ran.err.contains(&format!("has 500 bytes, and {} were read of it before", whole.len())), "{}", ran.err);
    // The same inode again, with another last line.
    append(&place.path("in"), &whole[500..].replace("999", "9x9"));
    place.is_refused(&place.run(&[]), 66, "was changed before byte");
    assert_eq!(read(place.path("out")), out);
}

#[test]
fn an_output_that_is_not_as_it_was_left_is_refused_and_left_alone() {
    let whole = events(0..1_000);
    type Meddle = fn(&Path);
    let meddles: [(&str, Meddle); 5] = [
        ("was written up to byte", |out| {
            File::options().write(true).open(out).expect("open").set_len(500).expect("cut")
        }),
        ("was changed before byte", |out| {
            let text = read(out).replace("999", "9x9");
            File::options().write(true).open(out).expect("open").write_all(text.as_bytes()).expect("written");
        }),
        ("is another file", |out| {
            let copy = out.with_extension("copy");
            std::fs::copy(out, &copy).expect("copied");
            std::fs::rename(copy, out).expect("moved");
        }),
        ("is not there", |out| std::fs::remove_file(out).expect("removed")),
        ("was written up to byte", |out| drop(File::create(out).expect("emptied"))),
    ];
    for (why, meddle) in meddles {
        let place = Place::new(&whole);
        place.run(&[]);
        let out = place.path("out");
        meddle(&out);
        let left = std::fs::read(&out).ok();
        append(&place.path("in"), &events(["new"]));
        let ran = place.run(&[]);
        place.is_refused(&ran, 73, why);
        assert!(
            ran.err.contains("error[output_changed]") && ran.err.contains(out.to_str().expect("UTF-8")),
            "{}",
            ran.err
        );
        assert_eq!(std::fs::read(&out).ok(), left, "{why}");
        assert_eq!(place.run(&[]).code, Some(73), "and again");
    }
}

#[test]
fn rejects_and_duplicates_are_checked_too() {
    for flag in ["--rejects", "--duplicates"] {
        let place = Place::new(&(events([1, 1]) + "bad\n"));
        let other = place.path("other");
        let on_bad = if flag == "--rejects" { "divert" } else { "pass" };
        let args = ["--on-bad", on_bad, flag, other.to_str().expect("UTF-8")];
        assert!(matches!(place.run(&args).code, Some(0 | 1)));
        assert!(!read(&other).is_empty());
        File::create(&other).expect("emptied");
        place.is_refused(&place.run(&args), 73, "other has 0 bytes, and was written up to byte");
    }
}

#[test]
fn an_output_that_is_longer_is_cut_back() {
    let place = Place::new(&events([1, 2]));
    place.run(&[]);
    append(&place.path("out"), "written and not committed\nhalf");
    append(&place.path("in"), &events([3]));
    let ran = place.run(&[]);
    assert_eq!((ran.code, &ran.report()["recovered"]["cut_bytes"]), (Some(0), &30.into()));
    assert_eq!(read(place.path("out")), events([1, 2, 3]));
}

#[test]
fn an_output_with_lines_that_nobody_knows_is_refused_unless_it_is_continued() {
    let place = Place::new(&events([1]));
    write(place.path("out"), "before\n");
    place.is_refused(&place.run(&[]), 73, "has lines, and the state has no position in it");
    assert_eq!(read(place.path("out")), "before\n");
    assert_eq!(place.run(&["--append"]).code, Some(0));
    assert_eq!(read(place.path("out")), "before\n".to_owned() + &events([1]));
    // Its position is known now, with and without the flag.
    append(&place.path("out"), "cut off\n");
    assert_eq!((place.run(&[]).code, read(place.path("out"))), (Some(0), "before\n".to_owned() + &events([1])));
    append(&place.path("out"), "cut off\n");
    assert_eq!(
        (place.run(&["--append"]).code, read(place.path("out"))),
        (Some(0), "before\n".to_owned() + &events([1]))
    );
}

#[test]
fn an_output_that_was_moved_away_is_begun_again_when_that_is_asked_for() {
    let place = Place::new(&events([1]));
    place.run(&[]);
    std::fs::rename(place.path("out"), place.path("out.1")).expect("moved");
    append(&place.path("in"), &events([2]));
    place.is_refused(&place.run(&[]), 73, "begin another with --append");
    assert_eq!(place.run(&["--append"]).code, Some(0));
    assert_eq!((read(place.path("out.1")), read(place.path("out"))), (events([1]), events([2])));
}

#[test]
fn what_was_not_committed_does_not_stay_in_an_output_that_was_moved_away() {
    let place = Place::new(&events([1]));
    place.run(&[]);
    append(&place.path("out"), &events([2]));
    append(&place.path("in"), &events([2]));
    std::fs::rename(place.path("out"), place.path("out.1")).expect("moved");
    for _ in 0..2 {
        assert_eq!(place.run(&["--append"]).code, Some(0));
        assert_eq!((read(place.path("out.1")), read(place.path("out"))), (events([1]), events([2])));
    }
    // A file that has its place taken, too.
    append(&place.path("out"), &events([3]));
    append(&place.path("in"), &events([3]));
    std::fs::rename(place.path("out"), place.path("out.2")).expect("moved");
    write(place.path("out"), "begun by another\n");
    assert_eq!(place.run(&["--append"]).code, Some(0));
    assert_eq!(read(place.path("out.2")), events([2]));
    assert_eq!(read(place.path("out")), "begun by another\n".to_owned() + &events([3]));
}

#[test]
fn a_cut_output_is_refused_with_append_as_well() {
    let place = Place::new(&events([1, 2]));
    place.run(&[]);
    File::options().write(true).open(place.path("out")).expect("open").set_len(3).expect("cut");
    place.is_refused(&place.run(&["--append"]), 73, "has 3 bytes");
}

#[test]
fn an_output_that_was_renamed_goes_on_under_its_new_name_from_its_position() {
    let place = Place::new(&events([1]));
    place.run(&[]);
    // As a run leaves them that is killed: out, and not committed.
    append(&place.path("out"), &events([2]));
    append(&place.path("in"), &events([2]));
    std::fs::rename(place.path("out"), place.path("final")).expect("moved");
    place.is_refused(&place.run_with("in", "final", &[]), 73, "was written under another name");
    assert_eq!(place.run_with("in", "final", &["--append"]).code, Some(0));
    assert_eq!(read(place.path("final")), events([1, 2]));
    append(&place.path("in"), &events([3]));
    assert_eq!(place.run_with("in", "final", &[]).code, Some(0));
    // And it is not cut back to what it was under the old one.
    append(&place.path("in"), &events([4]));
    assert_eq!(place.run(&["--append"]).code, Some(0));
    assert_eq!((read(place.path("final")), read(place.path("out"))), (events([1, 2, 3]), events([4])));
}

/// Each name has a position in the file, and only the last of them counts, whichever name it has now.
#[test]
fn an_output_that_has_its_first_name_again_is_not_cut_back_to_what_it_was_then() {
    let place = Place::new(&events([1]));
    place.run(&[]);
    std::fs::rename(place.path("out"), place.path("other")).expect("moved");
    append(&place.path("in"), &events([2]));
    assert_eq!(place.run_with("in", "other", &["--append"]).code, Some(0));
    std::fs::rename(place.path("other"), place.path("out")).expect("moved back");
    append(&place.path("in"), &events([3]));
    assert_eq!(place.run(&[]).code, Some(0));
    assert_eq!(read(place.path("out")), events([1, 2, 3]));

    // Lines from a pipe do not come again: of two positions at one place, the one that keeps them counts.
    std::fs::rename(place.path("out"), place.path("other")).expect("moved");
    let (state, other) = (place.path("state"), place.path("other"));
    let flags = ["-s", state.to_str().expect("UTF-8"), "-o", other.to_str().expect("UTF-8"), "--append"];
    assert_eq!(filter::filter(&flags, "").code, Some(0));
    // As a run leaves them that is killed: out, and not committed.
    append(&other, &events([4]));
    std::fs::rename(&other, place.path("out")).expect("moved back");
    append(&place.path("in"), &events([5]));
    assert_eq!(place.run(&[]).code, Some(0));
    assert_eq!(read(place.path("out")), events([1, 2, 3, 4, 5]));
}

#[test]
fn what_a_refusal_advises_works() {
    type Meddling = fn(&Place);
    let cases: [(&str, &str, Meddling); 5] = [
        ("has lines, and the state has no position", "add to this one with --append", |place| {
            std::fs::remove_dir_all(place.path("state")).expect("removed");
        }),
        ("is another file", "continue this one with --append", |place| {
            std::fs::copy(place.path("out"), place.path("copy")).expect("copied");
            std::fs::rename(place.path("copy"), place.path("out")).expect("moved");
        }),
        ("is not there", "begin another with --append", |place| {
            std::fs::remove_file(place.path("out")).expect("removed");
        }),
        ("has 3 bytes", "move it to another directory and begin another with --append", |place| {
            File::options().write(true).open(place.path("out")).expect("open").set_len(3).expect("cut");
        }),
        ("was changed before byte", "move it to another directory and begin another with --append", |place| {
            let bytes = "x".repeat(read(place.path("out")).len());
            let mut file = File::options().write(true).open(place.path("out")).expect("open");
            file.write_all(bytes.as_bytes()).expect("written");
        }),
    ];
    for (why, advice, meddle) in cases {
        let place = Place::new(&events([1, 2]));
        place.run(&[]);
        meddle(&place);
        append(&place.path("in"), &events([3]));
        let ran = place.run(&[]);
        place.is_refused(&ran, 73, why);
        place.is_refused(&ran, 73, advice);
        if advice.contains("another directory") {
            // Beside its old name it is found, and the message says which file that is.
            std::fs::rename(place.path("out"), place.path("beside")).expect("moved");
            let ran = place.run(&["--append"]);
            place.is_refused(&ran, 73, &format!("was {} and ", place.path("out").display()));
            place.is_refused(&ran, 73, "or move it to another directory");
            std::fs::create_dir(place.path("elsewhere")).expect("made");
            std::fs::rename(place.path("beside"), place.path("elsewhere/out")).expect("moved");
        }
        let ran = place.run(&["--append"]);
        assert_eq!(ran.code, Some(0), "{why}: {}", ran.err);
        assert!(read(place.path("out")).ends_with(&events([3])), "{why}");
    }
}

#[test]
fn what_is_not_recorded_is_not_added_behind_a_position_to_be_cut_off_later() {
    let place = Place::new(&events([1]));
    place.run(&[]);
    for more in [&[][..], &["--append"]] {
        let ran = place.run_lasting("none", "in", "out", more);
        place.is_refused(&ran, 73, "--durability none does not move it");
        place.is_refused(&ran, 73, "name another file, or another durability");
    }
    assert_eq!(read(place.path("out")), events([1]));
    // A file without a position may be added to.
    write(place.path("other"), "before\n");
    place.is_refused(
        &place.run_lasting("none", "in", "other", &[]),
        73,
        "with --durability none no position in it is kept",
    );
    assert_eq!(place.run_lasting("none", "in", "other", &["--append"]).code, Some(0));
    assert_eq!(place.run_lasting("none", "in", "new", &[]).code, Some(0));
}

#[test]
fn an_input_that_is_not_read_from_its_start_is_told_once() {
    let place = Place::new(&events([1]));
    assert!(!place.run(&[]).err.contains("info[resumed]"));
    let ran = place.run_with("in", "new", &[]);
    assert_eq!((ran.count("read"), ran.err.matches("info[resumed]").count()), (0, 1), "{}", ran.err);
    assert!(ran.err.contains("was read to its end, byte 11, with this state before"), "{}", ran.err);
    append(&place.path("in"), &events([2]));
    let ran = place.run_with("in", "new", &[]);
    assert!(ran.err.contains("is read on from byte 11 of 22, where an earlier run"), "{}", ran.err);
    write(place.path("in2"), events([3]));
    let both = |name: &str| place.path(name).to_str().expect("UTF-8").to_owned();
    let ran = place.run_with("in", "new", &["-i", &both("in2")]);
    assert!(ran.err.contains("/in was read to its end"), "{}", ran.err);
    let ran = place.run_with("in", "new", &["-i", &both("in2")]);
    assert!(ran.err.contains("2 of 2 inputs are read on"), "{}", ran.err);
    let ran = place.run_with("in", "new", &["-q"]);
    assert_eq!((ran.code, ran.err.as_str()), (Some(0), ""));
}

#[test]
fn without_a_state_an_output_is_emptied_as_ever() {
    let place = Place::new(&events([1]));
    let (input, out) = (place.path("in"), place.path("out"));
    write(&out, "before\n");
    let args = ["-q", "-i", input.to_str().expect("UTF-8"), "-o", out.to_str().expect("UTF-8")];
    for _ in 0..2 {
        assert!(dedupd(args).status().expect("it ends").success());
        assert_eq!(read(&out), events([1]));
    }
}

#[test]
fn each_output_has_a_position_of_its_own() {
    let place = Place::new(&events([1]));
    write(place.path("in2"), events([1, 2]));
    assert_eq!((place.run(&[]).code, place.run_with("in2", "out2", &[]).code), (Some(0), Some(0)));
    assert_eq!((read(place.path("out")), read(place.path("out2"))), (events([1]), events([2])));
    append(&place.path("in"), &events([3]));
    assert_eq!((place.run(&[]).code, read(place.path("out"))), (Some(0), events([1, 3])));
}

#[test]
fn a_last_line_without_a_newline_is_ended_before_the_next_file_and_a_crash_changes_nothing() {
    let place = Place::new("{\"id\":1}");
    place.run(&[]);
    assert_eq!(read(place.path("out")), "{\"id\":1}");
    write(place.path("in2"), "{\"id\":2}\n");
    let ran = place.run_with("in2", "out", &[]);
    assert_eq!((ran.code, ran.count("newlines_added")), (Some(0), 1));
    assert_eq!((place.run(&[]).code, read(place.path("out"))), (Some(0), "{\"id\":1}\n{\"id\":2}\n".to_owned()));
}

#[test]
fn somebody_who_writes_to_the_output_is_noticed() {
    let place = Place::new("");
    let (input, state, out) = (place.path("in"), place.path("state"), place.path("out"));
    let path = |path: &Path| path.to_str().expect("UTF-8").to_owned();
    let (input_name, state, out_name) = (path(&input), path(&state), path(&out));
    let args = ["--follow", "-s", &state, "-i", &input_name, "-o", &out_name, "--durability", "process"];
    let running = Running::start(&args);
    append(&input, &events([1]));
    eventually("the first line is out", || std::fs::read(&out).is_ok_and(|bytes| bytes == events([1]).as_bytes()));
    append(&out, "not ours\n");
    append(&input, &events([2]));
    let (status, _, err) = running.end();
    assert_eq!(status.code(), Some(74), "{err}");
    assert!(err.contains("error[output_changed]") && err.contains("somebody else writes to it"), "{err}");
}

/// A filter that follows `in` and writes to `out`.
fn following(place: &Place, durability: &str, more: &[&str]) -> Running {
    let mut command = dedupd(["--report", "json", "--follow", "-v", "--durability", durability]);
    command.arg("--state").arg(place.path("state"));
    command.arg("--input").arg(place.path("in")).arg("--output").arg(place.path("out")).args(more);
    Running::spawn(&mut command)
}

fn holds(path: &Path, text: &str) -> bool {
    std::fs::read(path).is_ok_and(|bytes| bytes == text.as_bytes())
}

#[test]
fn a_followed_file_goes_on_where_it_was_also_after_its_rotation() {
    let place = Place::new(&events([1]));
    let (input, out) = (place.path("in"), place.path("out"));
    let running = following(&place, "process", &[]);
    eventually("the first line is out", || holds(&out, &events([1])));
    running.signal(libc::SIGKILL);
    running.end();
    // While nobody looks, the rest of the file is written, it is renamed, and another begun.
    append(&input, &events([2]));
    std::fs::rename(&input, place.path("in.1")).expect("moved");
    write(&input, events([3, 1]));
    let running = following(&place, "process", &["--delivery", "exactly-once"]);
    eventually("all lines are out", || holds(&out, &events([1, 2, 3])));
    running.signal(libc::SIGTERM);
    let (status, _, err) = running.end();
    // The first line may have been out and not committed when the process died.
    assert!(status.success() && (err.contains("\"read\":3,") || err.contains("\"read\":4,")), "{err}");
    // Nothing is left to read, under neither name.
    let running = following(&place, "process", &[]);
    append(&input, &events([4]));
    eventually("the next line is out", || holds(&out, &events([1, 2, 3, 4])));
    running.signal(libc::SIGTERM);
    assert!(running.end().2.contains("\"read\":1,"));
}

#[test]
fn a_followed_file_that_was_truncated_while_nobody_looked_starts_over() {
    let place = Place::new(&events([1, 2]));
    let (input, out) = (place.path("in"), place.path("out"));
    let running = following(&place, "process", &[]);
    eventually("the first lines are out", || holds(&out, &events([1, 2])));
    running.signal(libc::SIGTERM);
    running.end();
    File::options().write(true).open(&input).expect("open").set_len(0).expect("cut");
    append(&input, &events([3]));
    let running = following(&place, "process", &[]);
    eventually("the next line is out", || holds(&out, &events([1, 2, 3])));
    running.signal(libc::SIGTERM);
    assert!(running.end().2.contains("\"inputs_truncated\":1,"));
}

#[test]
fn sighup_begins_a_new_output_at_its_start() {
    for durability in ["process", "interval=1h", "power-loss"] {
        let place = Place::new(&events([1]));
        let (input, out, old) = (place.path("in"), place.path("out"), place.path("out.1"));
        let mut running = following(&place, durability, &[]);
        eventually("the first line is out", || holds(&out, &events([1])));
        std::fs::rename(&out, &old).expect("moved");
        running.signal(libc::SIGHUP);
        while !running.err_line().contains("info[reopened]") {}
        append(&input, &events([2]));
        eventually("the second line is in the new file", || holds(&out, &events([2])));
        running.child.kill().expect("a child of ours");
        running.end();
        append(&input, &events([3]));
        let ran = place.run(&[]);
        assert_eq!((ran.code, read(&old), read(&out)), (Some(0), events([1]), events([2, 3])), "{}", ran.err);
    }
}

#[test]
fn lines_of_a_pipe_that_were_out_when_it_died_are_known() {
    let place = Place::new("");
    let (state, out) = (place.path("state"), place.path("out"));
    let args = ["-s", state.to_str().expect("UTF-8"), "-o", out.to_str().expect("UTF-8")];
    let ran = filter::filter_counted(&args, events([1]));
    assert_eq!((ran.code, &ran.report()["delivery"]), (Some(0), &"at-least-once".into()));
    // As a process leaves it that died between delivery and commit.
    append(&out, &(events([2, 3]) + "bad\n{\"id\":"));
    let ran = filter::filter_counted(&args, events([3, 4, 2, 1]));
    assert_eq!((ran.code, read(&out)), (Some(0), events([1, 2, 3]) + "bad\n" + &events([4])));
    let recovered = &ran.report()["recovered"];
    assert_eq!((&recovered["ids_of_lines"], &recovered["cut_bytes"]), (&2.into(), &6.into()));
}

#[test]
fn lines_of_a_pipe_are_not_cut_off_by_a_run_over_files() {
    let place = Place::new(&events([2, 3]));
    let (state, out) = (place.path("state"), place.path("out"));
    let args = ["-s", state.to_str().expect("UTF-8"), "-o", out.to_str().expect("UTF-8")];
    filter::filter(&args, events([1]));
    append(&out, &events([2]));
    assert_eq!((place.run(&[]).code, read(&out)), (Some(0), events([1, 2, 3])));
}

#[test]
fn what_is_thrown_away_is_not_read_again() {
    for durability in ["process", "interval=1h", "power-loss"] {
        let place = Place::new(&events([1, 2, 2, 3, 3]));
        let duplicates = place.path("duplicates");
        let more = ["--duplicates", duplicates.to_str().expect("UTF-8")];
        let run = || place.run_lasting(durability, "in", "/dev/null", &more);
        let ran = run();
        assert_eq!((ran.code, &ran.report()["delivery"], ran.count("read")), (Some(0), &"exactly-once".into(), 5));
        append(&place.path("in"), &events([1]));
        assert_eq!((run().count("read"), run().count("read")), (1, 0), "{durability}");
        assert_eq!(read(&duplicates), events([2, 3, 1]));
        // No output has a position at all.
        let run = || place.run_lasting(durability, "in2", "/dev/null", &[]);
        write(place.path("in2"), events([1]));
        assert_eq!((run().count("read"), run().count("read")), (1, 0), "{durability}");
    }
}

/// What somebody does to an output that is written to, and what is said about it.
type Meddling = (&'static str, fn(&Path));

const MEDDLINGS: [Meddling; 3] = [
    ("out was deleted", |out| std::fs::remove_file(out).expect("removed")),
    ("out was deleted, or another file was moved over it", |out| {
        let other = out.with_extension("other");
        write(&other, "");
        std::fs::rename(other, out).expect("moved");
    }),
    ("out was cut: it has", |out| {
        File::options().write(true).open(out).expect("open").set_len(3).expect("cut");
    }),
];

#[test]
fn an_output_that_is_taken_away_ends_the_run_and_nothing_more_is_committed() {
    for durability in ["process", "interval=1h", "power-loss"] {
        for (why, meddle) in MEDDLINGS {
            let place = Place::new(&events([1]));
            let (input, out) = (place.path("in"), place.path("out"));
            let running = following(&place, durability, &[]);
            eventually("the first line is out", || holds(&out, &events([1])));
            meddle(&out);
            append(&input, &events([2]));
            let (status, _, err) = running.end();
            assert_eq!(status.code(), Some(74), "{durability}: {err}");
            assert!(err.contains("error[output_changed]") && err.contains(why), "{durability}: {err}");
            // Whatever was not committed comes again, into another file.
            let _ = std::fs::remove_file(&out);
            let ran = place.run(&["--append"]);
            // The first line may have been out and not committed.
            let first = if durability == "interval=1h" { events([1]) } else { String::new() };
            let again = read(&out);
            assert!(again.starts_with(&first) && again.ends_with(&events([2])), "{durability}: {again} {}", ran.err);
        }
    }
}

#[test]
fn an_output_that_is_taken_away_is_noticed_though_nothing_is_written() {
    for (why, meddle) in MEDDLINGS {
        let place = Place::new(&events([1]));
        let running = following(&place, "process", &[]);
        eventually("the first line is out", || holds(&place.path("out"), &events([1])));
        meddle(&place.path("out"));
        let (status, _, err) = running.end();
        assert!(status.code() == Some(74) && err.contains(why), "{err}");
    }
}

#[test]
fn an_output_that_was_renamed_is_written_to_until_it_is_reopened() {
    for durability in ["process", "interval=5ms", "power-loss"] {
        let place = Place::new(&events([1]));
        let (input, out, old) = (place.path("in"), place.path("out"), place.path("out.1"));
        let running = following(&place, durability, &[]);
        eventually("the first line is out", || holds(&out, &events([1])));
        std::fs::rename(&out, &old).expect("moved");
        // As logrotate does with `create`.
        write(&out, "");
        append(&input, &events([2]));
        eventually("the next line is in the same file", || holds(&old, &events([1, 2])));
        running.signal(libc::SIGHUP);
        while !running.err_line().contains("info[reopened]") {}
        append(&input, &events([3]));
        eventually("the last line is in the new one", || holds(&out, &events([3])));
        running.signal(libc::SIGTERM);
        let (status, _, err) = running.end();
        assert_eq!((status.code(), read(&old)), (Some(0), events([1, 2])), "{err}");
    }
}
