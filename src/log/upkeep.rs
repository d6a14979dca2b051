//! What appends should not have to do: preparing, touching, cutting, marking, ageing out.
//!
//! All work with files but storing and syncing is done under the `upkeep` lock, one at a time.

use std::io;
use std::time::Instant;

use crate::sync::Ordering;
use crate::time::Timestamp;

use super::header::{self, PAGE_BYTES, Start};
use super::recovery::{Recovered, Sealed, cut_to};
use super::segment::{Order, PrepareError, RECYCLED_NAME, name_before};
use super::storage::Storage as _;
use super::writer::Body;
use super::{
    AppendError, Config, Log, Poisoned, Purpose, RetireError, SEGMENT_BYTES_LEAST, first_segment, is_of_room, lock,
};

/// What the housekeeper holds while it works with files.
pub(super) struct Upkeep {
    pub(super) next_number: u64,
    /// Whether a segment that has aged out waits for its next life.
    pub(super) has_recycled: bool,
    /// When the files were last looked at.
    pub(super) watched: Option<Instant>,
    /// What was recovered, until there is room for a segment that fences it off.
    pub(super) unfenced: Option<Recovered>,
    /// Whether there was no room for the last segment that was to be prepared.
    pub(super) is_full: bool,
}

impl Log {
    /// Does what appends should not have to: watches over the files, prepares the next segment, touches pages ahead of
    /// the pen, cuts sealed segments to what they use, and has an idle log carry the mark of its last sync.
    ///
    /// # Errors
    /// [`AppendError::NoSegment`] and [`AppendError::NoRoom`] when there is no room, which an append would meet next;
    /// [`AppendError::Poisoned`].
    pub(crate) fn maintain(&self) -> Result<(), AppendError> {
        self.watch()?;
        self.touch_ahead();
        self.prepare_next(0, Purpose::Records)?;
        self.cut_sealed();
        self.mark()
    }

    /// The same; also well when there is no room for another segment, and the active one still takes a small batch.
    ///
    /// # Errors
    /// As [`Log::maintain`]: the next append would meet it.
    pub(crate) fn try_again(&self) -> Result<(), AppendError> {
        match self.maintain() {
            Err(AppendError::NoSegment { .. }) if lock(&self.writer).has_room_for(SMALL_BATCH_BYTES) => Ok(()),
            maintained => maintained,
        }
    }

    /// Drops segments whose frames are all older than `before`; returns how many. Whoever keeps something longer than
    /// that appends it again before; it is synced before anything goes. One segment with frames always stays. As long as
    /// there is no room for the first segment of this open, the file of one that goes is kept for that.
    ///
    /// # Errors
    /// [`RetireError`]. The segments that were not dropped yet stay, and may be dropped later.
    pub(crate) fn retire(&self, before: Timestamp) -> Result<usize, RetireError> {
        let next = {
            let writer = lock(&self.writer);
            let oldest = writer.sealed.front().filter(|oldest| oldest.newest < before.as_nanos());
            oldest.map(|_| writer.second_first())
        };
        if let Some(next) = next {
            self.sync()?;
            // One without records, which nobody waits for, may be all that follows.
            next.map_or(Ok(()), |first| self.wait_synced(first))?;
        }
        let mut upkeep = lock(&self.upkeep);
        self.follow_all_older(&upkeep, before)?;
        let mut retired = 0;
        while let Some(number) = self.aged_out(before) {
            self.check_poison()?;
            self.drop_empty_behind(&mut upkeep)?;
            let name = header::name(number);
            if upkeep.has_recycled {
                self.remove(&name)?;
            } else {
                let renamed = self.storage.rename(&name, RECYCLED_NAME);
                renamed.map_err(|source| RetireError::Remove { place: self.storage.place(&name), source })?;
                upkeep.unfenced.as_mut().into_iter().for_each(|recovered| recovered.is_gone(RECYCLED_NAME));
            }
            upkeep.unfenced.as_mut().into_iter().for_each(|recovered| recovered.is_gone(&name));
            upkeep.has_recycled = true;
            lock(&self.writer).sealed.pop_front();
            // Before the next one goes: were only the younger one gone after a power cut, its frames would be missing.
            self.sync_directory_of(&name)?;
            retired += 1;
        }
        Ok(retired)
    }

