//! Follows the wanted paths through a line while an engine walks it.
//!
//! A path is followed by one number, how many of its steps the open containers have matched: the container at depth
//! `matched + 1` is the one that its next step looks into. That is enough because a container on a path can only be
//! left by closing it. Offsets only are kept; what stands there is read once the whole line is known to be valid.

use super::check::Observer;
use super::key::Part;
use super::path::Path;
use super::text::Text;

/// The paths of a decoder and where the present line has them.
pub(super) struct Search {
    wanted: Vec<Wanted>,
    /// The paths of the first part come first, and so on.
    parts: Vec<std::ops::Range<usize>>,
    nested: bool,
    name_ends: NameEnds,
}

/// One path and where the present line has it.
pub(super) struct Wanted {
    path: Path,
    /// The names of its steps as they are found before a closing quote.
    names: Vec<QuotedName>,
    matched: usize,
    /// Bit `n`: the step `n` was met in this line.
    seen: u64,
    /// The value that the steps so far lead to, when a container there would be entered.
    pending: Option<usize>,
    value_at: Option<usize>,
    again_at: Option<usize>,
}

impl Search {
    pub(super) fn new(parts: &[Part]) -> Self {
        let mut wanted = Vec::new();
        let ranges = parts.iter().map(|part| {
            let first = wanted.len();
            wanted.extend(part.alternatives.iter().cloned().map(Wanted::new));
            first..wanted.len()
        });
        let parts = ranges.collect();
        let nested = wanted.iter().any(|wanted| wanted.path.steps.len() > 1);
        Self { parts, nested, name_ends: NameEnds::of(&wanted), wanted }
    }

    /// Forgets the present line.
    #[inline]
    pub(super) fn reset(&mut self) {
        for wanted in &mut self.wanted {
            (wanted.matched, wanted.seen) = (0, 0);
            (wanted.pending, wanted.value_at, wanted.again_at) = (None, None, None);
        }
    }

    pub(super) fn parts(&self) -> usize {
        self.parts.len()
    }

    /// The alternatives of one part, in order.
    #[inline]
    pub(super) fn alternatives(&self, part: usize) -> &[Wanted] {
        &self.wanted[self.parts[part].clone()]
    }

    /// Whether a path has more than one step, so that containers matter.
    #[inline]
    pub(super) fn is_nested(&self) -> bool {
        self.nested
    }

    /// Whether a path goes through an array: then elements matter, not only names.
    pub(super) fn has_indexes(&self) -> bool {
        self.wanted.iter().any(|wanted| wanted.path.steps.iter().any(|step| step.index.is_some()))
    }

    /// What the wanted names end in.
    pub(super) fn name_ends(&self) -> NameEnds {
        self.name_ends
    }

    /// As [`Observer::member`], for a name without escapes whose closing quote stands behind `before`. What it costs to
    /// ask, is asked only when the name is wanted.
    #[inline]
    pub(super) fn name_before(&mut self, before: &[u8], depth: impl Fn() -> usize, value_at: impl Fn() -> usize) {
        let tail = before.last_chunk().map_or(0, |tail| u64::from_le_bytes(*tail));
        for wanted in &mut self.wanted {
            if wanted.names[wanted.matched].ends(before, tail) && wanted.matched + 1 == depth() {
                wanted.meet(value_at());
            }
        }
    }

    #[inline]
    fn step(&mut self, depth: usize, value_at: usize, fits: impl Fn(&super::path::Step) -> bool) {
        for wanted in &mut self.wanted {
            if wanted.matched + 1 == depth && fits(&wanted.path.steps[wanted.matched]) {
                wanted.meet(value_at);
            }
        }
    }
}

/// The last bytes of the wanted names, so that most other names need not be compared.
#[derive(Clone, Copy, Debug)]
pub(super) struct NameEnds {
    /// Up to four different bytes, padded with the first.
    pub(super) bytes: [u8; 4],
    pub(super) count: usize,
    /// What stands before it, when it is the end of one name only: the byte before, or the opening quote.
    pub(super) before: Option<u8>,
}

impl NameEnds {
    /// Of an empty name, the quote before it. `count` is 0 when there are more than four: then any name may be wanted.
    fn of(wanted: &[Wanted]) -> Self {
        let names = || wanted.iter().flat_map(|wanted| &wanted.names).map(|name| &name.text[..]);
        let mut ends: Vec<u8> = names().filter_map(|name| name.last().copied()).collect();
        ends.sort_unstable();
        ends.dedup();
        let first = ends.first().copied().unwrap_or(b'"');
        let mut bytes = [first; 4];
        let count = if ends.len() > bytes.len() { 0 } else { ends.len() };
        bytes[..count].copy_from_slice(&ends[..count]);
        let mut befores = names().map(|name| name.len().checked_sub(2).map(|before| name[before]));
        let before = befores.next().flatten().filter(|&before| befores.all(|other| other == Some(before)));
        Self { bytes, count, before: before.filter(|_| count == 1) }
    }
}

impl Wanted {
    fn new(path: Path) -> Self {
        let names = path.steps.iter().map(|step| QuotedName::new(&step.name)).collect();
        Self { path, names, matched: 0, seen: 0, pending: None, value_at: None, again_at: None }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Where the path's value starts in the line.
    pub(super) fn value_at(&self) -> Option<usize> {
        self.value_at
    }

    /// Where the second value of a member on the path starts, if one occurs twice.
    pub(super) fn again_at(&self) -> Option<usize> {
        self.again_at
    }

    fn meet(&mut self, value_at: usize) {
        let step = 1 << self.matched;
        if self.seen & step != 0 {
            self.again_at = self.again_at.or(Some(value_at));
            return;
        }
        self.seen |= step;
        if self.matched + 1 == self.path.steps.len() {
            self.value_at = Some(value_at);
        } else {
            self.pending = Some(value_at);
        }
    }
}

/// An opening quote and a name, compared from its end: nearly always its last eight bytes decide.
struct QuotedName {
    text: Vec<u8>,
    tail: u64,
    tail_mask: u64,
}

impl QuotedName {
    fn new(name: &str) -> Self {
        let text = [b"\"", name.as_bytes()].concat();
        let bytes = text.len().min(8);
        let mut tail = [0; 8];
        tail[8 - bytes..].copy_from_slice(&text[text.len() - bytes..]);
        Self { tail: u64::from_le_bytes(tail), tail_mask: u64::MAX << (64 - 8 * bytes), text }
    }

    /// Whether `before`, whose last eight bytes are `tail`, ends in it.
    #[inline]
    fn ends(&self, before: &[u8], tail: u64) -> bool {
        if before.len() >= 8 && (tail & self.tail_mask != self.tail || self.text.len() <= 8) {
            return tail & self.tail_mask == self.tail;
        }
        before.ends_with(&self.text)
    }
}

impl Observer for Search {
    #[inline]
    fn member(&mut self, depth: usize, name: Text<'_>, value_at: usize) {
        self.step(depth, value_at, |step| name.is(&step.name));
    }

    #[inline]
    fn element(&mut self, depth: usize, index: u32, value_at: usize) {
        self.step(depth, value_at, |step| step.index == Some(index));
    }

    #[inline]
    fn open(&mut self, _depth: usize, at: usize) {
        for wanted in &mut self.wanted {
            if wanted.pending == Some(at) {
                wanted.matched += 1;
                wanted.pending = None;
            }
        }
    }

    #[inline]
    fn close(&mut self, depth: usize) {
        for wanted in &mut self.wanted {
            if wanted.matched > 0 && wanted.matched + 1 == depth {
                wanted.matched -= 1;
            }
        }
    }
}
