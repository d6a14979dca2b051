//! Goal: wherever the filter dies, or a system call of its fails, the next run puts it right. Method: strace kills it
//! at, or fails, the n-th call of each kind that changes a file, for n from 1 until a run gets through; then the
//! outputs of the next run are compared with those of a run that nobody disturbed. Stores to the mapped log are no
//! system calls: random kills meet those.

mod filter;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use filter::{dir, events, files_in, outputs_in, write};

/// Whether strace can inject here; said once when it cannot.
fn can_inject() -> bool {
    let tried =
        Command::new("strace").args(["-qq", "-o", "/dev/null", "-e", "inject=fsync:error=EIO", "true"]).status();
    let can = tried.is_ok_and(|status| status.success());
    if !can {
        eprintln!("skipped: strace is not here, or may not trace");
    }
    can
}

struct Files {
    dir: PathBuf,
    durability: &'static str,
}

impl Files {
    fn new(dir: PathBuf, durability: &'static str) -> Self {
        std::fs::create_dir_all(&dir).expect("a directory");
        let batch = |from: u32| events(from..from + 40) + &events(from..from + 10) + "bad\n";
        write(dir.join("in"), (0..20).map(|n| batch(n * 10)).collect::<String>());
        Self { dir, durability }
    }

    fn args(&self) -> Vec<String> {
        // Small batches, so that there are several commits; and no limit that is reached, as that depends on when.
        let mut args: Vec<String> =
            ["-q", "--threads", "1", "--max-ids", "500", "--on-bad", "divert", "--when-disk-full", "stop"]
                .map(str::to_owned)
                .into();
        args.extend(["--durability", self.durability, "--input"].map(str::to_owned));
        args.push(self.dir.join("in").to_str().expect("UTF-8").to_owned());
        args.extend(files_in(&self.dir));
        args
    }

    /// Runs it with this done to its system calls; whether it got through.
    fn disturbed(&self, inject: &str) -> bool {
        let mut strace = Command::new("strace");
        strace.args(["-f", "-qq", "-o", "/dev/null", "-e", &format!("inject={inject}")]);
        strace.arg(env!("CARGO_BIN_EXE_dedupd")).args(self.args());
        let status = strace.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status().expect("it runs");
        status.success() || status.code() == Some(1)
    }

    fn finish(&self, after: &str) {
        let ended = filter::dedupd(self.args()).output().expect("it ends");
        let code = ended.status.code();
        assert!(matches!(code, Some(0 | 1)), "after {after}: {code:?}: {}", String::from_utf8_lossy(&ended.stderr));
    }
}

/// Does `what` at the n-th call, for each n and each kind of call.
fn sweep(dir: &Path, durability: &'static str, calls: &[&str], what: &str) {
    let whole = Files::new(dir.join(format!("whole {durability}")), durability);
    whole.finish("nothing");
    let expected = outputs_in(&whole.dir);
    for call in calls {
        for n in 1..=CALLS_MAX {
            let inject = format!("{call}:{what}:when={n}");
            let files = Files::new(dir.join(&inject).join(durability), durability);
            let got_through = files.disturbed(&inject);
            files.finish(&inject);
            assert!(outputs_in(&files.dir) == expected, "{durability}, {inject}: the outputs differ");
            std::fs::remove_dir_all(&files.dir).expect("removed");
            if got_through && n > 1 {
                break;
            }
        }
    }
}

const CALLS_MAX: u32 = 24;
const CHANGING: [&str; 9] =
    ["writev", "write", "pwrite64", "ftruncate", "fallocate", "fsync", "fdatasync", "rename", "openat"];

#[test]
fn killed_at_any_call_the_next_run_puts_it_right() {
    if !can_inject() {
        return;
    }
    let dir = dir();
    for durability in ["process", "power-loss"] {
        sweep(dir.path(), durability, &CHANGING, "signal=KILL");
    }
}

#[test]
fn a_call_that_fails_costs_nothing_but_the_run() {
    if !can_inject() {
        return;
    }
    let dir = dir();
    for error in ["error=EIO", "error=ENOSPC"] {
        sweep(dir.path(), "power-loss", &["writev", "ftruncate", "fallocate", "fsync", "fdatasync", "rename"], error);
    }
}

#[test]
fn bytes_that_were_said_to_be_written_and_are_not_there_are_noticed() {
    if !can_inject() {
        return;
    }
    let dir = dir();
    let files = Files::new(dir.path().join("lied to"), "process");
    assert!(!files.disturbed("writev:retval=7:when=2"));
}

/// The number that follows `name=` first.
fn number(text: &str, name: &str) -> u64 {
    let from = text.find(name).unwrap_or_else(|| panic!("{name} in {text}")) + name.len();
    let digits = text[from..].bytes().take_while(u8::is_ascii_digit).count();
    text[from..from + digits].parse().expect("a number")
}

