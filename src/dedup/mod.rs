//! [`Deduplicator`]: the question "is this the first time?", asked from any thread.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::event::{Fingerprint, Hasher, IdHash, ReserveVerdict, Secret, Unjudged, Verdict};
use crate::time::{Clock, SystemClock, Timestamp};
use crate::window::Set;

/// A handle on a set of event IDs. Clones share the set.
#[derive(Clone)]
pub struct Deduplicator {
    inner: Arc<Inner>,
    hasher: Arc<Hasher>,
}

struct Inner {
    set: Set,
    window: i64,
    clock: Box<dyn Clock>,
    hash: IdHash,
    secret: Secret,
    first_seen: AtomicU64,
    duplicates: AtomicU64,
}

/// Counters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Ids in the set now, within the window.
    pub live_ids: u64,
    /// Ids reserved and not yet resolved.
    pub pending_ids: u64,
    /// Memory held, in bytes, everything included.
    pub memory_bytes: u64,
    /// Questions answered with first-seen.
    pub first_seen: u64,
    /// Questions answered with duplicate.
    pub duplicates: u64,
    /// Ids forgotten before their window ended, because a limit was reached.
    pub evicted_early: u64,
    /// Questions answered with first-seen because they could not be judged.
    pub bypassed: u64,
    /// Questions refused as late.
    pub late: u64,
    /// Events whose time was further ahead of the clock than allowed.
    pub future: u64,
    /// Questions refused because the set was full.
    pub full: u64,
}

/// What to do when a limit is reached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum WhenFull {
    /// Forget the oldest generation, about 1/64 of the ids, and count every one of them.
    #[default]
    EvictOldest,
    /// Refuse new ids with [`Unjudged::Full`].
    Refuse,
}

/// Umbrella error.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The configuration is invalid.
    #[error(transparent)]
    Build(#[from] BuildError),
    /// The question has no answer.
    #[error(transparent)]
    Unjudged(#[from] Unjudged),
}

/// Why a configuration is refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// No secret could be made.
    #[error("no random secret could be read from the operating system")]
    Secret(#[source] std::io::Error),
}

/// Builds a [`Deduplicator`].
#[must_use = "a builder does nothing until it is built"]
pub struct Builder {
    window: Duration,
    hash: IdHash,
    secret: Option<Secret>,
    clock: Box<dyn Clock>,
}

impl std::fmt::Debug for Builder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Builder").finish_non_exhaustive()
    }
}
impl std::fmt::Debug for Deduplicator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Deduplicator").finish_non_exhaustive()
    }
}

#[allow(missing_docs)]
impl Builder {
    pub fn window(mut self, window: Duration) -> Self {
        self.window = window;
        self
    }
    pub fn expected_ids(self, _ids: usize) -> Self {
        self
    }
    pub fn hash(mut self, hash: IdHash) -> Self {
        self.hash = hash;
        self
    }
    pub fn secret(mut self, secret: impl Into<Secret>) -> Self {
        self.secret = Some(secret.into());
        self
    }
    pub fn clock(mut self, clock: impl Clock + 'static) -> Self {
        self.clock = Box::new(clock);
        self
    }
    /// Repeats extend the window.
    pub fn extend_on_duplicate(self, _extend: bool) -> Self {
        self
    }
    /// Judges by the events' own time: how far behind the highest time seen an event may be.
    pub fn lateness(self, _lateness: Duration) -> Self {
        self
    }
    /// How far ahead of the clock an event time may be (1 h).
    pub fn max_future(self, _max_future: Duration) -> Self {
        self
    }
    pub fn max_ids(self, _ids: usize) -> Self {
        self
    }
    pub fn max_memory(self, _bytes: usize) -> Self {
        self
    }
    pub fn when_full(self, _when_full: WhenFull) -> Self {
        self
    }
    pub fn build(self) -> Result<Deduplicator, Error> {
        let secret = match self.secret {
            Some(secret) => secret,
            None => Secret::random().map_err(BuildError::Secret)?,
        };
        let hasher = Arc::new(Hasher::new(self.hash, &secret, b""));
        let inner = Inner {
            set: Set::default(),
            window: crate::time::nanos(self.window),
            clock: self.clock,
            hash: self.hash,
            secret,
            first_seen: AtomicU64::new(0),
            duplicates: AtomicU64::new(0),
        };
        Ok(Deduplicator { inner: Arc::new(inner), hasher })
    }
}

