//! Follows the addresses of names: resolves each name again when its TTL expires, and reports changes.
//!
//! ```text
//!   follow(names) ──▶ one task per name ──▶ resolver: /etc/hosts, then DNS servers
//!                          └─ changed ──▶ the callback, which updates the upstreams
//! ```
//!
//! The C library resolves names only while `/etc/resolv.conf` is unreadable. A name that can no longer be resolved
//! keeps its last addresses, so that a DNS outage does not interrupt traffic.

mod absolute_names;
mod server_resolver;
mod source;
mod system_resolver;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Semaphore;
use tokio::task::{AbortHandle, JoinSet};
use tracing::{debug, info, warn};

use absolute_names::AbsoluteNames;
use source::{ResolveError, ResolveName, ResolvedName};
use system_resolver::SystemResolver;

use super::TrustModel;

/// Resolves names once. [`DnsFollower`] follows names over time.
pub struct DnsResolver(Box<dyn ResolveName>);

impl DnsResolver {
    /// Resolves as configured on this machine.
    pub fn from_system() -> Self {
        DnsResolver(Box::new(SystemResolver::from_resolv_conf()))
    }

    /// The addresses of a name, at least one, or the reason for the failure.
    pub async fn resolve(&self, name: &str) -> Result<Vec<IpAddr>, String> {
        self.0.resolve(name).await.map(|resolved| resolved.addresses).map_err(|error| error.to_string())
    }
}

/// The followed names. It lives on the control runtime; dropping it stops following.
pub struct DnsFollower {
    names: BTreeMap<Arc<str>, AbortHandle>,
    tasks: JoinSet<()>,
    shared: Arc<FollowerState>,
}

/// State shared by the tasks.
struct FollowerState {
    resolver: Box<dyn ResolveName>,
    bounds: RefreshBounds,
    on_change: Box<OnChange>,
    /// The last successful results of followed names.
    results: Mutex<BTreeMap<Arc<str>, Vec<IpAddr>>>,
    /// Limits concurrent queries, for example when many names expire together.
    permits: Semaphore,
}

/// Called with a name and its addresses, sorted and never empty, whenever they have changed.
type OnChange = dyn Fn(&str, &[IpAddr]) + Send + Sync;

/// The shortest and the longest time between two resolutions of a name: after a success its TTL, limited to bounds, and
/// after failures a growing delay.
#[derive(Clone, Copy, Debug)]
struct RefreshBounds {
    shortest_ttl: Duration,
    longest_ttl: Duration,
    first_retry_delay: Duration,
    longest_retry_delay: Duration,
}

impl DnsFollower {
    /// Resolves as configured on this machine: `/etc/hosts`, then the servers of `/etc/resolv.conf`; edits of both take
    /// effect. Only the multi-tenant model ignores the search domains: in a Pod they are those of Portico's own
    /// namespace, but users of other namespaces write the names.
    pub fn from_system(trust_model: &TrustModel, on_change: impl Fn(&str, &[IpAddr]) + Send + Sync + 'static) -> Self {
        let system = SystemResolver::from_resolv_conf();
        let resolver: Box<dyn ResolveName> = match trust_model {
            TrustModel::SingleTenant => Box::new(system),
            TrustModel::MultiTenant { .. } => Box::new(AbsoluteNames(system)),
        };
        DnsFollower::new(resolver, BOUNDS, on_change)
    }

    fn new(
        resolver: Box<dyn ResolveName>,
        bounds: RefreshBounds,
        on_change: impl Fn(&str, &[IpAddr]) + Send + Sync + 'static,
    ) -> Self {
        let shared = FollowerState {
            resolver,
            bounds,
            on_change: Box::new(on_change),
            results: Mutex::default(),
            permits: Semaphore::new(MAX_CONCURRENT_LOOKUPS),
        };
        DnsFollower { names: BTreeMap::new(), tasks: JoinSet::new(), shared: Arc::new(shared) }
    }

