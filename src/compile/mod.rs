//! Store in, snapshot and verdicts out.

pub mod verdict;
