//! [`Stage`]: the way of a batch from its reservation to its commit.

use std::fmt;
use std::time::Instant;

use super::commit_queue::{CommitAt, CommitQueue, CommitStep, Flush};
use super::delivery::Delivery;
use super::ids::{Ids, Of, Span};
use crate::dedup::{Deduplicator, Error, Progress, Reservation};
use crate::event::{Fingerprint, ReserveVerdict, Unjudged};
use crate::time::Timestamp;

/// Takes batches from their reservation to their commit, on the thread that calls it: the path of each worker of a
/// [`Pipeline`](super::Pipeline), and of the filter `dedupd`, whose lines no queue has to carry.
///
/// ```text
/// has room ─▶ reserve ─▶ (commit ahead) ─▶ the host delivers ─▶ delivered ─▶ (flush) ─▶ commit
/// ```
///
/// It knows how many ids may be reserved and which may be so together, what is committed before its delivery, when what is
/// delivered is flushed and committed, in which order, and with what. Each batch is a frame of its own: any number of them may be
/// what a crash leaves. It holds no lock, and does no I/O but the commit.
///
/// Its [`Host`] delivers. What is neither a duplicate nor in flight has to be: also what could not be judged. A batch whose
/// delivery failed is dropped with its reservation, and comes again. A flush that failed is told by [`Stage::take_all`]: the
/// kernel says once that it could not write something, and the next flush succeeds, so nothing that was delivered before may be
/// committed after it. Until then no flush is due.
///
/// # Example
/// ```
/// # use std::time::Instant;
/// # use dedupd::pipeline::{CommitAt, Delivery, Host, Ids, Repeats, Stage, Unrecorded};
/// # use dedupd::{Deduplicator, Error, Progress, Reservation, ReserveVerdict};
/// struct Lines;
///
/// impl Host<u64> for Lines {
///     type Error = Error;
///
///     fn progress(&mut self, lines: Option<&mut u64>, _: Option<&Reservation>) -> Result<Progress, Error> {
///         let mut progress = Progress::new();
///         lines.into_iter().for_each(|lines| progress.set_source("orders", lines.to_string()));
///         Ok(progress)
///     }
///
///     fn unrecorded(&mut self, error: Error, _: usize) -> Result<Unrecorded, Error> {
///         Err(error)
///     }
/// }
///
/// let dedup = Deduplicator::builder().build()?;
/// let mut stage = Stage::new(&dedup, Delivery::AtLeastOnce, CommitAt::Once, Repeats::AreDuplicates);
/// let all = ["a", "b", "b", "c", "a"];
/// let ids = all.map(|id| dedup.fingerprint(id));
/// let (mut out, mut done) = (Vec::new(), 0);
/// while done < ids.len() {
///     let rest = Ids::new(&ids[done..]);
///     let (batch, _) = rest.split_at(stage.together(rest));
///     let reserved = stage.reserve(batch)?;
///     let is_repeat = |verdict: &_| matches!(verdict, ReserveVerdict::Duplicate | ReserveVerdict::InFlight);
///     let judged = all[done..].iter().zip(reserved.verdicts());
///     out.extend(judged.filter(|(_, verdict)| !is_repeat(verdict)).map(|(id, _)| *id));
///     done += batch.len();
///     stage.delivered(Some(reserved), batch, done as u64, Instant::now());
///     while stage.commit_next(&mut Lines)?.is_some() {}
/// }
/// assert_eq!(out, ["a", "b", "c"]);
/// # Ok::<(), dedupd::Error>(())
/// ```
pub struct Stage<B> {
    dedup: Deduplicator,
    delivery: Delivery,
    repeats: Repeats,
    delivered: CommitQueue<Delivered<B>>,
    /// Its share of what may be reserved at a time.
    share: Option<usize>,
    /// Reserved for what is delivered, with the repeats that are asked about once it is committed.
    ids: usize,
    /// Of what is delivered, where repeats of it are called duplicates.
    span: Span,
}

/// What becomes of a repeat of an ID that is reserved and not committed.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum Repeats {
    /// It waits: what it repeats may yet fail alone, and the repeat take its place. Its host sees to that.
    Wait,
    /// It is a duplicate: a batch is delivered as a whole, or nothing goes on. Only where nobody else reserves ids of this set, and one
    /// batch at a time is reserved and neither delivered nor dropped: what another gives up would be lost here. In event time all
    /// that is reserved lies within one window then, and repeats extend it once it is committed, when they do that.
    AreDuplicates,
}

/// Who runs a [`Stage`], and delivers.
pub trait Host<B> {
    /// Why it does not go on.
    type Error;

