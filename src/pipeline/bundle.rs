//! [`Bundle`]: events on their way through the pipeline, in one arena.
//!
//! Bytes of events stand one after the other; what is the same for all events costs 32 bytes each. What only some carry
//! (a time, a place in a source, other IDs) stands behind the payload, so that plain events do not pay for it:
//!
//! ```text
//! id | payload | extra: flags u8, [time i64], [ledger u32, sequence u64, position u64], [length u32, bytes] x 3
//! ```
//!
//! In this process only, so in its byte order.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use super::settle::OnSettled;
use super::sources::{Ledger, Origin};
use crate::event::{Event, Fingerprint};
use crate::time::Timestamp;

/// Events in the order in which they were submitted.
pub(super) struct Bundle {
    /// It is full with this many.
    events_max: usize,
    bytes: Vec<u8>,
    events: Vec<Packed>,
    /// By event, rising. Never locked: what is shared of a bundle has no use for them.
    callbacks: Mutex<Vec<(u32, OnSettled)>>,
    /// Some event has a callback or a place in a source.
    has_tickets: bool,
    /// Some event has a time of its own.
    has_times: bool,
    /// When the first event was put in.
    opened: Option<Instant>,
}

#[derive(Clone, Copy)]
struct Packed {
    fingerprint: Fingerprint,
    start: u32,
    id_bytes: u32,
    payload_bytes: u32,
    extra_bytes: u32,
}

impl Bundle {
    pub(super) fn new(events_max: usize) -> Self {
        Self {
            events_max,
            bytes: Vec::new(),
            events: Vec::new(),
            callbacks: Mutex::new(Vec::new()),
            has_tickets: false,
            has_times: false,
            opened: None,
        }
    }

    /// Puts an event in, unless the bundle is full. An empty one takes any event of at most [`EVENT_BYTES_MAX`].
    pub(super) fn push(
        &mut self,
        fingerprint: Fingerprint,
        event: &Event<'_>,
        origin: Option<Origin>,
        on_settled: &mut Option<OnSettled>,
    ) -> bool {
        let bytes = event.bytes();
        if self.opened.is_none() {
            self.opened = Some(Instant::now());
        } else if self.events.len() >= self.events_max || self.bytes.len() + bytes > BYTES_MAX {
            return false;
        }
        let start = self.bytes.len();
        self.bytes.extend_from_slice(event.id());
        self.bytes.extend_from_slice(event.payload());
        let behind = self.bytes.len();
        if !event.is_plain() || origin.is_some() {
            self.push_extra(event, origin);
        }
        let packed = Packed {
            fingerprint,
            start: start as u32,
            id_bytes: event.id().len() as u32,
            payload_bytes: event.payload().len() as u32,
            extra_bytes: (self.bytes.len() - behind) as u32,
        };
        self.has_tickets |= origin.is_some();
        self.has_times |= event.time().is_some();
        if let Some(on_settled) = on_settled.take() {
            let event = self.events.len() as u32;
            self.callbacks().push((event, on_settled));
            self.has_tickets = true;
        }
        self.events.push(packed);
        true
    }

    #[cold]
    fn push_extra(&mut self, event: &Event<'_>, origin: Option<Origin>) {
        let parts = [event.operation_id(), event.correlation_id(), event.trace_parent()];
        let mut flags = (u8::from(event.time().is_some()) * TIME) | (u8::from(origin.is_some()) * ORIGIN);
        for (part, flag) in parts.iter().zip(PARTS) {
            flags |= u8::from(part.is_some()) * flag;
        }
        self.bytes.push(flags);
        if let Some(time) = event.time() {
            self.bytes.extend_from_slice(&time.as_nanos().to_ne_bytes());
        }
        if let Some(origin) = origin {
            self.bytes.extend_from_slice(&origin.ledger.to_ne_bytes());
            self.bytes.extend_from_slice(&origin.sequence.to_ne_bytes());
            self.bytes.extend_from_slice(&origin.position.to_ne_bytes());
        }
        for part in parts.into_iter().flatten() {
            self.bytes.extend_from_slice(&(part.len() as u32).to_ne_bytes());
            self.bytes.extend_from_slice(part);
        }
    }

