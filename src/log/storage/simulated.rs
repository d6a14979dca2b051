//! A disk in memory that forgets, and fails at any call.
//!
//! What it models, at its worst: after a power cut each unsynced sector is old or new, each on its own; each name
//! that was not synced with its directory is as before or as after; after a failed sync the page cache shows bytes
//! that the disk will never have, and later syncs succeed. After a kill the page cache is there, but for the end of
//! the store that was cut short.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};

use super::{File, FileId, Opened, Pen, Status, Storage};

/// A handle on one simulated directory; clones share it.
#[derive(Clone)]
pub(crate) struct Simulated {
    state: Arc<Mutex<State>>,
}

/// What happens at a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The process dies inside the call.
    Crash,
    /// The call fails, and so do all after it when it is sticky.
    Error { kind: io::ErrorKind, is_sticky: bool },
}

#[derive(Clone)]
struct State {
    names: BTreeMap<String, usize>,
    disk_names: BTreeMap<String, usize>,
    inodes: Vec<Inode>,
    calls: u64,
    fault: Option<(u64, Fault)>,
    /// What all files may take.
    bytes_max: Option<u64>,
    is_dead: bool,
    /// Whether a sync has failed since this process started: the page cache may be unlike the disk.
    has_failed_sync: bool,
    ignores_syncs: bool,
    sector_bytes: usize,
    random: u64,
    meanwhile: Option<Meanwhile>,
    in_each_sync: Option<Meanwhile>,
}

/// Done while somebody waits for a call.
type Meanwhile = Arc<dyn Fn() + Send + Sync>;

#[derive(Clone, Default)]
struct Inode {
    cached: Vec<u8>,
    disk: Vec<u8>,
    dirty: BTreeSet<usize>,
}

impl Simulated {
    pub(crate) fn new(sector_bytes: usize) -> Self {
        Self::of(State {
            names: BTreeMap::new(),
            disk_names: BTreeMap::new(),
            inodes: Vec::new(),
            calls: 0,
            fault: None,
            bytes_max: None,
            is_dead: false,
            has_failed_sync: false,
            ignores_syncs: false,
            sector_bytes,
            random: 0x9e37_79b9_7f4a_7c15,
            meanwhile: None,
            in_each_sync: None,
        })
    }

    /// The same, on a disk that says it has synced and has not.
    pub(crate) fn lying(sector_bytes: usize) -> Self {
        let simulated = Self::new(sector_bytes);
        simulated.state().ignores_syncs = true;
        simulated
    }

    /// Has the call of this number from now on (the next one is 1) meet `fault`.
    pub(crate) fn fail_at(&self, call: u64, fault: Fault) {
        let mut state = self.state();
        state.fault = Some((state.calls + call, fault));
    }

    /// Has `act` done once, while somebody looks at an open file.
    pub(crate) fn meanwhile(&self, act: impl Fn() + Send + Sync + 'static) {
        self.state().meanwhile = Some(Arc::new(act));
    }

    /// Has `act` done in each sync of a range, before it covers anything.
    #[cfg(loom)]
    pub(crate) fn in_each_sync(&self, act: impl Fn() + Send + Sync + 'static) {
        self.state().in_each_sync = Some(Arc::new(act));
    }

    /// Lets everything succeed again.
    pub(crate) fn heal(&self) {
        let mut state = self.state();
        (state.fault, state.bytes_max) = (None, None);
    }

    /// Leaves room for so many bytes more than the files take now.
    pub(crate) fn leave_room(&self, bytes: u64) {
        let mut state = self.state();
        state.bytes_max = Some(state.taken("") + bytes);
    }

    /// Whether a call was made to fail since this process started.
    pub(crate) fn has_fault(&self) -> bool {
        let state = self.state();
        matches!(state.fault, Some((at, Fault::Error { .. })) if at <= state.calls)
    }

    /// Whether a call may have been told that there is no room.
    #[cfg(not(loom))]
    pub(crate) fn may_lack_room(&self) -> bool {
        self.has_fault() || self.state().bytes_max.is_some()
    }

