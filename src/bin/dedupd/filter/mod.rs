//! The filter: lines in, first-seen lines out.
//!
//! ```text
//! read (one at a time) -> parse (any number) -> decide, deliver, commit (one at a time, in order)
//! ```
//!
//! All threads run [`Run::work`] and take whichever role is open, the most downstream first; `dedupd::queue` says why.

mod age;
mod books;
mod chunk;
mod commit;
mod control;
mod delivery;
mod fate;
mod feed;
mod fields;
mod follow;
mod input;
mod latency;
mod output;
mod parse;
mod place;
mod position;
mod read;
mod report;
mod room;
mod routes;
mod sibling;
mod signals;
mod source;
mod start;
mod stop;
mod track;
mod trust;
mod warn;
mod watch;
mod write;

use std::io;
use std::panic::{self, AssertUnwindSafe};
use std::sync::mpsc;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Instant;

use dedupd::Deduplicator;
use dedupd::pipeline::Delivery;
use dedupd::queue::{Handoff, Work};
use mio::{Poll, Waker};

use self::age::Ages;
use self::chunk::Chunk;
use self::control::{Control, lock};
pub use self::delivery::choose as choose_delivery;
pub use self::fields::Fields;
use self::output::refuse_collisions;
use self::parse::Parser;
use self::read::{Filled, Reader, WAKER};
use self::report::{Kept, Report, Times};
pub use self::room::{Room, STATE, is_full};
use self::signals::Answer;
use self::source::Sources;
use self::start::Started;
use self::stop::Stop;
use self::write::Writer;
use crate::config::{Config, Input};
use crate::exit::{Exit, Failure, cause};
use crate::log::print;

/// Checks what can be checked before a state is opened or an output made.
pub fn check(config: &Config) -> Result<(), Failure> {
    for input in &config.inputs {
        if let Input::File(path) = input {
            input::check_before(path, config.follow)?;
        }
    }
    refuse_collisions(config)
}

/// Runs the filter to its end; [`check`] comes before.
pub fn run(config: &Config, dedup: &Deduplicator, mut room: Room) -> Result<Exit, Failure> {
    let sources = (config.delivery == Delivery::ExactlyOnce).then(|| Sources::new(&dedup.progress(), config.follow));
    let resumed = sources.as_ref().map(|sources| sources.check(&config.inputs)).transpose()?;
    let (outputs, started) = start::open(config, dedup, &mut room)?;
    if let Some(resumed) = resumed {
        resumed.tell(config.log);
    }
    let poll = Poll::new().map_err(|error| system_failure(&error))?;
    let waker = Waker::new(poll.registry(), WAKER).map_err(|error| system_failure(&error))?;
    let control = Arc::new(Control::new(waker, Ages::new(dedup.window()), room.begin()));
    let line_bytes_max = config.reading.line_bytes_max;
    let (inputs, follow) = (&config.inputs, config.follow);
    let reader = Reader::new(inputs, follow, sources, line_bytes_max, poll, Arc::clone(&control), config.log);
    let run = Run {
        config,
        dedup,
        handoff: Handoff::new((0..config.threads + SPARE_CHUNKS).map(|_| Chunk::default())),
        reader: Mutex::new(reader),
        writer: Mutex::new(Writer::new(config, dedup, Arc::clone(&control), outputs, room, started.ids_bypassed)),
        control,
        found: started,
        started: Instant::now(),
    };
    run.run()
}

/// A run of the filter, as its threads share it.
pub struct Run<'a> {
    config: &'a Config,
    dedup: &'a Deduplicator,
    handoff: Handoff<Chunk>,
    /// Never waited for: the hand-off gives its role to one thread at a time.
    reader: Mutex<Reader>,
    /// Its role, too, is one thread's at a time; the signal thread takes it when nobody has it, and the committing
    /// thread may wait for it, and have it waited for.
    writer: Mutex<Writer<'a>>,
    control: Arc<Control>,
    /// What was found at the start.
    found: Started,
    started: Instant,
}

