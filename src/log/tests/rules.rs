//! One rule of the log each.

use super::super::storage::simulated::Fault;
use super::*;

fn started() -> (Simulated, Log) {
    let simulated = Simulated::new(512);
    let log = open(simulated.clone(), tiny()).unwrap().0;
    (simulated, log)
}

#[test]
fn ids_and_positions_of_one_batch_come_back_together_and_in_order() {
    let (simulated, log) = started();
    let mut batch = Batch::new();
    batch.push_ids(Kind::Seen, entry(1, 3).1);
    batch.push_named(Kind::Source, b"orders.ndjson", b"4711");
    batch.push_named(Kind::Sink, b"out.ndjson", b"99");
    log.append(Timestamp::from_nanos(5), &batch).unwrap();
    let mut found = Vec::new();
    Log::open(Arc::new(simulated.after_kill()), tiny(), |replayed| {
        found.extend(replayed.records.map(|record| (record.kind, record.bytes.len())));
    })
    .unwrap();
    assert_eq!(found, [(Kind::Seen, 48), (Kind::Source, 21), (Kind::Sink, 16)]);
}

#[test]
fn a_failed_sync_is_final() {
    let (simulated, log) = started();
    let position = append(&log, &entry(1, 10)).unwrap();
    simulated.fail_at(1, Fault::Error { kind: std::io::ErrorKind::Other, is_sticky: false });
    log.wait_durable(position).unwrap_err();
    log.wait_durable(position).unwrap_err();
    assert_eq!(append(&log, &entry(2, 10)).unwrap_err().code(), "log_poisoned");
    assert_eq!(log.durable(), Position::default());
    log.close().unwrap_err();
}

#[test]
fn a_full_disk_refuses_the_batch_and_takes_it_later() {
    let (simulated, log) = started();
    let kind = std::io::ErrorKind::StorageFull;
    for time in 1..=2 {
        append(&log, &entry(time, 90)).unwrap();
    }
    simulated.fail_at(1, Fault::Error { kind, is_sticky: true });
    let error = append(&log, &entry(3, 120)).unwrap_err();
    assert!(error.is_retryable(), "{error}");
    simulated.heal();
    append(&log, &entry(4, 120)).unwrap();
    let times: Vec<_> = open(simulated.after_kill(), tiny()).unwrap().2.iter().map(|entry| entry.0).collect();
    assert_eq!(times, [1, 2, 4]);
}

/// As on a file system that copies on write.
#[test]
fn a_batch_that_finds_no_room_in_its_segment_is_stored_over() {
    // The body, then the header.
    for call in [1, 2] {
        let (simulated, log) = started();
        append(&log, &entry(1, 20)).unwrap();
        simulated.fail_at(call, Fault::Error { kind: std::io::ErrorKind::StorageFull, is_sticky: false });
        let error = append(&log, &entry(2, 30)).unwrap_err();
        assert!(error.code() == "log_no_room" && error.is_retryable(), "{error}");
        assert_eq!(open(simulated.after_kill(), tiny()).unwrap().2, [entry(1, 20)]);
        // Less than what was stored in part.
        append(&log, &entry(3, 10)).unwrap();
        append(&log, &entry(4, 1)).unwrap();
        log.sync().unwrap();
        let expected = [entry(1, 20), entry(3, 10), entry(4, 1)];
        assert_eq!(open(simulated.after_kill(), tiny()).unwrap().2, expected);
        assert_eq!(open(simulated.after_power_cut(&mut || false), tiny()).unwrap().2, expected);
        log.close().unwrap();
    }
}

