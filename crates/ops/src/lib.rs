//! What operators see and control of a process: the status and admin listeners, metrics, its own log, readiness, and
//! shutdown. Also what else serves or prints without the proxy: the echo server and rules for objectives.

pub mod admin;
pub mod drain;
pub mod echo;
pub mod http_server;
pub mod metrics;
pub mod process_log;
pub mod ready;
pub mod slo;
pub mod version;

use portico_base::{duration_bounds, quantity};
