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
    let mut names = Names { line, open: Vec::new(), unnamed: 0, last: None, found: Vec::new(), limit };
    // An error ends the walk; what was seen before it is the answer.
    let _ = check::check(without_terminator(line), &mut Nesting::new(), &mut names);
    names.found
}

struct Names<'a> {
    line: &'a [u8],
    /// The name that leads into each open container; `None` for the document and for what is inside arrays.
    open: Vec<Option<Step>>,
    /// How many of these are `None`.
    unnamed: usize,
    last: Option<Step>,
    found: Vec<String>,
    limit: usize,
}

impl Observer for Names<'_> {
    fn member(&mut self, _depth: usize, name: Text<'_>, value_at: usize) {
        self.last = None;
        // Inside an array, or nobody wants more: a line may have very many members, deep down.
        if self.unnamed > 1 || self.found.len() >= self.limit {
            return;
        }
        let mut decoded = Vec::new();
        if name.decode(&mut decoded, NAME_BYTES_MAX).is_ok() {
            self.last = String::from_utf8(decoded).ok().map(|name| Step { name, index: None });
        }
        let container = matches!(self.line.get(value_at), Some(b'{' | b'['));
        if let Some(last) = self.last.clone().filter(|_| !container) {
            let steps = self.open.iter().flatten().cloned().chain([last]).collect();
            self.found.push(Path { steps }.to_string());
        }
    }

    fn element(&mut self, _depth: usize, _index: u32, _value_at: usize) {
        self.last = None;
    }

    fn open(&mut self, _depth: usize, _at: usize) {
        let name = self.last.take();
        self.unnamed += usize::from(name.is_none());
        self.open.push(name);
    }

    fn close(&mut self, _depth: usize) {
        let name = self.open.pop();
        self.unnamed -= usize::from(name == Some(None));
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

    #[test]
    fn members_in_arrays_and_beyond_the_limit_are_left_out() {
        let deep = format!("{{\"{}\":", "n".repeat(200)).repeat(100);
        let members = "{\"x\":0,\"x\":0,\"x\":0}".to_owned() + &",{\"x\":0,\"x\":0,\"x\":0}".repeat(100_000);
        let in_array = format!("{deep}[{members}]{}", "}".repeat(100));
        assert!(member_paths(in_array.as_bytes(), 24).is_empty());
        let many = format!("{deep}{{\"x\":0{}}}{}", ",\"x\":0".repeat(300_000), "}".repeat(100));
        assert_eq!(member_paths(many.as_bytes(), 24).len(), 24);
    }
}
