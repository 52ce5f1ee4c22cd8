//! Lets everybody make so many requests in a second, a minute and so on, and tells them how many are left.
//!
//! ```yaml
//! plugin: rate-limiting
//! config: {minute: 20, hour: 500, limit_by: ip, policy: redis, redis: {host: redis.shop}}
//! ```

mod cell;
mod config;
mod shared;
mod table;
#[cfg(test)]
mod tests;
mod window;

use std::net::IpAddr;
use std::sync::Arc;

use http::header::RETRY_AFTER;
use http::{HeaderName, HeaderValue, StatusCode};
use smallvec::SmallVec;

use crate::plugin::redis::Redis;
use crate::plugin::{BuildCx, Invalid, Kind, Outcome, Phases, Plugin, Reply, RequestCx, consumers, number};

use cell::{Cell, Limit};
pub(crate) use config::Config;
use config::{Checked, LimitBy, Policy};
use shared::Synced;
use table::{Table, Who};
use window::{Period, second_of};

pub(crate) struct RateLimiting {
    limits: Box<[(Period, u64, HeaderValue)]>,
    by: LimitBy,
    store: Store,
    /// See `BuildCx::object`.
    object: Arc<str>,
    is_fault_tolerant: bool,
    hides_headers: bool,
    status: StatusCode,
    message: Arc<str>,
}

enum Store {
    Local(Arc<Table>),
    /// Asked at each request.
    Redis(Arc<Redis>),
    /// Told now and then.
    Synced(Arc<SyncedTable>),
}

struct SyncedTable {
    table: Table,
    synced: Synced,
}

impl Kind for RateLimiting {
    const NAME: &'static str = "rate-limiting";
    const PRIORITY: i32 = 910;
    const PHASES: Phases = Phases::ACCESS;
    const GUARD: bool = true;
    type Config = Config;
    type Plugin = RateLimiting;

    fn build(config: Config, cx: &BuildCx<'_>) -> Result<Self, Vec<Invalid>> {
        let Checked { limits, by, policy, is_fault_tolerant, hides_headers, status, message } = config.checked(cx)?;
        let store = match policy {
            Policy::Local => Store::Local(cx.state.shared(&format!("{} counters", cx.object), Table::default)),
            Policy::Redis(server, None) => Store::Redis(Redis::connect(&server, "redis", cx)),
            Policy::Redis(server, Some(every)) => {
                let redis = Redis::connect(&server, "redis", cx);
                let name = format!("{} counters {} {every:?}", cx.object, server.fingerprint());
                Store::Synced(cx.state.shared(&name, || {
                    let (synced, task) = Synced::start(redis, every);
                    cx.services.spawn(Box::pin(task));
                    SyncedTable { table: Table::default(), synced }
                }))
            }
        };
        let limits = limits.into_iter().map(|(period, limit)| (period, limit, number::header_of(limit))).collect();
        let object = cx.object.into();
        Ok(RateLimiting { limits, by, store, object, is_fault_tolerant, hides_headers, status, message })
    }
}

