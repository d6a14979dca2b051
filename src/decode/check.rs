//! The exact checker: one line against RFC 8259, byte by byte, without recursion.
//!
//! It is the judge. The fast path may only say what this says, and hands over every line that it does not understand;
//! on machines without the fast path this is all there is. It reports what it passes to an [`Observer`] and keeps no
//! values itself.

use super::record::Bad;
use super::text::{self, Text};
use super::token;

/// Who is told what the checker passes, in order. Depth is the number of open containers, the one in question included.
pub(super) trait Observer {
    /// The member `name` of the object at `depth` has its value at `value_at`.
    fn member(&mut self, depth: usize, name: Text<'_>, value_at: usize);
    /// The element `index` of the array at `depth` starts at `value_at`.
    fn element(&mut self, depth: usize, index: u32, value_at: usize);
    /// The value at `at` is a container; inside it the depth is `depth`.
    fn open(&mut self, depth: usize, at: usize);
    /// The container at `depth` ends.
    fn close(&mut self, depth: usize);
}

/// The open containers: an array's level holds the index of its present element, an object's holds [`OBJECT`].
pub(super) struct Nesting(Box<[u32; DEPTH_MAX]>);

impl Nesting {
    pub(super) fn new() -> Self {
        Self(Box::new([0; DEPTH_MAX]))
    }
}

/// Checks that `bytes` is one JSON value.
///
/// # Errors
/// [`Bad`] at the first byte that cannot stand where it stands.
pub(super) fn check(bytes: &[u8], nesting: &mut Nesting, observer: &mut impl Observer) -> Result<(), Bad> {
    let levels = &mut *nesting.0;
    let mut depth = 0;
    let mut at = skip_space(bytes, 0);
    loop {
        let mut open = None;
        match bytes.get(at) {
            Some(b'"') => at = text::validate(bytes, at + 1)?.0 + 1,
            Some(b'{') => open = Some((OBJECT, b'}')),
            Some(b'[') => open = Some((0, b']')),
            Some(_) => {
                at = token::end(bytes, at).map_err(|offset| Bad::malformed(offset, value_expected(bytes, offset)))?
            }
            None => return Err(Bad::malformed(at, ENDS)),
        }
        if let Some((level, close)) = open {
            if depth == DEPTH_MAX {
                return Err(Bad::malformed(at, "nested deeper than 512"));
            }
            levels[depth] = level;
            depth += 1;
            observer.open(depth, at);
            at = skip_space(bytes, at + 1);
            if bytes.get(at) == Some(&close) {
                observer.close(depth);
                depth -= 1;
                at += 1;
            } else {
                if level == OBJECT {
                    at = member(bytes, at, depth, observer)?;
                } else {
                    observer.element(depth, 0, at);
                }
                continue;
            }
        }
        at = loop {
            at = skip_space(bytes, at);
            if depth == 0 {
                return if at == bytes.len() { Ok(()) } else { Err(Bad::malformed(at, "something after the value")) };
            }
            let level = &mut levels[depth - 1];
            match (bytes.get(at), *level) {
                (Some(b','), OBJECT) => {
                    at = skip_space(bytes, at + 1);
                    break member(bytes, at, depth, observer)?;
                }
                (Some(b','), index) => {
                    *level = index.saturating_add(1).min(OBJECT - 1);
                    at = skip_space(bytes, at + 1);
                    observer.element(depth, *level, at);
                    break at;
                }
                (Some(b'}'), OBJECT) => {}
                (Some(b']'), level) if level != OBJECT => {}
                (Some(_), OBJECT) => return Err(Bad::malformed(at, "expected , or }")),
                (Some(_), _) => return Err(Bad::malformed(at, "expected , or ]")),
                (None, _) => return Err(Bad::malformed(at, ENDS)),
            }
            observer.close(depth);
            depth -= 1;
            at += 1;
        };
    }
}

/// Reads `"name" :` at `at` and returns where the value starts.
#[inline]
fn member(bytes: &[u8], at: usize, depth: usize, observer: &mut impl Observer) -> Result<usize, Bad> {
    let unexpected = |at: usize, what| Err(Bad::malformed(at, if at == bytes.len() { ENDS } else { what }));
    if bytes.get(at) != Some(&b'"') {
        return unexpected(at, "expected a member's name");
    }
    let (end, escaped) = text::validate(bytes, at + 1)?;
    let colon = skip_space(bytes, end + 1);
    if bytes.get(colon) != Some(&b':') {
        return unexpected(colon, "expected :");
    }
    let value_at = skip_space(bytes, colon + 1);
    observer.member(depth, Text { raw: &bytes[at + 1..end], escaped }, value_at);
    Ok(value_at)
}

/// The first byte at or after `at` that is not white space inside a line.
#[inline]
pub(super) fn skip_space(bytes: &[u8], mut at: usize) -> usize {
    while let Some(b' ' | b'\t' | b'\r') = bytes.get(at) {
        at += 1;
    }
    at
}

fn value_expected(bytes: &[u8], offset: usize) -> &'static str {
    match bytes.get(offset) {
        None => ENDS,
        Some(0x80..) => "not UTF-8 text inside a string",
        Some(_) => "not a JSON value",
    }
}

const OBJECT: u32 = u32::MAX;
pub(super) const DEPTH_MAX: usize = 512;
const ENDS: &str = "the line ends too early";
