//! Log lines on standard error: a level, a stable code, a message.

use std::fmt;
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

/// The line of an input that a log line is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct About {
    /// The input, the line's number and its first byte.
    pub place: String,
    pub operation_id: Option<String>,
    pub correlation_id: Option<String>,
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
    #[serde(skip_serializing_if = "Option::is_none")]
    operation_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    correlation_id: Option<&'a str>,
}

impl Log {
    pub fn error(&self, code: &str, message: impl AsRef<str>) {
        self.line("error", code, None, message.as_ref());
    }

    /// An error that may be about one line.
    pub fn error_about(&self, code: &str, about: Option<&About>, message: &str) {
        self.line("error", code, about, message);
    }

    pub fn warning(&self, code: &str, message: impl AsRef<str>) {
        if !self.quiet {
            self.line("warning", code, None, message.as_ref());
        }
    }

    pub fn warning_about(&self, code: &str, about: &About, message: &str) {
        if !self.quiet {
            self.line("warning", code, Some(about), message);
        }
    }

    /// What is no warning, and explains what would surprise without it.
    pub fn notice(&self, code: &str, message: impl AsRef<str>) {
        if !self.quiet {
            self.line("info", code, None, message.as_ref());
        }
    }

    pub fn info(&self, code: &str, message: impl AsRef<str>) {
        if self.verbose && !self.quiet {
            self.line("info", code, None, message.as_ref());
        }
    }

    fn line(&self, level: &'static str, code: &str, about: Option<&About>, message: &str) {
        print(&match self.format {
            LogFormat::Text => {
                let about = about.map_or_else(String::new, |about| format!("{about}: "));
                format!("dedupd: {level}[{code}]: {about}{message}\n")
            }
            LogFormat::Json => {
                let message = about.map_or_else(|| message.to_owned(), |about| format!("{}: {message}", about.place));
                let operation_id = about.and_then(|about| about.operation_id.as_deref());
                let correlation_id = about.and_then(|about| about.correlation_id.as_deref());
                let line = Line { level, code, message: &message, operation_id, correlation_id };
                serde_json::to_string(&line).map_or_else(|_| String::new(), |line| line + "\n")
            }
        });
    }
}

/// The IDs are from outside, so what could move a cursor, end the line or end the quotes is escaped.
impl fmt::Display for About {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.place)?;
        for (what, id) in [("operation", &self.operation_id), ("correlation", &self.correlation_id)] {
            if let Some(id) = id {
                write!(f, ", {what} {id:?}")?;
            }
        }
        Ok(())
    }
}

/// Writes to standard error in one piece. When that fails there is nobody left to tell.
pub fn print(text: &str) {
    let _ = std::io::stderr().write_all(text.as_bytes());
}
