//! Goal: lines come out whole and once, whatever the descriptor does. Method: real pipes, files and devices.

use std::io::{Read, Seek, SeekFrom, Write as _};
use std::os::fd::AsRawFd;

use super::tail::ends_mid_line;
use super::write::SLICES_MAX;
use super::*;

fn pipe() -> (std::io::PipeReader, NdjsonSink) {
    let (reader, writer) = io::pipe().unwrap();
    (reader, NdjsonSink::from(OwnedFd::from(writer)))
}

#[test]
fn payloads_become_lines() {
    let (mut reader, mut sink) = pipe();
    sink.deliver(&[Event::new("a", "one"), Event::new("b", "two\n"), Event::new("c", "")]).unwrap();
    drop(sink);
    let mut out = String::new();
    reader.read_to_string(&mut out).unwrap();
    assert_eq!(out, "one\ntwo\n\n");
}

#[test]
fn more_pieces_than_one_call_takes_all_arrive() {
    let (mut reader, mut sink) = pipe();
    let pieces: Vec<String> = (0..3 * SLICES_MAX).map(|n| format!("{n}\n")).collect();
    let expected = pieces.concat();
    let buffer = expected.clone().into_bytes();
    let mut end = 0;
    let runs: Vec<_> = pieces
        .iter()
        .map(|piece| {
            end..{
                end += piece.len();
                end
            }
        })
        .collect();
    let reading = std::thread::spawn(move || {
        let mut out = String::new();
        reader.read_to_string(&mut out).unwrap();
        out
    });
    sink.write_lines(&buffer, &runs).unwrap();
    drop(sink);
    assert_eq!(reading.join().unwrap(), expected);
}

#[test]
fn a_line_never_continues_an_unfinished_one() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("out");
    std::fs::write(&path, "half").unwrap();
    let mut sink = NdjsonSink::file(&path).unwrap();
    sink.write_lines(b"", &[]).unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), b"half");
    sink.write_lines(b"one\nnot\ntwo", &[0..4, 8..11]).unwrap();
    sink.write_lines(b"three\n", std::slice::from_ref(&(0..6))).unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), b"half\none\ntwo\nthree\n");
    assert_eq!(sink.newlines_added(), 2);
}

#[test]
fn parts_of_one_line_are_not_torn_apart() {
    let (mut reader, mut sink) = pipe();
    sink.end_line().unwrap();
    for part in [&b"ab"[..], b"cd", b"ef\n"] {
        sink.write_part(part).unwrap();
    }
    drop(sink);
    let mut out = String::new();
    reader.read_to_string(&mut out).unwrap();
    assert_eq!(out, "abcdef\n");
}

#[test]
fn a_failed_delivery_says_how_far_it_got() {
    let full = File::options().write(true).open("/dev/full").unwrap();
    let mut sink = NdjsonSink::from(OwnedFd::from(full));
    let error = sink.deliver(&[Event::new("a", "one")]).unwrap_err();
    assert_eq!(error.failures(), [(0, FailureClass::Transient)]);
    assert_eq!(whole([4, 4, 4].into_iter(), 7), 1);
    assert_eq!(whole([4, 4, 4].into_iter(), 8), 2);
}

#[test]
fn a_full_pipe_that_does_not_block_is_waited_for() {
    let (mut reader, mut sink) = pipe();
    // SAFETY: the descriptor is open, and the flag is a plain number.
    unsafe { libc::fcntl(sink.target().unwrap().as_raw_fd(), libc::F_SETFL, libc::O_NONBLOCK) };
    let line = [vec![b'x'; 1 << 16], b"\n".to_vec()].concat();
    let expected = line.len() * 40;
    let reading = std::thread::spawn(move || io::copy(&mut reader, &mut io::sink()).unwrap());
    for _ in 0..40 {
        sink.write_lines(&line, std::slice::from_ref(&(0..line.len()))).unwrap();
    }
    drop(sink);
    assert_eq!(reading.join().unwrap(), expected as u64);
}

#[test]
fn standard_output_opened_without_appending_is_judged_at_its_offset() {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(b"line\nhalf").unwrap();
    assert!(ends_mid_line(&file).unwrap());
    file.seek(SeekFrom::Start(5)).unwrap();
    assert!(!ends_mid_line(&file).unwrap());
}

fn file(dir: &tempfile::TempDir) -> (PathBuf, NdjsonSink) {
    let path = dir.path().canonicalize().unwrap().join("out");
    let mut sink = NdjsonSink::file(&path).unwrap();
    sink.resume(None).unwrap();
    (path, sink)
}

