//! What log plugins send their entries with, and how they report a server that does not accept them.
//!
//! ```text
//!   BatchQueue ─▶ StreamSender    entries on a TCP connection that stays open
//!              ─▶ DatagramSender  UDP datagrams
//!              ─▶ HttpSender      bodies of HTTP requests
//! ```

mod datagrams;
mod entry_stream;
mod http_requests;
mod reports;
mod server;
mod severity;
#[cfg(test)]
mod tests;

use std::num::NonZeroUsize;
use std::time::Duration;

pub(crate) use datagrams::{DatagramSender, Packing};
pub(crate) use entry_stream::{EntryFraming, StreamSender};
pub use http_requests::retry_after;
pub(crate) use http_requests::{HttpBody, HttpSender};
pub(crate) use reports::DeliveryReports;
pub(crate) use server::parse_server;
pub(crate) use severity::{Severities, SyslogMessage, SyslogSeverity};

use bytes::Bytes;

use crate::plugin_api::batch_queue::QueueSettings;

/// The queue of plugins whose configuration has none. Entries wait for a moment, so that one write sends many of them.
pub const DEFAULT_LOG_QUEUE: QueueSettings = QueueSettings {
    max_batch_size: 200,
    max_coalescing_delay: Duration::from_millis(100),
    max_entries: 10_000,
    max_bytes: 64 * 1024 * 1024,
    max_retry_time: Some(Duration::from_secs(60)),
    initial_retry_delay: Duration::from_millis(100),
    max_retry_delay: Duration::from_secs(10),
    concurrency: NonZeroUsize::MIN,
};

/// The entries as lines, each with its end.
pub(crate) fn join_lines(entries: &[Bytes]) -> Bytes {
    let mut lines = Vec::with_capacity(entries.iter().map(|entry| entry.len() + 1).sum());
    for entry in entries {
        lines.extend_from_slice(entry);
        lines.push(b'\n');
    }
    lines.into()
}
