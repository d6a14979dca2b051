//! A filter of one's own: the events of an NDJSON file through a pipeline to standard output, each once.
//!
//! ```text
//! cargo run --release --example ndjson_file tools/sample/events.ndjson > once.ndjson
//! ```
//!
//! Lines without an ID go to standard error: they cannot be judged, and nothing is to be lost. `dedupd` passes them on in their place.
//!
//! For programs that have something to do with each event, or a sink of their own. To filter files there is `dedupd`, which copies
//! no line and reads on all cores; `tools/bench --only filter` compares the two.

use std::error::Error;
use std::fs::File;
use std::io::{self, Read, Write};

use dedupd::decode::{Content, Decoder, KeySpec};
use dedupd::pipeline::SubmitError;
use dedupd::{Deduplicator, Event, NdjsonSink, Pipeline};

fn main() -> Result<(), Box<dyn Error>> {
    let path = std::env::args().nth(1).ok_or("name a file of events")?;
    let dedup = Deduplicator::builder().build()?;
    let pipeline = Pipeline::builder(dedup).sink(NdjsonSink::stdout()).start()?;
    let mut producer = pipeline.producer();
    let (mut decoder, mut bad) = (Decoder::new(KeySpec::default()), 0_u64);
    let mut submit = |lines: &[u8]| {
        let (mut submitted, mut told) = (Ok::<(), SubmitError>(()), io::Result::Ok(()));
        decoder.decode(lines, &mut |record| match record.content {
            Content::Id(id) if submitted.is_ok() => submitted = producer.submit(Event::new(id, record.line)),
            Content::Bad(_) => {
                bad += 1;
                told = io::stderr().write_all(record.line);
            }
            _ => {}
        });
        told.map_err(Box::<dyn Error>::from).and_then(|()| Ok(submitted?))
    };
    let (mut file, mut buffer, mut filled) = (File::open(path)?, vec![0; 256 << 10], 0);
    loop {
        if filled == buffer.len() {
            // A line that does not fit.
            buffer.resize(2 * filled, 0);
        }
        let read = file.read(&mut buffer[filled..])?;
        if read == 0 {
            break;
        }
        filled += read;
        // Only whole lines: the rest of the last one comes with the next read.
        let end = buffer[..filled].iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        submit(&buffer[..end])?;
        buffer.copy_within(end..filled, 0);
        filled -= end;
    }
    submit(&buffer[..filled])?;
    drop(producer);
    let stats = pipeline.drain()?;
    eprintln!("read {}: {} first-seen, {} duplicates, {bad} bad", stats.read, stats.delivered, stats.duplicate);
    Ok(())
}
