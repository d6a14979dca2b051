//! Times as RFC 3339, section 5.6, writes them.
//!
//! Our own forty lines rather than a date library: the library without the binary stays free of one, and a calendar
//! is not needed, only the count of days. A leap second (`:60`, only at the end of a UTC day) is the second after it,
//! as in Unix time. A space may stand for the `T`, as the RFC allows; `-00:00` is UTC.

use super::OUT_OF_RANGE;
use crate::time::Timestamp;

/// Reads one date and time with its offset.
pub(super) fn read(text: &[u8]) -> Result<Timestamp, &'static str> {
    let (nanos, rest) = parse(text).ok_or("not an RFC 3339 time")?;
    if !rest.is_empty() {
        return Err("something after the RFC 3339 time");
    }
    i64::try_from(nanos).map(Timestamp::from_nanos).map_err(|_| OUT_OF_RANGE)
}

fn parse(text: &[u8]) -> Option<(i128, &[u8])> {
    let (year, rest) = number(text, 4)?;
    let (month, rest) = number(after(rest, b"-")?, 2)?;
    let (day, rest) = number(after(rest, b"-")?, 2)?;
    let (hour, rest) = number(after(rest, b"Tt ")?, 2)?;
    let (minute, rest) = number(after(rest, b":")?, 2)?;
    let (second, rest) = number(after(rest, b":")?, 2)?;
    let (nanos, rest) = fraction(rest)?;
    let (offset, rest) = offset_seconds(rest)?;

    let valid = (1..=12).contains(&month) && (1..=days_in(month, year)).contains(&day);
    if !valid || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let minute_start = days_since_epoch(year, month, day) * 86_400 + hour * 3_600 + minute * 60 - offset;
    if second == 60 && (minute_start + 60).rem_euclid(86_400) != 0 {
        return None;
    }
    Some((i128::from(minute_start + second) * 1_000_000_000 + i128::from(nanos), rest))
}

fn after<'a>(text: &'a [u8], separators: &[u8]) -> Option<&'a [u8]> {
    let (first, rest) = text.split_first()?;
    separators.contains(first).then_some(rest)
}

/// Exactly `digits` digits.
fn number(text: &[u8], digits: usize) -> Option<(i64, &[u8])> {
    let (head, rest) = text.split_at_checked(digits)?;
    let value =
        head.iter().try_fold(0, |value, digit| digit.is_ascii_digit().then(|| value * 10 + i64::from(digit - b'0')))?;
    Some((value, rest))
}

/// The nanoseconds of `.digits`, if there are any digits; those beyond the ninth are cut off.
fn fraction(text: &[u8]) -> Option<(i64, &[u8])> {
    let Some(digits) = text.strip_prefix(b".") else { return Some((0, text)) };
    let count = digits.iter().take_while(|digit| digit.is_ascii_digit()).count();
    let (digits, rest) = digits.split_at(count);
    let nine = digits.iter().copied().chain(std::iter::repeat(b'0')).take(9);
    (count > 0).then(|| (nine.fold(0, |value, digit| value * 10 + i64::from(digit - b'0')), rest))
}

fn offset_seconds(text: &[u8]) -> Option<(i64, &[u8])> {
    let (sign, rest) = match text.split_first()? {
        (b'Z' | b'z', rest) => return Some((0, rest)),
        (b'+', rest) => (1, rest),
        (b'-', rest) => (-1, rest),
        _ => return None,
    };
    let (hours, rest) = number(rest, 2)?;
    let (minutes, rest) = number(after(rest, b":")?, 2)?;
    (hours <= 23 && minutes <= 59).then_some((sign * (hours * 3_600 + minutes * 60), rest))
}