/// The reason of what must have failed.
fn refusal<T: std::fmt::Debug>(result: Result<T, SinkError>) -> String {
    let error = result.unwrap_err();
    assert!(error.failures().is_empty());
    std::error::Error::source(&error).unwrap().to_string()
}

fn write_line(sink: &mut NdjsonSink, text: &str) {
    sink.deliver(&[Event::new("a", text)]).unwrap();
}

#[test]
fn a_file_is_cut_back_to_its_position_and_goes_on_there() {
    let dir = tempfile::tempdir().unwrap();
    let (path, mut sink) = file(&dir);
    assert_eq!(sink.guarantees(), NdjsonSink::FILE);
    assert_eq!(&*sink.name(), path.as_os_str().as_bytes());
    let empty = sink.position().unwrap().unwrap();
    write_line(&mut sink, "one");
    let one = sink.position().unwrap().unwrap();
    for half in ["two", "two\nthr"] {
        let mut file = File::options().append(true).open(&path).unwrap();
        file.write_all(half.as_bytes()).unwrap();
        let mut sink = NdjsonSink::file(&path).unwrap();
        sink.resume(Some(&one)).unwrap();
        assert_eq!(sink.position().unwrap().unwrap(), one);
        assert_eq!(std::fs::read(&path).unwrap(), b"one\n");
        write_line(&mut sink, "2");
        assert_eq!(std::fs::read(&path).unwrap(), b"one\n2\n");
        assert_eq!(sink.newlines_added(), 0);
    }
    NdjsonSink::file(&path).unwrap().resume(Some(&empty)).unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), b"");
}

#[test]
fn a_file_longer_than_what_is_checked_is_cut_back_too() {
    let dir = tempfile::tempdir().unwrap();
    let (path, mut sink) = file(&dir);
    for _ in 0..100 {
        write_line(&mut sink, &"x".repeat(100));
    }
    let position = sink.position().unwrap().unwrap();
    write_line(&mut sink, "more");
    NdjsonSink::file(&path).unwrap().resume(Some(&position)).unwrap();
    assert_eq!(std::fs::metadata(&path).unwrap().len(), 10_100);
}

#[test]
fn a_file_with_bytes_and_no_position_is_refused_unless_it_is_to_be_continued() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("out");
    std::fs::write(&path, "old\nha").unwrap();
    let why = refusal(NdjsonSink::file(&path).unwrap().resume(None));
    assert!(why.contains("out has bytes, and the state has no position in it: nothing was changed; name"), "{why}");
    assert_eq!(std::fs::read(&path).unwrap(), b"old\nha");

    let mut sink = NdjsonSink::file(&path).unwrap().append_to_existing();
    sink.resume(None).unwrap();
    let before = sink.position().unwrap().unwrap();
    write_line(&mut sink, "new");
    assert_eq!(std::fs::read(&path).unwrap(), b"old\nha\nnew\n");
    NdjsonSink::file(&path).unwrap().resume(Some(&before)).unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), b"old\nha");
}

#[test]
fn a_file_that_is_not_as_it_was_left_is_refused_and_not_touched() {
    let dir = tempfile::tempdir().unwrap();
    let (path, mut sink) = file(&dir);
    write_line(&mut sink, "one");
    write_line(&mut sink, "two");
    let position = sink.position().unwrap().unwrap();
    let refused = |text: &str, why: &str| {
        let reason = refusal(NdjsonSink::file(&path).unwrap().resume(Some(&position)));
        assert!(reason.contains(why) && reason.contains("nothing was changed"), "{reason}");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
    };
    std::fs::write(&path, "one\n").unwrap();
    refused("one\n", "has 4 bytes, and was written up to byte 8");
    std::fs::write(&path, "One\ntwo\nthree\n").unwrap();
    refused("One\ntwo\nthree\n", "was changed before byte 8");
    let moved = dir.path().join("moved");
    std::fs::rename(&path, &moved).unwrap();
    std::fs::write(&path, "one\ntwo\n").unwrap();
    refused("one\ntwo\n", "is another file than the one that was written up to byte 8");
    let mut sink = NdjsonSink::file(&path).unwrap().append_to_existing();
    sink.resume(Some(&position)).unwrap();
    write_line(&mut sink, "three");
    assert_eq!(std::fs::read(&path).unwrap(), b"one\ntwo\nthree\n");
    let newer = refusal(NdjsonSink::file(&path).unwrap().resume(Some(b"v9 what=ever")));
    assert!(newer.contains("this version cannot read"), "{newer}");
}

