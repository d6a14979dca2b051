//! The real disk: preallocated files, written through a mapping where that is safe and with `pwrite` where it is not.
//!
//! A store to a mapped page that the file system cannot place kills the process. Preallocation rules that out on
//! ext4, XFS and tmpfs; on a copy-on-write file system every store may need new space, and on a network one anything
//! may happen. So only the file systems known to keep preallocated space are mapped.
//!
//! Both are synced with `fdatasync`. Preallocated space that was never written costs each sync a commit of the file
//! system's journal, and ext4 was seen, in 7 of 84 runs, to report success for a sync that was running while the file
//! system was shut down under it, and to have lost what it covered. (Copies of the disk of a stopped process had
//! everything, in 21 runs.) In space that was written before, in none of 63: [`Disk::written_ahead`] has it so, for
//! twice the bytes written. `msync(MS_SYNC)` of the dirty range is no better.
//!
//! Invariants:
//! 1. A mapping is as long as its file was when it was made, and the file is not cut while a pen may store: the log
//!    cuts only segments whose pen it has dropped, and the active one in its last act. When somebody else cuts a
//!    file in a locked state directory, a store to it raises SIGBUS: see [`super::fault`].
//! 2. Only a [`MappedPen`] stores to a mapping, there is one per mapping, and nobody in this process loads from it.

use std::fs::{self, OpenOptions};
use std::io::{self, Read as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{Ordering, compiler_fence};

use memmap2::{MmapOptions, MmapRaw, UncheckedAdvice};

use super::super::header::PAGE_BYTES;
use super::fault::Registered;
use super::{File, FileId, Opened, Pen, Status, Storage};

/// A directory of a file system.
#[derive(Debug)]
pub(crate) struct Disk {
    path: PathBuf,
    directory: fs::File,
    is_mapped: bool,
    tells_room: bool,
    is_written_ahead: bool,
}

impl Disk {
    /// The directory at `path`, which must be there.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let directory = fs::File::open(path)?;
        let kind = kind(&directory);
        let (is_mapped, tells_room) = (kind.is_some_and(keeps_preallocated_space), kind.is_some_and(tells_room));
        Ok(Self { path: path.to_owned(), directory, is_mapped, tells_room, is_written_ahead: false })
    }

    /// The same, written with `pwrite` whatever the file system.
    #[cfg(test)]
    pub(crate) fn unmapped(self) -> Self {
        Self { is_mapped: false, ..self }
    }

    /// The same, written through mappings whatever the file system.
    #[cfg(test)]
    pub(crate) fn mapped(self) -> Self {
        Self { is_mapped: true, ..self }
    }

    /// The same, with zeros written to new files before they are used, so that a sync needs no change of the file
    /// system's own: for those who wait for each sync.
    pub(crate) fn written_ahead(self) -> Self {
        Self { is_written_ahead: true, ..self }
    }

    fn options(&self) -> OpenOptions {
        let mut options = OpenOptions::new();
        options.read(true).write(true).mode(0o600).custom_flags(libc::O_NOFOLLOW);
        options
    }

    fn prepared(&self, file: fs::File, bytes: u64) -> io::Result<Opened> {
        let written = file.metadata()?.len();
        // A file system that cannot preallocate cannot promise either that a store finds its space.
        let is_mapped = preallocate(&file, bytes)? && self.is_mapped;
        if self.is_written_ahead {
            write_zeros(&file, written, bytes)?;
        }
        let id = Status::of(&file)?.id;
        let mapping = if is_mapped { Mapping::of(&file, bytes)? } else { None };
        Ok(match mapping {
            Some(mapping) => {
                let file = Arc::new(Mapped { mapping, file, id });
                Opened { pen: Box::new(MappedPen(Arc::clone(&file))), file }
            }
            None => {
                let file = Arc::new(Plain { file, id, tells_room: self.tells_room });
                Opened { pen: Box::new(PlainPen(Arc::clone(&file))), file }
            }
        })
    }
}

