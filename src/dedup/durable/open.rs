//! Opening a state: the directory, the secret, the log, and the set filled from it.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64};
use std::time::Duration;

use crate::event::{IdHash, Secret};
use crate::log::{self, AppendError, Bell, Directory, Disk, IDENTITY_BYTES, Log, SECRET_NAME, Storage};
use crate::state::{Identity, Repair, not_the_secret};
use crate::sync::{Mutex, RwLock};
use crate::time::{Clock, Timestamp};
use crate::window::Set;

use super::super::recovery::Loss;
use super::super::{BuildError, Durability, Error, OnCorrupt, OnLogFailure, OpenError, Recovery};
use super::gathering::Gathering;
use super::keeper::Keeper;
use super::progress::Kept;
use super::replay::{Replay, Replayer};
use super::telling::{OnRecovery, Telling};
use super::upkeep::Upkeep;
use super::{Durable, lock};

/// How a state is kept, as the builder was told.
#[derive(Debug, Clone)]
pub(in crate::dedup) struct Settings {
    pub(in crate::dedup) durability: Durability,
    pub(in crate::dedup) on_failure: OnLogFailure,
    pub(in crate::dedup) on_corrupt: OnCorrupt,
    pub(in crate::dedup) lock_timeout: Duration,
    pub(in crate::dedup) disk_bytes_max: Option<u64>,
    pub(in crate::dedup) opens_full: bool,
    pub(in crate::dedup) id_paths: String,
    pub(in crate::dedup) digests: Digests,
    pub(in crate::dedup) hash: IdHash,
    pub(in crate::dedup) secret: Option<Secret>,
    pub(in crate::dedup) window: Duration,
    pub(in crate::dedup) event_time: bool,
    /// Whether ids or memory have a limit.
    pub(in crate::dedup) is_limited: bool,
    /// Whether there is room for ids from the start, or repeats make more records than ids.
    pub(in crate::dedup) is_presized: bool,
}

/// Whether events have payload digests.
#[derive(Debug, Clone)]
pub(in crate::dedup) enum Digests {
    Without,
    /// And what they leave out, in the caller's words.
    With(String),
    /// Whichever the state was made with.
    AsFound,
}

/// A directory that is locked, and the secret in it.
pub(in crate::dedup) struct State {
    /// None where there is no directory, as in a simulation.
    directory: Option<Directory>,
    storage: Arc<dyn Storage>,
    pub(in crate::dedup) secret: Secret,
    settings: Settings,
    /// How the log is cut, for its identity.
    cut: Cut,
}

/// See [`log::Config`].
pub(in crate::dedup) type Cut = fn([u8; IDENTITY_BYTES]) -> log::Config;

impl State {
    /// Locks the directory at `path`, which is made if it is not there, and reads its secret or makes one.
    pub(in crate::dedup) fn lock(path: &Path, settings: Settings) -> Result<Self, OpenError> {
        let directory = Directory::open(path, settings.lock_timeout)?;
        let disk = Disk::open(path).map_err(|source| OpenError::disk(path, source))?;
        let disk = if settings.durability == Durability::PowerLoss { disk.written_ahead() } else { disk };
        let is_new = !log::is_there(&disk).map_err(|source| OpenError::disk(path, source))?;
        let given = settings.secret.clone();
        let secret = directory.secret(is_new, || given.map_or_else(Secret::random, Ok))?;
        if settings.secret.as_ref().is_some_and(|given| *given != secret) {
            return Err(OpenError::OtherState { place: path.display().to_string(), differs: "the secret" });
        }
        Ok(Self { directory: Some(directory), storage: Arc::new(disk), secret, settings, cut: log::Config::new })
    }

    /// What is kept in `storage`, which nobody else has, in a log that is cut another way.
    #[cfg(all(test, not(loom)))]
    pub(in crate::dedup) fn on(storage: Arc<dyn Storage>, cut: Cut, secret: Secret, settings: Settings) -> Self {
        Self { directory: None, storage, secret, settings, cut }
    }

