//! [`Delivery`]: how often an event is delivered when the process dies.

use std::fmt;

/// The order of the steps, and what follows from it after `kill -9`.
///
/// From the weakest to the strongest.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
#[non_exhaustive]
pub enum Delivery {
    /// Commit, deliver: the few in flight may be lost. Only by explicit choice.
    AtMostOnce,
    /// Reserve, deliver, commit: the few in flight may be delivered again; none is lost.
    #[default]
    AtLeastOnce,
    /// The sink's position and the ids are committed as one: none is lost, none comes twice. Needs a state, one worker, and
    /// a sink that can be cut back. What goes to the dead letter may come there twice.
    ExactlyOnce,
}

impl Delivery {
    /// The stable name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::AtMostOnce => "at-most-once",
            Self::AtLeastOnce => "at-least-once",
            Self::ExactlyOnce => "exactly-once",
        }
    }
}

impl fmt::Display for Delivery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
