//! [`Sorted`]: what is to become of events that were judged.

use super::batch::{Place, Single, places};
use super::books::PipelineStats;
use super::conflict::Conflicting;
use crate::dedup::OnConflict;
use crate::event::{ReserveVerdict, Unjudged};

/// Events that were judged, by what is to become of each.
#[derive(Default)]
pub(super) struct Sorted {
    /// To be delivered.
    pub(super) picks: Vec<Place>,
    /// Indexes into `picks`, rising: delivered and not counted as first-seen, as they could not be judged or are conflicts.
    pub(super) unmarked: Vec<u32>,
    /// Of those, rising, the conflicts.
    pub(super) conflicts: Vec<u32>,
    /// Conflicts that go to the dead letter.
    pub(super) buried: Vec<Place>,
    /// To be told to whoever submitted them, with the conflicts that are nothing else. Left out when nobody is to be told of any.
    pub(super) duplicates: Vec<Place>,
    /// To be attached to what they repeat, whose fate is open.
    pub(super) repeats: Vec<Place>,
    /// Of those, what came with another payload.
    pub(super) waiting: Vec<Place>,
    /// What this adds to the books, but for `read`.
    pub(super) books: PipelineStats,
}

impl Sorted {
    /// All events of `bundles`. `None` when the log failed one of them.
    pub(super) fn all(bundles: &[Single], verdicts: &[ReserveVerdict], on_conflict: OnConflict) -> Option<Self> {
        if !is_plain(bundles, verdicts) {
            return Self::of(places(bundles), verdicts, on_conflict);
        }
        let sorted = Self { picks: first_seen(bundles, verdicts), ..Self::default() };
        let duplicates = verdicts.len() - sorted.picks.len();
        Some(sorted.counted(duplicates))
    }

    /// The events at these places, by their verdicts. `None` when the log failed one of them.
    pub(super) fn of(
        places: impl IntoIterator<Item = Place>,
        verdicts: &[ReserveVerdict],
        on_conflict: OnConflict,
    ) -> Option<Self> {
        let mut sorted = Self::default();
        for (place, verdict) in places.into_iter().zip(verdicts) {
            match verdict {
                ReserveVerdict::FirstSeen => sorted.picks.push(place),
                ReserveVerdict::Duplicate => sorted.duplicates.push(place),
                ReserveVerdict::InFlight => sorted.repeats.push(place),
                ReserveVerdict::Conflict { in_flight } => sorted.add_conflict(place, *in_flight, on_conflict),
                ReserveVerdict::Unjudged(Unjudged::Late) => {
                    sorted.books.late += 1;
                    sorted.pick_unmarked(place);
                }
                ReserveVerdict::Unjudged(Unjudged::Full) => {
                    sorted.books.refused += 1;
                    sorted.pick_unmarked(place);
                }
                ReserveVerdict::Unjudged(_) => return None,
            }
        }
        let duplicates = sorted.duplicates.len() + sorted.buried.len() + sorted.conflicts.len();
        Some(sorted.counted(duplicates))
    }

    fn add_conflict(&mut self, place: Place, in_flight: bool, on_conflict: OnConflict) {
        match Conflicting::of(on_conflict, in_flight) {
            Conflicting::Waits => {
                self.waiting.push(place);
                self.repeats.push(place);
                return;
            }
            Conflicting::Deliver => {
                self.conflicts.push(self.picks.len() as u32);
                self.pick_unmarked(place);
            }
            Conflicting::Bury => self.buried.push(place),
            Conflicting::Drop => self.duplicates.push(place),
        }
        self.books.conflicts += 1;
    }

    fn pick_unmarked(&mut self, place: Place) {
        self.unmarked.push(self.picks.len() as u32);
        self.picks.push(place);
    }

    fn counted(mut self, duplicates: usize) -> Self {
        let first_seen = (self.picks.len() - self.unmarked.len()) as u64;
        (self.books.first_seen, self.books.in_flight) = (first_seen, first_seen);
        (self.books.duplicate, self.books.attached) = (duplicates as u64, self.repeats.len() as u64);
        self
    }
}

/// Whether there are only first-seen events and duplicates, and nobody to be told.
fn is_plain(bundles: &[Single], verdicts: &[ReserveVerdict]) -> bool {
    let others =
        verdicts.iter().filter(|verdict| !matches!(verdict, ReserveVerdict::FirstSeen | ReserveVerdict::Duplicate));
    others.count() == 0 && !bundles.iter().any(|bundle| bundle.item.has_tickets())
}

