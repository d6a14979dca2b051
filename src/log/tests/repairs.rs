//! Repairs of a damaged log: what still checks is kept, what was dead stays dead, and a repair that dies anywhere is
//! made good by the next one.
//!
//! What a repaired log holds is judged against the history: it is a part of it in its order, and no more is missing
//! than the damage can have hit.

use super::super::storage::simulated::Fault;
use super::damage::{Files, damage, sample, two_lives};
use super::*;

/// Repairs `files`, and returns what the log then holds.
fn repaired(files: &Files) -> Result<(Option<Repaired>, Vec<Entry>, Simulated), OpenError> {
    let simulated = Simulated::with_files(files);
    let repaired = repair(&simulated, None)?;
    let after = simulated.after_power_cut(&mut || false);
    assert_eq!(after.files(), simulated.files(), "all of a repair is on disk when it has ended");
    let entries = open(after.clone(), tiny())?.2;
    Ok((repaired, entries, simulated))
}

/// How many entries of the history are missing. Panics when the rest is not the history.
fn missing(entries: &[Entry], world: &World, what: &str) -> usize {
    let mut rest = world.history.iter();
    for entry in entries {
        assert!(rest.any(|other| other == entry), "{what}: {} is not what was appended, or not there", entry.0);
    }
    world.history.len() - entries.len()
}

/// Whether all that was read before is still there, under one name or another.
fn assert_nothing_deleted(before: &Files, after: &Files, what: &str) {
    for (name, bytes) in before.iter().filter(|(name, _)| name.ends_with(".log")) {
        let stem = name.trim_end_matches(".log");
        let kept = after.iter().any(|(other, kept)| other.starts_with(stem) && kept == bytes);
        assert!(kept, "{what}: {name} is gone: {:?}", after.keys());
    }
}

#[test]
fn a_flipped_byte_costs_no_more_than_the_frame_that_it_stands_in() {
    for (files, world) in [sample(true), two_lives()] {
        let (mut repairs, mut lost) = (0, 0);
        for (name, bytes) in &files {
            for at in 0..bytes.len() {
                let what = format!("{name}, byte {at}");
                let mut bad = files.clone();
                bad.get_mut(name).unwrap()[at] ^= 0x40;
                let (report, entries, simulated) = repaired(&bad).unwrap_or_else(|error| panic!("{what}: {error}"));
                let missing = missing(&entries, &world, &what);
                let Some(report) = report else {
                    assert_eq!(missing, 0, "{what}");
                    assert_eq!(simulated.files(), bad, "{what}: nothing to repair, and yet something changed");
                    continue;
                };
                assert!(missing <= usize::from(at >= 4_096), "{what}: {missing} are missing, {report:?}");
                assert!(report.totals.ids_max.is_none_or(|ids| ids >= 50 * missing as u64), "{what}: {report:?}");
                assert!(report.totals.frames.is_none_or(|frames| frames >= missing as u64), "{what}: {report:?}");
                assert_nothing_deleted(&bad, &simulated.files(), &what);
                (repairs, lost) = (repairs + 1, lost + missing);
            }
        }
        assert!(repairs > 3_000 && lost > 3_000, "{repairs} repairs, {lost} entries lost");
    }
}

#[test]
fn a_zeroed_sector_costs_no_more_than_the_frames_that_it_meets() {
    for (files, world) in [sample(true), two_lives()] {
        for (name, bytes) in &files {
            for at in (0..bytes.len()).step_by(512) {
                let what = format!("{name}, sector at {at}");
                let mut bad = files.clone();
                let end = bytes.len().min(at + 512);
                bad.get_mut(name).unwrap()[at..end].fill(0);
                let (_, entries, _) = repaired(&bad).unwrap_or_else(|error| panic!("{what}: {error}"));
                let missing = missing(&entries, &world, &what);
                assert!(missing <= if at < 4_096 { 0 } else { 2 }, "{what}: {missing} are missing");
            }
        }
    }
}

#[test]
fn a_segment_that_is_gone_costs_what_stood_in_it() {
    let (files, world) = sample(true);
    let middle = files.keys().nth(1).unwrap();
    let mut bad = files.clone();
    bad.remove(middle);
    let (report, entries, _) = repaired(&bad).unwrap();
    let gap = report.unwrap().gaps.pop().unwrap();
    let missing = missing(&entries, &world, "the middle one is gone");
    assert!(gap.frames >= Some(missing as u64) && missing > 0, "{gap:?}, {missing} missing");
    assert_eq!(gap.ids_max, None, "nobody can know what stood in it");
    let lost = &world.history[entries.iter().zip(&world.history).take_while(|(a, b)| a == b).count()];
    assert!(gap.latest.unwrap().as_nanos() > lost.0);
}