impl Storage for Disk {
    fn list(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.path)? {
            names.extend(entry?.file_name().into_string().ok());
        }
        Ok(names)
    }

    fn create(&self, name: &str, bytes: u64) -> io::Result<Opened> {
        match self.remove(name) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let file = self.options().create_new(true).open(self.path.join(name))?;
        self.prepared(file, bytes).inspect_err(|_| {
            // A file that was extended in part keeps a full disk full. The first error is the one to tell.
            let _ = self.remove(name);
        })
    }

    fn recycle(&self, name: &str, bytes: u64) -> io::Result<Opened> {
        let file = self.options().open(self.path.join(name))?;
        if file.metadata()?.len() > bytes {
            file.set_len(bytes)?;
        }
        self.prepared(file, bytes)
    }

    fn write_back(&self, name: &str) -> io::Result<()> {
        let file = self.options().open(self.path.join(name))?;
        file.sync_all()?;
        drop_cached(&file);
        Ok(())
    }

    fn read(&self, name: &str, limit: u64) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        self.read_into(name, limit, &mut bytes)?;
        Ok(bytes)
    }

    fn read_into(&self, name: &str, limit: u64, bytes: &mut Vec<u8>) -> io::Result<()> {
        let file = OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW).open(self.path.join(name))?;
        let length = file.metadata()?.len().min(limit);
        bytes.clear();
        bytes.reserve_exact(usize::try_from(length).map_err(io::Error::other)?);
        file.take(limit).read_to_end(bytes).map(drop)
    }

    fn cut(&self, name: &str, bytes: u64) -> io::Result<()> {
        let file = self.options().open(self.path.join(name))?;
        if file.metadata()?.len() > bytes {
            file.set_len(bytes)?;
        }
        Ok(())
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.path.join(from), self.path.join(to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        fs::remove_file(self.path.join(name))
    }

    fn sync_directory(&self) -> io::Result<()> {
        self.directory.sync_all()
    }

    fn random(&self) -> io::Result<u64> {
        let mut bytes = [0; 8];
        getrandom::fill(&mut bytes).map_err(io::Error::from)?;
        Ok(u64::from_le_bytes(bytes))
    }

    fn status(&self, name: &str) -> io::Result<Status> {
        Status::at(&self.path.join(name))
    }

    fn place(&self, name: &str) -> String {
        self.path.join(name).display().to_string()
    }
}

/// A mapped file.
#[derive(Debug)]
struct Mapped {
    mapping: Mapping,
    file: fs::File,
    id: FileId,
}

/// A mapping that is registered. The fields are dropped in this order: a range is unmapped after nobody looks for it.
#[derive(Debug)]
struct Mapping {
    registered: Registered,
    map: MmapRaw,
}

impl Mapping {
    /// Maps `bytes` of `file`; none when there are too many mappings already.
    fn of(file: &fs::File, bytes: u64) -> io::Result<Option<Self>> {
        let length = usize::try_from(bytes).map_err(io::Error::other)?;
        let map = MmapOptions::new().len(length).map_raw(file)?;
        let start = map.as_ptr().addr();
        Ok(Registered::of(start..start + length).map(|registered| Self { registered, map }))
    }

    /// An error when a page was taken away, so that what was stored there is lost.
    fn check(&self) -> io::Result<()> {
        // Looked at after the stores that may have raised the signal, and the handler runs on this thread.
        compiler_fence(Ordering::SeqCst);
        if self.registered.is_struck() { Err(io::Error::other(STRUCK)) } else { Ok(()) }
    }
}

impl Mapped {
    /// Takes whole pages of `from..to` out of the mapping, all at once: nobody stores there any more, and writing back a
    /// page that is mapped interrupts each processor that may store to it, one page at a time.
    fn let_go(&self, from: u64, to: u64) {
        let page = PAGE_BYTES as u64;
        let to = to.min(self.mapping.map.len() as u64) / page * page;
        let Ok((from, bytes)) = range(from.next_multiple_of(page), to) else { return };
        if bytes >= LET_GO_BYTES_MIN {
            // SAFETY: the mapping is shared and of a file, so its bytes stay in the page cache, and a store to a page that
            // is not there finds it in the file again. No reference points into the mapping.
            let advised = unsafe { self.mapping.map.unchecked_advise_range(UncheckedAdvice::DontNeed, from, bytes) };
            // Advice only: without it the sync takes longer.
            drop(advised);
        }
    }
}

#[derive(Debug)]
struct MappedPen(Arc<Mapped>);

impl Pen for MappedPen {
    fn write(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let map = &self.0.mapping.map;
        let at = usize::try_from(offset).map_err(io::Error::other)?;
        let fits = at.checked_add(bytes.len()).is_some_and(|end| end <= map.len());
        if !fits {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        // SAFETY: the range lies in the mapping, as was just checked, and behind all of it is preallocated file
        // (invariant 1). `bytes` is borrowed and no reference points into the mapping, so the two do not overlap.
        // This pen is borrowed mutably and is the only one (invariant 2), so nobody else stores here.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), map.as_mut_ptr().add(at), bytes.len()) };
        self.0.mapping.check()
    }

    /// A store has its space.
    fn lacks_room(&self, _: &io::Error) -> bool {
        false
    }
}

impl File for Mapped {
    fn sync(&self, from: u64, to: u64) -> io::Result<()> {
        self.let_go(from, to);
        self.file.sync_data()?;
        self.mapping.check()
    }

    fn sync_all(&self) -> io::Result<()> {
        self.file.sync_all()?;
        self.mapping.check()
    }

    fn id(&self) -> FileId {
        self.id
    }

