//! [`export()`] and [`records()`]: what a state remembers, record by record.

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::path::Path;

use crate::event::Fingerprint;
use crate::log::{self, Kind, Replayed};
use crate::time::Timestamp;

use super::StateError;
use super::reader::Reader;

/// One thing that a log says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Record<'a> {
    /// The sequence of its frame; what is of one frame was committed together.
    pub sequence: u64,
    /// When it happened: in event time, the event's own time.
    pub time: Timestamp,
    /// The engine time of its frame: how far time had come when it was recorded, as far as whoever recorded it knew.
    pub engine_time: Timestamp,
    /// What happened.
    pub what: What<'a>,
}

/// What a [`Record`] says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum What<'a> {
    /// An ID was seen for the first time.
    Seen(Fingerprint),
    /// The window of an ID started again.
    Refresh(Fingerprint),
    /// An ID was forgotten.
    Forget(Fingerprint),
    /// A source has come to a position.
    Source {
        /// The source.
        name: &'a [u8],
        /// Where it is.
        position: &'a [u8],
    },
    /// A sink has come to a position.
    Sink {
        /// The sink.
        name: &'a [u8],
        /// Where it is.
        position: &'a [u8],
    },
    /// A claim has changed.
    Claim(&'a [u8]),
    /// Event time has moved.
    Watermark,
    /// The engine's clock.
    Clock(&'a [u8]),
}

/// Hands the last word on each ID that the state at `path` has not forgotten to `each`, in sequence, until that breaks.
///
/// That is an ID as it was seen, or as its window started again the last time. An ID that was seen, outlived its window,
/// and was seen again comes each time that the log still has.
///
/// # Errors
/// [`StateError`]. What came before a corrupt place was handed out.
///
/// # Cost
/// Reads the log twice, also after a break; 40 bytes or so for each ID that was refreshed or forgotten.
pub fn export(path: impl AsRef<Path>, mut each: impl FnMut(Record<'_>) -> ControlFlow<()>) -> Result<(), StateError> {
    let reader = Reader::open(path.as_ref())?;
    let (mut changed, mut end) = (HashMap::new(), 0);
    let read = log::replay(&reader.disk, u64::MAX, &mut |frame| {
        end = frame.sequence;
        let _ = each_record(&frame, &mut |index, record| {
            if let What::Refresh(id) | What::Forget(id) = record.what {
                changed.insert(id, (record.sequence, index));
            }
            ControlFlow::Continue(())
        });
    });
    // What is corrupt is met again, after what comes before it.
    if let Err(error @ log::OpenError::Io { .. }) = read {
        return Err(error.into());
    }
    walk(&reader, end, &mut |index, record| {
        let (What::Seen(id) | What::Refresh(id)) = record.what else { return ControlFlow::Continue(()) };
        let is_last = changed.get(&id).is_none_or(|last| *last <= (record.sequence, index));
        if is_last { each(record) } else { ControlFlow::Continue(()) }
    })
}

/// Hands every record of the state at `path` to `each`, in sequence, until that breaks.
///
/// # Errors
/// As [`export()`].
///
/// # Cost
/// Reads the log once, also after a break.
pub fn records(path: impl AsRef<Path>, mut each: impl FnMut(Record<'_>) -> ControlFlow<()>) -> Result<(), StateError> {
    let reader = Reader::open(path.as_ref())?;
    walk(&reader, u64::MAX, &mut |_, record| each(record))
}

type Each<'e> = &'e mut dyn FnMut(usize, Record<'_>) -> ControlFlow<()>;

fn walk(reader: &Reader, end: u64, each: Each<'_>) -> Result<(), StateError> {
    let mut has_ended = false;
    let read = log::replay(&reader.disk, end, &mut |frame| {
        has_ended = has_ended || each_record(&frame, each).is_break();
    });
    if has_ended { Ok(()) } else { read.map_err(StateError::from) }
}

/// Takes a frame apart; each ID comes with its place in the frame.
fn each_record(frame: &Replayed<'_>, each: Each<'_>) -> ControlFlow<()> {
    let (mut index, now) = (0, frame.time);
    let mut tell = |time, what| {
        index += 1;
        each(index, Record { sequence: frame.sequence, time, engine_time: now, what })
    };
    for record in frame.records {
        match record.kind {
            Kind::Seen => record.ids().try_for_each(|id| tell(now, What::Seen(id)))?,
            Kind::SeenAt => record.ids_at().try_for_each(|(id, time)| tell(time, What::Seen(id)))?,
            Kind::Refresh => record.ids().try_for_each(|id| tell(now, What::Refresh(id)))?,
            Kind::RefreshAt => record.ids_at().try_for_each(|(id, time)| tell(time, What::Refresh(id)))?,
            Kind::Forget => record.ids().try_for_each(|id| tell(now, What::Forget(id)))?,
            Kind::Source | Kind::Sink => {
                let Some((name, position)) = record.named() else { continue };
                let is_source = record.kind == Kind::Source;
                tell(now, if is_source { What::Source { name, position } } else { What::Sink { name, position } })?;
            }
            Kind::Claim => tell(now, What::Claim(record.bytes))?,
            Kind::Watermark => tell(now, What::Watermark)?,
            Kind::Clock => tell(now, What::Clock(record.bytes))?,
        }
    }
    ControlFlow::Continue(())
}
