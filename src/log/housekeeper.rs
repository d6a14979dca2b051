//! The threads of a log: one does what appends should not have to, one syncs at an interval.
//!
//! They are two because a sync may take long, and pages must be touched meanwhile. Appends ring when a page or a
//! segment will soon be wanted, so an idle log wakes nobody but for its interval.

use std::io;
use std::sync::{Arc, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::sync::{AtomicBool, Condvar, Mutex, Ordering};

use super::{AppendError, Log, lock};

/// Looks after a log until it is dropped, which joins its threads.
#[derive(Debug)]
pub(crate) struct Housekeeper {
    log: Arc<Log>,
    end: Arc<Bell>,
    threads: Vec<JoinHandle<()>>,
}

/// Wakes a thread that waits.
///
/// What there is to do stands under a lock, which who rings has released and who heard takes: so who heard either sees it,
/// or is rung for again. Without that lock, a ring that finds an older one not heard yet would say nothing.
#[derive(Debug, Default)]
pub(crate) struct Bell {
    /// Rung and not heard yet. Written by those who ring, cleared by the one who hears; acquire and release, so that
    /// what was done before the ring that set it is seen by the one who hears it.
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
        drop(lock(&self.lock));
        self.heard.notify_all();
    }

    /// Waits for a ring, at most `timeout`.
    pub(crate) fn wait(&self, timeout: Duration) {
        self.wait_while(timeout, || !self.is_rung.swap(false, Ordering::AcqRel));
    }

    fn wait_while(&self, timeout: Duration, is_silent: impl Fn() -> bool) {
        let deadline = Instant::now() + timeout;
        let mut guard = lock(&self.lock);
        while is_silent() {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            guard = self.heard.wait_timeout(guard, left).unwrap_or_else(PoisonError::into_inner).0;
        }
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
pub(super) struct Ending(pub(super) Arc<Bell>);

impl Ending {
    pub(super) fn is_near(&self) -> bool {
        self.0.is_rung.load(Ordering::Acquire)
    }

    /// Waits for the end, at most `timeout`.
    pub(super) fn wait(&self, timeout: Duration) {
        self.0.wait_while(timeout, || !self.is_near());
    }
}

fn maintain(log: &Log, end: &Ending) {
    while !end.is_near() {
        match log.maintain() {
            Ok(()) => log.bell().wait(MAINTAIN_EVERY),
            // Appends ring on, and a full disk does not empty by asking.
            Err(AppendError::NoSegment { .. } | AppendError::NoRoom { .. }) => end.wait(RETRY_AFTER),
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
