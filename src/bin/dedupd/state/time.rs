//! Times as people and programs read them: RFC 3339, in UTC, with nanoseconds.

use dedupd::Timestamp;

/// Writes a time like `2026-11-22T10:22:08.000000000Z`.
pub fn rfc3339(time: Timestamp) -> String {
    let nanos = time.as_nanos();
    let (seconds, nanos) = (nanos.div_euclid(NANOS), nanos.rem_euclid(NANOS));
    let (days, second) = (seconds.div_euclid(DAY), seconds.rem_euclid(DAY));
    let (year, month, day) = civil(days);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{nanos:09}Z")
}

/// Writes a second since 1970 like `2026-11-22T10:22:08Z`.
pub fn utc(second: i64) -> String {
    let text = rfc3339(Timestamp::from_secs(second));
    text.split_once('.').map_or_else(|| text.clone(), |(whole, _)| format!("{whole}Z"))
}

/// Year, month and day of a number of days since 1970-01-01 (Hinnant, "chrono-compatible low-level date algorithms").
fn civil(days: i64) -> (i64, i64, i64) {
    // Years begin in March here, so that the odd day is at the end of one; an era is 400 of them.
    let days = days + 719_468;
    let (era, day_of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

const NANOS: i64 = 1_000_000_000;
const DAY: i64 = 86_400;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_the_calendar_has_them() {
        // Computed with date(1).
        for (seconds, expected) in [
            (0, "1970-01-01T00:00:00"),
            (-1, "1969-12-31T23:59:59"),
            (951_782_400, "2000-02-29T00:00:00"),
            (4_107_542_399, "2100-02-28T23:59:59"),
            (4_107_542_400, "2100-03-01T00:00:00"),
            (1_795_342_928, "2026-11-22T10:22:08"),
            (-8_520_336_000, "1700-01-01T00:00:00"),
        ] {
            assert_eq!(rfc3339(Timestamp::from_secs(seconds)), format!("{expected}.000000000Z"));
        }
        assert_eq!(utc(951_782_400), "2000-02-29T00:00:00Z");
        assert_eq!(rfc3339(Timestamp::from_nanos(-1)), "1969-12-31T23:59:59.999999999Z");
        assert_eq!(rfc3339(Timestamp::MIN), "1677-09-21T00:12:43.145224192Z");
        assert_eq!(rfc3339(Timestamp::MAX), "2262-04-11T23:47:16.854775807Z");
    }
}
