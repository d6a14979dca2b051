//! [`Builder`]: what can be set, checked once.

use std::fmt;
use std::time::Duration;

use super::{BuildError, Deduplicator, Error, Inner};
use crate::event::{Hasher, IdHash, Secret};
use crate::time::{Clock, SystemClock, nanos};
use crate::window::{Config, LATENESS_WINDOWS_MAX, Limits, Set, Shape};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

/// What to do when a limit on ids or memory is reached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum WhenFull {
    /// Forget the oldest generation, about 1/64 of the ids, and count each of them in
    /// [`Stats::evicted_early`](super::Stats::evicted_early).
    #[default]
    EvictOldest,
    /// Refuse new ids with [`Unjudged::Full`](crate::Unjudged::Full).
    Refuse,
}

/// Builds a [`Deduplicator`].
#[must_use = "a builder does nothing until it is built"]
pub struct Builder {
    window: Duration,
    extend: bool,
    lateness: Option<Duration>,
    max_future: Duration,
    expected_ids: usize,
    max_ids: Option<usize>,
    max_memory: Option<usize>,
    when_full: WhenFull,
    hash: IdHash,
    secret: Option<Secret>,
    clock: Option<Box<dyn Clock>>,
    housekeeping: bool,
    shape: Option<Shape>,
}

impl Builder {
    pub(super) fn new() -> Self {
        Self {
            window: Duration::from_secs(24 * 3600),
            extend: false,
            lateness: None,
            max_future: Duration::from_secs(3600),
            expected_ids: 0,
            max_ids: None,
            max_memory: None,
            when_full: WhenFull::default(),
            hash: IdHash::default(),
            secret: None,
            clock: None,
            housekeeping: true,
            shape: None,
        }
    }

    /// How long an ID is remembered: 1 s or more, 24 h by default, [`Duration::MAX`] for ever.
    pub fn window(mut self, window: Duration) -> Self {
        self.window = window;
        self
    }

    /// Whether a repeat makes the window of its ID start again. By default it runs from the first sight, so an ID that
    /// is repeated without end is let through once per window. In event time the latest of an ID's times counts then, and
    /// no earlier one.
    pub fn extend_on_duplicate(mut self, extend: bool) -> Self {
        self.extend = extend;
        self
    }

    /// Judges by the events' own times: an event may be this much older than the newest one before it. At most 100
    /// windows; with more than five, an ID that comes back again and again may be forgotten early, which is counted.
    /// Questions without a time take the clock's.
    pub fn lateness(mut self, lateness: Duration) -> Self {
        self.lateness = Some(lateness);
        self
    }

    /// How far ahead of the clock an event's own time may be, 1 h by default. An event further ahead is judged as if it
    /// came with the highest time seen, moves no time, and is counted.
    pub fn max_future(mut self, max_future: Duration) -> Self {
        self.max_future = max_future;
        self
    }

    /// A hint: memory for so many ids at a time is set aside and touched now. The set grows without it as well.
    pub fn expected_ids(mut self, ids: usize) -> Self {
        self.expected_ids = ids;
        self
    }

    /// The most ids at a time, seen and pending ones together. No limit by default.
    pub fn max_ids(mut self, ids: usize) -> Self {
        self.max_ids = Some(ids);
        self
    }

    /// The most bytes of memory at a time, everything included. No limit by default.
    pub fn max_memory(mut self, bytes: usize) -> Self {
        self.max_memory = Some(bytes);
        self
    }

    /// What to do when one of the limits is reached.
    pub fn when_full(mut self, when_full: WhenFull) -> Self {
        self.when_full = when_full;
        self
    }

    /// The hash that makes fingerprints of ids: SipHash-1-3 by default.
    pub fn hash(mut self, hash: IdHash) -> Self {
        self.hash = hash;
        self
    }

    /// The secret that keys the hash: random by default. Two sets with one secret, hash and scope make the same
    /// fingerprints. Keep it from whoever chooses the ids.
    pub fn secret(mut self, secret: impl Into<Secret>) -> Self {
        self.secret = Some(secret.into());
        self
    }

