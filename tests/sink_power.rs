//! The power of a file system is cut under a file that was just made, and a disk fails. Goal: what was flushed is there, the file is
//! cut back to a position that was taken after it, and no flush succeeds after one that failed. Method: a file system of its own,
//! stopped as a power cut would.

mod common;

use common::disk::Disk;
use dedupd::Event;
use dedupd::sink::{NdjsonSink, Sink};

#[test]
fn what_was_flushed_survives_a_power_cut_also_in_a_new_file() {
    for kind in ["ext4", "xfs"] {
        let Some(disk) = Disk::new(kind) else { return };
        let path = disk.root().join("out");
        let mut sink = NdjsonSink::file(&path).expect("made");
        sink.resume(None).expect("resumed");
        sink.deliver(&[Event::new("a", "one")]).expect("delivered");
        sink.flush().expect("flushed");
        let position = sink.position().expect("told");
        sink.deliver(&[Event::new("b", "two")]).expect("delivered");
        disk.cut();
        drop(sink);
        disk.restart();
        let mut sink = NdjsonSink::file(&path).expect("there");
        sink.resume(position.as_deref()).expect(kind);
        assert_eq!(std::fs::read(&path).expect("read"), b"one\n", "{kind}");
    }
}

#[test]
fn after_a_failed_flush_none_succeeds_although_the_disk_does() {
    for kind in ["ext4", "xfs"] {
        let Some(disk) = Disk::failing(kind) else { return };
        let mut sink = NdjsonSink::file(disk.root().join("out")).expect("made");
        sink.deliver(&[Event::new("a", "one")]).expect("delivered");
        sink.flush().expect("flushed");
        sink.deliver(&[Event::new("b", "two")]).expect("delivered, to memory");
        disk.fail(true);
        sink.flush().expect_err("the disk fails");
        disk.fail(false);
        sink.flush().expect_err("what the kernel has dropped is not written by a second sync");
    }
}
