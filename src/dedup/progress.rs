//! [`Progress`]: how far sources were read and sinks were written, kept with the ids that belong to it.

use std::collections::BTreeMap;

/// Positions of sources and sinks, by name. Both are the caller's bytes; of one name the latest counts.
///
/// Recorded by [`Reservation::try_commit`](super::Reservation::try_commit) together with ids, all or nothing, and told
/// after a restart by [`Deduplicator::progress`](crate::Deduplicator::progress).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    sources: BTreeMap<Box<[u8]>, Box<[u8]>>,
    sinks: BTreeMap<Box<[u8]>, Box<[u8]>>,
}

impl Progress {
    /// No positions.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether it names nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.sources.is_empty() && self.sinks.is_empty()
    }

    /// Sets how far the source `name` was read.
    pub fn set_source(&mut self, name: impl AsRef<[u8]>, position: impl AsRef<[u8]>) {
        self.sources.insert(name.as_ref().into(), position.as_ref().into());
    }

    /// Sets how far the sink `name` was written.
    pub fn set_sink(&mut self, name: impl AsRef<[u8]>, position: impl AsRef<[u8]>) {
        self.sinks.insert(name.as_ref().into(), position.as_ref().into());
    }

    /// How far the source `name` was read.
    #[must_use]
    pub fn source(&self, name: impl AsRef<[u8]>) -> Option<&[u8]> {
        self.sources.get(name.as_ref()).map(AsRef::as_ref)
    }

    /// How far the sink `name` was written.
    #[must_use]
    pub fn sink(&self, name: impl AsRef<[u8]>) -> Option<&[u8]> {
        self.sinks.get(name.as_ref()).map(AsRef::as_ref)
    }

    pub(super) fn remove(&mut self, is_source: bool, name: &[u8]) {
        let positions = if is_source { &mut self.sources } else { &mut self.sinks };
        positions.remove(name);
    }

    /// All sources, by name.
    pub fn sources(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.sources.iter().map(|(name, position)| (&**name, &**position))
    }

    /// All sinks, by name.
    pub fn sinks(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.sinks.iter().map(|(name, position)| (&**name, &**position))
    }
}
