//! A frame of the log: bytes of any kind are none, or encode to themselves; what is encoded is decoded.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| dedupd::fuzzing::log_frame(input));
