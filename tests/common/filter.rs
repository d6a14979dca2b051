//! The filter as a child process.

use std::io::{self, Write};
use std::process::{Child, Command, Output, Stdio};
use std::thread;

/// The filter with these arguments, not yet started.
pub fn dedupd(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_dedupd"));
    command.args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Runs `command` with `input` on its stdin, to the end.
pub fn run(mut command: Command, input: &[u8]) -> Output {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    thread::scope(|scope| {
        let mut stdin = child.stdin.take().unwrap();
        scope.spawn(move || ignore_closed(stdin.write_all(input)));
        child.wait_with_output().unwrap()
    })
}

/// What the filter writes to stdout for `input`; it must succeed.
pub fn filtered(args: &[&str], input: &[u8]) -> Vec<u8> {
    let output = run(dedupd(args), input);
    assert!(output.status.success(), "{args:?}: {}: {}", output.status, String::from_utf8_lossy(&output.stderr));
    output.stdout
}

/// Writes what `lines` makes to the stdin of `child`, from a thread of its own, and closes it.
pub fn feed(child: &mut Child, lines: impl FnOnce(&mut dyn Write) -> io::Result<()> + Send + 'static) {
    let mut stdin = io::BufWriter::with_capacity(1 << 18, child.stdin.take().unwrap());
    thread::spawn(move || ignore_closed(lines(&mut stdin).and_then(|()| stdin.flush())));
}

/// A child that has gone away shows in its exit code and output; the writer need not fail as well.
fn ignore_closed(written: io::Result<()>) {
    if let Err(error) = written {
        assert_eq!(error.kind(), io::ErrorKind::BrokenPipe, "{error}");
    }
}

/// Fails with the first line that differs, cut short, instead of printing megabytes.
#[track_caller]
pub fn assert_same_lines(actual: &[u8], expected: &[u8]) {
    if actual == expected {
        return;
    }
    let (mut ours, mut theirs) = (actual.split_inclusive(is_newline), expected.split_inclusive(is_newline));
    for number in 1.. {
        let (our, their) = (ours.next(), theirs.next());
        if our != their || our.is_none() {
            panic!("output line {number} differs:\n  actual   {}\n  expected {}", short(our), short(their));
        }
    }
}

fn is_newline(byte: &u8) -> bool {
    *byte == b'\n'
}

fn short(line: Option<&[u8]>) -> String {
    match line {
        None => "(the end)".to_owned(),
        Some(line) => String::from_utf8_lossy(&line[..line.len().min(200)]).escape_debug().to_string(),
    }
}