#[test]
fn nothing_is_committed_after_a_sync_that_failed() {
    if !can_inject() {
        return;
    }
    let dir = dir();
    let path = |name: &str| dir.path().join(name).to_str().expect("UTF-8").to_owned();
    write(path("in"), (0..300_000).map(|n| format!("{{\"id\":{n},\"pad\":\"{:40}\"}}\n", "")).collect::<String>());
    let tool =
        |args: &[&str]| String::from_utf8(filter::dedupd(args).output().expect("it ends").stdout).expect("UTF-8");
    for n in 0..6 {
        let _ = (std::fs::remove_dir_all(path("state")), std::fs::remove_file(path("out")));
        let mut strace = Command::new("strace");
        strace.args(["--seccomp-bpf", "-f", "-qq", "-o", "/dev/null", "-P", &path("out"), "-e", "trace=fdatasync"]);
        strace.args(["-e", &format!("inject=fdatasync:error=EIO:when={}", 2 + n % 3)]);
        strace.arg(env!("CARGO_BIN_EXE_dedupd")).args(["--threads", "2", "--durability", "interval=5ms"]);
        strace.args(["-s", &path("state"), "-i", &path("in"), "-o", &path("out")]);
        let ended = strace.stdin(Stdio::null()).output().expect("it runs");
        let err = String::from_utf8_lossy(&ended.stderr);
        assert!(ended.status.code() == Some(74) && err.contains("error[output_sync]"), "{err}");
        // Had a later batch been committed, the place would be behind ids that are not known.
        let lines = number(&tool(&["inspect", &path("state")]), "lines=");
        assert_eq!(tool(&["export", &path("state")]).lines().count() as u64, lines, "round {n}");
    }
}

#[test]
fn only_a_full_disk_is_waited_for() {
    if !can_inject() {
        return;
    }
    let dir = dir();
    for (error, text) in [("EIO", "input/output error"), ("EROFS", "read-only file system")] {
        let path = |name: &str| dir.path().join(error).join(name).to_str().expect("UTF-8").to_owned();
        std::fs::create_dir(dir.path().join(error)).expect("a directory");
        write(path("in"), events(0..1_000_000));
        let mut strace = Command::new("strace");
        // Calls are counted for each thread, and the first one makes the state.
        strace.args(["-f", "-qq", "-o", "/dev/null", "-e", &format!("inject=fallocate:error={error}:when=2+")]);
        strace.arg(env!("CARGO_BIN_EXE_dedupd")).args(["-q", "--threads", "1", "--when-disk-full", "block"]);
        strace.args(["-s", &path("state"), "-i", &path("in"), "-o", &path("out")]);
        strace.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let (status, _, err) = filter::Running::spawn(&mut strace).end();
        assert_eq!(status.code(), Some(74), "{err}");
        assert!(err.contains("error[log_io]") && err.contains(text), "{err}");
        assert!(!err.contains("room") && !err.contains("full"), "{err}");
    }
}

/// What is diverted is gone from a pipe, so it must be on disk before what came with it is committed.
#[test]
fn files_beside_a_pipe_are_synced_before_what_came_with_their_lines_is_committed() {
    if !can_inject() {
        return;
    }
    let dir = dir();
    let path = |name: &str| dir.path().join(name).to_str().expect("UTF-8").to_owned();
    for durability in ["power-loss", "interval=5ms"] {
        let (trace, rejects) = (path(&format!("trace {durability}")), path(&format!("rejects {durability}")));
        let mut strace = Command::new("strace");
        strace.args(["-f", "-qq", "-y", "-e", "trace=fdatasync", "-o", &trace]).arg(env!("CARGO_BIN_EXE_dedupd"));
        strace.args(["-s", &path(&format!("state {durability}")), "--durability", durability]);
        strace.args(["--on-bad", "divert", "--rejects", &rejects, "--duplicates", &path("duplicates"), "--append"]);
        let piped = || Stdio::piped();
        let mut running = filter::Running::spawn(strace.stdin(piped()).stdout(piped()).stderr(piped()));
        running.write(events([1, 1, 2]) + "bad\n");
        assert_eq!(running.line() + &running.line(), events([1, 2]));
        // While the run goes on: at its end all is synced anyway.
        let synced = |name: &str| {
            let trace = std::fs::read_to_string(&trace).unwrap_or_default();
            trace.lines().collect::<Vec<_>>().iter().rposition(|call| call.contains(name) && call.contains("= 0"))
        };
        for name in ["/rejects ", "/duplicates"] {
            filter::eventually(name, || synced(name).is_some());
            if durability == "power-loss" {
                filter::eventually("the commit is synced behind them", || synced(".log>") > synced(name));
            }
        }
        assert_eq!(running.end().0.code(), Some(1));
    }
}
