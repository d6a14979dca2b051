//! Numbers and literals, judged where they stand.

/// The end of the number, `true`, `false` or `null` at `from`.
///
/// # Errors
/// The offset of the first byte that cannot stand there. What may follow the token is the caller's question.
#[inline]
pub(super) fn end(bytes: &[u8], from: usize) -> Result<usize, usize> {
    match bytes.get(from) {
        Some(b'-' | b'0'..=b'9') => number(bytes, from),
        Some(b't') => literal(bytes, from, b"true"),
        Some(b'f') => literal(bytes, from, b"false"),
        Some(b'n') => literal(bytes, from, b"null"),
        _ => Err(from),
    }
}

#[inline]
fn number(bytes: &[u8], from: usize) -> Result<usize, usize> {
    let mut at = from + usize::from(bytes[from] == b'-');
    at = match bytes.get(at) {
        Some(b'0') => at + 1,
        _ => digits(bytes, at)?,
    };
    if bytes.get(at) == Some(&b'.') {
        at = digits(bytes, at + 1)?;
    }
    if let Some(b'e' | b'E') = bytes.get(at) {
        at += 1 + usize::from(matches!(bytes.get(at + 1), Some(b'+' | b'-')));
        at = digits(bytes, at)?;
    }
    Ok(at)
}

/// The end of one digit or more.
#[inline]
fn digits(bytes: &[u8], from: usize) -> Result<usize, usize> {
    let mut at = from;
    while bytes.get(at).is_some_and(u8::is_ascii_digit) {
        at += 1;
    }
    if at > from { Ok(at) } else { Err(at) }
}

#[inline]
fn literal(bytes: &[u8], from: usize, word: &[u8]) -> Result<usize, usize> {
    let same = bytes[from..].iter().zip(word).take_while(|(a, b)| a == b).count();
    if same == word.len() { Ok(from + same) } else { Err(from + same) }
}
