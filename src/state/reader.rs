//! A directory to read from.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::log::{self, Disk, LOCK_NAME, SECRET_NAME, Storage};

use super::StateError;
use super::error::file_name;

/// Ids by what a log says of them. One that was seen twice counts twice.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Ids {
    /// Seen for the first time.
    pub seen: u64,
    /// Their window started again.
    pub refreshed: u64,
    /// Forgotten.
    pub forgotten: u64,
}

impl Ids {
    pub(super) fn add(&mut self, ids: &log::Ids) {
        self.seen += ids.seen;
        self.refreshed += ids.refreshed;
        self.forgotten += ids.forgotten;
    }
}

/// A state directory that is there.
pub(super) struct Reader {
    pub(super) path: PathBuf,
    pub(super) disk: Disk,
}

impl Reader {
    pub(super) fn open(path: &Path) -> Result<Self, StateError> {
        let absent = |why| StateError::Absent { place: path.display().to_string(), why };
        match fs::metadata(path) {
            Ok(about) if about.is_dir() => {}
            Ok(_) => return Err(absent("it is no directory")),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(absent("there is nothing of that name"));
            }
            Err(source) => return Err(StateError::io("open", path, source)),
        }
        let disk = Disk::open(path).map_err(|source| StateError::io("open", path, source))?;
        let names = disk.list().map_err(|source| StateError::io("list", path, source))?;
        let is_state = names.iter().any(|name| name == LOCK_NAME || name == SECRET_NAME || log::is_segment(name));
        if !is_state {
            return Err(absent("it has neither a log nor a lock"));
        }
        Ok(Self { path: path.to_owned(), disk })
    }

    /// The size of the file of this name; none when it has gone.
    pub(super) fn bytes(&self, name: &str) -> Result<Option<u64>, StateError> {
        let path = self.path.join(name);
        match fs::symlink_metadata(&path) {
            Ok(metadata) => Ok(Some(metadata.len())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(StateError::io("read", &path, source)),
        }
    }

    /// The names in the directory, in order.
    pub(super) fn names(&self) -> Result<Vec<String>, StateError> {
        let mut names = self.disk.list().map_err(|source| StateError::io("list", &self.path, source))?;
        names.sort();
        Ok(names)
    }
}

/// The name of the file at `place`.
pub(super) fn named(place: &str) -> String {
    file_name(Path::new(place)).unwrap_or_default()
}
