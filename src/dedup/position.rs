//! [`Position`]: how far a log had come.

/// How far the log had come at some time: see [`Deduplicator::position`](crate::Deduplicator::position).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Position(
    /// `None`: there was something that could not be appended.
    pub(super) Option<crate::log::Position>,
);
