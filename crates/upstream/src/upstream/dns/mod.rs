//! Follows the addresses of names: resolves each name again when its TTL expires, and reports changes.
//!
//! ```text
//!   follow(names) ──▶ one task per name ──▶ resolver: /etc/hosts, then DNS servers
//!                          └─ changed ──▶ the callback, which updates the upstreams
//! ```
//!
//! The C library resolves names only while `/etc/resolv.conf` is unreadable. A name that can no longer be resolved
//! keeps its last addresses, so that a DNS outage does not interrupt traffic.
//!
//! Users of all namespaces choose the names, and the servers that respond for them. A lookup that takes longer than a
//! second, and every lookup of a name that failed, waits in another pool than the others, and in both pools a namespace
//! has at most its share. So names that are never resolved delay those of other namespaces by less than a second.

mod absolute_names;
mod permits;
mod server_resolver;
mod source;
mod system_resolver;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::timeout;
use tracing::{debug, info, warn};

use absolute_names::AbsoluteNames;
pub use permits::UsingNamespaces;
use permits::{LookupPermit, LookupPermits};
use source::{ResolveError, ResolveName, ResolvedName};
use system_resolver::SystemResolver;

use crate::ssrf_guard::TrustModel;

/// Resolves names once. [`DnsFollower`] follows names over time.
pub struct DnsResolver(Box<dyn ResolveName>);

impl DnsResolver {
    /// Resolves as configured on this machine, like [`DnsFollower::from_system`].
    pub fn from_system(trust_model: &TrustModel) -> Self {
        DnsResolver(for_users(trust_model, SystemResolver::from_resolv_conf()))
    }

    /// A resolver for tests, which gets the names as they are looked up: a name without a final dot may be completed by
    /// search domains.
    pub fn fake(trust_model: &TrustModel, look_up: impl Fn(&str) -> Option<IpAddr> + Send + Sync + 'static) -> Self {
        DnsResolver(for_users(trust_model, source::FakeNames(look_up)))
    }

    /// The addresses of a name, at least one, or the reason for the failure.
    pub async fn resolve(&self, name: &str) -> Result<Vec<IpAddr>, String> {
        self.0.resolve(name).await.map(|resolved| resolved.addresses).map_err(|error| error.to_string())
    }
}

/// The followed names. It lives on the control runtime; dropping it stops following.
pub struct DnsFollower {
    names: BTreeMap<Arc<str>, FollowedName>,
    tasks: JoinSet<()>,
    shared: Arc<FollowerState>,
}

/// The task of one name.
struct FollowedName {
    task: AbortHandle,
    namespaces: watch::Sender<Arc<UsingNamespaces>>,
}