#[test]
fn damage_of_any_kind_is_repaired_and_nothing_dead_comes_back() {
    let samples = [sample(true), sample(false), two_lives()];
    let mut refused = 0;
    for seed in 1..6_000 {
        let mut random = Seeded(seed);
        let (files, world) = &samples[usize::try_from(random.below(3)).unwrap()];
        let mut bad = files.clone();
        for _ in 0..=random.below(3) {
            damage(&mut bad, &mut random);
        }
        match repaired(&bad) {
            Ok((_, entries, _)) => drop(missing(&entries, world, &format!("seed {seed}"))),
            // Without one header that can be read nobody knows which state it is.
            Err(error) => {
                assert!(matches!(error, OpenError::Header { .. }), "seed {seed}: {error}");
                refused += 1;
            }
        }
    }
    assert!(refused < 30, "{refused} were not repaired");
}

/// What is left of a log after several lives, each ended by a kill or a power cut, with segments that aged out and files
/// that were used again; and what it holds.
fn old_log(random: &mut Seeded) -> (Files, Vec<Entry>) {
    let (mut simulated, mut time) = (Simulated::new(512), 0);
    for _ in 0..1 + random.below(4) {
        let (log, _, _) = open(simulated.clone(), tiny()).unwrap();
        for _ in 0..random.below(60) {
            time += 1;
            match random.below(8) {
                0..5 => drop(append(&log, &entry(time, 1 + u16::try_from(random.below(110)).unwrap())).unwrap()),
                5 => log.sync().unwrap(),
                6 => log.maintain().unwrap(),
                _ => drop(log.retire(Timestamp::from_nanos(time - 12)).unwrap()),
            }
        }
        simulated = match random.below(3) {
            0 => simulated.after_power_cut(&mut || random.below(2) == 0),
            1 => simulated.after_kill(),
            _ => {
                log.close().unwrap();
                simulated.after_kill()
            }
        };
    }
    let entries = open(simulated.after_kill(), tiny()).unwrap().2;
    (simulated.files(), entries)
}

/// Flips, zeroes or cuts something.
fn wear(files: &mut Files, random: &mut Seeded) {
    let index = usize::try_from(random.below(files.len() as u64)).unwrap();
    let Some(bytes) = files.values_mut().nth(index).filter(|bytes| !bytes.is_empty()) else { return };
    let mut any = |limit: usize| usize::try_from(random.below(limit as u64)).unwrap();
    let from = any(bytes.len());
    let to = (from + any(3_000)).min(bytes.len());
    match any(3) {
        0 => bytes[from] ^= 1 << any(8),
        // As disks do, in units that frames are aligned to.
        1 => bytes[from & !7..to].fill(0),
        _ => bytes.truncate(from),
    }
}

#[test]
fn an_old_log_is_repaired_to_a_part_of_what_it_held() {
    let seeds = std::env::var("DEDUPD_TEST_LOG_SEEDS").map_or(1_500, |seeds| seeds.parse().unwrap());
    let (mut repairs, mut lost, mut kept) = (0, 0, 0);
    for seed in 1..seeds {
        let mut random = Seeded(seed * 0x9e37_79b9 + 1);
        let (files, history) = old_log(&mut random);
        let world = World { history, ..World::default() };
        let mut bad = files.clone();
        bad.retain(|name, _| name.ends_with(".log"));
        // Frames that were moved would make a gap look smaller than it is.
        let is_moved = random.below(2) == 0;
        for _ in 0..=random.below(2) {
            if is_moved { damage(&mut bad, &mut random) } else { wear(&mut bad, &mut random) }
        }
        let Ok((report, entries, _)) = repaired(&bad) else { continue };
        let missing = missing(&entries, &world, &format!("seed {seed}"));
        if let Some(report) = report {
            (repairs, lost, kept) = (repairs + 1, lost + missing, kept + entries.len());
            let told = report.totals.ids_max.unwrap_or(u64::MAX);
            // Of the end nobody may have known that it was on disk.
            let last = entries.last().map_or(0, |entry| entry.0);
            let ids =
                |entries: &[Entry]| entries.iter().filter(|entry| entry.0 <= last).map(|entry| entry.1.len()).sum();
            let (held, all): (usize, usize) = (ids(&entries), ids(&world.history));
            assert!(is_moved || told >= (all - held) as u64, "seed {seed}: {} ids are missing, {report:?}", all - held);
        }
    }
    assert!(repairs * 4 > seeds && kept > 3 * lost, "{repairs} repairs, {lost} lost, {kept} kept");
}

