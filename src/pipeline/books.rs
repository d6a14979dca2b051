//! The books of a pipeline: what was read, and what became of each event.

use std::time::Duration;

use hdrhistogram::Histogram;

/// What happened so far, in events but for the latency.
///
/// Every snapshot balances: see [`PipelineStats::balances`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct PipelineStats {
    /// Taken from the queues by the workers.
    pub read: u64,
    /// New within the window.
    pub first_seen: u64,
    /// Seen before within the window.
    pub duplicate: u64,
    /// Duplicates whose payload is not the one that was seen, where payloads are compared.
    pub conflicts: u64,
    /// Before the low watermark; delivered all the same, and not marked.
    pub late: u64,
    /// Not judged because the set was full; delivered all the same, and not marked.
    pub refused: u64,
    /// Repeats that wait for the fate of what they repeat.
    pub attached: u64,
    /// First-seen events that every sink has, committed.
    pub delivered: u64,
    /// First-seen events that are in the dead letter, committed.
    pub dead_lettered: u64,
    /// First-seen events that are neither yet.
    pub in_flight: u64,
    /// Failed deliveries of an event to a sink, each try counted.
    pub failed_attempts: u64,
    /// Times an intake waited because too many events were held or attached, or pending in a set with limits.
    pub intake_waits: u64,
    /// Times a worker waited because the log had no room.
    pub room_waits: u64,
    /// From the submission of the first event of a bundle to its delivery.
    pub latency: Latency,
}

impl PipelineStats {
    /// Whether every event that was read is accounted for: `read = first_seen + duplicate + late + refused + attached` and
    /// `first_seen = delivered + dead_lettered + in_flight`.
    #[must_use]
    pub fn balances(&self) -> bool {
        self.read == self.first_seen + self.duplicate + self.late + self.refused + self.attached
            && self.first_seen == self.delivered + self.dead_lettered + self.in_flight
    }

    pub(super) fn add(&mut self, other: &Self) {
        self.read += other.read;
        self.first_seen += other.first_seen;
        self.duplicate += other.duplicate;
        self.conflicts += other.conflicts;
        self.late += other.late;
        self.refused += other.refused;
        self.attached += other.attached;
        self.delivered += other.delivered;
        self.dead_lettered += other.dead_lettered;
        self.in_flight += other.in_flight;
        self.failed_attempts += other.failed_attempts;
        self.intake_waits += other.intake_waits;
    }
}

/// How long deliveries took. All zero when there was none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Latency {
    /// Half of the events took at most this.
    pub p50: Duration,
    /// 99 of 100.
    pub p99: Duration,
    /// 999 of 1,000.
    pub p999: Duration,
    /// The longest.
    pub max: Duration,
}

/// Latencies of one worker.
#[derive(Debug)]
pub(super) struct Latencies(Option<Histogram<u64>>);

impl Latencies {
    pub(super) fn new() -> Self {
        Self(Histogram::new_with_bounds(1, LATENCY_NS_MAX, SIGNIFICANT_DIGITS).ok())
    }

    pub(super) fn record(&mut self, latency: Duration, events: u64) {
        if let Some(histogram) = &mut self.0 {
            let nanos = u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX);
            histogram.saturating_record_n(nanos, events);
        }
    }

    pub(super) fn add(&mut self, other: &Self) {
        if let (Some(mine), Some(other)) = (&mut self.0, &other.0) {
            // Both have the same bounds.
            let _ = mine.add(other);
        }
    }

    pub(super) fn summary(&self) -> Latency {
        let at = |histogram: &Histogram<u64>, quantile| Duration::from_nanos(histogram.value_at_quantile(quantile));
        self.0.as_ref().filter(|histogram| !histogram.is_empty()).map_or(Latency::default(), |histogram| Latency {
            p50: at(histogram, 0.5),
            p99: at(histogram, 0.99),
            p999: at(histogram, 0.999),
            max: Duration::from_nanos(histogram.max()),
        })
    }
}

/// An hour; what is longer counts as that.
const LATENCY_NS_MAX: u64 = 3_600_000_000_000;
const SIGNIFICANT_DIGITS: u8 = 2;
