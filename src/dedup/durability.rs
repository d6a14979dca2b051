//! What a state survives, and what is done when it cannot be kept.

use std::time::Duration;

/// What the answers of a set with a state rest on, and so what they survive.
///
/// | | a batch or commit | survives `kill -9` | survives power loss |
/// |---|---|---|---|
/// | `None` | is in memory | no | no |
/// | `Process` | is in the page cache when the call returns | yes | only what the kernel wrote |
/// | `Interval` | the same, and on disk after the interval | yes | what is older than the interval and a sync |
/// | `PowerLoss` | is on disk when the call returns, duplicates included | yes | yes |
///
/// A single [`observe`](crate::Deduplicator::observe) reaches the page cache within about 1 ms, except with `PowerLoss`,
/// where it waits for the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Durability {
    /// Nothing new is kept, no ids and no progress: the state is read at open, and only what is forgotten is written to it,
    /// and what its log needs to age out.
    None,
    /// Survives the death of the process.
    Process,
    /// Survives the death of the process, and power loss but for about the last interval.
    Interval(Duration),
    /// Survives power loss.
    PowerLoss,
}

impl Default for Durability {
    /// [`Durability::Interval`] of 50 ms.
    fn default() -> Self {
        Self::Interval(Duration::from_millis(50))
    }
}

/// What is done when the log cannot take a record: its disk is full, or a write or sync has failed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum OnLogFailure {
    /// Questions are answered from memory, and each record that is missing is counted in
    /// [`Stats::unlogged`](super::Stats::unlogged).
    Continue,
    /// Questions are not judged: [`Unjudged::LogFailed`](crate::Unjudged::LogFailed).
    #[default]
    Refuse,
}

/// What [`Builder::open`](super::Builder::open) does with a state whose bytes have gone bad.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum OnCorrupt {
    /// Refuses it, and changes nothing: [`OpenError::Corrupt`](super::OpenError::Corrupt).
    #[default]
    Refuse,
    /// Repairs it as [`state::repair`](crate::state::repair()) does, and goes on with what is left;
    /// [`Recovery::repair`](super::Recovery::repair) tells what may be unknown.
    Salvage,
}
