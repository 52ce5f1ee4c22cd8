//! `loadBalancing` with the hash and the sessions.

use serde_json::{Value, json};

use super::form::{duration, object, thousandths};
use crate::upstream::settings::{
    Balancing, CombineKeys, FailoverLevel, HashKey, HashSource, HashTable, LatencyAverage, Locality, LocalityMode,
    RequestHash, SameSite, SetCookie, SlowStart, WhenUnhealthy,
};
use crate::upstream::{AffinityCarrier, AffinitySettings};

pub(in crate::app) fn load_balancing(balancing: &Balancing) -> Value {
    let Balancing {
        algorithm,
        hash,
        slow_start,
        locality,
        panic_threshold_percent,
        must_exceed_threshold,
        when_unhealthy,
    } = balancing;
    let ewma = algorithm.latency().map(|LatencyAverage { decay, failure_penalty }| {
        object([("decay", Some(duration(decay))), ("failurePenalty", Some(duration(failure_penalty)))])
    });
    let when_unhealthy = match when_unhealthy {
        WhenUnhealthy::UseAll => "UseAll",
        WhenUnhealthy::Fail => "Fail",
    };
    object([
        ("algorithm", Some(json!(algorithm.name()))),
        ("peakEwma", ewma),
        ("hash", hash.as_deref().map(|hash| request_hash(hash, algorithm.hash_table()))),
        ("slowStart", slow_start.as_ref().map(slow_start_block)),
        ("locality", Some(locality_block(locality))),
        ("panicThresholdPercent", Some(json!(panic_threshold_percent))),
        ("mustExceedThreshold", must_exceed_threshold.then(|| json!(true))),
        ("whenUnhealthy", Some(json!(when_unhealthy))),
    ])
}

fn locality_block(locality: &Locality) -> Value {
    let Locality { mode, failover, overprovisioning_percent } = locality;
    let mode = match mode {
        LocalityMode::Auto => "Auto",
        LocalityMode::Off => "Off",
        LocalityMode::PreferSameZone => "PreferSameZone",
        LocalityMode::PreferSameNode => "PreferSameNode",
    };
    let level = |level: &FailoverLevel| match level {
        FailoverLevel::Zone(zone) => json!({"zone": zone}),
        FailoverLevel::Region(region) => json!({"region": region}),
        FailoverLevel::Nothing => json!({}),
    };
    object([
        ("mode", Some(json!(mode))),
        ("failover", (!failover.is_empty()).then(|| failover.iter().map(level).collect())),
        ("overprovisioningPercent", Some(json!(overprovisioning_percent))),
    ])
}

fn slow_start_block(settings: &SlowStart) -> Value {
    let SlowStart { window, min_weight_percent, aggression } = *settings;
    object([
        ("window", Some(duration(window))),
        ("minWeightPercent", Some(json!(min_weight_percent))),
        ("aggression", Some(thousandths(aggression))),
    ])
}

fn request_hash(hash: &RequestHash, table: Option<HashTable>) -> Value {
    let RequestHash { keys, combine, bounded_load_percent } = hash;
    let (maglev_size, ring_size) = match table {
        Some(HashTable::Maglev { table_size }) => (Some(table_size), None),
        Some(HashTable::RingHash { points }) => (None, points),
        None => (None, None),
    };
    let combine = match combine {
        CombineKeys::First => "First",
        CombineKeys::All => "All",
    };
    object([
        ("combine", Some(json!(combine))),
        ("keys", Some(keys.iter().map(hash_key).collect())),
        ("boundedLoadPercent", bounded_load_percent.map(|percent| json!(percent))),
        ("maglevSize", maglev_size.map(|size| json!(size))),
        ("ringSize", ring_size.map(|size| json!(size))),
    ])
}

fn hash_key(key: &HashKey) -> Value {
    let HashKey { source, regex } = key;
    let named = |source: &'static str, name: &str| (source, Some(json!(name)), None, None);
    let (source, name, cookie, prefix) = match source {
        HashSource::Header(name) => named("Header", name.as_str()),
        HashSource::Cookie(SetCookie { name, path, max_age, same_site, attributes: _, .. }) => {
            let ttl = duration(max_age.unwrap_or_default());
            let cookie = json!({"ttl": ttl, "path": path, "sameSite": same_site_name(*same_site)});
            ("Cookie", Some(json!(name)), Some(cookie), None)
        }
        HashSource::ClientIp { ipv6_prefix } => ("ClientIP", None, None, Some(json!(ipv6_prefix))),
        HashSource::Query(name) | HashSource::QueryValues(name) => named("Query", name),
        HashSource::Path => ("Path", None, None, None),
        HashSource::UriCapture(name) => named("UriCapture", name),
        HashSource::Consumer => ("Consumer", None, None, None),
        HashSource::Host => ("Host", None, None, None),
    };
    object([
        ("source", Some(json!(source))),
        ("name", name),
        ("regex", regex.as_ref().map(|regex| json!(regex.as_str()))),
        ("cookie", cookie),
        ("ipv6Prefix", prefix),
    ])
}

fn same_site_name(same_site: SameSite) -> &'static str {
    match same_site {
        SameSite::Strict => "Strict",
        SameSite::Lax => "Lax",
        SameSite::None => "None",
    }
}

pub(super) fn session_persistence(settings: &AffinitySettings) -> Value {
    let AffinitySettings { scope: _, carrier, absolute_timeout, idle_timeout, strip } = settings;
    let (kind, name, cookie) = match carrier {
        AffinityCarrier::Cookie { cookie, is_permanent } => {
            ("Cookie", &*cookie.name, Some(session_cookie(cookie, *is_permanent)))
        }
        AffinityCarrier::Header(name) => ("Header", name.as_str(), None),
    };
    object([
        ("type", Some(json!(kind))),
        ("name", Some(json!(name))),
        ("absoluteTimeout", absolute_timeout.map(duration)),
        ("idleTimeout", idle_timeout.map(duration)),
        ("cookie", cookie),
        ("strip", Some(json!(strip))),
    ])
}

fn session_cookie(cookie: &SetCookie, is_permanent: bool) -> Value {
    let lifetime = if is_permanent { "Permanent" } else { "Session" };
    json!({"lifetimeType": lifetime, "path": cookie.path, "sameSite": same_site_name(cookie.same_site)})
}
