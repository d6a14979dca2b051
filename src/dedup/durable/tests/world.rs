//! The books of a simulation: what was answered, what the log was told, and so what the next process may know.
//!
//! For each ID there are two lists. Its *sights* are what the set of this process must and may know. Its *records* are what
//! the log was told, each with how far that has come; after a death they become the sights of the next process, which is
//! asked about each of them, and the records that it has not got are crossed out: should one of them come back later, that
//! is found.

use std::collections::BTreeMap;

use crate::window::Answer;

/// A time at which an ID was seen: not before `from` and not after `to`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sight {
    from: i64,
    to: i64,
    /// Whether it is surely known; otherwise it may be.
    is_sure: bool,
}

/// How far a record has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Status {
    /// It is in memory, on its way to the log.
    Gathered,
    /// The log has it: a kill leaves it.
    Appended,
    /// The disk has it.
    Durable,
    /// Nobody was told.
    Maybe,
}

#[derive(Debug, Clone, Copy)]
enum What {
    Seen { from: i64, to: i64 },
    Forget,
}

#[derive(Debug, Clone, Copy)]
struct Record {
    what: What,
    status: Status,
    /// Where it stands among all records, at most; 0 when that is not known.
    place: u64,
    /// Whether it stands exactly there.
    is_exact: bool,
}

/// What is known of one ID.
#[derive(Debug, Clone, Default)]
struct Id {
    records: Vec<Record>,
    sights: Vec<Sight>,
    is_pending: bool,
    /// Times that it must not be known by any more.
    gone: Vec<i64>,
    /// Whether this process knows more of it than it has told the log.
    is_unlogged: bool,
}

/// What was told to the log as a position.
#[derive(Debug, Clone, Copy)]
struct Told {
    value: u64,
    status: Status,
    place: u64,
}

/// What this process was set to.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rules {
    pub(super) window: i64,
    pub(super) slack: i64,
    pub(super) lateness: Option<i64>,
    pub(super) extends: bool,
    /// Whether that was so, or may be, in event time, where it makes an ID unknown at the time that it was seen first.
    pub(super) extends_events: bool,
    /// Whether what is learnt is told to the log at all.
    pub(super) keeps: bool,
}

/// The books.
#[derive(Debug, Clone)]
pub(super) struct World {
    pub(super) rules: Rules,
    ids: BTreeMap<u16, Id>,
    told: Vec<Told>,
    place: u64,
    /// Frames from before this may be gone.
    floor: i64,
    /// The highest time of any event that is settled.
    settled: i64,
}

pub(super) type Judged = Result<(), String>;

impl World {
    pub(super) fn new(rules: Rules) -> Self {
        let (ids, told) = (BTreeMap::new(), Vec::new());
        Self { rules, ids, told, place: 0, floor: i64::MIN, settled: i64::MIN }
    }

    fn id(&mut self, id: u16) -> &mut Id {
        self.ids.entry(id).or_default()
    }

    /// The place of what is appended now.
    pub(super) fn next_place(&mut self) -> u64 {
        self.place += 1;
        self.place
    }

    pub(super) fn place(&self) -> u64 {
        self.place
    }

    /// Whether `id` at `time` must be a duplicate, and whether it may be.
    fn zones(&self, sights: &[Sight], time: i64) -> (bool, bool) {
        let Rules { window, slack, .. } = self.rules;
        let must = |sight: &Sight| sight.is_sure && time - sight.from < window && sight.to - time < window;
        let may = |sight: &Sight| time - sight.to < window + slack && sight.from - time < window + slack;
        (sights.iter().any(must), sights.iter().any(may))
    }

    fn is_late(&self, time: i64, front: Option<i64>) -> bool {
        self.rules.lateness.zip(front).is_some_and(|(lateness, front)| time < front - lateness)
    }

