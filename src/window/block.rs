//! Blocks of questions, sorted by shard, with the lines that they will ask: see [`batch`](super::batch).

use std::mem::MaybeUninit;
use std::ops::Range;

use super::directory::{Slot, Version};
use super::line::{Line, Stored};
use super::probe::Kernel;
#[cfg(all(target_arch = "x86_64", not(any(miri, loom))))]
use super::probe::with_avx2;
use super::{Set, prefetch, prefetch_far, shard_of};
use crate::event::Fingerprint;

/// A block of questions by shard, each bucket in the order in which they were asked.
pub(super) struct Block<'a> {
    pub(super) fingerprints: Vec<Fingerprint>,
    /// The buckets one after the other, each of `1 << bucket_bits` places.
    places: Box<[MaybeUninit<Question>]>,
    bucket_bits: u32,
    /// How many places of each bucket are filled.
    lengths: Box<[u16]>,
    /// Those whose bucket was full, by shard, in order: they are asked after all others.
    pub(super) spilled: Vec<u16>,
    /// The shard that is asked first: a random one, so that threads do not follow each other from lock to lock.
    first: usize,
    /// How many questions came before this block.
    pub(super) start: usize,
    /// The lines of all questions, in the order in which they were asked, and how many of them were asked for.
    lines: Vec<*mut Line>,
    /// Where their segments are named.
    slots: Vec<&'a Slot>,
    asked_for: usize,
    /// What the lines were looked up in: the newest generation, and by shard.
    newest: u64,
    versions: Box<[Version]>,
}

/// A question whose line is on its way: which one of the block it is, above the address of its home line, as it was before
/// the lock was taken. The address is zero when it has none, or one that must be cleaned first.
#[derive(Clone, Copy, Debug)]
pub(super) struct Question(u64);

impl Question {
    #[inline]
    fn new(line: *mut Line, index: usize) -> Self {
        Self(line.expose_provenance() as u64 | (index as u64) << ADDRESS_BITS)
    }

    #[inline]
    pub(super) fn index(self) -> usize {
        (self.0 >> ADDRESS_BITS) as usize
    }

    #[inline]
    pub(super) fn line(self) -> *mut Line {
        std::ptr::with_exposed_provenance_mut((self.0 & ((1 << ADDRESS_BITS) - 1)) as usize)
    }
}

/// The questions of a block that concern one shard.
#[derive(Clone, Copy, Debug)]
pub(super) struct Run<'a> {
    pub(super) questions: &'a [Question],
    /// Of all questions of the block.
    pub(super) fingerprints: &'a [Fingerprint],
    /// What their lines were looked up in.
    pub(super) newest: u64,
    pub(super) version: Version,
}

/// Lines that will be wanted.
pub(super) type Lines<'a> = std::slice::Iter<'a, *mut Line>;

impl Set {
    /// Calls `act` for each block of questions, with the lines of the next one, which it may ask for meanwhile.
    #[inline(always)]
    pub(super) fn each_block<F: FnMut(Range<usize>, &mut Vec<Fingerprint>)>(
        &self,
        questions: usize,
        hash: F,
        mut act: impl FnMut(&Block<'_>, &mut Lines<'_>),
    ) {
        let mut coming = Coming::new(questions, hash);
        let mut block = Block::new(self, questions);
        if questions <= coming.block {
            coming.fill::<true>(self, &mut block);
            if !block.lines.is_empty() {
                act(&block, &mut [].iter());
            }
            return;
        }
        let mut next = Block::new(self, questions);
        coming.fill::<false>(self, &mut block);
        while !block.lines.is_empty() {
            block.lines[block.asked_for..].iter().for_each(|line| prefetch_far(*line));
            coming.fill::<false>(self, &mut next);
            let mut ahead = next.lines.iter();
            act(&block, &mut ahead);
            next.asked_for = next.lines.len() - ahead.len();
            std::mem::swap(&mut block, &mut next);
        }
    }
}

/// Questions that are not in a block yet.
struct Coming<F> {
    questions: Range<usize>,
    hash: F,
    /// Questions in a block: all blocks of a batch are of about one size.
    block: usize,
}

impl<F: FnMut(Range<usize>, &mut Vec<Fingerprint>)> Coming<F> {
    fn new(questions: usize, hash: F) -> Self {
        let block = questions.div_ceil(questions.div_ceil(BLOCK).max(1));
        Self { questions: 0..questions, hash, block }
    }

