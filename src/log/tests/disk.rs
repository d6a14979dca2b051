//! The log on the real disk: many threads, both ways of writing, and a child that is killed.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};

use super::*;

fn config() -> Config {
    Config { segment_bytes_min: 64 << 10, segment_bytes_max: 256 << 10, ..tiny() }
}

fn disk(path: &Path, is_mapped: bool) -> Disk {
    let disk = Disk::open(path).unwrap();
    if is_mapped { disk.mapped() } else { disk.unmapped() }
}

#[test]
fn what_many_threads_wrote_is_read_again_each_in_order() {
    for is_mapped in [true, false] {
        let folder = tempfile::tempdir().unwrap();
        let log = Arc::new(open(disk(folder.path(), is_mapped), config()).unwrap().0);
        let housekeeper = Housekeeper::start(&log, Some(Duration::from_millis(5))).unwrap();
        std::thread::scope(|scope| {
            for thread in 1..=4_i64 {
                let log: &Log = &log;
                scope.spawn(move || {
                    for round in 0..100 {
                        let position = append(log, &entry(thread * 1_000 + round, 120)).unwrap();
                        if round % 10 == 0 {
                            log.wait_durable(position).unwrap();
                            assert!(log.durable() >= position);
                        }
                    }
                });
            }
        });
        drop(housekeeper);
        Arc::into_inner(log).unwrap().close().unwrap();
        let (_, opening, entries) = open(disk(folder.path(), is_mapped), config()).unwrap();
        assert_eq!((entries.len(), opening.loss), (400, None));
        for thread in 1..=4_i64 {
            let of_thread: Vec<_> = entries.iter().filter(|found| found.0 / 1_000 == thread).cloned().collect();
            let expected: Vec<_> = (0..100).map(|round| entry(thread * 1_000 + round, 120)).collect();
            assert_eq!(of_thread, expected);
        }
    }
}

#[test]
fn the_other_way_of_writing_reads_the_same_log() {
    let folder = tempfile::tempdir().unwrap();
    for (life, is_mapped) in (1..=4).zip([true, false, false, true]) {
        let (log, _, entries) = open(disk(folder.path(), is_mapped), config()).unwrap();
        assert_eq!(entries.len(), life - 1);
        append(&log, &entry(life as i64, 100)).unwrap();
    }
}

/// Runs only as a child of the test below: appends for ever, and tells each time that was answered.
#[test]
fn child() {
    let Ok(path) = std::env::var(CHILD) else { return };
    let is_mapped = std::env::var(IS_MAPPED).unwrap().parse().unwrap();
    let (log, opening, _) = open(disk(Path::new(&path), is_mapped).written_ahead(), config()).unwrap();
    let log = Arc::new(log);
    let _housekeeper = Housekeeper::start(&log, Some(Duration::from_millis(3))).unwrap();
    let start = opening.newest.map_or(0, Timestamp::as_nanos);
    let mut out = std::io::stdout();
    for time in start + 1.. {
        let position = append(&log, &entry(time, 90)).unwrap();
        writeln!(out, "{ANSWERED}{time}").unwrap();
        if time % 64 == 0 && log.wait_durable(position).is_ok() {
            writeln!(out, "durable {time}").unwrap();
        }
    }
}

/// Runs only when asked for, after a power cut of the file system that the child above wrote to: all that it told as
/// durable must be there, as `DEDUPD_TEST_LOG_DURABLE`.
#[test]
fn audit() {
    let Ok(path) = std::env::var("DEDUPD_TEST_LOG_AUDIT") else { return };
    let durable: i64 = std::env::var("DEDUPD_TEST_LOG_DURABLE").unwrap().parse().unwrap();
    let (_, opening, entries) = open(disk(Path::new(&path), true), config()).unwrap();
    let expected: Vec<_> = (1..=entries.len() as i64).map(|time| entry(time, 90)).collect();
    assert!(entries == expected, "{} entries are not what was appended", entries.len());
    assert!(entries.len() as i64 >= durable, "{} are left of {durable}", entries.len());
    writeln!(std::io::stdout(), "{} entries, {durable} were durable, {:?}", entries.len(), opening.loss).unwrap();
}

#[test]
fn a_killed_process_loses_nothing_that_was_answered() {
    let folder = tempfile::tempdir().unwrap();
    let mut seen = 0;
    for round in 0..12_i64 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "log::tests::disk::child", "--nocapture", "--test-threads=1"])
            .env(CHILD, folder.path())
            .env(IS_MAPPED, (round % 2 == 0).to_string())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let answered = |line: &String| line.split(ANSWERED).nth(1).and_then(|time| time.parse::<i64>().ok());
        for line in lines.map_while(Result::ok) {
            let Some(time) = answered(&line) else { continue };
            seen = seen.max(time);
            if time % 150 == (round * 37) % 150 {
                child.kill().unwrap();
            }
        }
        child.wait().unwrap();
        let (log, _, entries) = open(disk(folder.path(), true), config()).unwrap();
        let expected: Vec<_> = (1..=entries.len() as i64).map(|time| entry(time, 90)).collect();
        assert!(entries == expected, "round {round}: {} entries are not what was appended", entries.len());
        assert!(entries.len() as i64 >= seen, "round {round}: {} are left of {seen}", entries.len());
        log.close().unwrap();
    }
    assert!(seen > 500, "only {seen} batches");
}

const CHILD: &str = "DEDUPD_TEST_LOG_CHILD";
const IS_MAPPED: &str = "DEDUPD_TEST_LOG_CHILD_IS_MAPPED";
const ANSWERED: &str = "answered ";
