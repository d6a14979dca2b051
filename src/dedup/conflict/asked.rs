//! The questions of a batch: two for each event.

use std::cell::OnceCell;
use std::collections::HashMap;

use super::super::Inner;
use crate::event::{Digest, Fingerprint};
use crate::time::Timestamp;
use crate::window::{Act, Answer, Times, When};

/// Events that are judged together: as many digests as ids, and as times if there are any.
#[derive(Clone, Copy)]
pub(super) struct Batch<'a> {
    pub(super) inner: &'a Inner,
    pub(super) ids: &'a [Fingerprint],
    pub(super) digests: &'a [Digest],
    pub(super) times: Option<&'a [Timestamp]>,
    pub(super) clock: i64,
}

/// What was answered, in order; nothing for the digest of an ID that was not judged.
pub(super) struct Asked<'a> {
    batch: Batch<'a>,
    pub(super) answers: Vec<(Answer, Option<Answer>)>,
    /// Which question was the last to reserve an ID, and a digest. Rarely asked for.
    ids_reserved: OnceCell<HashMap<Fingerprint, usize>>,
    digests_reserved: OnceCell<HashMap<Fingerprint, usize>>,
}

impl<'a> Batch<'a> {
    /// Reserves what is new.
    pub(super) fn ask(self) -> Asked<'a> {
        let answers = if self.inner.event_time { self.ask_pairs() } else { self.ask_in_turn() };
        Asked { batch: self, answers, ids_reserved: OnceCell::new(), digests_reserved: OnceCell::new() }
    }

    pub(super) fn digest(&self, index: usize) -> Fingerprint {
        self.digests[index].as_fingerprint()
    }

    pub(super) fn time(&self, index: usize) -> Option<Timestamp> {
        self.times.map(|times| times[index])
    }

    /// The time of a question.
    pub(super) fn when(&self, index: usize) -> When {
        let time = self.time(index).map_or(self.clock, Timestamp::as_nanos);
        match self.inner.event_time {
            true => When::Event { time, clock: self.clock },
            false => When::Now(time),
        }
    }

    /// Processing time: first all ids, then the digests of those that were judged.
    fn ask_in_turn(&self) -> Vec<(Answer, Option<Answer>)> {
        let of_ids = self.ask_all(self.ids, self.times);
        let is_judged = |index: &usize| !of_ids[*index].is_unjudged();
        let judged: Vec<usize> = (0..self.ids.len()).filter(is_judged).collect();
        let digests: Vec<_> = judged.iter().map(|index| self.digest(*index)).collect();
        let times = self.times.map(|times| judged.iter().map(|index| times[*index]).collect::<Vec<_>>());
        let mut of_digests = self.ask_all(&digests, times.as_deref()).into_iter();
        let pair = |answer: Answer| (answer, (!answer.is_unjudged()).then(|| of_digests.next()).flatten());
        of_ids.into_iter().map(pair).collect()
    }

    /// Event time: each digest right behind its ID, as those that follow may make it late.
    fn ask_pairs(&self) -> Vec<(Answer, Option<Answer>)> {
        let (now, events) = (Timestamp::from_nanos(self.clock), 0..self.ids.len());
        let pairs: Vec<_> = events.clone().flat_map(|index| [self.ids[index], self.digest(index)]).collect();
        let times: Vec<_> = events.flat_map(|index| [self.time(index).unwrap_or(now); 2]).collect();
        let answers = self.ask_all(&pairs, Some(&times));
        // An event is one event.
        self.inner.set.uncount_future(times.iter().step_by(2).map(|time| time.as_nanos()), self.clock);
        answers.as_chunks::<2>().0.iter().map(|[id, digest]| (*id, Some(*digest))).collect()
    }

    fn ask_all(&self, asked: &[Fingerprint], times: Option<&[Timestamp]>) -> Vec<Answer> {
        let mut answers = Vec::with_capacity(asked.len());
        let copy = |range, out: &mut Vec<_>| out.extend_from_slice(&asked[range]);
        let times = match times {
            Some(times) => Times::Each { times, clock: self.clock },
            None => Times::Now(self.clock),
        };
        self.inner.set.ask_batch(asked.len(), copy, times, Act::Reserve, |some| answers.extend_from_slice(some));
        answers
    }
}

impl Asked<'_> {
    /// Whether the ID was reserved by a later event: it was forgotten in between.
    pub(super) fn reserves_id_later(&self, index: usize, id: Fingerprint) -> bool {
        let reserved = self.ids_reserved.get_or_init(|| {
            let first = (0..self.batch.ids.len()).filter(|index| self.answers[*index].0.is_first());
            first.map(|index| (self.batch.ids[index], index)).collect()
        });
        reserved.get(&id).is_some_and(|later| *later > index)
    }

    /// Whether the digest was reserved by a later event.
    pub(super) fn reserves_digest_later(&self, index: usize, digest: Fingerprint) -> bool {
        let reserved = self.digests_reserved.get_or_init(|| {
            let is_first = |index: &usize| self.answers[*index].1.is_some_and(Answer::is_first);
            let first = (0..self.batch.ids.len()).filter(is_first);
            first.map(|index| (self.batch.digest(index), index)).collect()
        });
        reserved.get(&digest).is_some_and(|later| *later > index)
    }
}