#[allow(missing_docs)]
impl Deduplicator {
    pub fn builder() -> Builder {
        Builder {
            window: Duration::from_secs(24 * 3600),
            hash: IdHash::default(),
            secret: None,
            clock: Box::new(SystemClock::new()),
        }
    }

    /// A handle on the same set that folds `scope` into every fingerprint.
    #[must_use]
    pub fn scoped(&self, scope: impl AsRef<[u8]>) -> Self {
        let hasher = Hasher::new(self.inner.hash, &self.inner.secret, scope.as_ref());
        Self { inner: Arc::clone(&self.inner), hasher: Arc::new(hasher) }
    }

    #[must_use]
    pub fn fingerprint(&self, id: impl AsRef<[u8]>) -> Fingerprint {
        self.hasher.fingerprint(id.as_ref())
    }

    pub fn observe(&self, id: impl AsRef<[u8]>) -> Verdict {
        let reserved = self.reserve_fingerprints(&[self.fingerprint(id)]);
        match reserved.map(|r| {
            let v = r.verdicts()[0];
            r.commit().map(|()| v)
        }) {
            Ok(Ok(ReserveVerdict::Duplicate | ReserveVerdict::InFlight)) => Verdict::Duplicate,
            _ => Verdict::FirstSeen,
        }
    }

    /// Reserves ids that are already hashed; with event time.
    pub fn reserve_fingerprints_at(&self, events: &[(Fingerprint, Timestamp)]) -> Result<Reservation, Unjudged> {
        let f: Vec<_> = events.iter().map(|e| e.0).collect();
        self.reserve_fingerprints(&f)
    }

    /// Reserves ids that are already hashed.
    pub fn reserve_fingerprints(&self, fingerprints: &[Fingerprint]) -> Result<Reservation, Unjudged> {
        let now = self.inner.clock.now().as_nanos();
        let mut seen = self.inner.set.seen.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let mut verdicts = Vec::new();
        let mut mine = Vec::new();
        for f in fingerprints {
            let v = match seen.get(&f.as_u128()) {
                Some((t, true)) if now - t < self.inner.window => ReserveVerdict::Duplicate,
                Some((_, false)) => ReserveVerdict::InFlight,
                _ => {
                    seen.insert(f.as_u128(), (now, false));
                    mine.push(f.as_u128());
                    ReserveVerdict::FirstSeen
                }
            };
            match v {
                ReserveVerdict::FirstSeen => self.inner.first_seen.fetch_add(1, Ordering::Relaxed),
                _ => self.inner.duplicates.fetch_add(1, Ordering::Relaxed),
            };
            verdicts.push(v);
        }
        drop(seen);
        Ok(Reservation { dedup: self.clone(), verdicts, mine })
    }

    pub fn stats(&self) -> Stats {
        let live = self.inner.set.seen.lock().map_or(0, |s| s.len());
        Stats {
            live_ids: live as u64,
            first_seen: self.inner.first_seen.load(Ordering::Relaxed),
            duplicates: self.inner.duplicates.load(Ordering::Relaxed),
            ..Stats::default()
        }
    }
}

/// Ids reserved and not yet resolved. Dropping it releases them.
#[must_use = "dropping a reservation releases its ids"]
pub struct Reservation {
    dedup: Deduplicator,
    verdicts: Vec<ReserveVerdict>,
    mine: Vec<u128>,
}

impl std::fmt::Debug for Reservation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reservation").finish_non_exhaustive()
    }
}

impl Reservation {
    /// One verdict per id, in order.
    #[must_use]
    pub fn verdicts(&self) -> &[ReserveVerdict] {
        &self.verdicts
    }

    /// Marks the reserved ids as seen.
    ///
    /// # Errors
    /// When the log fails.
    pub fn commit(mut self) -> Result<(), Error> {
        let now = self.dedup.inner.clock.now().as_nanos();
        let mut seen = self.dedup.inner.set.seen.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        for f in std::mem::take(&mut self.mine) {
            seen.insert(f, (now, true));
        }
        drop(seen);
        Ok(())
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        let mut seen = self.dedup.inner.set.seen.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        for f in &self.mine {
            seen.remove(f);
        }
    }
}
