//! Goal: a full disk tears no line, commits no ID whose line is not out, and is waited for, or ends the run, as asked.
//! Method: a real file system without room, which needs the superuser to mount it; a limit on the size of files, which
//! does not.

mod filter;

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

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
        assert_eq!(run().code, Some(74), "and again");
        small.grow("16m");
        assert_eq!(run().code, Some(0));
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
    let running = Running::spawn(dedupd(&args).args(["--max-disk", "1KiB"]));
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
        small.grow("64m");
        let ran = run();
        assert_eq!(ran.code, Some(0), "{}", ran.err);
        assert!(read(small.outside("out")) == lines, "{input}");
    }
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