    /// Fills a new set from the log, and starts to keep it.
    pub(in crate::dedup) fn open(
        self,
        clock: &Arc<dyn Clock>,
        on_recovery: Option<&OnRecovery>,
        new_set: impl Fn() -> Result<Arc<Set>, BuildError>,
    ) -> Result<Durable, Error> {
        let durable = self.open_idle(clock, on_recovery, new_set)?;
        let upkeep = Upkeep::start(&durable.keeper).map_err(OpenError::Thread)?;
        *lock(&durable.upkeep) = Some(upkeep);
        Ok(durable)
    }

    /// The same without threads: nothing is done that no call does, and nothing at the end.
    pub(in crate::dedup) fn open_idle(
        self,
        clock: &Arc<dyn Clock>,
        on_recovery: Option<&OnRecovery>,
        new_set: impl Fn() -> Result<Arc<Set>, BuildError>,
    ) -> Result<Durable, Error> {
        let identity = self.identity();
        let storage = Arc::clone(&self.storage);
        let refused = |error| match error {
            log::OpenError::OtherState { .. } if identity.is_of_no_segment(&*storage) => {
                OpenError::OtherSecret { message: not_the_secret(storage.place(SECRET_NAME).as_ref()) }
            }
            error => OpenError::log(error, |found| identity.difference(found)),
        };
        let now = clock.now();
        let mut repair = None;
        let filled = match self.fill(new_set()?, identity, now, on_recovery) {
            Err(error) if error.is_corruption() && self.settings.on_corrupt == OnCorrupt::Salvage => {
                let repaired = log::repair(&*self.storage, Some(&identity.bytes())).map_err(refused)?;
                repair = repaired.map(Repair::of);
                // What the first attempt has put into its set is dropped with it.
                self.fill(new_set()?, identity, now, on_recovery)
            }
            filled => filled,
        };
        let Filled { set, log, opening, kept, replay } = filled.map_err(refused)?;
        let Self { directory, settings, .. } = self;
        let opens_full = settings.opens_full;
        set.forget_answers();
        if !settings.event_time {
            set.notice_clock(now.as_nanos());
        }
        let recovery = recovery(&settings, set.tally().live, &replay, &opening, repair, now);
        let keeper = Arc::new(Keeper {
            set,
            log: Arc::new(log),
            clock: Arc::clone(clock),
            event_time: settings.event_time,
            durability: settings.durability,
            on_failure: settings.on_failure,
            order: RwLock::new(()),
            gathering: Mutex::new(Gathering::default()),
            kept: Mutex::new(kept),
            bell: Bell::default(),
            is_failing: AtomicBool::new(false),
            unlogged: AtomicU64::new(0),
            settled: AtomicI64::new(opening.newest.map_or(i64::MIN, Timestamp::as_nanos)),
            _directory: directory,
        });
        if keeper.log.is_absent() {
            check_room(keeper.find_room(), opens_full)?;
        }
        Ok(Durable { keeper, upkeep: Mutex::new(None), recovery })
    }

    fn identity(&self) -> Identity {
        let Settings { hash, id_paths, event_time, digests, .. } = &self.settings;
        let identity = |left_out| Identity::new(*hash, id_paths, *event_time, left_out, &self.secret);
        match digests {
            Digests::Without => identity(None),
            Digests::With(left_out) => identity(Some(left_out)),
            Digests::AsFound => identity(None).with_digests_found_in(&*self.storage),
        }
    }

