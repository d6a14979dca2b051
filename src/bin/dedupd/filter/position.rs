//! How far an input was read and an output written, as the state keeps it with the ids.
//!
//! A position is text, so that whoever inspects a state can read it. It says which file it belongs to and what stands
//! before it, so that a file that was replaced, cut or edited meanwhile is noticed.
//!
//! ```text
//! source  file inode=131 born=1763800000000000000
//!         offset=4096 lines=12 crc32c=1a2b3c4d path=/var/log/events.ndjson
//! sink    file /srv/out.ndjson
//!         inode=132 device=2049 born=1763800000000000000 offset=2048 crc32c=5e6f7a8b resumes=yes
//! ```

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use dedupd::sink::FileIdentity;

/// How far an input was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourcePosition {
    pub offset: u64,
    pub lines: u64,
    pub crc: u32,
    /// What it was called then.
    pub path: PathBuf,
}

/// How far an output was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SinkPosition {
    pub identity: FileIdentity,
    pub offset: u64,
    pub crc: u32,
    /// What follows is written from inputs that are read again from their positions.
    pub resumes: bool,
}

impl SourcePosition {
    pub fn name(identity: &FileIdentity) -> Vec<u8> {
        match identity.born {
            Some(born) => format!("{FILE}inode={} born={}", identity.inode, born.as_nanos()),
            None => format!("{FILE}inode={} device={}", identity.inode, identity.device),
        }
        .into_bytes()
    }

    pub fn to_bytes(&self) -> Vec<u8> {
        let Self { offset, lines, crc, path } = self;
        let mut bytes = format!("offset={offset} lines={lines} crc32c={crc:08x}{PATH}").into_bytes();
        bytes.extend_from_slice(path.as_os_str().as_bytes());
        bytes
    }

    pub fn parse(name: &[u8], bytes: &[u8]) -> Option<Self> {
        name.starts_with(FILE.as_bytes()).then_some(())?;
        let end = bytes.windows(PATH.len()).position(|part| part == PATH.as_bytes())?;
        let fields = Fields(std::str::from_utf8(&bytes[..end]).ok()?);
        let path = PathBuf::from(OsStr::from_bytes(&bytes[end + PATH.len()..]));
        Some(Self { offset: fields.number("offset")?, lines: fields.number("lines")?, crc: fields.crc()?, path })
    }
}

impl SinkPosition {
    pub fn name(path: &Path) -> Vec<u8> {
        [FILE.as_bytes(), path.as_os_str().as_bytes()].concat()
    }

    pub fn to_bytes(&self) -> Vec<u8> {
        let Self { identity, offset, crc, resumes } = self;
        let resumes = if *resumes { "yes" } else { "no" };
        format!("{identity} offset={offset} crc32c={crc:08x} resumes={resumes}").into_bytes()
    }

    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(bytes).ok()?;
        let (identity, fields) = (FileIdentity::parse(text)?, Fields(text));
        let resumes = fields.text("resumes")? == "yes";
        Some(Self { identity, offset: fields.number("offset")?, crc: fields.crc()?, resumes })
    }
}

/// `name=value` pairs, separated by spaces.
struct Fields<'a>(&'a str);

impl Fields<'_> {
    fn text(&self, name: &str) -> Option<&str> {
        self.0.split(' ').find_map(|field| field.strip_prefix(name)?.strip_prefix('='))
    }

    fn number(&self, name: &str) -> Option<u64> {
        self.text(name)?.parse().ok()
    }

    fn crc(&self) -> Option<u32> {
        u32::from_str_radix(self.text("crc32c")?, 16).ok()
    }
}

/// The last bytes before a position.
#[derive(Clone, Debug)]
pub struct Tail {
    /// At least the last `bytes_max`, when so many there are, and at most twice as many.
    bytes: Vec<u8>,
    bytes_max: usize,
}

impl Tail {
    pub fn new(bytes_max: usize) -> Self {
        Self { bytes: Vec::new(), bytes_max }
    }

    /// The last bytes of `file` before `offset`.
    pub fn read(bytes_max: usize, file: &File, offset: u64) -> io::Result<Self> {
        let start = offset.saturating_sub(bytes_max as u64);
        let mut bytes = vec![0; usize::try_from(offset - start).unwrap_or(bytes_max)];
        file.read_exact_at(&mut bytes, start)?;
        Ok(Self { bytes, bytes_max })
    }

