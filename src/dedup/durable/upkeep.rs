//! The thread that looks after a keeper: it appends what was gathered, and has segments age out.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::log::{AppendError, Batch, Housekeeper, Kind};
use crate::time::Timestamp;

use super::super::{Durability, LogError};
use super::keeper::Keeper;
use super::{lock, progress};

/// The threads of a keeper.
pub(super) struct Upkeep {
    /// Set once, by the one who ends it.
    ends: Arc<AtomicBool>,
    thread: JoinHandle<()>,
    _housekeeper: Housekeeper,
}

impl Upkeep {
    pub(super) fn start(keeper: &Arc<Keeper>) -> std::io::Result<Self> {
        let sync_every = match keeper.durability {
            Durability::Interval(every) => Some(every.clamp(SYNC_EVERY_MIN, SYNC_EVERY_MAX)),
            // What was sealed must be synced some time, so that it can age out.
            Durability::None | Durability::Process | Durability::PowerLoss => Some(SYNC_ANYWAY),
        };
        let housekeeper = Housekeeper::start(&keeper.log, sync_every)?;
        let ends = Arc::new(AtomicBool::new(false));
        let (keeper, told) = (Arc::clone(keeper), Arc::clone(&ends));
        let thread = std::thread::Builder::new().name("dedupd-log-2".into()).spawn(move || run(&keeper, &told))?;
        Ok(Self { ends, thread, _housekeeper: housekeeper })
    }

    pub(super) fn end(self, keeper: &Keeper) {
        self.ends.store(true, Ordering::Release);
        keeper.bell.ring();
        // A thread that panicked has nothing more to do either.
        let _ = self.thread.join();
    }
}

fn run(keeper: &Keeper, ends: &AtomicBool) {
    let mut tended = Instant::now();
    while !ends.load(Ordering::Acquire) {
        keeper.bell.wait(TEND_EVERY);
        // The clock is the caller's code. Should it panic, what was gathered is appended the next time.
        let worked = catch_unwind(AssertUnwindSafe(|| {
            keeper.retry();
            if tended.elapsed() >= TEND_EVERY {
                tended = Instant::now();
                keeper.tend();
            }
        }));
        if let Err(payload) = worked {
            // Dropping what a panic carries may panic as well.
            std::mem::forget(payload);
        }
        std::thread::sleep(if keeper.is_failing.load(Ordering::Relaxed) { RETRY_AFTER } else { GATHER });
    }
}

impl Keeper {
    /// Appends what was gathered. When nothing is, and the last append failed, finds out whether the next one may succeed.
    pub(super) fn retry(&self) {
        let flushed = self.flush();
        if flushed.is_ok() && lock(&self.gathering).len() == 0 && self.is_failing.load(Ordering::Relaxed) {
            self.note(&self.log.try_again());
        }
    }

    /// Has segments age out whose ids are all forgotten, and positions in them appended again before. In event time, has the
    /// log know how far time has come.
    pub(super) fn tend(&self) {
        if !self.event_time {
            self.set.notice_clock(self.clock.now().as_nanos());
        }
        let forgotten_before = self.forgotten_before();
        // What fails here is tried again in a second.
        if self.event_time && self.frame_time() > self.log.newest() {
            let mut batch = Batch::new();
            batch.push(Kind::Watermark, &[]);
            let _ = self.append(self.frame_time(), &batch);
        }
        self.age_out(forgotten_before);
    }

    /// Drops segments older than `before`: all at once, or, where there is no room for the positions in all of them, one by
    /// one, so that each makes room for those in the next.
    fn age_out(&self, before: Timestamp) {
        let older = self.log.older_until(before);
        if older.is_none_or(|until| self.keep_positions(until).is_ok()) {
            let _ = self.log.retire(before);
            return;
        }
        while let Some(until) = self.log.oldest_until(before) {
            let retire = || self.log.retire(until.saturating_add(Duration::from_nanos(1)));
            if self.keep_positions(until).is_err() || !retire().is_ok_and(|retired| retired > 0) {
                return;
            }
        }
    }

    /// Where there was no room for a segment at the open, makes some and tries again.
    pub(super) fn find_room(&self) -> Result<(), AppendError> {
        self.tend();
        if self.log.is_absent() { self.log.maintain() } else { Ok(()) }
    }

    /// Appends positions again that stand in frames up to `until`.
    fn keep_positions(&self, until: Timestamp) -> Result<(), LogError> {
        let mut kept = lock(&self.kept);
        let older = kept.older_than(until.as_nanos().saturating_add(1));
        if older.is_empty() {
            return Ok(());
        }
        let mut batch = Batch::new();
        progress::push(&mut batch, &older);
        let time = self.frame_time();
        self.log.append_of_upkeep(time, &batch)?;
        kept.record(&older, time.as_nanos());
        Ok(())
    }
}

/// How long a single question's ID may wait.
const GATHER: Duration = Duration::from_millis(1);
const RETRY_AFTER: Duration = Duration::from_millis(20);
const TEND_EVERY: Duration = Duration::from_secs(1);
const SYNC_EVERY_MIN: Duration = Duration::from_millis(1);
const SYNC_EVERY_MAX: Duration = Duration::from_secs(24 * 3600);
const SYNC_ANYWAY: Duration = Duration::from_secs(10);