    /// What is to be recorded with the ids of `batch`, all or nothing: how far sources are, and, for
    /// [`Delivery::ExactlyOnce`], where the sinks stand. Asked for right before; for what is committed ahead of its delivery there is
    /// no batch.
    ///
    /// # Errors
    /// Nothing is recorded, and the batch stays the next.
    fn progress(&mut self, batch: Option<&mut B>, reserved: Option<&Reservation>) -> Result<Progress, Self::Error>;

    /// It could not be recorded; so many ids are concerned. Says how to go on, after a wait perhaps: see [`Error::is_retryable`].
    ///
    /// # Errors
    /// It does not go on. The batch stays the next: none behind it is committed before it.
    fn unrecorded(&mut self, error: Error, ids: usize) -> Result<Unrecorded, Self::Error>;

    /// It was recorded, with so many ids.
    fn recorded(&mut self, ids: usize) {
        let _ = ids;
    }
}

impl<B, H: Host<B> + ?Sized> Host<B> for &mut H {
    type Error = H::Error;

    fn progress(&mut self, batch: Option<&mut B>, reserved: Option<&Reservation>) -> Result<Progress, H::Error> {
        (**self).progress(batch, reserved)
    }

    fn unrecorded(&mut self, error: Error, ids: usize) -> Result<Unrecorded, H::Error> {
        (**self).unrecorded(error, ids)
    }

    fn recorded(&mut self, ids: usize) {
        (**self).recorded(ids);
    }
}

/// How to go on with what could not be recorded. There is no third way but to end.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[must_use = "it says whether it is tried again"]
pub enum Unrecorded {
    /// Try again.
    Again,
    /// Go on without: its ids are unknown from now on. For [`Delivery::AtLeastOnce`] alone: the other modes rest on what is recorded.
    PassBy,
}

/// A batch that is delivered and not committed.
struct Delivered<B> {
    reservation: Option<Reservation>,
    /// How many ids it reserves, and repeats it has.
    ids: usize,
    /// To be asked about once it is committed: that extends their windows.
    repeats: Vec<(Fingerprint, Timestamp)>,
    batch: B,
}

impl<B> Stage<B> {
    /// One that asks `dedup`, alone, and commits what is delivered `at` the time that this and the sinks ask for.
    #[must_use]
    pub fn new(dedup: &Deduplicator, delivery: Delivery, at: CommitAt, repeats: Repeats) -> Self {
        let (delivered, share, span) = (CommitQueue::new(at), dedup.reserve_max(), Span::NONE);
        Self { dedup: dedup.clone(), delivery, repeats, delivered, share, ids: 0, span }
    }

    /// With one of `stages` equal shares of what may be reserved of the set, of one ID at least: see [`Deduplicator::reserve_max`].
    #[must_use]
    pub fn one_of(self, stages: usize) -> Self {
        let share = self.dedup.reserve_max().map(|ids| (ids / stages.max(1)).max(1));
        Self { share, ..self }
    }

    /// The set that it asks.
    #[must_use]
    pub fn dedup(&self) -> &Deduplicator {
        &self.dedup
    }

    /// When batches are committed.
    #[must_use]
    pub fn at(&self) -> CommitAt {
        self.delivered.at()
    }

    /// How many of these, from the first, may be one batch; at least one, when there is one.
    ///
    /// # Cost
    /// None; in event time a look at each, where repeats are duplicates.
    #[must_use]
    pub fn together(&self, ids: Ids<'_>) -> usize {
        let by_frame = if self.dedup.durability().is_some() { IDS_PER_FRAME_MAX } else { usize::MAX };
        let ids_max = self.ids_max().min(by_frame / if ids.digests.is_empty() { 1 } else { 2 });
        let count = ids.len().min(ids_max);
        match (self.repeats, ids.of) {
            (Repeats::AreDuplicates, Of::Events(events)) => {
                let mut span = Span::NONE;
                let within = |(_, time): &&(Fingerprint, Timestamp)| {
                    span = span.with(Span::of(*time));
                    span.is_within(&self.dedup)
                };
                events[..count].iter().take_while(within).count().max(1).min(count)
            }
            _ => count,
        }
    }

    /// Whether these can be reserved beside what is delivered. When they cannot, that is to be flushed and committed before they
    /// are: reserved all the same, some may be refused, and in event time a repeat be taken for the duplicate of what is too
    /// far away.
    ///
    /// # Cost
    /// As of [`Stage::together`].
    #[must_use]
    pub fn has_room(&self, ids: Ids<'_>) -> bool {
        let has_room = self.ids.saturating_add(ids.len()) <= self.ids_max() && self.delivered.len() < BATCHES_MAX;
        self.delivered.is_empty() || has_room && self.span.with(self.span(ids)).is_within(&self.dedup)
    }

    /// Whether the share has room for so many ids beside those of what is delivered and `others` that are reserved.
    pub(super) fn has_share_for(&self, ids: usize, others: impl FnOnce() -> usize) -> bool {
        self.share.is_none_or(|share| self.ids + others() + ids <= share)
    }

