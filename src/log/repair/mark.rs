//! The marks of a repair: files whose names say how far it has come.

use std::io;

use crate::time::Timestamp;

use super::super::error::OpenError;
use super::super::fields::u64_at;
use super::super::header::{self, PAGE_BYTES};
use super::super::recovery::{numbers, quarantined_name, quarantined_until, refused};
use super::super::segment::PREPARE_NAME;
use super::super::storage::{Opened, Storage};
use super::Totals;

/// How far a repair has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mark {
    /// Segments from `first` on are copies that may be incomplete.
    Repairing { first: u64 },
    /// They are complete and on disk, and stand for those from `from` up to below `first`.
    Repaired { from: u64, first: u64 },
}

impl Mark {
    pub(super) fn repairing_in(names: &[String]) -> Option<Self> {
        names.iter().filter_map(|name| Self::of(name)).find(|mark| matches!(mark, Self::Repairing { .. }))
    }

    pub(super) fn repaired_in(names: &[String]) -> Option<Self> {
        names.iter().filter_map(|name| Self::of(name)).find(|mark| matches!(mark, Self::Repaired { .. }))
    }

    fn of(name: &str) -> Option<Self> {
        let number = |digits| u64::from_str_radix(digits, 16).ok();
        if let Some(first) = name.strip_suffix(REPAIRING) {
            return Some(Self::Repairing { first: number(first)? });
        }
        let (from, first) = name.strip_suffix(REPAIRED)?.split_once('-')?;
        Some(Self::Repaired { from: number(from)?, first: number(first)? })
    }

    fn name(self) -> String {
        match self {
            Self::Repairing { first } => format!("{first:016x}{REPAIRING}"),
            Self::Repaired { from, first } => format!("{from:016x}-{first:016x}{REPAIRED}"),
        }
    }

    fn first(self) -> u64 {
        match self {
            Self::Repairing { first } | Self::Repaired { first, .. } => first,
        }
    }

    /// Has the mark on disk, with `totals` in it, whole before it has its name.
    pub(super) fn make(self, storage: &dyn Storage, totals: Totals) -> Result<(), OpenError> {
        let name = self.name();
        let make = || {
            let Opened { mut pen, file } = storage.create(PREPARE_NAME, PAGE_BYTES as u64)?;
            pen.write(0, &totals.encode())?;
            file.sync_all()?;
            drop((pen, file));
            storage.rename(PREPARE_NAME, &name)?;
            storage.sync_directory()
        };
        make().map_err(|source| refused(storage, "create", &name, source))
    }

    pub(super) fn totals(self, storage: &dyn Storage) -> Result<Totals, OpenError> {
        let name = self.name();
        let page = storage.read(&name, PAGE_BYTES as u64).map_err(|source| refused(storage, "read", &name, source))?;
        Totals::decode(&page).ok_or_else(|| OpenError::Unrepaired { place: storage.place(&name) })
    }

    /// Throws away what an unfinished repair has copied. The number of its first segment.
    pub(super) fn discard_copies(self, storage: &dyn Storage) -> Result<u64, OpenError> {
        for number in numbers(&list(storage)?).into_iter().filter(|number| *number >= self.first()) {
            let name = header::name(number);
            storage.remove(&name).map_err(|source| refused(storage, "remove", &name, source))?;
        }
        sync(storage)?;
        Ok(self.first())
    }

    /// Moves the old segments aside, and takes away the marks. The names of what was moved.
    pub(super) fn finish(self, storage: &dyn Storage) -> Result<Vec<String>, OpenError> {
        let Self::Repaired { from, first } = self else { return Ok(Vec::new()) };
        let row = numbers(&list(storage)?);
        let last = row.last().copied().unwrap_or(first);
        for number in row.into_iter().filter(|number| (from..first).contains(number)) {
            let (name, aside) = (header::name(number), quarantined_name(number, last));
            storage.rename(&name, &aside).map_err(|source| refused(storage, "move aside", &name, source))?;
        }
        sync(storage)?;
        let mut aside = list(storage)?;
        aside.retain(|name| quarantined_until(name) == Some(last));
        aside.sort();
        Self::Repairing { first }.remove(storage)?;
        self.remove(storage)?;
        Ok(aside)
    }

    /// Takes the mark away, if it is there.
    pub(super) fn remove(self, storage: &dyn Storage) -> Result<(), OpenError> {
        let name = self.name();
        match storage.remove(&name) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(source) => Err(refused(storage, "remove", &name, source)),
            Ok(()) => sync(storage),
        }
    }
}

/// What a mark carries over from the process that was cut short.
impl Totals {
    fn encode(&self) -> [u8; TOTALS_BYTES] {
        let mut bytes = [0; TOTALS_BYTES];
        let latest = self.latest.map(|time| time.as_nanos().cast_unsigned());
        let fields = [Some(self.kept), self.frames, self.ids_max, latest];
        for (field, at) in fields.into_iter().zip((0..TOTALS_BYTES).step_by(16)) {
            bytes[at..at + 8].copy_from_slice(&u64::from(field.is_some()).to_le_bytes());
            bytes[at + 8..at + 16].copy_from_slice(&field.unwrap_or(0).to_le_bytes());
        }
        bytes
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let field = |at| Some((u64_at(bytes, at)? == 1).then_some(u64_at(bytes, at + 8)?));
        let latest = field(48)?.map(|nanos| Timestamp::from_nanos(nanos.cast_signed()));
        Some(Self { kept: field(0)?.unwrap_or(0), frames: field(16)?, ids_max: field(32)?, latest })
    }
}

/// Whether `name` says that a repair was cut short.
pub(in super::super) fn is_mark(name: &str) -> bool {
    Mark::of(name).is_some()
}

fn list(storage: &dyn Storage) -> Result<Vec<String>, OpenError> {
    storage.list().map_err(|source| refused(storage, "list", "", source))
}

fn sync(storage: &dyn Storage) -> Result<(), OpenError> {
    storage.sync_directory().map_err(|source| refused(storage, "sync", "", source))
}

const REPAIRING: &str = ".repairing";
const REPAIRED: &str = ".repaired";
const TOTALS_BYTES: usize = 64;
