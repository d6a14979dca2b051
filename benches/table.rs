//! Prints one table: what the set does, beside its peers and beside the machine's limit.
//!
//! Every row is a ratio of two things measured in the same run. The subjects take turns, three rounds by default, and the
//! median of the rounds' ratios is printed with the floor that the row must not fall below. The questions are 16-byte ids
//! from a seeded generator; 30 % repeat an earlier one, drawn uniformly. `cargo bench --bench table -- --rounds 5`.

use std::alloc::Layout;
use std::hint::black_box;
use std::time::{Duration, Instant};

use dashmap::DashMap;
use dedupd::{Deduplicator, IdHash, ManualClock};
use hdrhistogram::Histogram;
use xxhash_rust::xxh3::xxh3_128_with_secret;

mod rows;

use rows::{Id, Rows, argument, ask, id, questions, rate};

type Dash = DashMap<u128, (), foldhash::fast::RandomState>;

const LIVE: usize = 14_000_000;

fn main() {
    let rounds = argument("--rounds").unwrap_or(3);
    println!("| what | dedupd | beside | ratio | floor |\n|---|---|---|---|---|");
    // First, while nothing else was allocated that may be given back meanwhile.
    let memory = memory();
    let questions = questions(LIVE, 1 << 40);
    let mut rows = Rows::default();
    for _ in 0..rounds {
        throughput(&questions, &mut rows);
        single(&questions, &mut rows);
        two_threads(&questions, &mut rows);
        growing_and_steady(&questions, &mut rows);
    }
    rows.print();
    drop(questions);
    print!("{memory}");
    latency();
}

fn throughput(questions: &[Id], rows: &mut Rows) {
    let limit = limit(questions);
    let dash = dash_rate(questions);
    let (xxh3, bytes) = presized(IdHash::Xxh3, questions);
    let (sip, _) = presized(IdHash::SipHash13, questions);
    rows.add("`observe_batch`, Xxh3, 1 thread, against `DashMap<u128, ()>` presized, foldhash", xxh3, dash, 4.0);
    rows.add("the same, SipHash-1-3 (the default)", sip, dash, 2.8);
    rows.add("the same, Xxh3, against the limit: hash and one prefetched random line", xxh3, limit, 0.4);
    rows.add("bytes per live id in the row above, presized: 24 over", 24.0, bytes, 1.0);
}

fn single(questions: &[Id], rows: &mut Rows) {
    let dash = dash_rate(questions);
    let dedup = builder(IdHash::Xxh3).expected_ids(LIVE).build().unwrap();
    let single = rate(questions.len(), || {
        for id in questions {
            let _ = black_box(dedup.observe(id));
        }
    });
    drop(dedup);
    // A tenth of the ids: the strings are made ahead, and 14 million of them would not leave room for anything else.
    let few = &questions[..questions.len() / 10];
    let strings: Vec<String> = few.iter().map(|id| format!("{:032x}", u128::from_le_bytes(*id))).collect();
    let by_hand: DashMap<String, Instant> = DashMap::new();
    let by_hand_rate = rate(strings.len(), || {
        for id in &strings {
            let now = Instant::now();
            by_hand.entry(id.clone()).and_modify(|seen| *seen = now).or_insert(now);
        }
    });
    drop(by_hand);
    let dedup = builder(IdHash::Xxh3).build().unwrap();
    let strings_rate = rate(strings.len(), || {
        for id in &strings {
            let _ = black_box(dedup.observe(id));
        }
    });
    rows.add("`observe` one by one, Xxh3, against the same DashMap", single, dash, 1.2);
    rows.add(
        "the same, ids of 32 letters, against `DashMap<String, Instant>`, both growing",
        strings_rate,
        by_hand_rate,
        5.0,
    );
}

fn two_threads(questions: &[Id], rows: &mut Rows) {
    let halves = questions.split_at(questions.len() / 2);
    let dash = Dash::with_capacity_and_hasher(LIVE, Default::default());
    let dash_rate = rate(questions.len(), || {
        on_both(halves, |half| {
            black_box(ask_dash(&dash, half));
        })
    });
    drop(dash);
    let dedup = builder(IdHash::Xxh3).expected_ids(LIVE).build().unwrap();
    let ours = rate(questions.len(), || {
        on_both(halves, |half| {
            black_box(ask(&dedup, half));
        })
    });
    rows.add("`observe_batch`, Xxh3, 2 threads, against DashMap with 2 threads", ours, dash_rate, 4.5);
}

fn on_both(halves: (&[Id], &[Id]), act: impl Fn(&[Id]) + Sync) {
    std::thread::scope(|scope| {
        scope.spawn(|| act(halves.0));
        act(halves.1);
    });
}

fn growing_and_steady(questions: &[Id], rows: &mut Rows) {
    let (presized, _) = presized(IdHash::Xxh3, questions);
    let dedup = builder(IdHash::Xxh3).build().unwrap();
    let grown = rate(questions.len(), || assert_eq!(ask(&dedup, questions), LIVE));
    drop(dedup);
    rows.add("growing from empty, against presized", grown, presized, 0.6);

    // A window of 64 s holds the live ids; each second a 64th of them expires and as many come.
    let clock = ManualClock::new();
    let window = Duration::from_secs(64);
    let dedup = Deduplicator::builder().window(window).clock(clock.clone()).hash(IdHash::Xxh3).build().unwrap();
    let part = questions.len() / 64;
    // Windows of other ids, made ahead. The set has settled after two of them. A segment is cleaned every 224 generations, so what
    // counts are the seven windows behind, in which each is cleaned twice.
    let mut steady = 0.0;
    for flip in 0..9 {
        let flipped = |part: &[Id]| part.iter().map(|id| id.map(|byte| byte ^ flip)).collect();
        let parts: Vec<Vec<Id>> = questions.chunks(part).map(flipped).collect();
        let window = rate(questions.len(), || {
            for part in &parts {
                clock.advance(Duration::from_secs(1));
                black_box(ask(&dedup, part));
            }
        });
        steady += if flip < 2 { 0.0 } else { 1.0 / window };
    }
    let steady = 7.0 / steady;
    let stats = dedup.stats();
    let bytes = stats.memory_bytes as f64 / stats.live_ids as f64;
    rows.add("steady state: as many ids leave as come, against presized without expiry", steady, presized, 0.7);
    rows.add("bytes per live id in the row above: 30 over", 30.0, bytes, 1.0);
}

