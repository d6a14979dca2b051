//! Preparing a segment: everything a frame needs is on disk before the segment has its name.

use std::io;
use std::sync::Arc;

use super::header::{self, IDENTITY_BYTES, PAGE_BYTES, SegmentHeader, Start};
use super::is_of_room;
use super::storage::{File, FileId, Opened, Pen, Storage};

/// A segment without frames, ready for them.
pub(super) struct Prepared {
    pub(super) number: u64,
    pub(super) salt: u64,
    pub(super) bytes: u64,
    /// Up to where its pages were touched.
    pub(super) touched: u64,
    pub(super) pen: Box<dyn Pen>,
    pub(super) file: Arc<dyn File>,
}

/// What a new segment is to be.
#[derive(Debug, Clone, Copy)]
pub(super) struct Order {
    pub(super) number: u64,
    pub(super) start: Start,
    pub(super) is_recycled: bool,
    pub(super) bytes: u64,
    pub(super) identity: [u8; IDENTITY_BYTES],
}

/// Why there is no new segment.
#[derive(Debug)]
pub(super) enum PrepareError {
    /// Nothing came of it; another try may succeed.
    Refused(io::Error),
    /// A sync failed: what is on disk is not known.
    Unsynced(io::Error),
}

impl Prepared {
    /// What stands in for the first segment as long as there is no room for it: nothing fits into it, and it has no file.
    pub(super) fn absent(number: u64) -> Self {
        let (salt, bytes, touched) = (0, 0, PAGE_BYTES as u64);
        Self { number, salt, bytes, touched, pen: Box::new(Absent), file: Arc::new(Absent) }
    }
}

/// No file.
#[derive(Debug)]
struct Absent;

impl Pen for Absent {
    fn write(&mut self, _: u64, _: &[u8]) -> io::Result<()> {
        Err(io::ErrorKind::StorageFull.into())
    }

    fn lacks_room(&self, _: &io::Error) -> bool {
        true
    }
}

impl File for Absent {
    fn sync(&self, _: u64, _: u64) -> io::Result<()> {
        Ok(())
    }

    fn sync_all(&self) -> io::Result<()> {
        Ok(())
    }

    /// No file is asked for by a name that this has.
    fn id(&self) -> FileId {
        FileId { device: 0, inode: 0 }
    }

    fn touch(&self, _: u64, _: u64) {}
}

impl Order {
    pub(super) fn prepare(&self, storage: &dyn Storage) -> Result<Prepared, PrepareError> {
        let salt = storage.random().map_err(PrepareError::Refused)?;
        let (file_name, opened) = self.open(storage).map_err(PrepareError::Refused)?;
        let Opened { mut pen, file } = opened;
        let header = SegmentHeader {
            number: self.number,
            salt,
            start: self.start,
            is_recycled: self.is_recycled,
            bytes: self.bytes,
            identity: self.identity,
        };
        pen.write(0, &header.encode()).map_err(PrepareError::Refused)?;
        file.sync_all().map_err(PrepareError::Unsynced)?;
        storage.rename(file_name, &header::name(self.number)).map_err(PrepareError::Refused)?;
        storage.sync_directory().map_err(PrepareError::Unsynced)?;
        Ok(Prepared { number: self.number, salt, bytes: self.bytes, touched: PAGE_BYTES as u64, pen, file })
    }

    /// The same; for want of room on the disk, one of `least` bytes.
    pub(super) fn prepare_or_less(&self, storage: &dyn Storage, least: u64) -> Result<Prepared, PrepareError> {
        match self.prepare(storage) {
            Err(PrepareError::Refused(error)) if is_of_room(&error) && least < self.bytes => {
                Self { bytes: least, ..*self }.prepare(storage)
            }
            prepared => prepared,
        }
    }

    fn open(&self, storage: &dyn Storage) -> io::Result<(&'static str, Opened)> {
        let name = name_before(self.is_recycled);
        let opened =
            if self.is_recycled { storage.recycle(name, self.bytes) } else { storage.create(name, self.bytes) };
        Ok((name, opened?))
    }
}

impl PrepareError {
    pub(super) fn into_source(self) -> io::Error {
        match self {
            Self::Refused(source) | Self::Unsynced(source) => source,
        }
    }
}

/// The name of the file that becomes the next segment.
pub(super) fn name_before(is_recycled: bool) -> &'static str {
    if is_recycled { RECYCLED_NAME } else { PREPARE_NAME }
}

/// The name of a segment that is not ready.
pub(super) const PREPARE_NAME: &str = "prepare.tmp";
/// The name of a segment that has aged out and waits for its next life.
pub(super) const RECYCLED_NAME: &str = "recycled.tmp";
