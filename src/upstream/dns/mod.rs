//! Follows the addresses of names: asks again when an answer has lived its time, and says when it has changed.
//!
//! ```text
//!   follow(names) ──▶ one task per name ──▶ Source: /etc/hosts, DNS servers, or the C library
//!                          └─ changed ──▶ the callback, which tells the upstreams
//! ```
//!
//! A name that cannot be resolved any more keeps its last addresses: an outage of DNS must not become ours.

mod servers;
mod source;
mod system;
mod whole;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Semaphore;
use tokio::task::{AbortHandle, JoinSet};
use tracing::{debug, info, warn};

use source::{Answer, Source, Unresolved};
use system::System;
use whole::Whole;

use super::Authors;

/// Answers about names that are asked for once. [`Dns`] follows those that matter for longer.
pub struct Resolver(Box<dyn Source>);

impl Resolver {
    /// Resolves as this machine is configured to.
    pub fn from_system() -> Self {
        Resolver(Box::new(System::of_this_machine()))
    }

    /// The addresses of a name, at least one; or why there is none.
    pub async fn ask(&self, name: &str) -> Result<Vec<IpAddr>, String> {
        self.0.ask(name).await.map(|answer| answer.addresses).map_err(|error| error.to_string())
    }
}

/// The names that are followed. It lives on the control runtime; dropping it ends all following.
pub struct Dns {
    names: BTreeMap<Arc<str>, AbortHandle>,
    tasks: JoinSet<()>,
    shared: Arc<Shared>,
}

/// What the tasks have in common.
struct Shared {
    source: Box<dyn Source>,
    bounds: Bounds,
    on_change: Box<OnChange>,
    /// The last good answers. Only of names that are followed.
    answers: Mutex<BTreeMap<Arc<str>, Vec<IpAddr>>>,
    /// A thousand names that expire together must not become a thousand questions at once.
    turns: Semaphore,
}

/// Called with a name and its addresses, sorted and never empty, whenever they have changed.
type OnChange = dyn Fn(&str, &[IpAddr]) + Send + Sync;

/// How long an answer is believed, and how long one waits after none.
#[derive(Clone, Copy, Debug)]
struct Bounds {
    shortest_ttl: Duration,
    longest_ttl: Duration,
    first_retry: Duration,
    last_retry: Duration,
}

impl Dns {
    /// Resolves as this machine is configured to: `/etc/hosts`, then the servers of `/etc/resolv.conf`. Edits
    /// of both count. Search domains are those of Portico's own namespace, so names that tenants write do without.
    pub fn from_system(authors: Authors, on_change: impl Fn(&str, &[IpAddr]) + Send + Sync + 'static) -> Self {
        let system = System::of_this_machine();
        let source: Box<dyn Source> = match authors {
            Authors::Operator => Box::new(system),
            Authors::Tenants { .. } => Box::new(Whole(system)),
        };
        Dns::new(source, BOUNDS, on_change)
    }

    fn new(
        source: Box<dyn Source>,
        bounds: Bounds,
        on_change: impl Fn(&str, &[IpAddr]) + Send + Sync + 'static,
    ) -> Self {
        let shared = Shared {
            source,
            bounds,
            on_change: Box::new(on_change),
            answers: Mutex::default(),
            turns: Semaphore::new(QUESTIONS_AT_ONCE),
        };
        Dns { names: BTreeMap::new(), tasks: JoinSet::new(), shared: Arc::new(shared) }
    }

    /// Follows exactly these names from now on: new ones are asked about at once, others forgotten. Call it on the
    /// runtime that shall do the work.
    ///
    /// A name that was followed already is not called back for again; whoever is new to it asks [`Dns::addresses`].
    pub fn follow(&mut self, names: &BTreeSet<Arc<str>>) {
        self.names.retain(|name, task| {
            let stays = names.contains(name);
            if !stays {
                task.abort();
                self.shared.answers.lock().remove(name);
            }
            stays
        });
        for name in names {
            if !self.names.contains_key(name) {
                let task = self.tasks.spawn(follow(name.clone(), self.shared.clone()));
                self.names.insert(name.clone(), task);
            }
        }
        // Ended tasks are the aborted ones; the set would keep them until asked.
        while self.tasks.try_join_next().is_some() {}
    }

    /// The last good answer about a name that is followed.
    pub fn addresses(&self, name: &str) -> Option<Vec<IpAddr>> {
        self.shared.answers.lock().get(name).cloned()
    }
}

async fn follow(name: Arc<str>, shared: Arc<Shared>) {
    let mut last: Vec<IpAddr> = Vec::new();
    let mut failures: u32 = 0;
    loop {
        let wait = match ask(&name, &shared).await {
            Ok(answer) => {
                let ttl = answer.ttl.clamp(shared.bounds.shortest_ttl, shared.bounds.longest_ttl);
                let addresses = complete(answer, &last);
                if failures > 0 {
                    info!(%name, "Resolved again after {failures} failures");
                }
                failures = 0;
                if addresses != last {
                    debug!(%name, ?addresses, "Addresses changed");
                    shared.answers.lock().insert(name.clone(), addresses.clone());
                    (shared.on_change)(&name, &addresses);
                    last = addresses;
                }
                ttl
            }
            Err(error) => {
                failures = failures.saturating_add(1);
                if failures == 1 {
                    let meanwhile = if last.is_empty() { "it has no addresses yet" } else { "its last addresses stay" };
                    warn!(%name, %error, "Cannot resolve the name; {meanwhile}");
                } else {
                    debug!(%name, %error, failures, "Still cannot resolve the name");
                }
                retry_after(failures, &shared.bounds)
            }
        };
        tokio::time::sleep(wait).await;
    }
}

async fn ask(name: &str, shared: &Shared) -> Result<Answer, Unresolved> {
    let _turn = shared.turns.acquire().await.expect("the semaphore is never closed");
    let asking = shared.source.ask(name);
    tokio::time::timeout(PATIENCE, asking).await.unwrap_or(Err(Unresolved::TimedOut { after: PATIENCE }))
}

/// Sorted, without duplicates. If only one of A and AAAA could be asked for, what was last known of the other stays.
fn complete(answer: Answer, last: &[IpAddr]) -> Vec<IpAddr> {
    let mut addresses = answer.addresses;
    if let Some(missing) = answer.missing {
        addresses.extend(last.iter().filter(|address| missing.has(address)));
    }
    addresses.sort_unstable();
    addresses.dedup();
    addresses
}

/// Doubles with each failure in a row, and is spread over the upper half, so that many names do not retry in step.
fn retry_after(failures: u32, bounds: &Bounds) -> Duration {
    let doubled = bounds.first_retry.saturating_mul(1u32 << (failures - 1).min(16));
    doubled.min(bounds.last_retry).mul_f64(0.5 + fastrand::f64() / 2.0)
}

const BOUNDS: Bounds = Bounds {
    shortest_ttl: Duration::from_secs(1),
    longest_ttl: Duration::from_secs(300),
    first_retry: Duration::from_secs(1),
    last_retry: Duration::from_secs(30),
};
const QUESTIONS_AT_ONCE: usize = 32;
/// For one name with all search domains, servers and attempts.
const PATIENCE: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests;
