//! What the log asks of a disk: few operations, so that a failing or a forgetful disk is just another implementation.
//!
//! [`Disk`] is the real one. The tests bring one in memory that loses unsynced sectors and fails at any call; both
//! run the same log.

mod disk;
mod fault;
#[cfg(any(test, fuzzing))]
#[cfg_attr(fuzzing, allow(dead_code, clippy::unwrap_used))]
pub(super) mod simulated;
mod status;

use std::io;
use std::sync::Arc;

pub(crate) use disk::Disk;
pub use fault::survive_sigbus;

/// A directory of files.
///
/// Nothing is on disk before the sync that covers it: of a file's bytes [`File::sync`] or [`File::sync_all`], of names
/// [`Storage::sync_directory`].
pub(crate) trait Storage: Send + Sync {
    /// The names in the directory, in any order.
    fn list(&self) -> io::Result<Vec<String>>;

    /// Makes a file of `bytes` zeros whose space is taken already; an older one of that name is replaced.
    fn create(&self, name: &str, bytes: u64) -> io::Result<Opened>;

    /// Opens a file to be written anew, cut or extended to `bytes` whose space is taken already. It keeps its old
    /// bytes.
    fn recycle(&self, name: &str, bytes: u64) -> io::Result<Opened>;

    /// Puts all of a file on disk, and has later reads come from there and not from the page cache, which after a
    /// failed sync shows what the disk has not got.
    fn write_back(&self, name: &str) -> io::Result<()>;

    /// The bytes of a file, at most `limit`.
    fn read(&self, name: &str, limit: u64) -> io::Result<Vec<u8>>;

    /// The same into `bytes`, whose memory is used again.
    fn read_into(&self, name: &str, limit: u64, bytes: &mut Vec<u8>) -> io::Result<()> {
        *bytes = self.read(name, limit)?;
        Ok(())
    }

    /// Cuts a file that nobody writes to.
    fn cut(&self, name: &str, bytes: u64) -> io::Result<()>;

    /// Gives a file another name, in place of whatever had that name.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;

    /// Removes a name.
    fn remove(&self, name: &str) -> io::Result<()>;

    /// Puts all names on disk as they are now.
    fn sync_directory(&self) -> io::Result<()>;

    /// A number that nobody can guess: for salts.
    fn random(&self) -> io::Result<u64>;

    /// What the file system says about the file that has a name now.
    fn status(&self, name: &str) -> io::Result<Status>;

    /// Where a name is, for messages.
    fn place(&self, name: &str) -> String;
}

/// A file to be written: the right to do so, and what many threads may do meanwhile.
pub(crate) struct Opened {
    pub(crate) pen: Box<dyn Pen>,
    pub(crate) file: Arc<dyn File>,
}

/// Which file it is, and how it stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Status {
    pub(crate) id: FileId,
    pub(crate) bytes: u64,
}

/// What a file has as long as it is open, and no other file meanwhile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FileId {
    pub(crate) device: u64,
    pub(crate) inode: u64,
}

/// The one right to store to a file.
pub(crate) trait Pen: Send {
    /// Stores `bytes` at `offset`: they survive the death of the process when this returns.
    fn write(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()>;

    /// Whether `error`, of a write, says only that there was no room for its own bytes: no others are lost, and the same may
    /// be stored again.
    fn lacks_room(&self, error: &io::Error) -> bool;
}

/// A file that somebody writes to.
pub(crate) trait File: Send + Sync {
    /// Puts the bytes `from..to` on disk, and maybe more. A failure is final: what is on disk is not known then.
    fn sync(&self, from: u64, to: u64) -> io::Result<()>;

    /// Puts all bytes and the file's size on disk.
    fn sync_all(&self) -> io::Result<()>;

    /// Which file this is, whatever its name. Asked of the file system when it was opened: it stays so.
    fn id(&self) -> FileId;

    /// Has the pages of `from..to` at hand for the pen, as far as that helps. Changes no content.
    fn touch(&self, from: u64, to: u64);
}
