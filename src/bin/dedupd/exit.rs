//! How a run ends: the exit codes, and the failures that lead to them.

use std::fmt;
use std::process::ExitCode;

use crate::log::About;

/// The exit codes; scripts rely on them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Exit {
    /// Done, also when the reader of standard output went away.
    Done = 0,
    /// Done, but something was diverted, or had no ID to forget.
    Diverted = 1,
    /// The command line is wrong.
    Usage = 2,
    /// A bad line under `fail`.
    BadInput = 65,
    /// An input cannot be opened.
    NoInput = 66,
    /// A bug: the books do not balance, or a panic.
    Bug = 70,
    /// An output cannot be created.
    CannotCreate = 73,
    /// Reading or writing failed.
    Io = 74,
    /// Another process has the state.
    Locked = 75,
    /// The state is corrupt.
    Corrupt = 76,
    /// The state belongs to another configuration, or to a newer version.
    OtherState = 78,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// Why a run ends early: what, where, and what to do about it.
#[derive(Clone, Debug)]
pub struct Failure {
    pub exit: Exit,
    /// The stable name.
    pub code: &'static str,
    pub message: String,
    /// The line that is to blame, when it is one.
    pub about: Option<Box<About>>,
}

impl Failure {
    pub fn new(exit: Exit, code: &'static str, message: impl Into<String>) -> Self {
        Self { exit, code, message: message.into(), about: None }
    }

    /// The same, because of a line.
    pub fn at(self, about: About) -> Self {
        Self { about: Some(Box::new(about)), ..self }
    }

    /// What a panic comes to; it was told where it happened.
    pub fn panic() -> Self {
        Self::new(Exit::Bug, "panic", "stopped by a panic, which is a bug: please report it")
    }

    pub fn usage(message: impl Into<String>) -> Self {
        Self::new(Exit::Usage, "usage", message)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.about {
            Some(about) => write!(f, "{about}: {}", self.message),
            None => f.write_str(&self.message),
        }
    }
}

/// The cause of an I/O error in plain words, without the number that the standard library appends.
pub fn cause(error: &std::io::Error) -> String {
    let text = error.to_string();
    match text.find(" (os error") {
        Some(end) => text[..end].to_lowercase(),
        None => text,
    }
}
