//! Holds what came out against what children told of their lives.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::path::Path;

use super::journal::{Word, read};
use super::plan::{first, line, position};

/// What a child told of its life.
#[derive(Default)]
struct Life {
    submitting: HashSet<u64>,
    delivered: HashSet<u64>,
    duplicates: HashSet<u64>,
    /// All positions below it are settled.
    settled: u64,
    dying: bool,
}

/// All lives on one state.
pub struct Lives(Vec<Life>);

impl Lives {
    pub fn read(dir: &Path) -> Self {
        let mut lives: Vec<Life> = Vec::new();
        for word in read(dir) {
            if let Word::Begun(settled) = word {
                lives.push(Life { settled, ..Life::default() });
                continue;
            }
            let life = lives.last_mut().expect("a life begins first");
            let is_news = match word {
                Word::Submitting(at) => life.submitting.insert(at),
                Word::Delivered(at) => life.delivered.insert(at) && first(at) == at,
                Word::Duplicate(at) => life.duplicates.insert(at),
                Word::Settled(settled) => std::mem::replace(&mut life.settled, settled) < settled,
                // Two threads may come to it at once.
                Word::Dying | Word::Begun(_) => {
                    life.dying = true;
                    true
                }
            };
            assert!(is_news, "{word:?} is no news");
        }
        Self(lives)
    }

    /// Behind the highest position that was told to be settled.
    pub fn settled(&self) -> u64 {
        self.0.iter().map(|life| life.settled).max().unwrap_or(0)
    }

    /// Behind the highest position that was submitted.
    pub fn end(&self) -> u64 {
        self.0.iter().flat_map(|life| &life.submitting).max().map_or(0, |position| position + 1)
    }

    /// The last child said that it came to where it was to die.
    pub fn died_as_planned(&self) -> bool {
        self.0.last().is_some_and(|life| life.dying)
    }

    /// In how many lives this was submitted, and its end not told.
    fn in_flight(&self, at: u64) -> usize {
        let is_open = |life: &&Life| {
            life.submitting.contains(&at)
                && at >= life.settled
                && !life.delivered.contains(&at)
                && !life.duplicates.contains(&at)
        };
        self.0.iter().filter(is_open).count()
    }

    fn was_delivered(&self, at: u64) -> bool {
        self.0.iter().any(|life| life.delivered.contains(&at))
    }

    /// Every event is there. `capacity` is how many may have been delivered and not committed at a kill.
    pub fn check_at_least_once(&self, out: &Out, capacity: usize) -> Result<(), Wrong> {
        self.check_lines(out)?;
        for at in firsts(self.end()) {
            let copies = out.copies(at);
            if copies == 0 {
                return Err(Wrong::Lost(at));
            }
            if copies - 1 > self.in_flight(at) {
                return Err(Wrong::Repeated(at));
            }
        }
        let repeats = out.lines - out.copies.len();
        if repeats > capacity * self.kills() { Err(Wrong::TooMany(repeats)) } else { Ok(()) }
    }

    /// No event is there twice, and those that are not were in flight at a kill.
    pub fn check_at_most_once(&self, out: &Out, capacity: usize) -> Result<(), Wrong> {
        self.check_lines(out)?;
        let mut lost = 0;
        for at in firsts(self.end()) {
            match out.copies(at) {
                0 if self.in_flight(at) == 0 || self.was_delivered(at) => return Err(Wrong::Lost(at)),
                0 => lost += 1,
                1 => {}
                _ => return Err(Wrong::Repeated(at)),
            }
        }
        if lost > capacity * self.kills() { Err(Wrong::TooMany(lost)) } else { Ok(()) }
    }

    /// What is there are first copies, and no more halves than kills.
    fn check_lines(&self, out: &Out) -> Result<(), Wrong> {
        if let Some(at) = out.copies.keys().find(|at| first(**at) != **at) {
            return Err(Wrong::TakenForNew(*at));
        }
        if out.halves > self.kills() { Err(Wrong::Torn(out.halves)) } else { Ok(()) }
    }

    fn kills(&self) -> usize {
        self.0.len() - 1
    }
}

/// What came out.
pub struct Out {
    copies: HashMap<u64, usize>,
    lines: usize,
    halves: usize,
}

impl Out {
    pub fn read(text: &str) -> Self {
        let (mut copies, mut lines, mut halves) = (HashMap::new(), 0, 0);
        for line in text.lines() {
            match position(line) {
                Some(at) => {
                    *copies.entry(at).or_default() += 1;
                    lines += 1;
                }
                None => halves += 1,
            }
        }
        Self { copies, lines, halves }
    }

    pub fn repeats(&self) -> usize {
        self.lines - self.copies.len()
    }

    /// How many of the events below `end` are not there.
    pub fn missing(&self, end: u64) -> usize {
        firsts(end).filter(|at| self.copies(*at) == 0).count()
    }

    fn copies(&self, at: u64) -> usize {
        self.copies.get(&at).copied().unwrap_or(0)
    }
}

/// What stands in a file when nobody is killed.
pub fn uninterrupted(end: u64) -> String {
    firsts(end).map(|at| line(at) + "\n").collect()
}

fn firsts(end: u64) -> impl Iterator<Item = u64> {
    (0..end).filter(|at| first(*at) == *at)
}

/// What an audit finds, by position.
#[derive(Debug, PartialEq, Eq)]
pub enum Wrong {
    Lost(u64),
    Repeated(u64),
    /// More than were in flight.
    TooMany(usize),
    /// A repeat came out in place of the first.
    TakenForNew(u64),
    Torn(usize),
    /// Not what an uninterrupted run leaves.
    Different,
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}
