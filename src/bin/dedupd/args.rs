//! What can be typed. What it means is `config`.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;

use crate::config::WhenDiskFull;
use crate::log::LogFormat;
use crate::quantity::{durability, duration, nonzero_duration, nonzero_size, window};

/// Makes each event count once: reads events as lines of JSON and writes those whose ID was not seen within the window.
///
/// Output lines are the input lines, byte for byte and in order. Only provable duplicates are dropped: a line that
/// cannot be judged is passed on and counted, unless told otherwise.
#[derive(Debug, Parser)]
#[command(
    name = "dedupd",
    version,
    disable_help_subcommand = true,
    args_conflicts_with_subcommands = true,
    after_help = "A file that is named like a command is read as ./man or --input man.",
    after_long_help = AFTER_HELP
)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Option<Command>,
    #[command(flatten)]
    pub filter: FilterArgs,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Prints a completion script for a shell.
    Completions {
        /// The shell.
        shell: Shell,
    },
    /// Prints the manual page.
    Man,
    /// Says for each line which ID it has, how it came about, and what the verdict would be.
    Explain(ExplainArgs),
    /// Says whether a state directory is sound: as JSON, and by the exit code (0, 74, 76, 78). Changes nothing.
    Verify {
        /// The state directory.
        dir: PathBuf,
    },
    /// Says what a state directory holds: segments, ids, times, positions, configuration. Changes nothing.
    Inspect {
        /// The state directory.
        dir: PathBuf,
        /// Say it as JSON, with stable names.
        #[arg(long)]
        json: bool,
    },
    /// Makes a corrupt state directory one that opens: keeps all that checks, moves the rest aside, deletes nothing.
    Repair {
        /// The state directory. Nobody may have it open.
        dir: PathBuf,
        /// The window that the state is used with, to say until when ids may be unknown.
        #[arg(short, long, value_name = "DURATION", value_parser = window)]
        window: Option<Duration>,
        /// How long to wait for who has it open.
        #[arg(long, value_name = "DURATION", value_parser = duration, default_value = "0s")]
        lock_timeout: Duration,
    },
    /// Writes what a state directory remembers as lines of JSON: one for each ID that was seen and not forgotten.
    Export {
        /// The state directory.
        dir: PathBuf,
        /// Write every record in sequence, also what was forgotten and the positions of sources and sinks.
        #[arg(long)]
        all: bool,
    },
    /// Makes a state directory forget the IDs of these lines: each is first-seen when it comes again.
    Forget(ForgetArgs),
    /// Says what each ready sink promises: what a second delivery does, in which order events arrive, what they survive.
    Sinks {
        /// Say it as JSON, with stable names.
        #[arg(long)]
        json: bool,
    },
}

/// Where the ID stands, and what makes a fingerprint of it.
#[derive(Debug, Args)]
pub struct IdArgs {
    /// Where the event ID stands: a member (id), a dotted path (data.id), a JSON Pointer (/data/items/0/id), or @line
    /// for the whole line. a|b takes the first that is present; several --key make a composite.
    #[arg(short, long = "key", value_name = "PATH", default_value = "id", help_heading = "Events")]
    pub key: Vec<String>,

    /// The hash of IDs. siphash13: nobody can craft IDs that collide. xxh3: faster, for IDs of trusted origin.
    #[arg(long, value_name = "HASH", value_enum, default_value_t, help_heading = "Events")]
    pub hash: HashArg,
}

/// What a verdict depends on.
#[derive(Debug, Args)]
pub struct KeyArgs {
    #[command(flatten)]
    pub ids: IdArgs,

    /// Judge by the events' own time, which stands here.
    #[arg(long, value_name = "PATH", help_heading = "Event time")]
    pub time_field: Option<String>,

    /// How the event time is written: s, ms, us or ns since 1970, or rfc3339.
    #[arg(long, value_name = "UNIT", default_value = "rfc3339", requires = "time_field", help_heading = "Event time")]
    pub time_unit: dedupd::decode::TimeUnit,

