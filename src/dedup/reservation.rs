//! [`Reservation`]: ids that are nobody else's until it is resolved.

use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt;
use std::sync::{Arc, MutexGuard, PoisonError};

use super::Inner;
use crate::dedup::{Error, Progress};
use crate::event::{Fingerprint, ReserveVerdict, Unjudged};
use crate::time::Timestamp;
use crate::window::{Answer, Places, Times, When};

/// Ids reserved and not yet resolved. [`commit`](Self::commit) marks them as seen; dropping it releases them, so that
/// whoever asks next is told [`ReserveVerdict::FirstSeen`].
///
/// Pending ids neither expire nor are evicted: a reservation that is leaked holds its ids as long as the set lives.
///
/// ```
/// use dedupd::Deduplicator;
///
/// let dedup = Deduplicator::builder().build()?;
/// let mut reserved = dedup.reserve_batch(&["evt_1", "evt_2"])?;
/// let failed = dedup.fingerprint("evt_2");
/// let undelivered = reserved.split(|id| id == failed);
/// reserved.commit()?;
/// drop(undelivered);
/// assert!(dedup.contains("evt_1") && !dedup.contains("evt_2"));
/// # Ok::<(), dedupd::Error>(())
/// ```
#[must_use = "dropping a reservation releases its ids"]
pub struct Reservation {
    inner: Arc<Inner>,
    verdicts: Vec<ReserveVerdict>,
    /// The fingerprints that are reserved here.
    pending: Vec<Fingerprint>,
    /// Where the first of these stand, when that is known.
    places: Option<Places>,
    /// Their times, when they have any.
    times: Option<Vec<Timestamp>>,
    /// The payload digests that are to be committed.
    digests: Vec<PendingDigest>,
    /// In event time, the highest time of any event asked about.
    latest: Option<Timestamp>,
}

/// A payload digest that is to be committed.
pub(super) struct PendingDigest {
    /// The ID that is reserved beside it; none when its ID is known.
    pub(super) id: Option<Fingerprint>,
    pub(super) digest: Fingerprint,
    /// When its ID has one.
    pub(super) time: Option<Timestamp>,
    /// It is marked already, and only to be recorded: what is pending of it by now is somebody else's.
    pub(super) is_marked: bool,
}

/// What was found of a batch with payload digests, and reserved of it.
#[derive(Default)]
pub(super) struct Judged {
    pub(super) verdicts: Vec<ReserveVerdict>,
    pub(super) pending: Vec<Fingerprint>,
    pub(super) times: Option<Vec<Timestamp>>,
    pub(super) digests: Vec<PendingDigest>,
    pub(super) latest: Option<Timestamp>,
}

impl Reservation {
    pub(super) fn new(
        inner: &Arc<Inner>,
        fingerprints: &[Fingerprint],
        each: Option<&[Timestamp]>,
        times: Times<'_>,
    ) -> Self {
        let mut verdicts = Vec::with_capacity(fingerprints.len());
        let fixed;
        let times = match times {
            Times::Now(now) if inner.event_time => {
                fixed = vec![Timestamp::from_nanos(now); fingerprints.len()];
                Times::Each { times: &fixed, clock: now }
            }
            times => times,
        };
        let mut places = inner.set.reserve_batch(fingerprints, times, |answers| {
            verdicts.extend(answers.iter().copied().map(verdict));
        });
        let mine = || verdicts.iter().enumerate().filter(|(_, verdict)| **verdict == ReserveVerdict::FirstSeen);
        let pending = match &mut places {
            Some(places) => std::mem::take(places.fingerprints()),
            None => first_seen(fingerprints, &verdicts),
        };
        let mine_times = each.map(|times| mine().map(|(index, _)| times[index]).collect());
        let latest = match times {
            Times::Each { times, .. } => times.iter().max().copied(),
            Times::Now(_) => None,
        };
        let confirmed = inner.durable.as_ref().is_none_or(|durable| durable.keeper().confirm());
        if !confirmed {
            let duplicates = verdicts.iter_mut().filter(|verdict| **verdict == ReserveVerdict::Duplicate);
            duplicates.for_each(|verdict| *verdict = ReserveVerdict::Unjudged(Unjudged::LogFailed));
        }
        Self { inner: Arc::clone(inner), verdicts, pending, places, times: mine_times, digests: Vec::new(), latest }
    }

    /// Of a batch with payload digests; what it found is to be confirmed still.
    pub(super) fn judged(inner: &Arc<Inner>, judged: Judged) -> Self {
        let Judged { mut verdicts, pending, times, digests, latest } = judged;
        let confirmed = inner.durable.as_ref().is_none_or(|durable| durable.keeper().confirm());
        let rests_on_log = |verdict: &&mut ReserveVerdict| {
            matches!(verdict, ReserveVerdict::Duplicate | ReserveVerdict::Conflict { in_flight: false })
        };
        if !confirmed {
            let unconfirmed = verdicts.iter_mut().filter(rests_on_log);
            unconfirmed.for_each(|verdict| *verdict = ReserveVerdict::Unjudged(Unjudged::LogFailed));
        }
        Self { inner: Arc::clone(inner), verdicts, pending, places: None, times, digests, latest }
    }

