//! Room under the limits, and the counts of what a shard holds.
//!
//! A shard takes room for some ids at once from the generations and hands it out itself: the allowance. So a question asks
//! the generations, which all shards share, only now and then; and small limits are still exact, as an allowance is
//! one id there.

use super::generations::Taken;
use super::line::State;
use super::shard::{Core, Held, Shared};

impl Shared {
    /// Whether generations have a size: under any limit.
    #[inline]
    pub(super) fn counts_ids(&self) -> bool {
        self.generations.limits().generation_ids != u64::MAX
    }

    #[inline]
    pub(super) fn limits_ids(&self) -> bool {
        self.generations.limits().max_ids != u64::MAX
    }
}

impl Core {
    /// Room for how many ids there is without asking the generations for it.
    #[inline]
    pub(super) fn room_at_hand(&self, shared: &Shared, state: State) -> u64 {
        match state {
            State::Pending if shared.limits_ids() => 0,
            State::Seen if shared.counts_ids() => self.allowance.ids,
            _ => u64::MAX,
        }
    }
}

impl Held<'_> {
    /// Whether there is room for one id without asking the generations for it.
    #[inline]
    pub(super) fn has_room_at_hand(&self, state: State) -> bool {
        self.core.room_at_hand(self.common, state) > 0
    }

    #[inline]
    pub(super) fn use_room_at_hand(&mut self, state: State) {
        if state == State::Seen && self.common.counts_ids() {
            self.core.allowance.ids -= 1;
        }
    }

    /// Takes room for one id under the limits. False when there is none.
    #[inline]
    pub(super) fn take_room(&mut self, state: State) -> bool {
        match state {
            State::Pending => !self.common.limits_ids() || self.take_pending(),
            _ => !self.common.counts_ids() || self.take_allowance(),
        }
    }

    pub(super) fn return_room(&mut self, state: State) {
        match state {
            State::Pending if self.common.limits_ids() => self.common.generations.give_back_pending(),
            State::Seen if self.common.counts_ids() => self.core.allowance.ids += 1,
            _ => {}
        }
    }

    fn take_pending(&mut self) -> bool {
        let room = self.common.generations.take_pending();
        self.catch_up();
        room
    }

    pub(super) fn take_allowance(&mut self) -> bool {
        if self.core.allowance.ids == 0 {
            let limits = self.common.generations.limits();
            let shards = 1 << self.common.shape.shard_bits;
            let wanted = (limits.generation_ids / (4 * shards)).clamp(1, 64);
            let Some(taken) = self.common.generations.take(wanted) else { return false };
            self.core.allowance = taken;
            // Keeps what was just taken, unless yet another generation was opened meanwhile.
            self.catch_up();
            if self.core.allowance.ids == 0 {
                return self.take_allowance();
            }
        }
        self.core.allowance.ids -= 1;
        true
    }

    /// Counts an id for which room was taken, in the generation that it belongs to.
    pub(super) fn charge(&mut self, state: State, generation: u64) {
        if state == State::Seen && self.common.counts_ids() && generation != self.core.allowance.generation {
            self.common.generations.recharge(self.core.allowance.generation, generation);
        }
        self.count(state, generation);
    }

    #[inline]
    pub(super) fn count(&mut self, state: State, generation: u64) {
        if state == State::Pending {
            self.core.pending += 1;
            return;
        }
        let mask = self.core.counts.len() as u64 - 1;
        self.core.counts[(generation & mask) as usize] += 1;
    }

    pub(super) fn uncount(&mut self, generation: u64) {
        let mask = self.core.counts.len() as u64 - 1;
        self.core.counts[(generation & mask) as usize] -= 1;
        if self.common.counts_ids() {
            self.common.generations.give_back(Taken { generation, ids: 1 });
        }
    }

    pub(super) fn is_event_time(&self) -> bool {
        self.common.generations.limits().lateness.is_some()
    }

    pub(super) fn return_allowance(&mut self, newest: u64) {
        let unused = std::mem::replace(&mut self.core.allowance, Taken { generation: newest, ids: 0 });
        if unused.ids > 0 {
            self.common.generations.give_back(unused);
        }
    }
}
