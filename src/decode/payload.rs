//! [`PayloadSpec`]: which bytes of a line its payload digest is made of.
//!
//! Usually all of them. With members left out it is the list of the others, each with its length before it, so that no two
//! lists run together. This is a disk format, as the digests of a state are made of it:
//!
//! ```text
//! nothing left out     the line without `\n` or `\r\n`
//! the line's object    `{`, and then for each member that is not left out, in order:
//!                      the length of its name as u32 LE, the name as it is written, without its quotes,
//!                      the length of its value as u32 LE, the value as it is written
//! a line of no object  the line without `\n` or `\r\n`, and without the space before it
//! ```
//!
//! Names are compared by their decoded value, as those of `--key` are. The order of members and the space inside values
//! count; the space between members does not.

use std::fmt;

use super::check::skip_space;
use super::judge::without_terminator;
use super::key::KeyError;
use super::path::Path;
use super::text::Text;

/// Which members of a line's object are no part of its payload.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PayloadSpec {
    /// Sorted, each once.
    left_out: Vec<Path>,
}

impl PayloadSpec {
    /// Reads the texts of one or more `--conflict-ignore` flags: each a member's name, or a JSON Pointer to one (`/a.b`). Only
    /// members of the line's own object can be left out.
    ///
    /// # Errors
    /// [`KeyError`] says which text and why.
    ///
    /// # Example
    /// ```
    /// use dedupd::decode::PayloadSpec;
    ///
    /// let spec = PayloadSpec::leaving_out(&["attempt"])?;
    /// let (mut one, mut other) = (Vec::new(), Vec::new());
    /// let one = spec.payload(br#"{"id":1,"attempt":1}"#, &mut one);
    /// let other = spec.payload(br#"{ "id":1, "attempt":2 }"#, &mut other);
    /// assert_eq!(one, other);
    /// # Ok::<(), dedupd::decode::KeyError>(())
    /// ```
    pub fn leaving_out<S: AsRef<str>>(fields: &[S]) -> Result<Self, KeyError> {
        let mut left_out = fields.iter().map(|field| member(field.as_ref())).collect::<Result<Vec<_>, _>>()?;
        if left_out.len() > FIELDS_MAX {
            return Err(KeyError::TooMany);
        }
        left_out.sort_by(|one, other| name(one).cmp(name(other)));
        left_out.dedup();
        Ok(Self { left_out })
    }

    /// The payload of `line`, which is valid JSON, with its terminator or without. `buffer` holds it where it is not the
    /// line itself.
    ///
    /// # Cost
    /// Where members are left out, one pass over the line's bytes and one copy.
    #[must_use]
    pub fn payload<'a>(&self, line: &'a [u8], buffer: &'a mut Vec<u8>) -> &'a [u8] {
        let text = without_terminator(line);
        if self.left_out.is_empty() {
            return text;
        }
        let text = &text[skip_space(text, 0)..];
        if text.first() != Some(&b'{') {
            return text;
        }
        buffer.clear();
        buffer.push(b'{');
        let mut at = skip_space(text, 1);
        while let Some((member, next)) = Member::read(text, at) {
            if !self.left_out.iter().any(|path| member.name.is(name(path))) {
                push(buffer, member.name.raw);
                push(buffer, member.value);
            }
            at = next;
        }
        buffer
    }
}

/// The canonical text: equal for equal specs only.
impl fmt::Display for PayloadSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, path) in self.left_out.iter().enumerate() {
            write!(f, "{}{path}", if position == 0 { "" } else { " + " })?;
        }
        Ok(())
    }
}

fn member(text: &str) -> Result<Path, KeyError> {
    let malformed = |why| Err(KeyError::Malformed { path: text.to_owned(), why });
    if text.contains('|') {
        return malformed("each member that is left out is named by itself");
    }
    match Path::parse(text)? {
        path if path.steps.len() > 1 => malformed("only members of the line's own object can be left out"),
        path => Ok(path),
    }
}

fn name(path: &Path) -> &str {
    path.steps.first().map_or("", |step| &step.name)
}

fn push(buffer: &mut Vec<u8>, bytes: &[u8]) {
    buffer.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
    buffer.extend_from_slice(bytes);
}

/// A member of an object that is known to be valid.
struct Member<'a> {
    name: Text<'a>,
    value: &'a [u8],
}

impl<'a> Member<'a> {
    /// The member whose name starts at `at`, and where the next one does.
    fn read(text: &'a [u8], at: usize) -> Option<(Self, usize)> {
        if text.get(at) != Some(&b'"') {
            return None;
        }
        let (end, escaped) = string_end(text, at + 1);
        let value_at = skip_space(text, skip_space(text, end + 1) + 1);
        let value_end = value_end(text, value_at);
        let name = Text { raw: text.get(at + 1..end)?, escaped };
        let comma = skip_space(text, value_end);
        Some((Self { name, value: text.get(value_at..value_end)? }, skip_space(text, comma + 1)))
    }
}