    /// Where the present time comes from: [`SystemClock`] by default.
    pub fn clock(mut self, clock: impl Clock + 'static) -> Self {
        self.clock = Some(Box::new(clock));
        self
    }

    /// Whether the process's housekeeping thread tends to this set, as it does by default. Without it, call
    /// [`Deduplicator::maintain`] now and then, or memory is not given back while nobody asks. The thread does not follow
    /// into a child after a fork.
    pub fn housekeeping(mut self, housekeeping: bool) -> Self {
        self.housekeeping = housekeeping;
        self
    }

    /// Cuts the set in an unusual way, so that tests reach every edge with few ids.
    #[doc(hidden)]
    pub fn shape(mut self, shard_bits: u32, roots: usize, class_max: u32) -> Self {
        self.shape = Some(Shape::new(shard_bits, roots, class_max));
        self
    }

    /// Builds it, in memory: what it knows ends with the process.
    ///
    /// # Errors
    /// [`BuildError`] says which setting is refused, and why.
    pub fn build(self) -> Result<Deduplicator, Error> {
        let config = self.check()?;
        let secret = match self.secret {
            Some(secret) => secret,
            None => Secret::random().map_err(BuildError::Secret)?,
        };
        let set = Arc::new(Set::new(&config).map_err(|_| BuildError::MemoryTooSmall {
            bytes: config.memory_bytes_max,
            expected_ids: self.expected_ids,
        })?);
        let inner = Arc::new(Inner {
            set,
            clock: self.clock.unwrap_or_else(|| Box::new(SystemClock::new())),
            hash: self.hash,
            window: self.window,
            event_time: self.lateness.is_some(),
            bypassed: AtomicU64::new(0),
            secret,
        });
        if self.housekeeping {
            super::housekeeping::enlist(&inner);
        }
        let hasher = Arc::new(Hasher::new(inner.hash, &inner.secret, b""));
        Ok(Deduplicator { inner, hasher })
    }

    fn check(&self) -> Result<Config, BuildError> {
        if self.window < WINDOW_MIN {
            return Err(BuildError::WindowTooShort(self.window));
        }
        if self.max_ids == Some(0) {
            return Err(BuildError::NoIds);
        }
        let window = nanos(self.window);
        let lateness = self.lateness.map(nanos);
        if lateness.is_some_and(|lateness| lateness > window.saturating_mul(LATENESS_WINDOWS_MAX)) {
            return Err(BuildError::LatenessTooLong {
                lateness: self.lateness.unwrap_or_default(),
                window: self.window,
                windows: LATENESS_WINDOWS_MAX as u32,
            });
        }
        let max_ids = self.max_ids.map_or(u64::MAX, |ids| ids as u64);
        let bytes_max = self.max_memory.unwrap_or(usize::MAX);
        let by_memory = if bytes_max == usize::MAX { u64::MAX } else { (bytes_max / BYTES_PER_ID) as u64 };
        let evict = self.when_full == WhenFull::EvictOldest;
        let generation_ids = match max_ids.min(by_memory) {
            u64::MAX => u64::MAX,
            ids => ids.div_ceil(64).max(1),
        };
        let limits = Limits { window, lateness, max_future: nanos(self.max_future), max_ids, generation_ids, evict };
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let shape = self.shape.unwrap_or_else(|| Shape::choose(cores, max_ids, bytes_max));
        Ok(Config {
            limits,
            extend: self.extend,
            expected_ids: self.expected_ids as u64,
            memory_bytes_max: bytes_max,
            shape,
        })
    }
}

impl fmt::Debug for Builder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builder")
            .field("window", &self.window)
            .field("extend_on_duplicate", &self.extend)
            .field("lateness", &self.lateness)
            .field("max_future", &self.max_future)
            .field("expected_ids", &self.expected_ids)
            .field("max_ids", &self.max_ids)
            .field("max_memory", &self.max_memory)
            .field("when_full", &self.when_full)
            .field("hash", &self.hash)
            .finish_non_exhaustive()
    }
}

const WINDOW_MIN: Duration = Duration::from_secs(1);
/// About what an id takes at most when memory is short; only used to choose how many ids a generation may have.
const BYTES_PER_ID: usize = 20;
