//! [`ChannelSink`]: events for another thread of this process.

use std::time::Duration;

use crossbeam::channel::{Sender, TrySendError};

use super::{Durable, FailureClass, Guarantees, Idempotency, Order, Sink, SinkError};
use crate::event::{Event, OwnedEvent};

/// Sends a copy of each event into a channel.
///
/// Delivered means sent, not received: what is in the channel dies with the process. A full channel is waited for, unless
/// [`defer_when_full`](Self::defer_when_full) says otherwise. Once all receivers are gone no event can ever be sent, so
/// what is left of the batch fails as [`FailureClass::Permanent`].
///
/// The channel is that of `crossbeam` 0.8, which so is a part of this API.
///
/// ```
/// use dedupd::sink::{ChannelSink, Sink};
/// use dedupd::Event;
///
/// let (sender, receiver) = crossbeam::channel::bounded(1024);
/// let mut sink = ChannelSink::new(sender);
/// sink.deliver(&[Event::new("evt_1", "{}")])?;
/// assert_eq!(receiver.recv()?.as_event().id(), b"evt_1");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct ChannelSink {
    sender: Sender<OwnedEvent>,
    defer: Option<Duration>,
}

impl ChannelSink {
    /// What it promises.
    pub const GUARANTEES: Guarantees = Guarantees::new(Idempotency::None, Order::AsDelivered, Durable::No);

    /// Sends into the channel of `sender`. One without a bound has no limit but memory.
    #[must_use]
    pub fn new(sender: Sender<OwnedEvent>) -> Self {
        Self { sender, defer: None }
    }

    /// Does not wait for a full channel: what finds no room is asked for again after `wait`, as [`FailureClass::Defer`].
    #[must_use = "this returns the sink"]
    pub fn defer_when_full(self, wait: Duration) -> Self {
        Self { defer: Some(wait), ..self }
    }

    /// Sends `event`, or says what becomes of it and why.
    fn send(&self, event: OwnedEvent) -> Result<(), (FailureClass, &'static str)> {
        const GONE: (FailureClass, &str) = (FailureClass::Permanent, "all receivers of the channel are gone");
        match self.defer {
            None => self.sender.send(event).map_err(|_| GONE),
            Some(wait) => self.sender.try_send(event).map_err(|error| match error {
                TrySendError::Full(_) => (FailureClass::Defer(wait), "the channel is full"),
                TrySendError::Disconnected(_) => GONE,
            }),
        }
    }
}

impl Sink for ChannelSink {
    fn deliver(&mut self, batch: &[Event<'_>]) -> Result<(), SinkError> {
        for (index, event) in batch.iter().enumerate() {
            let sent = self.send(OwnedEvent::from(*event));
            sent.map_err(|(class, why)| SinkError::rest(index..batch.len(), class).because(why))?;
        }
        Ok(())
    }

    fn guarantees(&self) -> Guarantees {
        Self::GUARANTEES
    }
}

#[cfg(test)]
mod tests {
    use std::error::Error as _;

    use crossbeam::channel::bounded;

    use super::*;

    #[test]
    fn a_full_channel_is_waited_for_and_order_is_kept() {
        let (sender, receiver) = bounded(1);
        let sending = std::thread::spawn(move || {
            let ids: Vec<String> = (0..100).map(|n| n.to_string()).collect();
            let batch: Vec<_> = ids.iter().map(|id| Event::new(id, "")).collect();
            ChannelSink::new(sender).deliver(&batch)
        });
        let received: Vec<_> = receiver.iter().collect();
        sending.join().unwrap().unwrap();
        let ids = received.iter().map(|event| event.as_event().id().to_vec());
        assert_eq!(ids.collect::<Vec<_>>(), (0..100).map(|n| n.to_string().into_bytes()).collect::<Vec<_>>());
    }

    #[test]
    fn what_finds_no_room_is_deferred() {
        let (sender, receiver) = bounded(2);
        let wait = Duration::from_millis(5);
        let mut sink = ChannelSink::new(sender).defer_when_full(wait);
        let error = sink.deliver(&[Event::new("a", ""); 4]).unwrap_err();
        assert_eq!(error.failures(), [(2, FailureClass::Defer(wait)), (3, FailureClass::Defer(wait))]);
        assert_eq!(receiver.try_iter().count(), 2);
        sink.deliver(&[Event::new("a", ""); 2]).unwrap();
    }

    #[test]
    fn without_a_receiver_what_is_left_fails_for_good() {
        let (sender, receiver) = bounded(8);
        let mut sink = ChannelSink::new(sender.clone());
        sink.deliver(&[Event::new("a", "")]).unwrap();
        drop(receiver);
        for mut sink in [sink, ChannelSink::new(sender).defer_when_full(Duration::ZERO)] {
            let error = sink.deliver(&[Event::new("b", ""), Event::new("c", "")]).unwrap_err();
            assert_eq!(error.failures(), [(0, FailureClass::Permanent), (1, FailureClass::Permanent)]);
            assert_eq!(error.source().unwrap().to_string(), "all receivers of the channel are gone");
        }
    }

    #[test]
    fn a_receiver_that_leaves_while_a_full_channel_is_waited_for_ends_the_wait() {
        let (sender, receiver) = bounded(1);
        let sending = std::thread::spawn(move || ChannelSink::new(sender).deliver(&[Event::new("a", ""); 3]));
        drop((receiver.recv().unwrap(), receiver));
        let error = sending.join().unwrap().unwrap_err();
        assert_eq!(error.failures().last(), Some(&(2, FailureClass::Permanent)));
    }
}
