//! A process that keeps a state and is killed. A test starts itself as a child, whose threads say on a pipe what they are
//! about to do and what was done; the parent keeps the books, kills it at random, and asks the state about every ID.

use std::collections::HashMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use dedupd::{Deduplicator, Durability, Error, Progress, Verdict};

const CHILD: &str = "DEDUPD_STATE_KILL_CHILD";
const THREADS: u64 = 3;

/// What must be found of an ID.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Known {
    Yes,
    No,
    /// The act on it was not finished.
    Either,
}

/// A number from the environment.
pub fn count(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|count| count.parse().ok()).unwrap_or(default)
}

fn builder(level: &str) -> dedupd::Builder {
    let durability = match level {
        "process" => Durability::Process,
        "interval" | "synced" => Durability::Interval(Duration::from_millis(5)),
        _ => Durability::PowerLoss,
    };
    let builder = Deduplicator::builder().window(Duration::from_secs(24 * 3600)).durability(durability);
    // A process that another test starts has the lock until it runs its own program.
    builder.lock_timeout(Duration::from_secs(10))
}

/// What this process was told, when it is a child.
pub fn told() -> Option<String> {
    std::env::var(CHILD).ok()
}

/// Kills a child that has said something, some milliseconds later, after `first`, which gets its pid. It is this program, made
/// to run `test`, which must call [`child`].
pub fn run_and_kill(test: &str, dir: &Path, level: &str, books: &mut Books, kill: u64, first: impl FnOnce(u32)) {
    let told = format!("{} {level} {}", dir.display(), books.next);
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture", "--test-threads=1"])
        .env(CHILD, told)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let begun = lines.by_ref().map(Result::unwrap).find(|line| line.starts_with("> "));
    let reader = std::thread::spawn(move || lines.map_while(Result::ok).collect::<Vec<_>>());
    // Who waits for the disk each time is slower.
    let slower = if matches!(level, "power-loss" | "synced") { 8 } else { 1 };
    std::thread::sleep(Duration::from_micros(kill.wrapping_add(1).wrapping_mul(7_919) % 30_000 * slower));
    first(child.id());
    child.kill().unwrap();
    child.wait().unwrap();
    books.read(begun.into_iter().chain(reader.join().unwrap()));
}

/// What children have said.
#[derive(Default)]
pub struct Books {
    known: HashMap<u64, Known>,
    /// Per thread: the progress that was recorded for sure, and the one that was begun.
    progress: HashMap<u64, [u64; 2]>,
    /// Ids from here on are new.
    next: u64,
}

impl Books {
    /// Reads what a child said: `> thread act first count` before an act, `< ...` after it.
    fn read(&mut self, lines: impl Iterator<Item = String>) {
        for line in lines {
            let parts: Vec<&str> = line.split(' ').collect();
            let [mark, thread, act, first, count] = parts[..] else { continue };
            let [thread, first, count]: [u64; 3] = [thread, first, count].map(|part| part.parse().unwrap());
            let known = match (mark, act) {
                (">", _) => Known::Either,
                ("<", "forget" | "release") => Known::No,
                _ => Known::Yes,
            };
            for id in first..first + count {
                self.known.insert(id, known);
            }
            if act == "commit" {
                self.progress.entry(thread).or_default()[usize::from(mark == ">")] = first;
            }
            self.next = self.next.max(first + count);
        }
        self.next += 1_000_000;
    }

    /// Whether there is to be another kill after so many: until all `wanted` were made, and then as long as children die before
    /// they have said much, as they do on a slow machine.
    pub fn want_another(&self, kills: u64, wanted: u64) -> bool {
        kills < wanted || !self.have_enough() && kills < wanted * 50
    }

    fn have_enough(&self) -> bool {
        let unsure = self.known.values().filter(|known| **known == Known::Either).count();
        self.known.len() > 100 && unsure < self.known.len() / 2
    }

    pub fn check_that_something_was_tested(&self, level: &str) {
        assert!(self.have_enough(), "{level}: nothing was tested");
    }

