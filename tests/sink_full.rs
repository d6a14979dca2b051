//! Goal: a file that takes no more keeps whole lines, and its position is right. Method: this test again as a process of its own,
//! under a limit on the size of files.

use std::error::Error;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use dedupd::Event;
use dedupd::sink::{FailureClass, NdjsonSink, Sink};

#[test]
fn a_line_that_finds_no_room_is_taken_back_whole() {
    if let Some(path) = std::env::var_os(CHILD) {
        write_until_full(Path::new(&path)).expect("the child");
        return;
    }
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("out");
    let mut child = Command::new(std::env::current_exe().expect("this test"));
    child.args(["--exact", "a_line_that_finds_no_room_is_taken_back_whole", "--nocapture"]).env(CHILD, &path);
    // SAFETY: between fork and exec only these two system calls are made.
    unsafe { child.pre_exec(limit_files) };
    let output = child.output().expect("run");
    assert!(output.status.success(), "{output:?}");
    assert_eq!(std::fs::read(&path).expect("read"), b"0123456\n0123456\nlast\n");
}

/// 21 bytes have room: two lines of 8, half of the third, and then a shorter one.
fn write_until_full(path: &Path) -> Result<(), Box<dyn Error>> {
    let mut sink = NdjsonSink::file(path)?;
    sink.resume(None)?;
    let error = sink.deliver(&[Event::new("a", "0123456"); 4]).expect_err("it is full");
    assert_eq!(error.failures(), [(2, FailureClass::Transient), (3, FailureClass::Transient)]);
    assert_eq!(std::fs::read(path)?, b"0123456\n0123456\n");
    let position = sink.position()?;
    sink.deliver(&[Event::new("b", "abcdefg")]).expect_err("it is still full");
    assert_eq!(sink.position()?, position, "what was taken back is in no position");
    NdjsonSink::file(path)?.resume(position.as_deref())?;
    let behind = NdjsonSink::file(path)?.position()?;
    assert_eq!(behind, position);
    let mut sink = NdjsonSink::file(path)?;
    sink.deliver(&[Event::new("c", "last")])?;
    assert_eq!(sink.newlines_added(), 0);
    Ok(())
}

fn limit_files() -> std::io::Result<()> {
    let limit = libc::rlimit { rlim_cur: 21, rlim_max: 21 };
    // SAFETY: the limit is a valid, readable struct, and ignoring a signal involves no handler.
    match unsafe {
        (libc::signal(libc::SIGXFSZ, libc::SIG_IGN), libc::setrlimit(libc::RLIMIT_FSIZE, &raw const limit)).1
    } {
        0 => Ok(()),
        _ => Err(std::io::Error::last_os_error()),
    }
}

const CHILD: &str = "DEDUPD_TEST_FILE_UNDER_A_LIMIT";