    /// One verdict for each id, in order.
    pub fn verdicts(&self) -> &[ReserveVerdict] {
        &self.verdicts
    }

    /// Marks the reserved ids as seen. Their window runs from now; in event time from the event.
    ///
    /// # Errors
    /// As [`Reservation::try_commit`]; the ids are released.
    pub fn commit(mut self) -> Result<(), Error> {
        self.try_commit(&Progress::new())
    }

    /// Marks the reserved ids as seen and records `progress`, all or nothing: after a crash both are known, or neither. With
    /// [`Durability::PowerLoss`](super::Durability::PowerLoss) it returns when both are on disk.
    ///
    /// # Errors
    /// [`LogError`](super::LogError) when there is a state that cannot take it. Nothing has changed, and the ids are still
    /// reserved: the call may be repeated. Only when a sync has failed it is not known what is on disk. None in memory.
    pub fn try_commit(&mut self, progress: &Progress) -> Result<(), Error> {
        match &self.inner.durable {
            None => self.mark(),
            Some(durable) => {
                let keeper = durable.keeper();
                let (records, times) = self.records();
                keeper.commit(&records, times.as_deref(), self.latest, progress, || self.mark())?;
            }
        }
        self.pending.clear();
        self.places = None;
        self.digests.clear();
        Ok(())
    }

    /// What is reserved, and the times of that: the ids, and behind them the digests.
    fn records(&self) -> (Cow<'_, [Fingerprint]>, Option<Cow<'_, [Timestamp]>>) {
        let (ids, times) = (Cow::Borrowed(&self.pending[..]), self.times.as_deref().map(Cow::Borrowed));
        if self.digests.is_empty() {
            return (ids, times);
        }
        let mut records = ids.into_owned();
        records.extend(self.digests.iter().map(|pending| pending.digest));
        let times = times.map(|times| {
            let mut times = times.into_owned();
            times.extend(self.digests.iter().filter_map(|pending| pending.time));
            Cow::Owned(times)
        });
        (Cow::Owned(records), times)
    }

    /// Takes over what `other` holds, so that both are committed as one, all or nothing. The verdicts of `other` are
    /// dropped.
    ///
    /// # Errors
    /// `other`, when both are not of one set, or only one of them has times.
    #[expect(clippy::result_large_err, reason = "it is handed back")]
    pub fn join(&mut self, mut other: Self) -> Result<(), Self> {
        if !Arc::ptr_eq(&self.inner, &other.inner) || self.times.is_some() != other.times.is_some() {
            return Err(other);
        }
        self.pending.append(&mut other.pending);
        if let (Some(times), Some(others)) = (&mut self.times, &mut other.times) {
            times.append(others);
        }
        self.digests.append(&mut other.digests);
        self.latest = self.latest.max(other.latest);
        Ok(())
    }

    /// Takes out the reserved ids that `wanted` chooses: they are a reservation of their own from now on, without verdicts.
    /// Those that stay keep their order. The payload digest of a first-seen event goes with its ID; that of an event whose ID
    /// is known, a conflict for instance, stands alone, and is chosen by [the fingerprint of that](crate::Digest::as_fingerprint).
    pub fn split(&mut self, mut wanted: impl FnMut(Fingerprint) -> bool) -> Self {
        let mut other = Self {
            inner: Arc::clone(&self.inner),
            verdicts: Vec::new(),
            pending: Vec::new(),
            places: None,
            times: self.times.as_ref().map(|_| Vec::new()),
            digests: Vec::new(),
            latest: self.latest,
        };
        self.places = None;
        let chosen: Vec<bool> = self.pending.iter().map(|fingerprint| wanted(*fingerprint)).collect();
        let mut keep = chosen.iter();
        other.pending.extend(self.pending.extract_if(.., |_| keep.next().is_some_and(|chosen| *chosen)));
        if let (Some(times), Some(others)) = (&mut self.times, &mut other.times) {
            let mut keep = chosen.iter();
            others.extend(times.extract_if(.., |_| keep.next().is_some_and(|chosen| *chosen)));
        }
        if !self.digests.is_empty() {
            let taken: HashSet<Fingerprint> = other.pending.iter().copied().collect();
            other.digests.extend(self.digests.extract_if(.., |pending| match pending.id {
                Some(id) => taken.contains(&id),
                None => wanted(pending.digest),
            }));
        }
        if self.times.is_some() {
            // Neither may settle a time that only the other's events have reached.
            (self.latest, other.latest) = (self.latest_pending(), other.latest_pending());
        }
        other
    }

