//! The report: the books and the promises, for people and for programs.

use std::time::Duration;

use dedupd::decode::BadReason;
use dedupd::pipeline::Delivery;
use dedupd::state::{self, Repair};
use dedupd::{Clock, Deduplicator, Durability, Loss, Reason, SystemClock, Timestamp};
use serde::Serialize;

use super::age::AgeSummary;
use super::books::Books;
use super::control::Follows;
use super::latency::LatencySummary;
use super::start::Started;
use crate::args::ReportFormat;
use crate::config::State;
use crate::quantity::{show_count, show_durability, show_duration, show_number, show_size};
use crate::state::utc;

/// All that the report says. The names are stable: programs read them.
#[derive(Debug, Serialize)]
pub struct Report {
    /// Events read: lines that are not blank.
    read: u64,
    /// Bytes read.
    bytes: u64,
    elapsed_seconds: f64,
    first_seen: u64,
    duplicate: u64,
    /// Duplicates that came with another payload than was seen with their ID; none unless payloads are compared.
    conflicts: u64,
    bad: u64,
    /// The same by reason.
    bad_reasons: BadReasons,
    late: u64,
    /// Events whose time was further ahead of the clock than allowed. They are judged, and counted as what they are
    /// too.
    future: u64,
    /// Events that could not be judged because the set was full.
    refused: u64,
    attached: u64,
    delivered: u64,
    dead_lettered: u64,
    in_flight: u64,
    spooled: u64,
    /// Bad, late and refused events, and conflicts that are let through, by what was done with them.
    passed: u64,
    diverted: u64,
    dropped: u64,
    /// Blank lines, passed on and not counted as read.
    blank: u64,
    /// Newlines that were written and not read.
    newlines_added: u64,
    /// Followed files that were replaced by another of their name, and such that were truncated and read from the
    /// start.
    inputs_replaced: u64,
    inputs_truncated: u64,
    /// None is for ever.
    window_seconds: Option<f64>,
    slack_seconds: f64,
    live_ids: u64,
    memory_bytes: u64,
    evicted_early: u64,
    clock_held: u64,
    bypassed: u64,
    delivery: &'static str,
    durability: String,
    /// What was found in the state at the start.
    recovered: Option<Recovered>,
    /// How long after the first the duplicates came.
    duplicate_age: Option<DuplicateAge>,
    /// How long the delivered events were under way, from when they were read to when they were out; none when there
    /// are none.
    latency: Option<Latency>,
    balanced: bool,
    #[serde(skip)]
    window: Duration,
    #[serde(skip)]
    slack: Duration,
    #[serde(skip)]
    elapsed: Duration,
}

/// What was timed.
pub struct Times {
    pub ages: Option<AgeSummary>,
    pub latency: Option<LatencySummary>,
}

/// What the promises rest on.
pub struct Kept {
    pub delivery: Delivery,
    pub state: Option<State>,
    pub started: Started,
}

#[derive(Debug, Serialize)]
struct Recovered {
    /// Ids that were known then.
    ids: u64,
    /// Records that they are from: an ID that was seen again later has several, and one that was forgotten counts too.
    records: u64,
    frames: u64,
    /// Ids of lines that were found written and not recorded.
    ids_of_lines: u64,
    /// Bytes that were cut off the outputs: lines that come again, or half a line.
    cut_bytes: u64,
    /// What was half-written, or lost in a power cut.
    lost: Option<Lost>,
    /// What `--on-corrupt salvage` could not bring back, when it was needed.
    repaired: Option<Repaired>,
    /// How far the clock is behind the state; time holds until it has caught up.
    clock_behind_seconds: f64,
    /// Ids that the limits had no room for: their repeats may be first-seen.
    full: u64,
    /// In seconds since 1970; before, an ID may be forgotten early. None when the window holds now.
    window_holds_from: Option<i64>,
}

