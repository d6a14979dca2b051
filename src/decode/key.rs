//! `--key`: what was typed, parsed into what it means.

use std::fmt;

use super::path::Path;

/// Which bytes of a line name its event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeySpec {
    pub(super) kind: Kind,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// The whole line; no JSON is read.
    Line,
    /// A value in the line's JSON, or several.
    Parts(Vec<Part>),
}

/// One `--key`: the first of its alternatives that is present.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Part {
    pub(super) alternatives: Vec<Path>,
}

/// Why a `--key` or `--time-field` is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// There is no key, or an alternative without a name.
    #[error("a key is empty: give a member's name, a dotted path or a JSON Pointer")]
    Empty,
    /// A path cannot be read.
    #[error("path `{path}`: {why}")]
    Malformed {
        /// The path as it was given.
        path: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// `@line` stands beside something else, or where only a path can stand.
    #[error("@line takes the whole line: it does not combine with a path")]
    LineCombined,
    /// More than 32 paths.
    #[error("there are more than 32 paths")]
    TooMany,
}

impl KeyError {
    /// The stable name of this error.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Empty => "key_empty",
            Self::Malformed { .. } => "key_malformed",
            Self::LineCombined => "key_line_combined",
            Self::TooMany => "key_too_many",
        }
    }

    /// Whether the same text may be accepted later: never.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        false
    }
}

impl KeySpec {
    /// Reads the texts of one or more `--key` flags.
    ///
    /// A text is a member's name (`id`), a dotted path (`data.object.id`) or a JSON Pointer (`/data/items/0/id`);
    /// `a|b` takes the first that is present. Several texts make a composite. `@line` stands alone.
    ///
    /// # Errors
    /// [`KeyError`] says which text and why.
    ///
    /// # Example
    /// ```
    /// use dedupd::decode::KeySpec;
    ///
    /// let key = KeySpec::parse(&["/tenant/name", "event.id|id"])?;
    /// assert_eq!(key.to_string(), "tenant.name + event.id|id");
    /// # Ok::<(), dedupd::decode::KeyError>(())
    /// ```
    pub fn parse<S: AsRef<str>>(keys: &[S]) -> Result<Self, KeyError> {
        if let [only] = keys
            && only.as_ref() == LINE
        {
            return Ok(Self { kind: Kind::Line });
        }
        let parts = keys.iter().map(|key| Part::parse(key.as_ref())).collect::<Result<Vec<_>, _>>()?;
        match parts.iter().map(|part| part.alternatives.len()).sum() {
            0 => Err(KeyError::Empty),
            1..=PATHS_MAX => Ok(Self { kind: Kind::Parts(parts) }),
            _ => Err(KeyError::TooMany),
        }
    }

    /// Whether the whole line is the ID.
    #[must_use]
    pub fn is_line(&self) -> bool {
        matches!(self.kind, Kind::Line)
    }
}

impl Part {
    pub(super) fn parse(text: &str) -> Result<Self, KeyError> {
        let alternatives = text.split('|').map(|path| match path {
            LINE => Err(KeyError::LineCombined),
            path => Path::parse(path),
        });
        Ok(Self { alternatives: alternatives.collect::<Result<_, _>>()? })
    }
}

/// The member `id` of the line's object.
impl Default for KeySpec {
    fn default() -> Self {
        let id = super::path::Step { name: "id".to_owned(), index: None };
        Self { kind: Kind::Parts(vec![Part { alternatives: vec![Path { steps: vec![id] }] }]) }
    }
}

/// The canonical text: equal for equal keys only, so that a state's configuration can be compared as text.
impl fmt::Display for KeySpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.kind {
            Kind::Line => f.write_str(LINE),
            Kind::Parts(parts) => separated(f, parts, " + "),
        }
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        separated(f, &self.alternatives, "|")
    }
}

fn separated(f: &mut fmt::Formatter<'_>, items: &[impl fmt::Display], separator: &str) -> fmt::Result {
    for (position, item) in items.iter().enumerate() {
        write!(f, "{}{item}", if position == 0 { "" } else { separator })?;
    }
    Ok(())
}

const LINE: &str = "@line";

/// Bounds the work per member of a line.
const PATHS_MAX: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_key_is_the_member_id() {
        assert_eq!(KeySpec::default(), KeySpec::parse(&["id"]).unwrap());
    }

    #[test]
    fn at_line_stands_alone() {
        assert!(KeySpec::parse(&["@line"]).unwrap().is_line());
        assert_eq!(KeySpec::parse(&["@line", "id"]), Err(KeyError::LineCombined));
        assert_eq!(KeySpec::parse(&["id", "@line"]), Err(KeyError::LineCombined));
        assert_eq!(KeySpec::parse(&["id|@line"]), Err(KeyError::LineCombined));
        assert!(!KeySpec::parse(&["@timestamp"]).unwrap().is_line());
        assert!(!KeySpec::parse(&["/@line"]).unwrap().is_line());
    }

    #[test]
    fn an_empty_key_or_alternative_is_refused() {
        assert_eq!(KeySpec::parse::<&str>(&[]), Err(KeyError::Empty));
        for keys in [&[""][..], &["a|"], &["|a"], &["a||b"], &["a", ""]] {
            assert_eq!(KeySpec::parse(keys), Err(KeyError::Empty), "{keys:?}");
        }
    }

    #[test]
    fn the_number_of_paths_has_a_limit() {
        assert!(KeySpec::parse(&vec!["a"; 32]).is_ok());
        assert_eq!(KeySpec::parse(&vec!["a|b"; 17]), Err(KeyError::TooMany));
    }

    #[test]
    fn different_keys_have_different_canonical_texts() {
        let composite = KeySpec::parse(&["a", "b"]).unwrap();
        let one = KeySpec::parse(&["/a ~3 b"]).unwrap();
        assert_eq!(composite.to_string(), "a + b");
        assert_eq!(one.to_string(), "/a ~3 b");
        assert_eq!(KeySpec::parse(&["a + b"]).unwrap(), one);
        assert_eq!(KeySpec::parse(&["@line"]).unwrap().to_string(), "@line");
        assert_ne!(KeySpec::parse(&["a|b"]).unwrap().to_string(), KeySpec::parse(&["/a~2b"]).unwrap().to_string());
    }
}