    /// Whether an answer is one that the promise allows. `front` is how far event time has come.
    pub(super) fn check(&self, id: u16, time: i64, answer: Answer, front: Option<i64>) -> Judged {
        let known = self.ids.get(&id).cloned().unwrap_or_default();
        let (must, may) = self.zones(&known.sights, time);
        let is_late = self.is_late(time, front);
        let is_right = match answer {
            Answer::Late => is_late,
            _ if is_late => answer == Answer::Unlogged,
            Answer::New | Answer::Reappeared => !known.is_pending && !must,
            // In event time it may be seen at one time and reserved for another.
            Answer::Seen => may && (!known.is_pending || self.rules.lateness.is_some()),
            Answer::InFlight => known.is_pending,
            Answer::Unlogged => true,
            Answer::Full => false,
        };
        if is_right { Ok(()) } else { Err(format!("id {id} at {time} is {answer:?}, front {front:?}: {known:?}")) }
    }

    /// Whether `id` is said to be known at `time` as it should be. Before the watermark it may be forgotten.
    pub(super) fn check_known(&self, id: u16, time: i64, is_known: bool, front: Option<i64>) -> Judged {
        let known = self.ids.get(&id).cloned().unwrap_or_default();
        let (must, may) = self.zones(&known.sights, time);
        let must = must && !self.is_late(time, front);
        let is_right = if is_known { may || known.is_pending } else { !must && !known.is_pending };
        if is_right { Ok(()) } else { Err(format!("id {id} at {time} is known: {is_known}: {known:?}")) }
    }

    /// `id` was first-seen at `time`, and is marked.
    pub(super) fn saw(&mut self, id: u16, time: i64, status: Status, place: u64) {
        let Rules { slack, lateness, keeps, .. } = self.rules;
        let known = self.id(id);
        known.is_pending = false;
        if lateness.is_none() {
            known.sights.clear();
        }
        known.sights.push(Sight { from: time, to: time, is_sure: true });
        // The frame that takes a gathered one may have the end of its generation for its time.
        let to = if lateness.is_none() && status == Status::Gathered { time + slack } else { time };
        known.is_unlogged |= status == Status::Maybe;
        if keeps {
            let is_exact = place > 0;
            known.records.push(Record { what: What::Seen { from: time, to }, status, place, is_exact });
        }
    }

    /// `id` is reserved.
    pub(super) fn reserved(&mut self, id: u16) {
        let is_processing_time = self.rules.lateness.is_none();
        let known = self.id(id);
        known.is_pending = true;
        if is_processing_time {
            known.sights.clear();
        }
    }

    pub(super) fn released(&mut self, id: u16) {
        self.id(id).is_pending = false;
    }

    /// `id` was a duplicate at `time`.
    pub(super) fn repeated(&mut self, id: u16, time: i64) {
        let rules = self.rules;
        if !rules.extends {
            return;
        }
        if rules.lateness.is_some() {
            return self.repeated_event(id, time);
        }
        let known = self.id(id);
        known.sights = vec![Sight { from: time, to: time, is_sure: true }];
        if rules.keeps {
            // Nothing is told when it is of this generation already.
            let what = What::Seen { from: time - rules.slack, to: time + rules.slack };
            let status = if known.is_unlogged { Status::Maybe } else { Status::Gathered };
            known.records.push(Record { what, status, place: 0, is_exact: false });
        }
    }

    /// The one entry that was found counts from `time` on, if that is later.
    fn repeated_event(&mut self, id: u16, time: i64) {
        let rules = self.rules;
        let reach = rules.window + rules.slack;
        let known = self.id(id);
        let near = |sight: &&mut Sight| time - sight.to < reach && sight.from - time < reach;
        let mut found: Vec<_> = known.sights.iter_mut().filter(near).collect();
        let is_only = found.len() == 1;
        if is_only && found[0].from.div_euclid(rules.slack) >= time.div_euclid(rules.slack) {
            found[0].is_sure = true;
            return;
        }
        known.may_have_moved(time);
        known.sights.push(Sight { from: time, to: time, is_sure: is_only });
        if !rules.keeps {
            return;
        }
        let status = if is_only && !known.is_unlogged { Status::Gathered } else { Status::Maybe };
        let what = What::Seen { from: time, to: time };
        known.records.push(Record { what, status, place: 0, is_exact: false });
    }

