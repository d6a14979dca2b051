//! What the answers of a batch come to, event by event.

use std::collections::{HashMap, HashSet};
use std::sync::PoisonError;
use std::sync::atomic::Ordering;

use super::super::reservation::{Judged, PendingDigest, verdict};
use super::asked::{Asked, Batch};
use crate::event::{Fingerprint, ReserveVerdict, Unjudged};
use crate::time::Timestamp;
use crate::window::Answer;

/// Judges one batch.
pub(super) struct Judge<'a> {
    batch: Batch<'a>,
    found: Judged,
    /// Ids of this batch that were released, as their digests could not be reserved, and why.
    released: HashMap<Fingerprint, Unjudged>,
    /// Digests of this batch that are not reserved, of conflicts for instance.
    unrecorded: HashSet<Fingerprint>,
    /// Where repeats extend windows, the digests that were known before: see [`Judge::look_ahead`].
    known_before: HashSet<Fingerprint>,
    /// Digests that a question has reserved after the event that they are committed with.
    adopted: HashSet<Fingerprint>,
    /// Ids that were released, as their digests are in flight elsewhere.
    elsewhere: HashSet<Fingerprint>,
}

impl<'a> Judge<'a> {
    pub(super) fn new(batch: Batch<'a>) -> Self {
        Self {
            batch,
            found: Judged { times: batch.times.map(|_| Vec::new()), ..Judged::default() },
            released: HashMap::new(),
            unrecorded: HashSet::new(),
            known_before: HashSet::new(),
            adopted: HashSet::new(),
            elsewhere: HashSet::new(),
        }
    }

    pub(super) fn judge(mut self) -> Judged {
        let batch = self.batch;
        let one_at_a_time = batch.inner.judging.lock().unwrap_or_else(PoisonError::into_inner);
        if batch.inner.extends {
            self.look_ahead();
        }
        let asked = batch.ask();
        for index in 0..batch.ids.len() {
            let verdict = self.weigh(&asked, index);
            self.found.verdicts.push(verdict);
        }
        drop(one_at_a_time);
        if batch.inner.event_time {
            let clock = (!batch.ids.is_empty()).then(|| Timestamp::from_nanos(batch.clock));
            self.found.latest = batch.times.map_or(clock, |times| times.iter().max().copied());
        }
        self.found
    }

    /// Where repeats extend windows, the question about an ID keeps it, and its digest may leave before it is asked about.
    fn look_ahead(&mut self) {
        let batch = self.batch;
        let known = (0..batch.ids.len()).filter(|index| self.is_known(*index, batch.digest(*index)));
        self.known_before = known.map(|index| batch.digest(index)).collect();
    }

    /// The verdict on one event, after those before it in the batch. Nothing stays reserved that no commit is to mark.
    fn weigh(&mut self, asked: &Asked<'_>, index: usize) -> ReserveVerdict {
        let (id, digest) = (self.batch.ids[index], self.batch.digest(index));
        let (answer, of_digest) = asked.answers[index];
        if answer.is_first() {
            return self.first_seen(asked, index);
        }
        let is_reserved = of_digest.is_some_and(Answer::is_first) && !self.adopted.contains(&digest);
        if let Some(why) = self.released.get(&id).copied().filter(|_| answer == Answer::InFlight) {
            self.release_if(is_reserved, digest);
            return ReserveVerdict::Unjudged(why);
        }
        match of_digest {
            _ if answer.is_unjudged() || self.adopted.contains(&digest) => {}
            Some(Answer::InFlight) if !self.unrecorded.contains(&digest) => {}
            Some(Answer::New | Answer::Reappeared | Answer::Full) if self.known_before.contains(&digest) => {
                // Known again at once, also when this batch is dropped: its ID stays.
                if is_reserved && self.batch.inner.set.commit(digest, self.batch.when(index)) {
                    self.hold(index, None, digest, true);
                }
                return verdict(answer);
            }
            // A limit made the set forget its time after its ID was asked about: nothing is known of the payload.
            Some(Answer::Full) if self.batch.inner.set.is_forgotten(self.batch.when(index)) => {}
            // Of those that cannot be recorded it is known that they are not known.
            Some(Answer::New | Answer::Reappeared | Answer::InFlight | Answer::Full) => {
                let is_known = match answer {
                    Answer::Seen => self.batch.inner.set.is_seen(id, self.batch.when(index)),
                    _ => !asked.reserves_id_later(index, id) && self.is_known(index, id),
                };
                if is_known || self.elsewhere.contains(&id) {
                    return self.conflict(index, digest, answer == Answer::InFlight, is_reserved);
                }
            }
            Some(unjudged @ (Answer::Late | Answer::Unlogged)) => return verdict(unjudged),
            Some(Answer::Seen) | None => {}
        }
        self.release_if(is_reserved, digest);
        verdict(answer)
    }

    fn first_seen(&mut self, asked: &Asked<'_>, index: usize) -> ReserveVerdict {
        let (id, digest) = (self.batch.ids[index], self.batch.digest(index));
        let answer = match asked.answers[index].1.unwrap_or(Answer::Full) {
            // Known from before the ID was forgotten, or pending in an event before this one that was not judged.
            Answer::Seen | Answer::InFlight => self.batch.inner.set.reserve_anew(digest, self.batch.when(index)),
            answer => answer,
        };
        match answer {
            // In event time a later event of this batch may have reserved what this one found known.
            Answer::InFlight if asked.reserves_digest_later(index, digest) => {
                self.adopted.insert(digest);
            }
            // The same event is pending, by a conflict from before its ID was forgotten.
            Answer::InFlight => {
                self.batch.inner.set.release(id);
                self.elsewhere.insert(id);
                return ReserveVerdict::InFlight;
            }
            answer if answer.is_unjudged() => {
                self.batch.inner.set.release(id);
                let verdict = verdict(answer);
                if let ReserveVerdict::Unjudged(why) = verdict {
                    self.released.insert(id, why);
                }
                return verdict;
            }
            _ => {}
        }
        self.unrecorded.remove(&digest);
        self.hold(index, Some(id), digest, false);
        self.found.pending.push(id);
        self.found.times.iter_mut().for_each(|times| times.extend(self.batch.time(index)));
        ReserveVerdict::FirstSeen
    }

    /// Has the digest committed, at the time of its event.
    fn hold(&mut self, index: usize, id: Option<Fingerprint>, digest: Fingerprint, is_marked: bool) {
        self.found.digests.push(PendingDigest { id, digest, time: self.batch.time(index), is_marked });
    }

    fn conflict(&mut self, index: usize, digest: Fingerprint, in_flight: bool, is_reserved: bool) -> ReserveVerdict {
        if is_reserved && self.batch.inner.on_conflict.records() {
            self.hold(index, None, digest, false);
        } else {
            self.release_if(is_reserved, digest);
            self.unrecorded.insert(digest);
        }
        self.batch.inner.conflicts.fetch_add(1, Ordering::Relaxed);
        ReserveVerdict::Conflict { in_flight }
    }

    fn is_known(&self, index: usize, fingerprint: Fingerprint) -> bool {
        matches!(self.batch.inner.set.peek(fingerprint, self.batch.when(index)), Answer::Seen | Answer::InFlight)
    }

    fn release_if(&mut self, is_reserved: bool, digest: Fingerprint) {
        if is_reserved {
            self.batch.inner.set.release(digest);
            // Later events of this batch were told that it is in flight.
            self.unrecorded.insert(digest);
        }
    }
}
