//! [`Tray`]: where a producer leaves the box that it is filling, so that an idle consumer can take it half full.
//!
//! One atomic word says everything, so who stores and who sleeps meet on one location and no fence is needed:
//!
//! ```text
//! EMPTY     no box here, and nobody waits for one
//! WATCHED   no box here, and the consumer is about to sleep: wake it after putting something somewhere
//! TAKEN     the producer has the box in hand
//! a box     the box; whoever takes it out owns it
//! ```
//!
//! A consumer that wants to sleep marks each tray that is EMPTY or TAKEN as WATCHED, then looks at the queue once more. The
//! producer ends each of its acts with a swap of this word. If the swap comes before the mark, the mark has read it and the
//! consumer's second look sees all that was done before; if it comes after, it returns WATCHED, and the producer wakes it.
//!
//! Invariants:
//! 1. The word is one of the three marks, or came from `Box::into_raw` and is owned by the tray.
//! 2. Whoever swaps a box out owns it alone.
//! 3. Only the producer stores TAKEN or a box; there is one producer for each tray.

use std::fmt;
use std::ptr;

use crate::sync::{AtomicPtr, Ordering};

pub(super) struct Tray<T> {
    /// See the module. The producer swaps (acquire, release), the consumer compares and exchanges (acquire, release).
    word: AtomicPtr<T>,
}

/// What the producer took from its tray.
pub(super) struct Taken<T> {
    pub(super) item: Option<Box<T>>,
    /// The consumer sleeps, or is about to.
    pub(super) is_watched: bool,
}

impl<T> Tray<T> {
    pub(super) fn new() -> Self {
        Self { word: AtomicPtr::new(ptr::without_provenance_mut(EMPTY)) }
    }

    /// The producer takes its box, or finds that there is none. [`Tray::put`] follows.
    pub(super) fn take(&self) -> Taken<T> {
        let word = self.word.swap(ptr::without_provenance_mut(TAKEN), Ordering::AcqRel);
        Taken { item: owned(word), is_watched: word.addr() == WATCHED }
    }

    /// The producer puts its box back, or says that it has none. True when the consumer is to be woken.
    #[must_use = "the consumer may sleep"]
    pub(super) fn put(&self, item: Option<Box<T>>) -> bool {
        let word = item.map_or(ptr::without_provenance_mut(EMPTY), Box::into_raw);
        self.word.swap(word, Ordering::AcqRel).addr() == WATCHED
    }

    /// The consumer takes the box, if it lies here.
    pub(super) fn steal(&self) -> Option<Box<T>> {
        let word = self.word.load(Ordering::Relaxed);
        if is_mark(word) {
            return None;
        }
        let empty = ptr::without_provenance_mut(EMPTY);
        let stolen = self.word.compare_exchange(word, empty, Ordering::AcqRel, Ordering::Relaxed);
        stolen.ok().and_then(owned)
    }

    /// Whether a box lies here.
    pub(super) fn has_item(&self) -> bool {
        !is_mark(self.word.load(Ordering::Relaxed))
    }

    /// The consumer is about to sleep. False when a box lies here.
    pub(super) fn watch(&self) -> bool {
        let watched = ptr::without_provenance_mut(WATCHED);
        let mut word = self.word.load(Ordering::Relaxed);
        loop {
            if !is_mark(word) {
                return false;
            }
            match self.word.compare_exchange(word, watched, Ordering::AcqRel, Ordering::Relaxed) {
                Ok(_) => return true,
                Err(other) => word = other,
            }
        }
    }
}

impl<T> Drop for Tray<T> {
    fn drop(&mut self) {
        drop(self.take().item);
    }
}

impl<T> fmt::Debug for Tray<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tray").finish_non_exhaustive()
    }
}

/// The box behind a word that was just swapped out.
fn owned<T>(word: *mut T) -> Option<Box<T>> {
    // SAFETY: by invariants 1 and 2 a word that is no mark came from `Box::into_raw` and has no other owner.
    (!is_mark(word)).then(|| unsafe { Box::from_raw(word) })
}

fn is_mark<T>(word: *mut T) -> bool {
    word.addr() <= TAKEN
}

/// No box has these addresses.
const EMPTY: usize = 0;
const WATCHED: usize = 1;
const TAKEN: usize = 2;
