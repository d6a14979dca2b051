//! What a child is to do and where it is to die, and the stream of events that all of them send.

use std::path::PathBuf;
use std::time::Duration;

use dedupd::{Delivery, Durability};
use serde::{Deserialize, Serialize};

/// One child's life.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Plan {
    /// Where the child tells of its life.
    pub journal: PathBuf,
    /// Where its state and its files are.
    pub dir: PathBuf,
    pub mode: Mode,
    pub level: Level,
    pub shape: Shape,
    pub gap: Gap,
    /// So many events are let by first.
    pub count: u64,
    /// Which of several sinks dies.
    pub branch: usize,
    pub way: Way,
    /// Goes on behind this instead of behind what the pipeline says is settled: a source that was told so has nothing else.
    pub acknowledged: Option<u64>,
    /// Ends, drained, before this position.
    pub until: Option<u64>,
    pub fault: Fault,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Mode {
    AtLeast,
    Exactly,
    AtMost,
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub enum Level {
    Process,
    Interval,
    PowerLoss,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Shape {
    /// A file that the one worker writes.
    One,
    /// A file for two workers, and so with a lane.
    Lane,
    /// A file for each of two workers.
    Each,
    /// Two files that both get everything.
    Tee,
}

/// Between which steps a child dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Gap {
    /// More is submitted, and its worker has not come to it.
    BeforeReserve,
    BeforeDeliver,
    /// Half of a batch is out.
    InBatch,
    /// And half of a line.
    InLine,
    /// All of it is out, and the pipeline does not know.
    AfterDeliver,
    /// It is committed, and who submitted it is about to hear of it.
    AfterCommit,
    /// The source was told.
    AfterSettled,
    /// Wherever it is when its parent kills it.
    Anywhere,
    Nowhere,
}

/// How events are submitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Way {
    OneByOne,
    Producer,
    Batches,
}

/// What is wrong with a child, so that the audit has something to find.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Fault {
    None,
    /// The sink says that it delivered an event, and did not.
    Skips,
    /// The sink is not cut back.
    KeepsAll,
    /// The pipeline is one of another mode.
    Runs(Mode),
}

impl Mode {
    pub fn delivery(self) -> Delivery {
        match self {
            Self::AtLeast => Delivery::AtLeastOnce,
            Self::Exactly => Delivery::ExactlyOnce,
            Self::AtMost => Delivery::AtMostOnce,
        }
    }
}

impl Level {
    pub fn durability(self) -> Durability {
        match self {
            Self::Process => Durability::Process,
            Self::Interval => Durability::Interval(Duration::from_millis(5)),
            Self::PowerLoss => Durability::PowerLoss,
        }
    }
}

impl Shape {
    /// The files that a child writes.
    pub fn files(self) -> &'static [&'static str] {
        match self {
            Self::One | Self::Lane => &["out"],
            Self::Each | Self::Tee => &["out-0", "out-1"],
        }
    }
}

impl Plan {
    /// The mode that the pipeline is in.
    pub fn runs(&self) -> Mode {
        match self.fault {
            Fault::Runs(mode) => mode,
            _ => self.mode,
        }
    }

    /// The plan of the kill of this number.
    pub fn nth(&self, kill: u64) -> Self {
        let pick = |of: usize, stride: u64| usize::try_from(kill / stride).expect("few") % of;
        let gap = GAPS[pick(GAPS.len(), 1)];
        let ways = [Way::OneByOne, Way::Producer, Way::Batches];
        let way = match ways[pick(ways.len(), 3)] {
            // A batch has nobody to call back.
            Way::Batches if gap == Gap::AfterCommit => Way::Producer,
            way => way,
        };
        // Now and then the first there is.
        let count = if kill % 5 == 4 { 0 } else { kill.wrapping_mul(7_919) % 300 };
        Self { gap, count, way, branch: pick(2, 1), ..self.clone() }
    }
}

/// The position whose event is the first with the ID of the one at `position`. Repeats come near, mostly in the same batch, and far.
pub fn first(position: u64) -> u64 {
    match position {
        _ if position % 5 == 2 => first(position - 1),
        _ if position % 7 == 3 => first(position - 3),
        _ if position % 11 == 6 => first(position / 2),
        _ => position,
    }
}

pub fn id(position: u64) -> String {
    format!("evt_{}", first(position))
}

/// What is delivered: each position's is its own, so that it shows which of several copies came out.
pub fn line(position: u64) -> String {
    format!("{{\"id\":\"{}\",\"at\":{position},\"pad\":\"{:>48}\"}}", id(position), position)
}

/// The position of a whole line.
pub fn position(text: &str) -> Option<u64> {
    let (_, rest) = text.split_once("\"at\":")?;
    let position = rest.split_once(',')?.0.parse().ok()?;
    (line(position) == text).then_some(position)
}

pub const SOURCE: &str = "numbers";
/// The first one comes before anything was ever committed.
pub const GAPS: [Gap; 8] = [
    Gap::AfterDeliver,
    Gap::BeforeReserve,
    Gap::BeforeDeliver,
    Gap::InBatch,
    Gap::InLine,
    Gap::AfterCommit,
    Gap::AfterSettled,
    Gap::Anywhere,
];
/// Events that one worker may have that are neither settled nor refused, at most.
pub const QUEUE: usize = 1_024;
