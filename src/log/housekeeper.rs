//! The threads of a log: one does what appends should not have to, one syncs at an interval.
//!
//! They are two because a sync may take long, and pages must be touched meanwhile. Appends ring when a page or a
//! segment will soon be wanted, so an idle log wakes nobody but for its interval.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::{AppendError, Log};

/// Looks after a log until it is dropped, which joins its threads.
#[derive(Debug)]
pub(crate) struct Housekeeper {
    log: Arc<Log>,
    end: Arc<Bell>,
    threads: Vec<JoinHandle<()>>,
}

/// Wakes a thread that waits.
#[derive(Debug, Default)]
pub(crate) struct Bell {
    /// Rung and not heard yet. Written by those who ring, cleared by the one who hears; acquire and release, so that
    /// what was done before the ringing is seen by the one who hears it.
    is_rung: AtomicBool,
    lock: Mutex<()>,
    heard: Condvar,
}

impl Bell {
    /// Wakes the one who waits, or who will wait next.
    ///
    /// # Cost
    /// One load while the last ring has not been heard.
    pub(crate) fn ring(&self) {
        if self.is_rung.load(Ordering::Relaxed) || self.is_rung.swap(true, Ordering::AcqRel) {
            return;
        }
        // Whoever is between looking and waiting holds the lock, so the ring is not missed.
        drop(self.lock.lock().unwrap_or_else(PoisonError::into_inner));
        self.heard.notify_all();
    }

    /// Waits for a ring, at most `timeout`.
    pub(crate) fn wait(&self, timeout: Duration) {
        let guard = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
        let silent = |_: &mut ()| !self.is_rung.swap(false, Ordering::AcqRel);
        drop(self.heard.wait_timeout_while(guard, timeout, silent));
    }
}

impl Housekeeper {
    /// Starts to look after `log`; with `sync_every`, has it synced that often.
    ///
    /// # Errors
    /// When a thread cannot be started. Appends then do the work themselves.
    pub(crate) fn start(log: &Arc<Log>, sync_every: Option<Duration>) -> io::Result<Self> {
        let mut keeper = Self { log: Arc::clone(log), end: Arc::default(), threads: Vec::new() };
        keeper.spawn("dedupd-log-0", maintain)?;
        if let Some(every) = sync_every {
            keeper.spawn("dedupd-log-1", move |log, end| sync(log, end, every))?;
        }
        Ok(keeper)
    }

    fn spawn(&mut self, name: &str, work: impl FnOnce(&Log, &Ending) + Send + 'static) -> io::Result<()> {
        let (log, end) = (Arc::clone(&self.log), Ending(Arc::clone(&self.end)));
        self.threads.push(std::thread::Builder::new().name(name.into()).spawn(move || work(&log, &end))?);
        Ok(())
    }
}

impl Drop for Housekeeper {
    fn drop(&mut self) {
        self.end.ring();
        self.log.bell().ring();
        for thread in self.threads.drain(..) {
            // A thread that panicked has nothing more to do either.
            let _ = thread.join();
        }
    }
}

/// Rung once, heard by all: the housekeeper is to end.
struct Ending(Arc<Bell>);

impl Ending {
    fn is_near(&self) -> bool {
        self.0.is_rung.load(Ordering::Acquire)
    }

    /// Waits for the end, at most `timeout`.
    fn wait(&self, timeout: Duration) {
        let guard = self.0.lock.lock().unwrap_or_else(PoisonError::into_inner);
        drop(self.0.heard.wait_timeout_while(guard, timeout, |()| !self.is_near()));
    }
}

fn maintain(log: &Log, end: &Ending) {
    while !end.is_near() {
        match log.maintain() {
            Ok(()) => log.bell().wait(MAINTAIN_EVERY),
            // Appends ring on, and a full disk does not empty by asking.
            Err(AppendError::NoSegment { .. }) => end.wait(RETRY_AFTER),
            Err(_) => return,
        }
    }
}

fn sync(log: &Log, end: &Ending, every: Duration) {
    let mut next = Instant::now() + every;
    while !end.is_near() {
        end.wait(next.saturating_duration_since(Instant::now()));
        next = Instant::now() + every;
        // Poisoned: whoever asks is told.
        if log.sync().is_err() {
            return;
        }
        log.bell().ring();
    }
}

/// How long the mark of an idle log may wait.
const MAINTAIN_EVERY: Duration = Duration::from_secs(1);
const RETRY_AFTER: Duration = Duration::from_millis(100);