    /// Up to when the oldest segment reaches, when that is before `before`.
    pub(crate) fn oldest_until(&self, before: Timestamp) -> Option<Timestamp> {
        lock(&self.writer).sealed.front().map(Sealed::until).filter(|until| *until < before)
    }

    /// The same of the last one of which that is true.
    pub(crate) fn older_until(&self, before: Timestamp) -> Option<Timestamp> {
        lock(&self.writer).sealed.iter().map(Sealed::until).take_while(|until| *until < before).last()
    }

    /// Drops segments without a frame right behind the oldest one: were one of them the first, nothing would tell that it is
    /// not its first frame that is gone.
    fn drop_empty_behind(&self, upkeep: &mut Upkeep) -> Result<(), RetireError> {
        let names: Vec<String> = match &upkeep.unfenced {
            Some(recovered) => recovered.empty_between(),
            None => lock(&self.writer).empty_behind_oldest().into_iter().map(header::name).collect(),
        };
        for name in &names {
            self.remove(name)?;
            match &mut upkeep.unfenced {
                Some(recovered) => recovered.is_gone(name),
                None => drop(lock(&self.writer).sealed.remove(1)),
            }
        }
        names.last().map_or(Ok(()), |name| Ok(self.sync_directory_of(name)?))
    }

    fn remove(&self, name: &str) -> Result<(), RetireError> {
        let removed = self.storage.remove(name);
        removed.map_err(|source| RetireError::Remove { place: self.storage.place(name), source })
    }

    fn sync_directory_of(&self, name: &str) -> Result<(), Poisoned> {
        self.storage.sync_directory().map_err(|error| self.poison("sync the directory of", name, &error))
    }

    /// The last segment with frames stays until a frame follows it. Where there is no room for a segment, on the disk or
    /// within the limit, none could, and it would stay for ever: so a frame without records does, in the segment that the
    /// open has made.
    fn follow_all_older(&self, upkeep: &Upkeep, before: Timestamp) -> Result<(), Poisoned> {
        let least = self.config.segment_bytes_min;
        let has_room = || !upkeep.is_full && self.room(upkeep, Purpose::Records, least, least).is_some();
        let sequence = {
            let mut writer = lock(&self.writer);
            if !writer.is_all_older(before.as_nanos()) || !writer.has_room(&Body::empty()) || has_room() {
                return Ok(());
            }
            self.check_poison()?;
            let (newest, synced) = (writer.newest(), self.synced.load(Ordering::Acquire));
            match writer.append(newest, synced, Body::empty()) {
                // The segment stays until there is.
                Err(error) if writer.lacks_room(&error) => return Ok(()),
                appended => {
                    appended.map_err(|error| self.poison("write", &header::name(writer.active_number()), &error))?
                }
            }
        };
        self.wait_synced(sequence)
    }

