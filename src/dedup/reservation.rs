//! [`Reservation`]: ids that are nobody else's until it is resolved.

use std::fmt;

use super::Inner;
use crate::dedup::{Error, Progress};
use crate::event::{Fingerprint, ReserveVerdict, Unjudged};
use crate::time::Timestamp;
use crate::window::{Act, Answer, Times, When};
use std::sync::Arc;

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
    /// Their times, when they have any.
    times: Option<Vec<Timestamp>>,
    /// In event time, the highest time of any event asked about.
    latest: Option<Timestamp>,
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
        let hash = |range, out: &mut Vec<_>| out.extend_from_slice(&fingerprints[range]);
        inner.set.ask_batch(fingerprints.len(), hash, times, Act::Reserve, |answers| {
            verdicts.extend(answers.iter().copied().map(verdict));
        });
        let mine = || verdicts.iter().enumerate().filter(|(_, verdict)| **verdict == ReserveVerdict::FirstSeen);
        let pending = mine().map(|(index, _)| fingerprints[index]).collect();
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
        Self { inner: Arc::clone(inner), verdicts, pending, times: mine_times, latest }
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
                keeper.commit(&self.pending, self.times.as_deref(), self.latest, progress, || self.mark())?;
            }
        }
        self.pending.clear();
        Ok(())
    }

    /// Takes over what `other` holds, so that both are committed as one, all or nothing. The verdicts of `other` are
    /// dropped.
    ///
    /// # Errors
    /// `other`, when both are not of one set, or only one of them has times.
    pub fn join(&mut self, mut other: Self) -> Result<(), Self> {
        if !Arc::ptr_eq(&self.inner, &other.inner) || self.times.is_some() != other.times.is_some() {
            return Err(other);
        }
        self.pending.append(&mut other.pending);
        if let (Some(times), Some(others)) = (&mut self.times, &mut other.times) {
            times.append(others);
        }
        self.latest = self.latest.max(other.latest);
        Ok(())
    }

    /// Takes out the reserved ids that `wanted` chooses: they are a reservation of their own from now on, without verdicts.
    /// Those that stay keep their order.
    pub fn split(&mut self, mut wanted: impl FnMut(Fingerprint) -> bool) -> Self {
        let mut other = Self {
            inner: Arc::clone(&self.inner),
            verdicts: Vec::new(),
            pending: Vec::new(),
            times: self.times.as_ref().map(|_| Vec::new()),
            latest: self.latest,
        };
        let chosen: Vec<bool> = self.pending.iter().map(|fingerprint| wanted(*fingerprint)).collect();
        let mut keep = chosen.iter();
        other.pending.extend(self.pending.extract_if(.., |_| keep.next().is_some_and(|chosen| *chosen)));
        if let (Some(times), Some(others)) = (&mut self.times, &mut other.times) {
            let mut keep = chosen.iter();
            others.extend(times.extract_if(.., |_| keep.next().is_some_and(|chosen| *chosen)));
            // Neither may settle a time that only the other's events have reached.
            (self.latest, other.latest) = (times.iter().max().copied(), others.iter().max().copied());
        }
        other
    }

    /// How many ids are reserved here and not committed.
    #[must_use]
    pub fn pending(&self) -> usize {
        self.pending.len()
    }

    /// What is reserved here and not committed.
    pub(crate) fn fingerprints(&self) -> &[Fingerprint] {
        &self.pending
    }

    /// Marks what is reserved, in memory.
    fn mark(&self) {
        let clock = self.inner.clock.now().as_nanos();
        match &self.times {
            Some(times) => self.inner.set.commit_batch(&self.pending, Times::Each { times, clock }),
            None if self.inner.event_time => {
                for fingerprint in &self.pending {
                    self.inner.set.commit(*fingerprint, When::Event { time: clock, clock });
                }
            }
            None => self.inner.set.commit_batch(&self.pending, Times::Now(clock)),
        }
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        for fingerprint in &self.pending {
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

fn verdict(answer: Answer) -> ReserveVerdict {
    match answer {
        Answer::New | Answer::Reappeared => ReserveVerdict::FirstSeen,
        Answer::Seen => ReserveVerdict::Duplicate,
        Answer::InFlight => ReserveVerdict::InFlight,
        Answer::Late => ReserveVerdict::Unjudged(Unjudged::Late),
        Answer::Full => ReserveVerdict::Unjudged(Unjudged::Full),
        Answer::Unlogged => ReserveVerdict::Unjudged(Unjudged::LogFailed),
    }
}
