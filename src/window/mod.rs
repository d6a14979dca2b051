//! The set of fingerprints (placeholder until the table lands).

use std::collections::HashMap;
use std::sync::Mutex;

#[derive(Default)]
pub(crate) struct Set {
    pub(crate) seen: Mutex<HashMap<u128, (i64, bool)>>,
}
