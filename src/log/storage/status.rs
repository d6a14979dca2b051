//! Which file it is and how long, and nothing of its times.
//!
//! Where a file's times were asked for, Linux (6.13 and later) has the next write give it new ones, and the sync
//! after that writes the inode too: a third write to the disk, beside the page and the flush. So they are not asked for.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use super::{FileId, Status};

impl Status {
    /// Of an open file.
    pub(super) fn of(file: &fs::File) -> io::Result<Self> {
        #[cfg(target_os = "linux")]
        if let Some(told) = linux::of(file) {
            return told;
        }
        file.metadata().map(|told| Self::from_all(&told))
    }

    /// Of what stands at `path`, which may be a link.
    pub(super) fn at(path: &Path) -> io::Result<Self> {
        #[cfg(target_os = "linux")]
        if let Some(told) = linux::at(path) {
            return told;
        }
        fs::symlink_metadata(path).map(|told| Self::from_all(&told))
    }

    fn from_all(told: &fs::Metadata) -> Self {
        Self { id: FileId { device: told.dev(), inode: told.ino() }, bytes: told.size() }
    }
}

#[cfg(target_os = "linux")]
mod linux {
    use std::ffi::{CStr, CString};
    use std::fs;
    use std::io;
    use std::mem::MaybeUninit;
    use std::os::fd::AsRawFd as _;
    use std::os::unix::ffi::OsStrExt as _;
    use std::path::Path;

    use super::{FileId, Status};

    /// None: the kernel, or what stands between, does not know the call.
    pub(super) fn of(file: &fs::File) -> Option<io::Result<Status>> {
        ask(file.as_raw_fd(), c"", libc::AT_EMPTY_PATH)
    }

    /// The same.
    pub(super) fn at(path: &Path) -> Option<io::Result<Status>> {
        let path = CString::new(path.as_os_str().as_bytes()).ok()?;
        ask(libc::AT_FDCWD, &path, libc::AT_SYMLINK_NOFOLLOW)
    }

    fn ask(directory: libc::c_int, path: &CStr, flags: libc::c_int) -> Option<io::Result<Status>> {
        let mut told = MaybeUninit::<libc::statx>::uninit();
        // SAFETY: `path` ends with a zero, and `told` is a valid place for one `statx`.
        if unsafe { libc::statx(directory, path.as_ptr(), flags, WANTED, told.as_mut_ptr()) } != 0 {
            let error = io::Error::last_os_error();
            // A sandbox that does not know the call refuses it.
            let is_known = !matches!(error.raw_os_error(), Some(libc::ENOSYS | libc::EPERM));
            return is_known.then_some(Err(error));
        }
        // SAFETY: the call succeeded, so it has filled the structure.
        let told = unsafe { told.assume_init() };
        let is_complete = told.stx_mask & WANTED == WANTED;
        is_complete.then(|| {
            Ok(Status {
                id: FileId { device: libc::makedev(told.stx_dev_major, told.stx_dev_minor), inode: told.stx_ino },
                bytes: told.stx_size,
            })
        })
    }

    const WANTED: libc::c_uint = libc::STATX_INO | libc::STATX_SIZE;
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io;

    use super::Status;

    #[test]
    fn both_ways_of_asking_agree() {
        let dir = tempfile::tempdir().unwrap();
        let (path, link) = (dir.path().join("file"), dir.path().join("link"));
        fs::write(&path, "12345").unwrap();
        std::os::unix::fs::symlink(&path, &link).unwrap();
        let file = fs::File::open(&path).unwrap();
        let told = Status::of(&file).unwrap();
        assert_eq!(told.bytes, 5);
        assert_eq!(told, Status::at(&path).unwrap());
        assert_eq!(told, Status::from_all(&file.metadata().unwrap()));
        assert_eq!(Status::at(&link).unwrap(), Status::from_all(&fs::symlink_metadata(&link).unwrap()));
        assert_eq!(Status::at(&dir.path().join("none")).unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
