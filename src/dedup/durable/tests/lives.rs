//! Many lives of one state, with faults, deaths and settings that a seed chooses.
//!
//! `DEDUPD_TEST_STATE_SEEDS` is how many seeds are lived through, and `DEDUPD_TEST_STATE_SEED` the first of them: alone, it is
//! the only one. Limits on ids, clocks that go back and times too far ahead are not simulated.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::super::keeper::Keeper;
use super::world::{Judged, Rules, Status};
use super::*;
use crate::dedup::{
    Deduplicator, Durability, Durable, Error, LogError, OnLogFailure, OpenError, Position, Progress, Reservation,
};
use crate::event::{Fingerprint, ReserveVerdict, Unjudged};
use crate::log::{Fault, Seeded, Simulated};
use crate::time::{Clock as _, ManualClock, Timestamp};
use crate::window::{Answer, When};

/// What all lives of one state have in common.
struct Lives {
    simulated: Simulated,
    clock: ManualClock,
    world: World,
    random: Seeded,
    ids: u16,
    lateness: Option<Duration>,
    /// Whether windows may start again in event time: then the books can tell less.
    extends_events: bool,
    value: u64,
}

/// One process.
struct Life {
    dedup: Deduplicator,
    durability: Durability,
    on_failure: OnLogFailure,
    reserved: Vec<Reserved>,
    positions: Vec<(Position, u64)>,
    /// How many records were missing in the log before the operation.
    unlogged: u64,
}

/// A reservation, and what of it is its own.
struct Reserved {
    reservation: Reservation,
    mine: Vec<Asked>,
    latest: Option<i64>,
}

/// An ID, and the time that it is asked about: its own in event time, else the present.
type Asked = (u16, i64);

/// What was on its way when the process died: it may have been recorded.
#[derive(Default)]
struct Attempt {
    asked: Vec<Asked>,
    forgets: Option<u16>,
    tells: Option<u64>,
}

