//! The limits of each client address: the configuration of the guard that counts requests.

use serde_json::{Value, json};

use super::addresses::networks;
use super::config_map::NginxConfig;
use super::value_reader::ValueReader;

/// The kind of guard.
pub(super) const KIND: &str = "location-limits";

/// The limits of an Ingress; `None` if it has none.
pub(super) fn read(reader: &mut ValueReader<'_>, config: &NginxConfig) -> Option<Value> {
    let limit = |reader: &mut ValueReader<'_>, name| {
        reader.number(name).and_then(|number| u64::try_from(number).ok()).filter(|number| *number > 0)
    };
    let per_second = limit(reader, "limit-rps");
    let per_minute = limit(reader, "limit-rpm");
    let concurrent = limit(reader, "limit-connections");
    let burst = reader.number("limit-burst-multiplier").and_then(|number| u64::try_from(number).ok());
    let exempt = reader.text("limit-allowlist").or_else(|| reader.text("limit-whitelist"));
    let is_limited = per_second.is_some() || per_minute.is_some() || concurrent.is_some();
    if !is_limited {
        reader.note_without(&["limit-allowlist", "limit-burst-multiplier", "limit-whitelist"], "limit-rps");
    }
    is_limited.then(|| {
        json!({
            "per_second": per_second,
            "per_minute": per_minute,
            "concurrent": concurrent,
            "burst_multiplier": burst.unwrap_or(BURST_MULTIPLIER),
            "exempt": networks(exempt.unwrap_or_default()),
            "rate_status": config.rate_status.as_u16(),
            "concurrent_status": config.concurrent_status.as_u16(),
        })
    })
}

/// How many times the rate a client may send at once.
const BURST_MULTIPLIER: u64 = 5;
