//! A state whose file is cut by another program while the filter writes to it. Goal: that ends the run with an error, and
//! does not kill it. Method: cut the file under a filter that is fed on and on.
#![cfg(feature = "cli")]

mod filter;

use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::unix::process::ExitStatusExt as _;

use filter::{Running, dir};

#[test]
fn a_state_that_is_cut_ends_the_run_with_an_error() {
    let dir = dir();
    let state = dir.path().join("state");
    let mut running = Running::start(&["--state", state.to_str().unwrap(), "--durability", "process"]);
    running.write("{\"id\":\"first\"}\n");
    running.line();
    let segment = OpenOptions::new().write(true).open(state.join("0000000000000001.log")).unwrap();
    segment.set_len(4_096).unwrap();
    let mut stdin = running.stdin.take().unwrap();
    // Until it does not read any more.
    let feeding = std::thread::spawn(move || (0..).find(|id| writeln!(stdin, "{{\"id\":{id}}}").is_err()));
    let (status, _, told) = running.end();
    assert_eq!((status.code(), status.signal()), (Some(74), None), "{told}");
    assert!(told.contains("error[log_poisoned]") && told.contains("0000000000000001.log"), "{told}");
    assert!(feeding.join().unwrap().is_some());
}