/// Whatever of it is there: it was refused, so it is no torn tail.
#[test]
fn what_found_no_room_is_no_loss_after_a_close() {
    for (call, then, rolls) in
        [(1, 0, false), (2, 0, false), (1, 10, false), (2, 10, false), (1, 0, true), (2, 0, true)]
    {
        let (simulated, log) = started();
        let full = |call| {
            simulated.fail_at(call, Fault::Error { kind: std::io::ErrorKind::StorageFull, is_sticky: false });
        };
        append(&log, &entry(1, 20)).unwrap();
        log.maintain().unwrap();
        full(call);
        append(&log, &entry(2, 100)).unwrap_err();
        if then > 0 {
            append(&log, &entry(3, then)).unwrap();
        }
        if rolls {
            // It fits the next segment only, and finds no room there either.
            full(1);
            append(&log, &entry(4, 500)).unwrap_err();
        }
        log.close().unwrap();
        let expected: Vec<_> = [(1, 20), (3, then)].into_iter().filter(|frame| frame.1 > 0).collect();
        for left in [simulated.after_kill(), simulated.after_power_cut(&mut || false)] {
            let (_, opening, entries) = open(left, tiny()).unwrap();
            let entries: Vec<_> = entries.iter().map(|(time, ids)| (*time, ids.len() as u16)).collect();
            assert_eq!((opening.loss, entries), (None, expected.clone()), "{call} {then} {rolls}");
        }
    }
}

#[test]
fn a_batch_that_fits_no_segment_is_refused() {
    let (simulated, log) = started();
    assert_eq!(append(&log, &entry(1, 770)).unwrap_err().code(), "log_too_large");
    // Larger than the segment in use and than the one after it.
    let large = entry(2, 750);
    append(&log, &large).unwrap();
    append(&log, &entry(3, 1)).unwrap();
    let (_, _, entries) = open(simulated.after_kill(), tiny()).unwrap();
    assert_eq!(entries, [large, entry(3, 1)]);
}

#[test]
fn another_configuration_is_refused_and_the_state_untouched() {
    let (simulated, log) = started();
    append(&log, &entry(1, 10)).unwrap();
    log.close().unwrap();
    let before = simulated.files();
    let error = open(simulated.clone(), Config { identity: [8; 32], ..tiny() }).unwrap_err();
    assert_eq!(error.code(), "log_other_state");
    assert_eq!(simulated.files(), before);
}

#[test]
fn segments_age_out_and_their_files_are_used_again() {
    let (simulated, log) = started();
    for time in 1..=60 {
        append(&log, &entry(time, 100)).unwrap();
        log.sync().unwrap();
        log.maintain().unwrap();
        log.retire(Timestamp::from_nanos(time - 6)).unwrap();
    }
    let files = simulated.files();
    assert!(files.len() <= 8, "{:?}", files.keys());
    let (_, opening, entries) = open(simulated.after_power_cut(&mut || false), tiny()).unwrap();
    assert_eq!(opening.loss, None, "stale bytes of a recycled segment are no loss");
    assert!(entries.len() >= 6 && entries.len() < 20, "{} entries", entries.len());
    assert_eq!(entries.last(), Some(&entry(60, 100)));
}

#[test]
fn an_idle_log_writes_one_mark_and_then_rests() {
    let simulated = Simulated::new(512);
    let log = open(simulated.clone(), Config { watch_every: Duration::MAX, ..tiny() }).unwrap().0;
    append(&log, &entry(1, 10)).unwrap();
    for _ in 0..5 {
        log.sync().unwrap();
        log.maintain().unwrap();
    }
    let before = (simulated.calls(), simulated.files());
    log.sync().unwrap();
    log.maintain().unwrap();
    assert_eq!((simulated.calls(), simulated.files()), before);
}

#[test]
fn a_torn_tail_is_reported_once_and_fenced_off() {
    let (simulated, log) = started();
    append(&log, &entry(1, 10)).unwrap();
    simulated.fail_at(2, Fault::Crash);
    append(&log, &entry(2, 10)).unwrap_err();
    let left = simulated.after_kill();
    let (log, opening, entries) = open(left.clone(), tiny()).unwrap();
    let loss = opening.loss.expect("a torn tail");
    assert_eq!((loss.frames, entries.len()), (0, 1));
    append(&log, &entry(3, 10)).unwrap();
    let (_, opening, entries) = open(left.after_kill(), tiny()).unwrap();
    assert_eq!((opening.loss, entries.len()), (None, 2));
}

