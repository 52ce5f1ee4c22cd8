//! The limits of requests and connections of each client address, which all paths of an Ingress share.

mod client_use;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::SystemTime;

use http::StatusCode;
use schemars::JsonSchema;
use serde::Deserialize;

use super::address_list;
use crate::address_ranges::AddressRanges;
use crate::diagnostic::Diagnostic;
use crate::plugin_api::{AccessOutcome, BuildCx, Phases, Plugin, PluginKind, Reply, RequestCx};
use crate::plugin_kit::counting::{CounterKey, CounterTable, EntryBudget};
use crate::plugin_kit::default_limits::DEFAULT_ENTRIES;
use client_use::{AdmittedRequest, ClientUse, ExceededLimit, RequestRate};

/// The limits of one Ingress.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Config {
    /// Requests per second.
    #[serde(default)]
    per_second: Option<u64>,
    /// Requests per minute.
    #[serde(default)]
    per_minute: Option<u64>,
    /// Requests in progress at the same time.
    #[serde(default)]
    concurrent: Option<u64>,
    /// How many times a rate may be exceeded at once.
    burst_multiplier: u64,
    /// Addresses without limits.
    #[serde(default, deserialize_with = "address_list::read")]
    #[schemars(with = "Vec<String>")]
    exempt: AddressRanges,
    /// The status of responses to requests above a rate.
    rate_status: u16,
    /// The status of responses to requests above the number of concurrent ones.
    concurrent_status: u16,
}

/// Limits the requests of each client address.
pub(crate) struct ClientLimits {
    rates: Box<[RequestRate]>,
    concurrent: Option<u64>,
    exempt: AddressRanges,
    rate_status: StatusCode,
    concurrent_status: StatusCode,
    clients: Arc<CounterTable<ClientUse>>,
}

impl PluginKind for ClientLimits {
    const NAME: &'static str = "location-limits";
    const HAS_CREDENTIALS: bool = false;
    const PRIORITY: i32 = i32::MAX - 1;
    const PHASES: Phases = Phases::ACCESS;
    const FAIL_CLOSED: bool = true;
    type Config = Config;
    type Plugin = Self;

    fn build(config: Config, cx: &BuildCx<'_>) -> Result<Self, Vec<Diagnostic>> {
        let status = |code| StatusCode::from_u16(code).unwrap_or(StatusCode::SERVICE_UNAVAILABLE);
        let rates = (0..).zip([config.per_second, config.per_minute]).filter_map(|(period, requests)| {
            let requests = requests.filter(|requests| *requests > 0)?;
            Some(RequestRate::new(requests, period, config.burst_multiplier))
        });
        // What clients have used outlives changes of the limits.
        let clients = cx.state.get_or_create(&format!("location limits {}", cx.object), || {
            let budget = EntryBudget::of(cx.state, DEFAULT_ENTRIES);
            CounterTable::new(budget, cx.namespace().unwrap_or_default())
        });
        Ok(ClientLimits {
            rates: rates.collect(),
            concurrent: config.concurrent.filter(|limit| *limit > 0),
            exempt: config.exempt,
            rate_status: status(config.rate_status),
            concurrent_status: status(config.concurrent_status),
            clients,
        })
    }
}

impl Plugin for ClientLimits {
    fn may_wait(&self) -> bool {
        false
    }

    fn access<'a>(&'a self, cx: &'a mut RequestCx<'_>) -> AccessOutcome<'a> {
        let address = cx.client.address.to_canonical();
        if self.exempt.contains(address) {
            return AccessOutcome::Continue;
        }
        match self.admit(address, cx.now) {
            Ok(None) => AccessOutcome::Continue,
            Ok(Some(active)) => {
                cx.set_plugin_data(active);
                AccessOutcome::Continue
            }
            Err(ExceededLimit::Rate) => {
                let message = "Too many requests of this client";
                AccessOutcome::Reply(Reply::negotiated(self.rate_status, message, "client_rate_limited"))
            }
            Err(ExceededLimit::Concurrent) => {
                let message = "Too many requests of this client at the same time";
                AccessOutcome::Reply(Reply::negotiated(self.concurrent_status, message, "client_concurrency_limited"))
            }
        }
    }
}

impl ClientLimits {
    /// Counts a request. With a limit of concurrent ones, it ends when the result is dropped.
    fn admit(&self, address: IpAddr, now: SystemTime) -> Result<Option<AdmittedRequest>, ExceededLimit> {
        let now = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let nanoseconds = u64::try_from(now.as_nanos()).unwrap_or(u64::MAX);
        let (v4, v6);
        let identifier: &[u8] = match address {
            IpAddr::V4(address) => {
                v4 = address.octets();
                &v4
            }
            IpAddr::V6(address) => {
                v6 = address.octets();
                &v6
            }
        };
        let key = CounterKey { scope: "", kind: 0, identifier };
        let count = |client: &Arc<ClientUse>| client.admit(&self.rates, self.concurrent, nanoseconds);
        self.clients.with_counters(key, now.as_secs(), |_| ClientUse::default(), count)
    }
}

#[cfg(test)]
mod tests;