    /// It is not known whether `id` was recorded at `time`, in memory or in the log.
    pub(super) fn may_have_seen(&mut self, id: u16, time: i64, place: u64) {
        let Rules { slack, keeps, extends, lateness, .. } = self.rules;
        let known = self.id(id);
        if extends && lateness.is_some() {
            known.may_have_moved(time);
        }
        known.sights.push(Sight { from: time, to: time, is_sure: false });
        known.is_unlogged = true;
        if keeps {
            let what = What::Seen { from: time - slack, to: time + slack };
            known.records.push(Record { what, status: Status::Maybe, place, is_exact: place > 0 });
        }
    }

    /// `id` was forgotten, or it is not known whether the log was told so.
    pub(super) fn forgot(&mut self, id: u16, status: Status, place: u64) {
        let known = self.id(id);
        known.records.push(Record { what: What::Forget, status, place, is_exact: place > 0 });
        if status == Status::Maybe {
            known.sights.iter_mut().for_each(|sight| sight.is_sure = false);
        } else {
            let times = known.sights.drain(..).map(|sight| sight.from);
            known.gone.extend(times);
        }
    }

    /// Whether `id` is surely known, and whether it may be, by an entry that is no reservation.
    pub(super) fn has_sights(&self, id: u16) -> (bool, bool) {
        let sights = self.ids.get(&id).map_or(&[][..], |known| &known.sights);
        (sights.iter().any(|sight| sight.is_sure), !sights.is_empty())
    }

    /// A position was told.
    pub(super) fn told(&mut self, value: u64, status: Status, place: u64) {
        self.told.push(Told { value, status, place });
    }

    pub(super) fn settled(&mut self, time: i64) {
        self.settled = self.settled.max(time);
    }

    /// The latest position of this process.
    pub(super) fn check_position(&self, value: Option<u64>) -> Judged {
        let sure = self.told.iter().rev().find(|told| told.status != Status::Maybe).map(|told| told.value);
        if value == sure || self.told.iter().any(|told| Some(told.value) == value && value > sure) {
            return Ok(());
        }
        Err(format!("the position is {value:?}, and {sure:?} was told"))
    }

    /// Frames from before `time` may age out; in event time none that a restart needs, which takes time back to what is
    /// settled, unless appends fail for want of room.
    pub(super) fn retires(&mut self, time: i64, is_failing: bool) {
        let over = |lateness: i64| self.settled.saturating_sub(lateness + self.rules.window);
        let needed = self.rules.lateness.filter(|_| !is_failing).map_or(i64::MAX, over);
        self.floor = self.floor.max(time.min(needed));
    }

    /// Everything that was gathered is appended by now.
    pub(super) fn gathered_is_appended(&mut self) {
        let place = self.next_place();
        self.each_record(|record| {
            if record.status == Status::Gathered {
                (record.status, record.place) = (Status::Appended, place);
            }
        });
    }

    /// What was gathered is appended before `place`, if that is.
    pub(super) fn gathered_is_before(&mut self, place: u64) {
        self.each_record(|record| {
            if record.status == Status::Gathered {
                record.place = place;
            }
        });
    }

    /// Everything that was appended up to `place` is on disk.
    pub(super) fn appended_is_durable(&mut self, place: u64) {
        self.each_record(|record| {
            if record.status == Status::Appended && record.place <= place {
                record.status = Status::Durable;
            }
        });
        for told in self.told.iter_mut().filter(|told| told.place <= place && told.status == Status::Appended) {
            told.status = Status::Durable;
        }
    }

    /// The process dies. Harmless is a kill that leaves the page cache as it was.
    pub(super) fn dies(&mut self, is_harmless: bool) {
        let left = |status: &mut Status| match *status {
            Status::Gathered => *status = Status::Maybe,
            Status::Appended if !is_harmless => *status = Status::Maybe,
            _ => {}
        };
        self.each_record(|record| left(&mut record.status));
        self.told.iter_mut().for_each(|told| left(&mut told.status));
        for known in self.ids.values_mut() {
            (known.is_pending, known.is_unlogged) = (false, false);
        }
    }

    fn each_record(&mut self, act: impl FnMut(&mut Record)) {
        self.ids.values_mut().flat_map(|known| &mut known.records).for_each(act);
    }

