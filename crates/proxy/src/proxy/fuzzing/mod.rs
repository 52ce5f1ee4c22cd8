//! Fuzzing of what reads the bytes of connections and requests.

pub(crate) mod client_hello;
pub(crate) mod forwarded_for;
pub(crate) mod headers;
pub(crate) mod http2_frames;
pub(crate) mod proxy_header;
pub(crate) mod sessions;

pub(crate) use super::http::steps::external_auth::fuzzing as check_responses;
pub(crate) use super::telemetry::access_log::fuzzing as access_log_lines;
