//! The log: batches of records, appended to a row of mapped segments and replayed at the next start.
//!
//! A [`Log`] is shared by any number of threads. [`Log::append`] copies a batch into the mapping under one short
//! lock; [`Log::wait_durable`] has it on disk, one sync for all who wait. Everything slow is in [`Log::maintain`],
//! which a [`Housekeeper`] calls: preparing the next segment, touching pages, cutting, marking. An append that finds
//! no next segment prepares it itself.
//!
//! It knows records only by kind. It does not gather single questions and keeps no clock. [`Directory`] locks the
//! directory that a [`Disk`] is opened on, and keeps the secret. A [`Survey`] reads a log that may be another process's, and
//! [`repair()`] makes one that is refused one that opens.
//!
//! Locks are taken in this order: `upkeep`, `commit`, `writer`. No lock but `upkeep` is held across I/O.
#![doc = ""]
#![doc = include_str!("../guide/log_format.md")]

mod batch;
mod commit;
mod directory;
mod error;
mod fields;
mod frame;
#[cfg(fuzzing)]
#[allow(clippy::expect_used, clippy::unwrap_used, missing_docs)]
pub mod fuzzing;
mod header;
mod housekeeper;
#[cfg(all(loom, test))]
mod models;
mod recovery;
mod repair;
mod room;
mod segment;
mod storage;
mod survey;
#[cfg(test)]
mod tests;
mod upkeep;
mod volume;
mod watch;
mod writer;

use std::fmt;
use std::io;
use std::sync::{Arc, OnceLock, PoisonError};
use std::time::Duration;

use crate::sync::{AtomicU64, Mutex, MutexGuard, Ordering};
use crate::time::Timestamp;

use commit::Commit;
use header::{PAGE_BYTES, Start};
use recovery::{Recovered, SEGMENT_BYTES_LIMIT, refused};
use room::Counted;
use segment::{Order, PrepareError, Prepared, name_before};
use upkeep::Upkeep;
use writer::{Body, Piece, Segment, Unsynced, Writer};

pub(crate) use batch::{Batch, Kind, Record};
pub(crate) use directory::{Directory, DirectoryError, LOCK_NAME, RESTORE_SECRET, SECRET_NAME, read_secret};
pub(crate) use error::{AppendError, OpenError, Poisoned, RetireError};
pub(crate) use header::{IDENTITY_BYTES, VERSION, is_segment, name as segment_name};
pub(crate) use housekeeper::{Bell, Housekeeper};
pub(crate) use recovery::{Loss, Replayed, is_quarantined};
pub(crate) use repair::{Gap, Repaired, repair};
#[cfg(all(test, not(loom)))]
pub(crate) use storage::simulated::Fault;
#[cfg(test)]
pub(crate) use storage::simulated::Simulated;
pub use storage::survive_sigbus;
pub(crate) use storage::{Disk, Storage};
pub(crate) use survey::{Ids, Survey, Surveyed, replay};
#[cfg(all(test, not(loom)))]
pub(crate) use tests::Seeded;
pub(crate) use volume::{ids_since, segment_bytes};

/// How a log is kept. May change at any open.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Config {
    /// What the state must be of: its digest of hash, id paths, scope and secret.
    pub(crate) identity: [u8; IDENTITY_BYTES],
    /// The first segment of each open; a whole number of pages, two at least. No frame is larger.
    pub(crate) segment_bytes_min: u64,
    /// Each segment is twice the one before, up to this.
    pub(crate) segment_bytes_max: u64,
    /// How far pages are touched ahead of the pen.
    pub(crate) touch_ahead_bytes: u64,
    /// How often, at most, an upkeep looks whether another program has meddled with the files. Each sync looks, too.
    pub(crate) watch_every: Duration,
    /// What all files of the log may take: the segments, the one that is prepared, what was moved aside. Segments become
    /// smaller first, and then no new one is prepared. An open never fails for it: it takes two pages more then.
    pub(crate) disk_bytes_max: Option<u64>,
    /// So much of that is for [`Log::append_of_upkeep`] alone.
    pub(crate) disk_bytes_reserved: u64,
    /// Whether an open succeeds also when there is no room on disk for the first segment: appends find none until there is.
    pub(crate) opens_full: bool,
}

impl Config {
    /// Segments of 1 MiB to 64 MiB, 4 MiB touched ahead, a look each second.
    pub(crate) fn new(identity: [u8; IDENTITY_BYTES]) -> Self {
        Self {
            identity,
            segment_bytes_min: SEGMENT_BYTES_MIN,
            segment_bytes_max: 64 << 20,
            touch_ahead_bytes: 1 << 20,
            watch_every: Duration::from_secs(1),
            disk_bytes_max: None,
            disk_bytes_reserved: 0,
            opens_full: false,
        }
    }