/// State shared by the tasks.
struct FollowerState {
    resolver: Box<dyn ResolveName>,
    bounds: RefreshBounds,
    on_change: Box<OnChange>,
    /// The last successful results of followed names.
    results: Mutex<BTreeMap<Arc<str>, Vec<IpAddr>>>,
    /// For lookups that take less than a second, which most do.
    prompt: Arc<LookupPermits>,
    /// For lookups that took longer, and for names that failed.
    slow: Arc<LookupPermits>,
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
        let resolver = for_users(trust_model, SystemResolver::from_resolv_conf());
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
            prompt: LookupPermits::new(MAX_PROMPT_LOOKUPS, MAX_PROMPT_LOOKUPS / 4),
            slow: LookupPermits::new(MAX_SLOW_LOOKUPS, MAX_SLOW_LOOKUPS / 4),
        };
        DnsFollower { names: BTreeMap::new(), tasks: JoinSet::new(), shared: Arc::new(shared) }
    }

    /// Follows exactly these names from now on, on behalf of these namespaces: new names are resolved at once, others
    /// are dropped. Must be called on the runtime that is to run the tasks.
    ///
    /// The callback is not called again for names already followed; new users of such a name call
    /// [`DnsFollower::addresses`].
    pub fn follow(&mut self, names: BTreeMap<Arc<str>, UsingNamespaces>) {
        self.names.retain(|name, followed| {
            let is_followed = names.contains_key(name);
            if !is_followed {
                followed.task.abort();
                self.shared.results.lock().remove(name);
            }
            is_followed
        });
        for (name, namespaces) in names {
            match self.names.get(&name) {
                Some(followed) => {
                    followed.namespaces.send_if_modified(|current| {
                        let is_changed = **current != namespaces;
                        if is_changed {
                            *current = Arc::new(namespaces);
                        }
                        is_changed
                    });
                }
                None => {
                    let (sender, receiver) = watch::channel(Arc::new(namespaces));
                    let lookups = NameLookups { name: Arc::clone(&name), namespaces: receiver, failures: 0 };
                    let task = self.tasks.spawn(follow_name(lookups, Arc::clone(&self.shared)));
                    self.names.insert(name, FollowedName { task, namespaces: sender });
                }
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

/// The resolver for names that the users of this model write.
fn for_users(trust_model: &TrustModel, names: impl ResolveName + 'static) -> Box<dyn ResolveName> {
    match trust_model {
        TrustModel::SingleTenant => Box::new(names),
        TrustModel::MultiTenant { .. } => Box::new(AbsoluteNames(names)),
    }
}

/// Resolves one name until the task is aborted.
async fn follow_name(mut lookups: NameLookups, shared: Arc<FollowerState>) {
    let name = Arc::clone(&lookups.name);
    let mut last_addresses: Vec<IpAddr> = Vec::new();
    loop {
        let result = lookups.resolve(&shared).await;
        let failures = lookups.failures;
        let wait = match result {
            Ok(resolved) => {
                let ttl = resolved.ttl.clamp(shared.bounds.shortest_ttl, shared.bounds.longest_ttl);
                let addresses = merge_families(resolved, &last_addresses);
                if failures > 0 {
                    info!(%name, "Resolved the name again after {failures} failures");
                }
                lookups.failures = 0;
                if addresses != last_addresses {
                    debug!(%name, ?addresses, "Addresses changed");
                    shared.results.lock().insert(name.clone(), addresses.clone());
                    (shared.on_change)(&name, &addresses);
                    last_addresses = addresses;
                }
                ttl
            }
            Err(error) => {
                let failures = failures.saturating_add(1);
                lookups.failures = failures;
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

/// The lookups of one name.
struct NameLookups {
    name: Arc<str>,
    namespaces: watch::Receiver<Arc<UsingNamespaces>>,
    /// How many of the last lookups failed.
    failures: u32,
}

impl NameLookups {
    /// Resolves the name within the limits of concurrency and time.
    async fn resolve(&mut self, shared: &FollowerState) -> Result<ResolvedName, ResolveError> {
        if self.failures == 0 {
            let _permit = self.permit(&shared.prompt).await;
            if let Ok(result) = timeout(PROMPT_LOOKUP_TIME, shared.resolver.resolve(&self.name)).await {
                return result;
            }
        }
        let _permit = self.permit(&shared.slow).await;
        let after = if self.failures == 0 { LOOKUP_TIMEOUT } else { FAILED_NAME_TIMEOUT };
        timeout(after, shared.resolver.resolve(&self.name)).await.unwrap_or(Err(ResolveError::TimedOut { after }))
    }

    /// Waits for a permit of the current namespaces, which may change meanwhile.
    async fn permit(&mut self, pool: &Arc<LookupPermits>) -> LookupPermit {
        loop {
            let namespaces = Arc::clone(&self.namespaces.borrow_and_update());
            tokio::select! {
                permit = pool.acquire(&namespaces) => return permit,
                // The follower drops the sender only with this task.
                Ok(()) = self.namespaces.changed() => {}
            }
        }
    }
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
/// Maximum number of names that are resolved at the same time, of which a namespace has a quarter.
const MAX_PROMPT_LOOKUPS: usize = 32;
/// The same for lookups that take longer than [`PROMPT_LOOKUP_TIME`], and for names whose last lookup failed.
const MAX_SLOW_LOOKUPS: usize = 16;
/// How long a lookup may take until it continues in the pool of slow lookups, where it begins again: a server that had
/// to ask others has the result by then.
const PROMPT_LOOKUP_TIME: Duration = Duration::from_secs(1);
/// Timeout for one name with all search domains, servers and attempts.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(30);
/// The same for a name whose last lookup failed.
const FAILED_NAME_TIMEOUT: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests;
