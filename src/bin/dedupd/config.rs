//! What the command line means: checked once, so that no later code checks again.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::ValueEnum;
use dedupd::decode::{BadReason, Decoder, KeySpec, PayloadSpec, TimeSpec};
use dedupd::pipeline::Delivery;
use dedupd::{BuildError, Deduplicator, Durability, Error, IdHash, OnConflict, Secret, WhenFull};

use crate::args::{
    BadArg, ConflictArg, ConflictArgs, DeliveryArg, FilterArgs, HashArg, IdArgs, KeyArgs, LateArg, LineArgs,
    ReportFormat, StateFailsArg, WhenFullArg,
};
use crate::exit::{Exit, Failure};
use crate::filter::{Fields, Room, choose_delivery};
use crate::log::Log;
use crate::memory;
use crate::state_dir;

/// A run of the filter.
#[derive(Debug)]
pub struct Config {
    pub inputs: Vec<Input>,
    /// Files are read on past their end.
    pub follow: bool,
    pub output: Option<PathBuf>,
    pub rejects: Option<PathBuf>,
    pub duplicates: Option<PathBuf>,
    pub reading: Reading,
    /// Where the IDs stand by which messages name a line.
    pub fields: Fields,
    pub policy: Policy,
    pub state: Option<State>,
    pub when_disk_full: WhenDiskFull,
    /// The mode that is in force.
    pub delivery: Delivery,
    pub threads: usize,
    pub drain_timeout: Duration,
    pub reporting: Reporting,
    pub log: Log,
}

/// What is kept across runs.
#[derive(Clone, Copy, Debug)]
pub struct State {
    pub durability: Durability,
    /// Outputs that are there are continued, whatever is known of them.
    pub appends: bool,
    /// A state that fails does not stop the run.
    pub passes_on_failure: bool,
}

/// What is done when a disk is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum WhenDiskFull {
    Block,
    Stop,
    Pass,
}

/// Where events are read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    Stdin,
    File(PathBuf),
}

/// How lines become events.
#[derive(Clone, Debug)]
pub struct Reading {
    pub keys: KeySpec,
    pub time: Option<TimeSpec>,
    /// What is compared where one ID comes twice; none when that is of no matter.
    pub payload: Option<PayloadSpec>,
    /// Without its newline.
    pub line_bytes_max: usize,
}

/// What is done with what is no event to deliver.
#[derive(Clone, Copy, Debug)]
pub struct Policy {
    pub bad: Action,
    pub missing: Action,
    pub late: Action,
    pub conflict: OnConflict,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    Pass,
    Divert,
    Fail,
    Drop,
}

#[derive(Clone, Copy, Debug)]
pub struct Reporting {
    pub format: ReportFormat,
    pub every: Option<Duration>,
    pub progress: bool,
}

impl Config {
    pub fn new(args: &FilterArgs) -> Result<Self, Failure> {
        let policy = Policy::new(args)?;
        if policy.conflict != OnConflict::Ignore && args.max_ids == Some(1) {
            let what = "--max-ids 1 has no room for an event, which takes two where --on-conflict compares payloads";
            return Err(Failure::usage(what));
        }
        for (flag, path) in [("--rejects", &args.rejects), ("--duplicates", &args.duplicates)] {
            if path.as_ref().is_some_and(|path| path.as_os_str() == "-") {
                let what = "needs a file of its own: name one, or ./- for a file called -";
                return Err(Failure::usage(format!("{flag} {what}")));
            }
        }
        let reading = Reading::new(&args.keys)?;
        let mut config = Self {
            inputs: inputs(&args.keys.lines),
            follow: args.follow,
            output: args.output.clone().filter(|path| path.as_os_str() != "-"),
            rejects: args.rejects.clone(),
            duplicates: args.duplicates.clone(),
            fields: Fields::new(args, &reading)?,
            reading,
            policy,
            state: args.state.state.as_ref().map(|_| State::new(args)),
            when_disk_full: args.state.when_disk_full.unwrap_or(match args.state.state {
                Some(_) => WhenDiskFull::Block,
                None => WhenDiskFull::Stop,
            }),
            delivery: Delivery::AtLeastOnce,
            threads: args.threads.map_or_else(default_threads, usize::from),
            drain_timeout: args.drain_timeout,
            reporting: Reporting { format: args.report, every: args.report_every, progress: args.progress },
            log: Log { format: args.log_format, quiet: args.quiet, verbose: args.verbose },
        };
        config.delivery = choose_delivery(&config, args.state.delivery.map(Delivery::from))?;
        Ok(config)
    }

    /// Whether it goes on without a state that fails with this code.
    pub fn passes_by(&self, code: &str) -> bool {
        let is_full = code == "log_no_room" && self.when_disk_full == WhenDiskFull::Pass;
        is_full || self.state.is_some_and(|state| state.passes_on_failure)
    }
}

