//! What the tests share.
#![allow(dead_code, reason = "each test binary uses its own part")]

pub mod disk;
#[cfg(feature = "cli")]
pub mod filter;
pub mod kills;
pub mod mounts;
pub mod oracle;
pub mod state;
