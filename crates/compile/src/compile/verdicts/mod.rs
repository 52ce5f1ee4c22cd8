//! The verdicts of a compilation: the table that collects them, and those on objects that are not compiled because they
//! are rejected or too large.

pub(super) mod oversized_objects;
pub(super) mod rejected_objects;
pub(super) mod table;