    /// Whether the process has died in one of its calls.
    pub(crate) fn is_dead(&self) -> bool {
        self.state().is_dead
    }

    /// Whether a sync has failed since this process started.
    #[cfg(not(loom))]
    pub(crate) fn has_failed_sync(&self) -> bool {
        self.state().has_failed_sync
    }

    /// Calls so far.
    pub(crate) fn calls(&self) -> u64 {
        self.state().calls
    }

    /// What the next process finds after this one died.
    pub(crate) fn after_kill(&self) -> Self {
        let mut state = self.state().clone();
        state.revive();
        Self::of(state)
    }

    /// What the next process finds after a power cut; `keep` says for each thing that was not synced whether it got
    /// there.
    pub(crate) fn after_power_cut(&self, keep: &mut dyn FnMut() -> bool) -> Self {
        let mut state = self.state().clone();
        let sector_bytes = state.sector_bytes;
        for inode in &mut state.inodes {
            inode.cut_power(sector_bytes, keep);
        }
        let all: BTreeSet<String> = state.names.keys().chain(state.disk_names.keys()).cloned().collect();
        for name in all {
            let (new, old) = (state.names.get(&name).copied(), state.disk_names.get(&name).copied());
            let kept = if new != old && keep() { new } else { old };
            match kept {
                Some(inode) => state.disk_names.insert(name, inode),
                None => state.disk_names.remove(&name),
            };
        }
        state.names = state.disk_names.clone();
        state.revive();
        Self::of(state)
    }

    /// The files, by name, as a process sees them.
    pub(crate) fn files(&self) -> BTreeMap<String, Vec<u8>> {
        let state = self.state();
        state.names.iter().map(|(name, inode)| (name.clone(), state.inodes[*inode].cached.clone())).collect()
    }

    /// A directory of these files, all on disk.
    pub(crate) fn with_files(files: &BTreeMap<String, Vec<u8>>) -> Self {
        let simulated = Self::new(512);
        let mut state = simulated.state();
        for (name, bytes) in files {
            let number = state.inodes.len();
            state.inodes.push(Inode { cached: bytes.clone(), disk: bytes.clone(), dirty: BTreeSet::new() });
            state.names.insert(name.clone(), number);
        }
        state.disk_names = state.names.clone();
        drop(state);
        simulated
    }