#[test]
fn a_hole_in_what_was_never_synced_ends_the_log_there() {
    let (simulated, log) = started();
    for time in 1..=3 {
        append(&log, &entry(time, 20)).unwrap();
    }
    let mut files = simulated.files();
    let bytes = files.values_mut().next().unwrap();
    bytes[4_096 + 376 + 100] ^= 1;
    let (_, opening, entries) = open(Simulated::with_files(&files), tiny()).unwrap();
    let loss = opening.loss.expect("a hole");
    assert_eq!((loss.offset, loss.frames, entries.len()), (4_096 + 376, 1, 1));
}

#[test]
fn segments_of_two_histories_do_not_join() {
    // Both go on from one state, as with a copy of a directory, and have the same salts.
    let (simulated, log) = started();
    drop(log);
    let mut histories = [1, 2].map(|first| {
        let simulated = simulated.after_kill();
        let log = open(simulated.clone(), tiny()).unwrap().0;
        for time in [first, 3, 4] {
            append(&log, &entry(time, 90)).unwrap();
        }
        simulated.files()
    });
    let last = histories[0].keys().rfind(|name| name.ends_with(".log")).unwrap().clone();
    let other = histories[1][&last].clone();
    histories[0].insert(last, other);
    let (_, opening, entries) = open(Simulated::with_files(&histories[0]), tiny()).unwrap();
    assert_eq!(entries, [entry(1, 90), entry(3, 90)]);
    assert_eq!(opening.loss.map(|loss| loss.frames), Some(0));
}

#[test]
fn the_only_segment_with_frames_on_disk_never_ages_out() {
    let (simulated, log) = started();
    for time in 1..=3 {
        append(&log, &entry(time, 90)).unwrap();
    }
    let late = Timestamp::from_nanos(100);
    assert_eq!(log.retire(late).unwrap(), 1);
    assert_eq!(log.retire(late).unwrap(), 0);
    assert_eq!(open(simulated.after_power_cut(&mut || false), tiny()).unwrap().2, [entry(3, 90)]);
}

/// What was appended again before a segment goes is on disk when it goes, and not only the frame that follows it.
#[test]
fn a_segment_ages_out_only_after_a_sync_of_all_that_was_appended() {
    let (simulated, log) = started();
    for time in 1..=3 {
        append(&log, &entry(time, 90)).unwrap();
    }
    log.sync().unwrap();
    append(&log, &entry(4, 10)).unwrap();
    let late = Timestamp::from_nanos(3);
    assert_eq!(log.retire(late).unwrap(), 1);
    assert_eq!(open(simulated.after_power_cut(&mut || false), tiny()).unwrap().2, [entry(3, 90), entry(4, 10)]);
}

#[test]
fn nothing_ages_out_when_that_sync_fails() {
    let (simulated, log) = started();
    for time in 1..=3 {
        append(&log, &entry(time, 90)).unwrap();
    }
    let before: Vec<String> = simulated.files().into_keys().collect();
    simulated.fail_at(1, Fault::Error { kind: io::ErrorKind::Other, is_sticky: false });
    log.retire(Timestamp::from_nanos(100)).unwrap_err();
    assert_eq!(simulated.files().into_keys().collect::<Vec<_>>(), before);
}

#[test]
fn an_empty_segment_that_was_tidied_away_never_comes_back() {
    let (simulated, log) = started();
    append(&log, &entry(1, 90)).unwrap();
    log.maintain().unwrap();
    drop(log);
    let left = simulated.after_kill();
    let (log, _, _) = open(left.clone(), tiny()).unwrap();
    append(&log, &entry(2, 90)).unwrap();
    log.sync().unwrap();
    // The second call syncs the directory, after the first segment has gone.
    left.fail_at(2, Fault::Crash);
    log.retire(Timestamp::from_nanos(2)).unwrap_err();
    for choices in 0_u32..16 {
        let mut bits = choices;
        let cut = left.after_power_cut(&mut || {
            bits = bits.rotate_right(1);
            bits & 1 << 31 != 0
        });
        let entries = open(cut, tiny()).map(|opened| opened.2).map_err(|error| error.to_string());
        let last = entries.as_ref().map(|entries| entries.last().cloned());
        assert_eq!(last, Ok(Some(entry(2, 90))), "choices {choices:b}: {entries:?}");
    }
}

