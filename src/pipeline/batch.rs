//! [`Batch`]: events that are delivered together.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use super::bundle::{Bundle, with_extra};
use super::repeats::Marked;
use super::settle::OnSettled;
use super::sources::{Ledger, Origin, Sources};
use crate::event::{Event, Fingerprint};
use crate::queue::Parcel;
use crate::sink::{FailureClass, Sink, SinkError};
use crate::time::Timestamp;
use crate::window::prefetch;

/// Bundles, and which of their events are meant.
pub(super) struct Batch {
    pub(super) bundles: Vec<Single>,
    pub(super) picks: Vec<Place>,
    /// The bundles go back to the pool.
    pub(super) is_pooled: bool,
}

/// Where an event stands.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    pub(super) bundle: u32,
    pub(super) event: u32,
}

impl Batch {
    #[inline]
    pub(super) fn event_at<'a>(&'a self, place: Place, ledgers: &'a [Arc<Ledger>]) -> Event<'a> {
        let Place { bundle, event } = place;
        self.bundles[bundle as usize].item.event(event as usize, ledgers)
    }

    pub(super) fn fingerprint(&self, pick: usize) -> Fingerprint {
        self.fingerprint_at(self.picks[pick])
    }

    pub(super) fn fingerprint_at(&self, place: Place) -> Fingerprint {
        self.bundles[place.bundle as usize].item.fingerprint(place.event as usize)
    }

    /// Whom to tell about the event at `place`.
    pub(super) fn ticket(&mut self, place: Place) -> (Option<Origin>, Option<OnSettled>) {
        let (bundle, event) = (&mut self.bundles[place.bundle as usize].item, place.event as usize);
        if bundle.has_tickets() { (bundle.origin(event), bundle.take_callback(event)) } else { (None, None) }
    }

    /// The event's own time, when it has one.
    pub(super) fn time_at(&self, place: Place) -> Option<Timestamp> {
        self.bundles[place.bundle as usize].item.time(place.event as usize)
    }

    /// Where those come from whose fate is certain once something is `marked`: those of `origins`, and the repeats of that.
    pub(super) fn certain(&self, marked: &Marked, repeats: &[Place], origins: &[Origin]) -> Vec<Origin> {
        let certain = repeats.iter().filter(|place| marked.covers(self, **place));
        let origin = |place: &Place| self.bundles[place.bundle as usize].item.origin(place.event as usize);
        origins.iter().copied().chain(certain.filter_map(origin)).collect()
    }

    /// A copy of the event at `place` that stands alone, with whom to tell.
    pub(super) fn single(&mut self, place: Place) -> Single {
        let mut single = Bundle::new(1);
        single.adopt(&mut self.bundles[place.bundle as usize].item, place.event as usize);
        Box::new(Parcel::new(single))
    }

    /// A batch of events that stand alone.
    pub(super) fn of(singles: Vec<Single>) -> Self {
        let picks = (0..singles.len() as u32).map(|bundle| Place { bundle, event: 0 }).collect();
        Self { bundles: singles, picks, is_pooled: false }
    }
}

/// Where the events of `bundles` stand, in order.
pub(super) fn places(bundles: &[Single]) -> impl Iterator<Item = Place> {
    (0..).zip(bundles).flat_map(|(bundle, single)| {
        let events = 0..single.item.len() as u32;
        events.map(move |event| Place { bundle, event })
    })
}

/// A bundle; mostly said of one event that stands alone. Boxed as it moves between pool, worker and desk.
pub(super) type Single = Box<Parcel<Bundle>>;

/// Which events of a batch were not delivered, by pick.
pub(super) type Failures = Vec<(u32, FailureClass)>;

/// How delivering went.
pub(super) enum Outcome {
    Done(Failures),
    /// The sink panicked with this message: what it delivered is not known.
    Panicked(String),
}

/// Hands batches to a sink.
pub(super) struct Deliverer {
    ledgers: Vec<Arc<Ledger>>,
    /// Always empty; its memory is used again.
    events: Vec<Event<'static>>,
}

impl Deliverer {
    pub(super) fn new() -> Self {
        Self { ledgers: Vec::new(), events: Vec::new() }
    }

    /// Delivers the chosen events of `batch`, all when `picks` is `None`.
    pub(super) fn deliver(
        &mut self,
        sink: &mut dyn Sink,
        batch: &Batch,
        picks: Option<&[u32]>,
        sources: &Sources,
    ) -> Outcome {
        if batch.bundles.iter().any(|bundle| bundle.item.has_tickets()) && self.ledgers.len() < sources.count() {
            self.ledgers = sources.all();
        }
        let mut events: Vec<Event<'_>> = std::mem::take(&mut self.events);
        let ledgers = &self.ledgers;
        let mut add = |place: Place| {
            let [id, payload, extra] = batch.bundles[place.bundle as usize].item.parts(place.event as usize);
            // The sink reads it next, and it may be in another core's cache still.
            prefetch(payload.as_ptr());
            // Each is made in its place: one that is made first and moved costs twice as much.
            if extra.is_empty() {
                events.push(Event::new(id, payload));
            } else {
                events.push(with_extra(Event::new(id, payload), extra, ledgers));
            }
        };
        match picks {
            None => batch.picks.iter().for_each(|place| add(*place)),
            Some(picks) => picks.iter().for_each(|pick| add(batch.picks[*pick as usize])),
        }
        let count = events.len();
        // The error is the sink's, too: it ends where a panic is caught.
        let deliver = || match sink.deliver(&events) {
            Ok(()) => Vec::new(),
            Err(error) => failures(&error.of_batch(count), picks),
        };
        let delivered = catch_unwind(AssertUnwindSafe(deliver));
        events.clear();
        // Of none there is none: only the memory is kept.
        self.events = events.into_iter().map(|_| Event::new("", "")).collect();
        match delivered {
            Err(panic) => Outcome::Panicked(message(&*panic)),
            Ok(failures) => Outcome::Done(failures),
        }
    }
}

/// By pick, each once.
fn failures(error: &SinkError, picks: Option<&[u32]>) -> Failures {
    let pick = |index: usize| picks.map_or(index as u32, |picks| picks[index]);
    let mut failures: Failures = error.failures().iter().map(|(index, class)| (pick(*index), *class)).collect();
    failures.sort_by_key(|(pick, _)| *pick);
    failures.dedup_by_key(|(pick, _)| *pick);
    failures
}

/// What a panic said.
pub(super) fn message(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "no message".to_owned())
}