/// None in it is not known.
#[derive(Debug, Serialize)]
struct Repaired {
    frames_missing: Option<u64>,
    ids_unknown_max: Option<u64>,
    gaps: Vec<Gap>,
}

#[derive(Debug, Serialize)]
struct Gap {
    place: String,
    offset: u64,
    frames: Option<u64>,
    ids_max: Option<u64>,
}

#[derive(Debug, Serialize)]
struct Lost {
    place: String,
    offset: u64,
    bytes: u64,
    frames: u64,
}

#[derive(Debug, Serialize)]
struct BadReasons {
    malformed: u64,
    missing_id: u64,
    too_long: u64,
    ambiguous_id: u64,
}

#[derive(Debug, Serialize)]
struct DuplicateAge {
    median_ms: u64,
    max_ms: u64,
    sampled: bool,
}

#[derive(Debug, Serialize)]
struct Latency {
    /// Half of the events took at most this, then 99 of 100, then 999 of 1,000.
    p50_us: u64,
    p99_us: u64,
    p999_us: u64,
    max_us: u64,
}

impl Report {
    pub fn new(
        books: &Books,
        dedup: &Deduplicator,
        times: Times,
        follows: &Follows,
        kept: &Kept,
        elapsed: Duration,
    ) -> Self {
        let (stats, window, slack) = (dedup.stats(), dedup.window(), dedup.slack());
        Self {
            read: books.read,
            bytes: books.bytes,
            elapsed_seconds: elapsed.as_secs_f64(),
            first_seen: books.first_seen,
            duplicate: books.duplicate,
            conflicts: books.conflicts,
            bad: books.bad_total(),
            bad_reasons: BadReasons {
                malformed: books.bad_by(BadReason::Malformed),
                missing_id: books.bad_by(BadReason::MissingId),
                too_long: books.bad_by(BadReason::TooLong),
                ambiguous_id: books.bad_by(BadReason::AmbiguousId),
            },
            late: books.late,
            future: stats.future,
            refused: books.refused,
            attached: 0,
            delivered: books.delivered,
            dead_lettered: 0,
            in_flight: books.in_flight,
            spooled: 0,
            passed: books.passed,
            diverted: books.diverted,
            dropped: books.dropped,
            blank: books.blank,
            newlines_added: books.newlines_added,
            inputs_replaced: follows.replaced(),
            inputs_truncated: follows.truncated(),
            window_seconds: (window != Duration::MAX).then_some(window.as_secs_f64()),
            slack_seconds: slack.as_secs_f64(),
            live_ids: stats.live_ids,
            memory_bytes: stats.memory_bytes,
            evicted_early: stats.evicted_early,
            clock_held: stats.clock_held,
            bypassed: stats.bypassed + stats.unlogged + books.bypassed,
            delivery: kept.delivery.as_str(),
            durability: show_durability(kept.state.map_or(Durability::None, |state| state.durability)),
            recovered: Recovered::new(dedup, kept.started),
            duplicate_age: times.ages.map(|AgeSummary { median_ms, max_ms, sampled }| DuplicateAge {
                median_ms,
                max_ms,
                sampled,
            }),
            latency: times.latency.map(Latency::new),
            balanced: books.balance(),
            window,
            slack,
            elapsed,
        }
    }

    pub fn render(&self, format: ReportFormat) -> String {
        match format {
            ReportFormat::Text => self.text(),
            ReportFormat::Json => serde_json::to_string(self).map_or_else(|_| String::new(), |line| line + "\n"),
        }
    }

    fn text(&self) -> String {
        let mut lines = vec![self.what_was_read(), self.what_is_remembered(), self.what_was_kept()];
        lines.extend(self.latency.as_ref().map(Latency::text));
        if !self.balanced {
            lines.push("the books do not balance: this is a bug, please report it".to_owned());
        }
        lines.join("\n") + "\n"
    }

