//! A file that is cut under its mapping: in a child, since without the handler that is death.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Command, Output};

use super::*;

/// What the child does before a file is cut under a mapping, and to whose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Child {
    /// The log's, with the handler.
    Survives,
    /// The log's, without it.
    Dies,
    /// Another one's, with the handler.
    Foreign,
    /// Another one's, with the handler and one before it.
    Chained,
    /// Nobody's: the signal is sent, and the default was there before.
    Sent,
    /// The same, and it was ignored before.
    Ignored,
}

const CHILDREN: [Child; 6] =
    [Child::Survives, Child::Dies, Child::Foreign, Child::Chained, Child::Sent, Child::Ignored];

fn run(child: Child) -> Output {
    let folder = tempfile::tempdir().unwrap();
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "log::tests::fault::child", "--nocapture", "--test-threads=1"])
        .env(PATH, folder.path())
        .env(KIND, format!("{child:?}"))
        .output()
        .unwrap()
}

/// Runs only as a child of the tests below.
#[test]
fn child() {
    let (Ok(path), Ok(kind)) = (std::env::var(PATH), std::env::var(KIND)) else { return };
    let kind = CHILDREN.into_iter().find(|child| format!("{child:?}") == kind).unwrap();
    match kind {
        Child::Chained => act_before(end as *const () as usize),
        Child::Sent => act_before(libc::SIG_DFL),
        Child::Ignored => act_before(libc::SIG_IGN),
        // The handler of the standard library, which ends the process at the second signal.
        Child::Survives | Child::Dies | Child::Foreign => {}
    }
    if kind != Child::Dies {
        survive_sigbus().unwrap();
        survive_sigbus().unwrap();
    }
    let folder = Path::new(&path);
    match kind {
        Child::Survives | Child::Dies => cut_a_log(folder),
        Child::Foreign | Child::Chained => cut_another(folder),
        // SAFETY: no memory is passed.
        Child::Sent | Child::Ignored => assert_eq!(unsafe { libc::raise(libc::SIGBUS) }, 0),
    }
}

/// Cuts the file of one of two logs, and appends to both.
fn cut_a_log(folder: &Path) {
    let [cut, other] = ["cut", "other"].map(|name| {
        let path = folder.join(name);
        std::fs::create_dir(&path).unwrap();
        open(Disk::open(&path).unwrap().mapped(), Config { segment_bytes_min: 64 << 10, ..tiny() }).unwrap().0
    });
    let position = append(&cut, &entry(1, 10)).unwrap();
    cut_file(&folder.join("cut/0000000000000001.log"), 4_096);
    let error = append(&cut, &entry(2, 500)).unwrap_err();
    assert_eq!(error.code(), "log_poisoned");
    assert_eq!(append(&cut, &entry(3, 10)).unwrap_err().to_string(), error.to_string());
    cut.wait_durable(position).unwrap_err();
    for time in 1..=20 {
        append(&other, &entry(time, 500)).unwrap();
    }
    other.close().unwrap();
    writeln!(std::io::stdout(), "{error}").unwrap();
}

/// Cuts a file that is mapped and is none of a log's, and reads it.
fn cut_another(folder: &Path) {
    let path = folder.join("file");
    std::fs::write(&path, [1; 4_096]).unwrap();
    let map = memmap2::MmapOptions::new().map_raw(&OpenOptions::new().read(true).write(true).open(&path).unwrap());
    cut_file(&path, 0);
    // SAFETY: the address is mapped; what the read raises is what is tested.
    let byte = unsafe { map.unwrap().as_ptr().read_volatile() };
    panic!("read {byte}");
}

fn cut_file(path: &Path, bytes: u64) {
    OpenOptions::new().write(true).open(path).unwrap().set_len(bytes).unwrap();
}

/// Ends the process in a way that only this handler does.
extern "C" fn end(_: libc::c_int) {
    // SAFETY: it ends the process and is made for signal handlers.
    unsafe { libc::_exit(EXIT_OF_HANDLER) };
}

/// Has SIGBUS do this before the log's handler is there.
fn act_before(action: usize) {
    // SAFETY: it is the address of a handler of this signature, which does only what a handler may, or a constant.
    unsafe { libc::signal(libc::SIGBUS, action) };
}

#[test]
fn a_log_whose_file_is_cut_is_poisoned_and_the_process_and_other_logs_live_on() {
    let output = run(Child::Survives);
    let told = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{:?}: {told}", output.status);
    assert!(told.contains("0000000000000001.log: a page of the mapped file is gone"), "{told}");
}

#[test]
fn without_the_handler_the_process_dies() {
    assert_eq!(run(Child::Dies).status.signal(), Some(libc::SIGBUS));
}

#[test]
fn a_fault_of_another_mapping_is_as_before() {
    assert_eq!(run(Child::Foreign).status.signal(), Some(libc::SIGBUS));
    assert_eq!(run(Child::Chained).status.code(), Some(EXIT_OF_HANDLER));
}

#[test]
fn a_signal_that_was_sent_is_as_before() {
    assert_eq!(run(Child::Sent).status.signal(), Some(libc::SIGBUS));
    assert!(run(Child::Ignored).status.success());
}

const PATH: &str = "DEDUPD_TEST_LOG_FAULT_PATH";
const KIND: &str = "DEDUPD_TEST_LOG_FAULT_KIND";
const EXIT_OF_HANDLER: i32 = 42;
