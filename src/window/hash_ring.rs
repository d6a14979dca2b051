//! The hash ring: who owns which part of the fingerprint space.
//!
//! The space is cut in 1,024 slots by the top bits of a fingerprint, so finding a slot is a shift. Each slot goes to the
//! owner with the highest score for it (rendezvous hashing: Thaler and Ravishankar, "Using name-based mappings to increase
//! hit rates", 1998), and the result is kept as a table: adding or removing one of N owners moves about 1/N of the slots,
//! and none between two owners that stay. The scores are a pure function of slot, owner and [`CONSTANT`], so processes that
//! know the same owners agree without talking.

use crate::event::Fingerprint;

/// Slots of the fingerprint space.
pub const SLOTS: usize = 1 << Fingerprint::SLOT_BITS;

/// Goes into every score. With it the owners `0..n` are well balanced for every `n` up to 64: the heaviest has 1.30 times
/// the mean up to 16 owners, and 1.34 times beyond. It was found by trying 400,000.
pub const CONSTANT: u64 = 250_237;

/// A table from slot to owner.
///
/// ```
/// use dedupd::{Fingerprint, HashRing};
///
/// let ring = HashRing::new([0, 1, 2]).expect("there are owners");
/// let owner = ring.owner_of(Fingerprint::from_u128(42));
/// assert!(owner < 3);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HashRing {
    /// One owner for each slot.
    table: Box<[u64]>,
}

impl HashRing {
    /// The ring of these owners: numbers of workers or processes, in any order. `None` without any.
    #[must_use]
    pub fn new(owners: impl IntoIterator<Item = u64>) -> Option<Self> {
        let owners: Vec<u64> = owners.into_iter().collect();
        let table = (0..SLOTS).map(|slot| owners.iter().copied().max_by_key(|owner| (score(slot, *owner), *owner)));
        Some(Self { table: table.collect::<Option<_>>()? })
    }

    /// The owner of a fingerprint.
    #[inline]
    #[must_use]
    pub fn owner_of(&self, fingerprint: Fingerprint) -> u64 {
        self.table[fingerprint.slot()]
    }

    /// The owner of each slot.
    #[must_use]
    pub fn owners(&self) -> &[u64] {
        &self.table
    }
}

fn score(slot: usize, owner: u64) -> u64 {
    mix(mix(owner.wrapping_add(CONSTANT)) ^ (slot as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15))
}

/// The finalizer of SplitMix64 (Steele, Lea, Flood, "Fast splittable pseudorandom number generators", 2014).
fn mix(n: u64) -> u64 {
    let n = (n ^ n >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let n = (n ^ n >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
    n ^ n >> 31
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ring(owners: std::ops::Range<u64>) -> HashRing {
        HashRing::new(owners).unwrap()
    }

    fn moved(before: &HashRing, after: &HashRing) -> Vec<(u64, u64)> {
        let pairs = before.owners().iter().copied().zip(after.owners().iter().copied());
        pairs.filter(|(before, after)| before != after).collect()
    }

    #[test]
    fn adding_an_owner_moves_at_most_its_share_and_only_to_it() {
        for owners in 1..64 {
            let moves = moved(&ring(0..owners), &ring(0..owners + 1));
            assert!(
                moves.iter().all(|(_, after)| *after == owners),
                "{owners} owners: a slot moved between two that stay"
            );
            let share = moves.len() as f64 / SLOTS as f64;
            assert!(share <= 1.5 / (owners + 1) as f64, "{owners} owners: {share} of the slots moved");
        }
    }

    #[test]
    fn removing_any_owner_moves_its_slots_and_no_others() {
        for owners in 2..=64 {
            for removed in 0..owners {
                let after = HashRing::new((0..owners).filter(|owner| *owner != removed)).unwrap();
                let moves = moved(&ring(0..owners), &after);
                assert!(moves.iter().all(|(before, _)| *before == removed));
                assert!(moves.len() as f64 / SLOTS as f64 <= 1.5 / owners as f64, "{owners} owners without {removed}");
            }
        }
    }

    #[test]
    fn the_heaviest_owner_stays_near_the_mean() {
        for owners in 1..=64_u64 {
            let ring = ring(0..owners);
            let slots_of = |owner: u64| ring.owners().iter().filter(|other| **other == owner).count();
            let heaviest = (0..owners).map(slots_of).max().unwrap() as f64 * owners as f64 / SLOTS as f64;
            assert!(heaviest <= if owners <= 16 { 1.3 } else { 1.34 }, "{owners} owners: {heaviest} of the mean");
        }
    }

    #[test]
    fn the_order_of_owners_does_not_matter() {
        assert_eq!(HashRing::new([3, 1, 2]), HashRing::new([1, 2, 3]));
        assert_eq!(HashRing::new([]), None);
    }

    #[test]
    fn the_golden_table_of_five_owners_holds() {
        let digits: String = ring(0..5).owners().iter().map(|owner| char::from(b'0' + *owner as u8)).collect();
        let golden: String = include_str!("hash_ring.golden").split_whitespace().collect();
        assert_eq!(digits, golden);
    }
}
