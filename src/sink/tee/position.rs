//! The positions of all branches as one.
//!
//! ```text
//! version = 1 as u8, then for each branch: bytes of its name as u32 LE, name, bytes of its position as u32 LE, position
//! ```

use crate::sink::{Sink, SinkError};

pub(super) fn of(branches: &mut [Box<dyn Sink>]) -> Result<Option<Vec<u8>>, SinkError> {
    let mut bytes = vec![VERSION];
    for branch in branches.iter_mut() {
        let Some(position) = branch.position()? else { return Ok(None) };
        for part in [&*branch.name(), &position] {
            let length = u32::try_from(part.len()).map_err(SinkError::other)?;
            bytes.extend_from_slice(&length.to_le_bytes());
            bytes.extend_from_slice(part);
        }
    }
    Ok(Some(bytes).filter(|_| !branches.is_empty()))
}

pub(super) fn resume(branches: &mut [Box<dyn Sink>], position: Option<&[u8]>) -> Result<(), SinkError> {
    let Some(position) = position else {
        return branches.iter_mut().try_for_each(|branch| branch.resume(None));
    };
    let parts = parts(position).filter(|parts| {
        parts.len() == branches.len()
            && parts.iter().zip(&*branches).all(|((name, _), branch)| **name == *branch.name())
    });
    let Some(parts) = parts else {
        return Err(SinkError::other(
            "the position in the state is that of a tee with other branches: nothing was changed; give it the same \
             branches in the same order",
        ));
    };
    branches.iter_mut().zip(parts).try_for_each(|(branch, (_, position))| branch.resume(Some(position)))
}

/// Names and positions.
fn parts(bytes: &[u8]) -> Option<Vec<(&[u8], &[u8])>> {
    let mut rest = bytes.strip_prefix(&[VERSION])?;
    let mut parts = Vec::new();
    while !rest.is_empty() {
        let name = part(&mut rest)?;
        parts.push((name, part(&mut rest)?));
    }
    Some(parts)
}

fn part<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (length, behind) = rest.split_first_chunk()?;
    let (part, behind) = behind.split_at_checked(usize::try_from(u32::from_le_bytes(*length)).ok()?)?;
    *rest = behind;
    Some(part)
}

const VERSION: u8 = 1;