impl Plugin for RateLimiting {
    fn access<'a>(&'a self, cx: &'a mut RequestCx<'_>) -> Outcome<'a> {
        if self.limits.is_empty() {
            return Outcome::Next;
        }
        let second = second_of(cx.now);
        let limit = |(period, limit, _): &(Period, u64, HeaderValue)| Limit {
            period: *period,
            limit: *limit,
            window: period.recent_window(second),
        };
        let limits: Limits = self.limits.iter().map(limit).collect();
        let who = Identifier::of(&self.by, cx);
        let mut used = Used::new();
        match &self.store {
            Store::Local(table) => {
                table.with(who.seen_at(cx.scope), second, Cell::default, |cell| {
                    cell.take(&limits, |count| used.push(count))
                });
            }
            Store::Synced(shared) => {
                if shared.synced.is_behind() && !self.is_fault_tolerant {
                    return Outcome::Reply(out_of_order());
                }
                let make = || Cell::named(self.counter(&who, cx.scope));
                shared.table.with(who.seen_at(cx.scope), second, make, |cell| {
                    let taken = cell.take(&limits, |count| used.push(count))?;
                    if taken {
                        shared.synced.changed(cell);
                    }
                    Some(())
                });
            }
            Store::Redis(redis) => {
                let name = self.counter(&who, cx.scope);
                return Outcome::Wait(Box::pin(async move {
                    match shared::count(redis, &name, &limits, second).await {
                        Ok(used) => self.decide(&limits, &used, second, cx),
                        Err(_) if self.is_fault_tolerant => None,
                        Err(_) => Some(out_of_order()),
                    }
                }));
            }
        }
        match self.decide(&limits, &used, second, cx) {
            Some(reply) => Outcome::Reply(reply),
            None => Outcome::Next,
        }
    }
}

type Limits = SmallVec<[Limit; 6]>;
type Used = SmallVec<[u64; 6]>;

impl RateLimiting {
    /// What the client is told, given how much had been used before this request.
    fn decide(&self, limits: &[Limit], used: &[u64], second: u64, cx: &mut RequestCx<'_>) -> Option<Box<Reply>> {
        let is_full = |(limit, used): (&Limit, &u64)| *used >= limit.limit;
        let is_refused = limits.iter().zip(used).any(is_full);
        let mut fewest: Option<(u64, &Limit, &HeaderValue)> = None;
        if !self.hides_headers {
            for ((limit, used), (_, _, allowed)) in limits.iter().zip(used).zip(&self.limits) {
                // This request counts where it was let in.
                let left = limit.limit.saturating_sub(*used).saturating_sub(u64::from(!is_refused));
                let (limit_header, left_header) = &HEADERS[limit.period as usize];
                cx.answer_headers.insert(limit_header.clone(), allowed.clone());
                cx.answer_headers.insert(left_header.clone(), number::header_of(left));
                // From the shortest period to the longest: of equals the longer one.
                if fewest.is_none_or(|(fewest, _, _)| left <= fewest) {
                    fewest = Some((left, limit, allowed));
                }
            }
        }
        let mut reply = is_refused.then(|| Reply::negotiated(self.status, self.message.to_string(), "rate_limited"));
        if let Some((left, limit, allowed)) = fewest {
            let reset = number::header_of(limit.window.end.saturating_sub(second).max(1));
            cx.answer_headers.insert(RATELIMIT_LIMIT, allowed.clone());
            cx.answer_headers.insert(RATELIMIT_REMAINING, number::header_of(left));
            reply = reply.map(|reply| reply.with(RETRY_AFTER, reset.clone()));
            cx.answer_headers.insert(RATELIMIT_RESET, reset);
        }
        reply
    }

    /// What the names of somebody's counters at a server begin with: the same on every replica.
    fn counter(&self, who: &Identifier, scope: &str) -> String {
        format!("ratelimit:{}:{scope}:{}", self.object, who.readable())
    }
}

fn out_of_order() -> Box<Reply> {
    let message = "An unexpected error occurred";
    Reply::negotiated(StatusCode::INTERNAL_SERVER_ERROR, message, "counters_unavailable")
}

/// For whom it is counted.
struct Identifier {
    kind: u8,
    bytes: SmallVec<[u8; 40]>,
}

