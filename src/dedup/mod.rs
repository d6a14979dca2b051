//! [`Deduplicator`]: the question "is this the first time?", asked from any thread.
//!
//! A thin layer: it hashes IDs to fingerprints, reads the clock once per call, and turns the answers of the set into
//! verdicts. A handle is two pointers; clones and [`Deduplicator::scoped`] handles share one set.
//!
//! Three ways to ask, by what happens when the caller dies before the work is done:
//! - [`Deduplicator::observe`] marks at once: at most once. Never fails; what cannot be judged is first-seen.
//! - [`Deduplicator::try_observe`] is the same, but says when it cannot judge.
//! - [`Deduplicator::reserve_batch`] marks in two steps, reserve and commit: nothing is marked whose work was not done.

mod builder;
mod conflict;
mod durability;
mod durable;
mod error;
mod housekeeping;
mod position;
mod progress;
mod recovery;
mod reservation;
mod stats;

use std::fmt;
use std::ops::Range;
use std::time::Duration;

use crate::event::{Digester, Fingerprint, Hasher, IdHash, Reason, Secret, Unjudged, Verdict};
use crate::time::{Clock, Timestamp};
use crate::window::{Act, Answer, Set, Times, When};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use durable::Durable;
use housekeeping::Tended;

pub use builder::{Builder, WhenFull};
pub use conflict::OnConflict;
pub use durability::{Durability, OnCorrupt, OnLogFailure};
pub use error::{BuildError, Error, LogError, OpenError};
pub use position::Position;
pub use progress::Progress;
pub use recovery::{Loss, Recovery, RecoveryProgress};
pub use reservation::Reservation;
pub use stats::Stats;

/// A handle on a set of event IDs seen within a window of time.
///
/// Cheap to clone, and safe to use from any number of threads: among all that ask about one ID at the same time exactly
/// one is told [`Verdict::FirstSeen`].
///
/// ```
/// use dedupd::{Deduplicator, Verdict};
/// use std::time::Duration;
///
/// let dedup = Deduplicator::builder().window(Duration::from_secs(3600)).build()?;
/// let mut verdicts = Vec::new();
/// dedup.observe_batch(&["evt_1", "evt_2", "evt_1"], &mut verdicts);
/// assert_eq!(verdicts, [Verdict::FirstSeen, Verdict::FirstSeen, Verdict::Duplicate]);
/// # Ok::<(), dedupd::Error>(())
/// ```
#[derive(Clone)]
pub struct Deduplicator {
    inner: Arc<Inner>,
    hasher: Arc<Hasher>,
}

struct Inner {
    /// Dropped first: it appends what is left.
    durable: Option<Durable>,
    set: Arc<Set>,
    clock: Arc<dyn Clock>,
    hash: IdHash,
    secret: Secret,
    window: Duration,
    event_time: bool,
    extends: bool,
    reserve_max: Option<usize>,
    /// Questions answered with first-seen because they could not be judged. Relaxed: it orders nothing.
    bypassed: AtomicU64,
    on_conflict: OnConflict,
    digester: Digester,
    /// Held while a batch with payload digests is judged, marked or released: see [`conflict`].
    judging: Mutex<()>,
    /// Conflicts that were found. Relaxed: it orders nothing.
    conflicts: AtomicU64,
    _tended: Arc<Tended>,
}

/// A verdict with its reason, for whoever wants to know why.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Explained {
    /// The verdict, or why there is none.
    pub verdict: Result<Verdict, Unjudged>,
    /// Why.
    pub reason: Reason,
    /// What stood for the ID.
    pub fingerprint: Fingerprint,
    /// The shard of this set that was asked.
    pub shard: usize,
}

impl Deduplicator {
    /// Starts to configure one. Everything has a default: a window of 24 hours, SipHash-1-3 under a random secret, the
    /// system's clock, no limits.
    pub fn builder() -> Builder {
        Builder::new()
    }

