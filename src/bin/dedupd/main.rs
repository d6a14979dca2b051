//! The filter.
fn main() {}
