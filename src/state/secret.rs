//! [`secret()`], [`is_in_event_time()`] and [`has_digests()`]: what a state's fingerprints and times mean, for who wants to ask it from outside.

use std::path::Path;

use crate::event::{IdHash, Secret};
use crate::log::{RESTORE_SECRET, SECRET_NAME, Survey, read_secret};

use super::identity::Identity;
use super::reader::Reader;
use super::verify::{identity, secret_problem};
use super::{Problem, StateError};

/// The secret of the state at `path`, once its headers say that it is one of `hash` and `id_paths`, as they were given
/// to [`Builder::hash`](crate::Builder::hash) and [`Builder::id_paths`](crate::Builder::id_paths).
///
/// A [`Deduplicator`](crate::Deduplicator) in memory that has it makes the fingerprints of the state:
///
/// ```
/// use dedupd::state::{self, What};
/// use dedupd::{Deduplicator, IdHash};
/// use std::ops::ControlFlow;
///
/// # let dir = tempfile::tempdir()?;
/// # let dedup = Deduplicator::builder().id_paths("id").open(dir.path())?;
/// # dedup.observe_batch(&["evt_1"], &mut Vec::new());
/// let secret = state::secret(dir.path(), IdHash::SipHash13, "id")?;
/// let asked = Deduplicator::builder().secret(secret).build()?.fingerprint("evt_1");
/// let mut seen = None;
/// state::export(dir.path(), |record| {
///     if matches!(record.what, What::Seen(id) | What::Refresh(id) if id == asked) {
///         seen = Some(record.time);
///     }
///     ControlFlow::Continue(())
/// })?;
/// assert!(seen.is_some());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// [`StateError`]: there is no state, it is one of something else, or its secret is not there. Frames are not looked at.
pub fn secret(path: impl AsRef<Path>, hash: IdHash, id_paths: &str) -> Result<Secret, StateError> {
    let reader = Reader::open(path.as_ref())?;
    let survey = Survey::of_headers(&reader.disk)?;
    if let Some(problem) = secret_problem(&reader, &survey)? {
        return Err(problem.into());
    }
    let file = reader.path.join(SECRET_NAME);
    let secret = read_secret(&file).map_err(|source| StateError::io("read", &file, source))?;
    let secret = secret.ok_or_else(|| bad(&file))?;
    let Some(found) = identity(&survey) else { return Ok(secret) };
    // Its fingerprints are the same whatever its times are, and whether payloads are compared.
    let wanted = Identity::new(hash, id_paths, found.is_in_event_time(), None, &secret).with_digests_of(&found);
    if found == wanted { Ok(secret) } else { Err(other(&reader, wanted.difference(&found.bytes())).into()) }
}

/// Whether the state at `path` goes by the events' own times, as it does when it was made with
/// [`Builder::lateness`](crate::Builder::lateness). `None` when it goes by neither yet, as it has no log.
///
/// # Errors
/// [`StateError`]: there is no state, or it cannot be read. Frames are not looked at.
pub fn is_in_event_time(path: impl AsRef<Path>) -> Result<Option<bool>, StateError> {
    let survey = Survey::of_headers(&Reader::open(path.as_ref())?.disk)?;
    Ok(identity(&survey).map(|identity| identity.is_in_event_time()))
}

/// Whether the state at `path` has payload digests beside its ids, as it does when it was made with
/// [`Builder::on_conflict`](crate::Builder::on_conflict). `None` when it has neither yet, as it has no log. `left_out` is what was given
/// to [`Builder::conflict_ignore`](crate::Builder::conflict_ignore), for who compares payloads with those digests.
///
/// # Errors
/// [`StateError`]: there is no state, its digests leave out something else, or it cannot be read. Frames are not looked at.
pub fn has_digests(path: impl AsRef<Path>, left_out: Option<&str>) -> Result<Option<bool>, StateError> {
    let reader = Reader::open(path.as_ref())?;
    let survey = Survey::of_headers(&reader.disk)?;
    let Some(found) = identity(&survey) else { return Ok(None) };
    match left_out {
        Some(left_out) if found.has_digests() && found.left_out_digest() != Identity::left_out(left_out) => {
            Err(other(&reader, "what is left out when payloads are compared").into())
        }
        _ => Ok(Some(found.has_digests())),
    }
}

fn other(reader: &Reader, differs: &str) -> Problem {
    let place = reader.path.display();
    let message = format!(
        "{place} belongs to a state of another configuration: what differs is {differs}; use the configuration that the \
         state was made with"
    );
    Problem::of_other_configuration(&reader.path, message)
}

fn bad(file: &Path) -> Problem {
    Problem::corrupt(file, format!("{} is not a secret, which is a file of 32 bytes: {RESTORE_SECRET}", file.display()))
}
