//! The messages of OpenTelemetry's protocol, which traces, logs and metrics have in common. `otlp_delivery` sends them.
//!
//! ```text
//!   spans of requests, entries of the access log ─▶ spans_and_logs ─┐
//!                                                                   ├▶ as they are encoded, or json
//!   metrics of the process ───────────────────────▶ metrics ────────┘
//! ```

pub mod json;
pub mod metrics;
pub mod spans_and_logs;
