//! A bounded queue for many producers and consumers: crossbeam's, or a locked stand-in for loom and shuttle, which
//! cannot look into crossbeam.

#[cfg(not(any(loom, shuttle)))]
pub(super) use crossbeam::queue::ArrayQueue as Bounded;

#[cfg(any(loom, shuttle))]
pub(super) use stand_in::Bounded;

#[cfg(any(loom, shuttle))]
mod stand_in {
    use std::collections::VecDeque;

    use crate::sync::Mutex;

    #[derive(Debug)]
    pub(in crate::queue) struct Bounded<T> {
        items: Mutex<VecDeque<T>>,
        capacity: usize,
    }

    impl<T> Bounded<T> {
        pub(in crate::queue) fn new(capacity: usize) -> Self {
            Self { items: Mutex::new(VecDeque::new()), capacity }
        }

        pub(in crate::queue) fn push(&self, item: T) -> Result<(), T> {
            let mut items = self.items.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            if items.len() == self.capacity {
                return Err(item);
            }
            items.push_back(item);
            Ok(())
        }

        pub(in crate::queue) fn pop(&self) -> Option<T> {
            self.items.lock().unwrap_or_else(std::sync::PoisonError::into_inner).pop_front()
        }

        pub(in crate::queue) fn is_empty(&self) -> bool {
            self.items.lock().unwrap_or_else(std::sync::PoisonError::into_inner).is_empty()
        }
    }
}
