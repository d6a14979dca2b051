//! [`Places`]: where reserved ids stand, so that they need not be looked for when they are committed.
//!
//! Who reserves ids has just held each shard and touched each line. The commit wants the same lines, in the same order: with
//! these at hand it neither hashes its way through the directory again nor sorts by shard. They are a hint: a line is only
//! touched if the shard's [`Version`] says under the lock that its slots still name it, and an ID only committed where it is found.

use crate::event::Fingerprint;

use super::block::Run;
use super::directory::Version;
use super::line::{Line, Mark, State, Stored};
use super::shard::Held;
use super::{Set, Times, prefetch};

/// Ids that a batch reserved, by shard, and where they stand.
#[derive(Debug, Default)]
pub(crate) struct Places {
    /// First those whose line is known, in runs; behind them the others.
    fingerprints: Vec<Fingerprint>,
    /// The addresses of the lines of the first ones.
    lines: Vec<usize>,
    runs: Vec<PlacedRun>,
    /// What comes behind those in runs.
    others: Vec<Fingerprint>,
}

/// Neighbours in one shard.
#[derive(Clone, Copy, Debug)]
struct PlacedRun {
    shard: usize,
    /// Behind the last of them.
    end: usize,
    /// What their lines were looked up in.
    newest: u64,
    version: Version,
}

/// Takes note of ids that are recorded.
pub(super) trait Keep {
    /// In this line.
    fn keep(&mut self, fingerprint: Fingerprint, line: &Line);
    /// All since the last call were of this run.
    fn end_run(&mut self, shard: usize, run: &Run<'_>);
    /// Somewhere.
    fn keep_other(&mut self, fingerprint: Fingerprint);
}

/// Nobody wants to know.
impl Keep for () {
    #[inline(always)]
    fn keep(&mut self, _: Fingerprint, _: &Line) {}
    #[inline(always)]
    fn end_run(&mut self, _: usize, _: &Run<'_>) {}
    #[inline(always)]
    fn keep_other(&mut self, _: Fingerprint) {}
}

impl Keep for Places {
    #[inline(always)]
    fn keep(&mut self, fingerprint: Fingerprint, line: &Line) {
        self.fingerprints.push(fingerprint);
        self.lines.push((&raw const *line).expose_provenance());
    }

    #[inline(always)]
    fn end_run(&mut self, shard: usize, run: &Run<'_>) {
        let end = self.lines.len();
        if self.runs.last().map_or(0, |last| last.end) < end {
            self.runs.push(PlacedRun { shard, end, newest: run.newest, version: run.version });
        }
    }

    #[inline(always)]
    fn keep_other(&mut self, fingerprint: Fingerprint) {
        self.others.push(fingerprint);
    }
}

impl Places {
    pub(super) fn with_capacity(ids: usize) -> Self {
        Self { fingerprints: Vec::with_capacity(ids), lines: Vec::with_capacity(ids), ..Self::default() }
    }

    /// All is reserved.
    pub(super) fn end(&mut self) {
        self.fingerprints.append(&mut self.others);
    }

    /// Gives back room that is not needed any more.
    pub(crate) fn shrink(&mut self) {
        self.lines.shrink_to_fit();
    }

    /// What is reserved.
    pub(crate) fn fingerprints(&mut self) -> &mut Vec<Fingerprint> {
        &mut self.fingerprints
    }
}

impl Set {
    /// Marks reserved fingerprints as seen, of which the first are those of `places`; in processing time.
    pub(crate) fn commit_placed(&self, fingerprints: &[Fingerprint], places: &Places, now: i64) {
        self.common.generations.observe_clock(now);
        let (mut start, mut left) = (0, Vec::new());
        for run in &places.runs {
            let (ids, lines) = (&fingerprints[start..run.end], &places.lines[start..run.end]);
            start = run.end;
            self.hold(&self.shards[run.shard]).commit_placed(run, ids, lines, &mut left);
        }
        for others in [&left, &fingerprints[start..]] {
            self.commit_batch(others, Times::Now(now));
        }
    }
}

impl Held<'_> {
    fn commit_placed(
        &mut self,
        run: &PlacedRun,
        fingerprints: &[Fingerprint],
        lines: &[usize],
        left: &mut Vec<Fingerprint>,
    ) {
        let is_named_still = run.version == self.shard.version.get() && run.newest == self.core.era.newest;
        let room = self.core.room_at_hand(self.common, State::Seen);
        if !is_named_still || self.common.limits_ids() || room < fingerprints.len() as u64 {
            left.extend_from_slice(fingerprints);
            return;
        }
        let seen = Mark::new(State::Seen, self.core.era.newest);
        let mut committed = 0;
        for (at, (fingerprint, line)) in fingerprints.iter().zip(lines).enumerate() {
            if let Some(coming) = lines.get(at + AHEAD) {
                prefetch(std::ptr::with_exposed_provenance::<Line>(*coming));
            }
            // SAFETY: the version says that a slot of this shard still names the line, and the shard is held by whoever has
            // `self`, so nobody else has a reference to it.
            let line = unsafe { &mut *std::ptr::with_exposed_provenance_mut::<Line>(*line) };
            match line.slot_of(Stored::of(*fingerprint)).filter(|slot| line.mark(*slot).is_pending()) {
                Some(slot) => {
                    line.set_mark(slot, seen);
                    committed += 1;
                }
                // Moved to its other line to make room.
                None => left.push(*fingerprint),
            }
        }
        self.core.pending -= committed;
        self.core.count_seen(self.common, committed);
    }
}

/// How many lines ahead one is asked for.
const AHEAD: usize = 8;
