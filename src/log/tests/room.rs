//! What the log takes on disk, and the limit of that.

use super::super::storage::simulated::Fault;
use super::*;

fn taken(simulated: &Simulated) -> u64 {
    simulated.files().values().map(|bytes| bytes.len() as u64).sum()
}

fn limited(bytes: u64) -> Config {
    Config { disk_bytes_max: Some(bytes), segment_bytes_max: 65_536, ..tiny() }
}

/// Appends batches of a third of the smallest segment until one is refused; the time of that one, and why.
fn fill(log: &Log, from: i64) -> (i64, AppendError) {
    (from..).find_map(|time| append(log, &entry(time, 80)).err().map(|error| (time, error))).unwrap()
}

#[test]
fn segments_shrink_before_one_is_refused_and_what_ages_out_makes_room() {
    let simulated = Simulated::new(512);
    let log = open(simulated.clone(), limited(100_000)).unwrap().0;
    let (refused, error) = fill(&log, 1);
    assert!(error.is_retryable(), "{error}");
    let why = std::error::Error::source(&error).unwrap().to_string();
    assert!(why.contains("of the 100000 that it may take") && why.contains("raise that limit"), "{why}");
    // 8, 16 and 32 KiB; 64 would be next, and 40 are left of the limit, in whole pages.
    let sizes: Vec<usize> = simulated.files().values().map(Vec::len).collect();
    assert_eq!(sizes, [8_192, 16_384, 32_768, 40_960]);
    assert_eq!((log.disk_bytes(), taken(&simulated)), (98_304, 98_304));

    log.maintain().unwrap_err();
    append(&log, &entry(refused, 80)).unwrap_err();
    log.sync().unwrap();
    assert_eq!(log.retire(Timestamp::from_nanos(5)).unwrap(), 1);
    append(&log, &entry(refused, 80)).unwrap();
    assert!(taken(&simulated) <= 100_000);
    let times: Vec<_> = open(simulated.after_kill(), tiny()).unwrap().2.iter().map(|entry| entry.0).collect();
    assert_eq!(times, (4..=refused).collect::<Vec<_>>());
}

#[test]
fn a_log_over_its_limit_opens_and_takes_batches_when_enough_has_aged_out() {
    let simulated = Simulated::new(512);
    let (log, _, _) = open(simulated.clone(), limited(100_000)).unwrap();
    let mut world = World::default();
    for time in 1..=40 {
        world.append(&log, entry(time, 80)).unwrap();
    }
    world.close(log).unwrap();
    let taken_before = taken(&simulated);
    // The last segment must go, too, before there is room for a batch of this size.
    let small = Config { segment_bytes_min: 16_384, ..limited(40_000) };
    let (log, _, entries) = open(simulated.clone(), small).unwrap();
    assert_eq!(entries, world.history);
    assert_eq!(log.disk_bytes(), taken_before + 8_192, "two pages were added");
    let mut world = world.reborn(40);
    for before in 1..=40 {
        assert!(append(&log, &entry(41, 500)).unwrap_err().is_retryable());
        world.retire(&log, before).unwrap();
        assert!(log.disk_bytes() <= taken_before + 8_192);
    }
    assert_eq!(open(simulated.after_kill(), small).unwrap().2.last(), Some(&entry(40, 80)));
    assert_eq!(world.retire(&log, 41).unwrap(), 1);
    world.append(&log, entry(41, 500)).unwrap();
    world.append(&log, entry(42, 100)).unwrap();
    world.sync(&log).unwrap();
    world.retire(&log, 42).unwrap();
    assert_eq!((log.disk_bytes(), log.disk_bytes() <= 40_000), (taken(&simulated), true));
    let (_, opening, entries) = open(simulated.after_power_cut(&mut || false), tiny()).unwrap();
    assert_eq!((opening.loss, entries), (None, vec![entry(41, 500), entry(42, 100)]));
}

