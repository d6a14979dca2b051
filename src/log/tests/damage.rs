//! Damage to a log of three segments: cut at every byte, flipped at every byte, zeroed in every sector.
//!
//! Either it opens with a prefix, or it is refused and nothing has changed. After a clean close a damaged byte that
//! matters is always refused: the last mark says that everything before it was on disk.

use std::collections::BTreeMap;

use super::*;

pub(super) type Files = BTreeMap<String, Vec<u8>>;

/// A log of three segments, whose last life ended by `is_closed` or by a kill before any sync.
pub(super) fn sample(is_closed: bool) -> (Files, World) {
    let simulated = Simulated::new(512);
    let mut world = World::default();
    let config = Config { segment_bytes_max: 8_192, ..tiny() };
    let (log, _, _) = open(simulated.clone(), config).unwrap();
    for time in 1..=11 {
        world.append(&log, entry(time, 50)).unwrap();
        if is_closed && time % 4 == 0 {
            world.sync(&log).unwrap();
            log.maintain().unwrap();
        }
    }
    if is_closed {
        world.close(log).unwrap();
    }
    let files: Files = simulated.files().into_iter().filter(|(name, _)| name.ends_with(".log")).collect();
    assert_eq!(files.len(), 3, "{:?}", files.keys());
    (files, world)
}

/// A log whose first life ended inside an append, far behind a hole, and whose second one was closed.
pub(super) fn two_lives() -> (Files, World) {
    let simulated = Simulated::new(512);
    let mut world = World::default();
    let (log, _, _) = open(simulated.clone(), tiny()).unwrap();
    for time in 1..=3 {
        world.append(&log, entry(time, 60)).unwrap();
    }
    let mut files = simulated.files();
    let first = files.values_mut().next().unwrap();
    first[4_096 + 2 * 1_016 - 8] ^= 1;
    let simulated = Simulated::with_files(&files);
    let (log, opening, entries) = open(simulated.clone(), tiny()).unwrap();
    assert_eq!((entries.len(), opening.loss.unwrap().frames), (1, 1));
    let mut world = world.reborn(1);
    for time in 4..=7 {
        world.append(&log, entry(time, 60)).unwrap();
    }
    world.close(log).unwrap();
    (simulated.files(), world)
}

/// The number of entries found, or none when the log was refused. Panics when anything else happened.
fn found(files: &Files, world: &World, what: &str) -> Option<usize> {
    let simulated = Simulated::with_files(files);
    match open(simulated.clone(), tiny()) {
        Ok((_, _, entries)) => {
            let lenient = World { answered: 0, durable: 0, ..world.clone() };
            let judged = lenient.judge(&entries, Died::PowerCut);
            assert!(judged.is_ok(), "{what}: {judged:?}");
            judged.ok()
        }
        Err(error) => {
            assert!(error.is_corruption(), "{what}: {error}");
            assert_eq!(simulated.files(), *files, "{what}: refused, and yet something changed");
            None
        }
    }
}

#[test]
fn every_flipped_byte_of_a_closed_log_is_refused_or_does_not_matter() {
    for (files, world) in [sample(true), two_lives()] {
        let mut refused = 0;
        for (name, bytes) in &files {
            for at in 0..bytes.len() {
                let mut bad = files.clone();
                bad.get_mut(name).unwrap()[at] ^= 0x40;
                match found(&bad, &world, &format!("{name}, byte {at}")) {
                    Some(end) => assert_eq!(end, world.history.len(), "{name}, byte {at}"),
                    None => refused += 1,
                }
            }
        }
        let body: usize = world.history.iter().map(|entry| entry.1.len() * 16).sum();
        assert!(refused > body, "{refused} flips were refused, and the ids alone have {body} bytes");
    }
}

#[test]
fn every_cut_of_a_closed_log_leaves_a_prefix_or_is_refused() {
    let (files, world) = sample(true);
    for (name, bytes) in &files {
        let is_last = files.keys().last() == Some(name);
        for length in (0..bytes.len()).filter(|length| length % 3 == 0 || bytes.len() - length < 200) {
            let mut bad = files.clone();
            bad.get_mut(name).unwrap().truncate(length);
            let end = found(&bad, &world, &format!("{name}, cut to {length}"));
            assert!(is_last || end.is_none_or(|end| end == world.history.len()), "{name}, cut to {length}: {end:?}");
        }
    }
}

#[test]
fn every_zeroed_sector_leaves_a_prefix_or_is_refused() {
    for (kind, (files, world)) in [sample(true), sample(false), two_lives()].into_iter().enumerate() {
        for (name, bytes) in &files {
            for at in (0..bytes.len()).step_by(512) {
                let mut bad = files.clone();
                let end = bytes.len().min(at + 512);
                bad.get_mut(name).unwrap()[at..end].fill(0);
                found(&bad, &world, &format!("sample {kind}, {name}, sector at {at}"));
            }
        }
    }
}

#[test]
fn every_flipped_byte_of_a_log_that_never_synced_leaves_a_prefix() {
    let (files, world) = sample(false);
    let mut shortened = 0;
    for (name, bytes) in &files {
        for at in 4_096..bytes.len() {
            let mut bad = files.clone();
            bad.get_mut(name).unwrap()[at] ^= 1;
            let end =
                found(&bad, &world, &format!("{name}, byte {at}")).expect("nothing was synced, so nothing is corrupt");
            shortened += usize::from(end < world.history.len());
        }
    }
    assert!(shortened > 8_000, "{shortened} flips shortened it");
}

#[test]
fn damage_of_any_kind_leaves_a_prefix_or_is_refused() {
    for seed in 1..4_000 {
        let mut random = Seeded(seed);
        let (files, world) = &SAMPLES.with(|samples| samples[usize::try_from(random.below(3)).unwrap()].clone());
        let mut bad = files.clone();
        for _ in 0..=random.below(3) {
            damage(&mut bad, &mut random);
        }
        found(&bad, world, &format!("seed {seed}"));
    }
}

thread_local! {
    static SAMPLES: [(Files, World); 3] = [sample(true), sample(false), two_lives()];
}

/// Flips, zeroes, moves or cuts something.
pub(super) fn damage(files: &mut Files, random: &mut Seeded) {
    let index = usize::try_from(random.below(files.len() as u64)).unwrap();
    let Some(bytes) = files.values_mut().nth(index).filter(|bytes| !bytes.is_empty()) else { return };
    let mut any = |limit: usize| usize::try_from(random.below(limit as u64)).unwrap();
    let (from, to) = (any(bytes.len()), any(bytes.len()));
    let length = any(3_000).min(bytes.len() - from.max(to));
    match any(4) {
        0 => bytes[from] ^= 1 << any(8),
        1 => bytes[from..from + length].fill(0),
        2 => bytes.copy_within(from..from + length, to),
        _ => bytes.truncate(from),
    }
}

#[test]
fn a_missing_segment_is_refused_when_it_was_synced() {
    let (files, world) = sample(true);
    let middle = files.keys().nth(1).unwrap();
    let mut bad = files.clone();
    bad.remove(middle);
    assert_eq!(found(&bad, &world, "the middle one is gone"), None);
}
