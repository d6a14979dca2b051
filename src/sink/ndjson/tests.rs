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