#[test]
fn a_log_without_frames_whose_files_leave_no_room_takes_batches_after_its_open() {
    // A life without a batch, killed when the next segment was ready.
    let simulated = Simulated::new(512);
    let (log, _, _) = open(simulated.clone(), tiny()).unwrap();
    log.maintain().unwrap();
    drop(log);
    let small = Config { segment_bytes_min: 16_384, ..limited(40_000) };
    let left = simulated.after_kill();
    let (log, _, _) = open(left.clone(), small).unwrap();
    let mut world = World::default();
    for time in 1..=3 {
        world.append(&log, entry(time, 500)).unwrap();
        world.sync(&log).unwrap();
        world.retire(&log, time).unwrap();
    }
    let entries = open(left.after_power_cut(&mut || false), tiny()).unwrap().2;
    world.judge(&entries, Died::PowerCut).unwrap();
}

#[test]
fn what_segments_do_not_use_is_cut_before_a_batch_is_refused() {
    // One batch fills a segment, and leaves a page; a segment can be cut when it is synced and not the last.
    let third = |limit, is_synced: bool| {
        let config = Config { segment_bytes_min: 16_384, segment_bytes_max: 16_384, ..limited(limit) };
        let log = open(Simulated::new(512), config).unwrap().0;
        for time in 1..=2 {
            append(&log, &entry(time, 500)).unwrap();
        }
        if is_synced {
            log.sync().unwrap();
        }
        assert_eq!(log.disk_bytes(), 2 * 16_384);
        let result = append(&log, &entry(3, 500));
        (result.is_ok(), log.disk_bytes())
    };
    let cut = 12_288 + 2 * 16_384;
    assert_eq!(third(cut, true), (true, cut));
    assert_eq!(third(cut, false), (false, 2 * 16_384));
    assert_eq!(third(cut - 1, true), (false, 12_288 + 16_384));
    assert_eq!(third(3 * 16_384, true), (true, 3 * 16_384));
}

/// Where that is asked for: it replays all, changes nothing, and takes batches once there is room.
#[test]
fn a_log_on_a_full_disk_opens_and_takes_batches_when_there_is_room() {
    for (before, torn) in [(0, false), (1, false), (5, false), (5, true)] {
        let simulated = Simulated::new(512);
        let log = open(simulated.clone(), tiny()).unwrap().0;
        let history: Vec<_> = (1..=before).map(|time| entry(time, 80)).collect();
        for entry in &history {
            append(&log, entry).unwrap();
        }
        match torn {
            true => drop(log),
            false => log.close().unwrap(),
        }
        let files = simulated.after_kill().files();
        let full = Config { opens_full: true, ..tiny() };
        // The first call that makes a file, and all after it.
        let creates = (1..60).find(|call| {
            let tried = Simulated::with_files(&files);
            tried.fail_at(*call, Fault::Error { kind: FULL, is_sticky: true });
            open(tried.clone(), full).is_ok_and(|(log, _, _)| log.is_absent()) && tried.has_fault()
        });
        let left = Simulated::with_files(&files);
        left.fail_at(creates.unwrap(), Fault::Error { kind: FULL, is_sticky: true });
        let (log, _, entries) = open(left.clone(), full).unwrap();
        assert_eq!(entries, history);
        for _ in 0..2 {
            assert!(append(&log, &entry(7, 10)).unwrap_err().is_retryable());
            assert!(log.maintain().unwrap_err().is_retryable());
            assert_eq!(log.retire(Timestamp::from_nanos(1)).unwrap(), 0);
            log.sync().unwrap();
            assert_eq!(open(left.after_kill(), tiny()).unwrap().2, history, "a kill now changes nothing");
        }
        left.heal();
        append(&log, &entry(7, 10)).unwrap();
        append(&log, &entry(8, 200)).unwrap();
        log.sync().unwrap();
        let mut history = history;
        history.extend([entry(7, 10), entry(8, 200)]);
        assert_eq!(open(left.after_kill(), tiny()).unwrap().2, history);
        let (_, opening, entries) = open(left.after_power_cut(&mut || false), tiny()).unwrap();
        assert_eq!((opening.loss, entries), (None, history));
        log.maintain().unwrap();
        assert_eq!(log.disk_bytes(), taken(&left));
        log.close().unwrap();
    }
}

