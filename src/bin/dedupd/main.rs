//! `dedupd`: makes each event of an NDJSON stream count once.

mod args;
mod config;
mod exit;
mod explain;
mod filter;
mod lines;
mod log;
mod memory;
mod quantity;
mod recovery;
mod sinks;
mod state;
mod state_dir;
mod stdio;

use std::io::{IsTerminal, Write};
use std::panic::{self, AssertUnwindSafe};
use std::process::ExitCode;

use clap::{CommandFactory, Parser};

use crate::args::{Cli, Command, FilterArgs};
use crate::config::Config;
use crate::exit::{Exit, Failure, cause};
use crate::filter::Room;
use crate::log::{Log, LogFormat};

fn main() -> ExitCode {
    let cli = Cli::parse();
    let log = Log { format: cli.filter.log_format, quiet: cli.filter.quiet, verbose: cli.filter.verbose };
    let ran = panic::catch_unwind(AssertUnwindSafe(|| run(&cli, log))).unwrap_or_else(|_| Err(Failure::panic()));
    match ran {
        Ok(exit) => exit.into(),
        Err(failure) => {
            log.error_about(failure.code, failure.about.as_deref(), &failure.message);
            if failure.exit == Exit::Usage && log.format == LogFormat::Text {
                log::print("For more, try --help.\n");
            }
            failure.exit.into()
        }
    }
}

fn run(cli: &Cli, log: Log) -> Result<Exit, Failure> {
    match &cli.command {
        None => filter(&cli.filter),
        Some(Command::Explain(args)) => explain::run(args),
        Some(Command::Verify { dir }) => state::verify(dir),
        Some(Command::Inspect { dir, json }) => state::inspect(dir, *json),
        Some(Command::Repair { dir, window, lock_timeout }) => state::repair(dir, *window, *lock_timeout),
        Some(Command::Export { dir, all }) => state::export(dir, *all),
        Some(Command::Forget(args)) => {
            survive_signals(log);
            state::forget(args, log)
        }
        Some(Command::Sinks { json }) => sinks::sinks(*json),
        Some(Command::Completions { shell }) => {
            let mut script = Vec::new();
            clap_complete::generate(*shell, &mut Cli::command(), "dedupd", &mut script);
            print_document(&script)
        }
        Some(Command::Man) => {
            let mut page = Vec::new();
            clap_mangen::Man::new(Cli::command()).render(&mut page).map_err(|error| stdout_failure(&error))?;
            print_document(&page)
        }
    }
}

fn filter(args: &FilterArgs) -> Result<Exit, Failure> {
    if args.keys.lines.inputs().next().is_none() && std::io::stdin().is_terminal() {
        log::print(&Cli::command().render_help().to_string());
        return Ok(Exit::Usage);
    }
    let config = Config::new(args)?;
    survive_signals(config.log);
    filter::check(&config)?;
    let mut room = Room::new(config.when_disk_full, config.log);
    let dedup = config::build_set(args, &mut room)?;
    if let Some(dir) = &args.state.state {
        state::warn(config.log, dir, &dedup);
    }
    let ended = filter::run(&config, &dedup, room);
    match dedup.close().map_err(|error| state_dir::failure(&error)) {
        Ok(()) => ended,
        Err(failure) if config.passes_by(failure.code) => {
            config.log.warning(failure.code, failure.message);
            ended
        }
        // Unless the run has failed for another reason.
        Err(failure) => ended.and(Err(failure)),
    }
}

/// Has errors told as errors that would kill the process: a file that reached the limit on its size is refused more, and
/// a state whose files are cut by another program, or whose disk fails, is over.
fn survive_signals(log: Log) {
    // SAFETY: the disposition of a signal is set while there is one thread, and no handler is involved.
    unsafe { libc::signal(libc::SIGXFSZ, libc::SIG_IGN) };
    if let Err(error) = dedupd::survive_sigbus() {
        log.warning("sigbus", format!("a failure under a file of a state will kill the process: {}", cause(&error)));
    }
}

/// Writes to standard output; a reader that has seen enough is no failure.
fn print_document(document: &[u8]) -> Result<Exit, Failure> {
    match std::io::stdout().write_all(document).and_then(|()| std::io::stdout().flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(stdout_failure(&error)),
        _ => Ok(Exit::Done),
    }
}

fn stdout_failure(error: &std::io::Error) -> Failure {
    Failure::new(Exit::Io, "output", format!("cannot write standard output: {}", cause(error)))
}
