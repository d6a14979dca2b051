//! A process that runs a pipeline and dies: what it does.

pub mod audit;
pub mod journal;
pub mod plan;

use std::borrow::Cow;
use std::fs::File;
use std::io::Write as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use dedupd::sink::{Guarantees, Idempotency, Sink, SinkError};
use dedupd::{Deduplicator, Event, NdjsonSink, Pipeline, Settled, Tee};

use self::journal::{Journal, Word};
use self::plan::{Fault, Gap, Mode, Plan, QUEUE, SOURCE, Shape, Way, id, line};

/// What the parts of a child share.
struct Life {
    plan: Plan,
    journal: Journal,
    /// How many events were submitted.
    submitted: AtomicU64,
    /// How many callbacks were called.
    told: AtomicU64,
    /// Nothing more comes.
    is_over: AtomicBool,
}

/// Does what `plan` says.
pub fn live(plan: Plan) {
    let journal = Journal::open(&plan.journal);
    let counts = || AtomicU64::new(0);
    let (submitted, told) = (counts(), counts());
    let life = Arc::new(Life { plan, journal, submitted, told, is_over: AtomicBool::new(false) });
    let pipeline = start(&life);
    let next = |settled: Option<u64>| settled.map_or(0, |position| position + 1);
    let begin = next(pipeline.settled(SOURCE));
    life.journal.say(Word::Begun(begin));
    let mut settled = begin;
    life.submit(&pipeline, begin.max(next(life.plan.acknowledged)), &mut settled);
    life.is_over.store(true, Ordering::Relaxed);
    let stats = pipeline.drain().expect("drained");
    assert!(stats.balances() && stats.in_flight == 0, "{stats:?}");
    life.say_settled(&pipeline, &mut settled);
}

fn start(life: &Arc<Life>) -> Pipeline {
    let plan = &life.plan;
    let builder = Deduplicator::builder().window(Duration::from_secs(24 * 3600)).durability(plan.level.durability());
    // A process that another test starts has the lock until it runs its own program.
    let dedup = builder.lock_timeout(Duration::from_secs(10)).open(plan.dir.join("state")).expect("a state");
    let sink = |number: usize| Doomed {
        inner: NdjsonSink::file(plan.dir.join(plan.shape.files()[number])).expect("a file"),
        life: Arc::clone(life),
        path: plan.dir.join(plan.shape.files()[number]),
        is_chosen: plan.shape.files().len() == 1 || plan.branch == number,
        seen: 0,
    };
    let builder = Pipeline::builder(dedup).queue_events(QUEUE);
    let builder = match plan.shape {
        Shape::One => builder.sink(sink(0)),
        Shape::Lane => builder.sink(sink(0)).workers(2),
        Shape::Each => {
            let mut number = 0..2;
            builder.sink_with(|| sink(number.next().expect("two")), 2).workers(2)
        }
        Shape::Tee => builder.sink(Tee::new().with(sink(0)).with(sink(1))),
    };
    let mode = plan.runs();
    let pipeline = builder.delivery(mode.delivery()).start().expect("started");
    assert_eq!(pipeline.delivery(), mode.delivery());
    pipeline
}

impl Life {
    /// Submits the stream from `begin` on.
    fn submit(self: &Arc<Self>, pipeline: &Pipeline, begin: u64, settled: &mut u64) {
        let mut producer = pipeline.producer();
        let until = self.plan.until.unwrap_or(begin + TOO_FAR);
        let mut positions = begin..until;
        while !positions.is_empty() {
            let say = |position: u64| self.journal.say(Word::Submitting(position));
            match self.plan.way {
                Way::Batches => {
                    let batch: Vec<_> = positions.by_ref().take(BATCH).inspect(|position| say(*position)).collect();
                    let lines: Vec<_> = batch.iter().map(|position| (id(*position), line(*position))).collect();
                    let events = batch.iter().zip(&lines);
                    let events = events.map(|(at, (id, line))| Event::new(id, line).with_position(SOURCE, *at));
                    producer.submit_batch(&events.collect::<Vec<_>>()).expect("submitted");
                    self.submitted.fetch_add(batch.len() as u64, Ordering::Relaxed);
                }
                way => {
                    let Some(position) = positions.next() else { break };
                    say(position);
                    let (id, line) = (id(position), line(position));
                    let event = Event::new(&id, &line).with_position(SOURCE, position);
                    let life = Arc::clone(self);
                    let tell = move |settled| life.tell(position, settled);
                    let submitted = match way {
                        Way::OneByOne => pipeline.submit_with(event, tell),
                        _ => producer.submit_with(event, tell),
                    };
                    submitted.expect("submitted");
                    self.submitted.fetch_add(1, Ordering::Relaxed);
                }
            }
            self.say_settled(pipeline, settled);
            if self.plan.gap == Gap::AfterSettled && *settled > begin + self.plan.count {
                self.die();
            }
        }
        assert!(self.plan.until.is_some(), "it never came to where it was to die: {:?}", self.plan);
    }

