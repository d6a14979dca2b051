//! A whole state against a disk that forgets and fails: the set, its log, and what stands between them.
//!
//! One question everywhere: does the next process know what it must, and nothing that it cannot? A [`World`] keeps the books
//! and asks it. Nothing here runs in the background: what the threads of a state do is done by the test, between calls.

mod lives;
mod rules;
mod world;

use std::time::Duration;

use crate::log::{Config, IDENTITY_BYTES};

use world::World;

/// Small segments: a page of header and one of frames.
fn tiny(identity: [u8; IDENTITY_BYTES]) -> Config {
    let (segment_bytes_min, segment_bytes_max, touch_ahead_bytes) = (8_192, 16_384, 4_096);
    let watch_every = Duration::ZERO;
    Config { segment_bytes_min, segment_bytes_max, touch_ahead_bytes, watch_every, ..Config::new(identity) }
}
