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
