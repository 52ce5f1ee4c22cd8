//! One exchange with a client, as the layers above see it: the state of its connection or stream, the bodies in both
//! directions, and the worker that serves it. Nothing here reads or writes a connection of a client.
//!
//! ```text
//!   client ── ClientBody ──▶ RequestBody ──▶ endpoint
//!      ▲                        │ ReplayBuffer
//!      └──── ResponseBody ◀── BodySource ◀── endpoint, plugin, Portico
//!   ClientExchange: Activity, HttpWorker; on HTTP/2 also OpenStream: what the connection holds of both bodies
//! ```

pub(in crate::proxy) mod activity;
pub(in crate::proxy) mod body_source;
pub(in crate::proxy) mod client_body;
pub(in crate::proxy) mod client_caller;
pub(in crate::proxy) mod client_exchange;
pub(in crate::proxy) mod client_protocol;
pub(in crate::proxy) mod continuations;
pub(in crate::proxy) mod filtered_body;
pub(in crate::proxy) mod http_worker;
pub(in crate::proxy) mod minimum_rate;
pub(in crate::proxy) mod open_streams;
pub(in crate::proxy) mod paced_body;
pub(in crate::proxy) mod read_timeout;
pub(in crate::proxy) mod replay_buffer;
pub(in crate::proxy) mod request_body;
pub(in crate::proxy) mod unforwarded_bodies;
pub(in crate::proxy) mod unread_body;
pub(in crate::proxy) mod unread_stream;
pub(in crate::proxy) mod unsent_responses;
