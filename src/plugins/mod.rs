//! The plugins: one file each, and this list. Nothing else knows them.

pub mod bot_detection;
pub mod correlation_id;
pub mod cors;
pub mod ip_restriction;
pub mod prometheus;
pub mod rate_limiting;
pub mod redirect;
pub mod request_size_limiting;
pub mod request_termination;

use crate::plugin::{AnyKind, Entry, Registry};

/// In alphabetical order. `&Entry::<file::Plugin>::NEW` is the line that a new file needs here, besides its `mod`.
const KINDS: &[&dyn AnyKind] = &[
    &Entry::<bot_detection::BotDetection>::NEW,
    &Entry::<correlation_id::CorrelationId>::NEW,
    &Entry::<cors::Cors>::NEW,
    &Entry::<ip_restriction::IpRestriction>::NEW,
    &Entry::<prometheus::Prometheus>::NEW,
    &Entry::<rate_limiting::RateLimiting>::NEW,
    &Entry::<redirect::Redirect>::NEW,
    &Entry::<request_size_limiting::RequestSizeLimiting>::NEW,
    &Entry::<request_termination::RequestTermination>::NEW,
];

/// All plugins there are.
pub const REGISTRY: Registry = Registry(KINDS);
