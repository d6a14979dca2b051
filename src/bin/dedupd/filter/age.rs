//! How long after the first the duplicates came.
//!
//! To know the age of every duplicate the first sight of every ID would have to be kept, and the set keeps none. So the
//! first sights of a sample are kept: of the IDs whose fingerprint is below a threshold, which is lowered whenever there
//! are too many. Fingerprints are uniform, so the sample is fair, and while all IDs fit it is no sample at all.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::time::Duration;

use dedupd::{Fingerprint, Timestamp};
use hdrhistogram::Histogram;

/// Ages of duplicates, in milliseconds.
#[derive(Debug)]
pub struct Ages {
    /// The low halves of fingerprints, and when they were first seen.
    first: HashMap<u64, Timestamp, BuildHasherDefault<Uniform>>,
    /// Fingerprints whose low half is at most this are in the sample.
    threshold: u64,
    window: Duration,
    ages_ms: Option<Histogram<u64>>,
}

/// What is known about the ages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AgeSummary {
    pub median_ms: u64,
    pub max_ms: u64,
    /// Only a sample of the IDs was watched.
    pub sampled: bool,
}

impl Ages {
    /// For ids that are remembered for `window`.
    pub fn new(window: Duration) -> Self {
        let ages_ms = Histogram::new(SIGNIFICANT_DIGITS).ok();
        Self { first: HashMap::default(), threshold: u64::MAX, window, ages_ms }
    }

    /// `id` was first seen at `now`.
    #[inline]
    pub fn first_seen(&mut self, id: Fingerprint, now: Timestamp) {
        let low = id.as_u128() as u64;
        if low <= self.threshold {
            self.remember(low, now);
        }
    }

    /// A duplicate of `id` came at `now`.
    #[inline]
    pub fn repeated(&mut self, id: Fingerprint, now: Timestamp) {
        let low = id.as_u128() as u64;
        if low <= self.threshold {
            self.record(low, now);
        }
    }

    /// Nothing when no age is known.
    pub fn summary(&self) -> Option<AgeSummary> {
        let ages = self.ages_ms.as_ref().filter(|ages| !ages.is_empty())?;
        Some(AgeSummary {
            median_ms: ages.value_at_quantile(0.5),
            max_ms: ages.max(),
            sampled: self.threshold != u64::MAX,
        })
    }

    fn remember(&mut self, low: u64, now: Timestamp) {
        if self.first.len() >= IDS_MAX {
            self.make_room(now);
        }
        self.first.insert(low, now);
    }

    /// Forgets what no duplicate can refer to any more, and when that is not much, half of the sample.
    fn make_room(&mut self, now: Timestamp) {
        let window = self.window;
        self.first.retain(|_, first| now.saturating_since(*first) <= window);
        if self.first.len() > IDS_MAX / 2 {
            self.threshold /= 2;
            let threshold = self.threshold;
            self.first.retain(|&low, _| low <= threshold);
        }
    }

    fn record(&mut self, low: u64, now: Timestamp) {
        if let (Some(first), Some(ages)) = (self.first.get(&low), &mut self.ages_ms) {
            let age = now.saturating_since(*first).max(first.saturating_since(now));
            // Refused is only what is longer than the histogram can grow to, which no window is.
            let _ = ages.record(u64::try_from(age.as_millis()).unwrap_or(u64::MAX));
        }
    }
}

/// Hashes what is uniform already by leaving it as it is.
#[derive(Debug, Default)]
struct Uniform(u64);

impl Hasher for Uniform {
    fn finish(&self) -> u64 {
        // The table uses the low and the top bits; small ones under a low threshold have no top bits left.
        self.0 ^ self.0.rotate_left(32)
    }

    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(byte);
        }
    }

    fn write_u64(&mut self, low: u64) {
        self.0 = low;
    }
}

/// About 100 kB: looking these up does not push what the decoder and the set work on out of the cache.
const IDS_MAX: usize = 1 << 12;
const SIGNIFICANT_DIGITS: u8 = 3;

#[cfg(test)]
mod tests {
    use super::*;

    /// Uniform enough, and the same each time.
    fn id(n: u64) -> Fingerprint {
        Fingerprint::from_u128(u128::from(n.wrapping_mul(0x9E37_79B9_7F4A_7C15)))
    }

    #[test]
    fn few_ids_are_all_watched() {
        let mut ages = Ages::new(Duration::MAX);
        assert_eq!(ages.summary(), None);
        for n in 0..100 {
            ages.first_seen(id(n), Timestamp::from_millis(0));
            ages.repeated(id(n), Timestamp::from_millis(n as i64));
        }
        assert_eq!(ages.summary(), Some(AgeSummary { median_ms: 49, max_ms: 99, sampled: false }));
    }

    #[test]
    fn of_many_ids_a_fair_sample_is_watched_in_bounded_memory() {
        let mut ages = Ages::new(Duration::MAX);
        for n in 0..1_000_000 {
            ages.first_seen(id(n), Timestamp::from_millis(0));
        }
        assert!(ages.first.len() <= IDS_MAX);
        for n in 0..1_000_000 {
            ages.repeated(id(n), Timestamp::from_millis(n as i64));
        }
        let summary = ages.summary().expect("ages");
        assert!(summary.sampled);
        assert!((450_000..550_000).contains(&summary.median_ms), "{summary:?}");
    }

    #[test]
    fn a_repeat_that_is_older_than_the_first_has_an_age_too() {
        let mut ages = Ages::new(Duration::MAX);
        ages.first_seen(id(1), Timestamp::from_millis(500));
        ages.repeated(id(1), Timestamp::from_millis(200));
        assert_eq!(ages.summary().map(|s| s.max_ms), Some(300));
    }
}