    /// How much older than the newest event before it an event may be [default: the window].
    #[arg(long, value_name = "DURATION", value_parser = duration, requires = "time_field", help_heading = "Event time")]
    pub lateness: Option<Duration>,

    /// How far ahead of the clock an event time may be; beyond that it moves nothing and is counted.
    #[arg(long, value_name = "DURATION", value_parser = duration, default_value = "1h", requires = "time_field",
        help_heading = "Event time")]
    pub max_future: Duration,

    /// How long an ID is remembered: at least 1s, or forever.
    #[arg(short, long, value_name = "DURATION", value_parser = window, default_value = "24h", help_heading = "Window")]
    pub window: Duration,

    /// Make each repeat start the window of its ID again.
    #[arg(long, help_heading = "Window")]
    pub extend: bool,

    #[command(flatten)]
    pub conflicts: ConflictArgs,

    #[command(flatten)]
    pub lines: LineArgs,
}

/// Whether one ID may come with several payloads.
#[derive(Debug, Args)]
pub struct ConflictArgs {
    /// What to do with an event whose ID is known and whose payload, the rest of its line, is not. ignore: it is a
    /// duplicate. count: the same, counted. pass: write it too. divert: write it to --rejects. But for ignore, payloads
    /// take as much memory and state as IDs.
    #[arg(long, value_name = "WHAT", value_enum, default_value_t, help_heading = "Conflicts")]
    pub on_conflict: ConflictArg,

    /// Leave this member of the line's object out when payloads are compared; may be repeated.
    #[arg(long, value_name = "FIELD", help_heading = "Conflicts")]
    pub conflict_ignore: Vec<String>,
}

/// Where lines are read.
#[derive(Debug, Args)]
pub struct LineArgs {
    /// The longest line that is read as an event; longer ones are bad (too_long), whatever their length.
    #[arg(long, value_name = "SIZE", value_parser = nonzero_size, default_value = "16MiB", help_heading = "Bad lines")]
    pub max_line: u64,

    /// Read FILE; several are read in order, before those given by position. - is standard input.
    #[arg(short, long = "input", value_name = "FILE", help_heading = "Input and output")]
    pub input: Vec<PathBuf>,

    /// Files to read in order; standard input when there is none, or as -.
    #[arg(value_name = "FILE")]
    pub files: Vec<PathBuf>,
}

#[derive(Debug, Args)]
pub struct FilterArgs {
    #[command(flatten)]
    pub keys: KeyArgs,

    /// Where the operation ID of an event stands, written like --key: a message about one line names it.
    #[arg(long, value_name = "PATH", help_heading = "Events")]
    pub operation_field: Option<String>,

    /// The same for its correlation ID.
    #[arg(long, value_name = "PATH", help_heading = "Events")]
    pub correlation_field: Option<String>,

