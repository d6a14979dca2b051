//! Reading a log from outside while it lives: a prefix, whatever happens meanwhile, and never a false alarm.

use std::sync::atomic::{AtomicBool, Ordering};

use super::super::storage::simulated::Fault;
use super::damage::sample;
use super::*;

#[test]
fn a_survey_counts_what_the_log_holds() {
    let simulated = Simulated::new(512);
    let (log, _, _) = open(simulated.clone(), tiny()).unwrap();
    append(&log, &entry(5, 30)).unwrap();
    let mut batch = Batch::new();
    batch.push_ids(Kind::Forget, entry(5, 2).1);
    batch.push_ids_at(Kind::RefreshAt, entry(5, 3).1.into_iter().map(|id| (id, Timestamp::from_nanos(9))));
    batch.push_named(Kind::Source, b"in", b"1");
    batch.push_named(Kind::Source, b"in", b"2");
    batch.push_named(Kind::Sink, b"out", b"7");
    log.append(Timestamp::from_nanos(4), &batch).unwrap();
    log.maintain().unwrap();
    append(&log, &entry(6, 250)).unwrap();
    let (survey, loss) = Survey::of(&simulated);
    assert_eq!(loss.unwrap(), None);
    let segments: Vec<_> = survey.segments.iter().map(|(number, segment)| (*number, segment.frames)).collect();
    assert_eq!(segments, [(1, 2), (2, 1)]);
    let first = &survey.segments[&1];
    assert_eq!(first.ids, Ids { seen: 30, refreshed: 3, forgotten: 2 });
    assert_eq!(first.sequences, Some((1, 2)));
    assert_eq!(first.times, Some((Timestamp::from_nanos(4), Timestamp::from_nanos(5))));
    assert_eq!(first.header.map(|header| header.resumes), Some(Some(0)));
    assert_eq!(survey.segments[&2].header.map(|header| header.resumes), Some(None));
    assert_eq!(survey.sources, [(b"in".to_vec(), b"2".to_vec())].into());
    assert_eq!(survey.sinks, [(b"out".to_vec(), b"7".to_vec())].into());
}

#[test]
fn a_survey_of_a_damaged_log_tells_the_rest_and_changes_nothing() {
    let (mut files, _) = sample(true);
    let middle = files.keys().nth(1).unwrap().clone();
    files.get_mut(&middle).unwrap()[4_096 + 300] ^= 1;
    let simulated = Simulated::with_files(&files);
    let (survey, read) = Survey::of(&simulated);
    let error = read.unwrap_err();
    assert_eq!(error.spot(), Some((middle.as_str(), 4_096)), "{error}");
    assert_eq!((survey.segments.len(), survey.segments[&1].frames > 0, survey.segments[&2].frames), (3, true, 0));
    files.get_mut(&middle).unwrap()[10] ^= 1;
    let (survey, read) = Survey::of(&Simulated::with_files(&files));
    assert!(read.unwrap_err().is_corruption());
    assert!(survey.segments[&2].header.is_none() && survey.segments[&3].header.is_some());
    assert_eq!(simulated.files().len(), 3);
}

/// As when its owner closes the log, and takes away the segment that was prepared.
#[test]
fn a_file_that_goes_after_it_was_listed_has_the_headers_read_again() {
    let simulated = Simulated::with_files(&sample(true).0);
    // The first call lists.
    for call in 2..=4 {
        simulated.fail_at(call, Fault::Error { kind: std::io::ErrorKind::NotFound, is_sticky: false });
        assert_eq!(Survey::of_headers(&simulated).unwrap().segments.len(), 3);
    }
    simulated.fail_at(2, Fault::Error { kind: std::io::ErrorKind::PermissionDenied, is_sticky: false });
    Survey::of_headers(&simulated).unwrap_err();
}

#[test]
fn a_log_may_be_read_while_it_is_written_and_ages_out() {
    let folder = tempfile::tempdir().unwrap();
    let config = Config { segment_bytes_min: 16_384, segment_bytes_max: 65_536, ..tiny() };
    let log = open(Disk::open(folder.path()).unwrap(), config).unwrap().0;
    let is_over = AtomicBool::new(false);
    let (surveys, replayed) = std::thread::scope(|scope| {
        scope.spawn(|| {
            for time in 1..=20_000 {
                append(&log, &entry(time, 90)).unwrap();
                if time % 50 == 0 {
                    log.sync().unwrap();
                    log.maintain().unwrap();
                    log.retire(Timestamp::from_nanos(time - 800)).unwrap();
                }
            }
            is_over.store(true, Ordering::Release);
        });
        let disk = Disk::open(folder.path()).unwrap();
        let (mut surveys, mut replayed) = (0, 0);
        while !is_over.load(Ordering::Acquire) {
            let (survey, read) = Survey::of(&disk);
            assert!(read.is_ok(), "{read:?}");
            Survey::of_headers(&disk).unwrap();
            let frames: u64 = survey.segments.values().map(|segment| segment.frames).sum();
            surveys += u64::from(frames > 0);
            let (mut last, mut time) = (0, 0);
            replay(&disk, u64::MAX, &mut |frame| {
                assert!(frame.sequence > last && frame.time.as_nanos() >= time, "{} after {last}", frame.sequence);
                (last, time) = (frame.sequence, frame.time.as_nanos());
                replayed += 1;
            })
            .unwrap();
        }
        (surveys, replayed)
    });
    assert!(surveys > 3 && replayed > 1_000, "{surveys} surveys, {replayed} frames");
}
