//! How far the reading of a state has come, on a terminal.

use std::io::IsTerminal;
use std::path::Path;
use std::time::{Duration, Instant};

use dedupd::{Builder, RecoveryProgress};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::quantity::show_count;

/// Has `builder` show how it reads the state in `directory`, if somebody looks at standard error: from the start when that
/// is asked for, otherwise once it takes long.
pub fn show(builder: Builder, directory: &Path, from_start: bool, quiet: bool) -> Builder {
    if quiet || !std::io::stderr().is_terminal() {
        return builder;
    }
    let shown = Shown::new(directory, if from_start { Duration::ZERO } else { LONG_RECOVERY });
    builder.on_recovery(move |progress| shown.show(progress))
}

/// A line that goes with this.
struct Shown {
    line: ProgressBar,
    state: String,
    started: Instant,
    delay: Duration,
}

impl Shown {
    fn new(directory: &Path, delay: Duration) -> Self {
        let line = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
        let line = match ProgressStyle::with_template("{msg}") {
            Ok(style) => line.with_style(style),
            Err(_) => line,
        };
        Self { line, state: ending(&directory.display().to_string()), started: Instant::now(), delay }
    }

    fn show(&self, progress: RecoveryProgress) {
        let RecoveryProgress { bytes, bytes_total, ids, .. } = progress;
        // A new state has none.
        if bytes_total > 0 && self.started.elapsed() >= self.delay {
            let percent = u128::from(bytes) * 100 / u128::from(bytes_total);
            self.line.set_message(format!("recovering {}: {percent} % ({} ids)", self.state, show_count(ids)));
        }
    }
}

impl Drop for Shown {
    fn drop(&mut self) {
        self.line.finish_and_clear();
    }
}

/// The end of a path, so short that what follows it is still on the line.
fn ending(path: &str) -> String {
    let length = path.chars().count();
    if length <= PATH_CHARS_MAX {
        return path.to_owned();
    }
    std::iter::once('…').chain(path.chars().skip(length - PATH_CHARS_MAX + 1)).collect()
}

/// What takes less needs no explanation.
const LONG_RECOVERY: Duration = Duration::from_millis(200);
const PATH_CHARS_MAX: usize = 36;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_long_path_the_end_is_shown() {
        assert_eq!(ending("state"), "state");
        let [fits, long] = [36, 37].map(|length| "/ü".repeat(20).chars().take(length).collect::<String>());
        assert_eq!(ending(&fits), fits);
        assert_eq!(ending(&long), format!("…{}", long.chars().skip(2).collect::<String>()));
    }
}