    /// The same in whole pages, two at least.
    fn checked(self) -> Self {
        let page = PAGE_BYTES as u64;
        let whole = |bytes: u64| bytes.clamp(2 * page, SEGMENT_BYTES_LIMIT).next_multiple_of(page);
        let segment_bytes_min = whole(self.segment_bytes_min);
        let segment_bytes_max = whole(self.segment_bytes_max).max(segment_bytes_min);
        Self { segment_bytes_min, segment_bytes_max, ..self }
    }

    /// What all files may take when one is made for `purpose`.
    fn disk_bytes_for(&self, purpose: Purpose) -> Option<u64> {
        let reserved = if purpose == Purpose::Records { self.disk_bytes_reserved } else { 0 };
        self.disk_bytes_max.map(|limit| limit.saturating_sub(reserved))
    }
}

/// What room on disk is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Purpose {
    Records,
    /// What must be appended before segments can age out.
    Upkeep,
}

/// How far a log has come: everything appended up to here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub(crate) struct Position(u64);

/// What opening a log found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Opening {
    /// Everything that was replayed.
    pub(crate) position: Position,
    /// The latest engine time in it.
    pub(crate) newest: Option<Timestamp>,
    /// What stood behind the last frame and was not applied.
    pub(crate) loss: Option<Loss>,
}

/// A log that is open.
pub(crate) struct Log {
    storage: Counted,
    config: Config,
    writer: Mutex<Writer>,
    upkeep: Mutex<Upkeep>,
    commit: Commit,
    /// Everything up to here is on disk. Written by the one who syncs, before `commit` is released; read by appends,
    /// which put it into their frames: acquire and release, so that whoever reads it may rely on the sync.
    synced: AtomicU64,
    /// How many entries, of those that were appended since it was opened. Written before `synced`; read once it is poisoned.
    synced_entries: AtomicU64,
    /// Set once, by the first failure.
    poison: OnceLock<Poisoned>,
    /// Rung when appends will soon want what the housekeeper does.
    bell: Bell,
}