    fn what_was_read(&self) -> String {
        let seconds = self.elapsed.as_secs_f64();
        let share = if self.read > 0 { self.duplicate as f64 * 100.0 / self.read as f64 } else { 0.0 };
        let mut line = format!(
            "read {} in {seconds:.2} s ({}/s): {} first-seen, {} duplicate{} ({share:.1} %), {} bad{}, {} late",
            show_count(self.read),
            show_size((self.bytes as f64 / seconds.max(1e-9)) as u64),
            show_count(self.first_seen),
            show_count(self.duplicate),
            if self.duplicate == 1 { "" } else { "s" },
            show_count(self.bad),
            self.why_bad(),
            show_count(self.late),
        );
        for (count, what) in [
            (self.conflicts, if self.conflicts == 1 { "conflict" } else { "conflicts" }),
            (self.future, "future"),
            (self.refused, "refused"),
            (self.in_flight, "in flight"),
            (self.passed, "passed"),
            (self.diverted, "diverted"),
            (self.dropped, "dropped"),
        ] {
            if count > 0 {
                line += &format!(", {} {what}", show_count(count));
            }
        }
        for (count, what) in [(self.inputs_replaced, "replaced"), (self.inputs_truncated, "truncated")] {
            if count > 0 {
                line += &format!(", {} {what}", show_number(count, "input"));
            }
        }
        line
    }

    fn why_bad(&self) -> String {
        let bad = &self.bad_reasons;
        let reasons = [
            (bad.malformed, Reason::Malformed),
            (bad.missing_id, Reason::MissingId),
            (bad.too_long, Reason::TooLong),
            (bad.ambiguous_id, Reason::AmbiguousId),
        ];
        let named: Vec<String> = reasons
            .iter()
            .filter(|(count, _)| *count > 0)
            .map(|(count, reason)| format!("{reason} {}", show_count(*count)))
            .collect();
        if named.is_empty() { String::new() } else { format!(" ({})", named.join(", ")) }
    }

    fn what_is_remembered(&self) -> String {
        let window = match self.window {
            Duration::MAX => "forever".to_owned(),
            window => format!("{} +{}", show_duration(window), show_duration(self.slack)),
        };
        let live = format!("{} live in {}", show_number(self.live_ids, "id"), show_size(self.memory_bytes));
        let ages = self.duplicate_age.as_ref().map_or_else(String::new, |age| {
            let show = |ms| show_duration(Duration::from_millis(ms));
            let sampled = if age.sampled { ", sampled" } else { "" };
            format!(
                "; duplicates came {} after the first (median{sampled}), {} at most",
                show(age.median_ms),
                show(age.max_ms)
            )
        });
        format!("window {window}: {live}{ages}")
    }

    fn what_was_kept(&self) -> String {
        let evicted = match self.evicted_early {
            0 => "nothing evicted early".to_owned(),
            ids => format!("{} evicted early", show_number(ids, "id")),
        };
        let clock = match self.clock_held {
            0 => "no clock held".to_owned(),
            times => format!("clock held {}", show_number(times, "time")),
        };
        let bypassed = match self.bypassed {
            0 => String::new(),
            events => format!(", {} bypassed", show_count(events)),
        };
        let newlines = match self.newlines_added {
            0 => String::new(),
            1 => ", 1 newline added".to_owned(),
            many => format!(", {} newlines added", show_count(many)),
        };
        let recovered = self.recovered.as_ref().map_or_else(String::new, |recovered| format!("; {}", recovered.text()));
        format!(
            "kept: {evicted}, {clock}{bypassed}{newlines}; delivery {}, durability {}{recovered}",
            self.delivery, self.durability
        )
    }
}

impl Latency {
    fn new(summary: LatencySummary) -> Self {
        let micros = |latency: Duration| u64::try_from(latency.as_micros()).unwrap_or(u64::MAX);
        Self {
            p50_us: micros(summary.p50),
            p99_us: micros(summary.p99),
            p999_us: micros(summary.p999),
            max_us: micros(summary.max),
        }
    }