/// Picks the first-seen events, without a branch for each: which ones they are cannot be predicted.
fn first_seen(bundles: &[Single], verdicts: &[ReserveVerdict]) -> Vec<Place> {
    let mut picks = vec![Place { bundle: 0, event: 0 }; verdicts.len()];
    let (mut count, mut verdicts) = (0, verdicts.iter());
    for (bundle, number) in bundles.iter().zip(0..) {
        for (event, verdict) in (0..bundle.item.len() as u32).zip(&mut verdicts) {
            picks[count] = Place { bundle: number, event };
            count += usize::from(*verdict == ReserveVerdict::FirstSeen);
        }
    }
    picks.truncate(count);
    picks
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Event, Fingerprint};
    use crate::pipeline::bundle::Bundle;
    use crate::queue::Parcel;

    const CONFLICT: ReserveVerdict = ReserveVerdict::Conflict { in_flight: false };

    /// So many events in bundles of three.
    fn bundles(events: usize) -> Vec<Single> {
        let bundle = |events: usize| {
            let mut bundle = Bundle::new(events);
            (0..events)
                .for_each(|_| assert!(bundle.push(Fingerprint::from_u128(1), &Event::new("", ""), None, &mut None)));
            Box::new(Parcel::new(bundle))
        };
        (0..events).step_by(3).map(|start| bundle(3.min(events - start))).collect()
    }

    /// Which events these are, counted through all bundles.
    fn numbers(places: &[Place]) -> Vec<u32> {
        places.iter().map(|place| place.bundle * 3 + place.event).collect()
    }

    #[test]
    fn every_event_is_in_one_place_and_in_the_books_once() {
        let verdicts = [
            ReserveVerdict::Duplicate,
            ReserveVerdict::FirstSeen,
            CONFLICT,
            ReserveVerdict::InFlight,
            ReserveVerdict::Unjudged(Unjudged::Late),
            ReserveVerdict::Conflict { in_flight: true },
            ReserveVerdict::FirstSeen,
            ReserveVerdict::Unjudged(Unjudged::Full),
        ];
        for (on_conflict, picks, unmarked, conflicts, buried, duplicates) in [
            (OnConflict::Count, &[1, 4, 6, 7][..], &[1, 3][..], &[][..], &[][..], &[0, 2][..]),
            (OnConflict::Pass, &[1, 2, 4, 6, 7], &[1, 2, 4], &[1], &[], &[0]),
            (OnConflict::Divert, &[1, 4, 6, 7], &[1, 3], &[], &[2], &[0]),
        ] {
            let sorted = Sorted::all(&bundles(8), &verdicts, on_conflict).unwrap();
            assert_eq!(numbers(&sorted.picks), picks);
            assert_eq!((&*sorted.unmarked, &*sorted.conflicts), (unmarked, conflicts));
            assert_eq!((&*numbers(&sorted.buried), &*numbers(&sorted.duplicates)), (buried, duplicates));
            assert_eq!((numbers(&sorted.repeats), numbers(&sorted.waiting)), (vec![3, 5], vec![5]));
            let books = PipelineStats { read: 8, ..sorted.books };
            assert!(books.balances(), "{books:?}");
            assert_eq!((books.first_seen, books.duplicate, books.conflicts), (2, 2, 1));
            assert_eq!((books.attached, books.late, books.refused), (2, 1, 1));
        }
    }

    #[test]
    fn first_seen_events_and_duplicates_come_to_the_same_by_the_short_way() {
        for pattern in 0..1 << 7 {
            let seen = |event: u32| pattern >> event & 1 == 1;
            let verdict = |event| if seen(event) { ReserveVerdict::Duplicate } else { ReserveVerdict::FirstSeen };
            let verdicts: Vec<_> = (0..7).map(verdict).collect();
            let bundles = bundles(7);
            let short = Sorted::all(&bundles, &verdicts, OnConflict::Ignore).unwrap();
            let long = Sorted::of(places(&bundles), &verdicts, OnConflict::Ignore).unwrap();
            assert_eq!((numbers(&short.picks), short.books), (numbers(&long.picks), long.books));
        }
    }

    #[test]
    fn nothing_is_sorted_when_the_log_failed_one() {
        let verdicts = [ReserveVerdict::FirstSeen, ReserveVerdict::Unjudged(Unjudged::LogFailed)];
        assert!(Sorted::all(&bundles(2), &verdicts, OnConflict::Pass).is_none());
    }
}