    /// Copies event `index` of `other`, with its callback, to the end of this one, which has room for it.
    pub(super) fn adopt(&mut self, other: &mut Self, index: usize) {
        let packed = other.events[index];
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&other.bytes[packed.range()]);
        if let Some(callback) = other.take_callback(index) {
            let event = self.events.len() as u32;
            self.callbacks().push((event, callback));
        }
        self.has_tickets |= other.has_tickets;
        self.has_times |= other.has_times;
        self.opened = self.opened.or(other.opened);
        self.events.push(Packed { start: start as u32, ..packed });
    }

    pub(super) fn len(&self) -> usize {
        self.events.len()
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes.len()
    }

    pub(super) fn opened(&self) -> Option<Instant> {
        self.opened
    }

    pub(super) fn has_tickets(&self) -> bool {
        self.has_tickets
    }

    pub(super) fn fingerprint(&self, index: usize) -> Fingerprint {
        self.events[index].fingerprint
    }

    pub(super) fn fingerprints(&self) -> impl Iterator<Item = Fingerprint> {
        self.events.iter().map(|packed| packed.fingerprint)
    }

    /// Event `index`; `ledgers` are those of all sources.
    #[inline]
    pub(super) fn event<'a>(&'a self, index: usize, ledgers: &'a [Arc<Ledger>]) -> Event<'a> {
        let [id, payload, extra] = self.parts(index);
        let event = Event::new(id, payload);
        if extra.is_empty() { event } else { with_extra(event, extra, ledgers) }
    }

    /// The bytes of event `index`: its ID, its payload, and what only some events have.
    #[inline]
    pub(super) fn parts(&self, index: usize) -> [&[u8]; 3] {
        let packed = &self.events[index];
        let bytes = &self.bytes[packed.range()];
        let (id, rest) = bytes.split_at(packed.id_bytes as usize);
        let (payload, extra) = rest.split_at(packed.payload_bytes as usize);
        [id, payload, extra]
    }

    /// All events, in order.
    pub(super) fn all<'a>(&'a self, ledgers: &'a [Arc<Ledger>]) -> impl Iterator<Item = Event<'a>> {
        (0..self.len()).map(|index| self.event(index, ledgers))
    }

    /// The time of event `index`, when it has one.
    pub(super) fn time(&self, index: usize) -> Option<Timestamp> {
        if self.has_times { self.event(index, &[]).time() } else { None }
    }

    /// Where event `index` comes from, when that is known.
    pub(super) fn origin(&self, index: usize) -> Option<Origin> {
        let packed = &self.events[index];
        let range = packed.range();
        let extra = &self.bytes[range.end - packed.extra_bytes as usize..range.end];
        if extra.is_empty() { None } else { Extra::read(extra).origin }
    }

    /// Takes out what is to be called when event `index` is settled.
    pub(super) fn take_callback(&mut self, index: usize) -> Option<OnSettled> {
        let callbacks = self.callbacks();
        let at = callbacks.binary_search_by_key(&(index as u32), |(index, _)| *index).ok()?;
        Some(callbacks.remove(at).1)
    }

    fn callbacks(&mut self) -> &mut Vec<(u32, OnSettled)> {
        self.callbacks.get_mut().unwrap_or_else(PoisonError::into_inner)
    }

    /// Empties it for the next round. An arena that one large event made large is given back.
    pub(super) fn reset(&mut self) {
        self.events.clear();
        self.callbacks().clear();
        (self.has_tickets, self.has_times, self.opened) = (false, false, None);
        if self.bytes.capacity() > 2 * BYTES_MAX {
            self.bytes = Vec::new();
        }
        self.bytes.clear();
    }
}

impl Packed {
    fn range(&self) -> std::ops::Range<usize> {
        let bytes = self.id_bytes as usize + self.payload_bytes as usize + self.extra_bytes as usize;
        self.start as usize..self.start as usize + bytes
    }
}

/// What stands behind a payload.
#[derive(Default)]
struct Extra<'a> {
    time: Option<Timestamp>,
    origin: Option<Origin>,
    parts: [Option<&'a [u8]>; 3],
}