    fn text(&self) -> String {
        let show = |micros| show_duration(Duration::from_micros(micros));
        format!(
            "latency: events were out {} after they were read (median), 99 % within {}, 99.9 % within {}, {} at most",
            show(self.p50_us),
            show(self.p99_us),
            show(self.p999_us),
            show(self.max_us)
        )
    }
}

impl Recovered {
    fn new(dedup: &Deduplicator, started: Started) -> Option<Self> {
        let recovery = dedup.recovery()?;
        let lost = |Loss { place, offset, bytes, frames, .. }: Loss| Lost { place, offset, bytes, frames };
        Some(Self {
            ids: recovery.ids,
            records: recovery.records,
            frames: recovery.frames,
            ids_of_lines: started.ids_recovered,
            cut_bytes: started.bytes_cut,
            lost: recovery.loss.clone().map(lost),
            repaired: recovery.repair.as_ref().map(Repaired::new),
            clock_behind_seconds: recovery.clock_behind.as_secs_f64(),
            full: recovery.full,
            window_holds_from: recovery.holds_from.map(|from| from.as_nanos().div_euclid(1_000_000_000)),
        })
    }

    fn text(&self) -> String {
        let repaired = self.repaired.as_ref().map(Repaired::text);
        let lost = match &self.lost {
            None => repaired.clone().unwrap_or_else(|| "nothing lost".to_owned()),
            Some(Lost { place, offset, bytes, frames: 0 }) => {
                format!("torn tail of {} left in {place} at byte {offset}", show_number(*bytes, "byte"))
            }
            Some(Lost { place, offset, frames, .. }) => {
                format!("{} lost in {place} from byte {offset} on", show_number(*frames, "frame"))
            }
        };
        let mut text = format!("recovered {}, {lost}", show_number(self.ids, "id"));
        if let Some(repaired) = repaired.filter(|_| self.lost.is_some()) {
            text += &format!(", {repaired}");
        }
        for (count, one, what) in [
            (self.ids_of_lines, "id", "of lines that were out and not recorded"),
            (self.cut_bytes, "byte", "cut back"),
            (self.full, "id", "without room, whose repeats may be first-seen"),
        ] {
            if count > 0 {
                text += &format!(", {} {what}", show_number(count, one));
            }
        }
        if self.clock_behind_seconds > 0.0 {
            let behind = Duration::try_from_secs_f64(self.clock_behind_seconds).unwrap_or(Duration::MAX);
            text += &format!(", clock {} behind", show_duration(behind));
        }
        if let Some(from) = self.window_holds_from {
            text += &format!(", the window holds from {} on ({})", utc(from), distance(from));
        }
        text
    }
}

/// How far from now a second since 1970 is.
fn distance(second: i64) -> String {
    let (then, now) = (Timestamp::from_secs(second), SystemClock::new().now());
    let seconds = |distance: Duration| show_duration(Duration::from_secs(distance.as_secs()));
    match then > now {
        true => format!("in {}", seconds(then.saturating_since(now))),
        false => format!("{} ago", seconds(now.saturating_since(then))),
    }
}

impl Repaired {
    fn new(repair: &Repair) -> Self {
        let gap = |state::Gap { file, offset, frames, ids_max, .. }| Gap { place: file, offset, frames, ids_max };
        let Repair { frames_missing, ids_unknown_max, .. } = *repair;
        Self { frames_missing, ids_unknown_max, gaps: repair.gaps.iter().cloned().map(gap).collect() }
    }

    fn text(&self) -> String {
        let ids = match self.ids_unknown_max {
            None => "nobody knows how many ids".to_owned(),
            Some(max) => format!("{} at the most", show_number(max, "id")),
        };
        match self.frames_missing {
            Some(0) => "repaired, nothing missing".to_owned(),
            Some(frames) => format!("repaired, {} missing with {ids}", show_number(frames, "frame")),
            None => format!("repaired, frames missing with {ids}"),
        }
    }
}