#[test]
fn a_state_that_no_header_tells_of_is_repaired_by_who_knows_it() {
    let simulated = Simulated::new(512);
    let (log, _, _) = open(simulated.clone(), tiny()).unwrap();
    append(&log, &entry(1, 10)).unwrap();
    append(&log, &entry(2, 10)).unwrap();
    let mut files = simulated.files();
    files.retain(|name, _| name.ends_with(".log"));
    for bytes in files.values_mut() {
        bytes[..512].fill(0);
    }
    let simulated = Simulated::with_files(&files);
    assert_eq!(repair(&simulated, None).unwrap_err().code(), "log_corrupt");
    assert_eq!(simulated.files(), files);
    repair(&simulated, Some(&tiny().identity)).unwrap().unwrap();
    assert_eq!(open(simulated, tiny()).unwrap().2, [entry(1, 10), entry(2, 10)]);
}

#[test]
fn what_stands_behind_a_hole_that_was_never_synced_stays_dead_in_a_repair() {
    let simulated = Simulated::new(512);
    let config = Config { segment_bytes_min: 32_768, segment_bytes_max: 32_768, ..tiny() };
    let (log, _, _) = open(simulated.clone(), config).unwrap();
    for time in 1..=8 {
        append(&log, &entry(time, 20)).unwrap();
        if time == 4 {
            log.sync().unwrap();
        }
    }
    let mut files = simulated.files();
    let bytes = files.values_mut().next().unwrap();
    let frame = 56 + 20 * 16;
    // The second frame was on disk. The sixth was not, and the seventh and eighth count only with it.
    bytes[4_096 + frame + 100] ^= 1;
    // The sync may have had the pen go on with a fresh page, so it is looked for.
    let sixth = (4_096..bytes.len()).step_by(8).find(|at| bytes[*at..*at + 16] == sixth_id()).unwrap();
    bytes[sixth] ^= 1;
    let (report, entries, _) = repaired(&files).unwrap();
    assert_eq!(entries.iter().map(|entry| entry.0).collect::<Vec<_>>(), [1, 3, 4, 5]);
    let report = report.unwrap();
    assert_eq!((report.totals.frames, report.totals.kept), (Some(4), 4));
    let [second, end] = &report.gaps[..] else { panic!("{report:?}") };
    assert!((20..=28).contains(&second.ids_max.unwrap()), "{second:?}");
    assert_eq!((second.frames, second.latest), (Some(1), Some(Timestamp::from_nanos(3))));
    assert!((60..=90).contains(&end.ids_max.unwrap()), "{end:?}");
    assert_eq!((end.frames, end.latest), (Some(3), Some(Timestamp::from_nanos(8))));
}

fn sixth_id() -> [u8; 16] {
    entry(6, 1).1[0].as_u128().to_le_bytes()
}

/// Damaged logs whose repair copies more than one segment, and what a repair makes of them.
fn cases() -> Vec<(Files, Vec<Entry>)> {
    let mut cases = Vec::new();
    for (files, _) in [sample(true), two_lives()] {
        for (index, name) in files.keys().enumerate() {
            let mut bad = files.clone();
            // A header in one case, a body in the others.
            bad.get_mut(name).unwrap()[if index == 1 { 100 } else { 4_096 + 300 }] ^= 1;
            if open(Simulated::with_files(&bad), tiny()).is_ok() {
                continue;
            }
            let entries = repaired(&bad).unwrap().1;
            cases.push((bad, entries));
        }
    }
    assert!(cases.len() >= 4);
    cases
}

#[test]
fn a_repair_may_die_at_every_call() {
    let mut random = Seeded(5);
    for (case, (bad, expected)) in cases().into_iter().enumerate() {
        for call in 1.. {
            let simulated = Simulated::with_files(&bad);
            simulated.fail_at(call, Fault::Crash);
            let is_over = repair(&simulated, None).is_ok();
            for round in 0..24 {
                let left = match round {
                    0 => simulated.after_kill(),
                    1 => simulated.after_power_cut(&mut || false),
                    2 => simulated.after_power_cut(&mut || true),
                    _ => simulated.after_power_cut(&mut || random.below(2) == 0),
                };
                let what = format!("case {case}, died at call {call}, round {round}");
                if let Ok((_, _, entries)) = open(left.after_kill(), tiny()) {
                    assert!(entries == expected, "{what}: opens without another repair");
                }
                // The second one dies, too.
                left.fail_at(1 + random.below(30), Fault::Crash);
                let _ = repair(&left, None);
                let left = left.after_power_cut(&mut || random.below(2) == 0);
                repair(&left, None).unwrap_or_else(|error| panic!("{what}: {error}"));
                let entries = open(left.after_power_cut(&mut || false), tiny()).map(|opened| opened.2);
                assert!(
                    entries.as_ref().is_ok_and(|entries| *entries == expected),
                    "{what}: {:?}",
                    entries.map(|all| all.len())
                );
                if round == 0 {
                    assert!(left.files().keys().all(|name| !name.contains("repair")), "{what}");
                }
            }
            if is_over {
                break;
            }
        }
    }
}

