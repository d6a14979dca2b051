//! Prints one table: what the set does beside its peers and beside the machine's limit, as ratios from one run.

use std::hint::black_box;
use std::time::{Duration, Instant};

use dashmap::DashMap;
use dedupd::{Deduplicator, IdHash, ManualClock, Verdict};

const LIVE: usize = 14_000_000;
const BATCH: usize = 1024;

/// SplitMix64 (Steele, Lea, Flood, 2014).
fn mix(n: u64) -> u64 {
    let mut z = n.wrapping_add(0x9E37_79B9_7F4A_7C15).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 30)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

fn id(n: u64) -> [u8; 16] {
    let mut id = [0; 16];
    id[..8].copy_from_slice(&mix(n).to_le_bytes());
    id[8..].copy_from_slice(&mix(n ^ 0xABCD_EF01).to_le_bytes());
    id
}

/// `unique` ids, 30 % of all questions repeat an earlier one, drawn uniformly.
fn questions(unique: usize, seed: u64) -> Vec<[u8; 16]> {
    let mut out = Vec::with_capacity(unique * 10 / 7 + 1);
    let mut next = 0_u64;
    let mut n = seed;
    while (next as usize) < unique {
        n = n.wrapping_add(1);
        let r = mix(n);
        if next > 0 && r % 10 < 3 {
            out.push(id(seed ^ (mix(r) % next)));
        } else {
            out.push(id(seed ^ next));
            next += 1;
        }
    }
    out
}

fn rate(questions: usize, took: Duration) -> f64 {
    questions as f64 / took.as_secs_f64() / 1e6
}

fn batch(dedup: &Deduplicator, questions: &[[u8; 16]]) -> (Duration, usize) {
    let mut verdicts = Vec::new();
    let mut first = 0;
    let start = Instant::now();
    for chunk in questions.chunks(BATCH) {
        dedup.observe_batch(chunk, &mut verdicts);
        first += verdicts.iter().filter(|verdict| **verdict == Verdict::FirstSeen).count();
    }
    (start.elapsed(), first)
}

fn dash(map: &DashMap<u128, (), foldhash::fast::RandomState>, questions: &[[u8; 16]]) -> (Duration, usize) {
    let start = Instant::now();
    let mut first = 0;
    for id in questions {
        first += usize::from(map.insert(u128::from_le_bytes(*id), ()).is_none());
    }
    (start.elapsed(), first)
}

fn main() {
    let questions = questions(LIVE, 1 << 40);
    let builder = || Deduplicator::builder().window(Duration::MAX).clock(ManualClock::new());
    for round in 0..3 {
        for hash in [IdHash::Xxh3, IdHash::SipHash13] {
            let dedup = builder().hash(hash).expected_ids(LIVE).build().unwrap();
            let (took, first) = batch(&dedup, &questions);
            assert_eq!(first, LIVE);
            let s = dedup.stats();
            println!(
                "{round} presized {hash:?} {:.1} M/s  {:.2} B/id moved {}",
                rate(questions.len(), took),
                s.memory_bytes as f64 / LIVE as f64,
                s.moved
            );
        }
        let dedup = builder().hash(IdHash::Xxh3).build().unwrap();
        let (took, _) = batch(&dedup, &questions);
        let s = dedup.stats();
        println!(
            "{round} grown xxh3 {:.1} M/s {:.2} B/id moved {}",
            rate(questions.len(), took),
            s.memory_bytes as f64 / LIVE as f64,
            s.moved
        );
        let dedup = builder().hash(IdHash::Xxh3).expected_ids(LIVE).build().unwrap();
        let start = Instant::now();
        for id in &questions {
            let _ = black_box(dedup.observe(id));
        }
        println!("{round} single xxh3 {:.1} M/s", rate(questions.len(), start.elapsed()));
        let map = DashMap::with_capacity_and_hasher(LIVE, foldhash::fast::RandomState::default());
        let (took, first) = dash(&map, &questions);
        assert_eq!(first, LIVE);
        println!("{round} dashmap {:.1} M/s", rate(questions.len(), took));
    }
}
