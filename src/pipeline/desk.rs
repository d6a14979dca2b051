//! [`Desk`]: everything that a worker has accepted and not finished.
//!
//! An event is in exactly one place: in a *flight* (being delivered), *out* (delivered, to be committed), *held* (failed, to
//! be tried again), *attached* (a repeat that waits for the fate of another), or *given up* (no try will help, and there is no
//! dead letter). Only what is committed leaves the desk: whatever ends a worker, all the rest is found here.
//!
//! ```text
//! intake ─▶ judge ─▶ flight ─▶ land ─▶ out ─▶ commit ─▶ told
//!             │         ▲        │failed          │ wakes
//!             ▼         └─ held ◀┘                ▼
//!         duplicate                attached: all duplicates
//! ```
//!
//! The desk has a lock so that a shutdown whose deadline has passed can clear it while its worker is stuck in a sink. Nobody
//! else wants that lock, and it is not held while a sink delivers.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Shared;
use super::batch::{Batch, Failures, Single};
use super::books::PipelineStats;
use super::channel::{Sender, TrySendError};
use super::commit::{Out, Recorder};
use super::commit_queue::{CommitAt, Flush};
use super::flight::{Failure, Flight};
use super::held::{Attached, Delayed};
use super::ids::Ids;
use super::lane::{Job, Lanes};
use super::repeats::Marked;
use super::settle::{Settled, Tellings, Untold};
use super::stage::{Repeats, Stage};
use crate::dedup::{Error, Reservation};
use crate::event::{Fingerprint, OwnedEvent, Unjudged};

/// Why a worker ends before its time.
#[derive(Debug)]
pub(super) enum Stop {
    /// A shutdown ran out of time.
    Aborted,
    /// Something is broken that is not the log.
    Broken(String),
    /// The state cannot take anything any more.
    Log(Error),
}

pub(super) struct Desk {
    pub(super) shared: Arc<Shared>,
    pub(super) worker: usize,
    /// The sinks, unless the worker delivers itself.
    pub(super) lanes: Option<Vec<Lanes>>,
    pub(super) dead_letter: Option<Lanes>,
    pub(super) flights: HashMap<u64, Flight>,
    next_flight: u64,
    /// Flights that the worker delivers itself, in order.
    ready: VecDeque<u64>,
    /// Jobs that wait for room in a lane, in order.
    pub(super) unsent: VecDeque<(Sender<Job>, Job)>,
    /// A lane takes no more.
    has_lost_lane: bool,
    /// Nothing more is submitted.
    pub(super) is_closing: bool,
    /// Bundles of the pool that are with nobody any more.
    pub(super) gone: usize,
    pub(super) stage: Stage<Out>,
    commit_at: CommitAt,
    /// The worker is to flush its own sink.
    pub(super) own_flush: Option<Flush>,
    pub(super) recorder: Recorder,
    pub(super) delayed: Delayed,
    pub(super) attached: Attached,
    /// When to ask again about what is attached to an ID that is not this pipeline's.
    pub(super) next_poll: Option<Instant>,
    pub(super) given_up: Vec<OwnedEvent>,
    /// What has come and is not judged, in order.
    pub(super) backlog: VecDeque<Single>,
    /// What is being judged: found here when that does not end well.
    pub(super) in_hand: Vec<Single>,
    pub(super) untold: Untold,
    /// For the worker, to be told with no lock held.
    pub(super) tellings: Tellings,
    /// For the worker, to be put back into the pool.
    pub(super) free: Vec<Single>,
    pub(super) books: PipelineStats,
}

impl Desk {
    pub(super) fn new(
        shared: &Arc<Shared>,
        worker: usize,
        lanes: Option<Vec<Lanes>>,
        dead_letter: Option<Lanes>,
        commit_at: CommitAt,
        recorder: Recorder,
    ) -> Self {
        // With lanes each job is flushed.
        let is_flushed = lanes.is_some() && commit_at == CommitAt::Synced;
        Self {
            shared: Arc::clone(shared),
            worker,
            lanes,
            dead_letter,
            flights: HashMap::new(),
            next_flight: 0,
            ready: VecDeque::new(),
            unsent: VecDeque::new(),
            has_lost_lane: false,
            is_closing: false,
            gone: 0,
            stage: Stage::new(
                &shared.dedup,
                shared.delivery,
                if is_flushed { CommitAt::Once } else { commit_at },
                Repeats::Wait,
            )
            .one_of(shared.intakes.len()),
            commit_at,
            own_flush: None,
            recorder,
            delayed: Delayed::default(),
            attached: Attached::default(),
            next_poll: None,
            given_up: Vec::new(),
            backlog: VecDeque::new(),
            in_hand: Vec::new(),
            untold: Untold::default(),
            tellings: Tellings::default(),
            free: Vec::new(),
            books: PipelineStats::default(),
        }
    }

