//! Goal: signals drain, report and reopen as promised. Method: a line that came out proves that the filter runs; then the
//! signal, then what must follow.

mod filter;

use std::io::Read;
use std::os::fd::AsRawFd;
use std::os::unix::process::ExitStatusExt;
use std::process::Stdio;

use filter::{Running, dedupd, dir, events, eventually, read};

/// A filter that has passed on its first line.
fn started(args: &[&str]) -> Running {
    let mut running = Running::start(args);
    running.write(events(["first"]));
    assert_eq!(running.line(), events(["first"]));
    running
}

#[test]
fn the_first_signal_finishes_what_was_read_and_exits_0() {
    for signal in [libc::SIGINT, libc::SIGTERM] {
        for threads in ["1", "2"] {
            let running = started(&["--threads", threads, "--report", "json"]);
            running.signal(signal);
            // The writer keeps its end open: only the signal ends the filter.
            let mut running = running;
            let stdin = running.stdin.take();
            let (status, out, err) = running.end();
            assert_eq!((status.code(), out.as_str()), (Some(0), ""));
            assert!(err.contains("\"read\":1,") && err.contains("\"balanced\":true"), "{err}");
            drop(stdin);
        }
    }
}

#[test]
fn a_line_whose_end_has_not_come_is_no_event() {
    let mut running = started(&[]);
    running.write("{\"id\":2}\n{\"id\":");
    assert_eq!(running.line(), "{\"id\":2}\n");
    running.signal(libc::SIGTERM);
    let stdin = running.stdin.take();
    let (status, out, err) = running.end();
    assert_eq!((status.code(), out.as_str()), (Some(0), ""));
    assert!(err.contains("warning[unfinished_line]: stopped 6 bytes into a line"), "{err}");
    drop(stdin);
}

/// A filter whose output nobody takes: it is stuck in the delivery of a line that is longer than any pipe.
fn stuck(args: &[&str]) -> (std::process::Child, std::process::ChildStdin, std::process::ChildStdout) {
    let mut child = dedupd(args).stdin(Stdio::piped()).spawn().expect("the binary starts");
    let mut stdin = child.stdin.take().expect("piped");
    std::io::Write::write_all(&mut stdin, format!("{{\"id\":1,\"pad\":\"{}\"}}\n", "x".repeat(8 << 20)).as_bytes())
        .expect("it reads");
    let stdout = child.stdout.take().expect("piped");
    eventually("the delivery has begun", || waiting_bytes(&stdout) > 0);
    (child, stdin, stdout)
}

/// How many bytes are in a pipe.
fn waiting_bytes(pipe: &impl AsRawFd) -> libc::c_int {
    let mut bytes = 0;
    // SAFETY: the descriptor is open, and `bytes` is an integer of ours to write to.
    assert_eq!(unsafe { libc::ioctl(pipe.as_raw_fd(), libc::FIONREAD, &raw mut bytes) }, 0);
    bytes
}

#[test]
fn a_drain_that_takes_too_long_is_given_up() {
    let (mut child, stdin, stdout) = stuck(&["--drain-timeout", "50ms", "--threads", "1"]);
    let pid = i32::try_from(child.id()).expect("a pid");
    // SAFETY: the child is ours and not waited for yet.
    unsafe { libc::kill(pid, libc::SIGTERM) };
    assert_eq!(filter::wait(&mut child).code(), Some(74));
    let mut err = String::new();
    child.stderr.take().expect("piped").read_to_string(&mut err).expect("read");
    assert!(err.contains("error[drain_timeout]"), "{err}");
    drop((stdin, stdout));
}

#[test]
fn the_second_signal_exits_at_once() {
    let (mut child, stdin, stdout) = stuck(&["-v", "--drain-timeout", "1h", "--threads", "1"]);
    let pid = i32::try_from(child.id()).expect("a pid");
    // SAFETY: the child is ours and not waited for yet.
    unsafe { libc::kill(pid, libc::SIGTERM) };
    // It says that it is draining, so the next signal is the second.
    let mut stderr = std::io::BufReader::new(child.stderr.take().expect("piped"));
    let mut line = String::new();
    std::io::BufRead::read_line(&mut stderr, &mut line).expect("a line");
    assert!(line.contains("info[draining]"), "{line}");
    // SAFETY: as above.
    unsafe { libc::kill(pid, libc::SIGINT) };
    let status = filter::wait(&mut child);
    assert_eq!((status.code(), status.signal()), (Some(128 + libc::SIGINT), None));
    drop((stdin, stdout));
}

