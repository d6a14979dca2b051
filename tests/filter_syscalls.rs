//! Goal: wherever the filter dies, or a system call of its fails, the next run puts it right. Method: strace kills it
//! at, or fails, the n-th call of each kind that changes a file, for n from 1 until a run gets through; then the
//! outputs of the next run are compared with those of a run that nobody disturbed. Stores to the mapped log are no
//! system calls: random kills meet those.

mod filter;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use filter::{dir, events, write};

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
        let path = |name: &str| self.dir.join(name).to_str().expect("UTF-8").to_owned();
        // Small batches, so that there are several commits; and no limit that is reached, as that depends on when.
        let mut args: Vec<String> =
            ["-q", "--threads", "1", "--max-ids", "500", "--on-bad", "divert", "--when-disk-full", "stop"]
                .map(str::to_owned)
                .into();
        args.extend(["--durability".to_owned(), self.durability.to_owned()]);
        for (flag, name) in [
            ("--state", "state"),
            ("--input", "in"),
            ("--output", "out"),
            ("--rejects", "rejects"),
            ("--duplicates", "duplicates"),
        ] {
            args.extend([flag.to_owned(), path(name)]);
        }
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

    fn outputs(&self) -> [Vec<u8>; 3] {
        ["out", "rejects", "duplicates"].map(|name| std::fs::read(self.dir.join(name)).expect("an output"))
    }
}

/// Does `what` at the n-th call, for each n and each kind of call.
fn sweep(dir: &Path, durability: &'static str, calls: &[&str], what: &str) {
    let whole = Files::new(dir.join(format!("whole {durability}")), durability);
    whole.finish("nothing");
    let expected = whole.outputs();
    for call in calls {
        for n in 1..=CALLS_MAX {
            let inject = format!("{call}:{what}:when={n}");
            let files = Files::new(dir.join(&inject).join(durability), durability);
            let got_through = files.disturbed(&inject);
            files.finish(&inject);
            assert!(files.outputs() == expected, "{durability}, {inject}: the outputs differ");
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
