//! What passes jobs and landings: crossbeam's channel and queue, or locked stand-ins for shuttle, which cannot look into
//! crossbeam.

#[cfg(not(shuttle))]
pub(super) use crossbeam::channel::{Receiver, Sender, TrySendError, bounded};
#[cfg(not(shuttle))]
pub(super) use crossbeam::queue::SegQueue;

#[cfg(shuttle)]
pub(super) use stand_in::{Receiver, SegQueue, Sender, TrySendError, bounded};

#[cfg(shuttle)]
mod stand_in {
    use std::collections::VecDeque;
    use std::sync::Arc;

    use crate::sync::{Condvar, Mutex};

    struct Shared<T> {
        state: Mutex<State<T>>,
        changed: Condvar,
        capacity: usize,
    }

    struct State<T> {
        items: VecDeque<T>,
        senders: usize,
        has_receiver: bool,
    }

    pub(in crate::pipeline) struct Sender<T>(Arc<Shared<T>>);
    pub(in crate::pipeline) struct Receiver<T>(Arc<Shared<T>>);

    pub(in crate::pipeline) enum TrySendError<T> {
        Full(T),
        Disconnected,
    }

    pub(in crate::pipeline) fn bounded<T>(capacity: usize) -> (Sender<T>, Receiver<T>) {
        let state = Mutex::new(State { items: VecDeque::new(), senders: 1, has_receiver: true });
        let shared = Arc::new(Shared { state, changed: Condvar::new(), capacity });
        (Sender(Arc::clone(&shared)), Receiver(shared))
    }

    impl<T> Sender<T> {
        pub(in crate::pipeline) fn try_send(&self, item: T) -> Result<(), TrySendError<T>> {
            let mut state = self.0.state.lock().unwrap();
            if !state.has_receiver {
                return Err(TrySendError::Disconnected);
            }
            if state.items.len() == self.0.capacity {
                return Err(TrySendError::Full(item));
            }
            state.items.push_back(item);
            self.0.changed.notify_all();
            Ok(())
        }

        pub(in crate::pipeline) fn is_full(&self) -> bool {
            self.0.state.lock().unwrap().items.len() == self.0.capacity
        }
    }

    impl<T> Clone for Sender<T> {
        fn clone(&self) -> Self {
            self.0.state.lock().unwrap().senders += 1;
            Self(Arc::clone(&self.0))
        }
    }

    impl<T> Drop for Sender<T> {
        fn drop(&mut self) {
            self.0.state.lock().unwrap().senders -= 1;
            self.0.changed.notify_all();
        }
    }

    impl<T> Iterator for &Receiver<T> {
        type Item = T;

        fn next(&mut self) -> Option<T> {
            let mut state = self.0.state.lock().unwrap();
            loop {
                if let Some(item) = state.items.pop_front() {
                    return Some(item);
                }
                if state.senders == 0 {
                    return None;
                }
                state = self.0.changed.wait(state).unwrap();
            }
        }
    }

    impl<T> Drop for Receiver<T> {
        fn drop(&mut self) {
            self.0.state.lock().unwrap().has_receiver = false;
        }
    }

    pub(in crate::pipeline) struct SegQueue<T>(Mutex<VecDeque<T>>);

    impl<T> SegQueue<T> {
        pub(in crate::pipeline) fn new() -> Self {
            Self(Mutex::new(VecDeque::new()))
        }

        pub(in crate::pipeline) fn push(&self, item: T) {
            self.0.lock().unwrap().push_back(item);
        }

        pub(in crate::pipeline) fn pop(&self) -> Option<T> {
            self.0.lock().unwrap().pop_front()
        }

        pub(in crate::pipeline) fn is_empty(&self) -> bool {
            self.0.lock().unwrap().is_empty()
        }
    }
}
