//! Signals: drain, report, reopen.

use std::io;
use std::process;
use std::time::Duration;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1};
use signal_hook::iterator::{Handle, Signals};

use crate::exit::Exit;
use crate::log::Log;

/// What signals do.
pub trait Answer: Send {
    /// Stop reading, finish what was read.
    fn drain(&self);
    /// Say how it stands.
    fn report(&self);
    /// Open the output files again.
    fn reopen(&self);
}

/// Waits for signals until the handle is closed. The second one that asks to stop ends the process at once.
pub fn answer(mut signals: Signals, answer: &impl Answer, drain_timeout: Duration, log: Log) {
    let mut draining = false;
    for signal in signals.forever() {
        match signal {
            SIGUSR1 => answer.report(),
            SIGHUP => answer.reopen(),
            _ if draining => process::exit(128 + signal),
            _ => {
                draining = true;
                log.info("draining", "stopping: what was read is finished");
                answer.drain();
                start_deadline(drain_timeout, log);
            }
        }
    }
}

/// Registers the signals that [`answer`] answers.
pub fn register() -> io::Result<(Signals, Handle)> {
    let signals = Signals::new([SIGINT, SIGTERM, SIGUSR1, SIGHUP])?;
    let handle = signals.handle();
    Ok((signals, handle))
}

/// Ends the process when the drain takes too long; it ends before that when all is well.
fn start_deadline(timeout: Duration, log: Log) {
    let deadline = move || {
        std::thread::sleep(timeout);
        log.error("drain_timeout", format!("the output took nothing for {timeout:?} after the signal: gave up"));
        process::exit(i32::from(Exit::Io as u8));
    };
    // Without the thread the drain just takes as long as it takes.
    let _ = std::thread::Builder::new().name("dedupd-drain-0".to_owned()).spawn(deadline);
}
