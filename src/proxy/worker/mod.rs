//! The state of one worker that all its connections borrow.

pub(in crate::proxy) mod view;