    /// The next process is there: `is_known` asks it about an ID at a time, `position` is what it has recovered, `now` is
    /// the clock, and in event time `front` is how far time has come.
    pub(super) fn is_reborn(
        &mut self,
        ids: u16,
        now: i64,
        front: Option<i64>,
        position: Option<u64>,
        is_known: &dyn Fn(u16, i64) -> bool,
    ) -> Judged {
        if self.rules.lateness.is_some() && front.is_some_and(|front| front > self.settled) {
            return Err(format!("time has come to {front:?}, and what is settled to {}", self.settled));
        }
        let reached = self.reached(position)?;
        self.raise(|record| (1..=reached).contains(&record.place));
        let evidence = self.evidence(now, front, is_known);
        self.raise(|record| (1..evidence).contains(&record.place));
        for id in 0..ids {
            match self.rules.lateness {
                None => self.learn(id, now, is_known(id, now))?,
                Some(lateness) => self.learn_events(id, front.map(|front| front - lateness), is_known)?,
            }
        }
        Ok(())
    }

    /// Whether a recovered position is one that may be there; its place.
    fn reached(&mut self, position: Option<u64>) -> Result<u64, String> {
        let sure = self.told.iter().rposition(|told| told.status != Status::Maybe);
        let found = position.map(|value| self.told.iter().rposition(|told| told.value == value));
        let told = &self.told;
        let wrong = || Err(format!("the position {position:?} was recovered: {told:?}"));
        let told = match (found, sure) {
            (None, Some(_)) | (Some(None), _) => return wrong(),
            (Some(Some(found)), Some(sure)) if found < sure => return wrong(),
            (None, None) => None,
            (Some(Some(found)), _) => Some(self.told[found]),
        };
        self.told = told.map(|told| Told { status: Status::Durable, ..told }).into_iter().collect();
        Ok(told.map_or(0, |told| told.place))
    }

    /// What is known by a record alone that nobody was told of shows how far the log has got: everything before is there.
    fn evidence(&self, now: i64, front: Option<i64>, is_known: &dyn Fn(u16, i64) -> bool) -> u64 {
        let mut evidence = 0;
        for (id, known) in &self.ids {
            let [Record { what: What::Seen { from, to }, status: Status::Maybe, place, is_exact: true }] =
                known.records[..]
            else {
                continue;
            };
            let time = if self.rules.lateness.is_some() { from.midpoint(to) } else { now };
            if place > evidence && front.is_some() && is_known(*id, time) {
                evidence = place;
            }
        }
        evidence
    }

    /// Records that must be there, as something behind them is.
    fn raise(&mut self, must_be: impl Fn(&Record) -> bool) {
        self.each_record(|record| {
            if record.status == Status::Maybe && must_be(record) {
                record.status = Status::Durable;
            }
        });
    }

    /// What the records of an ID come to: its sights, and the times that it was forgotten for good.
    fn replayed(&self, known: &Id) -> (Vec<Sight>, Vec<i64>) {
        let (mut sights, mut gone) = (Vec::<Sight>::new(), known.gone.clone());
        for record in &known.records {
            let is_sure = record.status != Status::Maybe;
            match record.what {
                What::Seen { from, to } => {
                    sights.push(Sight { from, to, is_sure: is_sure && from >= self.floor });
                }
                What::Forget if is_sure => gone.extend(sights.drain(..).map(|sight| sight.from)),
                What::Forget => sights.iter_mut().for_each(|sight| sight.is_sure = false),
            }
        }
        if self.rules.extends_events {
            // Where repeats may have made windows start again, two that are near may be one.
            let times: Vec<i64> = sights.iter().map(|sight| sight.from).collect();
            let is_alone = |time: i64| times.iter().filter(|other| (*other - time).abs() < REACH_MAX).count() == 1;
            sights.iter_mut().for_each(|sight| sight.is_sure &= is_alone(sight.from));
        }
        (sights, gone)
    }

