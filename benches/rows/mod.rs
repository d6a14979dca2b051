//! What the tables of the benches share: rows of ratios, and the questions that are asked.

use std::time::Instant;

use dedupd::{Deduplicator, Verdict};

pub type Id = [u8; 16];

/// Ids in one call of `observe_batch`.
pub const BATCH: usize = 4096;

/// Rows in the order in which they came, each with its rounds.
#[derive(Default)]
pub struct Rows(Vec<(&'static str, f64, Vec<[f64; 2]>)>);

impl Rows {
    pub fn add(&mut self, what: &'static str, ours: f64, beside: f64, floor: f64) {
        match self.0.iter_mut().find(|row| row.0 == what) {
            Some(row) => row.2.push([ours, beside]),
            None => self.0.push((what, floor, vec![[ours, beside]])),
        }
    }

    pub fn print(&self) {
        for (what, floor, rounds) in &self.0 {
            let [ours, beside] = [0, 1].map(|side| median(rounds.iter().map(|round| round[side]).collect()));
            let ratio = median(rounds.iter().map(|round| round[0] / round[1]).collect());
            println!("| {what} | {ours:.1} | {beside:.1} | {ratio:.2} | {floor:.2} |");
        }
    }
}

pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// How many are first-seen.
pub fn ask(dedup: &Deduplicator, questions: &[Id]) -> usize {
    let mut verdicts = Vec::new();
    let mut first_seen = 0;
    for batch in questions.chunks(BATCH) {
        dedup.observe_batch(batch, &mut verdicts);
        first_seen += verdicts.iter().filter(|verdict| **verdict == Verdict::FirstSeen).count();
    }
    first_seen
}

/// Millions per second.
pub fn rate(questions: usize, act: impl FnOnce()) -> f64 {
    let start = Instant::now();
    act();
    questions as f64 / start.elapsed().as_secs_f64() / 1e6
}

/// `unique` ids, in 10/7 as many questions.
pub fn questions(unique: usize, seed: u64) -> Vec<Id> {
    let mut questions = Vec::with_capacity(unique * 10 / 7 + unique / 50);
    let (mut next, mut n) = (0, seed);
    while next < unique as u64 {
        n += 1;
        let random = mix(n);
        if next > 0 && random % 10 < 3 {
            questions.push(id(mix(random) % next));
        } else {
            questions.push(id(next));
            next += 1;
        }
    }
    questions
}

pub fn id(n: u64) -> Id {
    let mut id = [0; 16];
    id[..8].copy_from_slice(&mix(n).to_le_bytes());
    id[8..].copy_from_slice(&mix(!n).to_le_bytes());
    id
}

/// SplitMix64 (Steele, Lea, Flood, 2014).
pub fn mix(n: u64) -> u64 {
    let n = n.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let n = (n ^ n >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let n = (n ^ n >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
    n ^ n >> 31
}

pub fn argument(name: &str) -> Option<usize> {
    let mut arguments = std::env::args().skip_while(|argument| argument != name);
    arguments.nth(1)?.parse().ok()
}
