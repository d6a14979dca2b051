//! Where a file is that was renamed.

use std::fs::{self, Metadata};
use std::path::{Path, PathBuf};

/// The first of the regular files beside `path` that is `wanted`.
pub fn sibling(path: &Path, wanted: impl Fn(&Metadata) -> bool) -> Option<PathBuf> {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut files = fs::read_dir(directory).ok()?.flatten().map(|entry| entry.path());
    files.find(|file| fs::metadata(file).is_ok_and(|about| about.is_file() && wanted(&about)))
}