    /// Makes the next segment ready, when it is not. It has room for `least` bytes, its header included, when the one that
    /// is ready has gone into use by then.
    pub(super) fn prepare_next(&self, least: u64, purpose: Purpose) -> Result<(), AppendError> {
        let mut upkeep = lock(&self.upkeep);
        self.check_poison()?;
        let wanted = match &*lock(&self.writer) {
            writer if writer.next.is_some() => return Ok(()),
            writer => writer.active_bytes().saturating_mul(2),
        };
        if upkeep.unfenced.is_some() {
            return self.prepare_first(&mut upkeep);
        }
        let (number, start, is_recycled) = (upkeep.next_number, Start::Follows, upkeep.has_recycled);
        let name = header::name(number);
        let no_segment = |source| AppendError::NoSegment { place: self.storage.place(&name), source };
        let least = self.least(purpose, least);
        let bytes = self.room_for_next(&upkeep, purpose, wanted, least).map_err(no_segment)?;
        let order = Order { number, start, is_recycled, bytes, identity: self.config.identity };
        let prepared = match purpose {
            Purpose::Records => order.prepare(&self.storage),
            Purpose::Upkeep => order.prepare_or_less(&self.storage, least),
        };
        upkeep.is_full = matches!(&prepared, Err(PrepareError::Refused(error)) if is_of_room(error));
        let mut next = prepared.map_err(|error| match error {
            PrepareError::Refused(source) => no_segment(source),
            PrepareError::Unsynced(source) => self.poison("sync", &name, &source).into(),
        })?;
        upkeep.next_number += 1;
        upkeep.has_recycled = false;
        let ahead = next.touched.saturating_add(self.config.touch_ahead_bytes).min(next.bytes);
        next.file.touch(next.touched, ahead);
        next.touched = ahead;
        lock(&self.writer).next = Some(next);
        Ok(())
    }

    /// Makes the segment ready that the open found no room for.
    fn prepare_first(&self, upkeep: &mut Upkeep) -> Result<(), AppendError> {
        let Some(mut recovered) = upkeep.unfenced.take() else { return Ok(()) };
        let name = header::name(recovered.next_number);
        let mut first = first_segment(&self.storage, &self.config, &recovered, upkeep.has_recycled);
        if matches!(first, Err(PrepareError::Refused(_))) && upkeep.has_recycled {
            // A file system that copies on write wants new room for it.
            upkeep.has_recycled = self.storage.remove(RECYCLED_NAME).is_err();
            first = first_segment(&self.storage, &self.config, &recovered, upkeep.has_recycled);
        }
        match first {
            Err(PrepareError::Unsynced(source)) => Err(self.poison("sync", &name, &source).into()),
            Err(PrepareError::Refused(source)) => {
                upkeep.unfenced = Some(recovered);
                Err(AppendError::NoSegment { place: self.storage.place(&name), source })
            }
            Ok(first) => {
                recovered.tidy(&self.storage).map_err(|error| self.poison_with(error.to_string()))?;
                upkeep.has_recycled = false;
                let mut writer = lock(&self.writer);
                writer.next = Some(first);
                writer.roll();
                Ok(())
            }
        }
    }

    /// The size of the smallest segment that has room for `least` bytes. What is reserved for upkeep is taken by the page.
    fn least(&self, purpose: Purpose, least: u64) -> u64 {
        let smallest = if purpose == Purpose::Records { self.config.segment_bytes_min } else { SEGMENT_BYTES_LEAST };
        least.next_multiple_of(PAGE_BYTES as u64).max(smallest)
    }

    /// The size of the next segment: twice the last one, within the limits of one segment and of all files. Files are cut
    /// when that helps. Of what is reserved for upkeep no more is taken than `least`.
    fn room_for_next(&self, upkeep: &Upkeep, purpose: Purpose, wanted: u64, least: u64) -> io::Result<u64> {
        let Config { segment_bytes_min, segment_bytes_max, .. } = self.config;
        let ordinary = least.max(segment_bytes_min);
        let wanted = wanted.min(segment_bytes_max).max(ordinary);
        let room = |least| self.room(upkeep, Purpose::Records, wanted, least);
        if let Some(bytes) = room(wanted) {
            return Ok(bytes);
        }
        self.cut_ready(upkeep);
        room(ordinary).or_else(|| self.room(upkeep, purpose, least, least)).ok_or_else(|| {
            let (taken, limit) = (self.storage.bytes(), self.config.disk_bytes_max.unwrap_or(u64::MAX));
            let why = format!(
                "the log takes {taken} bytes of the {limit} that it may take, and a segment takes {least}: \
                 raise that limit, or wait until older segments have aged out"
            );
            io::Error::new(io::ErrorKind::QuotaExceeded, why)
        })
    }

