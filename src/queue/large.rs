//! [`Large`]: bounds the bytes of what is too large to be bounded by count.
//!
//! A pool bounds how many boxes there are, not what is in them. Whoever puts something large into one takes its bytes from
//! here first, and they come back with the box.

use std::sync::{PoisonError, TryLockError};

use super::parking::Parking;
use crate::sync::{AtomicUsize, Mutex, MutexGuard, Ordering};

#[derive(Debug)]
pub(super) struct Large {
    bytes_max: usize,
    /// Held by the producer whose turn it is, also while it waits: nobody who needs less overtakes it.
    turn: Mutex<()>,
    /// Taken and not given back. Added to by who has the turn (acquire), given back by the consumer (release).
    bytes: AtomicUsize,
    /// What was refused last, and nothing large taken since. Relaxed: it only says when it is worth trying again.
    wanted: AtomicUsize,
    /// The producer whose turn it is sleeps here.
    pub(super) room: Parking,
}

/// The right to take some.
pub(super) struct Turn<'a> {
    large: &'a Large,
    _turn: MutexGuard<'a, ()>,
}

impl Large {
    pub(super) fn new(bytes_max: usize) -> Self {
        let (bytes, wanted) = (AtomicUsize::new(0), AtomicUsize::new(0));
        Self { bytes_max, turn: Mutex::new(()), bytes, wanted, room: Parking::new() }
    }

    /// Waits until whoever came before has what it needs.
    pub(super) fn turn(&self) -> Turn<'_> {
        Turn { large: self, _turn: self.turn.lock().unwrap_or_else(PoisonError::into_inner) }
    }

    /// The same without waiting.
    pub(super) fn try_turn(&self) -> Option<Turn<'_>> {
        let turn = match self.turn.try_lock() {
            Ok(turn) => turn,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return None,
        };
        Some(Turn { large: self, _turn: turn })
    }

    /// `bytes` were refused.
    pub(super) fn refuse(&self, bytes: usize) {
        self.wanted.store(bytes, Ordering::Relaxed);
    }

    /// Gives back what was taken, and wakes who waits for it.
    pub(super) fn give_back(&self, bytes: usize) {
        self.bytes.fetch_sub(bytes, Ordering::Release);
        if self.room.anyone() {
            self.room.wake_all();
        }
    }

    /// Whether something was refused and nothing large taken since.
    pub(super) fn is_wanted(&self) -> bool {
        self.wanted.load(Ordering::Relaxed) > 0
    }

    /// Whether it is worth trying: what was refused last would fit now.
    pub(super) fn has_room(&self) -> bool {
        let wanted = self.wanted.load(Ordering::Relaxed);
        wanted == 0 || self.fits(self.bytes.load(Ordering::Relaxed), wanted)
    }

    fn fits(&self, now: usize, bytes: usize) -> bool {
        now == 0 || now.saturating_add(bytes) <= self.bytes_max
    }
}

impl Turn<'_> {
    /// Takes `bytes`, if there are so many; or if nothing is taken, as there will never be more.
    pub(super) fn try_take(&self, bytes: usize) -> bool {
        let large = self.large;
        let fits = large.fits(large.bytes.load(Ordering::Acquire), bytes);
        if fits {
            // Meanwhile it can only have become less.
            large.bytes.fetch_add(bytes, Ordering::Relaxed);
            large.wanted.store(0, Ordering::Relaxed);
        } else {
            large.refuse(bytes);
        }
        fits
    }
}