    #[cfg(target_os = "linux")]
    fn touch(&self, from: u64, to: u64) {
        if let Ok((from, bytes)) = range(from, to.min(self.mapping.map.len() as u64)) {
            // Advice only: without it the pen takes the page faults.
            let _ = self.mapping.map.advise_range(memmap2::Advice::PopulateWrite, from, bytes);
        }
    }

    #[cfg(not(target_os = "linux"))]
    fn touch(&self, _: u64, _: u64) {}
}

/// A file that is written with `pwrite`.
#[derive(Debug)]
struct Plain {
    file: fs::File,
    id: FileId,
    tells_room: bool,
}

#[derive(Debug)]
struct PlainPen(Arc<Plain>);

impl Pen for PlainPen {
    fn write(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.0.file.write_all_at(bytes, offset)
    }

    fn lacks_room(&self, error: &io::Error) -> bool {
        use io::ErrorKind as Kind;
        // A full btrfs was seen to answer EAGAIN as well, about once in thirty.
        self.0.tells_room && matches!(error.kind(), Kind::StorageFull | Kind::QuotaExceeded | Kind::WouldBlock)
    }
}

impl File for Plain {
    fn sync(&self, _: u64, _: u64) -> io::Result<()> {
        self.file.sync_data()
    }

    fn sync_all(&self) -> io::Result<()> {
        self.file.sync_all()
    }

    fn id(&self) -> FileId {
        self.id
    }

    fn touch(&self, _: u64, _: u64) {}
}

fn range(from: u64, to: u64) -> io::Result<(usize, usize)> {
    let bytes = to.saturating_sub(from);
    Ok((usize::try_from(from).map_err(io::Error::other)?, usize::try_from(bytes).map_err(io::Error::other)?))
}

fn write_zeros(file: &fs::File, from: u64, to: u64) -> io::Result<()> {
    let zeros = vec![0; ZEROS_BYTES];
    let mut at = from;
    while at < to {
        let bytes = ZEROS_BYTES.min(usize::try_from(to - at).unwrap_or(ZEROS_BYTES));
        file.write_all_at(&zeros[..bytes], at)?;
        at += bytes as u64;
    }
    Ok(())
}

/// Takes the space for `bytes` bytes; false when only the size could be set.
#[cfg(target_os = "linux")]
fn preallocate(file: &fs::File, bytes: u64) -> io::Result<bool> {
    let length = libc::off64_t::try_from(bytes).map_err(io::Error::other)?;
    loop {
        // SAFETY: the descriptor is open for as long as `file` is borrowed; no memory is passed.
        if unsafe { libc::fallocate64(file.as_raw_fd(), 0, 0, length) } == 0 {
            return Ok(true);
        }
        let error = io::Error::last_os_error();
        match error.raw_os_error() {
            Some(libc::EINTR) => {}
            Some(libc::EOPNOTSUPP | libc::ENOSYS) => return file.set_len(bytes).map(|()| false),
            _ => return Err(error),
        }
    }
}

#[cfg(not(target_os = "linux"))]
fn preallocate(file: &fs::File, bytes: u64) -> io::Result<bool> {
    file.set_len(bytes).map(|()| false)
}

/// Has the next read come from the disk: after a failed write-back the cache may hold what the disk does not.
fn drop_cached(file: &fs::File) {
    #[cfg(target_os = "linux")]
    // SAFETY: the descriptor is open for as long as `file` is borrowed; no memory is passed. It is advice: nothing
    // depends on its success but the chance to notice a disk that lost bytes.
    unsafe {
        libc::posix_fadvise(file.as_raw_fd(), 0, 0, libc::POSIX_FADV_DONTNEED);
    }
    #[cfg(not(target_os = "linux"))]
    let _ = file.as_raw_fd();
}

/// Which file system it is on.
#[cfg(target_os = "linux")]
fn kind(directory: &fs::File) -> Option<u32> {
    let mut told = std::mem::MaybeUninit::<libc::statfs>::uninit();
    // SAFETY: the descriptor is open, and `told` is a valid place for one `statfs`.
    if unsafe { libc::fstatfs(directory.as_raw_fd(), told.as_mut_ptr()) } != 0 {
        return None;
    }
    // SAFETY: the call succeeded, so it has filled the structure.
    let kind = unsafe { told.assume_init() }.f_type;
    // Of another type on each C library, and never wider than this.
    Some(kind as u32)
}

#[cfg(not(target_os = "linux"))]
fn kind(_: &fs::File) -> Option<u32> {
    None
}

/// Whether a file system of this kind writes preallocated bytes in place: ext2 to ext4, XFS, tmpfs. None of those that
/// copy on write, are on a network, or stand on another one; and none that nobody has looked at.
#[cfg(target_os = "linux")]
fn keeps_preallocated_space(kind: u32) -> bool {
    [libc::EXT4_SUPER_MAGIC as u32, libc::XFS_SUPER_MAGIC as u32, libc::TMPFS_MAGIC as u32].contains(&kind)
}

/// Whether a write that finds no room says so for its own bytes alone, which btrfs takes room for in the call. On a network
/// the error may be that of an earlier write, told only once: no later sync would fail for the bytes that are lost. Of
/// others nobody knows.
#[cfg(target_os = "linux")]
fn tells_room(kind: u32) -> bool {
    kind == libc::BTRFS_SUPER_MAGIC as u32
}

#[cfg(not(target_os = "linux"))]
fn keeps_preallocated_space(_: u32) -> bool {
    false
}

#[cfg(not(target_os = "linux"))]
fn tells_room(_: u32) -> bool {
    false
}

/// From so many bytes on it is worth a system call.
const LET_GO_BYTES_MIN: usize = 64 << 10;
const STRUCK: &str = "a page of the mapped file is gone: another program cut the file, or its disk failed";
/// How many zeros are written at once. A page, because the kernel caches what is written at once as one folio, and a store
/// through the mapping makes all of its folio dirty: after one write of 256 KiB, each sync would write that much.
const ZEROS_BYTES: usize = 4 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    fn each_way(check: impl Fn(&Disk)) {
        let folder = tempfile::tempdir().unwrap();
        check(&Disk::open(folder.path()).unwrap());
        let folder = tempfile::tempdir().unwrap();
        check(&Disk::open(folder.path()).unwrap().unmapped());
        let folder = tempfile::tempdir().unwrap();
        check(&Disk::open(folder.path()).unwrap().written_ahead());
        let folder = tempfile::tempdir().unwrap();
        check(&Disk::open(folder.path()).unwrap().unmapped().written_ahead());
    }

