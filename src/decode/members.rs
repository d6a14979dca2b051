//! The names of a line's members: for the warning that none of the first lines has the ID.

use super::check::{self, Nesting, Observer};
use super::judge::without_terminator;
use super::path::{Path, Step};
use super::text::Text;

/// The paths of the members in `line` whose values are no containers, in order, at most `limit`, each as `--key` takes
/// it.
///
/// Members inside arrays are left out. Of a line that is not JSON, the members before its first error are named.
///
/// # Example
/// ```
/// let line = br#"{"type":"push","repo":{"id":1,"a.b":2},"tags":[{"x":1}]}"#;
/// assert_eq!(dedupd::decode::member_paths(line, 10), ["type", "repo.id", "/repo/a.b"]);
/// ```
#[must_use]
pub fn member_paths(line: &[u8], limit: usize) -> Vec<String> {
    let mut names = Names { line, open: Vec::new(), last: None, found: Vec::new(), limit };
    // An error ends the walk; what was seen before it is the answer.
    let _ = check::check(without_terminator(line), &mut Nesting::new(), &mut names);
    names.found
}

struct Names<'a> {
    line: &'a [u8],
    /// The name that leads into each open container; `None` for the document and for what is inside arrays.
    open: Vec<Option<Step>>,
    last: Option<Step>,
    found: Vec<String>,
    limit: usize,
}

impl Observer for Names<'_> {
    fn member(&mut self, _depth: usize, name: Text<'_>, value_at: usize) {
        let mut decoded = Vec::new();
        self.last = match name.decode(&mut decoded, NAME_BYTES_MAX) {
            Ok(()) => String::from_utf8(decoded).ok().map(|name| Step { name, index: None }),
            Err(_) => None,
        };
        let container = matches!(self.line.get(value_at), Some(b'{' | b'['));
        let steps = self.open.iter().skip(1).cloned().chain([self.last.clone()]).collect::<Option<Vec<_>>>();
        if let Some(steps) = steps
            && !container
            && self.found.len() < self.limit
        {
            self.found.push(Path { steps }.to_string());
        }
    }

    fn element(&mut self, _depth: usize, _index: u32, _value_at: usize) {
        self.last = None;
    }

    fn open(&mut self, _depth: usize, _at: usize) {
        let name = self.last.take();
        self.open.push(name);
    }

    fn close(&mut self, _depth: usize) {
        self.open.pop();
    }
}

/// A longer name is of no use to a reader.
const NAME_BYTES_MAX: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broken_line_names_what_came_before_the_break() {
        assert_eq!(member_paths(br#"{"a":1,"b":{"c":2,"d":}"#, 9), ["a", "b.c", "b.d"]);
        assert!(member_paths(b"not json", 9).is_empty());
        assert!(member_paths(br#"[{"a":1}]"#, 9).is_empty());
    }

    #[test]
    fn the_limit_holds_and_arrays_are_left_out() {
        assert_eq!(member_paths(br#"{"a":1,"b":2,"c":3}"#, 2), ["a", "b"]);
        assert_eq!(member_paths(br#"{"a":[{"x":1},{"y":{"z":2}}],"b":{"":0}}"#, 9), ["/b/"]);
        assert_eq!(member_paths(br#"{"\u0061":true}"#, 9), ["a"]);
    }
}
