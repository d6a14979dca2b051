//! [`WaitStrategy`]: what a thread does that has nothing to do.

use crate::sync::thread;

/// What a thread does while it waits for room or for work.
///
/// | strategy | a wait costs | wakes up within | for |
/// |---|---|---|---|
/// | `Spin` | a whole core | some 10 ns | a core for each thread, and nothing else to run |
/// | `Yield` | a core that others may use | some µs, more when others run | the same with a few more threads than cores |
/// | `Park` | nothing, after a few µs | 5 to 50 µs | everything else |
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
#[non_exhaustive]
pub enum WaitStrategy {
    /// Looks again and again.
    Spin,
    /// Looks again and again, and lets others run in between.
    Yield,
    /// Looks again for a few microseconds, then sleeps until it is woken.
    #[default]
    Park,
}

impl WaitStrategy {
    /// The stable name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Spin => "spin",
            Self::Yield => "yield",
            Self::Park => "park",
        }
    }

    /// Looks for `what` until it is there, or, when this strategy sleeps, long enough that sleeping is better.
    pub(super) fn look<R>(self, mut what: impl FnMut() -> Option<R>) -> Option<R> {
        for _ in 0..LOOKS_MAX {
            let found = what();
            if found.is_some() {
                return found;
            }
            self.pause();
        }
        None
    }

    /// Between two looks.
    pub(super) fn pause(self) {
        // Shuttle lets everybody else run first when one yields: then nobody would ever be the first to sleep.
        if self == Self::Yield || cfg!(loom) || cfg!(shuttle) && self == Self::Spin {
            thread::yield_now();
        } else {
            std::hint::spin_loop();
        }
    }
}

/// About 3 µs of spinning.
const LOOKS_MAX: u32 = if cfg!(any(loom, shuttle)) { 1 } else { 100 };
