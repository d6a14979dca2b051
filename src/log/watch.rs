//! Whether another program has meddled with a file that is written to.
//!
//! A file that was removed or replaced goes on taking bytes, and no sync of it fails: what is then said to be durable is
//! gone with the last descriptor. So the file is looked at after each sync and before anybody is told, and now and
//! then in between.

use std::io;

use super::header;
use super::storage::Storage;
use super::writer::Segment;

/// Checks that the file of `segment` has its name and its size. What is wrong is a sentence.
///
/// # Cost
/// One system call.
pub(super) fn check(storage: &dyn Storage, segment: &Segment) -> Result<(), String> {
    let name = header::name(segment.number);
    let place = || storage.place(&name);
    let unknown = |error: io::Error| format!("cannot look at {}: {error}", place());
    let named = match storage.status(&name) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        named => Some(named.map_err(unknown)?),
    };
    match named {
        None => Err(format!("{} was removed by another program", place())),
        Some(named) if named.id != segment.file.id() => Err(format!("{} was replaced by another program", place())),
        Some(named) if named.bytes != segment.bytes => {
            let (bytes, made) = (named.bytes, segment.bytes);
            Err(format!("{} was cut or extended by another program: it has {bytes} bytes of {made}", place()))
        }
        Some(_) => Ok(()),
    }
}