    /// Opens the log, and fills `set` from it.
    fn fill(
        &self,
        set: Arc<Set>,
        identity: Identity,
        now: Timestamp,
        on_recovery: Option<&OnRecovery>,
    ) -> Result<Filled, log::OpenError> {
        let settings = &self.settings;
        // Who knows what has aged out makes room where there is none: see below.
        let (disk_bytes_max, opens_full) = (settings.disk_bytes_max, true);
        let config = log::Config { disk_bytes_max, opens_full, ..(self.cut)(identity.bytes()) };
        // Positions are kept, and segments go, also when there is no room for ids any more.
        let share = disk_bytes_max.map_or(0, |limit| limit / RESERVED_SHARE).min(RESERVED_BYTES_MAX);
        let disk_bytes_reserved = config.segment_bytes_min.max(share);
        let config = log::Config { disk_bytes_reserved, ..config };
        let mut kept = match disk_bytes_max {
            Some(_) => Kept::within(usize::try_from(disk_bytes_reserved / 4 * 3).unwrap_or(usize::MAX)),
            None => Kept::default(),
        };
        let mut telling = Telling::start(on_recovery, &*self.storage);
        let forgotten_before = now.saturating_sub(settings.window).as_nanos().saturating_sub(2 * set.slack());
        // Where ids may be fewer than records, or there is room already, the set grows as it is filled.
        let grows = settings.event_time || settings.is_limited || settings.is_presized;
        let ids = if grows { 0 } else { log::ids_since(&*self.storage, forgotten_before) };
        let (log, opening, replay) = std::thread::scope(|scope| {
            let (event_time, is_limited) = (settings.event_time, settings.is_limited);
            let mut replayer = Replayer::start(scope, &set, event_time, is_limited, ids, forgotten_before, &mut kept);
            let opened = Log::open(Arc::clone(&self.storage), config, |frame| {
                let bytes = frame.bytes;
                replayer.apply(frame);
                telling.reached(bytes, replayer.ids());
            });
            let replay = replayer.finish();
            opened.map(|(log, opening)| (log, opening, replay))
        })?;
        telling.end(replay.ids);
        Ok(Filled { set, log, opening, kept, replay })
    }
}

/// Whether there is room for a segment, or none is needed to open.
fn check_room(found: Result<(), AppendError>, opens_full: bool) -> Result<(), OpenError> {
    let io = |place, source| OpenError::Io { act: "prepare", place, source };
    match found {
        Err(AppendError::NoSegment { source, .. }) if opens_full && log::is_of_room(&source) => Ok(()),
        Err(AppendError::NoSegment { place, source }) => Err(io(place, source)),
        Err(AppendError::Poisoned(poisoned)) => Err(io("the log".into(), std::io::Error::other(poisoned))),
        // There is a segment.
        Ok(()) | Err(AppendError::NoRoom { .. } | AppendError::TooLarge { .. }) => Ok(()),
    }
}

/// Of a limit on disk one in so many bytes is reserved for what must be appended before segments can age out.
const RESERVED_SHARE: u64 = 8;
/// So that as many positions are kept as without a limit.
const RESERVED_BYTES_MAX: u64 = 24 << 20;

/// A log that is open, and the set that knows what it holds.
struct Filled {
    set: Arc<Set>,
    log: Log,
    opening: log::Opening,
    kept: Kept,
    replay: Replay,
}

fn recovery(
    settings: &Settings,
    ids: u64,
    replay: &Replay,
    opening: &log::Opening,
    repair: Option<Repair>,
    now: Timestamp,
) -> Recovery {
    // Frames are missing only at the start: what ages out goes whole, oldest first.
    let holds_from = match replay.first {
        Some((sequence, time)) if sequence > 1 => Some(time.saturating_add(settings.window)),
        _ => None,
    };
    let unknown_until = repair.as_ref().map(|repair| repair.unknown_until(settings.window, now));
    let newest = opening.newest;
    let clock_behind = match newest {
        Some(newest) if !settings.event_time => newest.saturating_since(now),
        _ => Duration::ZERO,
    };
    let loss = opening.loss.as_ref().map(|loss| Loss {
        place: loss.place.clone(),
        offset: loss.offset,
        bytes: loss.bytes,
        frames: loss.frames,
    });
    let present = newest.filter(|newest| settings.event_time || *newest > now).unwrap_or(now);
    Recovery {
        ids,
        records: replay.ids,
        frames: replay.frames,
        newest,
        loss,
        full: replay.full,
        clock_behind,
        holds_from: holds_from.max(unknown_until).filter(|from| *from > present),
        repair,
    }
}