fn memory() -> String {
    let before = resident_bytes();
    let dedup = builder(IdHash::Xxh3).build().unwrap();
    let mut verdicts = Vec::new();
    let mut next = 0_u64;
    let mut sizes = Vec::new();
    for live in [9_000_000, 10_500_000, 12_000_000, 14_000_000, 17_000_000_u64] {
        while next < live {
            let ids: Vec<Id> = (next..live.min(next + 100_000)).map(id).collect();
            next += ids.len() as u64;
            dedup.observe_batch(&ids, &mut verdicts);
        }
        sizes.push((resident_bytes() - before) as f64 / live as f64);
    }
    let mean = sizes.iter().sum::<f64>() / sizes.len() as f64;
    let worst = sizes.iter().copied().fold(0.0, f64::max);
    format!(
        "| resident bytes per live id, grown, at 9, 10.5, 12, 14, 17 M: {sizes:.1?} | mean {mean:.1} | 24 | {:.2} | 1.00 |\n\
         | the worst of them | {worst:.1} | 28 | {:.2} | 1.00 |\n",
        24.0 / mean,
        28.0 / worst
    )
}

fn latency() {
    let mut empty = Histogram::<u64>::new_with_bounds(1, 60_000_000_000, 3).unwrap();
    let mut ours = Histogram::<u64>::new_with_bounds(1, 60_000_000_000, 3).unwrap();
    let dedup = builder(IdHash::Xxh3).build().unwrap();
    for n in 0..LIVE as u64 {
        let id = id(n);
        time(&mut empty, || {
            black_box(id);
        });
        time(&mut ours, || {
            let _ = black_box(dedup.observe(id));
        });
    }
    let show = |histogram: &Histogram<u64>| {
        let at = |quantile| histogram.value_at_quantile(quantile);
        format!("p50 {} p99 {} p99.9 {} p99.99 {} max {}", at(0.5), at(0.99), at(0.999), at(0.9999), histogram.max())
    };
    println!("| one `observe` while growing to 14 M, ns | {} | an empty function: {} | | |", show(&ours), show(&empty));
}

fn time(histogram: &mut Histogram<u64>, act: impl FnOnce()) {
    let start = Instant::now();
    act();
    histogram.saturating_record(u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX));
}

fn builder(hash: IdHash) -> dedupd::Builder {
    Deduplicator::builder().window(Duration::MAX).clock(ManualClock::new()).hash(hash)
}

/// Millions of questions per second, and bytes per id.
fn presized(hash: IdHash, questions: &[Id]) -> (f64, f64) {
    let dedup = builder(hash).expected_ids(LIVE).build().unwrap();
    let rate = rate(questions.len(), || assert_eq!(ask(&dedup, questions), LIVE));
    (rate, dedup.stats().memory_bytes as f64 / LIVE as f64)
}

fn dash_rate(questions: &[Id]) -> f64 {
    let dash = Dash::with_capacity_and_hasher(LIVE, Default::default());
    rate(questions.len(), || assert_eq!(ask_dash(&dash, questions), LIVE))
}

fn ask_dash(dash: &Dash, questions: &[Id]) -> usize {
    questions.iter().filter(|id| dash.insert(u128::from_le_bytes(**id), ()).is_none()).count()
}

/// The least that a question can cost: its hash, and one random line read and written, 64 prefetched at a time, in as
/// much memory as the set may use.
fn limit(questions: &[Id]) -> f64 {
    let layout = Layout::from_size_align((LIVE * 24).next_multiple_of(2 << 20), 2 << 20).unwrap();
    let lines = layout.size() / 64;
    let secret = [7; 192];
    // SAFETY: the layout has a size; the memory is written whole before it is read, and every line index is below `lines`.
    unsafe {
        let memory = std::alloc::alloc(layout);
        #[cfg(target_os = "linux")]
        libc::madvise(memory.cast(), layout.size(), libc::MADV_HUGEPAGE);
        memory.write_bytes(1, layout.size());
        let rate = rate(questions.len(), || {
            let mut sum = 0_u32;
            for ids in questions.chunks(64) {
                let mut places = [std::ptr::null_mut::<u32>(); 64];
                for (place, id) in places.iter_mut().zip(ids) {
                    let hash = xxh3_128_with_secret(id, &secret);
                    *place = memory.add((((hash >> 64) * lines as u128) >> 64) as usize * 64).cast();
                    prefetch(*place);
                }
                for place in &places[..ids.len()] {
                    sum = sum.wrapping_add(place.read());
                    place.write(sum);
                }
            }
            black_box(sum);
        });
        std::alloc::dealloc(memory, layout);
        rate
    }
}

fn prefetch(place: *const u32) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch faults at no address.
    unsafe {
        std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(place.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = place;
}

/// Resident memory of this process; 0 where it cannot be told.
fn resident_bytes() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    statm.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok()).unwrap_or(0) * 4096
}
