//! [`Guarantees`]: what a sink promises.

/// What a sink promises. The delivery mode of a pipeline follows from it, and `dedupd sinks` prints it.
///
/// The default promises nothing.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
#[non_exhaustive]
pub struct Guarantees {
    /// What a second delivery of an event does.
    pub idempotency: Idempotency,
    /// In which order events arrive.
    pub order: Order,
    /// What a delivery survives.
    pub durable: Durable,
}

/// What a second delivery of an event does.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
#[non_exhaustive]
pub enum Idempotency {
    /// The event arrives twice.
    #[default]
    None,
    /// The target drops it, by the event's ID or operation ID.
    ById,
    /// What is out and not committed is cut back before it is delivered again: see
    /// [`Sink::position`](super::Sink::position).
    CutBack,
}

/// In which order events arrive.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
#[non_exhaustive]
pub enum Order {
    /// In any.
    #[default]
    None,
    /// As delivered.
    AsDelivered,
}

/// What a delivery survives.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
#[non_exhaustive]
pub enum Durable {
    /// Nothing: it is in this process.
    #[default]
    No,
    /// The end of this process; a power cut only after [`Sink::flush`](super::Sink::flush).
    AfterFlush,
    /// The end of this process. What the target does with it is not known.
    HandedOver,
    /// A power cut, once [`Sink::deliver`](super::Sink::deliver) has returned.
    OnDelivery,
}

impl Guarantees {
    /// These promises.
    #[must_use]
    pub const fn new(idempotency: Idempotency, order: Order, durable: Durable) -> Self {
        Self { idempotency, order, durable }
    }

    /// What both promise. Of two kinds of idempotency nothing is left: each needs the other kind of care.
    #[must_use]
    pub fn weakest(self, other: Self) -> Self {
        Self {
            idempotency: if self.idempotency == other.idempotency { self.idempotency } else { Idempotency::None },
            order: if self.order == other.order { self.order } else { Order::None },
            durable: if self.durable.strength() < other.durable.strength() { self.durable } else { other.durable },
        }
    }
}

impl Idempotency {
    /// The stable name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::ById => "by-id",
            Self::CutBack => "cut-back",
        }
    }
}

impl Order {
    /// The stable name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::AsDelivered => "as-delivered",
        }
    }
}

impl Durable {
    fn strength(self) -> u8 {
        match self {
            Self::No => 0,
            Self::HandedOver => 1,
            Self::AfterFlush => 2,
            Self::OnDelivery => 3,
        }
    }

    /// The stable name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::No => "no",
            Self::AfterFlush => "after-flush",
            Self::HandedOver => "handed-over",
            Self::OnDelivery => "on-delivery",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_weakest_of_two_is_what_both_keep() {
        let file = Guarantees::new(Idempotency::CutBack, Order::AsDelivered, Durable::AfterFlush);
        let pipe = Guarantees::new(Idempotency::None, Order::AsDelivered, Durable::HandedOver);
        let http = Guarantees::new(Idempotency::ById, Order::None, Durable::OnDelivery);
        assert_eq!(file.weakest(file), file);
        assert_eq!(file.weakest(pipe), pipe);
        let both = Guarantees::new(Idempotency::None, Order::None, Durable::AfterFlush);
        assert_eq!((file.weakest(http), http.weakest(file)), (both, both));
        assert_eq!(http.weakest(Guarantees::default()), Guarantees::default());
    }
}
