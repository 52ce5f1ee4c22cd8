//! What plugins of several crates share: counters over replicas, connections to servers, credentials, log entries, and
//! default limits. What only plugins of one crate share is in their crate.
//!
//! A plugin is a client of the contract, [`crate::plugin_api`], and of these modules, which no request without such a
//! plugin runs.

pub mod authentication;
pub mod aws_credentials;
pub mod aws_signature;
pub mod counting;
pub(crate) mod credential_values;
pub mod default_limits;
pub mod digest_cache;
pub mod form_body;
pub mod idle_connections;
pub mod log_entry;
pub mod log_fields;
pub(crate) mod observed_stream;
pub mod redis;
pub mod relayed_response;
pub mod remote_client;
pub mod remote_server;
pub mod request_json;
pub mod sent_headers;
pub mod server_diagnostics;
pub(crate) mod session_entry;
pub mod shared_fetch;
pub mod weighted_list;
