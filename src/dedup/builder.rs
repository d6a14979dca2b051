//! [`Builder`]: what can be set, checked once.

use std::fmt;
use std::path::Path;
use std::time::Duration;

#[cfg(all(test, not(loom)))]
use super::durable::Cut;
use super::durable::{Digests, Durable, OnRecovery, Settings, State};
use super::housekeeping::Tended;
use super::{
    BuildError, Deduplicator, Durability, Error, Inner, OnConflict, OnCorrupt, OnLogFailure, RecoveryProgress,
};
use crate::event::{Digester, Hasher, IdHash, Secret};
use crate::log::DISK_BYTES_MIN;
#[cfg(all(test, not(loom)))]
use crate::log::Storage;
use crate::time::{Clock, SystemClock, nanos};
use crate::window::{Config, LATENESS_WINDOWS_MAX, Limits, Set, Shape};
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex};

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
    clock: Option<Arc<dyn Clock>>,
    housekeeping: bool,
    durability: Durability,
    on_log_failure: OnLogFailure,
    on_corrupt: OnCorrupt,
    lock_timeout: Duration,
    max_disk: Option<u64>,
    open_full: bool,
    id_paths: String,
    on_conflict: OnConflict,
    conflict_ignore: String,
    digests_as_found: bool,
    on_recovery: Option<Box<OnRecovery>>,
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
            durability: Durability::default(),
            on_log_failure: OnLogFailure::default(),
            on_corrupt: OnCorrupt::default(),
            lock_timeout: Duration::ZERO,
            max_disk: None,
            open_full: false,
            id_paths: String::new(),
            on_conflict: OnConflict::default(),
            conflict_ignore: String::new(),
            digests_as_found: false,
            on_recovery: None,
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
    /// Questions without a time take the clock's. A state keeps to what it was made with, event time or not.
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

    /// The most ids at a time, seen and pending ones together. No limit by default. With [`Builder::on_conflict`] an event
    /// takes two. Pending ones cannot be forgotten to make room: see [`Deduplicator::reserve_max`].
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
        self.clock = Some(Arc::new(clock));
        self
    }

    /// Whether the process's housekeeping thread tends to this set, as it does by default. Without it, call
    /// [`Deduplicator::maintain`] now and then, or memory is not given back while nobody asks. The thread does not follow
    /// into a child after a fork.
    pub fn housekeeping(mut self, housekeeping: bool) -> Self {
        self.housekeeping = housekeeping;
        self
    }

    /// What an answer rests on when there is a state: see [`Durability`].
    pub fn durability(mut self, durability: Durability) -> Self {
        self.durability = durability;
        self
    }

    /// What is done when the state cannot be kept any more: refuse to judge, by default, or go on from memory.
    pub fn on_log_failure(mut self, on_log_failure: OnLogFailure) -> Self {
        self.on_log_failure = on_log_failure;
        self
    }

    /// What is done with a state whose bytes have gone bad: refuse it, by default, or repair it and go on.
    pub fn on_corrupt(mut self, on_corrupt: OnCorrupt) -> Self {
        self.on_corrupt = on_corrupt;
        self
    }

    /// How long [`Builder::open`] waits for another process that has the state open. Not at all by default.
    pub fn lock_timeout(mut self, timeout: Duration) -> Self {
        self.lock_timeout = timeout;
        self
    }

    /// The most bytes that the state may take on disk: 3 MiB or more. No limit by default. Where it is reached, records
    /// cannot be taken until older ones have aged out: see [`Builder::on_log_failure`]. An eighth of it, and 1 MiB at least, is
    /// reserved for the positions that must be appended again before: no more of those are kept, see [`Progress`](super::Progress).
    pub fn max_disk(mut self, bytes: u64) -> Self {
        self.max_disk = Some(bytes);
        self
    }

    /// Whether a state is opened also when its disk has no room for a first record, and nothing in it has aged out that
    /// would make some. It is not by default. One that is opened so knows what it knew; to record anything fails as on any
    /// full disk, until there is room: see [`Builder::on_log_failure`]. The directory itself and the secret of a new state need
    /// room all the same.
    pub fn open_full(mut self, open_full: bool) -> Self {
        self.open_full = open_full;
        self
    }

    /// What ids are made of, in the caller's words, such as the path of a JSON member. A state remembers it, and is not
    /// opened with another one.
    pub fn id_paths(mut self, id_paths: impl Into<String>) -> Self {
        self.id_paths = id_paths.into();
        self
    }

    /// What is done with an event whose ID is known and whose payload is not: nothing by default, and payloads are not looked
    /// at. Otherwise each event is two entries in the set, its ID and the digest of both, and takes twice the memory and the
    /// log; limits count both. Ask with [`Deduplicator::reserve_digests`] then, always: see there.
    ///
    /// A state keeps to what it was made with, digests or none: without them each known ID would be in conflict.
    pub fn on_conflict(mut self, on_conflict: OnConflict) -> Self {
        self.on_conflict = on_conflict;
        self
    }

    /// What is left out of the payloads that digests are made of, in the caller's words, such as the names of JSON members. A
    /// state remembers it, and is not opened with another one.
    pub fn conflict_ignore(mut self, left_out: impl Into<String>) -> Self {
        self.conflict_ignore = left_out.into();
        self
    }

    /// Opens a state with payload digests or without, whichever it was made with: for who only forgets ids.
    pub fn digests_as_found(mut self, as_found: bool) -> Self {
        self.digests_as_found = as_found;
        self
    }

    /// Has `tell` called while [`Builder::open`] reads the state, for whoever waits for it: with no bytes read at first, after
    /// about each 4 MiB, and with all of them once the set is filled. Bytes and ids never go back between the two. Nobody is
    /// told by default.
    ///
    /// It is called on the thread that opens and reads, so what it takes is added to the open; 4 MiB are read in about
    /// 10 ms. When it panics, so does the open. One that fails ends without the last call. With [`OnCorrupt::Salvage`] the
    /// state is read again after the repair, from no bytes on. `tell` is dropped before the open returns.
    ///
    /// # Cost
    /// A comparison for each frame.
    ///
    /// # Example
    /// ```
    /// # use dedupd::Deduplicator;
    /// # let dir = std::env::temp_dir().join(format!("dedupd-on-recovery-{}", std::process::id()));
    /// let dedup = Deduplicator::builder()
    ///     .on_recovery(|read| eprintln!("{} of {} bytes, {} ids", read.bytes, read.bytes_total, read.ids))
    ///     .open(&dir)?;
    /// assert_eq!(dedup.recovery().map(|found| found.ids), Some(0));
    /// # drop(dedup);
    /// # let _ = std::fs::remove_dir_all(&dir);
    /// # Ok::<(), dedupd::Error>(())
    /// ```
    pub fn on_recovery(mut self, tell: impl Fn(RecoveryProgress) + Send + Sync + 'static) -> Self {
        self.on_recovery = Some(Box::new(tell));
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
    pub fn build(mut self) -> Result<Deduplicator, Error> {
        let config = self.check(false)?;
        let secret = match self.secret.take() {
            Some(secret) => secret,
            None => Secret::random().map_err(BuildError::Secret)?,
        };
        let set = self.set(&config)?;
        let clock = self.taken_clock();
        Ok(self.finish(set, clock, secret, None))
    }

    /// Opens the state in the directory `dir`, which is made if it is not there, and builds a set that knows what the
    /// state remembers. What it learns is kept there, as [`Builder::durability`] says.
    ///
    /// The directory holds the log, a lock and the secret, and belongs to one process at a time. Window, limits and
    /// durability may be others than last time.
    ///
    /// # Errors
    /// [`BuildError`], or [`OpenError`](super::OpenError): in use, corrupt, of another configuration, of a newer version, or
    /// refused by the file system.
    ///
    /// # Cost
    /// Reads the whole log: about 16.5 bytes for each ID of the window, some 20 million ids per second.
    ///
    /// # Example
    /// ```
    /// # use dedupd::{Deduplicator, Durability, Verdict};
    /// # let dir = std::env::temp_dir().join(format!("dedupd-open-{}", std::process::id()));
    /// let dedup = Deduplicator::builder().durability(Durability::Process).open(&dir)?;
    /// assert_eq!(dedup.observe(b"evt_1"), Verdict::FirstSeen);
    /// dedup.close()?;
    /// let dedup = Deduplicator::builder().durability(Durability::Process).open(&dir)?;
    /// assert_eq!(dedup.observe(b"evt_1"), Verdict::Duplicate);
    /// # drop(dedup);
    /// # let _ = std::fs::remove_dir_all(&dir);
    /// # Ok::<(), dedupd::Error>(())
    /// ```
    pub fn open(mut self, dir: impl AsRef<Path>) -> Result<Deduplicator, Error> {
        let config = self.check(self.durability != Durability::None)?;
        if let Some(bytes) = self.max_disk.filter(|bytes| *bytes < DISK_BYTES_MIN) {
            return Err(BuildError::DiskTooSmall { bytes, bytes_min: DISK_BYTES_MIN }.into());
        }
        let state = State::lock(dir.as_ref(), self.settings())?;
        let secret = state.secret.clone();
        let clock = self.taken_clock();
        let durable = state.open(&clock, self.on_recovery.as_deref(), || self.set(&config))?;
        Ok(self.finish(Arc::clone(&durable.keeper().set), clock, secret, Some(durable)))
    }

    /// The same on any storage, and without threads: whoever tests does their work.
    #[cfg(all(test, not(loom)))]
    pub(super) fn open_on(mut self, storage: Arc<dyn Storage>, cut: Cut) -> Result<Deduplicator, Error> {
        let config = self.check(self.durability != Durability::None)?;
        let secret = self.secret.take().unwrap_or_else(|| Secret::from([7; 32]));
        let state = State::on(storage, cut, secret.clone(), self.settings());
        let clock = self.taken_clock();
        let durable = state.open_idle(&clock, self.on_recovery.as_deref(), || self.set(&config))?;
        Ok(self.finish(Arc::clone(&durable.keeper().set), clock, secret, Some(durable)))
    }

    fn settings(&mut self) -> Settings {
        Settings {
            durability: self.durability,
            on_failure: self.on_log_failure,
            on_corrupt: self.on_corrupt,
            lock_timeout: self.lock_timeout,
            disk_bytes_max: self.max_disk,
            opens_full: self.open_full,
            id_paths: std::mem::take(&mut self.id_paths),
            digests: match self.on_conflict {
                _ if self.digests_as_found => Digests::AsFound,
                OnConflict::Ignore => Digests::Without,
                _ => Digests::With(std::mem::take(&mut self.conflict_ignore)),
            },
            hash: self.hash,
            secret: self.secret.take(),
            window: self.window,
            event_time: self.lateness.is_some(),
            is_limited: self.max_ids.is_some() || self.max_memory.is_some(),
            is_presized: self.expected_ids > 0 || self.extend,
        }
    }

    fn set(&self, config: &Config) -> Result<Arc<Set>, BuildError> {
        let set = Set::new(config).map_err(|_| BuildError::MemoryTooSmall {
            bytes: config.memory_bytes_max,
            expected_ids: self.expected_ids,
        })?;
        Ok(Arc::new(set))
    }

    fn taken_clock(&mut self) -> Arc<dyn Clock> {
        self.clock.take().unwrap_or_else(|| Arc::new(SystemClock::new()))
    }

    fn finish(self, set: Arc<Set>, clock: Arc<dyn Clock>, secret: Secret, durable: Option<Durable>) -> Deduplicator {
        let event_time = self.lateness.is_some();
        let tended = Arc::new(Tended { set: Arc::clone(&set), clock: Arc::clone(&clock), event_time });
        if self.housekeeping {
            super::housekeeping::enlist(&tended);
        }
        let inner = Arc::new(Inner {
            durable,
            set,
            clock,
            hash: self.hash,
            window: self.window,
            event_time,
            extends: self.extend,
            reserve_max: self.reserve_max(),
            bypassed: AtomicU64::new(0),
            on_conflict: self.on_conflict,
            digester: Digester::new(&secret),
            judging: Mutex::new(()),
            conflicts: AtomicU64::new(0),
            secret,
            _tended: tended,
        });
        let hasher = Arc::new(Hasher::new(inner.hash, &inner.secret, b""));
        Deduplicator { inner, hasher }
    }

    /// See [`Deduplicator::reserve_max`].
    fn reserve_max(&self) -> Option<usize> {
        let by_ids = self.max_ids.map(|ids| ids / 2);
        let by_memory = self.max_memory.map(|bytes| bytes / BYTES_PER_RESERVED_ID);
        // Where payloads are compared, there is one more for each.
        let each = if self.on_conflict == OnConflict::Ignore { 1 } else { 2 };
        by_ids.into_iter().chain(by_memory).min().map(|ids| (ids / each).max(1))
    }

    fn check(&self, gathers: bool) -> Result<Config, BuildError> {
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
            gathers,
            expected_ids: self.expected_ids as u64 * (1 + u64::from(self.on_conflict != OnConflict::Ignore)),
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
            .field("durability", &self.durability)
            .field("on_log_failure", &self.on_log_failure)
            .field("on_corrupt", &self.on_corrupt)
            .field("max_disk", &self.max_disk)
            .field("open_full", &self.open_full)
            .field("id_paths", &self.id_paths)
            .field("on_conflict", &self.on_conflict)
            .field("conflict_ignore", &self.conflict_ignore)
            .finish_non_exhaustive()
    }
}

const WINDOW_MIN: Duration = Duration::from_secs(1);
/// About what an id takes at most when memory is short; only used to choose how many ids a generation may have.
const BYTES_PER_ID: usize = 20;
/// Some times what an id takes: those before it are to be remembered, too.
const BYTES_PER_RESERVED_ID: usize = 128;
