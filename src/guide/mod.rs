//! The long documents: what is promised, how it is built, how to run it.
//!
//! - [`semantics`]: the contract. What the same ID is, how long it is remembered, what happens to the rest.
//! - [`architecture`]: the parts, the one direction in which they know each other, and why.
//! - [`tuning`]: memory, batches, the hash, threads.
//! - [`durability`]: what an answer rests on with a state, how it reaches the disk, what happens when it cannot.
//! - [`pipeline`]: what becomes of an event between `submit` and `settled`, whatever fails on the way.
//! - [`operations`]: running the filter: reports, signals, exit codes; looking after a state directory.
//! - [`log_format`]: the log on disk, byte by byte, and what survives what.
//!
//! They describe this version. What is planned and not there yet is listed as such at the end of [`semantics`].

#[doc = include_str!("architecture.md")]
pub mod architecture {}

#[doc = include_str!("durability.md")]
pub mod durability {}

#[doc = include_str!("log_format.md")]
pub mod log_format {}

#[doc = include_str!("operations.md")]
pub mod operations {}

#[doc = include_str!("pipeline.md")]
pub mod pipeline {}

#[doc = include_str!("semantics.md")]
pub mod semantics {}

#[doc = include_str!("tuning.md")]
pub mod tuning {}
