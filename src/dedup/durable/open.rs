//! Opening a state: the directory, the secret, the log, and the set filled from it.

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, Mutex, RwLock};
use std::time::Duration;

use crate::event::{IdHash, Secret};
use crate::log::{self, Bell, Directory, Disk, Log, Storage};
use crate::time::{Clock, Timestamp};
use crate::window::Set;

use super::super::recovery::Loss;
use super::super::{Durability, OnLogFailure, OpenError, Recovery};
use super::Durable;
use super::gathering::Gathering;
use super::identity::Identity;
use super::keeper::Keeper;
use super::progress::Kept;
use super::replay::{Replay, Replayer};
use super::upkeep::Upkeep;

/// How a state is kept, as the builder was told.
#[derive(Debug, Clone)]
pub(in crate::dedup) struct Settings {
    pub(in crate::dedup) durability: Durability,
    pub(in crate::dedup) on_failure: OnLogFailure,
    pub(in crate::dedup) lock_timeout: Duration,
    #[expect(dead_code, reason = "the log has no limit yet")]
    pub(in crate::dedup) disk_bytes_max: Option<u64>,
    pub(in crate::dedup) id_paths: String,
    pub(in crate::dedup) hash: IdHash,
    pub(in crate::dedup) secret: Option<Secret>,
    pub(in crate::dedup) window: Duration,
    pub(in crate::dedup) event_time: bool,
    /// Whether ids or memory have a limit.
    pub(in crate::dedup) is_limited: bool,
}

/// A directory that is locked, and the secret in it.
pub(in crate::dedup) struct State {
    directory: Directory,
    storage: Arc<dyn Storage>,
    pub(in crate::dedup) secret: Secret,
    settings: Settings,
}

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
        Ok(Self { directory, storage: Arc::new(disk), secret, settings })
    }

    /// Fills `set` from the log, and starts to keep it.
    pub(in crate::dedup) fn open(self, set: &Arc<Set>, clock: &Arc<dyn Clock>) -> Result<Durable, OpenError> {
        let Self { directory, storage, secret, settings } = self;
        let identity = Identity::new(settings.hash, &settings.id_paths, &secret);
        let config = log::Config::new(identity.bytes());
        let mut kept = Kept::default();
        let now = clock.now();
        let forgotten_before = now.saturating_sub(settings.window).as_nanos().saturating_sub(2 * set.slack());
        let (log, opening, replay) = std::thread::scope(|scope| {
            let (event_time, is_limited) = (settings.event_time, settings.is_limited);
            let mut replayer = Replayer::start(scope, set, event_time, is_limited, forgotten_before, &mut kept);
            let opened = Log::open(storage, config, |frame| replayer.apply(frame));
            let replay = replayer.finish();
            opened.map(|(log, opening)| (log, opening, replay))
        })
        .map_err(|error| OpenError::log(error, |found| identity.difference(found)))?;
        set.forget_answers();
        if !settings.event_time {
            set.notice_clock(now.as_nanos());
        }
        let recovery = recovery(&settings, &replay, &opening, now);
        let keeper = Arc::new(Keeper {
            set: Arc::clone(set),
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
            _directory: directory,
        });
        let upkeep = Upkeep::start(&keeper).map_err(OpenError::Thread)?;
        Ok(Durable { keeper, upkeep: Mutex::new(Some(upkeep)), recovery })
    }
}

fn recovery(settings: &Settings, replay: &Replay, opening: &log::Opening, now: Timestamp) -> Recovery {
    // Frames are missing only at the start: what ages out goes whole, oldest first.
    let holds_from = match replay.first {
        Some((sequence, time)) if sequence > 1 => Some(time.saturating_add(settings.window)),
        _ => None,
    };
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
        ids: replay.ids,
        frames: replay.frames,
        newest,
        loss,
        full: replay.full,
        clock_behind,
        holds_from: holds_from.filter(|from| *from > present),
    }
}
