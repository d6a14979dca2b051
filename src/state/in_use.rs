//! Who has a state open, without asking for the lock: whoever wanted to open it meanwhile would be refused.

use std::fmt;
use std::path::Path;

use crate::log::LOCK_NAME;

/// Whether a process of this machine has a state open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Use {
    /// Nobody has, as far as the kernel shows: processes in other containers may be hidden.
    Free,
    /// This process has.
    By(u32),
    /// It cannot be told here.
    Unknown,
}

impl Use {
    #[cfg(target_os = "linux")]
    pub(crate) fn of(directory: &Path) -> Self {
        use std::os::unix::fs::MetadataExt as _;
        let Ok(locks) = std::fs::read_to_string("/proc/locks") else { return Self::Unknown };
        match std::fs::symlink_metadata(directory.join(LOCK_NAME)) {
            Ok(lock) => Self::in_locks(&locks, libc::major(lock.dev()), libc::minor(lock.dev()), lock.ino()),
            Err(_) => Self::Free,
        }
    }

    #[cfg(not(target_os = "linux"))]
    pub(crate) fn of(_: &Path) -> Self {
        let _ = LOCK_NAME;
        Self::Unknown
    }

    /// Finds the file in lines like `7: FLOCK  ADVISORY  WRITE 4711 fe:00:123456 0 EOF` (proc(5)).
    #[cfg(target_os = "linux")]
    fn in_locks(locks: &str, major: u32, minor: u32, inode: u64) -> Self {
        let file = format!("{major:02x}:{minor:02x}:{inode}");
        let holder = locks.lines().find_map(|line| {
            let mut words = line.split_whitespace().skip(1);
            let (kind, pid) = (words.next()?, words.nth(2)?);
            // One that waits has an arrow in place of the kind.
            (kind == "FLOCK" && words.next()? == file).then(|| pid.parse().unwrap_or(0))
        });
        holder.map_or(Self::Free, Self::By)
    }
}

/// Who has it, in words: `process 4711 (dedupd)`. Only for people to read: the process may have ended meanwhile.
impl fmt::Display for Use {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::By(pid) if *pid == std::process::id() => f.write_str("this process"),
            // A process of another namespace has no number here.
            Self::By(pid) if *pid > 0 => {
                write!(f, "process {pid}")?;
                name(*pid).map_or(Ok(()), |name| write!(f, " ({name})"))
            }
            _ => f.write_str("another process"),
        }
    }
}

/// What the process of this number is called, when that can be told and printed.
fn name(pid: u32) -> Option<String> {
    let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
    let name = name.trim_end_matches('\n');
    (!name.is_empty() && !name.chars().any(char::is_control)).then(|| name.to_owned())
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn the_holder_of_a_lock_is_found_and_who_waits_is_not() {
        let locks = "1: POSIX  ADVISORY  WRITE 7 fe:00:55 0 EOF\n2: FLOCK  ADVISORY  WRITE 4711 fe:00:123456 0 EOF\n\
                     2: -> FLOCK  ADVISORY  WRITE 8 fe:00:99 0 EOF\n";
        assert_eq!(Use::in_locks(locks, 0xfe, 0, 123_456), Use::By(4_711));
        assert_eq!(Use::in_locks(locks, 0xfe, 1, 123_456), Use::Free);
        assert_eq!(Use::in_locks(locks, 0xfe, 0, 55), Use::Free);
        assert_eq!(Use::in_locks(locks, 0xfe, 0, 99), Use::Free);
    }

    #[test]
    fn a_lock_that_is_held_is_seen() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(Use::of(folder.path()), Use::Free);
        let lock = std::fs::File::create(folder.path().join(LOCK_NAME)).unwrap();
        lock.lock().unwrap();
        assert_eq!(Use::of(folder.path()), Use::By(std::process::id()));
        drop(lock);
        assert_eq!(Use::of(folder.path()), Use::Free);
    }
}