    /// The source is told what is settled.
    fn say_settled(&self, pipeline: &Pipeline, settled: &mut u64) {
        let now = pipeline.settled(SOURCE).map_or(0, |position| position + 1);
        if now != *settled {
            self.journal.say(Word::Settled(now));
            *settled = now;
        }
    }

    fn tell(&self, position: u64, settled: Settled) {
        if self.told.fetch_add(1, Ordering::Relaxed) >= self.plan.count && self.plan.gap == Gap::AfterCommit {
            self.die();
        }
        self.journal.say(match settled {
            Settled::Delivered => Word::Delivered(position),
            Settled::Duplicate => Word::Duplicate(position),
            other => panic!("{other:?} without a dead letter"),
        });
    }

    fn die(&self) -> ! {
        self.journal.say(Word::Dying);
        // SAFETY: no memory is touched.
        unsafe { libc::kill(libc::getpid(), libc::SIGKILL) };
        loop {
            std::thread::park();
        }
    }
}

/// Writes to a file until it is where it is to die.
struct Doomed {
    inner: NdjsonSink,
    life: Arc<Life>,
    path: PathBuf,
    is_chosen: bool,
    seen: u64,
}

impl Doomed {
    /// Waits until so many more are submitted, or nothing comes.
    fn wait_for_more(&self, events: u64, tries: u32) {
        let submitted = || self.life.submitted.load(Ordering::Relaxed);
        let until = submitted() + events;
        // The pipeline may be full.
        for _ in 0..tries {
            if submitted() >= until || self.life.is_over.load(Ordering::Relaxed) {
                break;
            }
            std::thread::yield_now();
        }
    }

    fn deliver_and_die(&mut self, batch: &[Event<'_>]) -> Result<(), SinkError> {
        let half = batch.len() / 2;
        match self.life.plan.gap {
            Gap::BeforeReserve => self.wait_for_more(20, 10_000),
            Gap::InBatch => self.inner.deliver(&batch[..half])?,
            Gap::InLine => {
                self.inner.deliver(&batch[..half])?;
                let line = batch[half].payload();
                let mut file = File::options().append(true).open(&self.path).expect("the file");
                file.write_all(&line[..line.len() / 2]).expect("half a line");
            }
            Gap::AfterDeliver => self.inner.deliver(batch)?,
            _ => {}
        }
        self.life.die()
    }
}

impl Sink for Doomed {
    fn deliver(&mut self, batch: &[Event<'_>]) -> Result<(), SinkError> {
        self.seen += batch.len() as u64;
        let plan = &self.life.plan;
        let dies_here = match plan.gap {
            Gap::BeforeReserve | Gap::BeforeDeliver | Gap::InLine | Gap::AfterDeliver => true,
            Gap::InBatch => batch.len() > 1,
            Gap::AfterCommit | Gap::AfterSettled | Gap::Anywhere | Gap::Nowhere => false,
        };
        if dies_here && self.is_chosen && self.seen > plan.count {
            return self.deliver_and_die(batch);
        }
        // As slow as a sink is that others wait for, so that there are batches.
        self.wait_for_more(1 + self.seen % 40, 200);
        match plan.fault {
            Fault::Skips => {
                let kept = batch.iter().filter(|event| event.position().is_none_or(|position| position % 10 != 0));
                self.inner.deliver(&kept.copied().collect::<Vec<_>>())
            }
            _ => self.inner.deliver(batch),
        }
    }

    fn flush(&mut self) -> Result<(), SinkError> {
        self.inner.flush()
    }

    fn guarantees(&self) -> Guarantees {
        let mut guarantees = self.inner.guarantees();
        if self.life.plan.runs() == Mode::AtLeast {
            // The strongest mode would be in force.
            guarantees.idempotency = Idempotency::None;
        }
        guarantees
    }

    fn name(&self) -> Cow<'_, [u8]> {
        self.inner.name()
    }

    fn position(&mut self) -> Result<Option<Vec<u8>>, SinkError> {
        self.inner.position()
    }

    fn resume(&mut self, position: Option<&[u8]>) -> Result<(), SinkError> {
        if self.life.plan.fault == Fault::KeepsAll { Ok(()) } else { self.inner.resume(position) }
    }
}

/// So far nobody goes who is to be killed on the way.
const TOO_FAR: u64 = 1_000_000;
const BATCH: usize = 37;
