//! Recovery of the log: files that were damaged or forged give a prefix or an error, and the same again.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| dedupd::fuzzing::log_recover(input));