#[test]
fn a_log_that_never_found_room_is_closed_as_it_was() {
    let simulated = Simulated::new(512);
    let log = open(simulated.clone(), tiny()).unwrap().0;
    append(&log, &entry(1, 80)).unwrap();
    log.close().unwrap();
    let files = simulated.files();
    let full = Config { opens_full: true, ..tiny() };
    let mut was_absent = 0;
    for call in 1..40 {
        let left = Simulated::with_files(&files);
        left.fail_at(call, Fault::Error { kind: FULL, is_sticky: true });
        let Ok((log, _, _)) = open(left.clone(), full) else { continue };
        if !log.is_absent() {
            continue;
        }
        was_absent += 1;
        append(&log, &entry(2, 80)).unwrap_err();
        drop(log.close());
        assert_eq!(open(left.after_kill(), tiny()).unwrap().2, [entry(1, 80)], "call {call}");
    }
    assert!(was_absent > 0);
}

/// Everything has aged out and not a byte is left: what goes makes room, whatever step of it is the last.
#[test]
fn on_a_full_disk_what_has_aged_out_makes_room_for_the_first_segment() {
    let simulated = Simulated::new(512);
    let log = open(simulated.clone(), tiny()).unwrap().0;
    let mut world = World::default();
    for time in 1..=9 {
        world.append(&log, entry(time, 80)).unwrap();
    }
    world.close(log).unwrap();
    let (files, world) = (simulated.files(), world.reborn(9));
    let full = Config { opens_full: true, ..tiny() };
    let mut was_taken = 0;
    for call in 1..90 {
        let mut world = world.clone();
        let left = Simulated::with_files(&files);
        left.leave_room(0);
        left.fail_at(call, Fault::Crash);
        if let Ok((log, _, _)) = open(left.clone(), full) {
            assert!(log.is_absent() || left.is_dead());
            drop(world.retire(&log, 10));
            let appended = world.append(&log, entry(10, 80)).and_then(|_| world.append(&log, entry(11, 80)));
            assert!(appended.is_ok() || left.is_dead(), "call {call}: {appended:?}");
            was_taken += u32::from(appended.is_ok());
            drop(world.sync(&log));
            if !left.is_dead() {
                assert_eq!(log.disk_bytes(), taken(&left));
            }
        }
        let entries = open(left.after_kill(), full).unwrap().2;
        world.judge(&entries, Died::Killed).unwrap();
        for choice in [false, true] {
            let entries = open(left.after_power_cut(&mut || choice), full).unwrap().2;
            world.judge(&entries, Died::PowerCut).unwrap();
        }
    }
    assert!(was_taken > 0);
}

/// There is room for two pages: enough for what must be appended before the last segment can go, and that makes room.
#[test]
fn on_a_full_disk_the_first_segment_is_as_small_as_one_can_be() {
    let wide = Config { segment_bytes_min: 32_768, segment_bytes_max: 32_768, ..tiny() };
    for (room, opens) in [(32_768, true), (8_192, true), (4_096, false)] {
        let simulated = Simulated::new(512);
        let log = open(simulated.clone(), wide).unwrap().0;
        for time in 1..=20 {
            append(&log, &entry(time, 80)).unwrap();
        }
        log.close().unwrap();
        simulated.leave_room(room);
        let opened = open(simulated.clone(), wide);
        assert_eq!(opened.is_ok(), opens, "{room} bytes");
        let Ok((log, _, _)) = opened else { continue };
        if room == 8_192 {
            assert!(append(&log, &entry(21, 500)).unwrap_err().is_retryable());
        }
        assert_eq!(log.retire(Timestamp::from_nanos(21)).unwrap(), usize::from(room == 8_192));
        append(&log, &entry(21, 500)).unwrap();
    }
}

