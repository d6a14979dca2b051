//! Where lines end.

/// The lines of `bytes`, each with its newline except perhaps the last, each with its offset.
pub(super) fn lines(bytes: &[u8]) -> impl Iterator<Item = (usize, &[u8])> {
    let mut start = 0;
    std::iter::from_fn(move || {
        let rest = bytes.get(start..).filter(|rest| !rest.is_empty())?;
        let line = (start, first_line(rest));
        start += line.1.len();
        Some(line)
    })
}

/// `bytes` up to and with the first newline.
///
/// A word at a time, so that the library needs no dependency for it; where the fast path runs, this does not.
pub(super) fn first_line(bytes: &[u8]) -> &[u8] {
    let mut at = 0;
    for word in bytes.chunks_exact(8) {
        let word = u64::from_le_bytes([word[0], word[1], word[2], word[3], word[4], word[5], word[6], word[7]]);
        let other = word ^ (ONES * 0x0A);
        let newline = other.wrapping_sub(ONES) & !other & (ONES << 7);
        if newline != 0 {
            return &bytes[..=at + (newline.trailing_zeros() / 8) as usize];
        }
        at += 8;
    }
    let tail = bytes[at..].iter().position(|&byte| byte == b'\n');
    &bytes[..tail.map_or(bytes.len(), |position| at + position + 1)]
}

/// The length of the UTF-8 byte order mark that `bytes` starts with, 0 when there is none.
///
/// Only the start of a stream may have one; whoever reads the stream takes it off and keeps it for the output.
#[must_use]
pub fn strip_bom(bytes: &[u8]) -> usize {
    if bytes.starts_with(b"\xEF\xBB\xBF") { 3 } else { 0 }
}

const ONES: u64 = u64::MAX / 0xFF;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_cut_where_a_byte_at_a_time_cuts_them() {
        for at in 0..40 {
            for second in at..40 {
                for filler in [b'a', 0x0B, 0x8A, 0x00] {
                    let mut bytes = [filler; 40];
                    (bytes[at], bytes[second]) = (b'\n', b'\n');
                    let expected: Vec<&[u8]> = bytes.split_inclusive(|&byte| byte == b'\n').collect();
                    let cut: Vec<&[u8]> = lines(&bytes).map(|(_, line)| line).collect();
                    assert_eq!(cut, expected);
                }
            }
        }
        assert_eq!(lines(b"").count(), 0);
    }

    #[test]
    fn a_byte_order_mark_has_three_bytes() {
        assert_eq!(strip_bom(b"\xEF\xBB\xBF{}"), 3);
        assert_eq!(strip_bom(b"\xEF\xBB"), 0);
        assert_eq!(strip_bom(b"{}"), 0);
    }
}
