//! Answers that survive power loss: `PowerLoss` beside stores that a program would use by hand.
//!
//! Eight threads ask about new 16-byte ids, each waiting for its answer before it asks again. A store answers with
//! get-then-put and a sync per put: LMDB in one write transaction, fjall with its journal synced. Ids per second, in turns,
//! medians of the rounds' ratios. `--rounds N`, `--seconds N`; the files lie in the current directory.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use dedupd::{Deduplicator, Durability, Verdict};
use fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode};
use heed::types::{Bytes, Unit};
use heed::{Env, EnvOpenOptions};

const THREADS: u64 = 8;

type Id = [u8; 16];

fn main() {
    let (rounds, seconds) = (argument("--rounds").unwrap_or(3), argument("--seconds").unwrap_or(2));
    let time = Duration::from_secs(seconds);
    let mut ratios = [const { Vec::new() }; 4];
    let mut rates = [const { Vec::new() }; 4];
    for _ in 0..rounds {
        let one = with_folder(|path| ours(path, 1, time));
        let many = with_folder(|path| ours(path, 64, time));
        let lmdb = with_folder(|path| lmdb(path, time));
        let fjall = with_folder(|path| fjall(path, time));
        for (list, ratio) in ratios.iter_mut().zip([one / lmdb, one / fjall, many / lmdb, many / fjall]) {
            list.push(ratio);
        }
        for (list, rate) in rates.iter_mut().zip([one, many, lmdb, fjall]) {
            list.push(rate);
        }
    }
    let [one, many, lmdb, fjall] = rates.map(median);
    let [one_lmdb, one_fjall, many_lmdb, many_fjall] = ratios.map(median);
    println!("| what | dedupd | beside | ratio | floor |\n|---|---|---|---|---|");
    let row = |what: &str, peer: &str, ours: f64, theirs: f64, ratio: f64, floor: f64| {
        println!(
            "| `PowerLoss`, 8 threads, {what}, ids/s, against {peer}, a sync per put | {ours:.0} | {theirs:.0} | {ratio:.2} | {floor:.2} |"
        );
    };
    row("one outstanding each", "LMDB", one, lmdb, one_lmdb, 5.0);
    row("one outstanding each", "fjall", one, fjall, one_fjall, 5.0);
    row("batches of 64", "LMDB", many, lmdb, many_lmdb, 50.0);
    row("batches of 64", "fjall", many, fjall, many_fjall, 50.0);
}

fn ours(path: &Path, batch: u64, time: Duration) -> f64 {
    let dedup = Deduplicator::builder().durability(Durability::PowerLoss).open(path).expect("a state");
    let mut rate = 0.0;
    if batch == 1 {
        rate += asked(time, batch, |ids| assert_eq!(dedup.observe(ids[0]), Verdict::FirstSeen));
    } else {
        rate += asked(time, batch, |ids| {
            let mut verdicts = Vec::new();
            dedup.observe_batch(ids, &mut verdicts);
            assert!(verdicts.iter().all(|verdict| *verdict == Verdict::FirstSeen));
        });
    }
    rate
}

fn lmdb(path: &Path, time: Duration) -> f64 {
    // SAFETY: the file is this function's own, and mapped once.
    let env: Env = unsafe { EnvOpenOptions::new().map_size(4 << 30).open(path) }.expect("an environment");
    let mut transaction = env.write_txn().expect("a transaction");
    let seen = env.create_database::<Bytes, Unit>(&mut transaction, None).expect("a database");
    transaction.commit().expect("a commit");
    asked(time, 1, |ids| {
        let mut transaction = env.write_txn().expect("a transaction");
        assert!(seen.get(&transaction, &ids[0]).expect("a get").is_none());
        seen.put(&mut transaction, &ids[0], &()).expect("a put");
        transaction.commit().expect("a commit");
    })
}

fn fjall(path: &Path, time: Duration) -> f64 {
    let database = Database::builder(path).open().expect("a database");
    let seen: Keyspace = database.keyspace("seen", KeyspaceCreateOptions::default).expect("a keyspace");
    asked(time, 1, |ids| {
        assert!(seen.get(ids[0]).expect("a get").is_none());
        seen.insert(ids[0], b"").expect("a put");
        database.persist(PersistMode::SyncData).expect("a sync");
    })
}

/// Ids per second of eight threads that ask about `batch` new ids at a time.
fn asked(time: Duration, batch: u64, ask: impl Fn(&[Id]) + Sync) -> f64 {
    let (ends, answered) = (AtomicBool::new(false), AtomicU64::new(0));
    let start = Instant::now();
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let (ask, ends, answered) = (&ask, &ends, &answered);
            scope.spawn(move || {
                let mut next = thread << 48;
                while !ends.load(Ordering::Relaxed) {
                    let ids: Vec<Id> = (next..next + batch).map(id).collect();
                    next += batch;
                    ask(&ids);
                    answered.fetch_add(batch, Ordering::Relaxed);
                }
            });
        }
        std::thread::sleep(time);
        ends.store(true, Ordering::Relaxed);
    });
    answered.load(Ordering::Relaxed) as f64 / start.elapsed().as_secs_f64()
}

fn id(n: u64) -> Id {
    let n = u128::from(n).wrapping_mul(0x9E37_79B9_7F4A_7C15_F39C_C060_5CED_C835);
    n.to_le_bytes()
}

fn with_folder(act: impl FnOnce(&Path) -> f64) -> f64 {
    let path = PathBuf::from(format!("bench-peers-{}", std::process::id()));
    std::fs::create_dir_all(&path).expect("a directory");
    let result = act(&path);
    let _ = std::fs::remove_dir_all(&path);
    result
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn argument(name: &str) -> Option<u64> {
    let mut arguments = std::env::args().skip_while(|argument| argument != name);
    arguments.nth(1)?.parse().ok()
}
