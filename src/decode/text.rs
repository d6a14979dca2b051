//! JSON strings: where one ends, whether it is valid, what it says.
//!
//! Everything else works on positions; only this file knows escapes and UTF-8. Decoding never allocates: it hands out
//! the runs between escapes and the characters that escapes stand for.

use super::record::Bad;

/// A string between its quotes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Text<'a> {
    pub(super) raw: &'a [u8],
    pub(super) escaped: bool,
}

impl Text<'_> {
    /// Whether its decoded value is `name`.
    pub(super) fn is(self, name: &str) -> bool {
        if !self.escaped {
            return self.raw == name.as_bytes();
        }
        let mut rest = name.as_bytes();
        for piece in pieces(self.raw) {
            let mut utf8 = [0; 4];
            let expected = match piece {
                Piece::Run(run) => run,
                Piece::Char(char) => char.encode_utf8(&mut utf8).as_bytes(),
                Piece::Lone(_) => return false,
            };
            match rest.strip_prefix(expected) {
                Some(tail) => rest = tail,
                None => return false,
            }
        }
        rest.is_empty()
    }

    /// Appends the decoded value to `out`.
    ///
    /// # Errors
    /// At the offset of a lone surrogate, which no UTF-8 can hold; or once more than `max` bytes came out.
    pub(super) fn decode(self, out: &mut Vec<u8>, max: usize) -> Result<(), DecodeError> {
        let start = out.len();
        for piece in pieces(self.raw) {
            let mut utf8 = [0; 4];
            let decoded = match piece {
                Piece::Run(run) => run,
                Piece::Char(char) => char.encode_utf8(&mut utf8).as_bytes(),
                Piece::Lone(offset) => return Err(DecodeError::LoneSurrogate(offset)),
            };
            if out.len() - start + decoded.len() > max {
                return Err(DecodeError::TooLong);
            }
            out.extend_from_slice(decoded);
        }
        Ok(())
    }
}

/// Why a valid string has no decoded value here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum DecodeError {
    /// The offset of its escape in the raw bytes.
    LoneSurrogate(usize),
    TooLong,
}

/// A part of a decoded string.
enum Piece<'a> {
    Run(&'a [u8]),
    Char(char),
    Lone(usize),
}

/// The parts of a string that [`validate`] accepted.
fn pieces(raw: &[u8]) -> impl Iterator<Item = Piece<'_>> {
    let mut at = 0;
    std::iter::from_fn(move || {
        let rest = raw.get(at..).filter(|rest| !rest.is_empty())?;
        if rest[0] != b'\\' {
            let run = &rest[..rest.iter().position(|&byte| byte == b'\\').unwrap_or(rest.len())];
            at += run.len();
            return Some(Piece::Run(run));
        }
        let start = at;
        at += 2;
        Some(match rest.get(1)? {
            b'b' => Piece::Char('\u{8}'),
            b'f' => Piece::Char('\u{c}'),
            b'n' => Piece::Char('\n'),
            b'r' => Piece::Char('\r'),
            b't' => Piece::Char('\t'),
            b'u' => {
                at += 4;
                let high = hex4(&rest[2..])?;
                let low = rest.get(6..12).and_then(|pair| hex4(pair.strip_prefix(b"\\u")?));
                match (high, low) {
                    (0xD800..=0xDBFF, Some(low @ 0xDC00..=0xDFFF)) => {
                        at += 6;
                        char::from_u32(0x1_0000 + ((high - 0xD800) << 10) + (low - 0xDC00)).map(Piece::Char)?
                    }
                    _ => char::from_u32(high).map_or(Piece::Lone(start), Piece::Char),
                }
            }
            &itself => Piece::Char(char::from(itself)),
        })
    })
}

/// The value of the four hexadecimal digits at the start, if there are four.
#[inline]
fn hex4(digits: &[u8]) -> Option<u32> {
    let values = digits.first_chunk::<4>()?.map(|digit| HEX_VALUES[usize::from(digit)]);
    let [a, b, c, d] = values.map(u32::from);
    ((a | b | c | d) < 16).then_some(a << 12 | b << 8 | c << 4 | d)
}

/// Finds the closing quote of the string whose content starts at `from`, and whether it has escapes.
///
/// # Errors
/// [`Bad`] at the first byte that RFC 8259 or UTF-8 forbids, or at the end.
#[inline]
pub(super) fn validate(bytes: &[u8], from: usize) -> Result<(usize, bool), Bad> {
    let mut at = from;
    let mut escaped = false;
    loop {
        at += plain_run(&bytes[at..]);
        match bytes.get(at) {
            Some(b'"') => return Ok((at, escaped)),
            Some(b'\\') => {
                escaped = true;
                at += escape(bytes, at)?;
            }
            Some(0x80..) => match utf8_len(&bytes[at..]) {
                Some(len) => at += len,
                None => return Err(Bad::malformed(at, "not UTF-8")),
            },
            Some(0x20..) => at += 1,
            Some(_) => return Err(Bad::malformed(at, "a control character in a string")),
            None => return Err(Bad::malformed(at, "the line ends inside a string")),
        }
    }
}

/// The length of the escape at `at`.
#[inline]
pub(super) fn escape(bytes: &[u8], at: usize) -> Result<usize, Bad> {
    match bytes.get(at + 1) {
        Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => Ok(2),
        Some(b'u') => {
            let digits = &bytes[at + 2..];
            if hex4(digits).is_some() {
                return Ok(6);
            }
            let digits = digits.iter().take(4).take_while(|digit| digit.is_ascii_hexdigit()).count();
            Err(Bad::malformed(at + 2 + digits, "\\u takes four hexadecimal digits"))
        }
        Some(_) => Err(Bad::malformed(at + 1, "no such escape")),
        None => Err(Bad::malformed(at + 1, "the line ends inside a string")),
    }
}