impl Lives {
    fn new(seed: u64) -> Self {
        let mut random = Seeded(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        let lateness = (random.below(3) == 0).then(|| Duration::from_secs([0, 5, 100][random.below(3) as usize]));
        let extends_events = random.below(3) == 0;
        let ids = [4, 40, 400][random.below(3) as usize];
        let rules = Rules {
            window: 0,
            slack: 0,
            lateness: lateness.map(crate::time::nanos),
            extends: false,
            extends_events: extends_events && lateness.is_some(),
            keeps: true,
        };
        Self {
            simulated: Simulated::new(512),
            clock: ManualClock::starting_at(Timestamp::from_secs(1_000_000)),
            world: World::new(rules),
            random,
            ids,
            lateness,
            extends_events,
            value: 0,
        }
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.random.below(limit)
    }

    fn now(&self) -> i64 {
        self.clock.now().as_nanos()
    }

    /// The next process, or why there is none.
    fn open(&mut self) -> Result<Life, Error> {
        let window = Duration::from_secs([64, 64, 64, 32, 128][self.below(5) as usize]);
        let extends = self.below(3) == 0 && (self.lateness.is_none() || self.extends_events);
        let durability = match self.below(8) {
            0 => Durability::None,
            1..4 => Durability::Process,
            4 | 5 => Durability::Interval(Duration::from_millis(50)),
            _ => Durability::PowerLoss,
        };
        let on_failure = if self.below(4) == 0 { OnLogFailure::Continue } else { OnLogFailure::Refuse };
        let builder = Deduplicator::builder()
            .window(window)
            .extend_on_duplicate(extends)
            .durability(durability)
            .on_log_failure(on_failure)
            .clock(self.clock.clone())
            .housekeeping(false)
            .secret([7; 32])
            .shape(1, 1, 2);
        let builder = self.lateness.into_iter().fold(builder, |builder, lateness| builder.lateness(lateness));
        let builder = match self.below(3) {
            0 => builder.max_disk(4_096 * (2 + self.below(20))),
            _ => builder,
        };
        // Smaller arenas, and one thread that replays: that is faster.
        let builder = if self.below(8) > 0 { builder.max_memory(4 << 20) } else { builder };
        let builder = builder.open_full(self.below(2) == 0);
        let opened = builder.open_on(Arc::new(self.simulated.clone()), tiny);
        if self.simulated.may_lack_room() {
            // An open that finds none ends what has aged out, also when it fails in the end.
            let rules = self.world.rules;
            self.world.rules.window = crate::time::nanos(window);
            self.world.retires(self.now() - crate::time::nanos(window), false);
            self.world.rules = rules;
        }
        let dedup = opened?;
        self.world.rules = Rules {
            window: crate::time::nanos(window),
            slack: crate::time::nanos(dedup.slack()),
            extends,
            keeps: durability != Durability::None,
            ..self.world.rules
        };
        Ok(Life { dedup, durability, on_failure, reserved: Vec::new(), positions: Vec::new(), unlogged: 0 })
    }

    /// A process that finds what the last one has left, lives and dies.
    fn live(&mut self) -> Judged {
        if self.below(3) > 0 {
            let (at, fault) = (1 + self.below(120), self.fault());
            self.simulated.fail_at(at, fault);
        }
        if self.below(4) == 0 {
            self.simulated.leave_room(4_096 * self.random.below(8));
        }
        match self.open() {
            Err(Error::Open(OpenError::Io { .. })) => {}
            Err(error) => return Err(format!("it is not opened: {error}")),
            Ok(life) => self.live_on(life)?,
        }
        self.die();
        // Without faults it opens, whatever happened, and a process that only looks changes nothing.
        let mut life = self.open().map_err(|error| format!("it is not opened again: {error}"))?;
        self.wake(&mut life)?;
        drop(life);
        self.die();
        Ok(())
    }

    fn live_on(&mut self, mut life: Life) -> Judged {
        self.wake(&mut life)?;
        for _ in 0..self.below(50) {
            life.unlogged = life.keeper().unlogged();
            let before = life.keeper().forgotten_before();
            let attempt = self.act(&mut life)?;
            if self.simulated.is_dead() {
                self.attempted(&life, &attempt);
                return Ok(());
            }
            let has_tended = before != life.keeper().forgotten_before();
            if has_tended {
                self.prune(&life);
            }
            // Mostly nobody goes on with a log that is poisoned; sometimes somebody does.
            if life.is_poisoned() && self.below(4) > 0 {
                return Ok(());
            }
        }
        if self.below(4) == 0 && life.keeper().close().is_ok() && !self.simulated.is_dead() {
            self.world.gathered_is_appended();
            self.world.appended_is_durable(u64::MAX);
        }
        Ok(())
    }

    /// With windows that start again in event time, more is forgotten than the books can tell.
    fn prune(&mut self, life: &Life) {
        if life.dedup.stats().evicted_early > 0 {
            self.world.is_unsure();
        }
    }

    fn die(&mut self) {
        let was_killed = self.below(2) == 0;
        let is_harmless = was_killed && !self.simulated.has_failed_sync();
        let (simulated, random) = (&self.simulated, &mut self.random);
        let next = match was_killed {
            true => simulated.after_kill(),
            false => simulated.after_power_cut(&mut || random.below(2) == 0),
        };
        next.heal();
        self.simulated = next;
        self.world.dies(is_harmless);
    }

    fn wake(&mut self, life: &mut Life) -> Judged {
        let now = self.now();
        let position = life.position()?;
        let is_known = |id, time| life.is_known(id, self.lateness.map(|_| time), now);
        let front = life.front();
        self.world.is_reborn(self.ids, now, front, position, &is_known)?;
        if self.simulated.is_dead() {
            return Ok(());
        }
        let loss = life.dedup.stats();
        assert_eq!((loss.evicted_early, loss.unlogged), (0, 0));
        Ok(())
    }

    /// What the process may have done before it died.
    fn attempted(&mut self, life: &Life, attempt: &Attempt) {
        let before = self.world.next_place();
        let place = self.world.next_place();
        if attempt.tells.is_some() {
            self.world.gathered_is_before(before);
        }
        if life.durability != Durability::None {
            for (id, time) in &attempt.asked {
                self.world.may_have_seen(*id, *time, place);
            }
            attempt.tells.into_iter().for_each(|value| self.world.told(value, Status::Maybe, place));
        }
        attempt.asked.iter().for_each(|(_, time)| self.world.settled(*time));
        attempt.forgets.into_iter().for_each(|id| self.world.forgot(id, Status::Maybe, place));
    }

    fn act(&mut self, life: &mut Life) -> Result<Attempt, String> {
        match self.below(40) {
            0..8 => self.observe(life),
            8..13 => self.observe_batch(life),
            13..18 => self.reserve(life),
            18..22 => self.commit(life),
            22 => self.release(life),
            23 => self.record_progress(life),
            24 | 25 => self.forget(life),
            26..30 => self.advance(),
            _ => self.keep_up(life),
        }
    }

    fn asked(&mut self) -> Asked {
        let id = self.below(u64::from(self.ids)) as u16;
        let now = self.now();
        let time = match self.below(4) {
            _ if self.lateness.is_none() => now,
            0 => now - self.below(150_000_000_000).cast_signed(),
            _ => now - self.below(4_000_000_000).cast_signed(),
        };
        (id, time)
    }

    fn asked_many(&mut self) -> Vec<Asked> {
        let most = [3, 20, 150][self.below(3) as usize];
        (0..=self.below(most)).map(|_| self.asked()).collect()
    }

    fn observe(&mut self, life: &mut Life) -> Result<Attempt, String> {
        let asked = self.asked();
        let attempt = Attempt { asked: vec![asked], ..Attempt::default() };
        let front = life.front();
        let time = self.lateness.map(|_| Timestamp::from_nanos(asked.1));
        let answer = life.dedup.ask(|| life.id(asked.0), time);
        if self.simulated.is_dead() {
            return Ok(attempt);
        }
        let is_gathered = life.durability != Durability::PowerLoss || self.lateness.is_some() && life.goes_on();
        let status = if is_gathered { Status::Gathered } else { Status::Appended };
        self.judge(life, &[asked], &[answer], front, status)?;
        Ok(attempt)
    }

    fn observe_batch(&mut self, life: &mut Life) -> Result<Attempt, String> {
        let asked = self.asked_many();
        let front = life.front();
        let ids: Vec<_> = asked.iter().map(|(id, _)| id.to_le_bytes()).collect();
        let times: Vec<_> = asked.iter().map(|(_, time)| Timestamp::from_nanos(*time)).collect();
        let mut answers = Vec::new();
        let times = self.lateness.map(|_| &times[..]);
        life.dedup.each(&ids, times, |some| answers.extend_from_slice(some));
        if !self.simulated.is_dead() {
            let is_gathered = self.lateness.is_some() && life.goes_on();
            let status = if is_gathered { Status::Gathered } else { Status::Appended };
            self.judge(life, &asked, &answers, front, status)?;
        }
        Ok(Attempt { asked, ..Attempt::default() })
    }

    /// Checks the answers of an observation, and takes them down.
    fn judge(
        &mut self,
        life: &Life,
        asked: &[Asked],
        answers: &[Answer],
        mut front: Option<i64>,
        status: Status,
    ) -> Judged {
        if asked.len() != answers.len() {
            return Err(format!("{} answers to {} questions", answers.len(), asked.len()));
        }
        let status = if life.is_missing_some() { Status::Maybe } else { status };
        let place = if matches!(status, Status::Appended) { self.world.next_place() } else { 0 };
        let mut refused = Vec::new();
        for ((id, time), answer) in asked.iter().zip(answers) {
            let front_before = front;
            front = front.max(Some(*time));
            self.world.settled(*time);
            // Whoever asked first in the same batch was refused, and may ask again.
            if *answer == Answer::Seen && refused.contains(id) {
                continue;
            }
            self.world.check(*id, *time, *answer, front_before)?;
            match answer {
                Answer::New | Answer::Reappeared => self.world.saw(*id, *time, status, place),
                Answer::Seen => self.world.repeated(*id, *time),
                Answer::Unlogged if life.is_poisoned() && life.durability == Durability::PowerLoss => {
                    self.world.may_have_seen(*id, *time, 0);
                }
                Answer::Unlogged => refused.push(*id),
                _ => {}
            }
        }
        let is_synced = life.durability == Durability::PowerLoss && !life.is_poisoned();
        if is_synced && answers.iter().any(|answer| *answer != Answer::Unlogged) {
            self.world.appended_is_durable(u64::MAX);
        }
        Ok(())
    }

    fn reserve(&mut self, life: &mut Life) -> Result<Attempt, String> {
        let asked = self.asked_many();
        let mut front = life.front();
        let reserved = match self.lateness {
            None => life.dedup.reserve_batch(&asked.iter().map(|(id, _)| id.to_le_bytes()).collect::<Vec<_>>()),
            Some(_) => {
                let event = |(id, time): &Asked| (id.to_le_bytes(), Timestamp::from_nanos(*time));
                life.dedup.reserve_batch_at(&asked.iter().map(event).collect::<Vec<_>>())
            }
        };
        let attempt = || match self.world.rules.extends {
            true => Attempt { asked: asked.clone(), ..Attempt::default() },
            false => Attempt::default(),
        };
        let Ok(reservation) = reserved else {
            return if life.is_poisoned() { Ok(attempt()) } else { Err("a log that works is refused".into()) };
        };
        if self.simulated.is_dead() {
            return Ok(attempt());
        }
        let mut mine = Vec::new();
        let mut is_confirmed = false;
        for ((id, time), verdict) in asked.iter().zip(reservation.verdicts()) {
            let answer = match verdict {
                ReserveVerdict::FirstSeen => Answer::New,
                ReserveVerdict::Duplicate => Answer::Seen,
                ReserveVerdict::InFlight => Answer::InFlight,
                ReserveVerdict::Unjudged(Unjudged::Late) => Answer::Late,
                ReserveVerdict::Unjudged(Unjudged::LogFailed) => Answer::Unlogged,
                other => return Err(format!("id {id} is {other:?}")),
            };
            self.world.check(*id, *time, answer, front)?;
            front = front.max(Some(*time));
            if self.world.rules.extends && matches!(answer, Answer::Seen | Answer::Unlogged) {
                // A window that starts again is appended at its own time, also when nothing is committed after all.
                self.world.settled(*time);
            }
            match answer {
                Answer::New => {
                    self.world.reserved(*id);
                    mine.push((*id, *time));
                }
                Answer::Seen => {
                    is_confirmed = true;
                    self.world.repeated(*id, *time);
                }
                Answer::Unlogged if self.world.rules.extends => self.world.may_have_seen(*id, *time, 0),
                _ => {}
            }
        }
        if is_confirmed && life.durability == Durability::PowerLoss && !life.goes_on() {
            self.world.gathered_is_appended();
            self.world.appended_is_durable(u64::MAX);
        }
        let latest = asked.iter().map(|(_, time)| *time).max();
        life.reserved.push(Reserved { reservation, mine, latest });
        Ok(Attempt::default())
    }

    fn pick(&mut self, life: &mut Life) -> Option<Reserved> {
        let count = life.reserved.len();
        (count > 0).then(|| life.reserved.swap_remove(self.below(count as u64) as usize))
    }

    fn release(&mut self, life: &mut Life) -> Result<Attempt, String> {
        if let Some(Reserved { reservation, mine, .. }) = self.pick(life) {
            drop(reservation);
            mine.iter().for_each(|(id, _)| self.world.released(*id));
        }
        Ok(Attempt::default())
    }

    fn next_progress(&mut self) -> (Progress, u64) {
        self.value += 1;
        let mut progress = Progress::new();
        progress.set_source("in", self.value.to_le_bytes());
        progress.set_sink("out", self.value.to_le_bytes());
        (progress, self.value)
    }

    fn commit(&mut self, life: &mut Life) -> Result<Attempt, String> {
        let Some(mut reserved) = self.pick(life) else { return Ok(Attempt::default()) };
        let (progress, value) = match self.below(3) {
            0 => (Progress::new(), None),
            _ => {
                let (progress, value) = self.next_progress();
                (progress, Some(value))
            }
        };
        // In processing time the window runs from the commit.
        let now = self.now();
        if self.lateness.is_none() {
            reserved.mine.iter_mut().for_each(|(_, time)| *time = now);
        }
        let result = reserved.reservation.try_commit(&progress);
        let attempt = Attempt { asked: reserved.mine.clone(), tells: value, ..Attempt::default() };
        let is_refused = matches!(&result, Err(error) if !matches!(error, Error::Log(LogError::Poisoned { .. })));
        if !is_refused || self.simulated.is_dead() {
            reserved.latest.into_iter().for_each(|latest| self.world.settled(latest));
        }
        if self.simulated.is_dead() {
            return Ok(attempt);
        }
        match result {
            Ok(()) => {
                let is_empty = reserved.mine.is_empty() && value.is_none();
                let (status, place) = self.committed(life, is_empty);
                for (id, time) in &reserved.mine {
                    self.world.saw(*id, *time, status, place);
                }
                self.tell(life, value, status, place);
                self.committed_all(life, is_empty);
            }
            Err(Error::Log(LogError::Poisoned { .. })) => {
                for (id, time) in &reserved.mine {
                    self.world.released(*id);
                    self.world.may_have_seen(*id, *time, 0);
                }
                value.into_iter().for_each(|value| self.world.told(value, Status::Maybe, 0));
                drop(reserved);
            }
            // Nothing has changed, and it is still reserved.
            Err(_) => life.reserved.push(reserved),
        }
        self.check_position(life)?;
        Ok(Attempt::default())
    }

    fn record_progress(&mut self, life: &mut Life) -> Result<Attempt, String> {
        let (progress, value) = self.next_progress();
        let result = life.dedup.record_progress(&progress);
        if self.simulated.is_dead() {
            return Ok(Attempt { tells: Some(value), ..Attempt::default() });
        }
        match result {
            Ok(()) => {
                let (status, place) = self.committed(life, false);
                self.tell(life, Some(value), status, place);
                self.committed_all(life, false);
            }
            Err(Error::Log(LogError::Poisoned { .. })) => self.world.told(value, Status::Maybe, 0),
            Err(_) => {}
        }
        self.check_position(life)?;
        Ok(Attempt::default())
    }

    /// Before the records of a commit that succeeded: everything gathered was appended before it.
    fn committed(&mut self, life: &Life, is_empty: bool) -> (Status, u64) {
        if life.is_missing_some() {
            return (Status::Maybe, 0);
        }
        if life.durability != Durability::None && !is_empty {
            self.world.gathered_is_appended();
        }
        (Status::Appended, self.world.next_place())
    }

    /// After them: with power loss all are on disk.
    fn committed_all(&mut self, life: &Life, is_empty: bool) {
        if life.durability == Durability::PowerLoss && !is_empty && !life.is_poisoned() {
            self.world.appended_is_durable(u64::MAX);
        }
    }

    fn tell(&mut self, life: &Life, value: Option<u64>, status: Status, place: u64) {
        if life.durability != Durability::None {
            value.into_iter().for_each(|value| self.world.told(value, status, place));
        }
    }

    fn check_position(&self, life: &Life) -> Judged {
        self.world.check_position(life.position()?)
    }

    fn forget(&mut self, life: &mut Life) -> Result<Attempt, String> {
        let id = self.below(u64::from(self.ids)) as u16;
        let result = life.dedup.forget(id.to_le_bytes());
        if self.simulated.is_dead() {
            return Ok(Attempt { forgets: Some(id), ..Attempt::default() });
        }
        match result {
            Ok(was_known) => {
                let (must, may) = self.world.has_sights(id);
                if was_known && !may || !was_known && must && self.lateness.is_none() && self.is_young(id) {
                    return Err(format!("id {id} was forgotten: {was_known}, known: {must} {may}"));
                }
                self.world.gathered_is_appended();
                let place = self.world.next_place();
                self.world.forgot(id, Status::Appended, place);
                if life.durability == Durability::PowerLoss && !life.is_poisoned() {
                    self.world.appended_is_durable(u64::MAX);
                }
            }
            Err(Error::Log(LogError::Poisoned { .. })) => self.world.forgot(id, Status::Maybe, 0),
            Err(_) => {}
        }
        Ok(Attempt::default())
    }

    fn is_young(&self, id: u16) -> bool {
        self.world.check_known(id, self.now(), false, None).is_err()
    }

    fn advance(&mut self) -> Result<Attempt, String> {
        let millis = match self.below(12) {
            0..6 => self.below(300),
            6..10 => self.below(3_000),
            10 => self.below(100_000),
            _ => 20_000_000,
        };
        self.clock.advance(Duration::from_millis(millis));
        Ok(Attempt::default())
    }

    /// What the threads of a state do, and what others ask for.
    fn keep_up(&mut self, life: &mut Life) -> Result<Attempt, String> {
        let keeper = life.keeper();
        let is_alive = |simulated: &Simulated| !simulated.is_dead();
        match self.random.below(10) {
            0 => keeper.retry(),
            1 => {
                if keeper.flush().is_ok() && is_alive(&self.simulated) {
                    self.world.gathered_is_appended();
                }
            }
            2 => drop(keeper.log.maintain()),
            3 => {
                for _ in 0..2 {
                    let is_failing = keeper.is_failing.load(Ordering::Relaxed);
                    self.world.retires(keeper.forgotten_before().as_nanos(), is_failing);
                    keeper.tend();
                }
            }
            4 => {
                if life.dedup.sync().is_ok() && is_alive(&self.simulated) {
                    self.world.gathered_is_appended();
                    self.world.appended_is_durable(u64::MAX);
                }
            }
            5 => {
                let position = life.dedup.position();
                if position.0.is_some() && is_alive(&self.simulated) {
                    self.world.gathered_is_appended();
                    life.positions.push((position, self.world.place()));
                }
            }
            6 => {
                let position = life.positions.pop();
                if let Some((position, place)) = position
                    && life.dedup.wait_durable(position).is_ok()
                    && is_alive(&self.simulated)
                {
                    self.world.appended_is_durable(place);
                }
            }
            7 => {
                if keeper.log.sync().is_ok() && is_alive(&self.simulated) {
                    self.world.appended_is_durable(u64::MAX);
                }
            }
            8 => drop(life.dedup.maintain(Duration::from_secs(1))),
            _ => self.simulated.heal(),
        }
        let id = self.below(u64::from(self.ids)) as u16;
        let (now, times) = (self.now(), self.asked().1);
        let is_known = life.is_known(id, self.lateness.map(|_| times), now);
        self.world.check_known(id, times, is_known, life.front())?;
        Ok(Attempt::default())
    }

    fn fault(&mut self) -> Fault {
        let kind = [io::ErrorKind::StorageFull, io::ErrorKind::Other][usize::from(self.below(2) == 0)];
        match self.below(4) {
            0 => Fault::Error { kind, is_sticky: false },
            1 => Fault::Error { kind, is_sticky: true },
            _ => Fault::Crash,
        }
    }
}

impl Life {
    fn keeper(&self) -> &Keeper {
        self.dedup.inner.durable.as_ref().map(Durable::keeper).unwrap()
    }

