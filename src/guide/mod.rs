//! The long documents.
