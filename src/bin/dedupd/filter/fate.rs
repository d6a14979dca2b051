//! What becomes of a line: decided once, used to count it, to route it, and to find out how much of it got out.

use std::ops::Range;

use dedupd::decode::BadReason;
use dedupd::{OnConflict, ReserveVerdict, Unjudged};

use super::chunk::{Chunk, Kind};
use crate::config::{Action, Policy};

/// What a line was found to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    Blank,
    FirstSeen,
    Duplicate,
    /// A duplicate by its ID that came with another payload.
    Conflict,
    Bad(BadReason),
    Late,
    /// There was no room to remember it, so nobody knows.
    Refused,
}

/// Where a line goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    Output,
    Rejects,
    Duplicates,
    Nowhere,
}

/// Lines that are judged, delivered and committed together.
#[derive(Clone, Debug)]
pub struct Batch {
    pub lines: Range<usize>,
    pub ids: Range<usize>,
}

/// A line of a batch with its fate.
pub struct Fated {
    pub line: usize,
    /// The line's ID, when it has one, in the order of the chunk's.
    pub id: usize,
    pub bytes: Range<usize>,
    pub fate: Fate,
}

impl Batch {
    /// Each line with its fate under these verdicts, which are in the order of the batch's ids.
    pub fn fates<'c>(&self, chunk: &'c Chunk, verdicts: &'c [ReserveVerdict]) -> impl Iterator<Item = Fated> + use<'c> {
        let first_id = self.ids.start;
        let mut next_id = first_id;
        let mut start = match self.lines.start {
            0 => 0,
            first => chunk.lines[first - 1].end as usize,
        };
        self.lines.clone().map(move |line| {
            let kind = chunk.lines[line].kind;
            let bytes = start..chunk.lines[line].end as usize;
            start = bytes.end;
            let id = next_id;
            next_id += usize::from(kind == Kind::Id);
            Fated { line, id, bytes, fate: Fate::new(kind, || verdicts.get(id - first_id).copied()) }
        })
    }
}

impl Fate {
    fn new(kind: Kind, verdict: impl FnOnce() -> Option<ReserveVerdict>) -> Self {
        match kind {
            Kind::Blank => Self::Blank,
            Kind::Bad(reason) => Self::Bad(reason),
            Kind::Id => match verdict() {
                Some(ReserveVerdict::FirstSeen) => Self::FirstSeen,
                // The batch is delivered and committed as one, so what is in flight in it is as good as seen.
                Some(ReserveVerdict::Duplicate | ReserveVerdict::InFlight) => Self::Duplicate,
                Some(ReserveVerdict::Unjudged(Unjudged::Late)) => Self::Late,
                Some(ReserveVerdict::Conflict { .. }) => Self::Conflict,
                _ => Self::Refused,
            },
        }
    }

    /// What is done with it, when the command line has a say in that.
    pub fn action(self, policy: &Policy) -> Option<Action> {
        match self {
            Self::Blank | Self::FirstSeen | Self::Duplicate => None,
            Self::Conflict => match policy.conflict {
                OnConflict::Pass => Some(Action::Pass),
                OnConflict::Divert => Some(Action::Divert),
                _ => None,
            },
            Self::Bad(reason) => Some(policy.of(reason)),
            Self::Late => Some(policy.late),
            Self::Refused => Some(Action::Pass),
        }
    }

    pub fn target(self, policy: &Policy) -> Target {
        match self.action(policy) {
            Some(Action::Pass) => Target::Output,
            Some(Action::Divert) => Target::Rejects,
            Some(Action::Drop | Action::Fail) => Target::Nowhere,
            None if matches!(self, Self::Duplicate | Self::Conflict) => Target::Duplicates,
            None => Target::Output,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::filter::chunk::Line;

    fn chunk(lines: impl Iterator<Item = Line>) -> Chunk {
        let mut chunk = Chunk::default();
        chunk.lines.extend(lines);
        chunk
    }

    #[test]
    fn only_ids_take_verdicts_and_only_duplicates_leave_in_silence() {
        let kinds = [Kind::Id, Kind::Blank, Kind::Id, Kind::Bad(BadReason::Malformed), Kind::Id, Kind::Id];
        let chunk = chunk((1..).zip(kinds).map(|(end, kind)| Line { end, kind }));
        let verdicts = [
            ReserveVerdict::FirstSeen,
            ReserveVerdict::InFlight,
            ReserveVerdict::Unjudged(Unjudged::Late),
            ReserveVerdict::Unjudged(Unjudged::Full),
        ];
        let batch = Batch { lines: 0..6, ids: 0..4 };
        let fates: Vec<Fate> = batch.fates(&chunk, &verdicts).map(|fated| fated.fate).collect();
        let bad = Fate::Bad(BadReason::Malformed);
        assert_eq!(fates, [Fate::FirstSeen, Fate::Blank, Fate::Duplicate, bad, Fate::Late, Fate::Refused]);
        let policy =
            Policy { bad: Action::Divert, missing: Action::Pass, late: Action::Drop, conflict: OnConflict::Ignore };
        let targets: Vec<Target> = fates.iter().map(|fate| fate.target(&policy)).collect();
        let (output, nowhere) = (Target::Output, Target::Nowhere);
        assert_eq!(targets, [output, output, Target::Duplicates, Target::Rejects, nowhere, output]);
    }

    #[test]
    fn a_later_batch_starts_where_the_one_before_it_ended() {
        let chunk = chunk((1..=4).map(|n| Line { end: n * 10, kind: Kind::Id }));
        let batch = Batch { lines: 2..4, ids: 2..4 };
        let verdicts = [ReserveVerdict::Duplicate, ReserveVerdict::FirstSeen];
        let fated: Vec<_> = batch.fates(&chunk, &verdicts).map(|f| (f.line, f.id, f.bytes, f.fate)).collect();
        assert_eq!(fated, [(2, 2, 20..30, Fate::Duplicate), (3, 3, 30..40, Fate::FirstSeen)]);
    }
}