impl Log {
    /// Opens the log in `storage`, or makes one, and hands every frame it holds to `replay`, in sequence.
    ///
    /// # Errors
    /// [`OpenError`]. Nothing that was read is changed; what `replay` made of the frames is to be dropped.
    pub(crate) fn open(
        storage: Arc<dyn Storage>,
        config: Config,
        mut replay: impl FnMut(Replayed<'_>),
    ) -> Result<(Self, Opening), OpenError> {
        let config = config.checked();
        let counted = Counted::new(Arc::clone(&storage));
        let storage = counted.map_err(|source| refused(&*storage, "list", "", source))?;
        let mut recovered = recovery::recover(&storage, &config.identity, &mut replay)?;
        let number = recovered.next_number;
        let segment = match first_segment(&storage, &config, &recovered, false) {
            Err(PrepareError::Refused(error)) if config.opens_full && is_of_room(&error) => None,
            prepared => {
                let failed =
                    |error: PrepareError| refused(&storage, "prepare", &header::name(number), error.into_source());
                Some(prepared.map_err(failed)?)
            }
        };
        let (place, newest, row, loss) =
            (recovered.place, recovered.newest, recovered.row.clone(), recovered.loss.clone());
        let (segment, unfenced) = match segment {
            Some(segment) => {
                recovered.tidy(&storage)?;
                (segment, None)
            }
            None => (Prepared::absent(number), Some(recovered)),
        };
        let newest_told = (newest != i64::MIN).then(|| Timestamp::from_nanos(newest));
        let opening = Opening { position: Position(place.sequence), newest: newest_told, loss };
        let log = Self {
            storage,
            config,
            writer: Mutex::new(Writer::new(segment, place, newest, row)),
            upkeep: Mutex::new(Upkeep {
                next_number: number + 1,
                has_recycled: false,
                watched: None,
                unfenced,
                is_full: false,
            }),
            commit: Commit::default(),
            // Recovery had every file written back before it read it.
            synced: AtomicU64::new(place.sequence),
            synced_entries: AtomicU64::new(0),
            poison: OnceLock::new(),
            bell: Bell::default(),
        };
        Ok((log, opening))
    }

    /// Appends `batch` as one frame: it survives the death of the process when this returns, and is on disk after
    /// [`Log::wait_durable`] of the returned position.
    ///
    /// # Errors
    /// [`AppendError`]. Nothing was appended.
    ///
    /// # Cost
    /// A checksum outside and a copy inside of one lock; no system call while the housekeeper keeps up.
    pub(crate) fn append(&self, time: Timestamp, batch: &Batch) -> Result<Position, AppendError> {
        self.append_as(time, batch, Purpose::Records)
    }

    /// The same for what must be appended before segments can age out: it may use the room that is reserved for that.
    ///
    /// # Errors
    /// As [`Log::append`].
    pub(crate) fn append_of_upkeep(&self, time: Timestamp, batch: &Batch) -> Result<Position, AppendError> {
        self.append_as(time, batch, Purpose::Upkeep)
    }

    fn append_as(&self, time: Timestamp, batch: &Batch, purpose: Purpose) -> Result<Position, AppendError> {
        let segment_bytes = usize::try_from(self.config.segment_bytes_max).unwrap_or(usize::MAX);
        let bytes_max = segment_bytes.saturating_sub(OVERHEAD_BYTES);
        let bytes = batch.body();
        let length = u32::try_from(bytes.len()).ok().filter(|_| bytes.len() <= bytes_max);
        let Some(length) = length else {
            return Err(AppendError::TooLarge { bytes: bytes.len(), bytes_max });
        };
        // What is appended for upkeep stands in older frames as well.
        let entries = if purpose == Purpose::Records { batch.entries() } else { 0 };
        self.append_body(time.as_nanos(), Body { bytes, length, crc: crc32c::crc32c(bytes), entries }, purpose)
    }

    /// Up to where records were appended.
    pub(crate) fn position(&self) -> Position {
        Position(lock(&self.writer).last_with_records)
    }

    /// Up to where everything is known to be on disk.
    pub(crate) fn durable(&self) -> Position {
        Position(self.synced.load(Ordering::Acquire))
    }

    /// How many fingerprints and positions were appended, and may not be on disk for all that is known: none as long as
    /// nothing has failed.
    pub(crate) fn in_doubt(&self) -> u64 {
        if !self.is_poisoned() {
            return 0;
        }
        lock(&self.writer).entries().saturating_sub(self.synced_entries.load(Ordering::Acquire))
    }

    /// Whether there was no room for the first segment yet.
    pub(crate) fn is_absent(&self) -> bool {
        lock(&self.writer).is_absent()
    }

    /// What all files of the log take on disk.
    pub(crate) fn disk_bytes(&self) -> u64 {
        self.storage.bytes()
    }

    /// The latest engine time of any frame.
    pub(crate) fn newest(&self) -> Timestamp {
        Timestamp::from_nanos(lock(&self.writer).newest())
    }

    /// Returns when everything up to `position` is on disk. One of all who wait syncs, the others wait for it.
    ///
    /// # Errors
    /// [`Poisoned`] after the first failed write or sync, for good: what is on disk is then not known.
    pub(crate) fn wait_durable(&self, position: Position) -> Result<(), Poisoned> {
        self.check_poison()?;
        if self.durable() >= position {
            return Ok(());
        }
        self.wait_synced(position.min(self.position()).0)
    }

    /// Puts everything appended so far on disk. Does nothing when it is there already.
    ///
    /// # Errors
    /// As [`Log::wait_durable`].
    pub(crate) fn sync(&self) -> Result<(), Poisoned> {
        self.wait_durable(self.position())
    }

    /// Syncs everything, writes the evidence that it is synced, and gives back what was prepared. Nobody appends any more.
    ///
    /// # Errors
    /// [`Poisoned`]: what is on disk is then not known.
    pub(crate) fn close(&self) -> Result<(), Poisoned> {
        self.sync()?;
        // Without room for the mark the log is as good; only damage to its last frames is not told from a torn tail.
        let _ = self.mark();
        let marked = self.sync_now();
        self.check_poison()?;
        if marked {
            self.cut_sealed();
            self.cut_active();
        }
        Ok(())
    }

    fn append_body(&self, time: i64, body: Body<'_>, purpose: Purpose) -> Result<Position, AppendError> {
        loop {
            let mut writer = lock(&self.writer);
            self.check_poison()?;
            if writer.has_room(&body) || (writer.roll() && writer.has_room(&body)) {
                let synced = self.synced.load(Ordering::Acquire);
                let result = writer.append(time, synced, body);
                // Under the lock: nothing may follow what was cut short, unless it is stored over.
                let result = result.map_err(|error| self.not_appended(&writer, error));
                let wants_more = writer.wants_more(self.config.touch_ahead_bytes);
                drop(writer);
                if wants_more {
                    self.bell.ring();
                }
                return Ok(Position(result?));
            }
            drop(writer);
            self.prepare_next(u64::from(body.length) + OVERHEAD_BYTES as u64, purpose)?;
        }
    }

    fn not_appended(&self, writer: &Writer, error: io::Error) -> AppendError {
        let name = header::name(writer.active_number());
        if writer.lacks_room(&error) {
            return AppendError::NoRoom { place: self.storage.place(&name), source: error };
        }
        self.poison("write", &name, &error).into()
    }

    /// Syncs once, with no lock held meanwhile; false when that failed. At most one thread is here.
    fn sync_now(&self) -> bool {
        let Unsynced { last, entries, dirty } = lock(&self.writer).begin_sync();
        if dirty.iter().any(|piece| self.sync_piece(piece).is_err()) {
            return false;
        }
        if self.poison.get().is_some() {
            return false;
        }
        self.synced_entries.store(entries, Ordering::Release);
        self.synced.store(last, Ordering::Release);
        true
    }

    fn sync_piece(&self, piece: &Piece) -> Result<(), Poisoned> {
        let name = || header::name(piece.segment.number);
        piece.segment.file.sync(piece.from, piece.to).map_err(|error| self.poison("sync", &name(), &error))?;
        // What was synced into a file that has lost its name is lost all the same.
        self.check_file(&piece.segment)
    }

    /// Whether the file of `segment` is as it was made: it is not cut, renamed or removed yet.
    fn check_file(&self, segment: &Segment) -> Result<(), Poisoned> {
        watch::check(&self.storage, segment).map_err(|why| self.poison_with(why))
    }

    fn bell(&self) -> &Bell {
        &self.bell
    }

    /// Whether a write or a sync has failed.
    pub(crate) fn is_poisoned(&self) -> bool {
        self.poison.get().is_some()
    }

    fn check_poison(&self) -> Result<(), Poisoned> {
        self.poison.get().map_or(Ok(()), |poisoned| Err(poisoned.clone()))
    }

    /// The first failure is the one that is told.
    fn poison(&self, act: &str, name: &str, error: &std::io::Error) -> Poisoned {
        self.poison_with(format!("cannot {act} {}: {error}", self.storage.place(name)))
    }

    fn poison_with(&self, why: String) -> Poisoned {
        self.poison.get_or_init(|| Poisoned { why }).clone()
    }
}

/// Whether more room would help.
pub(crate) fn is_of_room(error: &io::Error) -> bool {
    use io::ErrorKind as Kind;
    matches!(error.kind(), Kind::StorageFull | Kind::QuotaExceeded | Kind::FileTooLarge)
}

/// Whether a log was begun in `storage`.
pub(crate) fn is_there(storage: &dyn Storage) -> io::Result<bool> {
    Ok(storage.list()?.iter().any(|name| header::number(name).is_some()))
}

impl fmt::Debug for Log {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (position, durable) = (self.position(), self.durable());
        f.debug_struct("Log").field("position", &position).field("durable", &durable).finish_non_exhaustive()
    }
}