impl Identifier {
    /// Of what is limited by, or the client's address where that is missing.
    fn of(by: &LimitBy, cx: &RequestCx<'_>) -> Self {
        let known = match by {
            LimitBy::Consumer => {
                let consumer =
                    cx.identity.consumer.as_ref().map(|consumer| Self::text(CONSUMER, consumer.id.as_bytes()));
                consumer.or_else(|| Self::credential(cx))
            }
            LimitBy::Credential => Self::credential(cx),
            LimitBy::Service => Some(&cx.route.service)
                .filter(|service| !service.is_empty())
                .map(|service| Self::text(SERVICE, service.as_bytes())),
            LimitBy::Header(name) => cx.head.headers.get(name).map(|value| Self::text(HEADER, value.as_bytes())),
            LimitBy::Path(path) => (cx.path == path).then(|| Self::text(PATH, path.as_bytes())),
            LimitBy::Ip => None,
        };
        known.unwrap_or_else(|| Self::address(cx.client.address.to_canonical()))
    }

    fn credential(cx: &RequestCx<'_>) -> Option<Self> {
        cx.identity.credential.as_ref().map(|credential| Self::text(CREDENTIAL, credential.as_bytes()))
    }

    /// What is long is told apart by its digest, so that nobody fills the memory with long headers.
    fn text(kind: u8, text: &[u8]) -> Self {
        if text.len() <= LONGEST {
            return Identifier { kind, bytes: SmallVec::from_slice(text) };
        }
        Identifier { kind: kind | DIGEST, bytes: SmallVec::from_slice(&consumers::digest_of(text)) }
    }

    fn address(address: IpAddr) -> Self {
        let bytes = match address {
            IpAddr::V4(address) => SmallVec::from_slice(&address.octets()),
            IpAddr::V6(address) => SmallVec::from_slice(&address.octets()),
        };
        Identifier { kind: ADDRESS, bytes }
    }

    fn seen_at<'a>(&'a self, scope: &'a str) -> Who<'a> {
        Who { scope, kind: self.kind, identifier: &self.bytes }
    }

    fn readable(&self) -> String {
        let is_plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_./@".contains(byte);
        match (self.kind, &*self.bytes) {
            (ADDRESS, &[a, b, c, d]) => IpAddr::from([a, b, c, d]).to_string(),
            (ADDRESS, bytes) => {
                <[u8; 16]>::try_from(bytes).map(IpAddr::from).map(|ip| ip.to_string()).unwrap_or_default()
            }
            (kind, bytes) if kind & DIGEST == 0 && bytes.iter().all(is_plain) => {
                String::from_utf8_lossy(bytes).into_owned()
            }
            // A colon before it, which nothing else begins with.
            (_, bytes) => format!(":{}", consumers::hex(bytes)),
        }
    }
}

const ADDRESS: u8 = 0;
const CONSUMER: u8 = 1;
const CREDENTIAL: u8 = 2;
const SERVICE: u8 = 3;
const HEADER: u8 = 4;
const PATH: u8 = 5;
const DIGEST: u8 = 0x80;
/// Of identifiers, in bytes.
const LONGEST: usize = 64;

/// By [`Period`]: how many are allowed, and how many are left.
static HEADERS: [(HeaderName, HeaderName); 6] = [
    (HeaderName::from_static("x-ratelimit-limit-second"), HeaderName::from_static("x-ratelimit-remaining-second")),
    (HeaderName::from_static("x-ratelimit-limit-minute"), HeaderName::from_static("x-ratelimit-remaining-minute")),
    (HeaderName::from_static("x-ratelimit-limit-hour"), HeaderName::from_static("x-ratelimit-remaining-hour")),
    (HeaderName::from_static("x-ratelimit-limit-day"), HeaderName::from_static("x-ratelimit-remaining-day")),
    (HeaderName::from_static("x-ratelimit-limit-month"), HeaderName::from_static("x-ratelimit-remaining-month")),
    (HeaderName::from_static("x-ratelimit-limit-year"), HeaderName::from_static("x-ratelimit-remaining-year")),
];
const RATELIMIT_LIMIT: HeaderName = HeaderName::from_static("ratelimit-limit");
const RATELIMIT_REMAINING: HeaderName = HeaderName::from_static("ratelimit-remaining");
const RATELIMIT_RESET: HeaderName = HeaderName::from_static("ratelimit-reset");
