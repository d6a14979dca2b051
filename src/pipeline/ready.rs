//! [`Ready`]: room, as a future.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use super::bundle::Bundle;
use crate::queue::Intake;

/// Ready when there is room for an event: see [`Pipeline::ready`](super::Pipeline::ready).
#[must_use = "a future does nothing unless it is polled"]
pub struct Ready<'p> {
    intakes: &'p [Arc<Intake<Bundle>>],
}

impl<'p> Ready<'p> {
    pub(super) fn new(intakes: &'p [Arc<Intake<Bundle>>]) -> Self {
        Self { intakes }
    }
}

impl Future for Ready<'_> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        // The first without room has it woken.
        if self.intakes.iter().all(|intake| intake.poll_room(context).is_ready()) {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    }
}

impl fmt::Debug for Ready<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ready").finish_non_exhaustive()
    }
}