    /// A handle on the same set for another scope: a tenant, an operation. The same ID in two scopes is two ids.
    ///
    /// Scopes do not nest: `dedup.scoped("a").scoped("b")` is scope `b`. An empty scope is the unscoped handle.
    ///
    /// # Cost
    /// Derives a key and allocates: make one handle per scope and keep it. Its questions cost what others do.
    #[must_use]
    pub fn scoped(&self, scope: impl AsRef<[u8]>) -> Self {
        let hasher = Hasher::new(self.inner.hash, &self.inner.secret, scope.as_ref());
        Self { inner: Arc::clone(&self.inner), hasher: Arc::new(hasher) }
    }

    /// Records `id` and says whether it is new within the window.
    ///
    /// Marks at once: who dies between this and the work has lost the work. Never fails: what cannot be judged (the set
    /// is full and may not evict, the event is late) is [`Verdict::FirstSeen`], and counted in [`Stats::bypassed`]. An
    /// ID that a [`Reservation`] holds is [`Verdict::Duplicate`]: somebody is at it.
    ///
    /// # Cost
    /// One hash, one shard lock, one cache line; two for about one ID in seven. When the set grows, one segment
    /// of at most 1,280 entries is rebuilt now and then, and memory is mapped when none was touched ahead.
    ///
    /// # Example
    /// ```
    /// # use dedupd::{Deduplicator, Verdict};
    /// let dedup = Deduplicator::builder().build()?;
    /// match dedup.observe(b"evt_1") {
    ///     Verdict::FirstSeen => println!("do it"),
    ///     Verdict::Duplicate => println!("was done"),
    /// }
    /// assert_eq!(dedup.observe(b"evt_1"), Verdict::Duplicate);
    /// # Ok::<(), dedupd::Error>(())
    /// ```
    pub fn observe(&self, id: impl AsRef<[u8]>) -> Verdict {
        self.lenient(self.ask(|| self.fingerprint(id), None))
    }

    /// [`Deduplicator::observe`] at a time of the caller's: the event's own in event time, else the present time, which
    /// never goes back. In event time, too, an ID that a [`Reservation`] holds is a duplicate, however far away the
    /// reserved event is: its time is settled with its commit.
    pub fn observe_at(&self, id: impl AsRef<[u8]>, time: Timestamp) -> Verdict {
        self.lenient(self.ask(|| self.fingerprint(id), Some(time)))
    }

    /// Records `id` and says whether it is new within the window, or why that cannot be said.
    ///
    /// # Errors
    /// [`Unjudged::Late`] in event time, [`Unjudged::Full`] when a limit is reached and nothing may be evicted. Nothing
    /// was recorded then.
    ///
    /// # Cost
    /// As [`Deduplicator::observe`].
    pub fn try_observe(&self, id: impl AsRef<[u8]>) -> Result<Verdict, Unjudged> {
        strict(self.ask(|| self.fingerprint(id), None))
    }

    /// [`Deduplicator::try_observe`] at a time of the caller's, as for [`Deduplicator::observe_at`].
    ///
    /// # Errors
    /// As [`Deduplicator::try_observe`].
    pub fn try_observe_at(&self, id: impl AsRef<[u8]>, time: Timestamp) -> Result<Verdict, Unjudged> {
        strict(self.ask(|| self.fingerprint(id), Some(time)))
    }

    /// Records all `ids` in order; `verdicts` is cleared and filled with one verdict each.
    ///
    /// Equal to [`Deduplicator::observe`] for one after the other, several times as fast: best with some hundred ids or
    /// more at once. Only when a limit is reached meanwhile, other ids may be the ones that are refused or forgotten.
    pub fn observe_batch<I: AsRef<[u8]>>(&self, ids: &[I], verdicts: &mut Vec<Verdict>) {
        verdicts.clear();
        self.each(ids, None, |answers| self.lenient_all(answers, verdicts));
    }

    /// [`Deduplicator::observe_batch`] with a time for each id, as for [`Deduplicator::observe_at`].
    ///
    /// Ids without a time (`times` is shorter) are not judged: both slices should be of one length.
    pub fn observe_batch_at<I: AsRef<[u8]>>(&self, ids: &[I], times: &[Timestamp], verdicts: &mut Vec<Verdict>) {
        let ids = &ids[..ids.len().min(times.len())];
        verdicts.clear();
        self.each(ids, Some(times), |answers| self.lenient_all(answers, verdicts));
    }

