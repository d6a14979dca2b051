//! Goal: a full disk tears no line, commits no ID whose line is not out, and is waited for, or ends the run, as asked.
//! Method: a real file system without room, which needs the superuser to mount it; a limit on the size of files, which
//! does not.

mod filter;

use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use filter::{Ran, Running, dedupd, dir, eventually, read, write};

/// A small file system in memory.
struct Small {
    dir: tempfile::TempDir,
}

impl Small {
    /// None, said once, when it cannot be mounted.
    fn mount(size: &str) -> Option<Self> {
        let small = Self { dir: dir() };
        std::fs::create_dir(small.root()).expect("a directory");
        if small.mount_with(&format!("size={size}")) {
            return Some(small);
        }
        eprintln!("skipped: a tmpfs of {size} cannot be mounted, as by others than the superuser");
        None
    }

    fn mount_with(&self, options: &str) -> bool {
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", options, "none"]).arg(self.root()).stderr(Stdio::null());
        mount.status().is_ok_and(|status| status.success())
    }

    fn grow(&self, size: &str) {
        assert!(self.mount_with(&format!("remount,size={size}")));
    }

    /// Leaves no byte of room, until what is returned is dropped.
    fn fill(&self) -> Filler {
        let filler = Filler(self.root().join("filler"));
        let mut file = std::fs::File::create(&filler.0).expect("made");
        while std::io::Write::write_all(&mut file, &[1; 4096]).is_ok() {}
        filler
    }

    fn root(&self) -> PathBuf {
        self.dir.path().join("small")
    }

    fn path(&self, name: &str) -> String {
        text(&self.root().join(name))
    }

    fn outside(&self, name: &str) -> String {
        text(&self.dir.path().join(name))
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        // The directory cannot be removed before that.
        let _ = Command::new("umount").arg("-l").arg(self.root()).status();
    }
}

/// A file that takes all the room there was.
struct Filler(PathBuf);