#[test]
fn a_repair_that_fails_at_any_call_may_be_tried_again() {
    for (case, (bad, expected)) in cases().into_iter().enumerate() {
        for call in 1.. {
            let simulated = Simulated::with_files(&bad);
            simulated.fail_at(call, Fault::Error { kind: std::io::ErrorKind::StorageFull, is_sticky: false });
            let first = repair(&simulated, None);
            assert!(!matches!(&first, Err(error) if error.is_corruption()), "case {case}, call {call}: {first:?}");
            let is_over = !simulated.has_fault();
            simulated.heal();
            if first.is_err() {
                assert_nothing_deleted(&bad, &simulated.files(), &format!("case {case}, call {call}"));
                let was_over = simulated.files().keys().all(|name| !name.contains("repair")) && call > 10;
                let again = repair(&simulated, None).unwrap();
                assert!(again.is_some() || was_over, "case {case}, call {call}: nothing is told");
            }
            assert!(open(simulated, tiny()).unwrap().2 == expected, "case {case}, call {call}");
            if is_over {
                break;
            }
        }
    }
}

#[test]
fn a_repair_that_was_cut_short_still_says_what_is_missing() {
    let (files, world) = sample(true);
    let mut bad = files.clone();
    bad.values_mut().next().unwrap()[4_096 + 300] ^= 1;
    let told = repaired(&bad).unwrap().0.unwrap().totals;
    assert_eq!((told.frames, told.kept > world.history.len() as u64 - 2), (Some(1), true));
    let mut cut_short = 0;
    for call in 1..100 {
        let simulated = Simulated::with_files(&bad);
        simulated.fail_at(call, Fault::Crash);
        if repair(&simulated, None).is_ok() {
            break;
        }
        // When the marks are gone the repair is over, and nothing is left to tell.
        if let Some(again) = repair(&simulated.after_kill(), None).unwrap() {
            assert_eq!(again.totals, told, "call {call}");
            cut_short += usize::from(again.gaps.is_empty());
        }
    }
    assert!(cut_short > 2, "{cut_short}");
}

#[test]
fn an_unfinished_repair_is_refused_by_all_others() {
    let (files, _) = sample(true);
    for mark in ["0000000000000009.repairing", "0000000000000001-0000000000000009.repaired"] {
        let mut marked = files.clone();
        marked.insert(mark.to_owned(), vec![0; 4_096]);
        let error = open(Simulated::with_files(&marked), tiny()).unwrap_err();
        assert!(error.is_corruption() && error.to_string().contains(mark), "{error}");
    }
}

#[test]
fn what_a_repair_moved_aside_goes_when_all_as_old_has_aged_out() {
    let (files, _) = sample(true);
    let mut bad = files.clone();
    bad.values_mut().next().unwrap()[4_096 + 300] ^= 1;
    let simulated = Simulated::with_files(&bad);
    let aside = repair(&simulated, None).unwrap().unwrap().set_aside;
    assert_eq!(aside.len(), 3);
    let is_there = || aside.iter().all(|name| simulated.files().contains_key(name));
    let (log, _, _) = open(simulated.clone(), tiny()).unwrap();
    assert!(is_there());
    for time in 20..24 {
        append(&log, &entry(time, 100)).unwrap();
    }
    log.sync().unwrap();
    log.retire(Timestamp::from_nanos(23)).unwrap();
    log.close().unwrap();
    assert!(is_there());
    drop(open(simulated.clone(), tiny()).unwrap());
    assert!(simulated.files().keys().all(|name| !name.ends_with(".quarantine")), "{:?}", simulated.files().keys());
}

#[test]
fn a_log_that_is_sound_or_newer_is_not_touched() {
    let (mut files, _) = sample(true);
    let simulated = Simulated::with_files(&files);
    assert_eq!(repair(&simulated, None).unwrap(), None);
    assert_eq!(simulated.files(), files);
    let page = files.values_mut().next().unwrap();
    page[8] = 2;
    let crc = crc32c::crc32c(&page[..4_092]);
    page[4_092..4_096].copy_from_slice(&crc.to_le_bytes());
    let simulated = Simulated::with_files(&files);
    assert_eq!(repair(&simulated, None).unwrap_err().code(), "log_newer");
    assert_eq!(simulated.files(), files);
}
