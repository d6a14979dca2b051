//! The hand-off between stages.