    /// What to do with an event that is late.
    #[arg(
        long,
        value_name = "WHAT",
        value_enum,
        default_value_t,
        requires = "time_field",
        help_heading = "Event time"
    )]
    pub late: LateArg,

    /// The most ids at a time; with --on-conflict an event takes two [default: no limit].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..), help_heading = "Window")]
    pub max_ids: Option<u64>,

    /// The most memory for ids [default: 3/4 of the machine's or control group's].
    #[arg(long, value_name = "SIZE", value_parser = nonzero_size, help_heading = "Window")]
    pub max_memory: Option<u64>,

    /// What to do when a limit is reached. evict-oldest: forget the oldest ids early, counted. refuse: pass on what
    /// cannot be judged, counted.
    #[arg(long, value_name = "WHAT", value_enum, default_value_t, help_heading = "Window")]
    pub when_full: WhenFullArg,

    /// What to do with a bad line: pass it on unchanged, divert it to --rejects, fail at once, or drop it.
    #[arg(long, value_name = "WHAT", value_enum, default_value_t, help_heading = "Bad lines")]
    pub on_bad: BadArg,

    /// What to do with a line that has no ID [default: as --on-bad].
    #[arg(long, value_name = "WHAT", value_enum, help_heading = "Bad lines")]
    pub on_missing: Option<BadArg>,

    /// Read files on past their end as they grow; one that is not there is waited for. A file that was renamed is read
    /// to its end, then the new one of its name; one that was truncated, from its start. Several take turns, line by
    /// line.
    #[arg(long, help_heading = "Input and output")]
    pub follow: bool,

    /// Where diverted lines go, byte for byte.
    #[arg(long, value_name = "FILE", help_heading = "Input and output")]
    pub rejects: Option<PathBuf>,

    /// Where dropped duplicates go, byte for byte.
    #[arg(long, value_name = "FILE", help_heading = "Input and output")]
    pub duplicates: Option<PathBuf>,

    /// Where first-seen events go, as > would: an existing file is emptied first [default: standard output].
    #[arg(short, long, value_name = "FILE", help_heading = "Input and output")]
    pub output: Option<PathBuf>,

    #[command(flatten)]
    pub state: StateArgs,

    /// Threads that work [default: the number of cores, at most 4].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=64), help_heading = "Running")]
    pub threads: Option<u16>,

    /// How long a drain may take after the first SIGINT or SIGTERM.
    #[arg(long, value_name = "DURATION", value_parser = duration, default_value = "30s", help_heading = "Running")]
    pub drain_timeout: Duration,

    /// How the report looks, on standard error at the end and on SIGUSR1.
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t, help_heading = "Reporting")]
    pub report: ReportFormat,

    /// Print the report also this often.
    #[arg(long, value_name = "DURATION", value_parser = nonzero_duration, help_heading = "Reporting")]
    pub report_every: Option<Duration>,

    /// Show progress from the start; without it a long run on a terminal does, and opening a large state.
    #[arg(long, help_heading = "Reporting")]
    pub progress: bool,

    /// Print nothing but errors.
    #[arg(short, long, conflicts_with_all = ["verbose", "progress", "report_every"], help_heading = "Reporting")]
    pub quiet: bool,

    /// Also say what is not a warning.
    #[arg(short, long, help_heading = "Reporting")]
    pub verbose: bool,

    /// How log lines look.
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t, help_heading = "Reporting")]
    pub log_format: LogFormat,
}

/// What is kept across runs, and what that is worth.
#[derive(Debug, Args)]
pub struct StateArgs {
    /// Keep the window in this directory, across runs and crashes; made when it is not there. With files as inputs and
    /// outputs, the same command again goes on where it stopped.
    #[arg(short, long, value_name = "DIR", help_heading = "State")]
    pub state: Option<PathBuf>,

    /// What the state survives. none: nothing new is kept. process: kill -9. interval=50ms: power loss too, but for so
    /// long. power-loss: power loss, with a sync per commit.
    #[arg(long, value_name = "LEVEL", value_parser = durability, default_value = "interval=50ms", requires = "state",
        help_heading = "State")]
    pub durability: dedupd::Durability,

    /// How long to wait for another process that has the state.
    #[arg(long, value_name = "DURATION", value_parser = duration, default_value = "0s", requires = "state",
        help_heading = "State")]
    pub lock_timeout: Duration,

    /// The most that the state may take on disk, 3MiB or more; when it is reached, --when-disk-full says what is done
    /// [default: no limit].
    #[arg(long, value_name = "SIZE", value_parser = nonzero_size, requires = "state", help_heading = "State")]
    pub max_disk: Option<u64>,

    /// What to do with a corrupt state: refuse to start, or move the bad part aside, say what may be unknown, and go on.
    #[arg(long, value_name = "WHAT", value_enum, default_value_t, requires = "state", help_heading = "State")]
    pub on_corrupt: CorruptArg,

    /// What to do when the state cannot be kept any more. stop: end with exit code 74. pass: go on from memory, counted as
    /// bypassed, also when only the disk is full.
    #[arg(long, value_name = "WHAT", value_enum, default_value_t, requires = "state", help_heading = "State")]
    pub when_state_fails: StateFailsArg,

    /// What to do when a disk is full, at the start as well as later. block: wait for room. stop: end with exit code 74.
    /// pass: go on without recording, counted as bypassed; for an output, or a state that is yet to be made, that is the
    /// same as stop [default: block with --state, else stop].
    #[arg(long, value_name = "WHAT", value_enum, help_heading = "State")]
    pub when_disk_full: Option<WhenDiskFull>,

    /// Go on behind the end of outputs that are there although the state has no position in them, or that were
    /// replaced or renamed.
    #[arg(long, requires = "state", help_heading = "State")]
    pub append: bool,

    /// Refuse to run when this delivery mode cannot be given. Without it the strongest that inputs, state and outputs
    /// allow is in force; the report names it. at-most-once only when it is asked for.
    #[arg(long, value_name = "MODE", value_enum, help_heading = "State")]
    pub delivery: Option<DeliveryArg>,
}