    /// Asks the state about all of it.
    pub fn check(&mut self, dir: &Path, level: &str, kill: u64) {
        // Every other time a copy is asked, so that the next child finds the state as the kill left it.
        let copy = tempfile::tempdir().unwrap();
        let asked = if kill.is_multiple_of(2) { dir } else { copy.path() };
        if !kill.is_multiple_of(2) {
            for file in std::fs::read_dir(dir).unwrap() {
                let file = file.unwrap().path();
                std::fs::copy(&file, copy.path().join(file.file_name().unwrap())).unwrap();
            }
        }
        let dedup = builder(level).open(asked).unwrap();
        let is_whole = dedup.recovery().unwrap().loss.as_ref().is_none_or(|loss| loss.frames == 0);
        assert!(is_whole || matches!(level, "power-loss" | "synced"), "a kill makes no holes");
        for (id, known) in &mut self.known {
            let found = if dedup.contains(id.to_le_bytes()) { Known::Yes } else { Known::No };
            assert!(*known == Known::Either || *known == found, "{level}, kill {kill}: id {id} is {found:?}");
            // The next child is to find the same.
            *known = found;
        }
        for id in self.next..self.next + 1_000 {
            assert!(!dedup.contains(id.to_le_bytes()), "{level}, kill {kill}: {id} was never asked");
        }
        for (thread, [done, begun]) in &self.progress {
            let progress = dedup.progress();
            let found = progress.source(thread.to_le_bytes()).map(|at| u64::from_le_bytes(at.try_into().unwrap()));
            let found = found.unwrap_or(0);
            assert!(found == *done || found == *begun, "{level}, kill {kill}: {found}, not {done} or {begun}");
        }
        dedup.close().unwrap();
    }
}

/// Works until it is killed.
pub fn child(told: &str) {
    let [dir, level, next] = told.split(' ').collect::<Vec<_>>()[..] else { panic!("{told}") };
    let next: u64 = next.parse().unwrap();
    let dedup = builder(level).open(dir).unwrap();
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let worker = Worker { dedup: &dedup, thread, syncs: level == "synced" };
            // An error is what a disk without power makes. What was begun is not said to be done then.
            scope.spawn(move || worker.work(next + thread * 1_000_000).unwrap_err());
        }
    });
}

fn say(mark: &str, thread: u64, act: &str, first: u64, count: u64) {
    let line = format!("{mark} {thread} {act} {first} {count}\n");
    // One write of less than a pipe's unit: lines of threads do not mix.
    std::io::stdout().lock().write_all(line.as_bytes()).unwrap();
    std::io::stdout().flush().unwrap();
}

fn ids(first: u64, count: u64) -> Vec<[u8; 8]> {
    (first..first + count).map(u64::to_le_bytes).collect()
}

/// A thread of the child.
struct Worker<'a> {
    dedup: &'a Deduplicator,
    thread: u64,
    /// Whether it waits for the disk before it says that something is done.
    syncs: bool,
}

impl Worker<'_> {
    fn begin(&self, act: &str, first: u64, count: u64) {
        say(">", self.thread, act, first, count);
    }

    fn done(&self, act: &str, first: u64, count: u64) -> Result<(), Error> {
        if self.syncs {
            self.dedup.sync()?;
        }
        say("<", self.thread, act, first, count);
        Ok(())
    }

    fn observe(&self, act: &str, first: u64, count: u64) -> Result<(), Error> {
        let mut verdicts = Vec::new();
        self.begin(act, first, count);
        self.dedup.try_observe_batch(&ids(first, count), &mut verdicts);
        for verdict in verdicts {
            assert_eq!(verdict?, Verdict::FirstSeen);
        }
        self.done(act, first, count)
    }

    /// Acts on ids of its own without end.
    fn work(&self, mut next: u64) -> Result<(), Error> {
        for round in 0_u64.. {
            let first = next;
            let count = 1 + round * round % 300;
            next += count;
            self.observe("batch", first, count)?;
            self.begin("forget", first, 1);
            assert!(self.dedup.forget(first.to_le_bytes())?);
            self.done("forget", first, 1)?;
            if round.is_multiple_of(2) {
                self.observe("again", first, 1)?;
            }

            let first = next;
            next += 30;
            self.begin("single", first, 20);
            for id in ids(first, 20) {
                assert_eq!(self.dedup.try_observe(id)?, Verdict::FirstSeen);
            }
            // Gathered at most a moment ago, and maybe not appended.
            assert!(self.dedup.forget(first.to_le_bytes())?);
            self.done("forget", first, 1)?;
            // What is left of it is appended with this.
            let _ = self.dedup.position();
            self.done("single", first + 1, 19)?;

            self.begin("commit", first + 20, 5);
            let mut reserved = self.dedup.reserve_batch(&ids(first + 20, 5))?;
            let mut progress = Progress::new();
            progress.set_source(self.thread.to_le_bytes(), (first + 20).to_le_bytes());
            reserved.try_commit(&progress)?;
            self.done("commit", first + 20, 5)?;

            self.begin("release", first + 25, 5);
            drop(self.dedup.reserve_batch(&ids(first + 25, 5))?);
            self.done("release", first + 25, 5)?;
        }
        Ok(())
    }
}