    /// Records all `ids` in order and says for each whether it is new, or why that cannot be said.
    pub fn try_observe_batch<I: AsRef<[u8]>>(&self, ids: &[I], verdicts: &mut Vec<Result<Verdict, Unjudged>>) {
        verdicts.clear();
        self.each(ids, None, |answers| verdicts.extend(answers.iter().copied().map(strict)));
    }

    /// Reserves all `ids` that are new: nobody else is told that they are, until they are committed or released.
    ///
    /// # Errors
    /// [`Unjudged::Closed`] or [`Unjudged::LogFailed`] when nothing at all can be recorded. What concerns one id stands in
    /// its verdict.
    ///
    /// # Example
    /// ```
    /// # use dedupd::{Deduplicator, ReserveVerdict};
    /// let dedup = Deduplicator::builder().build()?;
    /// let reserved = dedup.reserve_batch(&["evt_1"])?;
    /// assert_eq!(reserved.verdicts(), [ReserveVerdict::FirstSeen]);
    /// drop(reserved); // the work failed: the next one may try
    /// let reserved = dedup.reserve_batch(&["evt_1"])?;
    /// assert_eq!(reserved.verdicts(), [ReserveVerdict::FirstSeen]);
    /// reserved.commit()?;
    /// assert!(dedup.contains("evt_1"));
    /// # Ok::<(), dedupd::Error>(())
    /// ```
    pub fn reserve_batch<I: AsRef<[u8]>>(&self, ids: &[I]) -> Result<Reservation, Unjudged> {
        let mut fingerprints = Vec::with_capacity(ids.len());
        self.hasher.fingerprints(ids, &mut fingerprints);
        self.reserve_fingerprints(&fingerprints)
    }

    /// [`Deduplicator::reserve_batch`] with a time for each id, as for [`Deduplicator::observe_at`].
    ///
    /// # Errors
    /// As [`Deduplicator::reserve_batch`].
    pub fn reserve_batch_at<I: AsRef<[u8]>>(&self, ids: &[(I, Timestamp)]) -> Result<Reservation, Unjudged> {
        let events: Vec<_> = ids.iter().map(|(id, time)| (self.fingerprint(id), *time)).collect();
        self.reserve_fingerprints_at(&events)
    }

    /// [`Deduplicator::reserve_batch`] of ids that were hashed before by [`Deduplicator::fingerprint`], on another thread
    /// perhaps.
    ///
    /// # Errors
    /// As [`Deduplicator::reserve_batch`].
    pub fn reserve_fingerprints(&self, fingerprints: &[Fingerprint]) -> Result<Reservation, Unjudged> {
        self.check_log()?;
        let times = Times::Now(self.now());
        Ok(Reservation::new(&self.inner, fingerprints, None, times))
    }

    /// [`Deduplicator::reserve_fingerprints`] with a time for each.
    ///
    /// # Errors
    /// As [`Deduplicator::reserve_batch`].
    pub fn reserve_fingerprints_at(&self, events: &[(Fingerprint, Timestamp)]) -> Result<Reservation, Unjudged> {
        self.check_log()?;
        let (fingerprints, times): (Vec<_>, Vec<_>) = events.iter().copied().unzip();
        let each = Times::Each { times: &times, clock: self.now() };
        Ok(Reservation::new(&self.inner, &fingerprints, Some(&times), each))
    }

    /// How many ids all who use the set should have reserved at a time, together: half of `max_ids`, one for each 128 bytes of
    /// `max_memory`, of either half as many where payloads are compared, and one at least; `None` without limits. A reserved ID cannot be forgotten to make room, so who reserves much more has events
    /// refused, [`Unjudged::Full`], that the oldest ids could have made room for.
    #[must_use]
    pub fn reserve_max(&self) -> Option<usize> {
        self.inner.reserve_max
    }

    /// The fingerprint of `id` in this handle's scope.
    #[inline]
    #[must_use]
    pub fn fingerprint(&self, id: impl AsRef<[u8]>) -> Fingerprint {
        self.hasher.fingerprint(id.as_ref())
    }

