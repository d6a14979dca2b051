//! Writes webhook-like NDJSON events to stdout, and the answer for them to a file.
//!
//! ```text
//! cargo run --release --example gen -- --events 1000000 --unique 0.7 > events.ndjson
//! ```

mod events;

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::PathBuf;

use clap::Parser;
use events::{Answer, Generator, IdPlace, Options, Shape};

/// Writes webhook-like NDJSON events to stdout. The same options give the same bytes on every machine.
#[derive(Parser)]
struct Args {
    /// How many lines.
    #[arg(long, default_value_t = 1_000)]
    events: u64,
    /// What the lines are made from.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// The share of lines that are first-seen, of those that are not bad.
    #[arg(long, default_value_t = 0.7)]
    unique: f64,
    /// The share of repeats whose bytes differ from the first delivery.
    #[arg(long, default_value_t = 0.5)]
    changed: f64,
    /// The share of lines that cannot be judged.
    #[arg(long, default_value_t = 0.0)]
    bad: f64,
    /// The share of events with escapes, letters that are not ASCII, and what else is rare.
    #[arg(long, default_value_t = 0.2)]
    unusual: f64,
    /// The mean length of a line, newline included.
    #[arg(long, default_value_t = 432)]
    bytes: usize,
    /// Where the id stands in its object.
    #[arg(long, default_value = "mixed")]
    id: IdPlace,
    /// Whose events they look like.
    #[arg(long, default_value = "mixed")]
    shape: Shape,
    /// Write the numbers of the first-seen lines here, from 1, one to a line.
    #[arg(long, value_name = "FILE")]
    answer: Option<PathBuf>,
}

fn main() -> io::Result<()> {
    let args = Args::parse();
    let mut generator = Generator::new(Options {
        seed: args.seed,
        unique: args.unique,
        changed: args.changed,
        bad: args.bad,
        unusual: args.unusual,
        bytes: args.bytes,
        id: args.id,
        shape: args.shape,
    });
    let mut answer: Box<dyn Write> = match &args.answer {
        Some(path) => Box::new(BufWriter::new(File::create(path)?)),
        None => Box::new(io::sink()),
    };
    let mut out = io::stdout().lock();
    let mut lines = Vec::with_capacity(BUFFER_BYTES + 64 * args.bytes);
    for number in 1..=args.events {
        if generator.append_line(&mut lines) == Answer::FirstSeen {
            writeln!(answer, "{number}")?;
        }
        if lines.len() >= BUFFER_BYTES {
            out.write_all(&lines)?;
            lines.clear();
        }
    }
    out.write_all(&lines)?;
    answer.flush()
}

const BUFFER_BYTES: usize = 1 << 18;
