//! Warnings: one for each reason, with the first place where it was met.

use std::collections::BTreeSet;

use dedupd::Reason;
use dedupd::decode::{Bad, BadReason, member_paths};

use super::books::Books;
use super::chunk::{Chunk, Kind};
use crate::config::Action;
use crate::log::{About, Log};

pub struct Warnings {
    log: Log,
    given: BTreeSet<Reason>,
    /// Whether any ID was found; the whole line always is one.
    id_found: bool,
    /// Members of the first lines that have no ID.
    members: Vec<String>,
    /// Lines that these are from.
    lines_looked_at: usize,
    members_told: bool,
}

impl Warnings {
    pub fn new(log: Log, by_line: bool) -> Self {
        let given = BTreeSet::new();
        Self { log, given, id_found: by_line, members: Vec::new(), lines_looked_at: 0, members_told: false }
    }

    /// Whether this reason is met for the first time.
    pub fn is_new(&mut self, reason: Reason) -> bool {
        self.given.insert(reason)
    }

    pub fn bad(&self, about: &About, bad: &Bad, action: Action) {
        let what = Self::what(bad);
        self.log.warning_about(Self::code(bad), about, &format!("{what}; {}", what_happens(action)));
    }

    pub fn late(&self, about: &About, action: Action) {
        let what = "an event is older than --lateness allows";
        self.log.warning_about("late", about, &format!("{what}; {}", what_happens(action)));
    }

    pub fn conflict(&self, about: &About, action: Option<Action>) {
        let what = "its ID was seen with another payload";
        let happens = action.map_or("such lines are dropped as duplicates and counted", what_happens);
        self.log.warning_about("conflict", about, &format!("{what}; {happens}"));
    }

    pub fn refused(&mut self) {
        if self.is_new(Reason::Full) {
            let what = "the limit on ids or memory is reached, so new ones cannot be judged";
            self.log.warning(
                "full",
                format!("{what}; {}; raise the limit or shorten the window", what_happens(Action::Pass)),
            );
        }
    }

    /// Keeps an eye on whether the ID is there at all.
    pub fn chunk(&mut self, chunk: &Chunk, end: usize, books: &Books) {
        if self.id_found || self.log.quiet {
            return;
        }
        let lines = &chunk.lines[..end.min(chunk.lines.len())];
        let found = lines.iter().position(|line| line.kind == Kind::Id);
        self.look_at(chunk, found.unwrap_or(lines.len()));
        let without = books.read + books.blank + found.unwrap_or(lines.len()) as u64;
        if without >= LINES_WITHOUT_ID {
            self.tell_members();
        }
        self.id_found = found.is_some();
    }

    /// An input shorter than that is judged at its end.
    pub fn end(&mut self, books: &Books) {
        if !self.id_found && books.bad_by(BadReason::MissingId) > 0 {
            self.tell_members();
        }
    }

    fn look_at(&mut self, chunk: &Chunk, end: usize) {
        let missing = (0..end).filter(|&line| chunk.lines[line].kind == Kind::Bad(BadReason::MissingId));
        for line in missing.take(LINES_LOOKED_AT - self.lines_looked_at) {
            self.lines_looked_at += 1;
            for path in member_paths(&chunk.bytes()[chunk.range(line)], MEMBERS_MAX) {
                if self.members.len() < MEMBERS_MAX && !self.members.contains(&path) {
                    self.members.push(path);
                }
            }
        }
    }

    fn tell_members(&mut self) {
        if self.members_told || self.members.is_empty() {
            return;
        }
        self.members_told = true;
        let members = self.members.join(", ");
        self.log
            .warning("no_id_found", format!("no line so far has the ID; say with --key where it stands: {members}"));
    }

    pub fn code(bad: &Bad) -> &'static str {
        Reason::from(bad.reason).as_str()
    }

    /// What is wrong, and where in the line when that helps.
    pub fn what(bad: &Bad) -> String {
        match bad.offset {
            0 => bad.what.to_owned(),
            offset => format!("{} (at byte {offset} of the line)", bad.what),
        }
    }
}

fn what_happens(action: Action) -> &'static str {
    match action {
        Action::Pass => "such lines are passed on and counted",
        Action::Divert => "such lines are diverted and counted",
        Action::Drop => "such lines are dropped and counted",
        Action::Fail => "stopped",
    }
}

const LINES_WITHOUT_ID: u64 = 1_000;
const LINES_LOOKED_AT: usize = 16;
const MEMBERS_MAX: usize = 24;
