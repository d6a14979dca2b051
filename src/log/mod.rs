//! The log: batches of records, appended to a row of mapped segments and replayed at the next start.
#![doc = include_str!("../guide/log_format.md")]

mod batch;
mod fields;
mod frame;
mod header;
mod storage;

pub(crate) use batch::{Batch, Kind, Record, Records};
pub(crate) use header::IDENTITY_BYTES;
pub(crate) use storage::{Disk, Storage};