#[test]
fn sigusr1_prints_the_report_and_changes_nothing() {
    let mut running = started(&["--report", "json"]);
    // A line is out a moment before it is in the books.
    let reports = |running: &Running, read: &str| {
        running.signal(libc::SIGUSR1);
        running.err_line().starts_with(read)
    };
    eventually("the report has the first line", || reports(&running, "{\"read\":1,"));
    running.write(events(["first", "second"]));
    assert_eq!(running.line(), events(["second"]));
    eventually("the report has all lines", || reports(&running, "{\"read\":3,"));
    assert!(running.end().0.success());
}

#[test]
fn sighup_reopens_the_output_files() {
    let dir = dir();
    let [out, moved, duplicates] = ["out", "out.1", "duplicates"].map(|name| dir.path().join(name));
    let args = ["-v", "-o", out.to_str().expect("UTF-8"), "--duplicates", duplicates.to_str().expect("UTF-8")];
    let mut running = Running::start(&args);
    running.write(events([1, 1]));
    eventually("the first line is out", || holds(&out, &events([1])) && holds(&duplicates, &events([1])));
    std::fs::rename(&out, &moved).expect("moved");
    running.signal(libc::SIGHUP);
    assert!(running.err_line().contains("info[reopened]"));
    running.write(events([2, 1]));
    eventually("the second line is in the new file", || holds(&out, &events([2])));
    assert!(running.end().0.success());
    assert_eq!(read(&moved), events([1]));
    assert_eq!(read(&duplicates), events([1, 1]), "a file that was not moved is continued");
}

#[test]
fn sighup_does_not_tear_a_line_that_comes_in_parts() {
    let dir = dir();
    let [out, moved] = ["out", "out.1"].map(|name| dir.path().join(name));
    let args = ["-v", "--report", "json", "--max-line", "1000", "-o", out.to_str().expect("UTF-8")];
    let mut running = Running::start(&args);
    let half = "x".repeat(5_000);
    running.write(&half);
    eventually("the first half is out", || holds(&out, &half));
    std::fs::rename(&out, &moved).expect("moved");
    running.signal(libc::SIGHUP);
    // The report tells that the signal before it was answered.
    running.signal(libc::SIGUSR1);
    while !running.err_line().starts_with("{\"read\"") {}
    running.write(&half);
    eventually("the second half follows", || holds(&moved, &half.repeat(2)));
    running.write("\n");
    eventually("the files are reopened", || running.err_line().contains("info[reopened]"));
    running.write(events([1]));
    eventually("the next line is in the new file", || holds(&out, &events([1])));
    assert!(running.end().0.success());
    assert!(holds(&moved, &format!("{half}{half}\n")));
}

#[test]
fn sighup_during_a_delivery_is_answered_after_it_though_nothing_more_comes() {
    let dir = dir();
    let duplicates = dir.path().join("duplicates");
    let args = ["-v", "--report", "json", "--threads", "1", "--duplicates", duplicates.to_str().expect("UTF-8")];
    let (mut child, stdin, mut stdout) = stuck(&args);
    let (said, err) = std::sync::mpsc::channel();
    let stderr = std::io::BufReader::new(child.stderr.take().expect("piped"));
    std::thread::spawn(move || {
        std::io::BufRead::lines(stderr).map_while(Result::ok).try_for_each(|line| said.send(line))
    });
    let line = || err.recv_timeout(filter::DEADLINE).expect("a line in time");
    let pid = i32::try_from(child.id()).expect("a pid");
    for signal in [libc::SIGHUP, libc::SIGUSR1] {
        // SAFETY: the child is ours and not waited for yet.
        unsafe { libc::kill(pid, signal) };
    }
    while !line().starts_with("{\"read\"") {}
    let taking = std::thread::spawn(move || std::io::copy(&mut stdout, &mut std::io::sink()));
    while !line().contains("info[reopened]") {}
    drop(stdin);
    assert!(filter::wait(&mut child).success());
    taking.join().expect("taken").expect("read");
}

/// Whether the file is there and holds this.
fn holds(path: &std::path::Path, text: &str) -> bool {
    std::fs::read(path).is_ok_and(|bytes| bytes == text.as_bytes())
}

#[test]
fn the_report_can_come_every_so_often() {
    let running = Running::start(&["--report", "json", "--report-every", "10ms"]);
    for _ in 0..3 {
        assert!(running.err_line().starts_with("{\"read\":0,"));
    }
    assert!(running.end().0.success());
}
