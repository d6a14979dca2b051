//! What a state knows of an ID, told from its log.
//!
//! The log is read from outside: nothing is locked and nothing written, so the state may be in use. Ids that are
//! reserved at the moment, and those of the last millisecond, are not in it.

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::time::Duration;

use dedupd::state::{self, StateError, What};
use dedupd::{Clock as _, Deduplicator, Fingerprint, SystemClock, Timestamp};

use crate::args::KeyArgs;
use crate::state::rfc3339;

/// A state, and the rules by which it is judged.
pub struct Past {
    dir: PathBuf,
    window: Duration,
    slack: Duration,
    /// In event time.
    lateness: Option<Duration>,
    max_future: Duration,
    extends: bool,
    /// Of the ids that were asked about last.
    standings: HashMap<Fingerprint, Standing>,
    /// How far time has come in the state.
    front: Option<Timestamp>,
}

/// What the log says of one ID.
#[derive(Default)]
struct Standing {
    /// When it was seen, since it was forgotten last. In processing time only the last one counts.
    seen: Vec<Sight>,
    /// How far time had come when it was forgotten: `dedupd forget` moves none.
    forgotten: Option<Timestamp>,
}

#[derive(Clone, Copy)]
struct Sight {
    time: Timestamp,
    /// Its window started again then.
    is_refresh: bool,
}

/// A question: the ID, and in event time when its event was.
#[derive(Clone, Copy)]
pub struct Question {
    pub fingerprint: Fingerprint,
    /// What stands for its ID and payload, when payloads are compared.
    pub digest: Option<Fingerprint>,
    pub time: Option<Timestamp>,
}

impl Past {
    /// `like` is a set of the same window.
    pub fn new(dir: PathBuf, args: &KeyArgs, like: &Deduplicator) -> Self {
        Self {
            dir,
            window: like.window(),
            slack: like.slack(),
            lateness: args.time_field.as_ref().map(|_| args.lateness.unwrap_or(args.window)),
            max_future: args.max_future,
            extends: args.extend,
            standings: HashMap::new(),
            front: None,
        }
    }

    /// Reads the log as it is now, for what it says of `ids`.
    pub fn look_up(&mut self, ids: impl Iterator<Item = Fingerprint>) -> Result<(), StateError> {
        self.standings = ids.map(|id| (id, Standing::default())).collect();
        let (standings, front) = (&mut self.standings, &mut self.front);
        let event_window = self.lateness.map(|_| self.window);
        state::records(&self.dir, |record| {
            *front = (*front).max(Some(record.engine_time));
            match record.what {
                What::Seen(id) => {
                    if let Some(standing) = standings.get_mut(&id) {
                        standing.see(Sight { time: record.time, is_refresh: false }, event_window);
                    }
                }
                What::Refresh(id) => {
                    if let Some(standing) = standings.get_mut(&id) {
                        standing.see(Sight { time: record.time, is_refresh: true }, event_window);
                    }
                }
                What::Forget(id) => {
                    if let Some(standing) = standings.get_mut(&id) {
                        *standing = Standing { seen: Vec::new(), forgotten: Some(record.time) };
                    }
                }
                _ => {}
            }
            ControlFlow::Continue(())
        })
    }

    /// The verdict that the state leads to, in words. The ID must be one of those that were looked up, and its digest too.
    pub fn judge(&self, question: Question) -> String {
        let clock = SystemClock::new().now();
        let (Some(lateness), Some(time)) = (self.lateness, question.time) else {
            // Where time has come further than the clock, it waits for it.
            let now = self.front.map_or(clock, |front| front.max(clock));
            return self.tell(question, |standing| {
                let last = standing.seen.last()?;
                Some((last, now.saturating_since(last.time)))
            });
        };
        let is_future = time > clock.saturating_add(self.max_future);
        let time = if is_future { self.front.unwrap_or(clock) } else { time };
        if let Some(front) = self.front.filter(|front| time < front.saturating_sub(lateness)) {
            return format!("none: late, as the state has come to {}", rfc3339(front));
        }
        let told = self.tell(question, |standing| {
            let distances = standing.seen.iter().map(|sight| (sight, distance(sight.time, time)));
            // Where repeats extend, an ID is kept at the latest of its times.
            match self.extends {
                true => distances.max_by_key(|(sight, _)| sight.time),
                false => distances.min_by_key(|(_, distance)| *distance),
            }
        });
        if is_future { format!("{told}; future, so judged as if it were at {}", rfc3339(time)) } else { told }
    }

    /// The verdict by the sight that counts of what stands of an ID, and of its payload, and how far away that is.
    fn tell(&self, question: Question, sight: impl Fn(&Standing) -> Option<(&Sight, Duration)>) -> String {
        let standing = self.standings.get(&question.fingerprint);
        let Some((last, age)) = standing.and_then(&sight) else {
            return match standing.and_then(|standing| standing.forgotten) {
                Some(time) => format!("first-seen: new, as it was forgotten, at {} or later", rfc3339(time)),
                None => "first-seen: new".to_owned(),
            };
        };
        let seen = if last.is_refresh { "seen again" } else { "seen" };
        let at = rfc3339(last.time);
        let at_most = self.window.saturating_add(self.slack);
        let is_known = |digest| self.standings.get(&digest).and_then(&sight).is_some_and(|(_, age)| age < at_most);
        if age < self.window && question.digest.is_some_and(|digest| !is_known(digest)) {
            format!("duplicate: conflict, as it was {seen} at {at} with another payload")
        } else if age < self.window {
            format!("duplicate: {seen} at {at}")
        } else if age < at_most {
            format!("first-seen or duplicate: {seen} at {at}, and its window is just ending")
        } else {
            format!("first-seen: reappeared, as it was {seen} at {at} and its window has ended")
        }
    }
}

impl Standing {
    /// Takes notice of a sight; `event_window` is the window in event time.
    fn see(&mut self, sight: Sight, event_window: Option<Duration>) {
        self.forgotten = None;
        match event_window {
            // The one window that there is.
            None => self.seen.clear(),
            // A window that starts again moves the one that it is in, and never back.
            Some(window) if sight.is_refresh => {
                let is_near = |other: &Sight| distance(other.time, sight.time) < window;
                if self.seen.iter().any(|other| is_near(other) && other.time >= sight.time) {
                    return;
                }
                self.seen.retain(|other| !is_near(other));
            }
            Some(_) => {}
        }
        self.seen.push(sight);
    }
}

fn distance(one: Timestamp, other: Timestamp) -> Duration {
    one.saturating_since(other).max(other.saturating_since(one))
}
