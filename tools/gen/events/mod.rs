//! Webhook-like NDJSON events made from a seed, with the answer known by construction.
//!
//! Event number `n` is a pure function of the seed and `n`. A repeat is therefore made again and not remembered: memory
//! stays constant however many lines are asked for, and what is first-seen is known without parsing a single line, so a
//! defect of a parser cannot hide in the answer that it is compared with.
//!
//! The lines are as unkind as real ones are: eight forms of ID, other objects' `id`s before and after the event's own,
//! integers that a float cannot tell apart, `1` beside `"1"`, and retries whose attempt counter, delivery time,
//! whitespace, member order and escapes differ from the first delivery. Some events are *unusual*: they have escapes,
//! letters that are not ASCII, deep nesting and IDs of others inside of strings; the default is the share that 800 public
//! events of a code host have. A bad line names an event that is still to come: who remembers IDs of lines that cannot be
//! judged, loses that event.

mod bad;
mod body;
mod id;
mod rng;

use rng::Rng;

/// What to make. The default is a thousand lines of 432 bytes, 70 % of them first-seen.
#[derive(Clone, Debug)]
pub struct Options {
    pub seed: u64,
    /// The share of lines that are first-seen, of those that are not bad.
    pub unique: f64,
    /// The share of repeats whose bytes differ from the first delivery.
    pub changed: f64,
    /// The share of lines that cannot be judged.
    pub bad: f64,
    /// The share of events with escapes, letters that are not ASCII, and what else is rare.
    pub unusual: f64,
    /// The mean length of a line, with its newline. Below about 300 the body alone may be longer.
    pub bytes: usize,
    pub id: IdPlace,
    pub shape: Shape,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            seed: 1,
            unique: 0.7,
            changed: 0.5,
            bad: 0.0,
            unusual: 0.2,
            bytes: 432,
            id: IdPlace::Mixed,
            shape: Shape::Mixed,
        }
    }
}

/// Where in the object the event's ID stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum IdPlace {
    First,
    Middle,
    Last,
    Mixed,
}

/// Whose events they look like.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Shape {
    /// A payment service: nested objects with their own `id`s.
    Payment,
    /// A code host: actor, repository and commits.
    Repository,
    /// An audit trail: deep, with long strings.
    Audit,
    /// The three in turn.
    Mixed,
}

/// The answer for one line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    FirstSeen,
    Duplicate,
    Bad,
}

/// Makes the lines, one after the other.
#[derive(Debug)]
pub struct Generator {
    options: Options,
    rng: Rng,
    /// Events made so far, which is also the number of the next new one.
    distinct: u64,
    scratch: Vec<u8>,
}

impl Generator {
    pub fn new(options: Options) -> Self {
        let rng = Rng::of(options.seed, u64::MAX);
        Self { options, rng, distinct: 0, scratch: Vec::new() }
    }

    /// Appends the next line to `out`, newline included, and says what the answer for it is.
    pub fn append_line(&mut self, out: &mut Vec<u8>) -> Answer {
        if self.rng.chance(self.options.bad) {
            self.scratch.clear();
            body::append(&mut self.scratch, &self.options, self.distinct, None);
            bad::append(out, &self.scratch, &mut self.rng);
            out.push(b'\n');
            return Answer::Bad;
        }
        let answer = if self.distinct == 0 || self.rng.chance(self.options.unique) {
            body::append(out, &self.options, self.distinct, None);
            self.distinct += 1;
            Answer::FirstSeen
        } else {
            let number = self.distinct - self.lag();
            let retry = self.rng.chance(self.options.changed).then(|| self.rng.next());
            body::append(out, &self.options, number, retry);
            Answer::Duplicate
        };
        out.push(b'\n');
        answer
    }

    /// How many events ago the repeated one was first: mostly a client that retries at once, then one that backs off,
    /// and now and then somebody who replays a file.
    fn lag(&mut self) -> u64 {
        let longest = match self.rng.below(20) {
            0..10 => 200,
            10..13 => 2_000,
            13..17 => 50_000,
            _ => u64::MAX,
        };
        1 + self.rng.below(self.distinct.min(longest))
    }
}
