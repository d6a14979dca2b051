//! What the log's files take on disk, and how much more they may.
//!
//! The books are kept where the files are changed: [`Counted`] is a storage that passes everything on and notes what came
//! of it. What they hold is the length of each file; space is taken when a segment is prepared, so that is what the
//! disk gives, but for what a file system needs for itself.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::header::{self, PAGE_BYTES};
use super::recovery::is_quarantined;
use super::segment::{PREPARE_NAME, RECYCLED_NAME};
use super::storage::{Opened, Status, Storage};

/// A storage whose log files are counted.
pub(super) struct Counted {
    inner: Arc<dyn Storage>,
    /// The length of each file of the log.
    bytes: Mutex<BTreeMap<String, u64>>,
}

impl Counted {
    /// Counts what is there.
    pub(super) fn new(inner: Arc<dyn Storage>) -> io::Result<Self> {
        let counted = Self { inner, bytes: Mutex::default() };
        for name in counted.inner.list()?.iter().filter(|name| is_of_log(name)) {
            counted.note(name)?;
        }
        Ok(counted)
    }

    /// What all files of the log take.
    pub(super) fn bytes(&self) -> u64 {
        self.files().values().sum()
    }

    /// How large a segment may be that takes the place of the file `replaced`, so that no more than `limit` is taken:
    /// as `wanted`, or less, but not less than `least`.
    pub(super) fn room(&self, limit: Option<u64>, replaced: &str, wanted: u64, least: u64) -> Option<u64> {
        let Some(limit) = limit else { return Some(wanted) };
        let others: u64 = self.files().iter().filter(|file| file.0 != replaced).map(|file| file.1).sum();
        let page = PAGE_BYTES as u64;
        let bytes = (limit.saturating_sub(others) / page * page).min(wanted);
        (bytes >= least).then_some(bytes)
    }

    fn files(&self) -> MutexGuard<'_, BTreeMap<String, u64>> {
        self.bytes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks how long a file is.
    fn note(&self, name: &str) -> io::Result<()> {
        match self.inner.status(name) {
            Ok(status) => self.files().insert(name.to_owned(), status.bytes),
            Err(error) if error.kind() == io::ErrorKind::NotFound => self.files().remove(name),
            Err(error) => return Err(error),
        };
        Ok(())
    }

    /// Notes that a file has so many bytes now; or, when something failed, looks.
    fn noted<T>(&self, name: &str, bytes: u64, result: io::Result<T>) -> io::Result<T> {
        match &result {
            Ok(_) => drop(self.files().insert(name.to_owned(), bytes)),
            // What cannot be looked at is taken to be as before. The first error is the one to tell.
            Err(_) => drop(self.note(name)),
        }
        result
    }

    fn known(&self, name: &str) -> u64 {
        self.files().get(name).copied().unwrap_or(0)
    }
}

impl Storage for Counted {
    fn list(&self) -> io::Result<Vec<String>> {
        self.inner.list()
    }

    fn create(&self, name: &str, bytes: u64) -> io::Result<Opened> {
        self.noted(name, bytes, self.inner.create(name, bytes))
    }

    fn recycle(&self, name: &str, bytes: u64) -> io::Result<Opened> {
        self.noted(name, bytes, self.inner.recycle(name, bytes))
    }

    fn write_back(&self, name: &str) -> io::Result<()> {
        self.inner.write_back(name)
    }

    fn read(&self, name: &str, limit: u64) -> io::Result<Vec<u8>> {
        self.inner.read(name, limit)
    }

    fn read_into(&self, name: &str, limit: u64, bytes: &mut Vec<u8>) -> io::Result<()> {
        self.inner.read_into(name, limit, bytes)
    }

    fn cut(&self, name: &str, bytes: u64) -> io::Result<()> {
        let left = self.known(name).min(bytes);
        self.noted(name, left, self.inner.cut(name, bytes))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.inner.rename(from, to)?;
        let mut bytes = self.files();
        if let Some(moved) = bytes.remove(from) {
            bytes.insert(to.to_owned(), moved);
        }
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.inner.remove(name)?;
        self.files().remove(name);
        Ok(())
    }

    fn sync_directory(&self) -> io::Result<()> {
        self.inner.sync_directory()
    }

    fn random(&self) -> io::Result<u64> {
        self.inner.random()
    }

    fn status(&self, name: &str) -> io::Result<Status> {
        self.inner.status(name)
    }

    fn place(&self, name: &str) -> String {
        self.inner.place(name)
    }
}

/// Whether a file of this name is one of the log's, and not the lock, the secret, or somebody else's.
fn is_of_log(name: &str) -> bool {
    name == PREPARE_NAME || name == RECYCLED_NAME || header::number(name).is_some() || is_quarantined(name)
}