    /// Follows exactly these names from now on: new names are resolved at once, others are dropped. Must be called on
    /// the runtime that is to run the tasks.
    ///
    /// The callback is not called again for names already followed; new users of such a name call
    /// [`DnsFollower::addresses`].
    pub fn follow(&mut self, names: &BTreeSet<Arc<str>>) {
        self.names.retain(|name, task| {
            let is_followed = names.contains(name);
            if !is_followed {
                task.abort();
                self.shared.results.lock().remove(name);
            }
            is_followed
        });
        for name in names {
            if !self.names.contains_key(name) {
                let task = self.tasks.spawn(follow_name(name.clone(), self.shared.clone()));
                self.names.insert(name.clone(), task);
            }
        }
        // Reaps aborted tasks, which the set would keep otherwise.
        while self.tasks.try_join_next().is_some() {}
    }

    /// The last successful result for a followed name.
    pub fn addresses(&self, name: &str) -> Option<Vec<IpAddr>> {
        self.shared.results.lock().get(name).cloned()
    }
}

/// Resolves one name until the task is aborted.
async fn follow_name(name: Arc<str>, shared: Arc<FollowerState>) {
    let mut last_addresses: Vec<IpAddr> = Vec::new();
    let mut failures: u32 = 0;
    loop {
        let wait = match resolve_once(&name, &shared).await {
            Ok(resolved) => {
                let ttl = resolved.ttl.clamp(shared.bounds.shortest_ttl, shared.bounds.longest_ttl);
                let addresses = merge_families(resolved, &last_addresses);
                if failures > 0 {
                    info!(%name, "Resolved the name again after {failures} failures");
                }
                failures = 0;
                if addresses != last_addresses {
                    debug!(%name, ?addresses, "Addresses changed");
                    shared.results.lock().insert(name.clone(), addresses.clone());
                    (shared.on_change)(&name, &addresses);
                    last_addresses = addresses;
                }
                ttl
            }
            Err(error) => {
                failures = failures.saturating_add(1);
                if failures == 1 {
                    let consequence = if last_addresses.is_empty() {
                        "it has no addresses yet"
                    } else {
                        "keeping its last addresses"
                    };
                    warn!(%name, %error, "Cannot resolve the name; {consequence}");
                } else {
                    debug!(%name, %error, failures, "Still cannot resolve the name");
                }
                retry_delay(failures, &shared.bounds)
            }
        };
        tokio::time::sleep(wait).await;
    }
}

/// Resolves a name within the limits of concurrency and time.
async fn resolve_once(name: &str, shared: &FollowerState) -> Result<ResolvedName, ResolveError> {
    let _permit = shared.permits.acquire().await.expect("the semaphore is never closed");
    let lookup = shared.resolver.resolve(name);
    tokio::time::timeout(LOOKUP_TIMEOUT, lookup).await.unwrap_or(Err(ResolveError::TimedOut { after: LOOKUP_TIMEOUT }))
}

/// Sorts and deduplicates the addresses. If the query for one of A and AAAA failed, the last addresses of that
/// family are kept.
fn merge_families(resolved: ResolvedName, last_addresses: &[IpAddr]) -> Vec<IpAddr> {
    let mut addresses = resolved.addresses;
    if let Some(failed_family) = resolved.failed_family {
        addresses.extend(last_addresses.iter().filter(|address| failed_family.contains(address)));
    }
    addresses.sort_unstable();
    addresses.dedup();
    addresses
}

/// The delay before a retry: doubles with each consecutive failure up to the limit, and is up to a half shorter at
/// random.
fn retry_delay(failures: u32, bounds: &RefreshBounds) -> Duration {
    let delay = bounds.first_retry_delay.saturating_mul(1u32 << (failures - 1).min(16));
    delay.min(bounds.longest_retry_delay).mul_f64(0.5 + fastrand::f64() / 2.0)
}

const BOUNDS: RefreshBounds = RefreshBounds {
    shortest_ttl: Duration::from_secs(1),
    longest_ttl: Duration::from_secs(300),
    first_retry_delay: Duration::from_secs(1),
    longest_retry_delay: Duration::from_secs(30),
};
/// Maximum number of names that are resolved at the same time.
const MAX_CONCURRENT_LOOKUPS: usize = 32;
/// Timeout for one name with all search domains, servers and attempts.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests;
