//! The set with a million live ids, by kind of question, beside a map that a user would take.
//!
//! `benches/table.rs` has the sizes at which memory decides; this one is quick, and shows what a change does to the work of
//! a question itself.

use std::hint::black_box;
use std::time::Duration;

use criterion::measurement::WallTime;
use criterion::{BatchSize, BenchmarkGroup, Criterion, Throughput, criterion_group, criterion_main};
use dashmap::DashMap;
use dedupd::{Deduplicator, IdHash, ManualClock, Verdict};

type Id = [u8; 16];
type Dash = DashMap<u128, (), foldhash::fast::RandomState>;

const LIVE: u64 = 1_000_000;
/// Questions in one measurement.
const ASKED: u64 = 100_000;

fn set(criterion: &mut Criterion) {
    let known: Vec<Id> = (0..LIVE).map(id).collect();
    let kinds = [
        ("all_new", (LIVE..LIVE + ASKED).map(id).collect()),
        ("all_duplicate", (0..ASKED).map(|n| id(n * 7 % LIVE)).collect()),
        ("30_percent", (0..ASKED).map(|n| id(if n % 10 < 3 { n * 7 % LIVE } else { LIVE + n })).collect::<Vec<Id>>()),
    ];
    for (kind, questions) in &kinds {
        let mut group = criterion.benchmark_group(format!("set/observe/{kind}"));
        group.throughput(Throughput::Elements(ASKED)).sample_size(20).measurement_time(Duration::from_secs(3));
        for hash in [IdHash::Xxh3, IdHash::SipHash13] {
            batch(&mut group, hash, &known, questions);
        }
        one_by_one(&mut group, &known, questions);
        dash(&mut group, &known, questions);
        group.finish();
    }
}

fn batch(group: &mut BenchmarkGroup<'_, WallTime>, hash: IdHash, known: &[Id], questions: &[Id]) {
    let mut verdicts = Vec::new();
    group.bench_function(format!("batch_{}", hash.as_str()), |bencher| {
        bencher.iter_batched(
            || filled(hash, known),
            |dedup| {
                dedup.observe_batch(questions, &mut verdicts);
                dedup
            },
            BatchSize::PerIteration,
        );
    });
}

fn one_by_one(group: &mut BenchmarkGroup<'_, WallTime>, known: &[Id], questions: &[Id]) {
    group.bench_function("single_xxh3", |bencher| {
        bencher.iter_batched(
            || filled(IdHash::Xxh3, known),
            |dedup| {
                for id in questions {
                    let _ = black_box(dedup.observe(id));
                }
                dedup
            },
            BatchSize::PerIteration,
        );
    });
}

fn dash(group: &mut BenchmarkGroup<'_, WallTime>, known: &[Id], questions: &[Id]) {
    let insert = |dash: &Dash, id: &Id| dash.insert(u128::from_le_bytes(*id), ()).is_none();
    group.bench_function("dashmap", |bencher| {
        bencher.iter_batched(
            || {
                let dash = Dash::with_capacity_and_hasher((LIVE + ASKED) as usize, Default::default());
                known.iter().for_each(|id| assert!(insert(&dash, id)));
                dash
            },
            |dash| {
                for id in questions {
                    black_box(insert(&dash, id));
                }
                dash
            },
            BatchSize::PerIteration,
        );
    });
}

/// A set that knows `known`, and says so.
fn filled(hash: IdHash, known: &[Id]) -> Deduplicator {
    let builder = Deduplicator::builder().window(Duration::MAX).clock(ManualClock::new()).hash(hash);
    let dedup = builder.expected_ids((LIVE + ASKED) as usize).housekeeping(false).build().unwrap();
    let mut verdicts = Vec::new();
    dedup.observe_batch(known, &mut verdicts);
    assert!(verdicts.iter().all(|verdict| *verdict == Verdict::FirstSeen));
    dedup
}

/// SplitMix64 (Steele, Lea, Flood, 2014), twice.
fn id(n: u64) -> Id {
    let mix = |n: u64| {
        let n = n.wrapping_mul(0x9E37_79B9_7F4A_7C15);
        let n = (n ^ n >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let n = (n ^ n >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        n ^ n >> 31
    };
    let mut id = [0; 16];
    id[..8].copy_from_slice(&mix(n).to_le_bytes());
    id[8..].copy_from_slice(&mix(!n).to_le_bytes());
    id
}

criterion_group!(benches, set);
criterion_main!(benches);
