//! What makes a file the same file, whatever it is called.

use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

/// A file, as long as it exists. The number of an inode is given to another file once the first is gone, and that of a
/// device may change when a machine starts again; the time of birth does neither, where a file system keeps it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    pub device: u64,
    pub inode: u64,
    /// In nanoseconds since 1970.
    pub born: Option<u64>,
}

impl Identity {
    pub fn of(about: &Metadata) -> Self {
        let born = about.created().ok().and_then(|born| born.duration_since(UNIX_EPOCH).ok());
        let born = born.and_then(|since| u64::try_from(since.as_nanos()).ok());
        Self { device: about.dev(), inode: about.ino(), born }
    }

    /// Whether both are one file.
    pub fn is(&self, other: &Self) -> bool {
        let same = match (self.born, other.born) {
            (Some(born), Some(other)) => born == other,
            _ => self.device == other.device,
        };
        same && self.inode == other.inode
    }
}

/// The first of the regular files beside `path` that is `wanted`.
pub fn sibling(path: &Path, wanted: impl Fn(&Metadata) -> bool) -> Option<PathBuf> {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut files = fs::read_dir(directory).ok()?.flatten().map(|entry| entry.path());
    files.find(|file| fs::metadata(file).is_ok_and(|about| about.is_file() && wanted(&about)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_the_same_under_another_name_and_its_successor_is_not() {
        let dir = tempfile::tempdir().expect("a directory");
        let [old, moved] = ["old", "moved"].map(|name| dir.path().join(name));
        let identity = |path| Identity::of(&std::fs::metadata(path).expect("a file"));
        std::fs::write(&old, "1").expect("written");
        let first = identity(&old);
        std::fs::rename(&old, &moved).expect("moved");
        std::fs::write(&old, "1").expect("written");
        assert!(first.is(&identity(&moved)));
        assert!(!first.is(&identity(&old)));
    }

    #[test]
    fn the_device_counts_where_no_birth_is_known() {
        let file = Identity { device: 1, inode: 2, born: None };
        assert!(file.is(&file) && !file.is(&Identity { device: 9, ..file }));
        let born = Identity { born: Some(3), ..file };
        assert!(born.is(&Identity { device: 9, ..born }) && !born.is(&Identity { born: Some(4), ..born }));
    }
}
