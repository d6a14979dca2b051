//! What the tests of the filter share: the real binary, run in a directory of its own, with deadlines instead of sleeps.
#![allow(dead_code, reason = "each test file uses a part of it")]

use std::ffi::OsStr;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// The filter with these arguments.
pub fn dedupd<I: IntoIterator<Item: AsRef<OsStr>>>(args: I) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_dedupd"));
    command.args(args).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// What a run came to.
#[derive(Debug)]
pub struct Ran {
    pub code: Option<i32>,
    pub out: Vec<u8>,
    pub err: String,
}

impl Ran {
    /// The JSON report, which is the last line of standard error.
    pub fn report(&self) -> serde_json::Value {
        let line = self.err.lines().rfind(|line| line.starts_with("{\"read\"")).expect("a report");
        serde_json::from_str(line).expect("JSON")
    }

    pub fn count(&self, name: &str) -> u64 {
        self.report()[name].as_u64().unwrap_or_else(|| panic!("no count {name} in {}", self.err))
    }

    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.out).expect("UTF-8")
    }
}

impl From<Output> for Ran {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code(),
            out: output.stdout,
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

/// Runs the filter over `input` through a pipe.
pub fn filter(args: &[&str], input: impl AsRef<[u8]>) -> Ran {
    let mut child = dedupd(args).stdin(Stdio::piped()).spawn().expect("the binary starts");
    let mut stdin = child.stdin.take().expect("piped");
    let input = input.as_ref().to_vec();
    // The filter may end before it has read everything.
    let writing = std::thread::spawn(move || drop(stdin.write_all(&input)));
    let ran = Ran::from(child.wait_with_output().expect("it ends"));
    writing.join().expect("written");
    ran
}

/// The same with a JSON report.
pub fn filter_counted(args: &[&str], input: impl AsRef<[u8]>) -> Ran {
    let ran = filter(&[&["--report", "json"], args].concat(), input);
    assert_eq!(ran.report()["balanced"], true, "{}", ran.err);
    ran
}

/// A filter that is running, fed through a pipe and watched.
pub struct Running {
    pub child: Child,
    pub stdin: Option<std::process::ChildStdin>,
    lines: std::sync::mpsc::Receiver<Vec<u8>>,
    err: std::sync::mpsc::Receiver<Vec<u8>>,
    threads: Vec<JoinHandle<()>>,
}

impl Running {
    pub fn start(args: &[&str]) -> Self {
        Self::spawn(dedupd(args).stdin(Stdio::piped()))
    }

    pub fn spawn(command: &mut Command) -> Self {
        let mut child = command.spawn().expect("the binary starts");
        let (out, lines) = std::sync::mpsc::channel();
        let (err_out, err) = std::sync::mpsc::channel();
        let mut threads = Vec::new();
        if let Some(stdout) = child.stdout.take() {
            threads.push(std::thread::spawn(move || send_lines(stdout, &out)));
        }
        if let Some(stderr) = child.stderr.take() {
            threads.push(std::thread::spawn(move || send_lines(stderr, &err_out)));
        }
        Self { stdin: child.stdin.take(), child, lines, err, threads }
    }

    pub fn write(&mut self, bytes: impl AsRef<[u8]>) {
        self.stdin.as_mut().expect("open").write_all(bytes.as_ref()).expect("it reads");
    }

    /// The next line of standard output, which must come soon.
    pub fn line(&self) -> String {
        String::from_utf8(self.lines.recv_timeout(DEADLINE).expect("a line in time")).expect("UTF-8")
    }

    /// The next line of standard error, which must come soon.
    pub fn err_line(&self) -> String {
        String::from_utf8(self.err.recv_timeout(DEADLINE).expect("a line in time")).expect("UTF-8")
    }

    pub fn signal(&self, signal: libc::c_int) {
        let pid = i32::try_from(self.child.id()).expect("a pid");
        // SAFETY: the child is ours and not waited for yet, so its number names nobody else.
        assert_eq!(unsafe { libc::kill(pid, signal) }, 0);
    }

