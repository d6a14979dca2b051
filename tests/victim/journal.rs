//! What a child tells of its life, in a file: each word before it goes on.

use std::fs::File;
use std::io::Write as _;
use std::path::Path;

/// A word about a position. Sixteen bytes, so that none crosses a page: a write that is killed ends at one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Word {
    /// A child began, and was told that so many positions are settled.
    Begun(u64),
    /// It is about to submit this position.
    Submitting(u64),
    /// It was told that this position is settled.
    Delivered(u64),
    Duplicate(u64),
    /// All positions below this one are settled.
    Settled(u64),
    /// It is where it was to die.
    Dying,
}

pub struct Journal(File);

impl Journal {
    pub fn open(dir: &Path) -> Self {
        Self(File::options().append(true).create(true).open(path(dir)).expect("a journal"))
    }

    pub fn say(&self, word: Word) {
        let (kind, number) = match word {
            Word::Begun(number) => (b'b', number),
            Word::Submitting(number) => (b's', number),
            Word::Delivered(number) => (b'd', number),
            Word::Duplicate(number) => (b'r', number),
            Word::Settled(number) => (b'u', number),
            Word::Dying => (b'x', 0),
        };
        let mut bytes = [kind; BYTES];
        bytes[8..].copy_from_slice(&number.to_le_bytes());
        (&self.0).write_all(&bytes).expect("a word");
    }
}

/// Everything that was said.
pub fn read(dir: &Path) -> Vec<Word> {
    let bytes = std::fs::read(path(dir)).expect("a journal");
    assert_eq!(bytes.len() % BYTES, 0, "half a word");
    let word = |bytes: &[u8]| {
        let number = u64::from_le_bytes(bytes[8..].try_into().expect("8 bytes"));
        match bytes[0] {
            b'b' => Word::Begun(number),
            b's' => Word::Submitting(number),
            b'd' => Word::Delivered(number),
            b'r' => Word::Duplicate(number),
            b'u' => Word::Settled(number),
            b'x' => Word::Dying,
            other => panic!("not a word: {other}"),
        }
    };
    bytes.chunks_exact(BYTES).map(word).collect()
}

/// How many words were said.
pub fn words(dir: &Path) -> u64 {
    std::fs::metadata(path(dir)).map_or(0, |about| about.len() / BYTES as u64)
}

fn path(dir: &Path) -> std::path::PathBuf {
    dir.join("journal")
}

const BYTES: usize = 16;
