//! Statuses, the Lease and events against a played API server, with time paused.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod status {
    mod election;
    mod events;
    mod played;
    mod replica;
    mod writing;
}
