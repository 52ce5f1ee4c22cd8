//! Tests of status writes, leader election and events with a fake API server, while the time is paused.

mod election;
mod events;
mod fake_api;
mod replica;
mod writing;
