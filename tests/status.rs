//! Status writes, leader election and events against a fake API server, with time paused.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod status {
    mod election;
    mod events;
    mod fake_api;
    mod replica;
    mod writing;
}