/// Where the string whose content starts at `at` has its closing quote, and whether it has escapes.
fn string_end(text: &[u8], mut at: usize) -> (usize, bool) {
    let mut escaped = false;
    loop {
        match text.get(at) {
            Some(b'\\') => (at, escaped) = (at + 2, true),
            Some(b'"') | None => return (at, escaped),
            Some(_) => at += 1,
        }
    }
}

/// Behind the last byte of the value that starts at `at`.
fn value_end(text: &[u8], mut at: usize) -> usize {
    let mut depth = 0_usize;
    loop {
        match text.get(at) {
            Some(b'"') => at = string_end(text, at + 1).0 + 1,
            Some(b'{' | b'[') => (at, depth) = (at + 1, depth + 1),
            Some(b'}' | b']') if depth > 0 => (at, depth) = (at + 1, depth - 1),
            Some(b',' | b'}' | b']' | b' ' | b'\t' | b'\r') if depth == 0 => return at,
            Some(_) => {
                at += 1;
                continue;
            }
            None => return at.min(text.len()),
        }
        if depth == 0 {
            return at;
        }
    }
}

/// Bounds the work per member of a line.
const FIELDS_MAX: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;

    fn payload(fields: &[&str], line: &str) -> Vec<u8> {
        PayloadSpec::leaving_out(fields).unwrap().payload(line.as_bytes(), &mut Vec::new()).to_vec()
    }

    #[test]
    fn the_payload_is_the_line_unless_members_are_left_out() {
        for end in ["", "\n", "\r\n"] {
            assert_eq!(payload(&[], &format!(" {{\"a\":1}} {end}")), b" {\"a\":1} ");
        }
    }

    #[test]
    fn golden_payload_without_a_member() {
        let line = "{\"id\" : \"e\\\"1\", \"attempt\":[1,\"]\"] ,\"b\":{\"attempt\": [{}]},\"c\":-1e5}\n";
        let golden =
            b"{\x02\0\0\0id\x06\0\0\0\"e\\\"1\"\x01\0\0\0b\x11\0\0\0{\"attempt\": [{}]}\x01\0\0\0c\x04\0\0\0-1e5";
        assert_eq!(payload(&["attempt"], line).escape_ascii().to_string(), golden.escape_ascii().to_string());
    }

    #[test]
    fn what_is_left_out_does_not_matter_and_all_else_does() {
        let same = |one: &str, other: &str| payload(&["n", "/x.y"], one) == payload(&["n", "/x.y"], other);
        assert!(same("{\"a\":1,\"n\":1}", "{\"n\":2,\"a\":1}"));
        assert!(same("{\"a\":1,\"n\":1,\"n\":{\"n\":2}}", "{\"a\":1}"));
        assert!(same("{\"\\u006e\":7,\"a\":1}", " { \"a\" : 1 , \"x.y\":null} \r\n"));
        assert!(same("{}", "{\"n\":\"\\\\\"}"));
        assert!(!same("{\"a\":1}", "{\"a\":2}"));
        assert!(!same("{\"a\":{\"n\":1}}", "{\"a\":{\"n\":2}}"));
        assert!(!same("{\"a\":1,\"b\":2}", "{\"b\":2,\"a\":1}"));
        assert!(!same("{\"a\":[1,2]}", "{\"a\":[1, 2]}"));
        assert!(!same("{\"a\":1}", "{\"a\":\"1\"}"));
        assert!(!same("{\"x\":{\"y\":1}}", "{}"));
        assert!(!same("[{\"n\":1}]", "[{\"n\":2}]"));
    }

    #[test]
    fn the_canonical_text_does_not_depend_on_order_and_repeats() {
        let shown = |fields: &[&str]| PayloadSpec::leaving_out(fields).map(|spec| spec.to_string());
        assert_eq!(shown(&["b", "a", "/b"]).unwrap(), "a + b");
        assert_eq!(shown(&["/a.b"]).unwrap(), "/a.b");
        assert_eq!(shown(&[]).unwrap(), "");
        assert_eq!(shown(&[""]), Err(KeyError::Empty));
        for refused in ["a.b", "/a/b", "a|b", "/~9"] {
            assert!(matches!(shown(&[refused]), Err(KeyError::Malformed { .. })), "{refused}");
        }
        assert_eq!(shown(&["a"; 33]), Err(KeyError::TooMany));
    }

    #[test]
    fn a_line_that_is_cut_anywhere_does_not_panic() {
        let line = b"{\"id\" : \"e\\\"1\", \"n\":[1,\"]\"] ,\"b\":{\"n\": [{}]},\"c\":-1e5}\n";
        let spec = PayloadSpec::leaving_out(&["n"]).unwrap();
        for end in 0..=line.len() {
            let _ = spec.payload(&line[..end], &mut Vec::new());
        }
    }
}
