//! Telling how far a recovery has come.

use crate::log::{self, Storage};

use super::super::RecoveryProgress;

/// Who wants to know.
pub(in crate::dedup) type OnRecovery = dyn Fn(RecoveryProgress) + Send + Sync;

/// Tells at the start, now and then, and at the end.
pub(super) struct Telling<'a> {
    on_recovery: Option<&'a OnRecovery>,
    bytes_total: u64,
    /// With so many bytes read it is told again; never when nobody wants to know.
    due: u64,
}

impl<'a> Telling<'a> {
    pub(super) fn start(on_recovery: Option<&'a OnRecovery>, storage: &dyn Storage) -> Self {
        let (bytes_total, due) = match on_recovery {
            Some(_) => (log::segment_bytes(storage), BYTES_BETWEEN),
            None => (0, u64::MAX),
        };
        let telling = Self { on_recovery, bytes_total, due };
        telling.tell(0, 0);
        telling
    }

    /// Told after each frame.
    #[inline]
    pub(super) fn reached(&mut self, bytes: u64, ids: u64) {
        if bytes >= self.due {
            self.due = bytes + BYTES_BETWEEN;
            self.tell(bytes, ids);
        }
    }

    pub(super) fn end(&self, ids: u64) {
        self.tell(self.bytes_total, ids);
    }

    fn tell(&self, bytes: u64, ids: u64) {
        let bytes_total = self.bytes_total;
        if let Some(on_recovery) = self.on_recovery {
            on_recovery(RecoveryProgress { bytes: bytes.min(bytes_total), bytes_total, ids });
        }
    }
}

/// Read in about 10 ms.
const BYTES_BETWEEN: u64 = 4 << 20;