impl State {
    fn new(args: &FilterArgs) -> Self {
        Self {
            durability: args.state.durability,
            appends: args.state.append,
            passes_on_failure: args.state.when_state_fails == StateFailsArg::Pass,
        }
    }

    /// Commits may wait for each other.
    pub fn collects(&self) -> bool {
        matches!(self.durability, Durability::Interval(_))
    }

    /// What is learnt is known after a restart.
    pub fn keeps(&self) -> bool {
        self.durability != Durability::None
    }
}

impl Policy {
    fn new(args: &FilterArgs) -> Result<Self, Failure> {
        let bad = Action::from(args.on_bad);
        let missing = args.on_missing.map_or(bad, Action::from);
        let late = match args.late {
            LateArg::Pass => Action::Pass,
            LateArg::Drop => Action::Drop,
            LateArg::Divert => Action::Divert,
        };
        let conflict = OnConflict::from(args.keys.conflicts.on_conflict);
        let of_conflict = if conflict == OnConflict::Divert { Action::Divert } else { Action::Pass };
        let diverts = [("--on-bad", bad), ("--on-missing", missing), ("--late", late), ("--on-conflict", of_conflict)];
        match diverts.iter().find(|(_, action)| *action == Action::Divert) {
            Some((flag, _)) if args.rejects.is_none() => {
                Err(Failure::usage(format!("{flag} divert needs to know where to: add --rejects FILE")))
            }
            _ => Ok(Self { bad, missing, late, conflict }),
        }
    }

    /// What is done with a bad line.
    pub fn of(&self, reason: BadReason) -> Action {
        if reason == BadReason::MissingId { self.missing } else { self.bad }
    }
}

impl Reading {
    pub fn new(args: &KeyArgs) -> Result<Self, Failure> {
        let time = args.time_field.as_deref().map(|path| TimeSpec::parse(path, args.time_unit));
        let time = time.transpose().map_err(|error| Failure::usage(format!("--time-field: {error}")))?;
        let reading = Self::without_time(&args.ids, &args.lines)?;
        Ok(Self { time, payload: payload(&args.conflicts, &reading.keys)?, ..reading })
    }

    pub fn without_time(ids: &IdArgs, lines: &LineArgs) -> Result<Self, Failure> {
        let keys = KeySpec::parse(&ids.key).map_err(|error| Failure::usage(format!("--key: {error}")))?;
        let line_bytes_max = usize::try_from(lines.max_line).ok().filter(|&bytes| bytes <= LINE_BYTES_LIMIT);
        let line_bytes_max = line_bytes_max.ok_or_else(|| Failure::usage("--max-line may be 1GiB at most"))?;
        Ok(Self { keys, time: None, payload: None, line_bytes_max })
    }

    pub fn decoder(&self) -> Decoder {
        let decoder = Decoder::new(self.keys.clone());
        match &self.time {
            Some(time) => decoder.with_time(time.clone()),
            None => decoder,
        }
    }
}

/// What of a line is compared with what came before under its ID.
fn payload(args: &ConflictArgs, keys: &KeySpec) -> Result<Option<PayloadSpec>, Failure> {
    let refused = |what: &str| Err(Failure::usage(format!("--conflict-ignore {what}")));
    match args.on_conflict {
        ConflictArg::Ignore if !args.conflict_ignore.is_empty() => {
            refused("changes nothing while payloads are not compared: add --on-conflict count, pass or divert")
        }
        _ if !args.conflict_ignore.is_empty() && keys.is_line() => {
            refused("cannot leave anything out of --key @line, which reads no JSON")
        }
        ConflictArg::Ignore => Ok(None),
        _ => match PayloadSpec::leaving_out(&args.conflict_ignore) {
            Ok(spec) => Ok(Some(spec)),
            Err(error) => Err(Failure::usage(format!("--conflict-ignore: {error}"))),
        },
    }
}

/// The set that the flags ask for.
pub fn build_set(args: &FilterArgs, room: &mut Room) -> Result<Deduplicator, Failure> {
    state_dir::open(|| builder(args), args, room)
}

fn builder(args: &FilterArgs) -> dedupd::Builder {
    let mut builder = window(&args.keys).expected_ids(ids_expected(args)).when_full(match args.when_full {
        WhenFullArg::EvictOldest => WhenFull::EvictOldest,
        WhenFullArg::Refuse => WhenFull::Refuse,
    });
    if let Some(bytes) = memory_limit(args) {
        builder = builder.max_memory(usize::try_from(bytes).unwrap_or(usize::MAX));
    }
    if let Some(ids) = args.max_ids {
        builder = builder.max_ids(usize::try_from(ids).unwrap_or(usize::MAX));
    }
    builder
}

