//! Time as the set sees it: a [`Timestamp`], and a [`Clock`] that hands it in.
//!
//! No code below the binary reads a wall clock by itself: time comes in through [`Clock`], so that a test moves it by
//! hand. [`SystemClock`] is coarse on purpose: a precise read costs as much as the whole question, and generations are
//! at least 15 ms long.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A point in time, in nanoseconds since the Unix epoch (1970-01-01T00:00:00Z).
///
/// The range is the years 1677 to 2262; arithmetic saturates at its ends.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Timestamp(i64);

impl Timestamp {
    /// The earliest time that can be told.
    pub const MIN: Self = Self(i64::MIN);
    /// The latest time that can be told.
    pub const MAX: Self = Self(i64::MAX);

    /// The time `nanos` nanoseconds after the Unix epoch.
    #[must_use]
    pub const fn from_nanos(nanos: i64) -> Self {
        Self(nanos)
    }

    /// The time `micros` microseconds after the Unix epoch, saturating.
    #[must_use]
    pub const fn from_micros(micros: i64) -> Self {
        Self(micros.saturating_mul(1_000))
    }

    /// The time `millis` milliseconds after the Unix epoch, saturating.
    #[must_use]
    pub const fn from_millis(millis: i64) -> Self {
        Self(millis.saturating_mul(1_000_000))
    }

    /// The time `secs` seconds after the Unix epoch, saturating.
    #[must_use]
    pub const fn from_secs(secs: i64) -> Self {
        Self(secs.saturating_mul(1_000_000_000))
    }

    /// Nanoseconds since the Unix epoch.
    #[must_use]
    pub const fn as_nanos(self) -> i64 {
        self.0
    }

    /// This time moved later by `by`, at most [`Timestamp::MAX`].
    #[must_use]
    pub fn saturating_add(self, by: Duration) -> Self {
        Self(self.0.saturating_add(nanos(by)))
    }

    /// This time moved earlier by `by`, at least [`Timestamp::MIN`].
    #[must_use]
    pub fn saturating_sub(self, by: Duration) -> Self {
        Self(self.0.saturating_sub(nanos(by)))
    }

    /// How long after `earlier` this time is; zero when it is not after it.
    #[must_use]
    pub fn saturating_since(self, earlier: Self) -> Duration {
        let nanos = i128::from(self.0) - i128::from(earlier.0);
        Duration::from_nanos(u64::try_from(nanos.max(0)).unwrap_or(u64::MAX))
    }
}

/// `duration` in nanoseconds, at most [`i64::MAX`] (292 years).
pub(crate) fn nanos(duration: Duration) -> i64 {
    i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX)
}

/// Where the present time comes from.
///
/// Read once per question or batch, from many threads. A clock may stand still or jump back; the set never lets time
/// go backwards.
pub trait Clock: Send + Sync {
    /// The present time.
    fn now(&self) -> Timestamp;
}

impl<C: Clock + ?Sized> Clock for Arc<C> {
    fn now(&self) -> Timestamp {
        (**self).now()
    }
}

impl<C: Clock + ?Sized> Clock for Box<C> {
    fn now(&self) -> Timestamp {
        (**self).now()
    }
}

/// The machine's clock: wall time when it was made, and monotonic from there on, to within a few milliseconds.
///
/// A wall clock that is set while the process runs is not seen.
#[derive(Debug, Clone)]
pub struct SystemClock {
    /// Wall time minus monotonic time at the start, in nanoseconds.
    offset: i64,
}

impl SystemClock {
    /// A clock that starts at the present wall time.
    #[must_use]
    pub fn new() -> Self {
        let wall = match SystemTime::now().duration_since(UNIX_EPOCH) {
            Ok(after) => nanos(after),
            Err(before) => -nanos(before.duration()),
        };
        Self { offset: wall.saturating_sub(monotonic_nanos()) }
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        Timestamp(self.offset.saturating_add(monotonic_nanos()))
    }
}

/// The coarse monotonic clock: advanced by the kernel at each tick (1 to 10 ms), read without a system call.
#[cfg(target_os = "linux")]
fn monotonic_nanos() -> i64 {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `now` is a valid, exclusively borrowed timespec for the duration of the call.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC_COARSE, &raw mut now) };
    now.tv_sec * 1_000_000_000 + now.tv_nsec
}

/// The monotonic clock of the standard library, from the first read on.
#[cfg(not(target_os = "linux"))]
fn monotonic_nanos() -> i64 {
    use std::sync::OnceLock;
    use std::time::Instant;
    static START: OnceLock<Instant> = OnceLock::new();
    nanos(START.get_or_init(Instant::now).elapsed())
}

/// A clock that moves only when told: for tests, and for programs that bring their own time.
///
/// Clones share one time.
///
/// ```
/// use dedupd::{Deduplicator, ManualClock, Verdict};
/// use std::time::Duration;
///
/// let clock = ManualClock::new();
/// let dedup = Deduplicator::builder().window(Duration::from_secs(60)).clock(clock.clone()).build()?;
/// assert_eq!(dedup.observe(b"evt_1"), Verdict::FirstSeen);
/// clock.advance(Duration::from_secs(120));
/// assert_eq!(dedup.observe(b"evt_1"), Verdict::FirstSeen);
/// # Ok::<(), dedupd::Error>(())
/// ```
#[derive(Debug, Clone, Default)]
pub struct ManualClock {
    /// Nanoseconds since the epoch. Written by the test, read by every question; relaxed, as it orders nothing else.
    now: Arc<AtomicI64>,
}

impl ManualClock {
    /// A clock that stands at the Unix epoch.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A clock that stands at `start`.
    #[must_use]
    pub fn starting_at(start: Timestamp) -> Self {
        Self { now: Arc::new(AtomicI64::new(start.as_nanos())) }
    }

    /// Moves the clock forward by `by`, for all its clones.
    pub fn advance(&self, by: Duration) {
        let by = nanos(by);
        let _ = self.now.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |now| Some(now.saturating_add(by)));
    }

    /// Sets the clock to `to`, also backwards.
    pub fn set(&self, to: Timestamp) {
        self.now.store(to.as_nanos(), Ordering::Relaxed);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        Timestamp(self.now.load(Ordering::Relaxed))
    }
}
