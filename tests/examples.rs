//! The examples run, and print what they say. Goal: none goes stale. Method: each as its reader would start it.

use std::process::Command;

#[test]
fn a_queue_consumer_neither_loses_nor_doubles_an_order() {
    assert_eq!(
        run("queue_consumer"),
        "the first consumer has taken 60 messages, and left without acknowledging the last\n\
         the second has acknowledged all 150; deliveries failed on the way: true\n\
         100 orders arrived, each once: true\n"
    );
}

#[test]
fn an_own_loop_does_each_job_once() {
    assert_eq!(
        run("own_loop"),
        "run 1: 90 jobs done, 20 tries failed\n\
         run 2: 10 jobs done, 0 tries failed\n\
         run 3: 0 jobs done, 0 tries failed\n\
         each job was paid once: true\n"
    );
}

#[test]
fn a_webhook_receiver_answers_repeats_as_a_success() {
    assert_eq!(
        run("webhook_receiver"),
        "480 requests of 4 senders were answered with 200\n\
         100 of them for an event that was delivered, 380 for a repeat of one\n\
         the sink got 100 events, after a failure: true\n"
    );
}

#[test]
fn a_filter_of_ones_own_writes_the_first_seen_events_that_dedupd_writes() {
    let events = "tools/sample/events.ndjson";
    let dedupd =
        Command::new(env!("CARGO_BIN_EXE_dedupd")).args(["--quiet", events]).output().expect("the binary starts");
    assert!(dedupd.status.success());
    assert!(run_with("ndjson_file", &[events]).as_bytes() == dedupd.stdout, "the outputs differ");
}

fn run(name: &str) -> String {
    run_with(name, &[])
}

/// What an example prints. Cargo has built it, unless only this test was asked for.
fn run_with(name: &str, arguments: &[&str]) -> String {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["run", "--quiet"]).current_dir(env!("CARGO_MANIFEST_DIR"));
    if !cfg!(debug_assertions) {
        cargo.arg("--release");
    }
    let output = cargo.args(["--example", name, "--"]).args(arguments).output().expect("cargo");
    assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text")
}