    /// Reserves ids that are [together](Stage::together) one batch, for which there [is room](Stage::has_room).
    ///
    /// # Errors
    /// As [`Deduplicator::reserve_batch`].
    pub fn reserve(&self, ids: Ids<'_>) -> Result<Reservation, Unjudged> {
        match (ids.of, ids.digests) {
            (Of::Ids(ids), []) => self.dedup.reserve_fingerprints(ids),
            (Of::Events(events), []) => self.dedup.reserve_fingerprints_at(events),
            (Of::Ids(ids), digests) => self.dedup.reserve_digests(ids, digests),
            (Of::Events(events), digests) => self.dedup.reserve_digests_at(events, digests),
        }
    }

    /// Commits what is reserved and about to be delivered, where the mode is [`Delivery::AtMostOnce`]. False when it is passed by:
    /// delivered all the same, it may be so twice.
    ///
    /// # Errors
    /// The host's. Nothing was recorded, and it must not be delivered.
    pub fn commit_ahead<H: Host<B>>(&self, reserved: &mut Reservation, host: &mut H) -> Result<bool, H::Error> {
        if self.delivery != Delivery::AtMostOnce {
            return Ok(true);
        }
        let progress = host.progress(None, Some(reserved))?;
        record(&self.dedup, Some(reserved), &progress, host)
    }

    /// Takes a batch that was delivered at `now`, to be committed. `ids` is what was asked about; `None` was reserved when nothing could
    /// be judged. What its verdicts were is not known any more from then on.
    pub fn delivered(&mut self, reservation: Option<Reservation>, ids: Ids<'_>, batch: B, now: Instant) {
        let mut reservation = reservation;
        let repeats = reservation.as_ref().map_or_else(Vec::new, |reserved| self.extending(ids, reserved.verdicts()));
        if self.at() != CommitAt::Once {
            reservation.iter_mut().for_each(Reservation::shrink);
        }
        self.span = self.span.with(self.span(ids));
        let ids = reservation.as_ref().map_or(0, Reservation::events) + repeats.len();
        self.ids += ids;
        self.delivered.push(Delivered { reservation, ids, repeats, batch }, now);
    }

    /// What is to be done at `now`.
    ///
    /// # Example
    /// ```
    /// # use std::time::Instant;
    /// # use dedupd::pipeline::{CommitStep, Host, Stage};
    /// # fn turn<B, H: Host<B, Error = std::io::Error>>(
    /// #     stage: &mut Stage<B>, host: &mut H, file: &std::fs::File,
    /// # ) -> std::io::Result<()> {
    /// match stage.step(Instant::now()) {
    ///     CommitStep::Wait => {}
    ///     CommitStep::Flush(flush) => {
    ///         file.sync_data()?; // a failure is final: see `take_all`
    ///         stage.flushed(flush, Instant::now());
    ///     }
    ///     CommitStep::Commit => while stage.commit_next(host)?.is_some() {},
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn step(&mut self, now: Instant) -> CommitStep {
        self.delivered.step(now)
    }

    /// When the next flush is due, if nothing is delivered until then. `None` while one is under way, and when nothing waits for
    /// one; what can be committed is not waited for, see [`Stage::step`].
    #[must_use]
    pub fn due(&self) -> Option<Instant> {
        self.delivered.due()
    }

    /// What waits for a flush has waited long enough.
    pub fn hurry(&mut self, now: Instant) {
        self.delivered.hurry(now);
    }

    /// A flush that begins now, whether it is due or not: of all that was delivered until now. Until it has ended none is due.
    pub fn begin_flush(&mut self) -> Flush {
        self.delivered.begin_flush()
    }

    /// A flush has ended, and what it was of may be committed. What was delivered since waits for the next.
    pub fn flushed(&mut self, flush: Flush, now: Instant) {
        self.delivered.flushed(flush, now);
    }

    /// Commits the next batch that may be, and returns it; `None` when there is none.
    ///
    /// # Errors
    /// The host's. Nothing was recorded, and the batch stays the next.
    ///
    /// # Cost
    /// As of [`Reservation::try_commit`]; in event time a question for each repeat that extends.
    pub fn commit_next<H: Host<B>>(&mut self, host: &mut H) -> Result<Option<B>, H::Error> {
        let Some(next) = self.delivered.peek() else { return Ok(None) };
        let progress = host.progress(Some(&mut next.batch), next.reservation.as_ref())?;
        let is_recorded = record(&self.dedup, next.reservation.as_mut(), &progress, host)?;
        let Some(Delivered { reservation, ids, repeats, batch }) = self.delivered.next() else { return Ok(None) };
        drop(reservation);
        self.ids -= ids;
        if self.delivered.is_empty() {
            self.span = Span::NONE;
        }
        if is_recorded && !repeats.is_empty() {
            // All of these are duplicates now; asking is what extends their windows.
            drop(self.dedup.reserve_fingerprints_at(&repeats));
        }
        Ok(Some(batch))
    }