/// A batch larger than the segment that was ready leaves that one without a frame.
#[test]
fn a_segment_without_a_frame_is_never_the_first() {
    let wide = Config { segment_bytes_max: 65_536, opens_full: true, ..tiny() };
    for (call, is_reopened) in (1..20).flat_map(|call| [(call, false), (call, true)]) {
        let mut left = Simulated::new(512);
        let mut log = open(left.clone(), wide).unwrap().0;
        let mut world = World::default();
        world.append(&log, entry(1, 80)).unwrap();
        log.maintain().unwrap();
        world.append(&log, entry(2, 2_000)).unwrap();
        world.sync(&log).unwrap();
        assert_eq!(left.files().len(), 3);
        if is_reopened {
            drop(log);
            left = left.after_kill();
            left.leave_room(0);
            log = open(left.clone(), wide).unwrap().0;
        }
        left.fail_at(call, Fault::Crash);
        drop(world.retire(&log, 2));
        for choice in [false, true] {
            let opened = open(left.after_power_cut(&mut || choice), wide);
            let entries = opened.unwrap_or_else(|error| panic!("call {call}, {is_reopened}: {error}")).2;
            world.judge(&entries, Died::PowerCut).unwrap();
        }
    }
}

#[test]
fn a_close_without_a_first_segment_leaves_a_torn_tail_where_it_is() {
    let simulated = Simulated::new(512);
    let log = open(simulated.clone(), Config { segment_bytes_min: 16_384, ..tiny() }).unwrap().0;
    append(&log, &entry(1, 80)).unwrap();
    append(&log, &entry(2, 400)).unwrap();
    drop(log);
    let mut files = simulated.files();
    // The body of the second frame did not get there.
    files.values_mut().next().unwrap()[6_000] ^= 1;
    let left = Simulated::with_files(&files);
    left.leave_room(0);
    let full = Config { opens_full: true, ..tiny() };
    let (log, opening, _) = open(left.clone(), full).unwrap();
    assert!(log.is_absent() && opening.loss.is_some());
    let before = left.files();
    log.close().unwrap();
    assert!(left.files() == before, "a byte has changed");
    assert_eq!(open(Simulated::with_files(&before), tiny()).unwrap().1.loss, opening.loss);
}

#[test]
fn everything_that_is_the_logs_is_counted_and_nothing_else() {
    let simulated = Simulated::new(512);
    let log = open(simulated.clone(), tiny()).unwrap().0;
    for time in 1..=4 {
        append(&log, &entry(time, 90)).unwrap();
        log.sync().unwrap();
        log.maintain().unwrap();
    }
    log.retire(Timestamp::from_nanos(3)).unwrap();
    assert!(simulated.files().contains_key("recycled.tmp"));
    assert_eq!(log.disk_bytes(), taken(&simulated));
    drop(log);
    let mut files = simulated.files();
    let (whole, foreign) = (taken(&simulated), vec![1; 100]);
    for name in ["LOCK", "SECRET", "0000000000000001.log.bak", "notes.quarantine"] {
        files.insert(name.into(), foreign.clone());
    }
    files.insert("0000000000000009.quarantine".into(), vec![1; 50]);
    let counted = Counted::new(Arc::new(Simulated::with_files(&files))).unwrap();
    assert_eq!(counted.bytes(), whole + 50);
}

#[test]
fn a_file_that_was_left_by_a_failure_is_counted() {
    let simulated = Simulated::new(512);
    let log = open(simulated.clone(), tiny()).unwrap().0;
    // The name of the next segment is refused, so it stays what it was while it was prepared.
    simulated.fail_at(5, Fault::Error { kind: OTHER, is_sticky: true });
    log.maintain().unwrap_err();
    assert!(simulated.files().contains_key("prepare.tmp"), "{:?}", simulated.files().keys());
    assert_eq!(log.disk_bytes(), taken(&simulated));
}

const FULL: std::io::ErrorKind = std::io::ErrorKind::StorageFull;
const OTHER: std::io::ErrorKind = std::io::ErrorKind::Other;