#[test]
fn the_pen_leaves_the_page_that_is_synced_when_that_wastes_little() {
    let simulated = Simulated::new(512);
    let log = open(simulated.clone(), Config { segment_bytes_min: 1 << 20, ..tiny() }).unwrap().0;
    let start_of_next = |time, count| {
        let entry = entry(time, count);
        append(&log, &entry).unwrap();
        lock(&log.writer).active_end().0 - (56 + 16 * u64::from(count))
    };
    start_of_next(1, 10);
    log.sync().unwrap();
    assert_eq!(start_of_next(2, 10), 4_096 + 216, "after little it stays");
    for time in 3..50 {
        start_of_next(time, 255);
    }
    log.sync().unwrap();
    assert_eq!(start_of_next(50, 10) % 4_096, 0, "after much it goes on with a fresh page");
    assert_eq!(open(simulated.after_kill(), tiny()).unwrap().2.len(), 50);
}

#[test]
fn a_full_disk_is_opened_with_the_room_of_the_prepared_segment() {
    let (simulated, log) = started();
    append(&log, &entry(1, 90)).unwrap();
    log.maintain().unwrap();
    drop(log);
    let left = simulated.after_kill();
    let calls = |storage: &Simulated| open(storage.clone(), tiny()).map(|_| storage.calls());
    let calls_max = calls(&left.after_kill()).unwrap() - left.calls();
    let full = Fault::Error { kind: std::io::ErrorKind::StorageFull, is_sticky: false };
    let opened: Vec<u64> = (1..=calls_max)
        .filter(|call| {
            let storage = left.after_kill();
            storage.fail_at(*call, full);
            open(storage.clone(), tiny()).is_ok_and(|opened| {
                let spare = storage.files().contains_key("0000000000000002.log");
                assert!(!spare && opened.2 == [entry(1, 90)]);
                true
            })
        })
        .collect();
    assert!(!opened.is_empty(), "no call may fail with a full disk");
}

#[test]
fn a_segment_whose_first_frame_is_missing_is_moved_aside_whole() {
    let (simulated, log) = started();
    append(&log, &entry(1, 90)).unwrap();
    append(&log, &entry(2, 90)).unwrap();
    for time in 3..=4 {
        append(&log, &entry(time, 80)).unwrap();
    }
    let mut files = simulated.files();
    let second = files.get_mut("0000000000000002.log").unwrap();
    second[4_096 + 100] ^= 1;
    let bad = second.clone();
    let simulated = Simulated::with_files(&files);
    let (log, opening, entries) = open(simulated.clone(), tiny()).unwrap();
    assert_eq!((opening.loss.unwrap().frames, entries.len()), (1, 2));
    assert_eq!(simulated.files().get("0000000000000002.quarantine"), Some(&bad));
    append(&log, &entry(5, 10)).unwrap();
    let (_, opening, entries) = open(simulated.after_kill(), tiny()).unwrap();
    assert_eq!((opening.loss, entries.len()), (None, 3));
    assert!(simulated.files().contains_key("0000000000000002.quarantine"));
}

/// Where the file system says so only as the frame is stored.
#[test]
fn a_frame_that_follows_all_older_ones_waits_for_room() {
    let simulated = Simulated::new(512);
    let log = open(simulated.clone(), tiny()).unwrap().0;
    for time in 1..=3 {
        append(&log, &entry(time, 10)).unwrap();
    }
    log.close().unwrap();
    let bytes = simulated.files().values().map(|file| file.len() as u64).sum::<u64>();
    let config = Config { disk_bytes_max: Some(bytes), ..tiny() };
    let log = open(simulated.clone(), config).unwrap().0;
    simulated.fail_at(1, Fault::Error { kind: std::io::ErrorKind::StorageFull, is_sticky: false });
    assert_eq!(log.retire(Timestamp::from_nanos(1_000)).unwrap(), 0);
    assert_eq!(log.retire(Timestamp::from_nanos(1_000)).unwrap(), 1);
}