    #[test]
    fn what_a_pen_wrote_is_read_before_and_after_a_sync() {
        each_way(|disk| {
            let mut opened = disk.create("a", 16_384).unwrap();
            opened.file.touch(0, 1 << 20);
            opened.pen.write(5_000, b"some").unwrap();
            assert_eq!(disk.read("a", 1 << 20).unwrap()[5_000..5_004], *b"some");
            disk.write_back("a").unwrap();
            assert_eq!(disk.read("a", 5_004).unwrap()[5_000..], *b"some");
            opened.pen.write(16_380, b"last").unwrap();
            opened.file.sync(5_000, 16_384).unwrap();
            let bytes = disk.read("a", 1 << 20).unwrap();
            assert_eq!((bytes.len(), &bytes[16_380..]), (16_384, &b"last"[..]));
        });
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn only_file_systems_that_write_in_place_are_mapped() {
        // Magic numbers of statfs(2), and of ZFS and bcachefs.
        let others: [(&str, u32); 12] = [
            ("btrfs", 0x9123_683e),
            ("zfs", 0x2fc1_2fc1),
            ("bcachefs", 0xca45_1a4e),
            ("nfs", 0x6969),
            ("cifs", 0xff53_4d42),
            ("smb2", 0xfe53_4d42),
            ("9p", 0x0102_1997),
            ("ceph", 0x00c3_6400),
            ("fuse", 0x6573_5546),
            ("overlay", 0x794c_7630),
            ("f2fs", 0xf2f5_2010),
            ("unknown", 0),
        ];
        for (name, kind) in others {
            assert!(!keeps_preallocated_space(kind), "{name}");
            assert_eq!(tells_room(kind), name == "btrfs", "{name}");
        }
        for (name, kind) in [("ext4", 0xef53), ("xfs", 0x5846_5342), ("tmpfs", 0x0102_1994)] {
            assert!(keeps_preallocated_space(kind), "{name}");
        }
    }

    #[test]
    fn a_mapped_pen_stays_inside_its_file() {
        let folder = tempfile::tempdir().unwrap();
        let mut opened = Disk::open(folder.path()).unwrap().create("a", 8_192).unwrap();
        assert!(opened.pen.write(8_190, b"over").is_err() && opened.pen.write(u64::MAX, b"over").is_err());
    }

    #[test]
    fn a_recycled_file_has_the_asked_size_and_its_old_bytes() {
        each_way(|disk| {
            disk.create("a", 8_192).unwrap().pen.write(10, b"old").unwrap();
            disk.cut("a", 4_096).unwrap();
            for bytes in [32_768_u64, 8_192] {
                drop(disk.recycle("a", bytes).unwrap());
                let read = disk.read("a", 1 << 20).unwrap();
                assert_eq!((read.len() as u64, &read[10..13]), (bytes, &b"old"[..]));
            }
        });
    }

    #[test]
    fn a_full_disk_is_an_error_and_leaves_no_file() {
        each_way(|disk| {
            assert!(disk.create("a", 1 << 50).is_err());
            assert!(disk.list().unwrap().is_empty());
        });
    }
}