    /// Does all that is due at `now`.
    pub(super) fn advance(&mut self, now: Instant) -> Result<(), Stop> {
        self.take_landings()?;
        self.send();
        if self.has_lost_lane {
            return Err(Stop::Broken("the thread of a sink has ended".to_owned()));
        }
        // What has landed just now is due by then.
        self.commit_when_due(Instant::now())?;
        self.tell_durable();
        self.record_when_due(now)?;
        if self.attached.is_empty() {
            self.next_poll = None;
        } else if *self.next_poll.get_or_insert(now + POLL) <= now {
            // The more there are, the more rarely: asking costs, and most wait for something of this worker's own.
            self.next_poll = Some(now + POLL * (1 + self.attached.len() as u32 / 256));
            self.ask_attached()?;
        }
        self.retry(now);
        Ok(())
    }

    /// When something will be due, if nothing comes.
    pub(super) fn next_due(&self) -> Option<Instant> {
        let untold = (!self.untold.is_empty()).then(|| Instant::now() + POLL / 4);
        let dues = [self.delayed.next_due(), self.stage.due(), self.recorder.look_due(), self.next_poll, untold];
        dues.into_iter().flatten().min()
    }

    /// Whether more may be taken in.
    pub(super) fn has_room(&mut self) -> bool {
        let limits = &self.shared.limits;
        let held = self.delayed.len() + self.attached.len() < limits.held_events
            && self.delayed.bytes() + self.attached.bytes() < limits.held_bytes;
        // What is given up leaves only with the drain.
        let given_up = self.given_up.len() < limits.held_events || self.is_closing;
        held && given_up && self.unsent.is_empty() && self.flights.len() < FLIGHTS_MAX && self.may_reserve(0)
    }

    /// Whether a bundle can be reserved beside what is and `events` more. Under the limits of the set not all may be pending at a
    /// time: what is cannot make room for others.
    pub(super) fn may_reserve(&self, events: usize) -> bool {
        self.stage.has_share_for(self.shared.limits.bundle_events, || {
            let flights = self.flights.values().flat_map(|flight| flight.doubt.reservations());
            flights.map(Reservation::events).sum::<usize>() + self.delayed.reserved() + events
        })
    }

    /// Whether nothing is left that will ever be finished.
    pub(super) fn is_done(&self) -> bool {
        self.flights.is_empty()
            && self.backlog.is_empty()
            && self.stage.is_empty()
            && self.delayed.len() == 0
            && self.attached.is_empty()
            && self.untold.is_empty()
            && self.tellings.is_empty()
    }

    /// The lane that has to take a job before anything else can be sent.
    pub(super) fn full_lane(&self) -> Option<Sender<Job>> {
        self.unsent.front().map(|(lane, _)| lane.clone())
    }

    /// Lets go of what no lane has taken yet.
    pub(super) fn clear_unsent(&mut self) {
        self.unsent.clear();
    }

    /// Whether only word about what is committed is left, and waits for the disk.
    pub(super) fn waits_for_disk(&self) -> bool {
        !self.untold.is_empty() && self.flights.is_empty() && self.stage.is_empty()
    }

    /// What is reserved here and not resolved.
    pub(super) fn pending(&self) -> HashSet<Fingerprint> {
        let flights = self.flights.values().flat_map(|flight| flight.doubt.reservations());
        let all = flights.chain(self.stage.reservations()).chain(self.delayed.reservations());
        all.flat_map(|reservation| reservation.fingerprints().iter().copied()).collect()
    }

    /// Sends a flight to its sinks, or to the worker.
    pub(super) fn launch(&mut self, mut flight: Flight) {
        let number = self.next_flight;
        self.next_flight += 1;
        let jobs = match (&self.lanes, flight.to_dead_letter) {
            _ if flight.batch.picks.is_empty() && flight.flushes.is_none() => Vec::new(),
            (_, true) => self.jobs(number, &flight, self.dead_letter.iter().map(|lanes| (DEAD_LETTER, lanes))),
            (None, false) => {
                self.ready.push_back(number);
                self.flights.insert(number, flight);
                return;
            }
            (Some(sinks), false) => self.jobs(number, &flight, sinks.iter().enumerate()),
        };
        flight.jobs_left = jobs.len();
        if jobs.is_empty() {
            return self.land(flight);
        }
        self.unsent.extend(jobs);
        self.flights.insert(number, flight);
        self.send();
    }

    /// A job for each lane that has to do with the flight.
    fn jobs<'a>(
        &self,
        number: u64,
        flight: &Flight,
        sinks: impl Iterator<Item = (usize, &'a Lanes)>,
    ) -> Vec<(Sender<Job>, Job)> {
        let batch = &flight.batch;
        let job = |batch, flush| Job { worker: self.worker, flight: number, batch, flush };
        let mut jobs = Vec::new();
        for (sink, lanes) in sinks {
            for (lane, sender) in lanes.iter().enumerate() {
                if flight.flushes.is_some() {
                    jobs.push((sender.clone(), job(None, true)));
                    continue;
                }
                let lacks = |pick: usize| {
                    flight.to_dead_letter
                        || flight.doubt.trials.get(pick).is_none_or(|trial| trial.lacking & bit(sink) != 0)
                };
                let mine = |pick: usize| batch.fingerprint(pick).as_u128() as usize % lanes.len() == lane;
                let is_all = flight.doubt.trials.is_empty() && lanes.len() == 1;
                let picks = (!is_all).then(|| {
                    let picks = (0..batch.picks.len()).filter(|pick| lacks(*pick) && mine(*pick));
                    picks.map(|pick| pick as u32).collect::<Vec<_>>()
                });
                if picks.as_ref().is_none_or(|picks| !picks.is_empty()) {
                    // The dead letter is flushed with each job: few go there, and no other flush is meant for it.
                    let flush = match self.commit_at {
                        CommitAt::Once => false,
                        CommitAt::Synced => true,
                        CommitAt::Within(_) => flight.to_dead_letter,
                    };
                    jobs.push((sender.clone(), job(Some((Arc::clone(batch), picks)), flush)));
                }
            }
        }
        jobs
    }

