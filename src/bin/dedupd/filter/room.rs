//! A full disk: wait for room, or stop.

use std::io;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use super::control::Control;
use crate::config::WhenDiskFull;
use crate::log::Log;

/// Decides what a full disk means, and waits.
#[derive(Debug)]
pub struct Room {
    policy: WhenDiskFull,
    control: Arc<Control>,
    log: Log,
    /// How long the next wait is; zero while there is room.
    pause: Duration,
}

impl Room {
    pub fn new(policy: WhenDiskFull, control: Arc<Control>, log: Log) -> Self {
        Self { policy, control, log, pause: Duration::ZERO }
    }

    pub fn policy(&self) -> WhenDiskFull {
        self.policy
    }

    /// Waits a while before another try, each time longer. False when that is not wanted, or somebody wants the run to
    /// end.
    pub fn wait(&mut self, what: &str) -> bool {
        if self.policy != WhenDiskFull::Block || self.control.is_stopping() {
            return false;
        }
        if self.pause.is_zero() {
            self.log.warning("disk_full", format!("{what}: the disk is full; waiting for room, nothing is lost"));
        }
        self.pause = (self.pause * 2).clamp(PAUSE_MIN, PAUSE_MAX);
        let mut left = self.pause;
        while !left.is_zero() && !self.control.is_stopping() {
            thread::sleep(left.min(PAUSE_MIN));
            left = left.saturating_sub(PAUSE_MIN);
        }
        !self.control.is_stopping()
    }

    /// There was room.
    pub fn found(&mut self, what: &str) {
        if !self.pause.is_zero() {
            self.log.warning("disk_room", format!("{what}: there is room again"));
            self.pause = Duration::ZERO;
        }
    }
}

/// Whether room may come. The limit on a file's size stays.
pub fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

const PAUSE_MIN: Duration = Duration::from_millis(10);
const PAUSE_MAX: Duration = Duration::from_secs(1);