impl Drop for Filler {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

fn text(path: &Path) -> String {
    path.to_str().expect("UTF-8").to_owned()
}

/// Lines of about 1,000 bytes, each ID twice.
fn long_lines(count: u32) -> String {
    let line = |n: u32| format!("{{\"id\":{},\"n\":{n},\"pad\":\"{}\"}}\n", n / 2, "x".repeat(1_000));
    (0..count).map(line).collect()
}

/// Those of them that are first-seen.
fn firsts(lines: &str) -> String {
    lines.split_inclusive('\n').step_by(2).collect()
}

fn is_whole(lines: &str, of: &str) {
    assert!(lines.is_empty() || lines.ends_with('\n'), "half a line is left");
    assert!(of.starts_with(lines), "other lines than the first ones");
}

#[test]
fn a_full_output_stops_the_run_at_a_line_and_the_next_run_goes_on_there() {
    for (durability, input) in
        [("process", "file"), ("interval=5ms", "file"), ("power-loss", "file"), ("process", "pipe")]
    {
        let Some(small) = Small::mount("1m") else { return };
        let lines = long_lines(4_000);
        let path = write(small.outside("in"), &lines);
        let (state, out) = (small.outside("state"), small.path("out"));
        let args = ["--when-disk-full", "stop", "--durability", durability, "-s", &state, "-o", &out];
        let run = || match input {
            "file" => Ran::from(dedupd(args).args(["--report", "json", "-i", &path]).output().expect("it ends")),
            _ => filter::filter_counted(&args, &lines),
        };
        let ran = run();
        assert_eq!(ran.code, Some(74), "{}", ran.err);
        assert!(ran.err.contains("error[output]") && ran.err.contains("no space left on device"), "{}", ran.err);
        assert_eq!(ran.report()["balanced"], true);
        is_whole(&read(small.path("out")), &firsts(&lines));
        assert!(ran.count("delivered") > 500, "what came before is out");
        assert!(ran.count("in_flight") > 0, "and it did not drain");
        assert_eq!(ran.count("first_seen"), ran.count("delivered") + ran.count("in_flight"));
        assert_eq!(run().code, Some(74), "and again");
        small.grow("16m");
        let ran = run();
        assert_eq!((ran.code, ran.count("in_flight")), (Some(0), 0));
        assert!(read(small.path("out")) == firsts(&lines), "{durability} {input}");
    }
}

#[test]
fn a_full_output_is_waited_for() {
    for (durability, input) in [("process", "file"), ("interval=5ms", "file"), ("process", "pipe")] {
        let Some(small) = Small::mount("1m") else { return };
        let lines = long_lines(4_000);
        let path = write(small.outside("in"), &lines);
        let mut command = dedupd(["--report", "json", "--durability", durability]);
        command.args(["-s", &small.outside("state"), "-o", &small.path("out")]);
        match input {
            "file" => command.args(["-i", &path]),
            _ => command.stdin(std::process::Stdio::piped()),
        };
        let mut running = Running::spawn(&mut command);
        if input == "pipe" {
            let mut stdin = running.stdin.take().expect("piped");
            let lines = lines.clone();
            std::thread::spawn(move || std::io::Write::write_all(&mut stdin, lines.as_bytes()));
        }
        assert!(running.err_line().contains("warning[disk_full]"));
        is_whole(&read(small.path("out")), &firsts(&lines));
        small.grow("16m");
        assert!(running.err_line().contains("warning[disk_room]"), "it is said once");
        let (status, _, err) = running.end();
        assert_eq!(status.code(), Some(0), "{err}");
        assert!(read(small.path("out")) == firsts(&lines), "{durability} {input}");
    }
}

#[test]
fn a_signal_ends_the_wait_for_room() {
    let Some(small) = Small::mount("1m") else { return };
    let lines = long_lines(4_000);
    let path = write(small.outside("in"), &lines);
    let args = ["-s", &small.outside("state"), "-o", &small.path("out"), "-i", &path].map(str::to_owned);
    let running = Running::spawn(&mut dedupd(&args));
    assert!(running.err_line().contains("warning[disk_full]"));
    running.signal(libc::SIGTERM);
    let (status, _, err) = running.end();
    assert_eq!(status.code(), Some(74), "{err}");
    is_whole(&read(small.path("out")), &firsts(&lines));
    small.grow("16m");
    assert!(dedupd(&args).status().expect("it ends").success());
    assert!(read(small.path("out")) == firsts(&lines));
}

/// Also of the wait that the last commit is in, after all was read.
#[test]
fn a_signal_ends_the_wait_of_the_last_commit() {
    let dir = tempfile::tempdir().expect("a directory");
    let at = |name: &str| dir.path().join(name).display().to_string();
    let lines = |from: u32, to: u32| (from..to).map(|n| format!("{{\"id\":\"{n}\"}}\n")).collect::<String>();
    let (many, few) = (write(at("many"), lines(0, 200_000)), write(at("few"), lines(200_000, 200_300)));
    let args = ["-s", &at("state"), "-o", &at("out"), "-i", &many].map(str::to_owned);
    assert!(dedupd(&args).status().expect("it ends").success());
    let args = ["-s", &at("state"), "-o", &at("new"), "-i", &few].map(str::to_owned);
    let running = Running::spawn(dedupd(&args).args(["--max-disk", "3MiB"]));
    assert!(running.err_line().contains("warning[disk_full]"));
    // All three hundred lines are read by then.
    std::thread::sleep(std::time::Duration::from_millis(300));
    running.signal(libc::SIGTERM);
    let (status, _, err) = running.end();
    assert_eq!(status.code(), Some(74), "{err}");
    assert!(dedupd(&args).status().expect("it ends").success());
    assert!(read(at("new")) == lines(200_000, 200_300));
}

#[test]
fn without_a_state_a_full_output_stops_the_run_at_a_line() {
    let Some(small) = Small::mount("1m") else { return };
    let lines = long_lines(4_000);
    let path = write(small.outside("in"), &lines);
    for to_stdout in [false, true] {
        let _ = std::fs::remove_file(small.path("out"));
        let mut command = dedupd(["--report", "json", "-i", &path]);
        match to_stdout {
            true => command.stdout(std::fs::File::create(small.path("out")).expect("made")),
            false => command.args(["-o", &small.path("out")]),
        };
        let ran = Ran::from(command.output().expect("it ends"));
        assert_eq!(ran.code, Some(74), "{}", ran.err);
        let out = read(small.path("out"));
        is_whole(&out, &firsts(&lines));
        assert_eq!(ran.count("delivered"), out.lines().count() as u64);
    }
}

#[test]
fn half_of_a_line_that_comes_in_parts_does_not_stay() {
    let Some(small) = Small::mount("1m") else { return };
    let lines = format!("{{\"id\":1}}\n{}\n", "x".repeat(3 << 20));
    let path = write(small.outside("in"), lines);
    let ran =
        Ran::from(dedupd(["--max-line", "1000", "-i", &path, "-o", &small.path("out")]).output().expect("it ends"));
    assert_eq!((ran.code, read(small.path("out")).as_str()), (Some(74), "{\"id\":1}\n"), "{}", ran.err);
}

/// So many ids that the log needs more than its first segments.
fn many_ids() -> String {
    filter::events(0..300_000)
}

#[test]
fn a_full_state_stops_the_run_and_loses_nothing() {
    for input in ["file", "pipe"] {
        let Some(small) = Small::mount("4m") else { return };
        let lines = many_ids();
        let path = write(small.outside("in"), &lines);
        let (state, out) = (small.path("state"), small.outside("out"));
        let args = ["-q", "--when-disk-full", "stop", "-s", &state, "-o", &out];
        let run = || match input {
            "file" => Ran::from(dedupd(args).args(["-i", &path]).output().expect("it ends")),
            _ => filter::filter(&args, &lines),
        };
        let ran = run();
        assert_eq!(ran.code, Some(74), "{}", ran.err);
        assert!(ran.err.contains("error[log_no_room]") && ran.err.contains("make room there"), "{}", ran.err);
        let told = if input == "file" { "is cut back at the next start" } else { "are committed at the next start" };
        assert!(ran.err.contains(told), "{}", ran.err);
        small.grow("64m");
        let ran = run();
        assert_eq!(ran.code, Some(0), "{}", ran.err);
        assert!(read(small.outside("out")) == lines, "{input}");
    }
}

/// Nobody can take them back, and nobody knows whether they are out.
#[test]
fn what_was_not_committed_comes_out_of_a_pipe_again() {
    let Some(small) = Small::mount("4m") else { return };
    let lines = many_ids();
    let path = write(small.outside("in"), &lines);
    let run = || {
        let args = ["-q", "--when-disk-full", "stop", "--threads", "1", "-s", &small.path("state"), "-i", &path];
        Ran::from(dedupd(args).output().expect("it ends"))
    };
    let first = run();
    assert_eq!(first.code, Some(74), "{}", first.err);
    assert!(first.err.contains("they come out again when they are read again"), "{}", first.err);
    is_whole(first.text(), &lines);
    small.grow("64m");
    let second = run();
    assert_eq!(second.code, Some(0), "{}", second.err);
    let both = first.text().len() + second.text().len();
    assert!(lines.ends_with(second.text()) && both > lines.len(), "the last lines are out twice, and none is lost");
}

#[test]
fn a_full_state_is_waited_for() {
    let Some(small) = Small::mount("4m") else { return };
    let lines = many_ids();
    let path = write(small.outside("in"), &lines);
    let args = ["-s", &small.path("state"), "-i", &path, "-o", &small.outside("out")].map(str::to_owned);
    let running = Running::spawn(&mut dedupd(&args));
    let warning = running.err_line();
    assert!(warning.contains("warning[disk_full]: the state"), "{warning}");
    small.grow("64m");
    assert!(running.err_line().contains("warning[disk_room]"));
    assert_eq!(running.end().0.code(), Some(0));
    assert!(read(small.outside("out")) == lines);
    assert!(dedupd(&args).status().expect("it ends").success());
    assert!(read(small.outside("out")) == lines);
}

#[test]
fn a_full_state_is_passed_by_when_that_is_asked_for() {
    for flags in [["--when-disk-full", "pass"], ["--when-state-fails", "pass"]] {
        let Some(small) = Small::mount("4m") else { return };
        let lines = many_ids();
        let path = write(small.outside("in"), &lines);
        let args = ["--report", "json", "-s", &small.path("state"), "-i", &path];
        let ran = Ran::from(dedupd(args).args(flags).output().expect("it ends"));
        assert_eq!(ran.code, Some(0), "{}", ran.err);
        assert!(ran.text() == lines);
        assert!(ran.count("bypassed") > 1_000, "{}", ran.err);
        assert_eq!(ran.report()["delivery"], "at-least-once");
    }
}

/// A disk that is full before a state on it is opened: one that is there, or one that is to be made.
struct FullAtStart {
    small: Small,
    is_new: bool,
}

impl FullAtStart {
    fn each() -> impl Iterator<Item = (Self, Filler)> {
        [false, true].into_iter().map_while(|is_new| {
            let full = Self { small: Small::mount("4m")?, is_new };
            if !is_new {
                let ran = filter::filter(&["-q", "-s", &full.small.path("state")], filter::events(0..10));
                assert_eq!(ran.code, Some(0), "{}", ran.err);
            }
            let filler = full.small.fill();
            Some((full, filler))
        })
    }