    /// Sends what waits for a lane, in order.
    fn send(&mut self) {
        while let Some((lane, job)) = self.unsent.pop_front() {
            match lane.try_send(job) {
                Ok(()) => {}
                Err(TrySendError::Full(job)) => {
                    self.unsent.push_front((lane, job));
                    break;
                }
                // It was to end only after its workers.
                Err(_) => {
                    self.has_lost_lane = true;
                    break;
                }
            }
        }
    }

    fn take_landings(&mut self) -> Result<(), Stop> {
        while let Some(landing) = self.shared.landings[self.worker].pop() {
            if let Some(broken) = landing.broken {
                return Err(Stop::Broken(broken));
            }
            let Some(flight) = self.flights.get_mut(&landing.flight) else { continue };
            let sink = landing.sink;
            let failures = landing.failures.into_iter().map(|(pick, class)| Failure { pick, sink, class });
            flight.doubt.failures.extend(failures);
            flight.jobs_left -= 1;
            if flight.jobs_left == 0
                && let Some(flight) = self.flights.remove(&landing.flight)
            {
                self.land(flight);
            }
        }
        Ok(())
    }

    /// The next flight that the worker is to deliver itself.
    pub(super) fn next_ready(&mut self) -> Option<(u64, Arc<Batch>)> {
        let number = self.ready.pop_front()?;
        let flight = self.flights.get(&number)?;
        Some((number, Arc::clone(&flight.batch)))
    }

    /// The worker has delivered a flight, and dropped its batch; the sink stands at `position`.
    pub(super) fn delivered(&mut self, number: u64, failures: Failures, position: Option<Vec<u8>>) {
        if let Some(mut flight) = self.flights.remove(&number) {
            let failures = failures.into_iter().map(|(pick, class)| Failure { pick, sink: 0, class });
            flight.doubt.failures.extend(failures);
            flight.position = position;
            self.land(flight);
        }
    }

    /// All sinks are done with a flight: what failed is held, the rest is out.
    fn land(&mut self, flight: Flight) {
        let Flight { batch, mut doubt, repeats, mut tellings, to_dead_letter, flushes, position, .. } = flight;
        if let Some(flush) = flushes {
            return self.stage.flushed(flush, Instant::now());
        }
        let Some(mut batch) = Arc::into_inner(batch) else {
            // A sink cannot keep hold of it, and a lane drops it before it says so.
            debug_assert!(false, "a batch that landed is still in use");
            return;
        };
        let failed = self.hold_lacking(&mut doubt, &mut batch, to_dead_letter);
        let settled = if to_dead_letter { Settled::DeadLettered } else { Settled::Delivered };
        let mut firsts = 0;
        let has_tickets = batch.bundles.iter().any(|bundle| bundle.item.has_tickets());
        for pick in (0..batch.picks.len() as u32).filter(|pick| !failed.contains(pick)) {
            firsts += u64::from(doubt.is_first(pick));
            if has_tickets {
                let (origin, callback) = batch.ticket(batch.picks[pick as usize]);
                tellings.add(origin, callback, settled);
            }
        }
        let reservation = doubt.reservation();
        let out = Out { batch, failed, repeats, tellings, firsts, settled, position, marked: Marked::default() };
        self.stage.delivered(reservation, Ids::new(&[]), out, Instant::now());
    }

    /// Has all lanes flush.
    pub(super) fn launch_flush(&mut self, flush: Flush) {
        self.launch(Flight { flushes: Some(flush), ..Flight::new(Batch::of(Vec::new())) });
    }

    /// Why nothing can be recorded.
    pub(super) fn log_failed(&self) -> Stop {
        match self.shared.dedup.sync() {
            Err(error) => Stop::Log(error),
            Ok(()) => Stop::Log(Error::Unjudged(Unjudged::LogFailed)),
        }
    }
}

/// A sink's bit.
pub(super) fn bit(sink: usize) -> u64 {
    1 << (sink as u32 % 64)
}

/// The number of the dead letter among the sinks, for which there is no bit.
pub(super) const DEAD_LETTER: usize = SINKS_MAX;
/// Sinks of one pipeline, at most: a bit each.
pub(super) const SINKS_MAX: usize = 63;
/// Batches of one worker under way, at most.
pub(super) const FLIGHTS_MAX: usize = 8;
/// How often what is not told of is looked at.
const POLL: Duration = Duration::from_millis(10);
