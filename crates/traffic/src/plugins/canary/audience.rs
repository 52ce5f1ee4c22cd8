//! The clients that get the new version: a share, which may grow, or groups.

use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use http::HeaderName;
use xxhash_rust::xxh64::xxh64;

use super::config::{Config, Hash};
use crate::diagnostic::Diagnostic;
use crate::plugin_api::context::UNKNOWN_CLIENT;
use crate::plugin_api::{BuildCx, Identity, RequestCx};

/// The clients that get the new version.
pub(super) enum Audience {
    Share(CanaryShare, CanaryHash),
    /// Members of the groups if `is_allow_list`, otherwise all others.
    Groups {
        groups: Box<[Box<str>]>,
        is_allow_list: bool,
    },
}

/// The share of clients.
#[derive(Clone, Copy, Debug)]
pub(super) enum CanaryShare {
    /// From 0 to 1.
    Fixed(f64),
    Growing {
        start: SystemTime,
        duration: Duration,
        steps: u32,
    },
}

/// What requests have in common that stay together.
pub(super) enum CanaryHash {
    Consumer,
    Address,
    Header(HeaderName),
    Nothing,
}

impl Audience {
    /// `None` if the configuration is invalid, which is added to `invalid`.
    pub(super) fn build(config: &Config, cx: &BuildCx<'_>, invalid: &mut Vec<Diagnostic>) -> Option<Self> {
        let mut add = |field: &str, message: &str, remedy: &str| {
            invalid.push(Diagnostic::in_config(field, message, remedy));
        };
        let uses_groups = matches!(config.hash, Hash::Allow | Hash::Deny);
        if uses_groups && config.groups.is_empty() {
            add("groups", "is empty, but hash is allow or deny", "list at least one group");
        }
        if !uses_groups && !config.groups.is_empty() {
            add("groups", "has an effect only if hash is allow or deny", "remove it, or set hash to allow or deny");
        }
        if config.groups.iter().any(String::is_empty) {
            add("groups", "contains an empty name", "write the names of groups");
        }
        let header = config.hash_header.as_deref().map(str::parse::<HeaderName>);
        match (config.hash, &header) {
            (Hash::Header, None) => add("hash_header", "hash: header needs it", "set it to the name of a header"),
            (_, Some(Err(_))) => add("hash_header", "is not the name of a header", "write a name such as X-User"),
            (Hash::Header, Some(Ok(_))) | (_, None) => {}
            (_, Some(Ok(_))) => add("hash_header", "has an effect only with hash: header", "remove it"),
        }
        if config.percentage.is_some_and(|percentage| !(0.0..=100.0).contains(&percentage)) {
            add("percentage", "is not a share", "set a number from 0 to 100");
        }
        if !(1..=MAX_STEPS).contains(&config.steps) {
            add("steps", "is out of range", "set a number from 1 to 1000000");
        }
        let duration = Duration::try_from_secs_f64(config.duration).ok().filter(|duration| *duration <= LONGEST);
        if duration.is_none() {
            add("duration", "is not a number of seconds", "set a number from 0 to 315360000, which is ten years");
        }
        let start = config.start.map(|start| {
            let since_epoch = Duration::try_from_secs_f64(start).ok().filter(|start| start.as_secs() <= LAST_START);
            since_epoch.map(|since_epoch| SystemTime::UNIX_EPOCH + since_epoch)
        });
        if start == Some(None) {
            add("start", "is not a time", "set it to seconds since 1970-01-01 UTC, as date +%s prints them");
        }
        if uses_groups {
            for (field, is_set) in [("percentage", config.percentage.is_some()), ("start", config.start.is_some())] {
                if is_set {
                    let remedy = "remove it, or set hash to consumer, ip, header or none";
                    cx.note(Diagnostic::in_config(field, "has no effect if hash is allow or deny", remedy));
                }
            }
            let groups = config.groups.iter().map(|group| group.as_str().into()).collect();
            return Some(Audience::Groups { groups, is_allow_list: config.hash == Hash::Allow });
        }
        let share = match (config.percentage, start) {
            (Some(percentage), start) => {
                if start.is_some() {
                    let message = "has no effect, because percentage is set";
                    cx.note(Diagnostic::in_config("start", message, "remove it or percentage"));
                }
                CanaryShare::Fixed(percentage / 100.0)
            }
            (None, Some(start)) => CanaryShare::Growing { start: start?, duration: duration?, steps: config.steps },
            (None, None) => {
                add("percentage", "neither percentage nor start is set", "set one of them");
                return None;
            }
        };
        let input = match config.hash {
            Hash::Consumer => CanaryHash::Consumer,
            Hash::Ip => CanaryHash::Address,
            Hash::Header => CanaryHash::Header(header?.ok()?),
            Hash::None | Hash::Allow | Hash::Deny => CanaryHash::Nothing,
        };
        Some(Audience::Share(share, input))
    }

