//! Goal: an idle input holds nothing back, whatever kind of descriptor it is, and inherited descriptors keep their
//! flags. Method: the line that was written must come out while the writer keeps its end open.

mod filter;

use std::io::Write;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::Stdio;
use std::time::Duration;

use filter::{Running, dedupd, dir, events};

#[test]
fn a_line_that_has_arrived_is_out_before_the_next_one_comes() {
    for threads in ["1", "2", "4"] {
        let mut running = Running::start(&["-q", "--threads", threads]);
        for n in 0..200 {
            running.write(events([n]));
            assert_eq!(running.line(), events([n]));
        }
        assert!(running.end().0.success());
    }
}

#[test]
fn it_is_out_within_milliseconds() {
    let mut running = Running::start(&["-q"]);
    let mut waits: Vec<Duration> = (0..200)
        .map(|n| {
            running.write(events([n]));
            let written = std::time::Instant::now();
            running.line();
            written.elapsed()
        })
        .collect();
    waits.sort();
    // The median, as a busy machine may hold up any one of them.
    assert!(waits[100] < Duration::from_millis(5), "{:?}", waits[100]);
    assert!(running.end().0.success());
}

#[test]
fn half_a_line_waits_for_its_other_half_and_holds_back_none_before_it() {
    let mut running = Running::start(&["-q"]);
    running.write("{\"id\":1}\n{\"id\"");
    assert_eq!(running.line(), "{\"id\":1}\n");
    running.write(":2}\n{\"id\":2");
    assert_eq!(running.line(), "{\"id\":2}\n");
    running.write("3}");
    let (status, out, _) = running.end();
    assert!(status.success());
    assert_eq!(out, "{\"id\":23}");
}

#[test]
fn a_socket_is_read_as_it_comes() {
    let (mut ours, theirs) = UnixStream::pair().expect("a socket");
    let running = Running::spawn(dedupd(["-q"]).stdin(Stdio::from(OwnedFd::from(theirs))));
    for n in 0..20 {
        ours.write_all(events([n, n]).as_bytes()).expect("written");
        assert_eq!(running.line(), events([n]));
    }
    drop(ours);
    assert!(running.end().0.success());
}

fn fifo(path: &std::path::Path) {
    let name = std::ffi::CString::new(path.to_str().expect("UTF-8")).expect("no zero");
    // SAFETY: `name` is a valid C string for the duration of the call.
    assert_eq!(unsafe { libc::mkfifo(name.as_ptr(), 0o600) }, 0);
}

#[test]
fn a_named_pipe_is_waited_for_until_somebody_writes() {
    let dir = dir();
    let path = dir.path().join("fifo");
    fifo(&path);
    let running = Running::spawn(&mut dedupd(["-q", path.to_str().expect("UTF-8")]));
    // It has the pipe open for reading, and nobody has it open for writing.
    let open_files = format!("/proc/{}/fd", running.child.id());
    filter::eventually("the pipe is open", || {
        let files = std::fs::read_dir(&open_files).expect("it runs").flatten();
        files.filter_map(|file| std::fs::read_link(file.path()).ok()).any(|target| target == path)
    });
    let mut writer = std::fs::File::options().write(true).open(&path).expect("it reads");
    for n in 0..5 {
        writer.write_all(events([n]).as_bytes()).expect("written");
        assert_eq!(running.line(), events([n]));
    }
    drop(writer);
    assert!(running.end().0.success());
}

#[test]
fn a_named_pipe_that_was_left_before_we_came_has_ended() {
    let dir = dir();
    let path = dir.path().join("fifo");
    fifo(&path);
    let reader = std::fs::File::options().read(true).write(true).open(&path).expect("open");
    let for_child = std::fs::File::open(&path).expect("open");
    let running = Running::spawn(dedupd(["-q"]).stdin(for_child));
    drop(reader);
    assert!(running.end().0.success());
}

fn flags(descriptor: &impl AsRawFd) -> libc::c_int {
    // SAFETY: the descriptor is open for the duration of the call, which takes plain numbers.
    unsafe { libc::fcntl(descriptor.as_raw_fd(), libc::F_GETFL) }
}

#[test]
fn inherited_descriptors_keep_their_flags() {
    let (in_reader, mut in_writer) = std::io::pipe().expect("a pipe");
    let (out_reader, out_writer) = std::io::pipe().expect("a pipe");
    let before = (flags(&in_reader), flags(&out_writer));
    let (in_kept, out_kept) = (in_reader.try_clone().expect("a copy"), out_writer.try_clone().expect("a copy"));
    let mut child = dedupd(["-q"]).stdin(in_reader).stdout(out_writer).spawn().expect("the binary starts");
    in_writer.write_all(events([1]).as_bytes()).expect("written");
    let mut line = String::new();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(out_reader), &mut line).expect("a line");
    assert_eq!((flags(&in_kept), flags(&out_kept)), before, "while it runs");
    drop((in_writer, in_kept));
    assert!(filter::wait(&mut child).success());
    assert_eq!(flags(&out_kept), before.1);
}

#[test]
fn a_descriptor_that_somebody_made_non_blocking_is_read_and_written_all_the_same() {
    let (in_reader, in_writer) = std::io::pipe().expect("a pipe");
    let (out_reader, out_writer) = std::io::pipe().expect("a pipe");
    for descriptor in [in_reader.as_raw_fd(), out_writer.as_raw_fd()] {
        // SAFETY: the descriptor is open for the duration of the call, which takes plain numbers.
        unsafe { libc::fcntl(descriptor, libc::F_SETFL, libc::O_NONBLOCK) };
    }
    let mut child = dedupd(["-q"]).stdin(in_reader).stdout(out_writer).spawn().expect("the binary starts");
    let input = events((0..200_000).map(|n| format!("{n:040}")));
    let expected = input.clone();
    let writing = std::thread::spawn(move || {
        let mut in_writer = in_writer;
        in_writer.write_all(input.as_bytes()).expect("written");
    });
    let out = std::io::read_to_string(out_reader).expect("read");
    assert!(out == expected);
    writing.join().expect("written");
    assert!(filter::wait(&mut child).success());
}

#[test]
fn what_cannot_be_waited_for_is_read_too() {
    let mut child = dedupd(["-q", "/dev/null"]).spawn().expect("the binary starts");
    assert!(filter::wait(&mut child).success());
    let device = std::fs::File::open("/dev/null").expect("open");
    let mut child = dedupd(["-q"]).stdin(device).spawn().expect("the binary starts");
    assert!(filter::wait(&mut child).success());
}