    /// Whether `id` is known now: seen within the window, or reserved. Records nothing.
    #[must_use]
    pub fn contains(&self, id: impl AsRef<[u8]>) -> bool {
        let answer = self.inner.set.peek(self.fingerprint(id), self.when(None));
        matches!(answer, Answer::Seen | Answer::InFlight)
    }

    /// Makes `id` unknown again, and says whether it was known. An ID that is only reserved stays so: that is its
    /// reservation's to resolve.
    ///
    /// # Errors
    /// [`LogError`] when there is a state that cannot take it; the ID is known as before. None in memory.
    pub fn forget(&self, id: impl AsRef<[u8]>) -> Result<bool, Error> {
        self.inner.notice_time();
        let fingerprint = self.fingerprint(id);
        match &self.inner.durable {
            None => Ok(self.inner.set.forget(fingerprint)),
            Some(durable) => Ok(durable.keeper().forget(fingerprint)?),
        }
    }

    /// Records `id` as [`Deduplicator::try_observe`] does, and says why the verdict is what it is.
    pub fn explain(&self, id: impl AsRef<[u8]>) -> Explained {
        self.explain_fingerprint(self.fingerprint(id), None)
    }

    /// [`Deduplicator::explain`] at a time of the caller's.
    pub fn explain_at(&self, id: impl AsRef<[u8]>, time: Timestamp) -> Explained {
        self.explain_fingerprint(self.fingerprint(id), Some(time))
    }

    fn explain_fingerprint(&self, fingerprint: Fingerprint, time: Option<Timestamp>) -> Explained {
        let future_before = self.inner.set.future();
        let answer = self.ask(|| fingerprint, time);
        let reason = match answer {
            Answer::New if self.inner.set.future() != future_before => Reason::Future,
            Answer::New => Reason::New,
            Answer::Reappeared => Reason::Reappeared,
            Answer::Seen => Reason::Seen,
            Answer::InFlight => Reason::InFlight,
            Answer::Late => Reason::Late,
            Answer::Full => Reason::Full,
            Answer::Unlogged => Reason::LogFailed,
        };
        Explained { verdict: strict(answer), reason, fingerprint, shard: self.inner.set.shard_of(fingerprint) }
    }