#[test]
fn a_file_that_is_gone_is_told_unless_nothing_was_in_it() {
    let dir = tempfile::tempdir().unwrap();
    let (path, mut sink) = file(&dir);
    let empty = sink.position().unwrap().unwrap();
    write_line(&mut sink, "one");
    let position = sink.position().unwrap().unwrap();
    std::fs::remove_file(&path).unwrap();
    assert!(refusal(sink.position()).contains("was deleted"));
    // The old one is kept open, so that its inode is not given away.
    assert!(refusal(NdjsonSink::file(&path).unwrap().resume(Some(&position))).contains("is another file"));
    NdjsonSink::file(&path).unwrap().resume(Some(&empty)).unwrap();
}

#[test]
fn a_position_is_refused_while_others_change_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let (path, mut sink) = file(&dir);
    write_line(&mut sink, "one");
    let mut other = NdjsonSink::file(&path).unwrap();
    write_line(&mut other, "two");
    assert!(refusal(sink.position()).contains("somebody else writes to it"));
    File::options().write(true).open(&path).unwrap().set_len(2).unwrap();
    assert!(refusal(sink.position()).contains("was cut: it has 2 bytes, and was written up to byte 4"));
}

#[test]
fn half_a_line_behind_which_somebody_else_wrote_stays_and_is_ended() {
    let dir = tempfile::tempdir().unwrap();
    let (path, mut sink) = file(&dir);
    sink.write_part(b"ha").unwrap();
    File::options().append(true).open(&path).unwrap().write_all(b"theirs\n").unwrap();
    sink.take_back(2);
    write_line(&mut sink, "one");
    assert_eq!(std::fs::read(&path).unwrap(), b"hatheirs\n\none\n");
    assert!(sink.position().is_err());
}

#[test]
fn half_a_line_is_taken_back_also_where_the_file_was_not_opened_for_appending() {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(b"line\n").unwrap();
    let mut sink = NdjsonSink::from(OwnedFd::from(file.try_clone().unwrap()));
    assert_eq!(sink.guarantees().idempotency, Idempotency::None);
    sink.write_part(b"ha").unwrap();
    sink.take_back(2);
    write_line(&mut sink, "one");
    let mut text = String::new();
    file.seek(SeekFrom::Start(0)).unwrap();
    file.read_to_string(&mut text).unwrap();
    assert_eq!(text, "line\none\n");
}

#[test]
fn a_pipe_whose_reader_is_gone_may_be_tried_again() {
    let (reader, mut sink) = pipe();
    assert_eq!(sink.guarantees(), NdjsonSink::STREAM);
    write_line(&mut sink, "one");
    drop(reader);
    let error = sink.deliver(&[Event::new("a", "b"), Event::new("c", "d")]).unwrap_err();
    assert_eq!(error.failures(), [(0, FailureClass::Transient), (1, FailureClass::Transient)]);
    let cause = std::error::Error::source(&error).unwrap().downcast_ref::<io::Error>().unwrap();
    assert_eq!(cause.kind(), io::ErrorKind::BrokenPipe);
    assert_eq!(sink.position().unwrap(), None);
    sink.resume(None).unwrap();
    assert!(sink.resume(Some(b"v1")).is_err());
    sink.flush().unwrap();
}

#[test]
fn what_is_made_anew_has_no_position() {
    let dir = tempfile::tempdir().unwrap();
    let mut sink = NdjsonSink::create(dir.path().join("out")).unwrap();
    assert_eq!(sink.position().unwrap(), None);
    assert_eq!(sink.guarantees(), Guarantees { idempotency: Idempotency::None, ..NdjsonSink::FILE });
    write_line(&mut sink, "one");
    sink.flush().unwrap();
}

#[test]
fn after_a_failed_sync_none_is_said_to_have_worked() {
    let dir = tempfile::tempdir().unwrap();
    let (_, mut sink) = file(&dir);
    assert!(sink.unsynced_directory.is_some());
    sink.flush().unwrap();
    assert!(sink.unsynced_directory.is_none());
    let target = std::mem::replace(&mut sink.target, Err(libc::EIO));
    sink.flush().unwrap_err();
    sink.target = target;
    sink.flush().unwrap_err();
}

#[test]
fn a_closed_descriptor_fails_each_delivery() {
    let mut sink = NdjsonSink::new(Err(libc::EBADF));
    let error = sink.deliver(&[Event::new("a", "b")]).unwrap_err();
    assert_eq!(error.failures(), [(0, FailureClass::Transient)]);
}
