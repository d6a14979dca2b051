//! Whether the outputs hold what was written to them, as far as is known.
//!
//! When the kernel cannot write pages back it tells so once, and then calls them clean: the next sync of the same file
//! succeeds, and the lines are gone. So the first failure is the last word. Syncs come one after the other, or the one
//! that is told of a failure could be overtaken by one that is not, whose batches would be committed.

use std::fs::File;
use std::io;
use std::sync::Mutex;

use super::control::lock;
use crate::exit::{Exit, Failure, cause};

/// Shared by whoever syncs and whoever commits. Once it is lost nothing is synced or committed any more.
#[derive(Debug, Default)]
pub struct Trust {
    /// Held for the length of a sync; whoever has it waits for no other lock but the next.
    syncing: Mutex<()>,
    lost: Mutex<Option<Failure>>,
}

impl Trust {
    /// Puts a file's bytes on disk.
    pub fn sync(&self, file: io::Result<File>, name: &str) -> Result<(), Failure> {
        let _one_at_a_time = lock(&self.syncing);
        self.check()?;
        file.and_then(|file| file.sync_data()).map_err(|error| {
            let what = format!("cannot sync {name}: {}: what is on disk is not known; run it again", cause(&error));
            self.lose(Failure::new(Exit::Io, "output_sync", what))
        })
    }

    /// Fails for the reason that it was lost for.
    pub fn check(&self) -> Result<(), Failure> {
        lock(&self.lost).clone().map_or(Ok(()), Err)
    }

    /// Loses it for this reason, unless it was lost for another, and returns the failure to end the run with.
    pub fn lose(&self, why: Failure) -> Failure {
        lock(&self.lost).get_or_insert(why).clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_sync_succeeds_after_one_that_failed() {
        let file = tempfile::tempfile().expect("a file");
        let copy = || file.try_clone();
        let trust = Trust::default();
        assert!(trust.sync(copy(), "out").is_ok() && trust.check().is_ok());
        let failed = trust.sync(Err(io::ErrorKind::Other.into()), "out").expect_err("it fails");
        for later in [trust.sync(copy(), "out"), trust.sync(copy(), "other"), trust.check()] {
            let later = later.expect_err("it is final");
            assert_eq!((later.exit, later.code, &later.message), (Exit::Io, "output_sync", &failed.message));
        }
    }
}