    /// The filter over twenty events, the first ten of which a state that was there knows.
    fn command(&self, flags: &[&str]) -> Command {
        let input = write(self.small.outside("in"), filter::events(0..20));
        let mut command = dedupd(["-s", &self.small.path("state"), "-i", &input]);
        command.args(flags);
        command
    }

    fn expected(&self) -> String {
        filter::events(if self.is_new { 0..20 } else { 10..20 })
    }

    /// Nothing is half there.
    fn is_sound(&self) {
        let secret = std::fs::metadata(self.small.path("state/SECRET"));
        assert_eq!(secret.map_or(32, |about| about.len()), 32);
        let verified = dedupd(["verify", &self.small.path("state")]).output().expect("it ends");
        let sound = String::from_utf8_lossy(&verified.stdout).contains("\"sound\":true");
        assert!(sound || self.is_new, "{verified:?}");
    }
}

#[test]
fn a_disk_that_is_full_at_the_start_is_waited_for() {
    for out in [None, Some("out")] {
        for (full, filler) in FullAtStart::each() {
            let flags = out.map_or(Vec::new(), |out| vec!["-o".to_owned(), full.small.outside(out)]);
            let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
            let running = Running::spawn(&mut full.command(&flags));
            let warning = running.err_line();
            assert!(warning.contains("warning[disk_full]: the state"), "{warning}");
            full.is_sound();
            // Neither is worth an end.
            running.signal(libc::SIGHUP);
            running.signal(libc::SIGUSR1);
            drop(filler);
            assert!(running.err_line().contains("warning[disk_room]"), "it is said once");
            let (status, lines, err) = running.end();
            assert_eq!(status.code(), Some(0), "{err}");
            let lines = if out.is_some() { read(full.small.outside("out")) } else { lines };
            assert_eq!(lines, full.expected());
            assert_eq!(Ran::from(full.command(&["-q"]).output().expect("it ends")).text(), "", "all are known");
        }
    }
}

#[test]
fn a_signal_ends_the_wait_at_the_start() {
    for (full, filler) in FullAtStart::each() {
        let running = Running::spawn(&mut full.command(&[]));
        assert!(running.err_line().contains("warning[disk_full]"));
        running.signal(libc::SIGTERM);
        let (status, lines, err) = running.end();
        assert_eq!((status.code(), lines.as_str()), (Some(74), ""), "{err}");
        full.is_sound();
        drop(filler);
        assert_eq!(Ran::from(full.command(&["-q"]).output().expect("it ends")).text(), full.expected());
    }
}

/// What comes after the wait may take long as well: here, somebody else has the state by then.
#[test]
fn a_signal_ends_what_comes_after_the_wait_at_the_start() {
    let Some((full, filler)) = FullAtStart::each().next() else { return };
    let running = Running::spawn(&mut full.command(&["--lock-timeout", "1h"]));
    assert!(running.err_line().contains("warning[disk_full]"));
    let lock = std::fs::File::open(full.small.path("state/LOCK")).expect("a lock");
    lock.lock().expect("it is free between two tries");
    // No pause is longer than a second.
    std::thread::sleep(Duration::from_millis(1_500));
    running.signal(libc::SIGTERM);
    assert_eq!(running.end().0.signal(), Some(libc::SIGTERM));
    drop((lock, filler));
    assert_eq!(Ran::from(full.command(&["-q"]).output().expect("it ends")).text(), full.expected());
}

#[test]
fn a_disk_that_is_full_at_the_start_stops_the_run_and_breaks_nothing() {
    for (full, filler) in FullAtStart::each() {
        let stopped = || Ran::from(full.command(&["--when-disk-full", "stop"]).output().expect("it ends"));
        for ran in [stopped(), stopped()] {
            assert_eq!(ran.code, Some(74), "{}", ran.err);
            let why = "no space left on device; make room there";
            assert!(ran.err.contains("error[state_io]: cannot ") && ran.err.contains(why), "{}", ran.err);
            full.is_sound();
        }
        drop(filler);
        assert_eq!(Ran::from(full.command(&["-q"]).output().expect("it ends")).text(), full.expected());
    }
}

/// What the state knows is dropped, and the rest goes out and is counted. One that is yet to be made needs its secret.
#[test]
fn a_disk_that_is_full_at_the_start_is_passed_by_where_that_is_asked_for() {
    for flags in [["--when-disk-full", "pass"], ["--when-state-fails", "pass"]] {
        for (full, filler) in FullAtStart::each() {
            let flags = [&flags[..], &["--report", "json"]].concat();
            let passed = || Ran::from(full.command(&flags).output().expect("it ends"));
            if full.is_new {
                if flags[0] == "--when-disk-full" {
                    let ran = passed();
                    assert_eq!((ran.code, ran.text()), (Some(74), ""), "{}", ran.err);
                }
                continue;
            }
            for ran in [passed(), passed()] {
                assert_eq!((ran.code, ran.text()), (Some(0), &*full.expected()), "{}", ran.err);
                assert_eq!((ran.count("bypassed"), ran.count("duplicate")), (10, 10), "{}", ran.err);
                assert_eq!(ran.report()["delivery"], "at-least-once");
                full.is_sound();
            }
            drop(filler);
            let ran = passed();
            assert_eq!((ran.text(), ran.count("bypassed")), (&*full.expected(), 0), "{}", ran.err);
            assert_eq!(passed().text(), "", "with room all are known");
        }
    }
}

/// Once there is room, it is used.
#[test]
fn a_run_that_passed_by_at_its_start_records_when_there_is_room() {
    let Some((full, filler)) = FullAtStart::each().next() else { return };
    let state = full.small.path("state");
    let mut running = Running::start(&["-q", "-s", &state, "--when-disk-full", "pass"]);
    running.write(filter::events([5, 100]));
    assert_eq!(running.line(), filter::events([100]));
    drop(filler);
    let knows = || {
        !filter::filter(&["export", &state], "").out.is_empty() && {
            let explained = filter::filter(&["explain", "-s", &state], filter::events([100]));
            explained.text().contains("duplicate")
        }
    };
    eventually("it is recorded", || {
        running.write(filter::events([100]));
        knows()
    });
    assert_eq!(running.end().0.code(), Some(0));
    assert_eq!(filter::filter(&["-q", "-s", &state], filter::events([5, 100, 101])).text(), filter::events([101]));
}

/// Nobody else makes room: its own segments do, once all in them is forgotten.
#[test]
fn a_disk_that_is_full_of_segments_that_age_out_has_room_at_the_start_again() {
    for how in ["block", "pass"] {
        let Some(small) = Small::mount("8m") else { return };
        let state = small.path("state");
        for from in [0, 1_000, 2_000] {
            let made = filter::filter(&["-q", "-w", "1s", "-s", &state], filter::events(from..from + 1_000));
            assert_eq!(made.code, Some(0), "{}", made.err);
        }
        let filler = small.fill();
        let mut running = Running::start(&["-w", "1s", "-s", &state, "--when-disk-full", how]);
        let knows = || {
            let explained = filter::filter(&["explain", "-w", "1d", "-s", &state], filter::events([5_000]));
            explained.text().contains("duplicate")
        };
        eventually("it is recorded", || {
            running.write(filter::events([5_000]));
            knows()
        });
        assert!(filler.0.exists(), "nobody has made room");
        running.signal(libc::SIGTERM);
        let (status, lines, err) = running.end();
        assert_eq!(status.code(), Some(0), "{err}");
        assert!(lines.contains("5000"), "{how}: {err}");
    }
}

#[test]
fn an_output_that_cannot_be_made_for_want_of_room_is_waited_for() {
    for with_state in [true, false] {
        let Some(small) = Small::mount("1m,nr_inodes=2") else { return };
        let filler = small.fill();
        let input = write(small.outside("in"), filter::events(0..20));
        let mut command = dedupd(["--when-disk-full", "block", "-o", &small.path("out"), "-i", &input]);
        if with_state {
            command.args(["-s", &small.outside("state")]);
        }
        let running = Running::spawn(&mut command);
        let warning = running.err_line();
        assert!(warning.contains("warning[disk_full]") && warning.contains("/small/out"), "{warning}");
        drop(filler);
        let (status, _, err) = running.end();
        assert_eq!((status.code(), read(small.path("out"))), (Some(0), filter::events(0..20)), "{err}");
    }
}

/// There is none, so it is told as a full disk is everywhere.
#[test]
fn an_output_that_cannot_be_made_for_want_of_room_ends_the_run_as_a_full_disk_does() {
    let Some(small) = Small::mount("1m,nr_inodes=2") else { return };
    let _filler = small.fill();
    let input = write(small.outside("in"), filter::events(0..20));
    let command = |policy| dedupd(["--when-disk-full", policy, "-o", &small.path("out"), "-i", &input]);
    let ran = Ran::from(command("stop").output().expect("it ends"));
    assert!(ran.code == Some(74) && ran.err.contains("no space left on device; make room there"), "{}", ran.err);
    let running = Running::spawn(&mut command("block"));
    assert!(running.err_line().contains("warning[disk_full]"));
    running.signal(libc::SIGTERM);
    assert_eq!(running.end().0.code(), Some(74));
}

/// A wait is long enough for somebody to rotate the others.
#[test]
fn an_output_that_was_replaced_during_a_wait_for_another_is_not_cut() {
    let Some(small) = Small::mount("1m,nr_inodes=2") else { return };
    let input = write(small.outside("in"), "bad\n");
    let (state, rejects) = (small.outside("state"), small.outside("rejects"));
    let command =
        |out: &str| dedupd(["--on-bad", "divert", "-s", &state, "--rejects", &rejects, "-i", &input, "-o", out]);
    assert_eq!(command(&small.outside("out")).output().expect("it ends").status.code(), Some(1));
    let filler = small.fill();
    let running = Running::spawn(&mut command(&small.path("out")));
    assert!(running.err_line().contains("warning[disk_full]"));
    std::fs::rename(&rejects, small.outside("rejects.1")).expect("moved");
    write(&rejects, "somebody else's\n");
    drop(filler);
    let (status, _, err) = running.end();
    assert_eq!(read(&rejects), "somebody else's\n", "{err}");
    assert!(status.code() == Some(73) && err.contains("rejects is not as it was"), "{err}");
    std::fs::rename(small.outside("rejects.1"), &rejects).expect("moved back");
    assert_eq!(command(&small.path("out")).output().expect("it ends").status.code(), Some(0));
}

/// A rotation, too, needs room for a new file.
#[test]
fn an_output_that_finds_no_room_when_it_is_reopened_is_waited_for() {
    for with_state in [true, false] {
        let Some(small) = Small::mount("1m,nr_inodes=3") else { return };
        let out = small.path("out");
        let mut flags = vec!["--when-disk-full".to_owned(), "block".to_owned(), "-o".to_owned(), out.clone()];
        if with_state {
            flags.extend(["-s".to_owned(), small.outside("state")]);
        }
        let mut running = Running::start(&flags.iter().map(String::as_str).collect::<Vec<_>>());
        running.write(filter::events([1]));
        eventually("it is out", || std::fs::read_to_string(&out).is_ok_and(|text| text == filter::events([1])));
        let filler = small.fill();
        std::fs::rename(&out, small.path("out.1")).expect("moved");
        running.signal(libc::SIGHUP);
        assert!(running.err_line().contains("warning[disk_full]"));
        drop(filler);
        while !running.err_line().contains("warning[disk_room]") {}
        running.write(filter::events([1, 2]));
        assert_eq!(running.end().0.code(), Some(0));
        assert_eq!((read(small.path("out.1")), read(&out)), (filter::events([1]), filter::events([2])));
    }
}

/// Lines that an earlier process has written and did not live to commit.
#[test]
fn ids_that_are_recovered_at_the_start_need_room_as_well() {
    let dir = dir();
    let at = |name: &str| text(&dir.path().join(name));
    let args = ["-s", &at("state"), "-o", &at("out")].map(str::to_owned);
    let run = |flags: &[&str]| {
        let args: Vec<&str> = args.iter().map(String::as_str).chain(flags.iter().copied()).collect();
        filter::filter(&args, "")
    };
    let args_str: Vec<&str> = args.iter().map(String::as_str).collect();
    assert_eq!(filter::filter(&args_str, filter::events(0..200_000)).code, Some(0));
    let add_lines = |ids: std::ops::Range<u32>| {
        let mut out = std::fs::File::options().append(true).open(at("out")).expect("open");
        std::io::Write::write_all(&mut out, filter::events(ids).as_bytes()).expect("written");
        read(at("out"))
    };

    let whole = add_lines(200_000..200_400);
    let ran = run(&["--max-disk", "3MiB", "--when-disk-full", "stop"]);
    assert!(ran.code == Some(74) && ran.err.contains("error[log_no_room]"), "{}", ran.err);
    let mut command = dedupd(&args);
    let mut running = Running::spawn(command.args(["--max-disk", "3MiB"]).stdin(Stdio::piped()));
    assert!(running.err_line().contains("warning[disk_full]: the state"));
    running.signal(libc::SIGTERM);
    drop(running.stdin.take());
    let (status, _, err) = running.end();
    assert_eq!(status.code(), Some(74), "{err}");
    let ran = run(&["--report", "json"]);
    assert_eq!((ran.code, ran.report()["recovered"]["ids_of_lines"].as_u64()), (Some(0), Some(400)), "{}", ran.err);
    assert!(read(at("out")) == whole, "no line is lost or written again");

    let whole = add_lines(200_400..200_800);
    let ran = run(&["--max-disk", "3MiB", "--when-disk-full", "pass", "--report", "json"]);
    assert_eq!((ran.code, ran.count("bypassed")), (Some(0), 400), "{}", ran.err);
    assert!(read(at("out")) == whole);
}

/// Repeats that extend windows are recorded as well.
#[test]
fn repeats_that_find_no_room_are_counted_or_waited_for() {
    let dir = dir();
    let at = |name: &str| text(&dir.path().join(name));
    let timed = |ids: std::ops::Range<u32>, at: u32| -> String {
        ids.map(|id| format!("{{\"id\":{id},\"at\":{}}}\n", 1_700_000_000 + at)).collect()
    };
    let (firsts, repeats) = (write(at("firsts"), timed(0..150_000, 0)), write(at("repeats"), timed(0..1_000, 3_600)));
    let common = ["--report", "json", "--time-field", "at", "--time-unit", "s", "--extend"];
    assert!(dedupd(common).args(["-s", &at("state"), &firsts]).output().expect("it ends").status.success());
    for flags in [["--when-disk-full", "pass"], ["--when-state-fails", "pass"]] {
        let mut command = dedupd(common);
        command.args(flags).args(["-s", &at("state"), "--max-disk", "3MiB", &repeats]);
        let ran = Ran::from(command.output().expect("it ends"));
        assert_eq!((ran.code, ran.text(), ran.count("duplicate")), (Some(0), "", 1_000), "{flags:?} {}", ran.err);
        assert!(ran.count("bypassed") > 0, "{flags:?} {}", ran.err);
        assert!(ran.err.contains("warning[log_no_room]"), "{flags:?} {}", ran.err);
    }
    let running = Running::spawn(dedupd(common).args(["-s", &at("state"), "--max-disk", "3MiB", &repeats]));
    assert!(running.err_line().contains("warning[disk_full]: the state"));
    running.signal(libc::SIGTERM);
    assert_eq!(running.end().0.code(), Some(74));
}

#[test]
fn the_limit_on_the_size_of_files_is_an_error_and_no_death() {
    const LIMIT: u64 = 5_000_001;
    let dir = dir();
    let lines = long_lines(16_000);
    let path = write(dir.path().join("in"), &lines);
    let out = text(&dir.path().join("out"));
    let state = text(&dir.path().join("state"));
    for flags in [&["-q"][..], &["-q", "-s", &state]] {
        let mut command = dedupd(flags);
        command.args(["-i", &path, "-o", &out]);
        let limit = || {
            let limit = libc::rlimit { rlim_cur: LIMIT, rlim_max: LIMIT };
            // SAFETY: `limit` is valid for the duration of the call, which may be made between fork and exec.
            match unsafe { libc::setrlimit(libc::RLIMIT_FSIZE, &raw const limit) } {
                0 => Ok(()),
                _ => Err(std::io::Error::last_os_error()),
            }
        };
        // SAFETY: the closure makes one system call and touches nothing that is shared.
        let ran = Ran::from(unsafe { command.pre_exec(limit) }.output().expect("it ends"));
        assert_eq!(ran.code, Some(74), "{flags:?} {}", ran.err);
        assert!(ran.err.contains("file too large"), "{}", ran.err);
        is_whole(&read(&out), &firsts(&lines));
        assert!(read(&out).len() as u64 > LIMIT - 3_000);
        if flags.len() == 1 {
            std::fs::remove_file(&out).expect("removed");
        }
    }
    assert!(dedupd(["-q", "-s", &state, "-i", &path, "-o", &out]).status().expect("it ends").success());
    assert!(read(&out) == firsts(&lines));
}

#[test]
fn what_is_no_file_is_never_waited_for() {
    let dir = dir();
    let state = text(&dir.path().join("state"));
    let mut running = Running::start(&["-s", &state, "-o", "/dev/full", "--when-disk-full", "block"]);
    running.write(filter::events([1]));
    eventually("it ends", || running.child.try_wait().expect("a child of ours").is_some());
    let (status, _, err) = running.end();
    assert_eq!(status.code(), Some(74), "{err}");
    // Its ID was not committed.
    assert_eq!(filter::filter(&["-q", "-s", &state], filter::events([1])).text(), filter::events([1]));
}