    /// Hashes as many questions as a block takes, looks up their lines, and puts them into the buckets of `block`. With `ASKS`
    /// the lines are asked for at once, else by who works off another block first.
    #[inline(never)]
    fn fill<'a, const ASKS: bool>(&mut self, set: &'a Set, block: &mut Block<'a>) {
        let Range { start, end } = self.questions;
        self.questions.start = end.min(start + self.block);
        block.start = start;
        block.fingerprints.clear();
        (self.hash)(start..self.questions.start, &mut block.fingerprints);
        match set.common.kernel {
            #[cfg(all(target_arch = "x86_64", not(any(miri, loom))))]
            Kernel::Avx2(probe) => with_avx2(probe, || block.place::<ASKS>(set)),
            Kernel::Portable(_) => block.place::<ASKS>(set),
        }
        block.spilled.sort_by_key(|index| set.shard_of(block.fingerprints[usize::from(*index)]));
    }
}

impl<'a> Block<'a> {
    fn new(set: &Set, questions: usize) -> Self {
        let shards = set.shards.len();
        let most = (BUCKETS_PLACES / shards).max(BUCKET_PLACES_MIN).min(questions.next_power_of_two());
        let bucket_bits = most.ilog2();
        let places = Box::new_uninit_slice(shards << bucket_bits);
        let lengths = vec![0; shards].into_boxed_slice();
        let versions = vec![Version::default(); shards].into_boxed_slice();
        let questions = questions.min(BLOCK);
        let (fingerprints, slots, lines) =
            (Vec::with_capacity(questions), Vec::with_capacity(questions), Vec::with_capacity(questions));
        Self {
            fingerprints,
            places,
            bucket_bits,
            lengths,
            spilled: Vec::new(),
            first: 0,
            start: 0,
            lines,
            slots,
            asked_for: 0,
            newest: 0,
            versions,
        }
    }

    /// Looks up the lines of all fingerprints, and puts them into the buckets. In plain loops: what iterators would do in
    /// functions of their own is not compiled for this processor.
    #[inline(always)]
    fn place<const ASKS: bool>(&mut self, set: &'a Set) {
        self.note_versions(set);
        self.newest = set.common.generations.era().newest;
        let (newest, shard_bits) = (self.newest, set.common.shape.shard_bits);
        let slot_of = |fingerprint| set.shards[shard_of(fingerprint, shard_bits)].slot(fingerprint, shard_bits);
        self.spilled.clear();
        self.lengths.fill(0);
        self.asked_for = 0;
        self.lines.resize(self.fingerprints.len(), std::ptr::null_mut());
        let Some(first) = self.fingerprints.first() else { return };
        self.first = set.shard_of(*first);
        self.slots.resize(self.fingerprints.len(), slot_of(*first));
        for (slot, fingerprint) in self.slots.iter_mut().zip(&self.fingerprints) {
            *slot = slot_of(*fingerprint);
            prefetch(*slot);
        }
        let (places, lengths, bucket_bits) = (&mut *self.places, &mut *self.lengths, self.bucket_bits);
        let questions = self.lines.iter_mut().zip(&self.slots).zip(&self.fingerprints);
        for (index, ((line, slot), fingerprint)) in questions.enumerate() {
            let segment = slot.segment();
            let is_at_hand = slot.is_at_hand(segment, newest);
            *line = if is_at_hand { segment.home(Stored::of(*fingerprint)) } else { std::ptr::null_mut() };
            if ASKS {
                prefetch_far(*line);
            }
            let shard = shard_of(*fingerprint, shard_bits);
            let length = &mut lengths[shard];
            if *length >> bucket_bits == 0 {
                places[shard << bucket_bits | usize::from(*length)].write(Question::new(*line, index));
                *length += 1;
            } else {
                self.spilled.push(index as u16);
            }
        }
    }

    /// Before lines are looked up: see [`Version`].
    #[inline]
    fn note_versions(&mut self, set: &Set) {
        for (version, shard) in self.versions.iter_mut().zip(&set.shards) {
            *version = shard.version.get();
        }
    }

    /// Calls `act` for each shard that is asked, with its questions.
    #[inline]
    pub(super) fn each_run(&self, mut act: impl FnMut(usize, Run<'_>)) {
        for shard in (self.first..self.lengths.len()).chain(0..self.first) {
            let length = usize::from(self.lengths[shard]);
            if length > 0 {
                let first = shard << self.bucket_bits;
                let places = &self.places[first..first + length];
                // SAFETY: `place` wrote the first `length` places of each bucket, and an initialised question is laid out as
                // one that may be.
                let questions = unsafe { &*(std::ptr::from_ref(places) as *const [Question]) };
                let (newest, version) = (self.newest, self.versions[shard]);
                act(shard, Run { questions, fingerprints: &self.fingerprints, newest, version });
            }
        }
    }
}

/// Questions in a block: their lines stay in the second-level cache.
pub(super) const BLOCK: usize = 1024;
/// Places of all buckets: several times as many as questions, so that they seldom spill.
const BUCKETS_PLACES: usize = 4 * BLOCK;
const BUCKET_PLACES_MIN: usize = 16;
/// Addresses of programs have 48 bits at most.
const ADDRESS_BITS: u32 = 48;
const _: () = assert!(BLOCK <= 1 << 16, "what is put off is named by 16 bits");
