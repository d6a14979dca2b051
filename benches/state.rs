//! Prints one table: what it costs to keep a state on disk, beside the same in memory and beside the disk's own speed.
//!
//! As in `table`: every row is a ratio of two things measured in the same run, in turns, and the median of the rounds'
//! ratios is printed. The state lies in the build's own temporary directory, or where `DEDUPD_BENCH_DIR` says: the disk
//! under it is part of what is measured. `cargo bench --bench state -- --rounds 5`.

use std::fs::{self, File};
use std::hint::black_box;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use dedupd::{Deduplicator, Durability, IdHash, SystemClock};
use hdrhistogram::Histogram;

mod rows;

use rows::{BATCH, Id, Rows, argument, ask, id, questions, rate};

const LIVE: usize = 14_000_000;

fn main() {
    let rounds = argument("--rounds").unwrap_or(3);
    let only = std::env::args().skip_while(|argument| argument != "--only").nth(1);
    let wants = |what: &str| only.as_deref().is_none_or(|only| only == what);
    println!("| what | dedupd | beside | ratio | floor |\n|---|---|---|---|---|");
    let questions = questions(LIVE, 1 << 40);
    let mut rows = Rows::default();
    for _ in 0..rounds {
        if wants("process") {
            process_and_recovery(&questions, &mut rows);
        }
        if wants("interval") {
            interval(&mut rows);
        }
    }
    rows.print();
    if wants("latency") {
        latency();
    }
}

fn process_and_recovery(questions: &[Id], rows: &mut Rows) {
    let dedup = builder().expected_ids(LIVE).build().unwrap();
    let memory = rate(questions.len(), || assert_eq!(ask(&dedup, questions), LIVE));
    drop(dedup);
    let folder = Folder::new("process");
    let dedup = builder().expected_ids(LIVE).durability(Durability::Process).open(folder.path()).unwrap();
    let process = rate(questions.len(), || assert_eq!(ask(&dedup, questions), LIVE));
    rows.add("`observe_batch`, `Process`, against memory only", process, memory, 0.75);
    dedup.close().unwrap();
    rows.add("bytes on disk per id: 20 over", 20.0, folder.bytes() as f64 / LIVE as f64, 1.0);

    let dedup = builder().build().unwrap();
    let unique: Vec<Id> = (0..LIVE as u64).map(id).collect();
    let inserted = rate(LIVE, || assert_eq!(ask(&dedup, &unique), LIVE));
    drop((dedup, unique));
    let start = Instant::now();
    let dedup = builder().durability(Durability::Process).open(folder.path()).unwrap();
    let recovered = LIVE as f64 / start.elapsed().as_secs_f64() / 1e6;
    assert_eq!(dedup.stats().live_ids, LIVE as u64);
    rows.add("recovery, M ids/s, against inserting the same ids from memory", recovered, inserted, 0.5);
    rows.add("recovery, M ids/s, against 20", recovered, 20.0, 1.0);
}

/// 50 million new ids, and how long it takes until they are on disk.
fn interval(rows: &mut Rows) {
    const IDS: u64 = 50_000_000;
    let run = |dedup: &Deduplicator| {
        let mut verdicts = Vec::new();
        let mut batch = Vec::with_capacity(BATCH);
        for first in (0..IDS).step_by(BATCH) {
            batch.clear();
            batch.extend((first..IDS.min(first + BATCH as u64)).map(id));
            dedup.observe_batch(&batch, &mut verdicts);
        }
        black_box(&verdicts);
    };
    let dedup = builder().expected_ids(IDS as usize).build().unwrap();
    let memory = rate(IDS as usize, || run(&dedup));
    drop(dedup);
    let folder = Folder::new("interval");
    let durability = Durability::Interval(Duration::from_millis(50));
    let dedup = builder().expected_ids(IDS as usize).durability(durability).open(folder.path()).unwrap();
    let start = Instant::now();
    run(&dedup);
    let burst = IDS as f64 / start.elapsed().as_secs_f64() / 1e6;
    dedup.sync().unwrap();
    let seconds = start.elapsed().as_secs_f64();
    let sustained = IDS as f64 / seconds / 1e6;
    dedup.close().unwrap();
    let written = folder.bytes() as f64 / seconds / 1e6;
    drop(folder);
    let disk = sequential_bandwidth(IDS as usize * 16);
    rows.add("`Interval(50 ms)`, 50 M new ids, until answered, against memory", burst, memory, 0.6);
    rows.add("the same until on disk, against memory", sustained, memory, 0.6);
    rows.add("the same in MB/s, against the disk (0.8 would do in place of the row above)", written, disk, 0.0);
}

/// MB/s of writing a file and syncing it every 50 ms.
fn sequential_bandwidth(bytes: usize) -> f64 {
    let folder = Folder::new("disk");
    let mut file = File::create(folder.path().join("file")).unwrap();
    let piece = vec![7_u8; 1 << 20];
    let (start, mut synced) = (Instant::now(), Instant::now());
    for _ in 0..bytes >> 20 {
        file.write_all(&piece).unwrap();
        if synced.elapsed() >= Duration::from_millis(50) {
            file.sync_data().unwrap();
            synced = Instant::now();
        }
    }
    file.sync_data().unwrap();
    bytes as f64 / start.elapsed().as_secs_f64() / 1e6
}

fn latency() {
    let folder = Folder::new("latency");
    let memory = builder().build().unwrap();
    let durable = builder().durability(Durability::default()).open(folder.path()).unwrap();
    let mut off = Histogram::<u64>::new_with_bounds(1, 60_000_000_000, 3).unwrap();
    let mut on = Histogram::<u64>::new_with_bounds(1, 60_000_000_000, 3).unwrap();
    for n in 0..LIVE as u64 / 2 {
        let id = id(n);
        time(&mut off, || {
            let _ = black_box(memory.observe(id));
        });
        time(&mut on, || {
            let _ = black_box(durable.observe(id));
        });
    }
    let show = |histogram: &Histogram<u64>| {
        let at = |quantile| histogram.value_at_quantile(quantile);
        format!("p50 {} p99 {} p99.9 {} p99.99 {} max {}", at(0.5), at(0.99), at(0.999), at(0.9999), histogram.max())
    };
    let ratio = off.value_at_quantile(0.9999) as f64 / on.value_at_quantile(0.9999) as f64;
    println!(
        "| p99.99 of one `observe`, log off over on; ns, growing to 7 M, `Interval(50 ms)` | {} | in memory: {} | {ratio:.2} | 0.50 |",
        show(&on),
        show(&off)
    );
}

fn time(histogram: &mut Histogram<u64>, act: impl FnOnce()) {
    let start = Instant::now();
    act();
    histogram.saturating_record(u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX));
}

fn builder() -> dedupd::Builder {
    Deduplicator::builder().window(Duration::from_secs(24 * 3600)).clock(SystemClock::new()).hash(IdHash::Xxh3)
}

/// A directory that is gone when it is dropped.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let parent =
            std::env::var_os("DEDUPD_BENCH_DIR").map_or_else(|| env!("CARGO_TARGET_TMPDIR").into(), PathBuf::from);
        let path = parent.join(format!("bench-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn path(&self) -> &Path {
        &self.0
    }

    fn bytes(&self) -> u64 {
        let sizes = fs::read_dir(&self.0).unwrap().map(|entry| entry.unwrap().metadata().unwrap().len());
        sizes.sum()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