    /// Processing time: `id` is known to the next process, or is not.
    fn learn(&mut self, id: u16, now: i64, is_known: bool) -> Judged {
        let Rules { window, slack, .. } = self.rules;
        let known = self.ids.get(&id).cloned().unwrap_or_default();
        let (sights, _) = self.replayed(&known);
        let (must, may) = self.zones(&sights, now);
        if must && !is_known || !may && is_known {
            return Err(format!("id {id} is known after a restart at {now}: {is_known}, of {known:?}"));
        }
        // What it was not known by, although it would be, is not there. What is over may be: a longer window shows it.
        let is_over = |sight: &&Sight| now - sight.from >= window;
        let mut kept: Vec<Sight> = sights.iter().filter(is_over).copied().collect();
        kept.iter_mut().for_each(|sight| sight.is_sure = false);
        let counts = |sight: &&Sight| now - sight.to < window + slack;
        let mut found = None;
        if is_known {
            let sure = sights.iter().filter(|sight| sight.is_sure).map(|sight| sight.from).max();
            let least = sights.iter().filter(counts).map(|sight| sight.from).min();
            let to = sights.iter().map(|sight| sight.to).max();
            found = least.zip(to).map(|(least, to)| Sight { from: sure.unwrap_or(least), to, is_sure: true });
        }
        let known = self.id(id);
        known.records = kept.iter().chain(&found).map(Record::found).collect();
        known.sights = found.into_iter().collect();
        Ok(())
    }

    /// Event time: the same for each time at which `id` may have been seen. Everything before `back` may be forgotten.
    fn learn_events(&mut self, id: u16, back: Option<i64>, is_known: &dyn Fn(u16, i64) -> bool) -> Judged {
        let window = self.rules.window;
        let known = self.ids.get(&id).cloned().unwrap_or_default();
        let (sights, mut gone) = self.replayed(&known);
        let is_over = |from: i64| back.is_none_or(|back| from + window <= back);
        for time in &gone {
            if !self.rules.extends_events && is_known(id, *time) && !self.zones(&sights, *time).1 {
                return Err(format!("id {id} has come back at {time}: {known:?}"));
            }
        }
        let mut left: Vec<Sight> = Vec::new();
        for sight in &sights {
            let is_there = is_known(id, sight.from);
            let middle = sight.from.midpoint(sight.to);
            if sight.is_sure && !is_over(sight.from) && !is_there {
                return Err(format!("id {id} is unknown at {} after a restart, back {back:?}: {known:?}", sight.from));
            }
            if is_there || is_over(sight.from) || sight.from != sight.to && is_known(id, middle) {
                left.push(Sight { is_sure: sight.is_sure && !is_over(sight.from), ..*sight });
            } else if self.rules.extends_events {
                left.push(Sight { is_sure: false, ..*sight });
            } else {
                gone.push(middle);
            }
        }
        gone.drain(..gone.len().saturating_sub(GONE_MAX));
        let known = self.id(id);
        known.records = left.iter().map(Record::found).collect();
        (known.sights, known.gone) = (left, gone);
        Ok(())
    }

    /// In event time with windows that start again an ID may have more entries than places, which is counted.
    pub(super) fn is_unsure(&mut self) {
        self.ids.values_mut().flat_map(|known| &mut known.sights).for_each(|sight| sight.is_sure = false);
        self.each_record(|record| (record.status, record.place) = (Status::Maybe, 0));
    }
}

impl Id {
    /// Event time: a repeat at `time` may have made a window start again, and what is near may have moved there; or it moves
    /// there in a process with a longer window.
    fn may_have_moved(&mut self, time: i64) {
        let is_near = |from: i64, to: i64| time - to < REACH_MAX && from - time < REACH_MAX;
        for sight in self.sights.iter_mut().filter(|sight| is_near(sight.from, sight.to)) {
            sight.is_sure = false;
        }
        for record in &mut self.records {
            if matches!(record.what, What::Seen { from, to } if is_near(from, to)) {
                (record.status, record.place, record.is_exact) = (Status::Maybe, 0, false);
            }
        }
    }
}

impl Record {
    /// That of a sight that a process has found, or not.
    fn found(sight: &Sight) -> Self {
        let status = if sight.is_sure { Status::Durable } else { Status::Maybe };
        Self { what: What::Seen { from: sight.from, to: sight.to }, status, place: 0, is_exact: false }
    }
}

/// More than the longest window and its slack.
const REACH_MAX: i64 = 131_000_000_000;
/// Times per ID that are remembered as forgotten.
const GONE_MAX: usize = 8;
