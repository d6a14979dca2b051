//! The state directory: made, locked while it is open, and with its secret in it.
//!
//! The lock is a `flock` on a file that is never removed: with a new file in its place two processes could each hold
//! one. It falls with the last descriptor of it, so a process that dies leaves none behind. Network file systems may
//! not pass it on to other machines.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::event::Secret;

/// A state directory that this process has to itself.
#[derive(Debug)]
pub(crate) struct Directory {
    path: PathBuf,
    /// Holds the lock for as long as it is open. Closed on exec, so that no child keeps it.
    _lock: fs::File,
}

/// Why there is no state directory.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum DirectoryError {
    /// Another process has it open, and had all the time that was given.
    #[error("{} is in use by another process: stop that, or wait longer with a lock timeout", .0.display())]
    InUse(PathBuf),
    /// The secret is not one.
    #[error("{} is not a secret, which is a file of 32 bytes: {RESTORE_SECRET}", .0.display())]
    BadSecret(PathBuf),
    /// The log is there and its secret is not.
    #[error("{} is gone, the secret of the log beside it: {RESTORE_SECRET}", .0.display())]
    NoSecret(PathBuf),
    /// The file system refuses something.
    #[error("cannot {act} {}", .path.display())]
    Io {
        act: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

impl DirectoryError {
    /// The stable name of this error, for tests.
    #[cfg(test)]
    pub(crate) fn code(&self) -> &'static str {
        match self {
            Self::InUse(_) => "state_in_use",
            Self::BadSecret(_) => "state_bad_secret",
            Self::NoSecret(_) => "state_no_secret",
            Self::Io { .. } => "state_io",
        }
    }
}

impl Directory {
    /// Makes the directory at `path` where there is none, and locks it, waiting up to `timeout` for who has it open.
    ///
    /// # Errors
    /// [`DirectoryError::InUse`] after the timeout; [`DirectoryError::Io`].
    pub(crate) fn open(path: &Path, timeout: Duration) -> Result<Self, DirectoryError> {
        make(path).map_err(refused("make the directory", path))?;
        let file = path.join(LOCK_NAME);
        let lock = options().create(true).truncate(false).open(&file).map_err(refused("open", &file))?;
        let deadline = Instant::now().checked_add(timeout);
        loop {
            match lock.try_lock() {
                Ok(()) => return Ok(Self { path: path.to_owned(), _lock: lock }),
                Err(fs::TryLockError::Error(source)) => return Err(refused("lock", &file)(source)),
                Err(fs::TryLockError::WouldBlock) if deadline.is_some_and(|deadline| Instant::now() >= deadline) => {
                    return Err(DirectoryError::InUse(path.to_owned()));
                }
                Err(fs::TryLockError::WouldBlock) => std::thread::sleep(LOCK_RETRY),
            }
        }
    }

    /// Where it is.
    #[cfg(test)]
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The secret of the state. A new state takes `or_new`; `is_new` says whether the directory holds no log yet.
    ///
    /// # Errors
    /// [`DirectoryError::NoSecret`] when there is a log and no secret, [`DirectoryError::BadSecret`],
    /// [`DirectoryError::Io`].
    pub(crate) fn secret(
        &self,
        is_new: bool,
        or_new: impl FnOnce() -> io::Result<Secret>,
    ) -> Result<Secret, DirectoryError> {
        let path = self.path.join(SECRET_NAME);
        match read_secret(&path) {
            Err(source) if source.kind() == io::ErrorKind::NotFound && is_new => {
                let secret = or_new().map_err(refused("make", &path))?;
                self.store(&secret).map_err(refused("write", &path))?;
                Ok(secret)
            }
            Err(source) if source.kind() == io::ErrorKind::NotFound => Err(DirectoryError::NoSecret(path)),
            Err(source) => Err(refused("read", &path)(source)),
            Ok(None) => Err(DirectoryError::BadSecret(path)),
            Ok(Some(secret)) => Ok(secret),
        }
    }