/// The segment that resumes after what was recovered. On a full disk, and over the limit, what holds nothing is given
/// back first. When there is no room even so, it is as small as one can be: it fences off what was recovered, and takes what
/// must be appended before that can age out.
fn first_segment(
    storage: &Counted,
    config: &Config,
    recovered: &Recovered,
    is_recycled: bool,
) -> Result<Prepared, PrepareError> {
    let (number, start, identity) = (recovered.next_number, Start::Resumes(recovered.place), config.identity);
    let (wanted, limit) = (config.segment_bytes_min, config.disk_bytes_for(Purpose::Records));
    let room = |least| storage.room(limit, name_before(is_recycled), wanted, least);
    let bytes = room(wanted).or_else(|| {
        recovered.make_room(storage);
        room(SEGMENT_BYTES_LEAST)
    });
    let order = Order { number, start, is_recycled, bytes: bytes.unwrap_or(SEGMENT_BYTES_LEAST), identity };
    match order.prepare(storage) {
        Err(PrepareError::Refused(_)) => {
            recovered.make_room(storage);
            order.prepare_or_less(storage, SEGMENT_BYTES_LEAST)
        }
        prepared => prepared,
    }
}

/// A thread that panicked under a lock of the log has changed nothing by halves: what is stored before an error is not
/// counted before it has succeeded.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

const SEGMENT_BYTES_MIN: u64 = 1 << 20;
/// A segment that has room for a frame.
const SEGMENT_BYTES_LEAST: u64 = 2 * PAGE_BYTES as u64;
/// Under a smaller limit a log with [`Config::new`] would be full for good one day: the segment that is written to is
/// dropped only when another one follows it, and the room of one is for positions alone.
pub(crate) const DISK_BYTES_MIN: u64 = 3 * SEGMENT_BYTES_MIN;
/// What a frame and its segment take besides the body.
const OVERHEAD_BYTES: usize = PAGE_BYTES + frame::HEADER_BYTES;
