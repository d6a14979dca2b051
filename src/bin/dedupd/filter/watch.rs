//! What is shown while it runs: the report every so often, and progress on a terminal.

use std::io::IsTerminal;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::Run;
use crate::config::{Config, Input};
use crate::quantity::{show_count, show_size};

/// Whether anything is to be shown at all.
pub fn is_wanted(config: &Config) -> bool {
    config.reporting.every.is_some() || progress_delay(config).is_some()
}

/// Shows it until `ended` says so.
pub fn watch(run: &Run<'_>, config: &Config, ended: &Receiver<()>) {
    let started = Instant::now();
    let delay = progress_delay(config);
    let mut bar = None;
    let mut next_report = config.reporting.every;
    while ended.recv_timeout(TICK.min(config.reporting.every.unwrap_or(TICK))) == Err(RecvTimeoutError::Timeout) {
        let elapsed = started.elapsed();
        if delay.is_some_and(|delay| elapsed >= delay) {
            show(bar.get_or_insert_with(|| new_bar(config)), run);
        }
        if let (Some(due), Some(every)) = (next_report, config.reporting.every)
            && elapsed >= due
        {
            run.print_report();
            next_report = Some(elapsed + every);
        }
    }
    if let Some(bar) = bar {
        bar.finish_and_clear();
    }
}

/// After how long progress is shown: at once when asked for; after a while when somebody looks at standard error and
/// the events go elsewhere; else never.
fn progress_delay(config: &Config) -> Option<Duration> {
    let watched = std::io::stderr().is_terminal() && (config.output.is_some() || !std::io::stdout().is_terminal());
    match config.reporting.progress {
        true => Some(Duration::ZERO),
        false => (watched && !config.log.quiet).then_some(LONG_RUN),
    }
}

fn show(bar: &ProgressBar, run: &Run<'_>) {
    let books = run.control.books();
    bar.set_position(books.bytes);
    let rate = books.bytes as f64 / run.started.elapsed().as_secs_f64().max(1e-9);
    bar.set_message(format!(
        "read {}, {} duplicates, {}, {}/s",
        show_count(books.read),
        show_count(books.duplicate),
        show_size(books.bytes),
        show_size(rate as u64)
    ));
}

fn new_bar(config: &Config) -> ProgressBar {
    let total = total_bytes(config);
    let template = if total.is_some() { "{bar:24} {percent} % {msg} eta {eta}" } else { "{spinner} {msg}" };
    let bar = ProgressBar::with_draw_target(total, ProgressDrawTarget::stderr());
    match ProgressStyle::with_template(template) {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

/// How much there is to read, when all inputs can tell.
fn total_bytes(config: &Config) -> Option<u64> {
    if config.follow { None } else { config.inputs.iter().map(Input::bytes).sum() }
}

const TICK: Duration = Duration::from_millis(100);
/// A run that is longer than this is worth a look.
const LONG_RUN: Duration = Duration::from_secs(2);
