//! Bytes to records: lines, the JSON path, the canonical ID. Pure, no I/O.