impl Run<'_> {
    fn run(&self) -> Result<Exit, Failure> {
        let (signals, signals_end) = signals::register().map_err(|error| system_failure(&error))?;
        let (ended, watch_end) = mpsc::channel::<()>();
        thread::scope(|scope| {
            let spawn = |name: String| thread::Builder::new().name(name);
            let answer = || self.guard(|| signals::answer(signals, &self, self.config.drain_timeout, self.config.log));
            // Before any other: without it, signals would do nothing at all.
            let answering = spawn("dedupd-signal-0".to_owned()).spawn_scoped(scope, answer);
            answering.map_err(|error| system_failure(&error))?;
            let mut others = Vec::new();
            if watch::is_wanted(self.config) {
                // Without its thread there is nothing to look at; the events are filtered all the same.
                let watching = spawn("dedupd-watch-0".to_owned())
                    .spawn_scoped(scope, move || self.guard(|| watch::watch(self, self.config, &watch_end)));
                others.extend(watching);
            }
            if self.config.state.is_some_and(|state| state.collects()) {
                let committing = || self.guard(|| self.commit_when_due());
                match spawn("dedupd-commit-0".to_owned()).spawn_scoped(scope, committing) {
                    Ok(committing) => others.push(committing),
                    Err(error) => {
                        signals_end.close();
                        return Err(system_failure(&error));
                    }
                }
            }
            let workers: Vec<_> = (1..self.config.threads)
                .map_while(|n| {
                    spawn(format!("dedupd-worker-{n}")).spawn_scoped(scope, || self.guard(|| self.work())).ok()
                })
                .collect();
            self.guard(|| self.work());
            for worker in workers {
                // Its panics are dealt with.
                let _ = worker.join();
            }
            self.control.alarm.end();
            drop(ended);
            for other in others {
                let _ = other.join();
            }
            // While signals are answered still: the last commit may wait for room.
            self.guard(|| {
                if let Err(failure) = lock(&self.writer).end() {
                    self.control.fail(failure);
                }
            });
            signals_end.close();
            Ok(())
        })?;
        self.end()
    }

    /// Does a thread's part. When it panics, which was told where it happened, everybody ends: the others may wait for
    /// this thread, or for input that never comes.
    fn guard(&self, part: impl FnOnce()) {
        if panic::catch_unwind(AssertUnwindSafe(part)).is_err() {
            self.give_up(Failure::panic().into());
        }
    }

    /// A worker's loop.
    fn work(&self) {
        let mut parser = Parser::new(&self.config.reading, self.dedup);
        loop {
            match self.handoff.next() {
                Work::Emit(chunk) => self.write(&chunk),
                Work::Transform(mut chunk) => {
                    parser.parse(&mut chunk);
                    chunk.complete();
                }
                Work::Fill(mut chunk) => match lock(&self.reader).fill(&mut chunk) {
                    Ok(Filled::Chunk) => chunk.submit(),
                    Ok(Filled::End) => chunk.finish(),
                    Err(failure) => {
                        self.control.fail(failure);
                        chunk.finish();
                    }
                },
                Work::Done => break,
            }
        }
    }

    fn write(&self, chunk: &Chunk) {
        let mut writer = lock(&self.writer);
        // The signal thread may have given up just before.
        if !self.handoff.is_closed()
            && let Err(stop) = writer.write(chunk)
        {
            self.give_up(stop);
        }
        drop(writer);
        if self.control.wants_reopen() {
            self.reopen_now();
        }
    }

    /// Opens the output files again, unless somebody is writing, who does it then.
    fn reopen_now(&self) {
        if let Ok(mut writer) = self.writer.try_lock()
            && let Err(stop) = writer.reopen_if_asked()
        {
            self.give_up(stop);
        }
    }

    /// Ends the run when somebody took lines from an output. Whoever writes finds that out as well, so the writer is
    /// not waited for.
    fn check_outputs(&self) {
        if let Ok(writer) = self.writer.try_lock()
            && let Err(failure) = writer.check_outputs()
        {
            self.give_up(failure.into());
        }
        if self.control.wants_reopen() {
            self.reopen_now();
        }
    }

    /// Commits what is out once it has waited long enough. The outputs are synced while others write on.
    fn commit_when_due(&self) {
        while self.control.alarm.wait() {
            let mut commit = lock(&self.writer).begin_commit();
            let synced = commit.sync();
            let mut writer = lock(&self.writer);
            let finished = match synced {
                Ok(()) => writer.finish_commit(&commit),
                Err(failure) => Err(failure.into()),
            };
            // With the writer still held: nobody writes another chunk in between.
            if let Err(stop) = finished {
                self.give_up(stop);
            }
            drop(writer);
            if self.control.wants_reopen() {
                self.reopen_now();
            }
        }
    }

    /// Ends all threads, also the one that waits for input.
    fn give_up(&self, stop: Stop) {
        if let Stop::Failed(failure) = stop {
            self.control.fail(failure);
        }
        self.handoff.close();
        self.control.stop();
    }

    fn end(&self) -> Result<Exit, Failure> {
        if !self.config.log.quiet {
            self.print_report();
        }
        let books = self.control.books();
        if !books.balance() {
            return Err(Failure::new(Exit::Bug, "unbalanced", format!("the books do not balance: {books:?}")));
        }
        match self.control.take_failure() {
            Some(failure) => Err(failure),
            None if books.diverted > 0 => Ok(Exit::Diverted),
            None => Ok(Exit::Done),
        }
    }

    fn print_report(&self) {
        let times =
            Times { ages: lock(&self.control.ages).summary(), latency: lock(&self.control.latencies).summary() };
        let follows = &self.control.follows;
        let kept = Kept { delivery: self.config.delivery, state: self.config.state, started: self.found };
        let report = Report::new(&self.control.books(), self.dedup, times, follows, &kept, self.started.elapsed());
        print(&report.render(self.config.reporting.format));
    }
}

