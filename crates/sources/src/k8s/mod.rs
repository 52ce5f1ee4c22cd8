//! The client of the Kubernetes API server: watches objects, and writes statuses, Events, Leases, Services and
//! EndpointSlices.
//!
//! ```text
//!   API server ──watch──▶ Delivery ──▶ control loop (store, compile, publish)
//!        ▲                                  │ verdicts
//!        └─────── status, services ◀─────────┘   leader only
//! ```
//!
//! `compile` interprets the objects, and `status` decides what is written about them. Only the Services and
//! EndpointSlices of Gateways are planned in this module, in `services`.

mod api_error;
mod backoff;
mod client;
mod collect;
mod delivery;
mod discovery;
mod discovery_schedule;
mod events;
mod first_list;
mod key_secret;
mod leader_write_guard;
mod lease;
mod listing;
mod middleware;
pub mod permissions;
mod raw;
mod referenced;
pub mod services;
mod source;
mod status_client;
mod supervisor;
mod timestamps;
mod watch;
mod watch_health;

pub use api_error::ApiError;
pub use client::{Access, AccessError, ApiConnection};
pub use delivery::{Delivery, InstalledApis, Observed, RejectedObject};
pub use events::{Event, EventRecorder, event_namespace};
pub use key_secret::{KEY_SECRET_NAME, KeySecret, StoredKeys, follow_key_secret};
pub use leader_write_guard::LeaderWriteGuard;
pub use lease::{LeaderCandidate, run_leader_election};
pub use listing::{ListedObjects, list_objects, read_object, validating_webhooks};
pub use referenced::ReferenceChanges;
pub use source::{ApiServerSource, WatchCounters, WatchCounts};
pub use status_client::StatusClient;
pub use timestamps::sleep_until_deadline;