/// How many bytes at the start, in whole words, are neither quote, backslash, control character nor beyond ASCII.
#[inline]
fn plain_run(bytes: &[u8]) -> usize {
    let mut run = 0;
    for word in bytes.chunks_exact(8) {
        let word = u64::from_le_bytes([word[0], word[1], word[2], word[3], word[4], word[5], word[6], word[7]]);
        let below_space = word.wrapping_sub(ONES * 0x20);
        let special = below_space | zeros(word ^ (ONES * 0x22)) | zeros(word ^ (ONES * 0x5C)) | word;
        let special = special & HIGHS;
        if special != 0 {
            return run + (special.trailing_zeros() / 8) as usize;
        }
        run += 8;
    }
    run
}

/// High bits at zero bytes; only the lowest one is exact, and only it is read.
fn zeros(word: u64) -> u64 {
    word.wrapping_sub(ONES) & !word
}

/// The length of the UTF-8 sequence at the start (Unicode 15, table 3-7), if it is one.
fn utf8_len(bytes: &[u8]) -> Option<usize> {
    let tail = |range: std::ops::RangeInclusive<u8>, len: usize| {
        let second = bytes.get(1).is_some_and(|byte| range.contains(byte));
        let rest = bytes.get(2..len)?.iter().all(|byte| (0x80..=0xBF).contains(byte));
        (second && rest).then_some(len)
    };
    match *bytes.first()? {
        0xC2..=0xDF => tail(0x80..=0xBF, 2),
        0xE0 => tail(0xA0..=0xBF, 3),
        0xED => tail(0x80..=0x9F, 3),
        0xE1..=0xEF => tail(0x80..=0xBF, 3),
        0xF0 => tail(0x90..=0xBF, 4),
        0xF1..=0xF3 => tail(0x80..=0xBF, 4),
        0xF4 => tail(0x80..=0x8F, 4),
        _ => None,
    }
}

/// What each byte is worth as a hexadecimal digit; 0xFF for those that are none.
static HEX_VALUES: [u8; 256] = {
    let mut values = [0xFF; 256];
    let mut value = 0;
    while value < 16 {
        let digit = b"0123456789abcdef"[value];
        values[digit as usize] = value as u8;
        values[digit.to_ascii_uppercase() as usize] = value as u8;
        value += 1;
    }
    values
};
const ONES: u64 = u64::MAX / 0xFF;
const HIGHS: u64 = ONES << 7;

#[cfg(test)]
mod tests {
    use super::*;

    fn decoded(raw: &str) -> Result<String, DecodeError> {
        let mut out = Vec::new();
        Text { raw: raw.as_bytes(), escaped: true }.decode(&mut out, 1024)?;
        Ok(String::from_utf8(out).unwrap())
    }

    #[test]
    fn every_escape_decodes_to_its_character() {
        assert_eq!(
            decoded(r#"a\"\\\/\b\f\n\r\t\u0061\u00E9\u20ac\ud83D\uDE00z"#).unwrap(),
            "a\"\\/\u{8}\u{c}\n\r\taé€😀z"
        );
        assert_eq!(decoded("\\u0000").unwrap(), "\0");
    }

    #[test]
    fn a_surrogate_without_its_partner_has_no_value() {
        for (raw, offset) in [("\\ud800", 0), ("ab\\udc00", 2), ("\\ud800\\ud800\\udc00", 0), ("\\ud800\\u0061", 0)] {
            assert_eq!(decoded(raw), Err(DecodeError::LoneSurrogate(offset)), "{raw}");
        }
    }

    #[test]
    fn names_compare_by_decoded_value() {
        let name = |raw: &'static str| Text { raw: raw.as_bytes(), escaped: raw.contains('\\') };
        assert!(name(r"\u0069d").is("id"));
        assert!(name(r"i\u0064").is("id"));
        assert!(!name(r"i\u0064").is("i"));
        assert!(!name(r"i\u0064").is("idx"));
        assert!(!name(r"i\ud800").is("id"));
        assert!(name(r"\ud83d\ude00").is("😀"));
    }

    #[test]
    fn utf8_is_judged_as_the_standard_library_does() {
        let judge = |bytes: &[u8]| {
            let mut quoted = bytes.to_vec();
            quoted.push(b'"');
            let ours = validate(&quoted, 0).map(|_| ()).map_err(|bad| bad.offset);
            assert_eq!(ours, std::str::from_utf8(bytes).map(|_| ()).map_err(|e| e.valid_up_to()), "{bytes:x?}");
        };
        for lead in 0x80..=0xFF_u8 {
            for second in [0x41, 0x7F, 0x80, 0x8F, 0x90, 0x9F, 0xA0, 0xBF, 0xC0, 0xFF] {
                judge(&[lead]);
                judge(&[lead, second]);
                for third in [0x41, 0x7F, 0x80, 0xBF, 0xC0] {
                    judge(&[lead, second, third]);
                    judge(&[lead, second, third, 0x80]);
                    judge(&[lead, second, third, 0xC0]);
                }
            }
        }
    }

    #[test]
    fn a_word_at_a_time_finds_what_a_byte_at_a_time_finds() {
        for special in 0..=255_u8 {
            for filler in [b' ', b'!', b'#', b'[', b']', b'a', 0x7F] {
                for at in 0..24 {
                    let mut bytes = [filler; 24];
                    bytes[at] = special;
                    let plain = |byte: u8| (0x20..0x80).contains(&byte) && byte != b'"' && byte != b'\\';
                    let expected = if plain(special) { 24 } else { at };
                    assert_eq!(plain_run(&bytes), expected, "{special:#x} in {filler:#x} at {at}");
                }
            }
        }
    }
}
