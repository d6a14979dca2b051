//! A block of answers, and what of it the log must be told.

use std::sync::atomic::Ordering;

use crate::event::Fingerprint;
use crate::log::{Batch, Kind};
use crate::window::Answer;

use super::super::OnLogFailure;
use super::keeper::Keeper;

/// The questions of a batch between being hashed and being answered.
pub(super) struct Block<'a> {
    keeper: &'a Keeper,
    batch: Batch,
    /// Hashed, and not all of them answered.
    pub(super) asked: Vec<Fingerprint>,
    /// How many of them were answered.
    answered: usize,
    firsts: Vec<Fingerprint>,
    answers: Vec<Answer>,
}

impl<'a> Block<'a> {
    pub(super) fn new(keeper: &'a Keeper) -> Self {
        let (asked, firsts, answers) = (Vec::new(), Vec::new(), Vec::new());
        Self { keeper, batch: Batch::new(), asked, answered: 0, firsts, answers }
    }

    /// Appends what was new among the next answers, and returns them as they stand then.
    pub(super) fn append<'b>(&'b mut self, answers: &'b [Answer]) -> &'b [Answer] {
        let end = self.answered + answers.len();
        self.firsts.resize(answers.len(), Fingerprint::default());
        let mut count = 0;
        // Without a branch: which ones are new cannot be predicted.
        for (id, answer) in self.asked[self.answered..end].iter().zip(answers) {
            self.firsts[count] = *id;
            count += usize::from(answer.is_first());
        }
        self.answered = end;
        if self.answered == self.asked.len() {
            self.asked.clear();
            self.answered = 0;
        }
        if count == 0 {
            return answers;
        }
        self.batch.clear();
        self.batch.push_ids(Kind::Seen, self.firsts[..count].iter().copied());
        if self.keeper.append(self.keeper.frame_time(), &self.batch).is_ok() {
            return answers;
        }
        if self.keeper.on_failure == OnLogFailure::Continue {
            self.keeper.unlogged.fetch_add(count as u64, Ordering::Relaxed);
            return answers;
        }
        for id in &self.firsts[..count] {
            self.keeper.set.forget(*id);
        }
        self.answers.clear();
        self.answers.extend(answers.iter().map(|answer| if answer.is_first() { Answer::Unlogged } else { *answer }));
        &self.answers
    }
}
