//! Filling a set from its log, on several threads.
//!
//! One thread reads and checks frames in sequence. Each of the others records the ids of its own share of the shards, so
//! what concerns one ID stays in sequence. In processing time an entry belongs to the generation in which it is
//! recorded, so at the end of each slice all wait until everything before it is recorded; then time moves.

use std::num::NonZero;
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::thread::{self, Scope, ScopedJoinHandle};

use crate::event::Fingerprint;
use crate::log::{Kind, Record, Replayed};
use crate::time::Timestamp;
use crate::window::Set;

use super::progress::Kept;

/// What a replay did.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Replay {
    /// Records of ids that were applied.
    pub(super) ids: u64,
    pub(super) frames: u64,
    /// Ids that the limits of this set have no room for.
    pub(super) full: u64,
    /// The sequence and the time of the first frame.
    pub(super) first: Option<(u64, Timestamp)>,
}

/// Takes frames in sequence.
pub(super) struct Replayer<'a> {
    set: &'a Set,
    event_time: bool,
    /// Ids of frames older than this are not recorded: they are forgotten.
    forgotten_before: i64,
    progress: &'a mut Kept,
    replay: Replay,
    /// The time of this frame, the latest of any frame so far, and the slice that the latest is in.
    time: i64,
    newest: i64,
    slice: Option<i64>,
    lanes: Vec<Lane<'a>>,
}

/// One of the other threads.
struct Lane<'a> {
    /// What it is to be told next: one of the two is empty.
    ids: Vec<Fingerprint>,
    ids_at: Vec<Sight>,
    sender: SyncSender<Work>,
    thread: ScopedJoinHandle<'a, u64>,
}

/// An ID at a time of its own.
struct Sight {
    id: Fingerprint,
    time: i64,
    is_refresh: bool,
}

/// What they are told.
enum Work {
    Restore {
        ids: Vec<Fingerprint>,
        time: i64,
    },
    RestoreAt(Vec<Sight>),
    Forget(Fingerprint),
    /// To drop this, when all that was told before is done.
    Wait(Sender<()>),
}

impl<'a> Replayer<'a> {
    pub(super) fn start<'e>(
        scope: &'a Scope<'a, 'e>,
        set: &'a Set,
        event_time: bool,
        is_limited: bool,
        ids: u64,
        forgotten_before: i64,
        progress: &'a mut Kept,
    ) -> Self {
        // Where the oldest ids make room for others, they are recorded in the order in which they came.
        let threads = match is_limited {
            true => 1,
            false => thread::available_parallelism().map_or(1, NonZero::get).min(THREADS_MAX),
        };
        let lanes = (0..threads).map(|lane| Lane::start(scope, set, move || set.presize_share(ids, lane, threads)));
        let lanes = lanes.collect();
        let (replay, time, newest, slice) = (Replay::default(), i64::MIN, i64::MIN, None);
        Self { set, event_time, forgotten_before, progress, replay, time, newest, slice, lanes }
    }

    /// Applies one frame.
    pub(super) fn apply(&mut self, frame: Replayed<'_>) {
        self.replay.frames += 1;
        self.replay.first.get_or_insert((frame.sequence, frame.time));
        self.reach(frame.time.as_nanos());
        for record in frame.records {
            self.record(record);
        }
    }

    /// Records of ids that were applied, or wait for it.
    pub(super) fn ids(&self) -> u64 {
        self.replay.ids
    }

    /// Waits until everything is applied.
    pub(super) fn finish(mut self) -> Replay {
        self.flush();
        if self.slice.is_some() {
            self.set.restore_front(self.newest);
        }
        for lane in self.lanes {
            drop(lane.sender);
            match lane.thread.join() {
                Ok(full) => self.replay.full += full,
                Err(payload) => std::panic::resume_unwind(payload),
            }
        }
        self.replay
    }

    /// Moves time to that of a frame, once all that came before is recorded.
    fn reach(&mut self, time: i64) {
        self.time = time;
        let time = self.newest.max(time);
        if time == i64::MIN {
            // In event time, from before the first event.
            return;
        }
        let slice = time.div_euclid(self.set.slack());
        if self.slice != Some(slice) {
            if self.slice.is_some() && !self.event_time {
                self.wait();
            }
            self.slice = Some(slice);
            self.set.restore_front(time);
        }
        self.newest = time;
    }

    fn record(&mut self, record: Record<'_>) {
        match record.kind {
            Kind::Seen | Kind::Refresh if self.time < self.forgotten_before && !self.event_time => {}
            // A frame that waited while others of later times went ahead, and any in event time.
            Kind::Seen | Kind::Refresh if self.event_time || self.is_behind() => {
                let (time, is_refresh) = (self.time, record.kind == Kind::Refresh);
                record.ids().for_each(|id| self.restore_at(id, time, is_refresh));
            }
            Kind::Seen | Kind::Refresh => record.ids().for_each(|id| self.restore(id)),
            Kind::SeenAt | Kind::RefreshAt => {
                let is_refresh = record.kind == Kind::RefreshAt;
                record.ids_at().for_each(|(id, time)| self.restore_at(id, time.as_nanos(), is_refresh));
            }
            Kind::Forget => record.ids().for_each(|id| self.forget(id)),
            Kind::Source | Kind::Sink => {
                if let Some((name, position)) = record.named() {
                    self.progress.restore(record.kind, name, position, self.newest);
                }
            }
            Kind::Claim | Kind::Watermark | Kind::Clock => {}
        }
    }

    fn is_behind(&self) -> bool {
        self.slice.is_some_and(|slice| self.time.div_euclid(self.set.slack()) < slice)
    }

    #[inline]
    fn restore(&mut self, id: Fingerprint) {
        self.replay.ids += 1;
        let (time, lane) = (self.newest, self.lane(id));
        self.lanes[lane].push(id, time);
    }

    fn restore_at(&mut self, id: Fingerprint, time: i64, is_refresh: bool) {
        self.replay.ids += 1;
        let (newest, lane) = (self.newest, self.lane(id));
        self.lanes[lane].push_at(Sight { id, time, is_refresh }, newest);
    }

    fn forget(&mut self, id: Fingerprint) {
        let (time, lane) = (self.newest, self.lane(id));
        self.lanes[lane].flush(time);
        self.lanes[lane].send(Work::Forget(id));
    }

    fn flush(&mut self) {
        let time = self.newest;
        self.lanes.iter_mut().for_each(|lane| lane.flush(time));
    }

    /// Waits until all threads have done what they were told.
    fn wait(&mut self) {
        self.flush();
        let (sender, all_dropped) = channel();
        self.lanes.iter().for_each(|lane| lane.send(Work::Wait(sender.clone())));
        drop(sender);
        // Nobody sends: this ends when the last one has dropped its own.
        let _ = all_dropped.recv();
    }

    /// Consecutive shards share a lane.
    #[inline]
    fn lane(&self, id: Fingerprint) -> usize {
        (((id.high() >> 32) * self.lanes.len() as u64) >> 32) as usize
    }
}

