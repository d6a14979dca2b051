//! One path to a value: what stands between two `|` of `--key`.
//!
//! Two ways to write one. A dotted path names members only, so `data.object.id` needs no quoting and a digit is a name
//! like any other. A JSON Pointer (RFC 6901) can also say what dots cannot: elements of arrays, and names with dots,
//! slashes or nothing in them. It gets two escapes of our own beside `~0` (`~`) and `~1` (`/`): `~2` is `|` and `~3` is
//! `+`, which separate alternatives and parts; RFC 6901 gives these no meaning.

use std::fmt;

use super::key::KeyError;

/// The steps from the document to a value; never none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Path {
    pub(super) steps: Vec<Step>,
}

/// One step down.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Step {
    /// The member's name, where this step meets an object.
    pub(super) name: String,
    /// The element's index, where it meets an array: only a JSON Pointer has one.
    pub(super) index: Option<u32>,
}

impl Path {
    pub(super) fn parse(text: &str) -> Result<Self, KeyError> {
        let malformed = |why| KeyError::Malformed { path: text.to_owned(), why };
        if text.is_empty() {
            return Err(KeyError::Empty);
        }
        let steps = match text.strip_prefix('/') {
            Some(tokens) => tokens.split('/').map(pointer_step).collect::<Result<Vec<_>, _>>(),
            None => text.split('.').map(dotted_step).collect(),
        };
        let steps = steps.map_err(malformed)?;
        if steps.len() > STEPS_MAX {
            return Err(malformed("it has more than 64 steps"));
        }
        Ok(Self { steps })
    }

    fn fits_dots(&self) -> bool {
        let plain = |step: &Step| step.index.is_none() && !step.name.is_empty() && !step.name.contains(['.', '|', '+']);
        self.steps.iter().all(plain) && !self.steps[0].name.starts_with('/') && self.steps[0].name != "@line"
    }
}

fn dotted_step(name: &str) -> Result<Step, &'static str> {
    if name.is_empty() {
        return Err("a name between dots is empty; write such a path as a JSON Pointer (/a//b)");
    }
    Ok(Step { name: name.to_owned(), index: None })
}

fn pointer_step(token: &str) -> Result<Step, &'static str> {
    let mut name = String::with_capacity(token.len());
    let mut chars = token.chars();
    while let Some(char) = chars.next() {
        name.push(match (char, char == '~') {
            (_, true) => match chars.next() {
                Some('0') => '~',
                Some('1') => '/',
                Some('2') => '|',
                Some('3') => '+',
                _ => return Err("after ~ stands 0 (~), 1 (/), 2 (|) or 3 (+)"),
            },
            (char, false) => char,
        });
    }
    Ok(Step { index: array_index(token), name })
}

/// RFC 6901, section 4: digits without a leading zero.
fn array_index(token: &str) -> Option<u32> {
    let digits = token.bytes().all(|byte| byte.is_ascii_digit());
    let canonical = token == "0" || !token.starts_with('0');
    (digits && canonical).then(|| token.parse().ok()).flatten()
}

/// The canonical text: with dots where dots can say it, else as a JSON Pointer.
impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.fits_dots() {
            for (position, step) in self.steps.iter().enumerate() {
                write!(f, "{}{}", if position == 0 { "" } else { "." }, step.name)?;
            }
            return Ok(());
        }
        for step in &self.steps {
            let name = step.name.replace('~', "~0").replace('/', "~1").replace('|', "~2").replace('+', "~3");
            write!(f, "/{name}")?;
        }
        Ok(())
    }
}

/// Deep enough for any real event; it bounds the work per member.
const STEPS_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> String {
        Path::parse(text).unwrap().to_string()
    }

    #[test]
    fn a_canonical_text_uses_dots_where_dots_can_say_it() {
        assert_eq!(shown("id"), "id");
        assert_eq!(shown("/id"), "id");
        assert_eq!(shown("/data/object/id"), "data.object.id");
        assert_eq!(shown("/a.b/c"), "/a.b/c");
        assert_eq!(shown("/data/items/0/id"), "/data/items/0/id");
        assert_eq!(shown("/a~1b"), "a/b");
        assert_eq!(shown("/~1a"), "/~1a");
        assert_eq!(shown("/a~2b~3c~0d.e"), "/a~2b~3c~0d.e");
        assert_eq!(shown("/"), "/");
        assert_eq!(shown("/@line"), "/@line");
        assert_eq!(shown("@timestamp"), "@timestamp");
    }

    #[test]
    fn a_canonical_text_parses_to_the_same_path() {
        for text in ["id", "items.0", "/items/0", "/a.b", "/", "//", "/~0~1~2~3", "/@line", "a/b", "/01"] {
            let path = Path::parse(text).unwrap();
            assert_eq!(Path::parse(&path.to_string()).unwrap(), path, "{text}");
        }
    }

    #[test]
    fn a_dotted_digit_is_a_name_and_a_pointer_digit_an_index_too() {
        assert_eq!(Path::parse("items.0").unwrap().steps[1].index, None);
        assert_eq!(Path::parse("/items/0").unwrap().steps[1].index, Some(0));
        assert_eq!(Path::parse("/items/01").unwrap().steps[1].index, None);
        assert_eq!(Path::parse("/items/-").unwrap().steps[1].index, None);
        assert_eq!(Path::parse("/").unwrap().steps[0].index, None);
    }

    #[test]
    fn a_path_with_a_hole_or_a_bad_escape_is_refused() {
        for text in ["", "a..b", ".a", "a.", "/~", "/~4", "/a~"] {
            assert!(Path::parse(text).is_err(), "{text}");
        }
    }
}
