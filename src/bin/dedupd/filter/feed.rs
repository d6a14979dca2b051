//! One of the inputs, and how far it was read.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::sync::Arc;
use std::time::Instant;

use super::input::Open;
use super::source::Source;
use crate::config::Input;

pub struct Feed {
    pub input: Input,
    pub open: Option<Open>,
    /// What is opened next: the file that got the name of the one that is followed.
    pub successor: Option<File>,
    /// Nothing more can come.
    pub has_ended: bool,
    /// How many times it was begun: a file that is followed may be replaced, or start over.
    pub openings: u64,
    /// The open file, when its position is kept.
    pub source: Option<Arc<Source>>,
    /// What came after the last newline.
    pub tail: Vec<u8>,
    /// When the first whole line of it had come; it has one only behind a line that was too long.
    pub tail_arrived: Option<Instant>,
    /// Where in the input the next chunk starts.
    pub offset: u64,
    /// In the middle of a line that is longer than allowed.
    pub in_long_line: bool,
    pub waiting_told: bool,
}

impl Feed {
    pub fn new(input: Input) -> Self {
        Self {
            input,
            open: None,
            successor: None,
            has_ended: false,
            openings: 0,
            source: None,
            tail: Vec::new(),
            tail_arrived: None,
            offset: 0,
            in_long_line: false,
            waiting_told: false,
        }
    }

    /// What comes next is the start of a file, or of what was not read of it before.
    pub fn begin(&mut self, source: Option<Source>) {
        self.openings += 1;
        self.offset = source.as_ref().map_or(0, |source| source.start);
        self.source = source.map(Arc::new);
    }
}

/// Whether there is something to open.
pub fn is_there(input: &Input) -> bool {
    match input {
        Input::Stdin => true,
        Input::File(path) => fs::metadata(path).map_or_else(|error| error.kind() != ErrorKind::NotFound, |_| true),
    }
}
