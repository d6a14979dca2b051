//! Durations and sizes as people write them: `1h30m`, `500ms`, `4GiB`, `forever`.
//!
//! Strict on purpose: a number without a unit, a unit that could be read in two ways, or units in an odd order are
//! refused with a message that shows how to write it. `jiff` and `humantime` accept more than that, and know no
//! `forever`.

use std::time::Duration;

use dedupd::Durability;

/// Parses a duration: numbers with units from `w` down to `ns`, each at most once, the largest first.
pub fn duration(text: &str) -> Result<Duration, String> {
    let mut rest = text;
    let mut total = Duration::ZERO;
    let mut units = UNITS_OF_TIME.iter();
    if rest.is_empty() {
        return Err(HOW_TO_WRITE_TIME.to_owned());
    }
    while !rest.is_empty() {
        let (number, unit, tail) = number_and_unit(rest)?;
        if unit.is_empty() {
            return Err(format!("{number} has no unit: {HOW_TO_WRITE_TIME}"));
        }
        if !UNITS_OF_TIME.iter().any(|(name, _)| *name == unit) {
            return Err(format!("'{unit}' is not a unit of time: {HOW_TO_WRITE_TIME}"));
        }
        let Some((_, nanos)) = units.find(|(name, _)| *name == unit) else {
            return Err(format!("units go from large to small, each once: {HOW_TO_WRITE_TIME}"));
        };
        total =
            nanoseconds(number, *nanos).and_then(|part| total.checked_add(part)).ok_or("the duration is too long")?;
        rest = tail;
    }
    Ok(total)
}

/// [`duration`], or `forever`.
pub fn window(text: &str) -> Result<Duration, String> {
    let window = if text == "forever" { Duration::MAX } else { duration(text)? };
    if window < Duration::from_secs(1) {
        return Err("the smallest window is 1s".to_owned());
    }
    Ok(window)
}

/// Parses a level of durability.
pub fn durability(text: &str) -> Result<Durability, String> {
    match (text, text.strip_prefix("interval=")) {
        ("none", _) => Ok(Durability::None),
        ("process", _) => Ok(Durability::Process),
        ("power-loss", _) => Ok(Durability::PowerLoss),
        (_, Some(interval)) => match duration(interval)? {
            Duration::ZERO => Err("an interval of 0 is power-loss: write that".to_owned()),
            interval => Ok(Durability::Interval(interval)),
        },
        _ => Err("it is none, process, interval=50ms or power-loss".to_owned()),
    }
}

/// Writes a level of durability as [`durability`] reads it.
pub fn show_durability(durability: Durability) -> String {
    match durability {
        Durability::Process => "process".to_owned(),
        Durability::Interval(interval) => format!("interval={}", show_duration(interval)),
        Durability::PowerLoss => "power-loss".to_owned(),
        _ => "none".to_owned(),
    }
}

/// Parses a size in bytes: a number, alone or with `B`, `kB` to `TB` (powers of 1000) or `KiB` to `TiB` (powers of
/// 1024).
pub fn size(text: &str) -> Result<u64, String> {
    let (number, unit, rest) = number_and_unit(text)?;
    if !rest.is_empty() {
        return Err(HOW_TO_WRITE_SIZE.to_owned());
    }
    let Some((_, bytes)) = UNITS_OF_SIZE.iter().find(|(name, _)| *name == unit) else {
        return Err(format!("'{unit}' is not a unit of size: {HOW_TO_WRITE_SIZE}"));
    };
    number.checked_mul(*bytes).ok_or_else(|| "the size is too large".to_owned())
}

/// A size other than zero.
pub fn nonzero_size(text: &str) -> Result<u64, String> {
    match size(text)? {
        0 => Err("the size must not be 0".to_owned()),
        bytes => Ok(bytes),
    }
}

pub fn nonzero_duration(text: &str) -> Result<Duration, String> {
    match duration(text)? {
        Duration::ZERO => Err("the duration must not be 0".to_owned()),
        duration => Ok(duration),
    }
}

/// Writes a duration as [`duration`] reads it, in its two largest units.
pub fn show_duration(duration: Duration) -> String {
    if duration == Duration::MAX {
        return "forever".to_owned();
    }
    let mut left = duration.as_nanos();
    let mut text = String::new();
    let mut parts = 0;
    for (unit, nanos) in UNITS_OF_TIME.iter().filter(|(unit, _)| *unit != "w" && *unit != "d") {
        let count = left / u128::from(*nanos);
        left %= u128::from(*nanos);
        if count > 0 && parts < 2 {
            text += &format!("{count}{unit}");
        }
        parts += usize::from(count > 0 || parts > 0);
    }
    if text.is_empty() { "0s".to_owned() } else { text }
}

/// Writes a size in the largest unit of 1000 that leaves a number of 1 or more.
pub fn show_size(bytes: u64) -> String {
    show_scaled(bytes as f64, &["B", "kB", "MB", "GB", "TB", "PB"])
}

