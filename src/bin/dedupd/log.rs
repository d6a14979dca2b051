//! Log lines on standard error: a level, a stable code, a message.

use std::io::Write;

use clap::ValueEnum;
use serde::Serialize;

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// `dedupd: warning[late]: message`
    #[default]
    Text,
    /// `{"level":"warning","code":"late","message":"message"}`
    Json,
}

/// Where warnings and errors go. Copied freely; it holds no more than how to print.
#[derive(Clone, Copy, Debug)]
pub struct Log {
    pub format: LogFormat,
    /// Nothing but errors.
    pub quiet: bool,
    /// Also what is not a warning.
    pub verbose: bool,
}

#[derive(Serialize)]
struct Line<'a> {
    level: &'static str,
    code: &'a str,
    message: &'a str,
}

impl Log {
    pub fn error(&self, code: &str, message: impl AsRef<str>) {
        self.line("error", code, message.as_ref());
    }

    pub fn warning(&self, code: &str, message: impl AsRef<str>) {
        if !self.quiet {
            self.line("warning", code, message.as_ref());
        }
    }

    /// What is no warning, and explains what would surprise without it.
    pub fn notice(&self, code: &str, message: impl AsRef<str>) {
        if !self.quiet {
            self.line("info", code, message.as_ref());
        }
    }

    pub fn info(&self, code: &str, message: impl AsRef<str>) {
        if self.verbose && !self.quiet {
            self.line("info", code, message.as_ref());
        }
    }

    fn line(&self, level: &'static str, code: &str, message: &str) {
        print(&match self.format {
            LogFormat::Text => format!("dedupd: {level}[{code}]: {message}\n"),
            LogFormat::Json => {
                serde_json::to_string(&Line { level, code, message }).map_or_else(|_| String::new(), |line| line + "\n")
            }
        });
    }
}

/// Writes to standard error in one piece. When that fails there is nobody left to tell.
pub fn print(text: &str) {
    let _ = std::io::stderr().write_all(text.as_bytes());
}