    /// The highest time of what is reserved.
    fn latest_pending(&self) -> Option<Timestamp> {
        let digests = self.digests.iter().filter_map(|pending| pending.time);
        self.times.iter().flatten().copied().chain(digests).max()
    }

    /// How many ids are reserved here and not committed; their payload digests do not count.
    #[must_use]
    pub fn pending(&self) -> usize {
        self.pending.len()
    }

    /// Nothing is reserved here, or all is committed.
    pub(crate) fn is_empty(&self) -> bool {
        self.pending.is_empty() && self.digests.is_empty()
    }

    /// How many events it holds places of the set for, where each may have two.
    pub(crate) fn events(&self) -> usize {
        self.pending.len().max(self.digests.len())
    }

    /// Gives back the memory of what is only for who asked: the verdicts, and room for ids that are not reserved.
    pub(crate) fn shrink(&mut self) {
        self.verdicts = Vec::new();
        if self.pending.capacity() > 2 * self.pending.len() {
            self.pending.shrink_to_fit();
            self.places.iter_mut().for_each(Places::shrink);
        }
    }

    /// The ids that are reserved here and not committed.
    pub(crate) fn fingerprints(&self) -> &[Fingerprint] {
        &self.pending
    }

    /// Their times, in event time.
    pub(crate) fn times(&self) -> Option<&[Timestamp]> {
        self.times.as_deref()
    }

    /// Marks what is reserved, in memory. Digests come after the ids, so that none is forgotten before its ID is: a repeat
    /// would be a conflict then.
    fn mark(&self) {
        // The caller's code; before anything is locked.
        let clock = self.inner.clock.now().as_nanos();
        let _in_pairs = self.judging();
        match &self.places {
            Some(places) if !self.inner.event_time => self.inner.set.commit_placed(&self.pending, places, clock),
            _ => self.mark_these(&self.pending, self.times.as_deref(), clock),
        }
        if !self.digests.is_empty() {
            let (digests, times): (Vec<_>, Vec<_>) =
                self.reserved().map(|pending| (pending.digest, pending.time)).unzip();
            let times: Vec<Timestamp> = times.into_iter().flatten().collect();
            self.mark_these(&digests, self.times.is_some().then_some(&times), clock);
        }
    }

    /// The digests that are pending for this.
    fn reserved(&self) -> impl Iterator<Item = &PendingDigest> {
        self.digests.iter().filter(|pending| !pending.is_marked)
    }

    /// Payloads are compared: nobody asks about an ID between it and its digest. A question there could extend the window of the
    /// ID alone, and a limit make the set forget the time that the digest is about to be marked at.
    fn judging(&self) -> Option<MutexGuard<'_, ()>> {
        (!self.digests.is_empty()).then(|| self.inner.judging.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn mark_these(&self, fingerprints: &[Fingerprint], times: Option<&[Timestamp]>, clock: i64) {
        match times {
            Some(times) => self.inner.set.commit_batch(fingerprints, Times::Each { times, clock }),
            None if self.inner.event_time => {
                for fingerprint in fingerprints {
                    self.inner.set.commit(*fingerprint, When::Event { time: clock, clock });
                }
            }
            None => self.inner.set.commit_batch(fingerprints, Times::Now(clock)),
        }
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        let _in_pairs = self.judging();
        // Ids first: a payload that is unknown while its ID is known is a conflict.
        for fingerprint in self.pending.iter().chain(self.reserved().map(|pending| &pending.digest)) {
            self.inner.set.release(*fingerprint);
        }
    }
}

impl fmt::Debug for Reservation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reservation")
            .field("ids", &self.verdicts.len())
            .field("pending", &self.pending.len())
            .finish_non_exhaustive()
    }
}

/// Those that are first-seen, without a branch for each: which ones they are cannot be predicted.
fn first_seen(fingerprints: &[Fingerprint], verdicts: &[ReserveVerdict]) -> Vec<Fingerprint> {
    let mut first_seen = fingerprints.to_vec();
    let mut count = 0;
    for (fingerprint, verdict) in fingerprints.iter().zip(verdicts) {
        first_seen[count] = *fingerprint;
        count += usize::from(*verdict == ReserveVerdict::FirstSeen);
    }
    first_seen.truncate(count);
    first_seen
}

pub(super) fn verdict(answer: Answer) -> ReserveVerdict {
    match answer {
        Answer::New | Answer::Reappeared => ReserveVerdict::FirstSeen,
        Answer::Seen => ReserveVerdict::Duplicate,
        Answer::InFlight => ReserveVerdict::InFlight,
        Answer::Late => ReserveVerdict::Unjudged(Unjudged::Late),
        Answer::Full => ReserveVerdict::Unjudged(Unjudged::Full),
        Answer::Unlogged => ReserveVerdict::Unjudged(Unjudged::LogFailed),
    }
}
