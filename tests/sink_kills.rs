//! A process that delivers to files and commits their positions with the ids is killed, again and again. Goal: what stands in the
//! files when the next one has resumed is what was committed, each event once. Method: this test again as a process of its
//! own, which tells of each commit; two files behind one tee.
//! `DEDUPD_KILLS=500 cargo test --test sink_kills` for a long run.

use std::error::Error;
use std::fmt::Write as _;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use dedupd::sink::{NdjsonSink, Sink, Tee};
use dedupd::{Deduplicator, Durability, Event, Progress, ReserveVerdict};

#[test]
fn what_was_committed_stands_in_every_file_once() {
    if let Some(dir) = std::env::var_os(CHILD) {
        deliver_for_ever(Path::new(&dir)).expect("the child");
        return;
    }
    let kills = std::env::var("DEDUPD_KILLS").ok().and_then(|count| count.parse().ok()).unwrap_or(12);
    let dir = tempfile::tempdir().expect("a directory");
    let (mut before, mut unrecorded, mut kill) = (0, 0, 0);
    // On until a kill has hit what is out and not committed, which is the point of it.
    while kill < kills || unrecorded == 0 && kill < 10 * kills {
        run_and_kill(dir.path(), kill);
        let out: Vec<u64> = FILES.iter().map(|file| bytes(&dir.path().join(file))).collect();
        let next = resume(dir.path()).expect("resumed").1;
        assert!(next >= before, "{next} {before}");
        let wanted = expected(next);
        for (file, out) in FILES.iter().zip(out) {
            let text = std::fs::read_to_string(dir.path().join(file)).expect("read");
            assert!(text == wanted, "{file}: {} bytes are not the {} of {next} events", text.len(), wanted.len());
            unrecorded += u64::from(out > wanted.len() as u64);
        }
        (before, kill) = (next, kill + 1);
    }
    assert!(before > 0, "nothing was committed");
    assert!(unrecorded > 0, "no kill hit anything that was out and not committed");
}

/// Kills a child some time after it has told of some commits.
fn run_and_kill(dir: &Path, kill: u64) {
    let mut child = Command::new(std::env::current_exe().expect("this test"))
        .args(["--exact", "what_was_committed_stands_in_every_file_once", "--nocapture", "--test-threads=1"])
        .env(CHILD, dir)
        .stdout(Stdio::piped())
        .spawn()
        .expect("a child");
    let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
    let commits = usize::try_from(kill * 37 % 101).expect("few") + 1;
    let told = lines.by_ref().filter(|line| line.as_ref().is_ok_and(|line| line == COMMITTED)).take(commits).count();
    assert_eq!(told, commits, "the child ended by itself");
    std::thread::sleep(Duration::from_micros(kill * 7_919 % 500));
    child.kill().expect("killed");
    child.wait().expect("waited");
}

fn deliver_for_ever(dir: &Path) -> Result<(), Box<dyn Error>> {
    let (dedup, mut next, mut sink) = resume(dir)?;
    loop {
        let ids: Vec<_> = (next..next + BATCH).map(id).collect();
        let lines: Vec<_> = (next..next + BATCH).map(line).collect();
        let mut reserved = dedup.reserve_batch(&ids)?;
        let new = reserved.verdicts().iter().zip(ids.iter().zip(&lines));
        let new = new.filter(|(verdict, _)| **verdict == ReserveVerdict::FirstSeen);
        let batch: Vec<_> = new.map(|(_, (id, line))| Event::new(id, line)).collect();
        sink.deliver(&batch)?;
        next += BATCH;
        let mut progress = Progress::new();
        progress.set_source("numbers", next.to_string());
        let position = sink.position()?.ok_or("a position")?;
        progress.set_sink(sink.name(), position);
        reserved.try_commit(&progress)?;
        writeln!(std::io::stdout(), "{COMMITTED}")?;
    }
}

/// The state, the number of the next event, and both files as one sink, cut back.
fn resume(dir: &Path) -> Result<(Deduplicator, u64, Tee), Box<dyn Error>> {
    // A process that another test starts has the lock until it runs its own program.
    let builder = Deduplicator::builder().durability(Durability::Process).lock_timeout(Duration::from_secs(10));
    let dedup = builder.open(dir.join("state"))?;
    let progress = dedup.progress();
    let next = progress.source("numbers").map(|next| String::from_utf8_lossy(next).parse()).transpose()?.unwrap_or(0);
    let mut sink = Tee::new();
    for file in FILES {
        sink = sink.with(NdjsonSink::file(dir.join(file))?);
    }
    sink.resume(progress.sink(sink.name()))?;
    Ok((dedup, next, sink))
}

/// Each third event is the second again.
fn id(number: u64) -> String {
    (number - u64::from(number % 3 == 2)).to_string()
}

fn line(number: u64) -> String {
    format!("{number} {}", "x".repeat(100))
}

fn expected(next: u64) -> String {
    (0..next).filter(|number| number % 3 != 2).fold(String::new(), |mut text, number| {
        let _ = writeln!(text, "{}", line(number));
        text
    })
}

fn bytes(path: &Path) -> u64 {
    std::fs::metadata(path).map_or(0, |about| about.len())
}

const CHILD: &str = "DEDUPD_TEST_SINK_KILLED";
const COMMITTED: &str = "committed";
const FILES: [&str; 2] = ["one", "two"];
/// So many that a batch takes a while to write.
const BATCH: u64 = 997;