impl<'a> Lane<'a> {
    fn start<'e>(scope: &'a Scope<'a, 'e>, set: &'a Set, prepare: impl FnOnce() + Send + 'a) -> Self {
        let (sender, receiver) = sync_channel(QUEUE_BATCHES);
        let thread = scope.spawn(move || {
            prepare();
            run(set, &receiver)
        });
        Self { ids: Vec::new(), ids_at: Vec::new(), sender, thread }
    }

    #[inline]
    fn push(&mut self, id: Fingerprint, time: i64) {
        if !self.ids_at.is_empty() {
            self.flush(time);
        }
        self.ids.push(id);
        if self.ids.len() == BATCH_IDS {
            self.flush(time);
        }
    }

    fn push_at(&mut self, sight: Sight, time: i64) {
        if !self.ids.is_empty() {
            self.flush(time);
        }
        self.ids_at.push(sight);
        if self.ids_at.len() == BATCH_IDS {
            self.flush(time);
        }
    }

    /// Tells it what is next, at `time` for ids that have none of their own.
    fn flush(&mut self, time: i64) {
        if !self.ids.is_empty() {
            let ids = std::mem::replace(&mut self.ids, Vec::with_capacity(BATCH_IDS));
            self.send(Work::Restore { ids, time });
        }
        if !self.ids_at.is_empty() {
            let sights = std::mem::replace(&mut self.ids_at, Vec::with_capacity(BATCH_IDS));
            self.send(Work::RestoreAt(sights));
        }
    }

    fn send(&self, work: Work) {
        // A thread that is gone has panicked, and `finish` goes on with that.
        let _ = self.sender.send(work);
    }
}

/// Does what it is told; returns for how many ids there was no room.
fn run(set: &Set, receiver: &Receiver<Work>) -> u64 {
    let mut full = 0;
    for work in receiver {
        match work {
            Work::Restore { ids, time } => full += set.restore(&ids, time),
            Work::RestoreAt(sights) => {
                let left = |sight: &&Sight| !set.restore_at(sight.id, sight.time, sight.is_refresh);
                full += sights.iter().filter(left).count() as u64;
            }
            Work::Forget(id) => {
                set.forget(id);
            }
            Work::Wait(sender) => drop(sender),
        }
    }
    full
}

const BATCH_IDS: usize = 4_096;
/// Batches that wait for a thread.
const QUEUE_BATCHES: usize = 8;
const THREADS_MAX: usize = 8;
