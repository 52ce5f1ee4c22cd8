//! Verdicts on objects that no other step compiles, which depend on what all steps serve.

pub(super) mod other_kinds;
pub(super) mod served;
pub(super) mod unserved_objects;

mod notes;
