//! What waits in a worker: events that failed and are tried again (the delay lane), and repeats that are attached to an
//! event whose fate is open.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::{Duration, Instant};

use super::batch::Single;
use crate::dedup::Reservation;
use crate::event::Fingerprint;
use crate::sink::FailureClass;
use crate::time::Timestamp;

/// An event that failed and is tried again. Its ID stays reserved: an attempt whose fate is unknown is no reason to let
/// another copy of the event by.
pub(super) struct Held {
    pub(super) single: Single,
    pub(super) trial: Trial,
}

impl Held {
    fn reserved(&self) -> usize {
        self.trial.reservation.as_ref().map_or(0, Reservation::events)
    }
}

/// What is known about an event beside its bytes.
#[derive(Default)]
pub(super) struct Trial {
    /// `None` when its ID is not, or no more, reserved.
    pub(super) reservation: Option<Reservation>,
    /// The sinks that have not got it and may yet take it, a bit each.
    pub(super) lacking: u64,
    /// Failed tries so far.
    pub(super) attempts: u32,
    /// It is counted as first-seen.
    pub(super) is_first: bool,
    /// A sink will never take it.
    pub(super) needs_dead_letter: bool,
}

/// The delay lane: held events by the time of their next try.
#[derive(Default)]
pub(super) struct Delayed {
    by_due: BTreeMap<(Instant, u64), Held>,
    next: u64,
    bytes: usize,
    /// Events that have places of the set reserved.
    reserved: usize,
    random: u64,
}

impl Delayed {
    pub(super) fn hold(&mut self, held: Held, delay: Duration, now: Instant) {
        self.bytes += held.single.item.bytes();
        self.reserved += held.reserved();
        self.by_due.insert((now + delay, self.next), held);
        self.next += 1;
    }

    /// Takes what is due, at most `limit`.
    pub(super) fn due(&mut self, now: Instant, limit: usize) -> Vec<Held> {
        let mut due = Vec::new();
        while due.len() < limit
            && let Some(first) = self.by_due.first_entry()
            && first.key().0 <= now
        {
            let held = first.remove();
            self.bytes -= held.single.item.bytes();
            self.reserved -= held.reserved();
            due.push(held);
        }
        due
    }

    /// What is reserved for what waits.
    pub(super) fn reservations(&self) -> impl Iterator<Item = &Reservation> {
        self.by_due.values().filter_map(|held| held.trial.reservation.as_ref())
    }

    pub(super) fn next_due(&self) -> Option<Instant> {
        self.by_due.first_key_value().map(|((due, _), _)| *due)
    }

    pub(super) fn take_all(&mut self) -> impl Iterator<Item = Held> + use<> {
        (self.bytes, self.reserved) = (0, 0);
        std::mem::take(&mut self.by_due).into_values()
    }

    pub(super) fn len(&self) -> usize {
        self.by_due.len()
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn reserved(&self) -> usize {
        self.reserved
    }

    /// How long to wait after failed try number `attempts` of this class: exponential with full jitter ("Exponential Backoff
    /// And Jitter", AWS Architecture Blog, 2015), or what the sink asked for.
    pub(super) fn delay(&mut self, class: FailureClass, attempts: u32, clock: Timestamp) -> Duration {
        match class {
            FailureClass::Defer(delay) => delay.clamp(DELAY_MIN, DELAY_MAX),
            FailureClass::Throttled { not_before } => not_before.saturating_since(clock).clamp(DELAY_MIN, DELAY_MAX),
            FailureClass::Auth => RETRY_MAX,
            FailureClass::Transient | FailureClass::Permanent => {
                let most = RETRY_FIRST.saturating_mul(1 << attempts.min(20)).min(RETRY_MAX);
                most.mul_f64(self.next_random())
            }
        }
    }

    /// In 0..1; xorshift64* (Vigna, 2014). Only spreads load.
    fn next_random(&mut self) -> f64 {
        let mut x = if self.random == 0 { 0x9E37_79B9_7F4A_7C15 } else { self.random };
        x ^= x >> 12;
        x ^= x << 25;
        x ^= x >> 27;
        self.random = x;
        (x.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 11) as f64 / (1_u64 << 53) as f64
    }
}

/// Repeats that wait for the fate of what they repeat, oldest first.
#[derive(Default)]
pub(super) struct Attached {
    by_id: HashMap<Fingerprint, VecDeque<Single>>,
    events: usize,
    bytes: usize,
}

impl Attached {
    pub(super) fn attach(&mut self, id: Fingerprint, single: Single, is_first: bool) {
        self.events += 1;
        self.bytes += single.item.bytes();
        let all = self.by_id.entry(id).or_default();
        if is_first {
            all.push_front(single);
        } else {
            all.push_back(single);
        }
    }

    pub(super) fn has(&self, id: Fingerprint) -> bool {
        self.by_id.contains_key(&id)
    }

    /// Takes the oldest repeat of `id`.
    pub(super) fn oldest(&mut self, id: Fingerprint) -> Option<Single> {
        let all = self.by_id.get_mut(&id)?;
        let single = all.pop_front()?;
        if all.is_empty() {
            self.by_id.remove(&id);
        }
        self.events -= 1;
        self.bytes -= single.item.bytes();
        Some(single)
    }

    /// Takes all repeats of `id`.
    pub(super) fn take(&mut self, id: Fingerprint) -> VecDeque<Single> {
        let all = self.by_id.remove(&id).unwrap_or_default();
        self.events -= all.len();
        self.bytes -= all.iter().map(|single| single.item.bytes()).sum::<usize>();
        all
    }

    /// What has repeats.
    pub(super) fn ids(&self) -> impl Iterator<Item = Fingerprint> {
        self.by_id.keys().copied()
    }

    pub(super) fn take_all(&mut self) -> impl Iterator<Item = Single> + use<> {
        (self.events, self.bytes) = (0, 0);
        std::mem::take(&mut self.by_id).into_values().flatten()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.events == 0
    }

    pub(super) fn len(&self) -> usize {
        self.events
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }
}

const RETRY_FIRST: Duration = Duration::from_millis(10);
const RETRY_MAX: Duration = Duration::from_secs(10);
/// A sink that asks for less would keep its worker from everything else. Shuttle has no time.
const DELAY_MIN: Duration = if cfg!(shuttle) { Duration::ZERO } else { Duration::from_millis(1) };
/// What a sink may ask for.
const DELAY_MAX: Duration = Duration::from_secs(24 * 3600);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wait_grows_with_the_tries_up_to_a_limit_and_is_jittered() {
        let mut delayed = Delayed::default();
        let mut mean = |attempts| {
            let mut one = || delayed.delay(FailureClass::Transient, attempts, Timestamp::from_millis(0));
            (0..1_000).map(|_| one()).sum::<Duration>() / 1_000
        };
        for (attempts, millis) in [(0, 5), (3, 40), (30, 5_000)] {
            let mean = mean(attempts).as_millis();
            assert!((millis * 9 / 10..=millis * 11 / 10).contains(&mean), "{attempts} tries: {mean} ms");
        }
    }

    #[test]
    fn a_sink_says_when_it_wants_more() {
        let mut delayed = Delayed::default();
        let clock = Timestamp::from_millis(1_000);
        let throttled = FailureClass::Throttled { not_before: Timestamp::from_millis(1_250) };
        assert_eq!(delayed.delay(throttled, 9, clock), Duration::from_millis(250));
        assert_eq!(delayed.delay(FailureClass::Defer(Duration::from_secs(3)), 9, clock), Duration::from_secs(3));
    }
}