    /// Has the secret on disk, whole, before it has its name.
    fn store(&self, secret: &Secret) -> io::Result<()> {
        let temporary = self.path.join(SECRET_TEMPORARY);
        let mut file = options().create(true).truncate(true).open(&temporary)?;
        file.write_all(secret.as_bytes())?;
        file.sync_all()?;
        fs::rename(&temporary, self.path.join(SECRET_NAME))?;
        fs::File::open(&self.path)?.sync_all()
    }
}

/// Makes a directory that only its owner enters, and has its name on disk.
fn make(path: &Path) -> io::Result<()> {
    match DirBuilder::new().mode(0o700).create(path) {
        Ok(()) => {
            let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
            fs::File::open(parent)?.sync_all()
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
        Err(error) => Err(error),
    }
}

/// The secret in a file of exactly its size.
pub(crate) fn read_secret(path: &Path) -> io::Result<Option<Secret>> {
    let mut file = OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW).open(path)?;
    let mut bytes = [0; SECRET_BYTES];
    if file.metadata()?.size() != SECRET_BYTES as u64 {
        return Ok(None);
    }
    file.read_exact(&mut bytes)?;
    Ok(Some(Secret::from(bytes)))
}

fn options() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).write(true).mode(0o600).custom_flags(libc::O_NOFOLLOW);
    options
}

fn refused(act: &'static str, path: &Path) -> impl FnOnce(io::Error) -> DirectoryError {
    move |source| DirectoryError::Io { act, path: path.to_owned(), source }
}

/// What is left to do when a secret is lost.
pub(crate) const RESTORE_SECRET: &str = "restore it from a backup; no repair can replace it. Without a backup nobody can \
     tell which ids are in that log: move the directory aside and start with a new one, to which every event is first-seen";
pub(crate) const LOCK_NAME: &str = "LOCK";
pub(crate) const SECRET_NAME: &str = "SECRET";
const SECRET_TEMPORARY: &str = "SECRET.tmp";
const SECRET_BYTES: usize = 32;
/// `flock` waits for ever or not at all, so who waits asks again.
const LOCK_RETRY: Duration = Duration::from_millis(10);

#[cfg(test)]
mod tests {
    use super::*;

    fn folder() -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state");
        (folder, path)
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().mode() & 0o777
    }

    #[test]
    fn one_at_a_time_has_it_open() {
        let (_folder, path) = folder();
        let first = Directory::open(&path, Duration::ZERO).unwrap();
        assert_eq!(Directory::open(&path, Duration::ZERO).unwrap_err().code(), "state_in_use");
        drop(first);
        assert_eq!(Directory::open(&path, Duration::ZERO).unwrap().path(), path);
        assert_eq!((mode(&path), mode(&path.join(LOCK_NAME))), (0o700, 0o600));
    }

    #[test]
    fn who_waits_gets_it_when_it_is_free() {
        let (_folder, path) = folder();
        let first = Directory::open(&path, Duration::ZERO).unwrap();
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| Directory::open(&path, Duration::from_secs(60)).is_ok());
            drop(first);
            assert!(waiting.join().unwrap());
        });
    }

    #[test]
    fn the_secret_is_made_once_and_for_the_owner_only() {
        let (_folder, path) = folder();
        let directory = Directory::open(&path, Duration::ZERO).unwrap();
        let secret = directory.secret(true, || Ok(Secret::from([7; 32]))).unwrap();
        assert_eq!(directory.secret(false, || Ok(Secret::from([8; 32]))).unwrap(), secret);
        assert_eq!(mode(&path.join(SECRET_NAME)), 0o600);
    }

    #[test]
    fn a_log_without_its_secret_is_refused_and_so_is_half_a_secret() {
        let (_folder, path) = folder();
        let directory = Directory::open(&path, Duration::ZERO).unwrap();
        let code = || directory.secret(false, Secret::random).unwrap_err().code();
        assert_eq!(code(), "state_no_secret");
        fs::write(path.join(SECRET_NAME), [1; 31]).unwrap();
        assert_eq!(code(), "state_bad_secret");
    }
}