fn days_in(month: i64, year: i64) -> i64 {
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    match month {
        2 => 28 + i64::from(leap),
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days from 1970-01-01 in the proleptic Gregorian calendar: Howard Hinnant, "chrono-compatible low-level date
/// algorithms", `days_from_civil`.
fn days_since_epoch(year: i64, month: i64, day: i64) -> i64 {
    let year = year - i64::from(month <= 2);
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nanos(text: &str) -> Option<i64> {
        read(text.as_bytes()).ok().map(Timestamp::as_nanos)
    }

    #[test]
    fn times_fractions_and_offsets_are_exact() {
        const SECOND: i64 = 1_000_000_000;
        assert_eq!(nanos("1970-01-01T00:00:00Z"), Some(0));
        assert_eq!(nanos("2021-07-21T06:00:00Z"), Some(1_626_847_200 * SECOND));
        assert_eq!(nanos("2021-07-21t06:00:00z"), Some(1_626_847_200 * SECOND));
        assert_eq!(nanos("2021-07-21 06:00:00Z"), Some(1_626_847_200 * SECOND));
        assert_eq!(nanos("2021-07-21T08:00:00+02:00"), Some(1_626_847_200 * SECOND));
        assert_eq!(nanos("2021-07-20T22:30:00-07:30"), Some(1_626_847_200 * SECOND));
        assert_eq!(nanos("2021-07-21T06:00:00-00:00"), Some(1_626_847_200 * SECOND));
        assert_eq!(nanos("2021-07-21T06:00:00.123Z"), Some(1_626_847_200 * SECOND + 123_000_000));
        assert_eq!(nanos("2021-07-21T06:00:00.1234567899Z"), Some(1_626_847_200 * SECOND + 123_456_789));
        assert_eq!(nanos("1969-12-31T23:59:59.5Z"), Some(-SECOND / 2));
        assert_eq!(nanos("2000-02-29T00:00:00Z"), Some(951_782_400 * SECOND));
        assert_eq!(nanos("2262-04-11T23:47:16.854775807Z"), Some(i64::MAX));
        assert_eq!(nanos("1677-09-21T00:12:43.145224192Z"), Some(i64::MIN));
    }

    #[test]
    fn a_leap_second_is_the_second_after_it_and_only_at_the_end_of_a_utc_day() {
        assert_eq!(nanos("2016-12-31T23:59:60Z"), nanos("2017-01-01T00:00:00Z"));
        assert_eq!(nanos("1990-12-31T15:59:60-08:00"), nanos("1991-01-01T00:00:00Z"));
        assert_eq!(nanos("2016-12-31T23:59:60+01:00"), None);
        assert_eq!(nanos("2016-12-31T12:00:60Z"), None);
    }

    #[test]
    fn what_is_not_a_time_is_refused() {
        for text in [
            "",
            "2021-07-21",
            "2021-07-21T06:00:00",
            "2021-07-21T06:00Z",
            "2021-7-21T06:00:00Z",
            "2021-13-01T00:00:00Z",
            "2021-00-01T00:00:00Z",
            "2021-02-29T00:00:00Z",
            "1900-02-29T00:00:00Z",
            "2021-04-31T00:00:00Z",
            "2021-07-00T00:00:00Z",
            "2021-07-21T24:00:00Z",
            "2021-07-21T06:60:00Z",
            "2021-07-21T06:00:61Z",
            "2021-07-21T06:00:00.Z",
            "2021-07-21T06:00:00+2",
            "2021-07-21T06:00:00+0200",
            "2021-07-21T06:00:00+24:00",
            "2021-07-21T06:00:00+02:60",
            "2021-07-21T06:00:00Z ",
            "+021-07-21T06:00:00Z",
            "9999-12-31T23:59:59Z",
            "1600-01-01T00:00:00Z",
            "2021-07-21T06:00:00,5Z",
            "2021/07/21T06:00:00Z",
        ] {
            assert_eq!(nanos(text), None, "{text}");
        }
    }

    #[test]
    fn every_day_follows_the_one_before_it() {
        let mut expected = days_since_epoch(1600, 1, 1);
        for year in 1600..2400 {
            for month in 1..=12 {
                for day in 1..=days_in(month, year) {
                    assert_eq!(days_since_epoch(year, month, day), expected);
                    expected += 1;
                }
            }
        }
        assert_eq!(days_since_epoch(1970, 1, 1), 0);
    }
}
