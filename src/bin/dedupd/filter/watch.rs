//! What is done every so often while it runs: the report, progress on a terminal, a look at the outputs.

use std::io::IsTerminal;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::Run;
use crate::config::{Config, Input};
use crate::quantity::{show_count, show_size};

/// Whether anything is to be shown at all.
pub fn is_wanted(config: &Config) -> bool {
    config.reporting.every.is_some() || progress_delay(config).is_some() || has_positions(config)
}

/// Whether there are outputs whose positions are kept.
fn has_positions(config: &Config) -> bool {
    let mut files = [&config.output, &config.rejects, &config.duplicates].into_iter();
    config.state.is_some_and(|state| state.keeps()) && files.any(Option::is_some)
}

/// Does it until `ended` says so.
pub fn watch(run: &Run<'_>, config: &Config, ended: &Receiver<()>) {
    let started = Instant::now();
    let delay = progress_delay(config);
    let mut bar = None;
    let mut next_report = config.reporting.every;
    let tick = if delay.is_some() { TICK } else { CHECK_EVERY };
    let tick = tick.min(config.reporting.every.unwrap_or(tick));
    let mut next_check = CHECK_EVERY;
    while ended.recv_timeout(tick) == Err(RecvTimeoutError::Timeout) {
        let elapsed = started.elapsed();
        if has_positions(config) && elapsed >= next_check {
            run.check_outputs();
            next_check = elapsed + CHECK_EVERY;
        }
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
/// So soon it is noticed that an output was deleted when nothing is written.
const CHECK_EVERY: Duration = Duration::from_secs(1);
/// A run that is longer than this is worth a look.
const LONG_RUN: Duration = Duration::from_secs(2);