#[derive(Debug, Args)]
pub struct ExplainArgs {
    #[command(flatten)]
    pub keys: KeyArgs,

    /// Judge each line by what the state in this directory knows now. Changes nothing, also while it is in use.
    #[arg(short, long, value_name = "DIR", help_heading = "State")]
    pub state: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub struct ForgetArgs {
    /// The state directory. Nobody may have it open.
    pub dir: PathBuf,

    #[command(flatten)]
    pub ids: IdArgs,

    #[command(flatten)]
    pub lines: LineArgs,

    /// How long to wait for who has the state open.
    #[arg(long, value_name = "DURATION", value_parser = duration, default_value = "0s", help_heading = "State")]
    pub lock_timeout: Duration,

    /// How the report looks, on standard output at the end.
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t, help_heading = "Reporting")]
    pub report: ReportFormat,
}

impl LineArgs {
    /// The inputs in order; empty for standard input alone.
    pub fn inputs(&self) -> impl Iterator<Item = OsString> {
        self.input.iter().chain(&self.files).map(|path| path.clone().into_os_string())
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum HashArg {
    #[default]
    Siphash13,
    Xxh3,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum ConflictArg {
    #[default]
    Ignore,
    Count,
    Pass,
    Divert,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[expect(clippy::enum_variant_names, reason = "the modes are called so everywhere")]
pub enum DeliveryArg {
    /// Deliver, then commit: the few in flight may be delivered again, none is lost.
    AtLeastOnce,
    /// Positions of files and ids are committed together: none is lost, none delivered twice.
    ExactlyOnce,
    /// Commit, then deliver: the few in flight may be lost, none is delivered twice.
    AtMostOnce,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum LateArg {
    #[default]
    Pass,
    Drop,
    Divert,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum BadArg {
    #[default]
    Pass,
    Divert,
    Fail,
    Drop,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum WhenFullArg {
    #[default]
    EvictOldest,
    Refuse,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum CorruptArg {
    #[default]
    Refuse,
    Salvage,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum StateFailsArg {
    #[default]
    Stop,
    Pass,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum ReportFormat {
    /// For people.
    #[default]
    Text,
    /// One line of JSON with stable names.
    Json,
}

const AFTER_HELP: &str = "\
Signals:
  SIGINT, SIGTERM  stop reading, finish what was read, exit 0; a second one exits at once
  SIGUSR1          print the report
  SIGHUP           reopen the output files

Exit codes:
  0    done (also when the reader of standard output went away)
  1    done, but something was diverted; forget: some lines have no ID
  2    usage
  65   a bad line under `fail`
  66   an input cannot be opened, or is not as it was left
  70   a bug: the books do not balance, or a panic (please report)
  73   an output or the state cannot be created, or an output is not as it was left
  74   reading or writing failed; there is no state in the directory that a tool was given
  75   another process has the state
  76   the state is corrupt, or its SECRET is gone
  78   the state belongs to another configuration, secret or a newer version
  130  ended at once by a second SIGINT
  143  ended at once by a second SIGTERM

A file that is named like a command is read as ./man or --input man.";
