//! Decimal counts since the epoch.

use super::OUT_OF_RANGE;
use crate::time::Timestamp;

/// Reads a JSON number, `text` × 10^`nanos_power` nanoseconds.
pub(super) fn read(text: &[u8], nanos_power: i64) -> Result<Timestamp, &'static str> {
    if crate::decode::token::end(text, 0) != Ok(text.len()) || !text.last().is_some_and(u8::is_ascii_digit) {
        return Err("not a number");
    }
    let (negative, unsigned) = text.strip_prefix(b"-").map_or((false, text), |rest| (true, rest));
    let (mantissa, exponent) = match unsigned.iter().position(|byte| matches!(byte, b'e' | b'E')) {
        Some(e) => (&unsigned[..e], exponent(&unsigned[e + 1..])),
        None => (unsigned, 0),
    };
    let fraction = mantissa.iter().position(|&byte| byte == b'.').map_or(0, |dot| mantissa.len() - dot - 1);
    let digits = mantissa.iter().filter(|byte| byte.is_ascii_digit()).skip_while(|&&digit| digit == b'0');
    let power = exponent.saturating_add(nanos_power).saturating_sub(fraction as i64);
    let nanos = scaled(digits.map(|digit| digit - b'0'), power, negative).ok_or(OUT_OF_RANGE)?;
    i64::try_from(nanos).map(Timestamp::from_nanos).map_err(|_| OUT_OF_RANGE)
}

/// `digits` × 10^`power`, rounded down; `None` when it does not fit.
fn scaled(digits: impl Iterator<Item = u8> + Clone, power: i64, negative: bool) -> Option<i128> {
    let count = digits.clone().count() as i64;
    let whole = count.saturating_add(power);
    if count == 0 {
        return Some(0);
    }
    if whole > NANOS_DIGITS_MAX {
        return None;
    }
    let kept = whole.clamp(0, count) as usize;
    let magnitude = digits.clone().take(kept).fold(0_i128, |value, digit| value * 10 + i128::from(digit));
    let magnitude = magnitude * 10_i128.pow(u32::try_from(power.max(0)).ok()?);
    let cut = digits.skip(kept).any(|digit| digit != 0);
    Some(if negative { -magnitude - i128::from(cut) } else { magnitude })
}

/// An exponent's value; a huge one saturates, which decides the same.
fn exponent(text: &[u8]) -> i64 {
    let (negative, digits) = match text {
        [b'-', digits @ ..] => (true, digits),
        [b'+', digits @ ..] | digits => (false, digits),
    };
    let value = digits.iter().fold(0_i64, |value, digit| {
        value.saturating_mul(10).saturating_add(i64::from(digit.saturating_sub(b'0'))).min(EXPONENT_MAX)
    });
    if negative { -value } else { value }
}

/// 2^63 nanoseconds have 19 digits.
const NANOS_DIGITS_MAX: i64 = 20;
/// Beyond any line's length: digits cannot make up for it.
const EXPONENT_MAX: i64 = 1 << 40;

#[cfg(test)]
mod tests {
    use super::*;

    fn nanos(text: &str, power: i64) -> Option<i64> {
        read(text.as_bytes(), power).ok().map(Timestamp::as_nanos)
    }

    #[test]
    fn counts_are_exact_in_every_unit() {
        assert_eq!(nanos("1626847200", 9), Some(1_626_847_200_000_000_000));
        assert_eq!(nanos("1626847200.123", 9), Some(1_626_847_200_123_000_000));
        assert_eq!(nanos("1626847200.123456789", 9), Some(1_626_847_200_123_456_789));
        assert_eq!(nanos("1626847200123", 6), Some(1_626_847_200_123_000_000));
        assert_eq!(nanos("1626847200123.5", 6), Some(1_626_847_200_123_500_000));
        assert_eq!(nanos("1626847200123456", 3), Some(1_626_847_200_123_456_000));
        assert_eq!(nanos("1626847200123456789", 0), Some(1_626_847_200_123_456_789));
        assert_eq!(nanos("1.6268472e9", 9), Some(1_626_847_200_000_000_000));
        assert_eq!(nanos("16268472000000e-4", 9), Some(1_626_847_200_000_000_000));
        assert_eq!(nanos("0", 9), Some(0));
        assert_eq!(nanos("-0.0e7", 9), Some(0));
        assert_eq!(nanos("-1.5", 9), Some(-1_500_000_000));
    }

    #[test]
    fn what_is_finer_than_a_nanosecond_is_cut_off_toward_the_past() {
        assert_eq!(nanos("0.9", 0), Some(0));
        assert_eq!(nanos("-0.1", 0), Some(-1));
        assert_eq!(nanos("1626847200.1234567899", 9), Some(1_626_847_200_123_456_789));
        assert_eq!(nanos("1e-30", 9), Some(0));
        assert_eq!(nanos("-1e-9999999999999999999999", 9), Some(-1));
        assert_eq!(nanos("-12.00", 0), Some(-12));
    }

    #[test]
    fn the_ends_of_the_range_are_exact() {
        assert_eq!(nanos("9223372036854775807", 0), Some(i64::MAX));
        assert_eq!(nanos("-9223372036854775808", 0), Some(i64::MIN));
        assert_eq!(nanos("9223372036.854775807", 9), Some(i64::MAX));
        for text in [
            "9223372036854775808",
            "-9223372036854775809",
            "1e19",
            "1e9999999999999999999999",
            "99999999999999999999999",
        ] {
            assert_eq!(read(text.as_bytes(), 0), Err(OUT_OF_RANGE), "{text}");
        }
    }

    #[test]
    fn what_is_not_a_json_number_is_refused() {
        for text in ["", "-", "+1", "01", "1.", ".5", "1e", " 1", "1 ", "0x1", "1_000", "true", "null", "NaN", "²"] {
            assert_eq!(read(text.as_bytes(), 9), Err("not a number"), "{text}");
        }
    }
}