    /// What happened so far. Brings the set to the present first, so what has expired is not counted as live.
    ///
    /// # Cost
    /// Takes each shard's lock once.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.inner.stats()
    }

    /// The window, as it was set.
    #[must_use]
    pub fn window(&self) -> Duration {
        self.inner.window
    }

    /// The most time beyond the window that an ID may be remembered: one generation.
    #[must_use]
    pub fn slack(&self) -> Duration {
        Duration::from_nanos(self.inner.set.slack().unsigned_abs())
    }

    /// Does for at most about `budget` what the housekeeping thread does otherwise: forgets what has expired, gives
    /// memory back, and touches memory ahead. Says whether it came to the end of its round.
    ///
    /// For programs that want no thread: see [`Builder::housekeeping`].
    pub fn maintain(&self, budget: Duration) -> bool {
        self.inner.notice_time();
        self.inner.set.maintain(budget)
    }

    /// What opening the state found; `None` for a set in memory.
    #[must_use]
    pub fn recovery(&self) -> Option<&Recovery> {
        self.inner.durable.as_ref().map(Durable::recovery)
    }

    /// Positions of sources and sinks as they were recorded last, before a restart or since.
    #[must_use]
    pub fn progress(&self) -> Progress {
        self.inner.durable.as_ref().map(|durable| durable.keeper().progress()).unwrap_or_default()
    }

    /// Records positions without ids. In memory, and with [`Durability::None`], it does nothing.
    ///
    /// # Errors
    /// [`LogError`]; nothing was recorded.
    pub fn record_progress(&self, progress: &Progress) -> Result<(), Error> {
        match &self.inner.durable {
            None => Ok(()),
            Some(durable) => Ok(durable.keeper().commit(&[], None, None, progress, || ())?),
        }
    }

    /// The position of everything answered so far: it is on disk when [`Deduplicator::wait_durable`] of it returns.
    ///
    /// # Cost
    /// Appends what single questions have gathered.
    #[must_use]
    pub fn position(&self) -> Position {
        let durable = self.inner.durable.as_ref();
        Position(durable.map_or_else(|| Some(Default::default()), |durable| durable.keeper().position()))
    }

    /// Waits until everything up to `position` is on disk, whatever the durability. In memory there is nothing to wait for.
    ///
    /// # Errors
    /// [`LogError`]: it is not on disk, or that is not known.
    pub fn wait_durable(&self, position: Position) -> Result<(), Error> {
        match &self.inner.durable {
            None => Ok(()),
            Some(durable) => Ok(durable.keeper().wait(position.0)?),
        }
    }

    /// Waits until everything answered so far is on disk, whatever the durability. In memory there is nothing to wait for.
    ///
    /// # Errors
    /// As [`Deduplicator::wait_durable`].
    pub fn sync(&self) -> Result<(), Error> {
        self.wait_durable(self.position())
    }

    /// Closes this handle. The last one, when no [`Reservation`] is left either, puts everything on disk and reports what a
    /// drop would hide.
    ///
    /// # Errors
    /// [`LogError`]: something is not on disk, or that is not known.
    pub fn close(self) -> Result<(), Error> {
        match Arc::into_inner(self.inner).and_then(|mut inner| inner.durable.take()) {
            None => Ok(()),
            Some(durable) => Ok(durable.close()?),
        }
    }

    /// What commits survive; `None` in memory.
    pub(crate) fn durability(&self) -> Option<Durability> {
        self.inner.durable.as_ref().map(|durable| durable.keeper().durability())
    }

    /// Questions are answered, and commits succeed, also when the log has failed.
    pub(crate) fn goes_on_without_log(&self) -> bool {
        self.inner.durable.as_ref().is_some_and(|durable| durable.keeper().goes_on_without_log())
    }

    /// Whether everything up to `position` is on disk. In memory it always is.
    pub(crate) fn is_on_disk(&self, position: Position) -> bool {
        self.inner.durable.as_ref().is_none_or(|durable| durable.keeper().is_on_disk(position.0))
    }

    /// The handle judges events by their own time.
    pub(crate) fn is_in_event_time(&self) -> bool {
        self.inner.event_time
    }

    /// Whether repeats extend windows.
    pub(crate) fn extends(&self) -> bool {
        self.inner.extends
    }

    /// The time by the handle's clock.
    pub(crate) fn clock_now(&self) -> Timestamp {
        self.inner.clock.now()
    }

    /// Appends the fingerprints of `ids`.
    pub(crate) fn fingerprints<I: AsRef<[u8]>>(&self, ids: &[I], fingerprints: &mut Vec<Fingerprint>) {
        self.hasher.fingerprints(ids, fingerprints);
    }

    fn check_log(&self) -> Result<(), Unjudged> {
        let has_ended = self.inner.durable.as_ref().is_some_and(|durable| durable.keeper().has_ended());
        if has_ended { Err(Unjudged::LogFailed) } else { Ok(()) }
    }

    fn now(&self) -> i64 {
        self.inner.clock.now().as_nanos()
    }

    #[inline]
    fn when(&self, time: Option<Timestamp>) -> When {
        let time = time.map(Timestamp::as_nanos);
        match (self.inner.event_time, time) {
            (false, Some(time)) => When::Now(time),
            (false, None) => When::Now(self.now()),
            (true, time) => {
                let clock = self.now();
                When::Event { time: time.unwrap_or(clock), clock }
            }
        }
    }

    #[inline]
    fn ask(&self, fingerprint: impl FnOnce() -> Fingerprint, time: Option<Timestamp>) -> Answer {
        if self.inner.durable.is_some() || self.inner.event_time {
            return self.ask_with_care(fingerprint(), time);
        }
        let now = || time.map_or_else(|| self.now(), Timestamp::as_nanos);
        self.inner.set.ask_now(fingerprint, now, Act::Observe)
    }

    /// The same with a log or in event time.
    #[inline(never)]
    fn ask_with_care(&self, fingerprint: Fingerprint, time: Option<Timestamp>) -> Answer {
        let when = self.when(time);
        match &self.inner.durable {
            None => self.inner.set.ask(fingerprint, when, Act::Observe),
            Some(durable) => durable.keeper().ask(fingerprint, when),
        }
    }

    fn each<I: AsRef<[u8]>>(&self, ids: &[I], times: Option<&[Timestamp]>, take: impl FnMut(&[Answer])) {
        let clock = self.now();
        let fixed;
        let times = match times {
            Some(times) => Times::Each { times, clock },
            None if self.inner.event_time => {
                fixed = vec![Timestamp::from_nanos(clock); ids.len()];
                Times::Each { times: &fixed, clock }
            }
            None => Times::Now(clock),
        };
        match &*self.hasher {
            Hasher::SipHash13(hasher) => {
                let hash = |range, fingerprints: &mut _| hasher.fingerprints(&ids[range], fingerprints);
                self.inner.ask_batch(ids.len(), hash, times, take);
            }
            Hasher::Xxh3(hasher) => {
                let hash = |range, fingerprints: &mut _| hasher.fingerprints(&ids[range], fingerprints);
                self.inner.ask_batch(ids.len(), hash, times, take);
            }
        }
    }

    #[inline]
    fn lenient(&self, answer: Answer) -> Verdict {
        if answer.is_unjudged() {
            self.inner.bypassed.fetch_add(1, Ordering::Relaxed);
        }
        lenient(answer)
    }

    /// Without a branch for each: which answer it is cannot be predicted.
    fn lenient_all(&self, answers: &[Answer], verdicts: &mut Vec<Verdict>) {
        verdicts.extend(answers.iter().copied().map(lenient));
        let bypassed = answers.iter().filter(|answer| answer.is_unjudged()).count();
        if bypassed > 0 {
            self.inner.bypassed.fetch_add(bypassed as u64, Ordering::Relaxed);
        }
    }
}

