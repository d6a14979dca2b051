//! When a position is settled, and what has to be on disk before. Goal: nothing counts as settled that a process which dies
//! at that moment would leave undone. Method: sinks that do as they are told, and the order of what they and the callbacks note.

use std::io::Write as _;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use dedupd::pipeline::SubmitError;
use dedupd::sink::{ClosureSink, Durable, FailureClass, Guarantees, Idempotency, Order, Sink, SinkError};
use dedupd::{Deduplicator, Delivery, Durability, Event, HashRing, ManualClock, NdjsonSink, Pipeline, Settled};

fn state(dir: &tempfile::TempDir, durability: Durability) -> Deduplicator {
    let builder = Deduplicator::builder().durability(durability).lock_timeout(Duration::from_secs(10));
    builder.open(dir.path().join("state")).expect("a state")
}

#[test]
fn a_drain_does_not_wait_for_the_disk_for_ever() {
    let dir = tempfile::tempdir().expect("a directory");
    let dedup = state(&dir, Durability::Interval(Duration::from_secs(3600)));
    let pipeline = Pipeline::builder(dedup).sink(ClosureSink::new(|_: &[Event<'_>]| Ok(()))).start().expect("started");
    let (told, settled) = channel();
    pipeline
        .submit_with(Event::new("a", "").with_position("s", 7), move |how| told.send(how).expect("heard"))
        .expect("taken");
    let (done, drained) = channel();
    std::thread::spawn(move || {
        done.send((pipeline.drain().expect("drained"), pipeline.settled("s"))).expect("heard");
    });
    let (stats, position) = drained.recv_timeout(LONG).expect("it drains");
    assert_eq!((stats.delivered, position, settled.recv()), (1, Some(7), Ok(Settled::Delivered)));
}

#[test]
fn where_a_file_begins_is_committed_before_anything_stands_in_it() {
    for durability in [Durability::Process, Durability::default(), Durability::PowerLoss] {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("out");
        let dedup = state(&dir, durability);
        let sink = || NdjsonSink::file(&path).expect("a file");
        let name = sink().name().into_owned();
        let pipeline = Pipeline::builder(dedup.clone()).sink(sink()).start().expect("started");
        assert_eq!(pipeline.delivery(), Delivery::ExactlyOnce);
        let begin = dedup.progress().sink(&name).expect("committed").to_vec();
        // What a process leaves that dies before its first commit.
        std::fs::File::options().append(true).open(&path).expect("opened").write_all(b"half a li").expect("written");
        sink().resume(Some(&begin)).expect("it goes on");
        assert_eq!(std::fs::read(&path).expect("read"), b"");
    }
}

#[test]
fn how_far_a_source_is_settled_is_recorded_also_when_nothing_more_comes() {
    for durability in [Durability::Process, Durability::Interval(SOON), Durability::PowerLoss] {
        let dir = tempfile::tempdir().expect("a directory");
        let dedup = state(&dir, durability);
        let sink = ClosureSink::new(|_: &[Event<'_>]| Ok(()));
        let pipeline = Pipeline::builder(dedup.clone()).sink(sink).start().expect("started");
        for position in 0..3_u64 {
            pipeline.submit(Event::new(&position.to_be_bytes(), "").with_position("s", position)).expect("taken");
        }
        let recorded = || dedup.progress().source("s") == Some(&2_u64.to_be_bytes());
        until("it is recorded", recorded);
        assert_eq!(pipeline.settled("s"), Some(2));
    }
}

#[test]
fn a_position_is_settled_only_after_those_below_it_in_its_batch() {
    let two = Two::start();
    // The first worker takes one event, holds the next, and has no room for the others, so the second is not fed.
    let ids: Vec<String> = (0..12).map(|number| two.id(u64::from(number == 0), &format!("{number}"))).collect();
    let pipeline = Arc::clone(&two.pipeline);
    let submitting = std::thread::spawn(move || {
        let payload = |position| if position == 2 { "wait" } else { "" };
        let events = (0..).zip(&ids).map(|(at, id)| Event::new(id, payload(at)).with_position("s", at));
        pipeline.submit_batch(&events.collect::<Vec<_>>())
    });
    until("one is delivered", || two.pipeline.stats().delivered > 0);
    let tries = || two.pipeline.stats().failed_attempts;
    let before = tries();
    until("the worker has been round again, and has told what is settled", || tries() > before + 1);
    assert_eq!(two.pipeline.settled("s"), None, "position 0 is with nobody");
    two.then.store(GO, Ordering::Relaxed);
    submitting.join().expect("no panic").expect("taken");
    two.pipeline.drain().expect("drained");
    assert_eq!(two.pipeline.settled("s"), Some(11));
}

#[test]
fn a_position_that_a_broken_worker_refused_is_not_passed_over() {
    let two = Two::start();
    let ids = [two.id(1, "broken"), two.id(0, "whole")];
    two.then.store(BREAK, Ordering::Relaxed);
    two.pipeline.submit(Event::new(&ids[0], "wait")).expect("taken");
    until("it is broken", || two.pipeline.submit(Event::new(&ids[0], "")) == Err(SubmitError::Poisoned));
    let event = |index: usize, source| Event::new(&ids[index], "").with_position(source, index as u64);
    assert_eq!(two.pipeline.submit(event(0, "one")), Err(SubmitError::Poisoned));
    two.pipeline.submit(event(1, "one")).expect("taken");
    let refused = two.pipeline.submit_batch(&[event(0, "batch"), event(1, "batch")]).expect_err("refused");
    assert_eq!(refused.refused, [0]);
    let mut producer = two.pipeline.producer();
    assert_eq!(producer.submit(event(0, "producer")), Err(SubmitError::Poisoned));
    let (told, settled) = channel();
    producer.submit_with(event(1, "producer"), move |_| told.send(()).expect("heard")).expect("taken");
    settled.recv_timeout(LONG).expect("told");
    for source in ["one", "batch", "producer"] {
        assert_eq!(two.pipeline.settled(source), None, "{source}: position 0 was not taken");
    }
}

#[test]
fn a_dead_letter_is_on_disk_before_its_id_is_committed() {
    /// Notes what becomes of it.
    struct Dead(Arc<Mutex<Vec<&'static str>>>);
    impl Sink for Dead {
        fn deliver(&mut self, _: &[Event<'_>]) -> Result<(), SinkError> {
            self.0.lock().expect("whole").push("delivered");
            Ok(())
        }

        fn flush(&mut self) -> Result<(), SinkError> {
            self.0.lock().expect("whole").push("flushed");
            Ok(())
        }

        fn guarantees(&self) -> Guarantees {
            Guarantees::new(Idempotency::None, Order::AsDelivered, Durable::AfterFlush)
        }
    }
    for (durability, sinks) in [Durability::Interval(Duration::from_millis(1)), Durability::PowerLoss]
        .into_iter()
        .flat_map(|durability| [(durability, 1), (durability, 2)])
    {
        let dir = tempfile::tempdir().expect("a directory");
        let (notes, noted): (Arc<Mutex<Vec<_>>>, Arc<Mutex<Vec<_>>>) = Default::default();
        let (seen, note) = (Arc::clone(&notes), Arc::clone(&noted));
        let refuse = |batch: &[Event<'_>]| Err(SinkError::rest(0..batch.len(), FailureClass::Permanent));
        let builder = Pipeline::builder(state(&dir, durability)).dead_letter(Dead(Arc::clone(&notes)));
        let builder = (0..sinks).fold(builder, |builder, _| builder.sink(ClosureSink::new(refuse)));
        let pipeline = builder.start().expect("started");
        let tell = move |_| note.lock().expect("whole").extend(seen.lock().expect("whole").iter().copied());
        pipeline.submit_with(Event::new("a", ""), tell).expect("taken");
        assert_eq!(pipeline.drain().expect("drained").dead_lettered, 1);
        assert_eq!(**noted.lock().expect("whole"), ["delivered", "flushed"], "{durability:?}, {sinks} sinks");
    }
}

/// A pipeline of two workers, whose sinks do as they are told with events that say `wait`.
struct Two {
    pipeline: Arc<Pipeline>,
    dedup: Deduplicator,
    then: Arc<AtomicU8>,
}

impl Two {
    fn start() -> Self {
        let dedup = Deduplicator::builder().build().expect("a set");
        let then = Arc::new(AtomicU8::new(WAIT));
        let sink = || {
            let then = Arc::clone(&then);
            ClosureSink::new(move |batch: &[Event<'_>]| {
                let told = (0..).zip(batch).filter(|(_, event)| event.payload() == b"wait");
                let told: Vec<usize> = told.map(|(index, _)| index).collect();
                match then.load(Ordering::Relaxed) {
                    _ if told.is_empty() => Ok(()),
                    WAIT => Err(SinkError::new(told.into_iter().map(|index| (index, FailureClass::Defer(SOON))))),
                    BREAK => panic!("on purpose"),
                    _ => Ok(()),
                }
            })
        };
        let builder = Pipeline::builder(dedup.clone()).sink_with(sink, 2).workers(2).queue_events(2).held(1, 1 << 20);
        Self { pipeline: Arc::new(builder.start().expect("started")), dedup, then }
    }

    /// An ID for this worker.
    fn id(&self, worker: u64, name: &str) -> String {
        let ring = HashRing::new(0..2).expect("two");
        let mut ids = (0..).map(|number| format!("{name} {number}"));
        ids.find(|id| ring.owner_of(self.dedup.fingerprint(id)) == worker).expect("there are many")
    }
}

/// Waits for it.
fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let end = Instant::now() + LONG;
    while !is_so() {
        assert!(Instant::now() < end, "never: {what}");
        std::thread::yield_now();
    }
}

const WAIT: u8 = 0;
const GO: u8 = 1;
const BREAK: u8 = 2;
const SOON: Duration = Duration::from_millis(1);
/// Nothing here takes so long.
const LONG: Duration = Duration::from_secs(60);

/// Remembers positions, and can be cut back.
#[derive(Clone, Default)]
struct CutBack(Arc<Mutex<Vec<u64>>>);

impl Sink for CutBack {
    fn deliver(&mut self, batch: &[Event<'_>]) -> Result<(), SinkError> {
        self.0.lock().unwrap().extend(batch.iter().map(|event| event.position().unwrap()));
        Ok(())
    }
    fn guarantees(&self) -> Guarantees {
        Guarantees::new(Idempotency::CutBack, Order::AsDelivered, Durable::OnDelivery)
    }
    fn position(&mut self) -> Result<Option<Vec<u8>>, SinkError> {
        Ok(Some(self.0.lock().unwrap().len().to_string().into_bytes()))
    }
    fn resume(&mut self, position: Option<&[u8]>) -> Result<(), SinkError> {
        let length = position.map_or(0, |at| std::str::from_utf8(at).unwrap().parse().unwrap());
        self.0.lock().unwrap().truncate(length);
        Ok(())
    }
}

#[test]
fn exactly_once_holds_also_after_the_window() {
    let dir = tempfile::tempdir().unwrap();
    let (state, image) = (dir.path().join("state"), dir.path().join("image"));
    let clock = ManualClock::new();
    let hour = Duration::from_secs(3600);
    let open = |path: &std::path::Path| {
        let builder = Deduplicator::builder().window(hour).durability(Durability::Process).clock(clock.clone());
        builder.open(path).unwrap()
    };
    let sink = CutBack::default();
    let pipeline = Pipeline::builder(open(&state)).sink(sink.clone()).start().unwrap();
    assert_eq!(pipeline.delivery(), Delivery::ExactlyOnce);
    for position in 0..10 {
        let (told, settled) = std::sync::mpsc::channel();
        let id = format!("evt_{position}");
        let event = Event::new(&id, "").with_position("s", position);
        pipeline.submit_with(event, move |_| told.send(()).unwrap()).unwrap();
        settled.recv().unwrap();
    }
    assert_eq!(pipeline.settled("s"), Some(9));
    // What a process leaves that is killed now.
    std::fs::create_dir(&image).unwrap();
    for entry in std::fs::read_dir(&state).unwrap() {
        let entry = entry.unwrap();
        if entry.file_name() != "LOCK" {
            std::fs::copy(entry.path(), image.join(entry.file_name())).unwrap();
        }
    }
    let out = CutBack(Arc::new(Mutex::new(sink.0.lock().unwrap().clone())));
    drop(pipeline);
    clock.advance(hour * 2);
    let pipeline = Pipeline::builder(open(&image)).sink(out.clone()).start().unwrap();
    let next = pipeline.settled("s").map_or(0, |at| at + 1);
    for position in next..12 {
        let id = format!("evt_{position}");
        pipeline.submit(Event::new(&id, "").with_position("s", position)).unwrap();
    }
    pipeline.drain().unwrap();
    assert_eq!(*out.0.lock().unwrap(), (0..12).collect::<Vec<_>>());
}
