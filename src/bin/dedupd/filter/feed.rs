//! One of the inputs, and how far it was read.

use std::fs;
use std::io::ErrorKind;

use super::input::Open;
use crate::config::Input;

pub struct Feed {
    pub input: Input,
    pub open: Option<Open>,
    /// Nothing more can come.
    pub has_ended: bool,
    /// How many times it was begun: a file that is followed may be replaced, or start over.
    pub openings: u64,
    /// What came after the last newline.
    pub tail: Vec<u8>,
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
            has_ended: false,
            openings: 0,
            tail: Vec::new(),
            offset: 0,
            in_long_line: false,
            waiting_told: false,
        }
    }

    /// What comes next is the start of a file.
    pub fn start_over(&mut self) {
        self.openings += 1;
        self.offset = 0;
    }

    /// Whether there is something to open.
    pub fn is_there(&self) -> bool {
        match &self.input {
            Input::Stdin => true,
            Input::File(path) => fs::metadata(path).map_or_else(|error| error.kind() != ErrorKind::NotFound, |_| true),
        }
    }
}