    pub fn push(&mut self, bytes: &[u8]) {
        if bytes.len() >= self.bytes_max {
            self.bytes.clear();
        } else if self.bytes.len() + bytes.len() > 2 * self.bytes_max {
            self.bytes.drain(..self.bytes.len() - self.bytes_max);
        }
        self.bytes.extend_from_slice(&bytes[bytes.len().saturating_sub(self.bytes_max)..]);
    }

    /// Adds these parts of `buffer`.
    pub fn push_runs(&mut self, buffer: &[u8], runs: &[Range<usize>]) {
        let mut wanted = self.bytes_max;
        let first = runs.iter().rposition(|run| {
            wanted = wanted.saturating_sub(run.len());
            wanted == 0
        });
        runs[first.unwrap_or(0)..].iter().for_each(|run| self.push(&buffer[run.clone()]));
    }

    pub fn crc(&self) -> u32 {
        crc32c::crc32c(&self.bytes[self.bytes.len().saturating_sub(self.bytes_max)..])
    }
}

const FILE: &str = "file ";
const PATH: &str = " path=";
/// What is checked before the position of an input.
pub const SOURCE_TAIL_BYTES: usize = 4 << 10;
/// What is checked before the position of an output.
pub const SINK_TAIL_BYTES: usize = 64 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_come_back_as_they_were() {
        for identity in ["inode=2 device=1 born=3", "inode=2 device=1"] {
            let identity = FileIdentity::parse(identity).expect("an identity");
            let path = PathBuf::from(OsStr::from_bytes(b"/a path=b/\xFF"));
            let source = SourcePosition { offset: 10, lines: 2, crc: 0xAB, path };
            assert_eq!(SourcePosition::parse(&SourcePosition::name(&identity), &source.to_bytes()), Some(source));
            for resumes in [true, false] {
                let sink = SinkPosition { identity, offset: 11, crc: u32::MAX, resumes };
                assert_eq!(SinkPosition::parse(&sink.to_bytes()), Some(sink));
            }
        }
        assert_eq!(SourcePosition::parse(b"topic 7", b"offset=1 lines=1 crc32c=0 path=/x"), None);
        assert_eq!(SinkPosition::parse(b"inode=1"), None);
    }

    #[test]
    fn positions_are_a_disk_format() {
        let source = SourcePosition { offset: 10, lines: 2, crc: 0xAB, path: PathBuf::from("/in") };
        assert_eq!(source.to_bytes(), b"offset=10 lines=2 crc32c=000000ab path=/in");
        for (text, name) in
            [("inode=2 device=1 born=3", "file inode=2 born=3"), ("inode=2 device=1", "file inode=2 device=1")]
        {
            let identity = FileIdentity::parse(text).expect("an identity");
            assert_eq!(SourcePosition::name(&identity), name.as_bytes());
            let sink = SinkPosition { identity, offset: 11, crc: 5, resumes: true };
            assert_eq!(sink.to_bytes(), format!("{text} offset=11 crc32c=00000005 resumes=yes").as_bytes());
        }
    }

    #[test]
    fn a_tail_is_that_of_all_that_was_added() {
        let all: Vec<u8> = (0..10_000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
        for steps in [vec![1, 2, 3], vec![9, 1, 1, 1, 30, 7], vec![10, 10, 10, 11], vec![100, 1], vec![3; 200]] {
            let (mut tail, mut by_runs, mut end) = (Tail::new(10), Tail::new(10), 0);
            for step in steps {
                tail.push(&all[end..end + step]);
                by_runs.push_runs(&all, &[end..end + step / 2, end + step / 2..end + step]);
                end += step;
                let expected = crc32c::crc32c(&all[end.saturating_sub(10)..end]);
                assert_eq!((tail.crc(), by_runs.crc()), (expected, expected), "{end}");
                assert!(tail.bytes.len() <= 20);
            }
        }
    }

    #[test]
    fn a_tail_is_read_from_a_file() {
        let path = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(&path, "0123456789").expect("written");
        let file = File::open(&path).expect("open");
        for (offset, text) in [(0, ""), (3, "012"), (9, "5678")] {
            let tail = Tail::read(4, &file, offset).expect("read");
            assert_eq!(tail.crc(), crc32c::crc32c(text.as_bytes()));
        }
        assert!(Tail::read(4, &file, 11).is_err());
    }
}
