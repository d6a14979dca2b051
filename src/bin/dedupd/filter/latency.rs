//! How long events were under way in the filter: from when they were read to when they were out.
//!
//! The clock is read once for a chunk, when the first line of it has come whole, and once for each batch, when it is
//! written. So an event counts as if it had come with the first of its chunk, and as if it had gone out with the last of its
//! batch: nothing is told too short, and a line costs nothing. What a sender takes to finish a line is not counted.

use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

/// Latencies of first-seen events that are out.
#[derive(Debug)]
pub struct Latencies(Option<Histogram<u64>>);

/// What is known about them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LatencySummary {
    pub p50: Duration,
    pub p99: Duration,
    pub p999: Duration,
    pub max: Duration,
}

impl Latencies {
    pub fn new() -> Self {
        Self(Histogram::new_with_bounds(1, LATENCY_NS_MAX, SIGNIFICANT_DIGITS).ok())
    }

    /// So many events are out now that were read at `arrived`.
    pub fn out(&mut self, arrived: Option<Instant>, events: u64) {
        if let Some(arrived) = arrived.filter(|_| events > 0) {
            self.record(arrived.elapsed(), events);
        }
    }

    /// Nothing when no event is out.
    pub fn summary(&self) -> Option<LatencySummary> {
        let latencies = self.0.as_ref().filter(|latencies| !latencies.is_empty())?;
        let at = |quantile| Duration::from_nanos(latencies.value_at_quantile(quantile));
        Some(LatencySummary {
            p50: at(0.5),
            p99: at(0.99),
            p999: at(0.999),
            max: Duration::from_nanos(latencies.max()),
        })
    }

    fn record(&mut self, latency: Duration, events: u64) {
        if let Some(latencies) = &mut self.0 {
            latencies.saturating_record_n(u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX), events);
        }
    }
}

/// An hour; what is longer counts as that.
const LATENCY_NS_MAX: u64 = 3_600_000_000_000;
const SIGNIFICANT_DIGITS: u8 = 2;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_event_of_a_batch_counts() {
        let mut latencies = Latencies::new();
        assert_eq!(latencies.summary(), None);
        latencies.record(Duration::from_secs(1), 2);
        latencies.record(Duration::from_millis(1), 98);
        let near = |found: Duration, expected: Duration| found.abs_diff(expected) <= expected / 50;
        let summary = latencies.summary().expect("latencies");
        assert!(near(summary.p50, Duration::from_millis(1)), "{summary:?}");
        assert!(near(summary.p99, Duration::from_secs(1)), "{summary:?}");
        latencies.record(Duration::from_millis(1), 1_800);
        let summary = latencies.summary().expect("latencies");
        assert!(near(summary.p99, Duration::from_millis(1)), "{summary:?}");
        assert!(near(summary.p999, Duration::from_secs(1)) && summary.p999 <= summary.max, "{summary:?}");
    }

    #[test]
    fn a_batch_of_which_nothing_is_out_is_no_latency() {
        let mut latencies = Latencies::new();
        latencies.out(Some(Instant::now()), 0);
        latencies.out(None, 1);
        assert_eq!(latencies.summary(), None);
        latencies.out(Some(Instant::now()), 1);
        assert!(latencies.summary().is_some());
    }

    #[test]
    fn what_is_longer_than_an_hour_counts_as_one() {
        let mut latencies = Latencies::new();
        latencies.record(Duration::MAX, 1);
        let hour = Duration::from_secs(3600);
        assert!(latencies.summary().is_some_and(|summary| summary.max.abs_diff(hour) < hour / 50));
    }
}