    fn id(&self, id: u16) -> Fingerprint {
        self.dedup.fingerprint(id.to_le_bytes())
    }

    fn front(&self) -> Option<i64> {
        self.keeper().set.front()
    }

    fn is_known(&self, id: u16, time: Option<i64>, now: i64) -> bool {
        let when = time.map_or(When::Now(now), |time| When::Event { time, clock: now });
        matches!(self.keeper().set.peek(self.id(id), when), Answer::Seen | Answer::InFlight)
    }

    fn is_poisoned(&self) -> bool {
        self.keeper().log.is_poisoned()
    }

    fn goes_on(&self) -> bool {
        self.on_failure == OnLogFailure::Continue
    }

    /// Whether the last operation has left records out of the log.
    fn is_missing_some(&self) -> bool {
        self.keeper().unlogged() != self.unlogged
    }

    /// The position that both a source and a sink have: they are always told together.
    fn position(&self) -> Result<Option<u64>, String> {
        let progress = self.dedup.progress();
        let value = |bytes: Option<&[u8]>| bytes.map(|bytes| u64::from_le_bytes(bytes.try_into().unwrap()));
        match (value(progress.source("in")), value(progress.sink("out"))) {
            (source, sink) if source == sink => Ok(source),
            (source, sink) => Err(format!("the source is at {source:?}, and the sink at {sink:?}")),
        }
    }
}

/// A state through its lives; what is wrong with it.
fn lives(seed: u64) -> Judged {
    let mut lives = Lives::new(seed);
    (0..LIVES).try_for_each(|life| lives.live().map_err(|error| format!("life {life}: {error}")))
}

#[test]
fn a_state_survives_its_lives() {
    let number = |name: &str| std::env::var(name).ok().map(|number| number.parse().unwrap());
    let first = number("DEDUPD_TEST_STATE_SEED").unwrap_or(0);
    let seeds = number("DEDUPD_TEST_STATE_SEEDS").unwrap_or(if first > 0 { 1 } else { SEEDS });
    for seed in first..first + seeds {
        let judged = lives(seed);
        assert!(
            judged.is_ok(),
            "seed {seed}, {}: DEDUPD_TEST_STATE_SEED={seed} cargo test --lib a_state_survives_its_lives",
            judged.unwrap_err()
        );
    }
}

/// Enough for a second or two; more are asked for in the environment.
const SEEDS: u64 = 250;
const LIVES: u64 = 8;
