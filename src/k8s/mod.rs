//! The API server as a source of objects and as the place where verdicts are told: the only user of its client.
//!
//! ```text
//!   API server ──watch──▶ Delivery ──▶ control loop (store, compile, swap)
//!        ▲                                  │ verdicts
//!        └────────────── status ◀───────────┘   leader only
//! ```
//!
//! Nothing is decided here: what an object means is `compile`'s business, what is told of it that of `status`.

mod answers;
mod backoff;
mod bodies;
mod client;
mod collect;
mod delivery;
mod discovery;
mod events;
mod failure;
mod health;
mod lease;
mod looks;
mod moments;
mod patch;
mod pen;
pub mod permissions;
mod raw;
pub mod services;
mod source;
mod supervisor;
mod watch;

pub use client::{Access, AccessError, Connection};
pub use delivery::{Delivery, Installed, Observed, Refused};
pub use events::{Event, Recorder, events_of};
pub use failure::Failure;
pub use lease::{Seat, campaign};
pub use moments::until;
pub use patch::Statuses;
pub use pen::Pen;
pub use source::{Counters, Source, WatchCounts};