    fn room(&self, upkeep: &Upkeep, purpose: Purpose, wanted: u64, least: u64) -> Option<u64> {
        let limit = self.config.disk_bytes_for(purpose);
        self.storage.room(limit, name_before(upkeep.has_recycled), wanted, least)
    }

    /// Looks, now and then, whether another program has meddled with the files that are written to.
    fn watch(&self) -> Result<(), Poisoned> {
        // Held while looking, so that no file is renamed, cut or removed by this process meanwhile.
        let mut upkeep = lock(&self.upkeep);
        self.check_poison()?;
        if upkeep.watched.is_some_and(|watched| watched.elapsed() < self.config.watch_every) {
            return Ok(());
        }
        upkeep.watched = Some(Instant::now());
        let segments = lock(&self.writer).ahead();
        segments.iter().try_for_each(|segment| self.check_file(segment))
    }

    fn touch_ahead(&self) {
        let range = lock(&self.writer).touch_ahead(self.config.touch_ahead_bytes);
        if let Some(range) = range {
            range.segment.file.touch(range.from, range.to);
        }
    }

    /// Cuts sealed segments that are synced to the end.
    pub(super) fn cut_sealed(&self) {
        self.cut_ready(&lock(&self.upkeep));
    }

    /// The same, by who has the upkeep.
    fn cut_ready(&self, upkeep: &Upkeep) {
        // What stands behind the last frame is nobody's business before a segment fences it off.
        if upkeep.unfenced.is_some() {
            return;
        }
        let old_files = lock(&self.writer).take_old_files();
        drop(old_files);
        let synced = self.synced.load(Ordering::Acquire);
        let uncut: Vec<_> = {
            let mut writer = lock(&self.writer);
            let ready = writer.sealed.iter_mut().filter(|sealed| !sealed.is_cut && sealed.last <= synced);
            ready.map(|sealed| std::mem::replace(sealed, Sealed { is_cut: true, ..*sealed })).collect()
        };
        for Sealed { number, end, has_rest, .. } in uncut {
            self.cut_behind(number, end, has_rest);
        }
    }

    /// Cuts a segment behind its last frame: at the end of the page, unless the rest of a batch that found no room stands
    /// there, which the next open could not tell from a torn tail. A segment that cannot be cut only takes more room.
    fn cut_behind(&self, number: u64, end: u64, has_rest: bool) {
        let name = header::name(number);
        let cut_rest = || self.storage.cut(&name, end).and_then(|()| self.storage.write_back(&name));
        if !has_rest || cut_rest().is_err() {
            let _ = self.storage.cut(&name, cut_to(end));
        }
    }

    /// The last act of a close: nobody writes any more.
    pub(super) fn cut_active(&self) {
        let mut writer = lock(&self.writer);
        if writer.is_absent() {
            return;
        }
        if let Some(next) = writer.next.take() {
            let _ = self.storage.remove(&header::name(next.number));
        }
        let (end, has_rest) = writer.active_end();
        self.cut_behind(writer.active_number(), end, has_rest);
    }

    /// Appends a frame without records when all records are synced and no frame says so.
    pub(super) fn mark(&self) -> Result<(), AppendError> {
        let synced = self.synced.load(Ordering::Acquire);
        let time = {
            let writer = lock(&self.writer);
            if writer.marked >= writer.last_with_records || synced < writer.last_with_records {
                return Ok(());
            }
            writer.newest()
        };
        self.append_body(time, Body::empty(), Purpose::Records).map(|_| ())
    }

    /// The oldest segment, when it may go: the one after it must start with a frame that is on disk.
    fn aged_out(&self, before: Timestamp) -> Option<u64> {
        let synced = self.synced.load(Ordering::Acquire);
        let writer = lock(&self.writer);
        let oldest = writer.sealed.front()?;
        let may_go = oldest.newest < before.as_nanos() && writer.second_first()? <= synced;
        may_go.then_some(oldest.number)
    }
}

/// A batch of some sixty ids.
const SMALL_BATCH_BYTES: u32 = 1_024;
