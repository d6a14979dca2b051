//! An own loop: reserve a batch of IDs, do the work, commit what was done.
//!
//! ```text
//! cargo run --example own_loop
//! ```
//!
//! For programs that have their own threads and their own idea of a retry. What is reserved is nobody else's; what is committed is a
//! duplicate from then on; what is dropped instead is first-seen again.

use std::error::Error;
use std::path::Path;
use std::time::Duration;

use dedupd::{Deduplicator, Durability, Progress, ReserveVerdict};

/// A job: its ID, and what it costs.
type Job = (String, u64);

/// Jobs of a file that was sent twice: the second half is the first again.
fn jobs() -> Vec<Job> {
    (0..200).map(|line| (format!("job_{}", line % 100), line % 100)).collect()
}

/// The work. Each tenth job fails at the first try.
fn work(job: &Job, tries: u32, paid: &mut u64) -> Result<(), &'static str> {
    if job.1 % 10 == 7 && tries == 0 {
        return Err("the bank is closed");
    }
    *paid += job.1;
    Ok(())
}

/// Does all jobs that are not done yet. Returns how many it did, and how many failed.
fn pay_all(state: &Path, tries: u32, paid: &mut u64) -> Result<(usize, usize), Box<dyn Error>> {
    let dedup =
        Deduplicator::builder().window(Duration::from_secs(24 * 3600)).durability(Durability::PowerLoss).open(state)?;
    let jobs = jobs();
    let (mut done, mut failed) = (0, 0);
    for (number, batch) in jobs.chunks(16).enumerate() {
        let ids: Vec<&str> = batch.iter().map(|job| job.0.as_str()).collect();
        let mut reserved = dedup.reserve_batch(&ids)?;
        let mut unpaid = Vec::new();
        for (job, verdict) in batch.iter().zip(reserved.verdicts()) {
            match verdict {
                ReserveVerdict::FirstSeen => match work(job, tries, paid) {
                    Ok(()) => done += 1,
                    Err(_) => unpaid.push(dedup.fingerprint(&job.0)),
                },
                // `InFlight` would be another thread's, which commits it or gives it back.
                ReserveVerdict::Duplicate | ReserveVerdict::InFlight => {}
                unjudged => return Err(format!("{unjudged:?}").into()),
            }
        }
        failed += unpaid.len();
        // What failed is taken out and dropped: it is first-seen when it comes again.
        drop(reserved.split(|id| unpaid.contains(&id)));
        let mut progress = Progress::new();
        progress.set_source("jobs.csv", (number + 1).to_string());
        // The ids and how far the file was read, all or nothing, on disk when this returns.
        reserved.try_commit(&progress)?;
    }
    dedup.close()?;
    Ok((done, failed))
}

fn main() -> Result<(), Box<dyn Error>> {
    let state = tempfile::tempdir()?;
    let mut paid = 0;
    for run in 0..3 {
        let (done, failed) = pay_all(state.path(), run, &mut paid)?;
        println!("run {}: {done} jobs done, {failed} tries failed", run + 1);
    }
    println!("each job was paid once: {}", paid == (0..100).sum());
    Ok(())
}