    fn of(state: State) -> Self {
        Self { state: Arc::new(Mutex::new(state)) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    fn opened(&self, inode: usize) -> Opened {
        let file = SimulatedFile { directory: self.clone(), inode };
        Opened { pen: Box::new(file.clone()), file: Arc::new(file) }
    }
}

impl State {
    /// What all files take but `name`.
    fn taken(&self, name: &str) -> u64 {
        let others = self.names.iter().filter(|file| file.0 != name);
        others.map(|(_, inode)| self.inodes[*inode].cached.len() as u64).sum()
    }

    fn check_room(&self, name: &str, bytes: u64) -> io::Result<()> {
        match self.bytes_max {
            Some(bytes_max) if self.taken(name) + bytes > bytes_max => Err(io::ErrorKind::StorageFull.into()),
            _ => Ok(()),
        }
    }

    fn step(&mut self) -> io::Result<()> {
        self.calls += 1;
        if self.is_dead {
            return Err(io::Error::other("the process is dead"));
        }
        match self.fault {
            Some((at, Fault::Crash)) if at == self.calls => {
                self.is_dead = true;
                Err(io::Error::other("the process died here"))
            }
            Some((at, Fault::Error { kind, is_sticky })) if at == self.calls || (is_sticky && at < self.calls) => {
                Err(kind.into())
            }
            _ => Ok(()),
        }
    }

    fn revive(&mut self) {
        (self.is_dead, self.has_failed_sync, self.fault) = (false, false, None);
        self.random = self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(99);
        // Nobody has files open that have no name.
        let named: BTreeSet<usize> = self.names.values().chain(self.disk_names.values()).copied().collect();
        let unnamed = self.inodes.iter_mut().enumerate().filter(|(number, _)| !named.contains(number));
        unnamed.for_each(|(_, inode)| *inode = Inode::default());
    }

    fn inode(&self, name: &str) -> io::Result<usize> {
        self.names.get(name).copied().ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

impl Inode {
    fn resize(&mut self, bytes: usize, sector_bytes: usize) {
        let before = self.cached.len();
        self.cached.resize(bytes, 0);
        // New bytes are zeros and take their sectors when they are written; the size itself waits for a full sync.
        self.dirty.retain(|sector| sector * sector_bytes < bytes);
        if bytes > before && !before.is_multiple_of(sector_bytes) {
            self.dirty.insert(before / sector_bytes);
        }
    }

    fn write(&mut self, at: usize, bytes: &[u8], sector_bytes: usize) {
        self.cached[at..at + bytes.len()].copy_from_slice(bytes);
        if !bytes.is_empty() {
            self.dirty.extend(at / sector_bytes..=(at + bytes.len() - 1) / sector_bytes);
        }
    }

    /// Puts `sector` on disk as it is cached. A disk that had not heard of the size yet hears of it with its bytes.
    fn put(&mut self, sector: usize, sector_bytes: usize) {
        let (from, to) = (sector * sector_bytes, ((sector + 1) * sector_bytes).min(self.cached.len()));
        if from >= to {
            return;
        }
        if self.disk.len() < to {
            self.disk.resize(to, 0);
        }
        self.disk[from..to].copy_from_slice(&self.cached[from..to]);
    }

    fn sync(&mut self, from: usize, to: usize, sector_bytes: usize) {
        let sectors: Vec<_> = self.dirty.range(from / sector_bytes..to.div_ceil(sector_bytes)).copied().collect();
        for sector in sectors {
            self.put(sector, sector_bytes);
            self.dirty.remove(&sector);
        }
    }

    fn sync_all(&mut self, sector_bytes: usize) {
        self.sync(0, self.cached.len(), sector_bytes);
        let bytes = self.cached.len();
        self.disk.resize(bytes, 0);
    }

    fn cut_power(&mut self, sector_bytes: usize, keep: &mut dyn FnMut() -> bool) {
        for sector in std::mem::take(&mut self.dirty) {
            let (from, to) = (sector * sector_bytes, ((sector + 1) * sector_bytes).min(self.cached.len()));
            let same = self.disk.get(from..to) == self.cached.get(from..to);
            if !same && keep() {
                self.put(sector, sector_bytes);
            }
        }
        if self.disk.len() != self.cached.len() && keep() {
            self.disk.resize(self.cached.len(), 0);
        }
        self.cached = self.disk.clone();
    }
}

impl Storage for Simulated {
    fn list(&self) -> io::Result<Vec<String>> {
        let mut state = self.state();
        state.step()?;
        Ok(state.names.keys().cloned().collect())
    }

    fn create(&self, name: &str, bytes: u64) -> io::Result<Opened> {
        let mut state = self.state();
        state.step()?;
        state.check_room(name, bytes)?;
        let inode = state.inodes.len();
        state.inodes.push(Inode { cached: vec![0; usize::try_from(bytes).unwrap()], ..Inode::default() });
        state.names.insert(name.to_owned(), inode);
        Ok(self.opened(inode))
    }

    fn recycle(&self, name: &str, bytes: u64) -> io::Result<Opened> {
        let mut state = self.state();
        state.step()?;
        state.check_room(name, bytes)?;
        let (inode, sector_bytes) = (state.inode(name)?, state.sector_bytes);
        state.inodes[inode].resize(usize::try_from(bytes).unwrap(), sector_bytes);
        Ok(self.opened(inode))
    }

    fn write_back(&self, name: &str) -> io::Result<()> {
        let mut state = self.state();
        let step = state.step();
        let (inode, sector_bytes) = (state.inode(name)?, state.sector_bytes);
        let (is_dead, lies) = (state.is_dead, state.ignores_syncs);
        state.has_failed_sync |= step.is_err() && !is_dead;
        let inode = &mut state.inodes[inode];
        match step {
            Ok(()) if !lies => {
                inode.sync_all(sector_bytes);
                inode.cached = inode.disk.clone();
            }
            Err(_) if !is_dead => inode.dirty.clear(),
            _ => {}
        }
        step
    }

    fn read(&self, name: &str, limit: u64) -> io::Result<Vec<u8>> {
        let mut state = self.state();
        state.step()?;
        let inode = state.inode(name)?;
        let cached = &state.inodes[inode].cached;
        Ok(cached[..cached.len().min(usize::try_from(limit).unwrap())].to_vec())
    }

    fn cut(&self, name: &str, bytes: u64) -> io::Result<()> {
        let mut state = self.state();
        state.step()?;
        let (inode, sector_bytes, bytes) = (state.inode(name)?, state.sector_bytes, usize::try_from(bytes).unwrap());
        if state.inodes[inode].cached.len() > bytes {
            state.inodes[inode].resize(bytes, sector_bytes);
        }
        Ok(())
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut state = self.state();
        state.step()?;
        let inode = state.names.remove(from).ok_or(io::ErrorKind::NotFound)?;
        state.names.insert(to.to_owned(), inode);
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut state = self.state();
        state.step()?;
        state.names.remove(name).map(|_| ()).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn sync_directory(&self) -> io::Result<()> {
        let mut state = self.state();
        state.step()?;
        if !state.ignores_syncs {
            state.disk_names = state.names.clone();
        }
        Ok(())
    }

    fn random(&self) -> io::Result<u64> {
        let mut state = self.state();
        state.random ^= state.random << 13;
        state.random ^= state.random >> 7;
        state.random ^= state.random << 17;
        Ok(state.random)
    }

    fn status(&self, name: &str) -> io::Result<Status> {
        let meanwhile = self.state().meanwhile.take();
        if let Some(act) = meanwhile {
            act();
        }
        let mut state = self.state();
        state.step()?;
        let inode = state.inode(name)?;
        Ok(Status { id: id(inode), bytes: state.inodes[inode].cached.len() as u64 })
    }

    fn place(&self, name: &str) -> String {
        name.to_owned()
    }
}

fn id(inode: usize) -> FileId {
    FileId { device: 0, inode: inode as u64 }
}

#[derive(Clone)]
struct SimulatedFile {
    directory: Simulated,
    inode: usize,
}

impl Pen for SimulatedFile {
    fn write(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let mut state = self.directory.state();
        let (at, sector_bytes, was_dead) = (usize::try_from(offset).unwrap(), state.sector_bytes, state.is_dead);
        let step = state.step();
        // Whoever dies or fails inside has stored a part.
        let stored = match &step {
            Ok(()) => bytes,
            Err(_) if was_dead => &[],
            Err(_) => &bytes[..bytes.len() * 2 / 3],
        };
        state.inodes[self.inode].write(at, stored, sector_bytes);
        step
    }

    fn lacks_room(&self, error: &io::Error) -> bool {
        error.kind() == io::ErrorKind::StorageFull
    }
}

impl File for SimulatedFile {
    fn sync(&self, from: u64, to: u64) -> io::Result<()> {
        let act = self.directory.state().in_each_sync.clone();
        if let Some(act) = act {
            act();
        }
        self.synced(|inode, sector_bytes| {
            inode.sync(usize::try_from(from).unwrap(), usize::try_from(to).unwrap(), sector_bytes);
        })
    }

    fn sync_all(&self) -> io::Result<()> {
        self.synced(Inode::sync_all)
    }

    fn id(&self) -> FileId {
        id(self.inode)
    }

    fn touch(&self, _: u64, _: u64) {}
}

impl SimulatedFile {
    fn synced(&self, sync: impl Fn(&mut Inode, usize)) -> io::Result<()> {
        let mut state = self.directory.state();
        let step = state.step();
        let (sector_bytes, is_dead, lies) = (state.sector_bytes, state.is_dead, state.ignores_syncs);
        state.has_failed_sync |= step.is_err() && !is_dead;
        let inode = &mut state.inodes[self.inode];
        match step {
            Ok(()) if !lies => sync(inode, sector_bytes),
            // The kernel calls the pages clean; the disk has not got them.
            Err(_) if !is_dead => inode.dirty.clear(),
            _ => {}
        }
        step
    }
}
