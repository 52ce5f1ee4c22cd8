//! The API server as a source of objects and as the place where verdicts are told: the only user of its client.
//!
//! ```text
//!   API server ──watch──▶ Delivery ──▶ control loop (store, compile, swap)
//!        ▲                                  │ verdicts
//!        └────────────── status ◀───────────┘   leader only
//! ```
//!
//! Nothing is decided here: what an object means is `compile`'s business, what is told of it that of `status`.

mod delivery;

pub use delivery::{Delivery, Installed, Observed, Refused};
