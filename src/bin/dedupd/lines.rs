//! The lines of an input, one after the other: for what is simple and not fast.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};

use dedupd::decode::strip_bom;

use crate::config::Input;
use crate::exit::{Exit, Failure, cause};

/// Reads an input line by line, in bounded memory.
pub struct Lines {
    name: String,
    reader: Box<dyn BufRead>,
    /// Without its newline.
    line_bytes_max: usize,
    line: Vec<u8>,
    number: u64,
}

/// A line, with its newline if it has one, and without the byte order mark of the input.
pub enum Line<'a> {
    Text(&'a [u8]),
    TooLong,
}

impl Lines {
    pub fn open(input: &Input, line_bytes_max: usize) -> Result<Self, Failure> {
        let name = input.to_string();
        let reader: Box<dyn BufRead> = match input {
            Input::Stdin => Box::new(io::stdin().lock()),
            Input::File(path) => Box::new(BufReader::new(File::open(path).map_err(|error| refused(&name, &error))?)),
        };
        Ok(Self { name, reader, line_bytes_max, line: Vec::new(), number: 0 })
    }

    /// The next line and its number, from 1.
    pub fn next(&mut self) -> Result<Option<(u64, Line<'_>)>, Failure> {
        self.number += 1;
        let is_text = self.fill().map_err(|error| refused(&self.name, &error))?;
        Ok(is_text.map(|is_text| {
            let start = if self.number == 1 { strip_bom(&self.line) } else { 0 };
            (self.number, if is_text { Line::Text(&self.line[start..]) } else { Line::TooLong })
        }))
    }

    /// Reads a line; says whether it was short enough, or that there is none.
    fn fill(&mut self) -> io::Result<Option<bool>> {
        self.line.clear();
        // One byte for the newline, one to see that the line is too long; the first may have a byte order mark.
        let limit = self.line_bytes_max as u64 + if self.number == 1 { 5 } else { 2 };
        if self.reader.by_ref().take(limit).read_until(b'\n', &mut self.line)? == 0 {
            return Ok(None);
        }
        let start = if self.number == 1 { strip_bom(&self.line) } else { 0 };
        let content_bytes = self.line.len() - start - usize::from(self.line.ends_with(b"\n"));
        let is_text = content_bytes <= self.line_bytes_max;
        if !is_text && !self.line.ends_with(b"\n") {
            self.reader.skip_until(b'\n')?;
        }
        Ok(Some(is_text))
    }
}

fn refused(name: &str, error: &io::Error) -> Failure {
    Failure::new(Exit::NoInput, "input", format!("cannot read {name}: {}", cause(error)))
}
