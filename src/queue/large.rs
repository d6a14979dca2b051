//! [`Large`]: bounds the bytes of what is too large to be bounded by count.
//!
//! A pool bounds how many boxes there are, not what is in them. Whoever puts something large into one takes its bytes from
//! here first, and they come back with the box.

use super::parking::Parking;
use crate::sync::{AtomicUsize, Ordering};

#[derive(Debug)]
pub(super) struct Large {
    bytes_max: usize,
    /// Taken and not given back. Written by producers (acquire) and the consumer (release).
    bytes: AtomicUsize,
    /// What was refused last, and nothing large taken since. Relaxed: it only says when it is worth trying again.
    wanted: AtomicUsize,
    /// Producers sleep here.
    pub(super) room: Parking,
}

impl Large {
    pub(super) fn new(bytes_max: usize) -> Self {
        Self { bytes_max, bytes: AtomicUsize::new(0), wanted: AtomicUsize::new(0), room: Parking::new() }
    }

    /// Takes `bytes`, if there are so many; or if nothing is taken, as there will never be more.
    pub(super) fn try_take(&self, bytes: usize) -> bool {
        let mut now = self.bytes.load(Ordering::Relaxed);
        while self.fits(now, bytes) {
            let after = now.saturating_add(bytes);
            match self.bytes.compare_exchange(now, after, Ordering::Acquire, Ordering::Relaxed) {
                Ok(_) => {
                    self.wanted.store(0, Ordering::Relaxed);
                    return true;
                }
                Err(other) => now = other,
            }
        }
        self.wanted.store(bytes, Ordering::Relaxed);
        false
    }

    /// Gives back what was taken, and wakes who waits for it.
    pub(super) fn give_back(&self, bytes: usize) {
        self.bytes.fetch_sub(bytes, Ordering::Release);
        if self.room.anyone() {
            self.room.wake_all();
        }
    }

    /// Whether it is worth trying: what was refused last would fit now.
    pub(super) fn has_room(&self) -> bool {
        self.fits(self.bytes.load(Ordering::Relaxed), self.wanted.load(Ordering::Relaxed))
    }

    fn fits(&self, now: usize, bytes: usize) -> bool {
        now == 0 || now.saturating_add(bytes) <= self.bytes_max
    }
}
