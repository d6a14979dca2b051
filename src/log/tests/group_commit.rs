//! Who waits for the disk shares a sync, and nobody who appends waits for it.
//!
//! The disk here holds every sync back until the test lets it go, so nothing depends on time.

use std::io;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Mutex, PoisonError};

use super::super::storage::{File, FileId, Opened, Status};
use super::*;

/// A disk whose ranged syncs tell that they have begun, and then wait for leave.
struct Gated {
    inner: Simulated,
    begun: Sender<()>,
    leave: Arc<Mutex<Receiver<()>>>,
}

struct GatedFile {
    inner: Arc<dyn File>,
    begun: Sender<()>,
    leave: Arc<Mutex<Receiver<()>>>,
}

impl Gated {
    fn new() -> (Self, Receiver<()>, Sender<()>) {
        let ((begun, has_begun), (leave, leaves)) = (channel(), channel());
        let gated = Self { inner: Simulated::new(512), begun, leave: Arc::new(Mutex::new(leaves)) };
        (gated, has_begun, leave)
    }

    fn gate(&self, opened: Opened) -> Opened {
        let file = GatedFile { inner: opened.file, begun: self.begun.clone(), leave: Arc::clone(&self.leave) };
        Opened { pen: opened.pen, file: Arc::new(file) }
    }
}

impl Storage for Gated {
    fn list(&self) -> io::Result<Vec<String>> {
        self.inner.list()
    }
    fn create(&self, name: &str, bytes: u64) -> io::Result<Opened> {
        Ok(self.gate(self.inner.create(name, bytes)?))
    }
    fn recycle(&self, name: &str, bytes: u64) -> io::Result<Opened> {
        Ok(self.gate(self.inner.recycle(name, bytes)?))
    }
    fn write_back(&self, name: &str) -> io::Result<()> {
        self.inner.write_back(name)
    }
    fn read(&self, name: &str, limit: u64) -> io::Result<Vec<u8>> {
        self.inner.read(name, limit)
    }
    fn cut(&self, name: &str, bytes: u64) -> io::Result<()> {
        self.inner.cut(name, bytes)
    }
    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.inner.rename(from, to)
    }
    fn remove(&self, name: &str) -> io::Result<()> {
        self.inner.remove(name)
    }
    fn sync_directory(&self) -> io::Result<()> {
        self.inner.sync_directory()
    }
    fn random(&self) -> io::Result<u64> {
        self.inner.random()
    }
    fn status(&self, name: &str) -> io::Result<Status> {
        self.inner.status(name)
    }
    fn place(&self, name: &str) -> String {
        self.inner.place(name)
    }
}

impl File for GatedFile {
    fn sync(&self, from: u64, to: u64) -> io::Result<()> {
        self.begun.send(()).map_err(io::Error::other)?;
        let leave = self.leave.lock().unwrap_or_else(PoisonError::into_inner);
        leave.recv().map_err(io::Error::other)?;
        self.inner.sync(from, to)
    }
    fn sync_all(&self) -> io::Result<()> {
        self.inner.sync_all()
    }
    fn id(&self) -> FileId {
        self.inner.id()
    }
    fn touch(&self, from: u64, to: u64) {
        self.inner.touch(from, to);
    }
}

#[test]
fn all_who_wait_while_one_sync_runs_share_the_next() {
    let (gated, has_begun, leave) = Gated::new();
    let (log, _, _) = open(gated, tiny()).unwrap();
    std::thread::scope(|scope| {
        let log = &log;
        let wait = |position| scope.spawn(move || log.wait_durable(position));
        let first = append(log, &entry(1, 5)).unwrap();
        let leader = wait(first);
        has_begun.recv().unwrap();
        // The sync is running, and appends go on.
        let later: Vec<_> = (2..10).map(|time| append(log, &entry(time, 5)).unwrap()).collect();
        assert_eq!(log.durable(), Position::default());
        let waiters: Vec<_> = later.into_iter().map(wait).collect();
        leave.send(()).unwrap();
        leader.join().unwrap().unwrap();
        assert!(log.durable() >= first);
        has_begun.recv().unwrap();
        leave.send(()).unwrap();
        for waiter in waiters {
            waiter.join().unwrap().unwrap();
        }
        assert!(has_begun.try_recv().is_err(), "two syncs for nine who waited");
    });
}

#[test]
fn a_failed_sync_is_told_to_all_who_wait() {
    let (gated, has_begun, leave) = Gated::new();
    let (log, _, _) = open(gated, tiny()).unwrap();
    let position = append(&log, &entry(1, 5)).unwrap();
    std::thread::scope(|scope| {
        let waiters: Vec<_> = (0..3).map(|_| scope.spawn(|| log.wait_durable(position))).collect();
        has_begun.recv().unwrap();
        // Nobody will ever give leave: the sync fails.
        drop(leave);
        for waiter in waiters {
            waiter.join().unwrap().unwrap_err();
        }
    });
}
