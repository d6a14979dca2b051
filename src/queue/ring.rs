//! The reorder ring: items come in any order and leave by number.
//!
//! Invariants:
//! 1. A slot's pointer is null, or came from `Box::into_raw` and is owned by the slot.
//! 2. Whoever swaps a pointer out of a slot owns it alone.
//! 3. At most `capacity` consecutive numbers are under way at once, so no two of them share a slot.

use std::fmt;
use std::ptr;

use crate::sync::{AtomicPtr, Ordering};

/// One slot per item under way; slot `n % capacity` is for item `n`.
pub(super) struct Ring<T: Send> {
    /// Written by the thread that completed item `n` (release) and by the one that takes it (acquire).
    slots: Box<[AtomicPtr<T>]>,
}

impl<T: Send> Ring<T> {
    pub(super) fn new(capacity: usize) -> Self {
        Self { slots: (0..capacity.max(1)).map(|_| AtomicPtr::new(ptr::null_mut())).collect() }
    }

    /// Stores item `number`.
    pub(super) fn put(&self, number: u64, item: Box<T>) {
        let old = self.slot(number).swap(Box::into_raw(item), Ordering::AcqRel);
        debug_assert!(old.is_null(), "item {number} shares its slot");
        drop(owned(old));
    }

    /// Takes item `number` out when it has come.
    pub(super) fn take(&self, number: u64) -> Option<Box<T>> {
        if !self.has(number) {
            return None;
        }
        owned(self.slot(number).swap(ptr::null_mut(), Ordering::AcqRel))
    }

    /// Whether item `number` has come.
    pub(super) fn has(&self, number: u64) -> bool {
        !self.slot(number).load(Ordering::Relaxed).is_null()
    }

    fn slot(&self, number: u64) -> &AtomicPtr<T> {
        &self.slots[(number % self.slots.len() as u64) as usize]
    }
}

/// The item behind a pointer that was just swapped out of a slot.
fn owned<T>(swapped_out: *mut T) -> Option<Box<T>> {
    // SAFETY: by invariants 1 and 2 a pointer that is not null came from `Box::into_raw` and has no other owner.
    (!swapped_out.is_null()).then(|| unsafe { Box::from_raw(swapped_out) })
}

impl<T: Send> Drop for Ring<T> {
    fn drop(&mut self) {
        for slot in &self.slots {
            drop(owned(slot.swap(ptr::null_mut(), Ordering::AcqRel)));
        }
    }
}

impl<T: Send> fmt::Debug for Ring<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ring").field("slots", &self.slots.len()).finish()
    }
}