impl Inner {
    #[inline]
    fn ask_batch(
        &self,
        questions: usize,
        hash: impl FnMut(Range<usize>, &mut Vec<Fingerprint>),
        times: Times<'_>,
        take: impl FnMut(&[Answer]),
    ) {
        match &self.durable {
            None => self.set.ask_batch(questions, hash, times, Act::Observe, take),
            Some(durable) => durable.keeper().ask_batch(questions, hash, times, take),
        }
    }

    /// Takes notice of the clock where time is the clock's.
    fn notice_time(&self) {
        if !self.event_time {
            self.set.notice_clock(self.clock.now().as_nanos());
        }
    }

    fn stats(&self) -> Stats {
        self.notice_time();
        let keeper = self.durable.as_ref().map(Durable::keeper);
        let (unlogged, disk_bytes) =
            keeper.map_or((0, 0), |keeper| (keeper.unlogged() + keeper.waiting(), keeper.disk_bytes()));
        let conflicts = self.conflicts.load(Ordering::Relaxed);
        Stats { unlogged, disk_bytes, conflicts, ..Stats::new(&self.set, self.bypassed.load(Ordering::Relaxed)) }
    }
}

/// Shows how it is set, never what is in it.
impl fmt::Debug for Deduplicator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Deduplicator")
            .field("window", &self.inner.window)
            .field("slack", &self.slack())
            .field("hash", &self.inner.hash)
            .finish_non_exhaustive()
    }
}

#[inline]
fn lenient(answer: Answer) -> Verdict {
    if matches!(answer, Answer::Seen | Answer::InFlight) { Verdict::Duplicate } else { Verdict::FirstSeen }
}

#[inline]
fn strict(answer: Answer) -> Result<Verdict, Unjudged> {
    match answer {
        Answer::New | Answer::Reappeared => Ok(Verdict::FirstSeen),
        Answer::Seen | Answer::InFlight => Ok(Verdict::Duplicate),
        Answer::Late => Err(Unjudged::Late),
        Answer::Full => Err(Unjudged::Full),
        Answer::Unlogged => Err(Unjudged::LogFailed),
    }
}