    /// Waits for the end, and returns the status and what is left of both outputs.
    pub fn end(mut self) -> (ExitStatus, String, String) {
        drop(self.stdin.take());
        let status = wait(&mut self.child);
        for thread in self.threads {
            thread.join().expect("read");
        }
        let text = |lines: std::sync::mpsc::Receiver<Vec<u8>>| {
            String::from_utf8(lines.into_iter().flatten().collect()).expect("UTF-8")
        };
        (status, text(self.lines), text(self.err))
    }
}

fn send_lines(mut from: impl Read, to: &std::sync::mpsc::Sender<Vec<u8>>) {
    let mut line = Vec::new();
    let mut bytes = [0; 4096];
    while let Ok(count @ 1..) = from.read(&mut bytes) {
        for &byte in &bytes[..count] {
            line.push(byte);
            if byte == b'\n' && to.send(std::mem::take(&mut line)).is_err() {
                return;
            }
        }
    }
    if !line.is_empty() {
        // Nobody may be listening any more.
        let _ = to.send(line);
    }
}

/// Waits for a child that must end soon.
pub fn wait(child: &mut Child) -> ExitStatus {
    let mut status = None;
    eventually("the filter ends", || {
        status = child.try_wait().expect("a child of ours");
        status.is_some()
    });
    status.expect("ended")
}

/// Asks until it is so, or too much time has passed.
pub fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let started = Instant::now();
    while !is_so() {
        assert!(started.elapsed() < DEADLINE, "in time: {what}");
        std::thread::yield_now();
    }
}

/// A directory for one test.
pub fn dir() -> tempfile::TempDir {
    tempfile::tempdir().expect("a directory")
}

pub fn write(path: impl AsRef<Path>, bytes: impl AsRef<[u8]>) -> String {
    std::fs::write(&path, bytes).expect("written");
    path.as_ref().to_str().expect("UTF-8").to_owned()
}

pub fn read(path: impl AsRef<Path>) -> String {
    String::from_utf8(std::fs::read(path).expect("a file")).expect("UTF-8")
}

/// Flags that put the state and all outputs into `dir`.
pub fn files_in(dir: &Path) -> Vec<String> {
    let files = [("--state", "state"), ("--output", "out"), ("--rejects", "rejects"), ("--duplicates", "duplicates")];
    let path = |name| dir.join(name).to_str().expect("UTF-8").to_owned();
    files.into_iter().flat_map(|(flag, name)| [flag.to_owned(), path(name)]).collect()
}

/// What is in the outputs that [`files_in`] puts into `dir`: lines, rejects, duplicates.
pub fn outputs_in(dir: &Path) -> [Vec<u8>; 3] {
    ["out", "rejects", "duplicates"].map(|name| std::fs::read(dir.join(name)).expect("an output"))
}

/// Lines with these IDs.
pub fn events<I: std::fmt::Display>(ids: impl IntoIterator<Item = I>) -> String {
    ids.into_iter().map(|id| format!("{{\"id\":\"{id}\"}}\n")).collect()
}

/// A pseudo terminal: our end and theirs.
pub fn terminal() -> (std::fs::File, std::fs::File) {
    use std::os::fd::FromRawFd;
    let (mut ours, mut theirs) = (0, 0);
    let null = std::ptr::null_mut();
    // SAFETY: the first two point to integers of ours; the others may be null.
    let opened = unsafe { libc::openpty(&raw mut ours, &raw mut theirs, null, null.cast(), null.cast()) };
    assert_eq!(opened, 0);
    // SAFETY: openpty made both descriptors for us alone.
    unsafe { (std::fs::File::from_raw_fd(ours), std::fs::File::from_raw_fd(theirs)) }
}

/// A file of real events, or None, said once, when the data is not here.
pub fn data(name: &str) -> Option<Vec<u8>> {
    let root = std::env::var_os("DEDUPD_DATA").map_or_else(|| PathBuf::from("../shared/data"), PathBuf::from);
    let bytes = std::fs::read(root.join(name)).ok();
    if bytes.is_none() {
        eprintln!("skipped: {name} is not in {}; DEDUPD_DATA says where", root.display());
    }
    bytes
}

pub const DEADLINE: Duration = Duration::from_secs(20);
