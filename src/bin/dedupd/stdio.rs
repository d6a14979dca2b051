//! Whether the standard descriptors were open when the process began.
//!
//! Rust opens `/dev/null` for those that were not before `main` runs, so that no file lands on their numbers. A filter
//! must know: an input that is not there is no empty one, and lines written to nowhere are lost. So it looks before.

use std::sync::atomic::{AtomicBool, Ordering};

static STDIN_CLOSED: AtomicBool = AtomicBool::new(false);
static STDOUT_CLOSED: AtomicBool = AtomicBool::new(false);

/// Descriptor 0 was closed. Always false where this cannot be told.
pub fn stdin_was_closed() -> bool {
    STDIN_CLOSED.load(Ordering::Relaxed)
}

/// Descriptor 1 was closed. Always false where this cannot be told.
pub fn stdout_was_closed() -> bool {
    STDOUT_CLOSED.load(Ordering::Relaxed)
}

// SAFETY: the loader calls what this section holds once, before `main`, with the C calling convention; the function
// needs nothing of the runtime that is not there yet.
#[cfg(target_os = "linux")]
#[used]
#[unsafe(link_section = ".init_array")]
static LOOK: extern "C" fn() = look;

#[cfg(target_os = "linux")]
extern "C" fn look() {
    // SAFETY: fcntl with F_GETFD takes plain numbers and fails on a descriptor that is not open.
    let is_closed = |descriptor| unsafe { libc::fcntl(descriptor, libc::F_GETFD) } == -1;
    STDIN_CLOSED.store(is_closed(0), Ordering::Relaxed);
    STDOUT_CLOSED.store(is_closed(1), Ordering::Relaxed);
}