    /// Records positions without ids. False when they are passed by. They may not say of anything that it is settled that waits here
    /// to be committed.
    ///
    /// # Errors
    /// The host's; nothing was recorded.
    pub fn record_progress<H: Host<B>>(&self, progress: &Progress, host: &mut H) -> Result<bool, H::Error> {
        record(&self.dedup, None, progress, host)
    }

    /// How many batches are delivered and not committed.
    #[must_use]
    pub fn len(&self) -> usize {
        self.delivered.len()
    }

    /// Whether none is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.delivered.is_empty()
    }

    /// Whether there is something to commit.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.delivered.is_ready()
    }

    /// What is delivered and not committed, in order.
    pub fn batches(&self) -> impl Iterator<Item = &B> {
        self.delivered.iter().map(|delivered| &delivered.batch)
    }

    /// Takes out all that is delivered and not committed, in order: it will not be committed here. Its ids are released.
    pub fn take_all(&mut self) -> impl Iterator<Item = B> + use<B> {
        (self.ids, self.span) = (0, Span::NONE);
        self.delivered.take_all().map(|delivered| delivered.batch)
    }

    /// Whether what is delivered keeps ids from others.
    pub(super) fn has_ids(&self) -> bool {
        self.ids > 0
    }

    /// What is reserved for what is delivered.
    pub(super) fn reservations(&self) -> impl Iterator<Item = &Reservation> {
        self.delivered.iter().filter_map(|delivered| delivered.reservation.as_ref())
    }

    fn ids_max(&self) -> usize {
        self.share.map_or(IDS_MAX, |share| share.min(IDS_MAX))
    }

    /// Repeats within a batch, when they matter later: in event time they may be younger than what they repeat.
    fn extending(&self, ids: Ids<'_>, verdicts: &[ReserveVerdict]) -> Vec<(Fingerprint, Timestamp)> {
        let (Repeats::AreDuplicates, Of::Events(events), true) = (self.repeats, ids.of, self.dedup.extends()) else {
            return Vec::new();
        };
        let repeats = |verdict: &ReserveVerdict| {
            matches!(verdict, ReserveVerdict::InFlight | ReserveVerdict::Conflict { in_flight: true })
        };
        let asked = || (0..).zip(events).zip(verdicts).filter(|(_, verdict)| repeats(verdict)).map(|(event, _)| event);
        let digest =
            |(index, event): (usize, &(_, Timestamp))| Some((ids.digests.get(index)?.as_fingerprint(), event.1));
        asked().map(|(_, event)| *event).chain(asked().filter_map(digest)).collect()
    }

    /// The times that matter.
    fn span(&self, ids: Ids<'_>) -> Span {
        match (self.repeats, ids.of) {
            (Repeats::AreDuplicates, Of::Events(events)) => {
                events.iter().fold(Span::NONE, |span, (_, time)| span.with(Span::of(*time)))
            }
            // Without a time of their own they are of the present.
            (Repeats::AreDuplicates, Of::Ids([_, ..])) if self.dedup.is_in_event_time() => {
                Span::of(self.dedup.clock_now())
            }
            _ => Span::NONE,
        }
    }
}

/// Records all or nothing. False when it is passed by.
fn record<B, H: Host<B>>(
    dedup: &Deduplicator,
    mut reservation: Option<&mut Reservation>,
    progress: &Progress,
    host: &mut H,
) -> Result<bool, H::Error> {
    let ids = reservation.as_ref().map_or(0, |reserved| reserved.pending());
    loop {
        let recorded = match &mut reservation {
            Some(reserved) => reserved.try_commit(progress),
            None if progress.is_empty() => Ok(()),
            None => dedup.record_progress(progress),
        };
        let Err(error) = recorded else { break };
        match host.unrecorded(error, ids)? {
            Unrecorded::Again => {}
            Unrecorded::PassBy => return Ok(false),
        }
    }
    host.recorded(ids);
    Ok(true)
}

impl<B> fmt::Debug for Stage<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stage")
            .field("delivery", &self.delivery)
            .field("at", &self.at())
            .field("repeats", &self.repeats)
            .field("batches", &self.len())
            .field("ids", &self.ids)
            .finish_non_exhaustive()
    }
}

/// Ids that are delivered and not committed, at most: 25 bytes each, with digests a hundred.
const IDS_MAX: usize = 1 << 18;
const BATCHES_MAX: usize = 1 << 12;
/// A frame of these is at most 1 MiB, with up to 24 bytes for each.
const IDS_PER_FRAME_MAX: usize = 1 << 15;
