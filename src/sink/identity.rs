//! [`FileIdentity`]: what makes a file the same file, whatever it is called.

use std::fmt;
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::time::UNIX_EPOCH;

use crate::time::Timestamp;

/// A file, under whatever name, for as long as it exists.
///
/// For a position in a file that has to be found again by a later process: a name says nothing, as files are renamed and
/// replaced. The number of an inode is given to another file once the first is gone, and that of a device may change when
/// a machine starts again; the time of birth does neither. So [`is`](Self::is) compares inodes and births, and devices only
/// where one of the births is not known.
///
/// # What it cannot tell
/// On a file system that keeps no birth, a file that was deleted and one that got its inode since are the same, and a file
/// whose device got another number is not the same any more. With births, two files on two file systems with equal inodes
/// that were made in the same nanosecond are the same. What a file holds is not looked at: whoever keeps a position has to
/// check what stands before it.
///
/// # Example
/// ```
/// use dedupd::sink::FileIdentity;
///
/// # let dir = tempfile::tempdir()?;
/// # let (path, moved) = (dir.path().join("events.ndjson"), dir.path().join("events.ndjson.1"));
/// std::fs::write(&path, "")?;
/// let kept = FileIdentity::of(&std::fs::metadata(&path)?).to_string();
/// std::fs::rename(&path, &moved)?;
/// let file = FileIdentity::parse(&kept).expect("what was written above");
/// assert!(file.is(&FileIdentity::of(&std::fs::metadata(&moved)?)));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct FileIdentity {
    /// The number of the file system's device.
    pub device: u64,
    /// The number of the file in its file system.
    pub inode: u64,
    /// When the file was made; none where the file system does not keep it.
    pub born: Option<Timestamp>,
}

impl FileIdentity {
    /// Of the file that `about` is about.
    #[must_use]
    pub fn of(about: &Metadata) -> Self {
        let born = about.created().ok().and_then(|born| born.duration_since(UNIX_EPOCH).ok());
        let born = born.and_then(|since| i64::try_from(since.as_nanos()).ok()).map(Timestamp::from_nanos);
        Self { device: about.dev(), inode: about.ino(), born }
    }

    /// Whether both are one file. Not the same as `==`, which compares all that is known.
    #[must_use]
    pub fn is(&self, other: &Self) -> bool {
        let same = match (self.born, other.born) {
            (Some(born), Some(other)) => born == other,
            _ => self.device == other.device,
        };
        same && self.inode == other.inode
    }

    /// What was written with [`Display`](fmt::Display). Other fields may stand in `text` too, separated by spaces. None
    /// when there is no inode or no device in it.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let field = |name| text.split(' ').find_map(|field| field.strip_prefix(name)?.strip_prefix('='));
        let number = |name| field(name)?.parse().ok();
        let born = field("born").and_then(|nanos| nanos.parse().ok()).map(Timestamp::from_nanos);
        Some(Self { inode: number("inode")?, device: number("device")?, born })
    }
}

/// `inode=132 device=2049 born=1763800000000000000`, where `born` is in nanoseconds since 1970 and may be left out. States
/// keep it so.
impl fmt::Display for FileIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { inode, device, born } = self;
        write!(f, "inode={inode} device={device}")?;
        match born {
            Some(born) => write!(f, " born={}", born.as_nanos()),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BORN: FileIdentity = FileIdentity { device: 1, inode: 2, born: Some(Timestamp::from_nanos(3)) };
    const UNBORN: FileIdentity = FileIdentity { born: None, ..BORN };

    #[test]
    fn a_file_is_the_same_under_another_name_and_its_successor_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let [old, moved] = ["old", "moved"].map(|name| dir.path().join(name));
        let identity = |path| FileIdentity::of(&std::fs::metadata(path).unwrap());
        std::fs::write(&old, "1").unwrap();
        let first = identity(&old);
        std::fs::rename(&old, &moved).unwrap();
        std::fs::write(&old, "1").unwrap();
        assert!(first.is(&identity(&moved)));
        assert!(!first.is(&identity(&old)));
    }

    #[test]
    fn the_device_counts_where_no_birth_is_known() {
        let elsewhere = |identity| FileIdentity { device: 9, ..identity };
        assert!(UNBORN.is(&UNBORN) && !UNBORN.is(&elsewhere(UNBORN)));
        assert!(UNBORN.is(&BORN) && !UNBORN.is(&elsewhere(BORN)));
        let later = FileIdentity { born: Some(Timestamp::from_nanos(4)), ..BORN };
        assert!(BORN.is(&elsewhere(BORN)) && !BORN.is(&later));
    }

    #[test]
    fn the_text_of_it_is_a_disk_format_and_comes_back() {
        for (identity, text) in [(BORN, "inode=2 device=1 born=3"), (UNBORN, "inode=2 device=1")] {
            assert_eq!(identity.to_string(), text);
            assert_eq!(FileIdentity::parse(text), Some(identity));
            assert_eq!(FileIdentity::parse(&format!("{text} offset=7")), Some(identity));
        }
        for text in ["", "inode=1", "device=1", "inode= device=1", "inode=-1 device=1"] {
            assert_eq!(FileIdentity::parse(text), None, "{text}");
        }
    }
}
