//! Addresses from `/etc/hosts` and DNS servers.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, join};
use hickory_resolver::config::{ResolveHosts, ResolverConfig, ResolverOpts};
use hickory_resolver::lookup::Lookup;
use hickory_resolver::net::NetError;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::proto::op::Query;
use hickory_resolver::proto::rr::{Name, RecordType};
use hickory_resolver::{Hosts, TokioResolver};

use super::source::{Answer, Family, Source, Unresolved};

/// `/etc/hosts`, then DNS servers.
pub(super) struct Servers {
    resolver: TokioResolver,
    search: Vec<Name>,
    pub(super) hosts_file: PathBuf,
}

impl Servers {
    pub(super) fn new(config: ResolverConfig, mut options: ResolverOpts) -> Result<Self, NetError> {
        // Whoever follows a name asks when the answer has expired; a second memory could only be stale.
        options.cache_size = 0;
        // We read it ourselves, each time, so that edits count.
        options.use_hosts_file = ResolveHosts::Never;
        let search = config.search().to_vec();
        let mut builder = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
        *builder.options_mut() = options;
        Ok(Servers { resolver: builder.build()?, search, hosts_file: PathBuf::from(HOSTS_FILE) })
    }

    /// The absolute names that may be meant, in the order in which they are asked for.
    ///
    /// A name with a dot is asked for as it is first, whatever `ndots` says: in a Pod that is 5, for the comfort of people
    /// who type names, while names in configuration are mostly whole (`externalName` always is) and would cost three
    /// futile questions each time, or even be answered by somebody else's search domain.
    fn candidates(&self, name: &str) -> Result<Vec<Name>, Unresolved> {
        let mut name = Name::from_str_relaxed(name).map_err(|_| Unresolved::NotAName)?;
        let labels = name.iter().count();
        if labels == 0 {
            return Err(Unresolved::NotAName);
        }
        if name.is_fqdn() {
            return Ok(vec![name]);
        }
        let searched = self.search.iter().filter_map(|domain| name.clone().append_domain(domain).ok());
        let mut candidates: Vec<_> = searched.collect();
        name.set_fqdn(true);
        if labels > 1 {
            candidates.insert(0, name);
        } else {
            candidates.push(name);
        }
        Ok(candidates)
    }

    async fn ask_hosts_file(&self, candidates: &[Name]) -> Option<Answer> {
        // Without such a file there is nothing in it.
        let text = tokio::fs::read(&self.hosts_file).await.ok()?;
        let mut hosts = Hosts::default();
        hosts.read_hosts_conf(text.as_slice()).ok()?;
        candidates.iter().find_map(|name| {
            let families = [RecordType::A, RecordType::AAAA];
            let found = families.map(|family| hosts.lookup_static_host(&Query::query(name.clone(), family)));
            let addresses: Vec<_> = found.iter().flatten().flat_map(addresses).collect();
            (!addresses.is_empty()).then_some(Answer { addresses, ttl: HOSTS_TTL, missing: None })
        })
    }

    /// Both families of one absolute name; `None` if it has no addresses.
    async fn ask_servers(&self, name: &Name) -> Result<Option<Answer>, NetError> {
        let v4 = self.resolver.lookup(name.clone(), RecordType::A);
        let v6 = self.resolver.lookup(name.clone(), RecordType::AAAA);
        let (v4, v6) = join(v4, v6).await;
        let (v4, v6) = match (known(v4), known(v6)) {
            (Err(error), Err(_)) => return Err(error),
            families => families,
        };
        let missing = match (&v4, &v6) {
            (Err(_), _) => Some(Family::V4),
            (_, Err(_)) => Some(Family::V6),
            (Ok(_), Ok(_)) => None,
        };
        let error = [&v4, &v6].into_iter().find_map(|family| family.as_ref().err().cloned());
        let found: Vec<Lookup> = [v4, v6].into_iter().filter_map(|family| family.ok().flatten()).collect();
        // The chain of aliases counts too: when one of them expires, so does what it led to.
        let ttl = found.iter().flat_map(Lookup::answers).map(|record| record.ttl).min().unwrap_or_default();
        let addresses: Vec<_> = found.iter().flat_map(addresses).collect();
        match error {
            // One family has none and the other did not answer: nothing is known.
            Some(error) if addresses.is_empty() => Err(error),
            _ if addresses.is_empty() => Ok(None),
            _ => Ok(Some(Answer { addresses, ttl: Duration::from_secs(ttl.into()), missing })),
        }
    }
}

impl Source for Servers {
    fn ask<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Answer, Unresolved>> {
        async move {
            let candidates = self.candidates(name)?;
            if let Some(answer) = self.ask_hosts_file(&candidates).await {
                return Ok(answer);
            }
            let mut failure = None;
            for candidate in &candidates {
                match self.ask_servers(candidate).await {
                    Ok(Some(answer)) => return Ok(answer),
                    Ok(None) => {}
                    // As the C library does: a dead search domain must not hide the names behind it.
                    Err(error) => failure = failure.or(Some(error)),
                }
            }
            Err(failure.map_or(Unresolved::Absent, Unresolved::Failed))
        }
        .boxed()
    }
}

/// `Ok(None)` when the server says that there is nothing, `Err` when it does not say.
fn known(lookup: Result<Lookup, NetError>) -> Result<Option<Lookup>, NetError> {
    match lookup {
        Ok(lookup) => Ok(Some(lookup)),
        Err(error) if error.is_no_records_found() => Ok(None),
        Err(error) => Err(error),
    }
}

fn addresses(lookup: &Lookup) -> impl Iterator<Item = IpAddr> + '_ {
    lookup.answers().iter().filter_map(|record| record.data.ip_addr())
}

const HOSTS_FILE: &str = "/etc/hosts";
const HOSTS_TTL: Duration = Duration::from_secs(30);