    /// Whether the client of a request gets the new version.
    pub(super) fn contains(&self, cx: &RequestCx<'_>) -> bool {
        match self {
            Audience::Groups { groups, is_allow_list } => is_member(cx.identity, groups) == *is_allow_list,
            Audience::Share(share, input) => match share.at(cx.now) {
                share if share <= 0.0 => false,
                share if share >= 1.0 => true,
                share => input.position(cx) < share,
            },
        }
    }
}

fn is_member(identity: &Identity, groups: &[Box<str>]) -> bool {
    let of_consumer = identity.consumer.iter().flat_map(|consumer| consumer.acls());
    of_consumer.chain(&identity.groups).any(|group| groups.iter().any(|listed| **listed == **group))
}

impl CanaryShare {
    /// The share at this time, from 0 to 1.
    pub(super) fn at(self, now: SystemTime) -> f64 {
        match self {
            CanaryShare::Fixed(share) => share,
            CanaryShare::Growing { start, duration, steps } => {
                let Ok(elapsed) = now.duration_since(start) else { return 0.0 };
                if elapsed >= duration {
                    return 1.0;
                }
                let steps = f64::from(steps);
                (elapsed.as_secs_f64() / duration.as_secs_f64() * steps).floor() / steps
            }
        }
    }
}

impl CanaryHash {
    /// The position of a request among all, from 0 to below 1. Equal for equal inputs, in every replica and version.
    fn position(&self, cx: &RequestCx<'_>) -> f64 {
        let of_address = || address_position(cx.client.address);
        match self {
            CanaryHash::Consumer => {
                cx.identity.consumer.as_ref().map_or_else(of_address, |consumer| position(consumer.id.as_bytes()))
            }
            CanaryHash::Address => of_address(),
            CanaryHash::Header(name) => {
                cx.head.headers.get(name).map_or_else(of_address, |value| position(value.as_bytes()))
            }
            CanaryHash::Nothing => fastrand::f64(),
        }
    }
}

fn address_position(address: IpAddr) -> f64 {
    match address {
        // Unknown clients are not one client.
        UNKNOWN_CLIENT => fastrand::f64(),
        IpAddr::V4(address) => position(&address.octets()),
        IpAddr::V6(address) => position(&address.octets()),
    }
}

/// The seed is not 0, with which load balancing hashes: otherwise one endpoint of a Service would have all clients of
/// the new version.
fn position(bytes: &[u8]) -> f64 {
    const BITS: u32 = f64::MANTISSA_DIGITS;
    let hash = xxh64(bytes, 0x6361_6e61_7279) >> (u64::BITS - BITS);
    hash as f64 / (1_u64 << BITS) as f64
}

const MAX_STEPS: u32 = 1_000_000;

/// Ten years.
const LONGEST: Duration = Duration::from_secs(315_360_000);

/// The last second of the year 9999.
const LAST_START: u64 = 253_402_300_799;
