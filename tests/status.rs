//! Status writes, leader election and events against a fake API server, with time paused.

mod election;
mod events;
mod fake_api;
mod replica;
mod writing;