impl<'a> Extra<'a> {
    fn read(mut bytes: &'a [u8]) -> Self {
        let mut extra = Self::default();
        let [flags] = take(&mut bytes);
        if flags & TIME != 0 {
            extra.time = Some(Timestamp::from_nanos(i64::from_ne_bytes(take(&mut bytes))));
        }
        if flags & ORIGIN != 0 {
            extra.origin = Some(Origin {
                ledger: u32::from_ne_bytes(take(&mut bytes)),
                sequence: u64::from_ne_bytes(take(&mut bytes)),
                position: u64::from_ne_bytes(take(&mut bytes)),
            });
        }
        for (part, flag) in extra.parts.iter_mut().zip(PARTS) {
            if flags & flag != 0 {
                let length = u32::from_ne_bytes(take(&mut bytes)) as usize;
                let (this, rest) = bytes.split_at(length.min(bytes.len()));
                (*part, bytes) = (Some(this), rest);
            }
        }
        extra
    }
}

/// The next `N` bytes, which were written here.
fn take<const N: usize>(bytes: &mut &[u8]) -> [u8; N] {
    let (this, rest) = bytes.split_first_chunk().unwrap_or((&[0; N], &[]));
    *bytes = rest;
    *this
}

/// An event with its extra bytes.
#[cold]
pub(super) fn with_extra<'a>(mut event: Event<'a>, extra: &'a [u8], ledgers: &'a [Arc<Ledger>]) -> Event<'a> {
    let extra = Extra::read(extra);
    if let Some(time) = extra.time {
        event = event.with_time(time);
    }
    if let Some(origin) = extra.origin
        && let Some(ledger) = ledgers.get(origin.ledger as usize)
    {
        event = event.with_position(ledger.source(), origin.position);
    }
    let [operation_id, correlation_id, trace_parent] = extra.parts;
    if let Some(id) = operation_id {
        event = event.with_operation_id(id);
    }
    if let Some(id) = correlation_id {
        event = event.with_correlation_id(id);
    }
    if let Some(parent) = trace_parent {
        event = event.with_trace_parent(parent);
    }
    event
}

const TIME: u8 = 1;
const ORIGIN: u8 = 2;
const PARTS: [u8; 3] = [4, 8, 16];

/// What an event may hold: ID, payload and the rest together.
pub(super) const EVENT_BYTES_MAX: usize = 1 << 28;
/// A bundle is full with this many events, or bytes; one event may be larger.
pub(super) const EVENTS_MAX: usize = 256;
pub(super) const BYTES_MAX: usize = 1 << 16;

#[cfg(test)]
mod tests {
    use super::super::sources::Sources;
    use super::*;
    use crate::event::Source;

    #[test]
    fn what_is_put_in_comes_out() {
        let sources = Sources::new(&[]);
        let ledger = sources.ledger(Source::from("s")).unwrap();
        let origin = ledger.begin(7);
        let plain = Event::new("a", "payload");
        let full = Event::new("", "").with_time(Timestamp::from_millis(-1)).with_position("s", 7);
        let full = full.with_operation_id("o").with_correlation_id("").with_trace_parent("t");
        let mut bundle = Bundle::new(EVENTS_MAX);
        assert!(bundle.push(Fingerprint::from_u128(1), &plain, None, &mut None));
        assert!(bundle.push(Fingerprint::from_u128(2), &full, Some(origin), &mut Some(Box::new(|_| ()))));
        let ledgers = sources.all();
        let mut copy = Bundle::new(1);
        copy.adopt(&mut bundle, 1);
        assert_eq!((bundle.event(0, &ledgers), bundle.event(1, &ledgers)), (plain, full));
        assert_eq!((copy.event(0, &ledgers), copy.fingerprint(0)), (full, Fingerprint::from_u128(2)));
        assert_eq!((copy.origin(0), bundle.origin(0)), (Some(origin), None));
        assert!(copy.take_callback(0).is_some() && bundle.take_callback(1).is_none());
    }

    #[test]
    fn a_full_one_takes_no_more_and_an_empty_one_takes_anything() {
        let mut bundle = Bundle::new(EVENTS_MAX);
        let large = vec![0; 3 * BYTES_MAX];
        assert!(bundle.push(Fingerprint::from_u128(0), &Event::new("a", &large), None, &mut None));
        assert!(!bundle.push(Fingerprint::from_u128(0), &Event::new("a", "b"), None, &mut None));
        bundle.reset();
        for _ in 0..EVENTS_MAX {
            assert!(bundle.push(Fingerprint::from_u128(0), &Event::new("a", "b"), None, &mut None));
        }
        assert!(!bundle.push(Fingerprint::from_u128(0), &Event::new("a", "b"), None, &mut None));
    }
}