impl Answer for &Run<'_> {
    fn drain(&self) {
        self.control.stop();
    }

    fn report(&self) {
        self.print_report();
    }

    fn reopen(&self) {
        self.control.ask_to_reopen();
        self.reopen_now();
    }
}

fn system_failure(error: &io::Error) -> Failure {
    Failure::new(Exit::Io, "system", format!("cannot start: {}", cause(error)))
}

/// One to be filled while the others are worked on, one to wait its turn.
const SPARE_CHUNKS: usize = 2;

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::fd::AsRawFd;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::time::Duration;

    use clap::Parser as _;
    use dedupd::{Clock, SystemClock, Timestamp};

    use super::*;
    use crate::args::Cli;

    /// Panics when it is asked for the first time.
    #[derive(Debug, Default)]
    struct Broken {
        asked: AtomicBool,
    }

    impl Clock for Broken {
        fn now(&self) -> Timestamp {
            assert!(self.asked.swap(true, Ordering::Relaxed), "on purpose");
            SystemClock::new().now()
        }
    }

    #[test]
    fn a_panic_ends_a_run_whose_input_stays_open() {
        for threads in ["1", "2", "4"] {
            let dir = tempfile::tempdir().expect("a directory");
            let (input, mut to_input) = io::pipe().expect("a pipe");
            let path = format!("/proc/self/fd/{}", input.as_raw_fd());
            let out = dir.path().join("out");
            let cli =
                Cli::parse_from(["dedupd", "-q", "--threads", threads, "-o", out.to_str().expect("UTF-8"), &path]);
            let config = Config::new(&cli.filter).expect("a good command line");
            let dedup = Deduplicator::builder().clock(Broken::default()).housekeeping(false).build().expect("a set");
            let (ended, end) = mpsc::channel();
            let running = thread::spawn(move || {
                let room = Room::new(config.when_disk_full, config.log);
                ended.send(run(&config, &dedup, room).map_err(|failure| failure.exit))
            });
            to_input.write_all(b"{\"id\":1}\n").expect("written");
            assert_eq!(end.recv_timeout(Duration::from_secs(20)), Ok(Err(Exit::Bug)), "{threads} threads");
            running.join().expect("it ends").expect("told");
            assert!(std::fs::read(out).expect("a file").is_empty());
        }
    }
}
