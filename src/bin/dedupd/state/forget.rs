//! `dedupd forget`: the IDs of these lines are unknown again.

use std::time::Duration;

use dedupd::decode::{Bad, BadReason, Content, Decoder};
use dedupd::{Deduplicator, Durability, Error, LogError, ManualClock, OpenError, Reason, Timestamp};
use serde::Serialize;

use crate::args::{ForgetArgs, ReportFormat};
use crate::config::{Reading, inputs};
use crate::exit::{Exit, Failure};
use crate::lines::{Line, Lines};
use crate::log::Log;
use crate::quantity::show_count;
use crate::{print_document, recovery, state_dir, stdout_failure};

/// What was done. The names are stable: programs read them.
#[derive(Debug, Default, Serialize)]
struct Report {
    state: String,
    /// Lines that are not blank.
    read: u64,
    /// Ids that were known.
    forgotten: u64,
    /// Ids that were not known, or not any more.
    not_known: u64,
    /// Lines without an ID.
    bad: u64,
    bad_reasons: BadReasons,
}

#[derive(Debug, Default, Serialize)]
struct BadReasons {
    malformed: u64,
    missing_id: u64,
    too_long: u64,
    ambiguous_id: u64,
}

struct Forgetter {
    /// None where there is no log yet, and so nothing to forget.
    dedup: Option<Deduplicator>,
    decoder: Decoder,
    log: Log,
    report: Report,
}

pub fn forget(args: &ForgetArgs, log: Log) -> Result<Exit, Failure> {
    let reading = Reading::without_time(&args.ids, &args.lines)?;
    let dedup = open(args, &reading, log)?;
    let report = Report { state: args.dir.display().to_string(), ..Report::default() };
    let mut forgetter = Forgetter { dedup, decoder: reading.decoder(), log, report };
    let read = inputs(&args.lines).iter().try_for_each(|input| {
        let mut lines = Lines::open(input, reading.line_bytes_max)?;
        while let Some((number, line)) = lines.next()? {
            forgetter.line(&format!("{input}, line {number}"), line)?;
        }
        Ok(())
    });
    // Also after a failure: what was forgotten before it is on disk when this returns, and told.
    let Forgetter { dedup, report, .. } = forgetter;
    let closed = dedup.map_or(Ok(()), |dedup| dedup.close().map_err(|error| failure(&error)));
    let told = closed.and_then(|()| report.print(args.report));
    read.and(told)
}

/// Opens the state so that nothing in it changes but by what is forgotten.
///
/// The window is for ever, whatever the filter's is: every ID that is still in the log is there to be forgotten, and no
/// segment is ever old enough to be retired. Nothing on disk depends on the window but that; the next one to open the
/// state comes with its own. An ID whose window has ended is forgotten as well, which does no harm.
///
/// The clock stands before all time, so time is as far as the log has come, and stays there: what is appended bears
/// that time. Where events bring their own times the present could be years ahead, and would make all others late.
///
/// Payload digests stay: they tell the payloads of an ID apart, and are no ids by themselves.
///
/// Durability is none, as only what is forgotten is to be written; the close has it on disk.
fn open(args: &ForgetArgs, reading: &Reading, log: Log) -> Result<Option<Deduplicator>, Failure> {
    // An open would make a state where there is none, and a log of times that nobody has chosen yet.
    super::secret(&args.dir, &args.ids, reading)?;
    let event_time = dedupd::state::is_in_event_time(&args.dir).map_err(|error| super::failure(&error))?;
    let Some(event_time) = event_time else { return Ok(None) };
    let builder = Deduplicator::builder()
        .window(Duration::MAX)
        .clock(ManualClock::starting_at(Timestamp::MIN))
        .durability(Durability::None)
        .housekeeping(false)
        .hash(args.ids.hash.into())
        .id_paths(reading.keys.to_string())
        .digests_as_found(true)
        .lock_timeout(args.lock_timeout);
    let builder = if event_time { builder.lateness(Duration::MAX) } else { builder };
    let builder = recovery::show(builder, &args.dir, false, log.quiet);
    builder.open(&args.dir).map(Some).map_err(|error| failure(&error))
}

/// As for the filter, but for a segment that cannot be made: that is what is to be written here.
fn failure(error: &Error) -> Failure {
    let failure = state_dir::failure(error);
    match error {
        Error::Open(OpenError::Io { act: "prepare", .. })
        | Error::Log(LogError::NoRoom { .. } | LogError::Io { .. }) => Failure { exit: Exit::CannotCreate, ..failure },
        _ => failure,
    }
}

impl Forgetter {
    fn line(&mut self, place: &str, line: Line<'_>) -> Result<(), Failure> {
        let Line::Text(line) = line else {
            let what = "the line is longer than --max-line";
            self.bad(place, &Bad { reason: BadReason::TooLong, offset: 0, what });
            return Ok(());
        };
        let mut found = Ok(None);
        self.decoder.decode(line, &mut |record| match record.content {
            Content::Blank => {}
            Content::Bad(bad) => found = Err(bad),
            Content::Id(id) => found = Ok(Some(id.to_vec())),
        });
        match found {
            Ok(None) => Ok(()),
            Ok(Some(id)) => self.id(&id),
            Err(bad) => {
                self.bad(place, &bad);
                Ok(())
            }
        }
    }

    fn id(&mut self, id: &[u8]) -> Result<(), Failure> {
        let forget = |dedup: &Deduplicator| dedup.forget(id).map_err(|error| failure(&error));
        let was_known = self.dedup.as_ref().map_or(Ok(false), forget)?;
        self.report.read += 1;
        self.report.forgotten += u64::from(was_known);
        self.report.not_known += u64::from(!was_known);
        Ok(())
    }

    fn bad(&mut self, place: &str, bad: &Bad) {
        let reasons = &mut self.report.bad_reasons;
        *match bad.reason {
            BadReason::Malformed => &mut reasons.malformed,
            BadReason::MissingId => &mut reasons.missing_id,
            BadReason::TooLong => &mut reasons.too_long,
            BadReason::AmbiguousId => &mut reasons.ambiguous_id,
        } += 1;
        self.report.read += 1;
        self.report.bad += 1;
        let at = if bad.offset == 0 { String::new() } else { format!(" (at byte {} of the line)", bad.offset) };
        self.log.warning(Reason::from(bad.reason).as_str(), format!("{place}: {}{at}; nothing is forgotten", bad.what));
    }
}

impl Report {
    fn print(&self, format: ReportFormat) -> Result<Exit, Failure> {
        let line = match format {
            ReportFormat::Text => self.text(),
            ReportFormat::Json => serde_json::to_string(self).map_err(|error| stdout_failure(&error.into()))? + "\n",
        };
        let exit = print_document(line.as_bytes())?;
        Ok(if self.bad > 0 { Exit::Diverted } else { exit })
    }

    fn text(&self) -> String {
        let [read, forgotten, not_known, bad] = [self.read, self.forgotten, self.not_known, self.bad].map(show_count);
        format!("read {read}: {forgotten} forgotten, {not_known} not known, {bad} bad\n")
    }
}
