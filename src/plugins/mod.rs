//! The plugins: one file each, and this list. Nothing else knows them.

mod acl;
mod basic_auth;
mod bot_detection;
mod correlation_id;
mod cors;
mod ip_restriction;
mod jwt;
mod key_auth;
pub mod prometheus;
mod rate_limiting;
mod redirect;
mod request_size_limiting;
mod request_termination;

use crate::plugin::{AnyKind, Entry, Registry};

/// In alphabetical order. `&Entry::<file::Plugin>::NEW` is the line that a new file needs here, besides its `mod`.
const KINDS: &[&dyn AnyKind] = &[
    &Entry::<acl::Acl>::NEW,
    &Entry::<basic_auth::BasicAuth>::NEW,
    &Entry::<bot_detection::BotDetection>::NEW,
    &Entry::<correlation_id::CorrelationId>::NEW,
    &Entry::<cors::Cors>::NEW,
    &Entry::<ip_restriction::IpRestriction>::NEW,
    &Entry::<jwt::Jwt>::NEW,
    &Entry::<key_auth::KeyAuth>::NEW,
    &Entry::<prometheus::Prometheus>::NEW,
    &Entry::<rate_limiting::RateLimiting>::NEW,
    &Entry::<redirect::Redirect>::NEW,
    &Entry::<request_size_limiting::RequestSizeLimiting>::NEW,
    &Entry::<request_termination::RequestTermination>::NEW,
];

/// All plugins there are.
pub const REGISTRY: Registry = Registry(KINDS);

#[cfg(test)]
mod together;