/// For how many ids room is made ahead, so that the set need not grow at first: what files of this size may hold, and
/// so little that it does not matter should all of it be repeats.
fn ids_expected(args: &FilterArgs) -> usize {
    let by_size = inputs(&args.keys.lines).iter().filter_map(Input::bytes).sum::<u64>() / BYTES_PER_LINE_USUAL;
    let by_memory = memory_limit(args).map_or(u64::MAX, |bytes| bytes / 4 / BYTES_PER_RESERVED_ID);
    let most = IDS_EXPECTED_MAX.min(by_memory).min(args.max_ids.unwrap_or(u64::MAX));
    usize::try_from(by_size.min(most)).unwrap_or(0)
}

fn memory_limit(args: &FilterArgs) -> Option<u64> {
    args.max_memory.or_else(memory::default_limit)
}

/// A set without limits, for `explain`; with the secret of a state its fingerprints are those of the state.
pub fn build_plain_set(args: &KeyArgs, secret: Option<Secret>) -> Result<Deduplicator, Failure> {
    let builder = window(args);
    let builder = match secret {
        Some(secret) => builder.secret(secret),
        None => builder,
    };
    builder.build().map_err(|error| refused(&error))
}

fn window(args: &KeyArgs) -> dedupd::Builder {
    let builder = Deduplicator::builder().window(args.window).extend_on_duplicate(args.extend);
    let builder = builder.hash(args.ids.hash.into()).on_conflict(args.conflicts.on_conflict.into());
    match args.time_field {
        Some(_) => builder.lateness(args.lateness.unwrap_or(args.window)).max_future(args.max_future),
        None => builder,
    }
}

/// The failure that a refused configuration is.
pub fn refused(error: &Error) -> Failure {
    match error {
        Error::Build(BuildError::Secret(_)) => Failure::new(Exit::Io, "secret", error.to_string()),
        Error::Build(BuildError::DiskTooSmall { bytes_min, .. }) => {
            Failure::usage(format!("--max-disk: {error} ({}MiB)", bytes_min >> 20))
        }
        _ => Failure::usage(error.to_string()),
    }
}

/// The inputs in order; standard input when none is named.
pub fn inputs(args: &LineArgs) -> Vec<Input> {
    let mut inputs: Vec<Input> = args.inputs().map(Input::from).collect();
    if inputs.is_empty() {
        inputs.push(Input::Stdin);
    }
    inputs
}

impl Input {
    /// How long it is, when it is a file.
    pub fn bytes(&self) -> Option<u64> {
        let path = match self {
            Self::Stdin => "/proc/self/fd/0".as_ref(),
            Self::File(path) => path.as_path(),
        };
        std::fs::metadata(path).ok().filter(std::fs::Metadata::is_file).map(|about| about.len())
    }
}

impl From<OsString> for Input {
    fn from(name: OsString) -> Self {
        if name == "-" { Self::Stdin } else { Self::File(name.into()) }
    }
}

impl std::fmt::Display for Input {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Stdin => f.write_str("standard input"),
            Self::File(path) => path.display().fmt(f),
        }
    }
}

impl From<HashArg> for IdHash {
    fn from(arg: HashArg) -> Self {
        match arg {
            HashArg::Siphash13 => Self::SipHash13,
            HashArg::Xxh3 => Self::Xxh3,
        }
    }
}

impl From<DeliveryArg> for Delivery {
    fn from(arg: DeliveryArg) -> Self {
        match arg {
            DeliveryArg::AtLeastOnce => Self::AtLeastOnce,
            DeliveryArg::ExactlyOnce => Self::ExactlyOnce,
            DeliveryArg::AtMostOnce => Self::AtMostOnce,
        }
    }
}

impl From<ConflictArg> for OnConflict {
    fn from(arg: ConflictArg) -> Self {
        match arg {
            ConflictArg::Ignore => Self::Ignore,
            ConflictArg::Count => Self::Count,
            ConflictArg::Pass => Self::Pass,
            ConflictArg::Divert => Self::Divert,
        }
    }
}

impl From<BadArg> for Action {
    fn from(arg: BadArg) -> Self {
        match arg {
            BadArg::Pass => Self::Pass,
            BadArg::Divert => Self::Divert,
            BadArg::Fail => Self::Fail,
            BadArg::Drop => Self::Drop,
        }
    }
}

fn default_threads() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from).min(THREADS_BY_DEFAULT_MAX)
}

/// More do not help: writing in order is one thread's part.
const THREADS_BY_DEFAULT_MAX: usize = 4;
/// Room for so many ids is 24 MB.
const IDS_EXPECTED_MAX: u64 = 1_000_000;
/// A line of a webhook, give or take.
const BYTES_PER_LINE_USUAL: u64 = 512;
/// Some times what an ID takes.
const BYTES_PER_RESERVED_ID: u64 = 128;
/// Places in a chunk are 32 bits.
const LINE_BYTES_LIMIT: usize = 1 << 30;