/// Writes a count with a comma after each three digits.
pub fn show_count(count: u64) -> String {
    let digits = count.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Writes how many there are of what is called so: `1 frame`, `2 frames`.
pub fn show_number(count: u64, one: &str) -> String {
    format!("{} {one}{}", show_count(count), if count == 1 { "" } else { "s" })
}

fn show_scaled(mut value: f64, units: &[&str]) -> String {
    let mut units = units.iter();
    let mut unit = units.next().copied().unwrap_or_default();
    for next in units {
        if value < 999.5 {
            break;
        }
        (value, unit) = (value / 1000.0, next);
    }
    if value >= 9.95 || unit == "B" { format!("{value:.0} {unit}") } else { format!("{value:.1} {unit}") }
}

/// Splits `12ms34` into 12, `ms`, `34`.
fn number_and_unit(text: &str) -> Result<(u64, &str, &str), String> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, rest) = text.split_at(digits);
    if number.is_empty() {
        return Err(format!("'{text}' does not start with a whole number"));
    }
    let number = number.parse().map_err(|_| format!("{number} is too large"))?;
    let letters = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
    let (unit, rest) = rest.split_at(letters);
    Ok((number, unit, rest))
}

fn nanoseconds(number: u64, nanos: u64) -> Option<Duration> {
    let total = u128::from(number) * u128::from(nanos);
    let seconds = u64::try_from(total / 1_000_000_000).ok()?;
    Some(Duration::new(seconds, (total % 1_000_000_000) as u32))
}

const UNITS_OF_TIME: [(&str, u64); 8] = [
    ("w", 7 * 86_400_000_000_000),
    ("d", 86_400_000_000_000),
    ("h", 3_600_000_000_000),
    ("m", 60_000_000_000),
    ("s", 1_000_000_000),
    ("ms", 1_000_000),
    ("us", 1_000),
    ("ns", 1),
];
const UNITS_OF_SIZE: [(&str, u64); 12] = [
    ("", 1),
    ("B", 1),
    ("kB", 1_000),
    ("KB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("TB", 1_000_000_000_000),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
    ("PiB", 1 << 50),
];
const HOW_TO_WRITE_TIME: &str = "write it like 24h, 1h30m, 90s or 500ms (w, d, h, m, s, ms, us, ns)";
const HOW_TO_WRITE_SIZE: &str = "write it like 16MiB, 4GB or 4096 (B, kB, MB, GB, TB, KiB, MiB, GiB, TiB)";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read() {
        let secs = Duration::from_secs;
        for (text, expected) in [
            ("24h", secs(86_400)),
            ("90m", secs(5_400)),
            ("1h30m", secs(5_400)),
            ("500ms", Duration::from_millis(500)),
            ("1s500ms", Duration::from_millis(1_500)),
            ("7d", secs(604_800)),
            ("2w1d", secs(15 * 86_400)),
            ("3us7ns", Duration::from_nanos(3_007)),
            ("0s", secs(0)),
        ] {
            assert_eq!(duration(text), Ok(expected), "{text}");
        }
        assert_eq!(window("forever"), Ok(Duration::MAX));
    }

    #[test]
    fn durations_that_could_mean_two_things_are_refused() {
        for text in
            ["", "24", "h", "1.5h", "-1h", "1h 30m", " 1h", "30m1h", "1h1h", "1hour", "1H", "1M", "h1", "1é", "forever"]
        {
            assert!(duration(text).is_err(), "{text}");
        }
        assert!(duration("99999999999999999999h").is_err());
        assert!(duration("18446744073709551615w").is_err());
        for text in ["0s", "999ms", "Forever"] {
            assert!(window(text).is_err(), "{text}");
        }
    }

    #[test]
    fn levels_of_durability_are_read_and_shown() {
        for text in ["none", "process", "power-loss", "interval=50ms", "interval=1s500ms"] {
            assert_eq!(show_durability(durability(text).expect(text)), text);
        }
        for text in ["", "None", "interval", "interval=", "interval=0s", "interval=50", "interval 50ms", "power"] {
            assert!(durability(text).is_err(), "{text}");
        }
    }

    #[test]
    fn sizes_are_read() {
        for (text, expected) in [
            ("0", 0),
            ("4096", 4096),
            ("12B", 12),
            ("4GB", 4_000_000_000),
            ("4GiB", 4 << 30),
            ("16MiB", 16 << 20),
            ("1kB", 1_000),
            ("1KB", 1_000),
            ("1KiB", 1_024),
        ] {
            assert_eq!(size(text), Ok(expected), "{text}");
        }
        for text in ["", "4G", "4gb", "GiB", "1.5GiB", "-1", "4 GiB", "4GiB1", "17000000TiB", "99999999999999999999"] {
            assert!(size(text).is_err(), "{text}");
        }
    }

    #[test]
    fn what_is_shown_reads_well() {
        let show = |secs: f64| show_duration(Duration::from_secs_f64(secs));
        assert_eq!(show(86_400.0), "24h");
        assert_eq!(show(1_350.0), "22m30s");
        assert_eq!(show(4_320.5), "1h12m");
        assert_eq!(show(0.041), "41ms");
        assert_eq!(show(0.0), "0s");
        assert_eq!(show(3_600.5), "1h");
        assert_eq!(show_duration(Duration::MAX), "forever");
        assert_eq!(show_count(1_000_000), "1,000,000");
        assert_eq!(show_count(12), "12");
        assert_eq!([0, 1, 1_000].map(|count| show_number(count, "frame")), ["0 frames", "1 frame", "1,000 frames"]);
        assert_eq!(show_size(16_400_000), "16 MB");
        assert_eq!(show_size(1_400_000_000), "1.4 GB");
        assert_eq!(show_size(999), "999 B");
    }
}
