//! A full disk: wait for room, stop, or go on without recording.
//!
//! It may be full when a state is opened, so this is there before the threads of a run are, and has to find out by itself
//! that somebody wants it to end.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use dedupd::pipeline::Unrecorded;
use dedupd::{Deduplicator, Error, LogError};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1};
use signal_hook::flag;

use crate::config::WhenDiskFull;
use crate::log::Log;

/// Decides what a full disk means, and waits.
#[derive(Debug)]
pub struct Room {
    policy: WhenDiskFull,
    /// Somebody wants the run to end. Written by a signal, or by whoever ends the run; relaxed, as it orders nothing.
    stop: Arc<AtomicBool>,
    log: Log,
    /// How long the next wait is; zero while there is room.
    pause: Duration,
    /// Signals end a wait.
    is_interruptible: bool,
    /// They end the process, as before the first wait: there is nobody else yet who would answer them. Written by whoever has
    /// this, read by the signal; relaxed, as it orders nothing.
    is_unanswered: Arc<AtomicBool>,
    has_begun: bool,
}

impl Room {
    pub fn new(policy: WhenDiskFull, log: Log) -> Self {
        Self {
            policy,
            stop: Arc::default(),
            log,
            pause: Duration::ZERO,
            is_interruptible: false,
            is_unanswered: Arc::default(),
            has_begun: false,
        }
    }

    /// The run begins: signals are answered from now on, and this ends a wait once it is set.
    pub fn begin(&mut self) -> Arc<AtomicBool> {
        self.has_begun = true;
        self.is_unanswered.store(false, Ordering::Relaxed);
        Arc::clone(&self.stop)
    }

    /// Whether it goes on without recording.
    pub fn passes(&self) -> bool {
        self.policy == WhenDiskFull::Pass
    }

    /// Waits a while before another try, each time longer. False when that is not wanted, or somebody wants the run to
    /// end.
    pub fn wait(&mut self, what: &str) -> bool {
        if self.policy != WhenDiskFull::Block || self.is_stopping() {
            return false;
        }
        self.is_unanswered.store(false, Ordering::Relaxed);
        if !self.is_interruptible {
            self.is_interruptible = true;
            // Without it a signal ends the process at once, which breaks nothing either.
            let _ = self.take_signals();
        }
        if self.pause.is_zero() {
            self.log.warning("disk_full", format!("{what}: the disk is full; waiting for room, nothing is lost"));
        }
        self.pause = (self.pause * 2).clamp(PAUSE_MIN, PAUSE_MAX);
        let mut left = self.pause;
        while !left.is_zero() && !self.is_stopping() {
            thread::sleep(left.min(PAUSE_MIN));
            left = left.saturating_sub(PAUSE_MIN);
        }
        self.is_unanswered.store(!self.has_begun, Ordering::Relaxed);
        !self.is_stopping()
    }

    /// There was room.
    pub fn found(&mut self, what: &str) {
        if !self.pause.is_zero() {
            self.log.warning("disk_room", format!("{what}: there is room again"));
            self.pause = Duration::ZERO;
        }
    }

    /// Does `act` again for as long as it finds the disk full and that is waited for.
    pub fn until_found<T>(&mut self, what: &str, mut act: impl FnMut() -> io::Result<T>) -> io::Result<T> {
        loop {
            match act() {
                Err(error) if is_full(&error) && self.wait(what) => {}
                done => {
                    if done.is_ok() {
                        self.found(what);
                    }
                    return done;
                }
            }
        }
    }

    /// What to do with what could not be recorded, after a wait for room.
    ///
    /// # Errors
    /// The same: no room is waited for.
    pub fn unrecorded(&mut self, error: Error) -> Result<Unrecorded, Error> {
        match &error {
            Error::Log(LogError::NoRoom { .. }) if self.passes() => Ok(Unrecorded::PassBy),
            // A segment over the limit on files will not find room by waiting.
            Error::Log(LogError::NoRoom { source, .. })
                if source.kind() != io::ErrorKind::FileTooLarge && self.wait(STATE) =>
            {
                Ok(Unrecorded::Again)
            }
            _ => Err(error),
        }
    }

    /// Has recorded what repeats have gathered, as far as there is room or it is waited for. Who closes the state is told the
    /// rest.
    pub fn record_gathered(&mut self, dedup: &Deduplicator) {
        loop {
            match dedup.sync() {
                Ok(()) => return self.found(STATE),
                Err(Error::Log(LogError::NoRoom { .. })) if self.wait(STATE) => {}
                Err(_) => return,
            }
        }
    }

    fn is_stopping(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Has signals end the wait, and not the process, unless they come twice. Nobody else may have asked for them yet.
    fn take_signals(&self) -> io::Result<()> {
        let again = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM] {
            flag::register_conditional_default(signal, Arc::clone(&self.is_unanswered))?;
            flag::register_conditional_shutdown(signal, 128 + signal, Arc::clone(&again))?;
            flag::register(signal, Arc::clone(&again))?;
            flag::register(signal, Arc::clone(&self.stop))?;
        }
        // There is nothing to report yet, and nothing to reopen.
        [SIGUSR1, SIGHUP].into_iter().try_for_each(|signal| flag::register(signal, Arc::default()).map(drop))
    }
}

/// Whether room may come. The limit on a file's size stays.
pub fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// What a state is called in a warning.
pub const STATE: &str = "the state";
const PAUSE_MIN: Duration = Duration::from_millis(10);
const PAUSE_MAX: Duration = Duration::from_secs(1);
