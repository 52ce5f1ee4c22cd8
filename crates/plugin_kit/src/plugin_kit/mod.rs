//! What several plugins share: counters over replicas, connections to servers, tokens and sessions, log entries, and
//! edits of requests and responses.
//!
//! A plugin is a client of the contract, [`crate::plugin_api`], and of these modules, which no request without such a
//! plugin runs.

pub mod authentication;
pub mod aws_credentials;
pub mod aws_signature;
pub mod client_certificate;
pub mod counting;
pub(crate) mod credential_values;
pub mod digest_cache;
pub mod form_body;
pub mod idle_connections;
pub mod introspection;
pub mod json_fields;
pub mod kafka;
pub mod log_delivery;
pub mod log_entry;
pub mod log_fields;
pub mod logged_out_sessions;
pub mod lua_functions;
pub(crate) mod observed_stream;
pub mod otlp_delivery;
pub mod redis;
pub mod rejection_log;
pub mod relayed_response;
pub mod remote_client;
pub mod remote_server;
pub mod request_edits;
pub mod request_json;
pub mod request_variables;
pub mod response_edits;
pub mod sealed_cookie;
pub mod sent_headers;
pub mod server_diagnostics;
pub(crate) mod session_entry;
pub(crate) mod session_lock;
pub mod shared_fetch;
pub mod statsd;
pub mod stored_sessions;
pub mod token_binding;
pub mod token_purpose;
pub mod tracer;
pub mod violations;
pub mod weighted_list;
