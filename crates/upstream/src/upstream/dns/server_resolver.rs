//! Resolves names from `/etc/hosts` and DNS servers.

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

use super::source::{DnsFamily, ResolveError, ResolveName, ResolvedName};

/// A resolver that reads `/etc/hosts` first and then queries DNS servers.
pub(super) struct ServerResolver {
    resolver: TokioResolver,
    search: Vec<Name>,
    pub(super) hosts_file: PathBuf,
}

impl ServerResolver {
    pub(super) fn new(config: ResolverConfig, mut options: ResolverOpts) -> Result<Self, NetError> {
        // A followed name is queried when its TTL has expired; a second cache could only be stale.
        options.cache_size = 0;
        // This module reads the file on each lookup, so that edits take effect.
        options.use_hosts_file = ResolveHosts::Never;
        let search = config.search().to_vec();
        let mut builder = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
        *builder.options_mut() = options;
        Ok(ServerResolver { resolver: builder.build()?, search, hosts_file: PathBuf::from(HOSTS_FILE) })
    }

    /// The candidate absolute names, in query order.
    ///
    /// A name with a dot is first tried as it is, whatever `ndots` is. In a Pod, `ndots` is 5, but names in
    /// configuration are mostly absolute (`externalName` always is): with the search domains first, each would cost
    /// three useless queries, or match another name in a search domain.
    fn candidates(&self, name: &str) -> Result<Vec<Name>, ResolveError> {
        let mut name = Name::from_str_relaxed(name).map_err(|_| ResolveError::InvalidName)?;
        let label_count = name.iter().count();
        if label_count == 0 {
            return Err(ResolveError::InvalidName);
        }
        if name.is_fqdn() {
            return Ok(vec![name]);
        }
        let searched = self.search.iter().filter_map(|domain| name.clone().append_domain(domain).ok());
        let mut candidates: Vec<_> = searched.collect();
        name.set_fqdn(true);
        if label_count > 1 {
            candidates.insert(0, name);
        } else {
            candidates.push(name);
        }
        Ok(candidates)
    }

    async fn resolve_from_hosts_file(&self, candidates: &[Name]) -> Option<ResolvedName> {
        // A missing file counts as empty.
        let text = tokio::fs::read(&self.hosts_file).await.ok()?;
        let mut hosts = Hosts::default();
        hosts.read_hosts_conf(text.as_slice()).ok()?;
        candidates.iter().find_map(|name| {
            let record_types = [RecordType::A, RecordType::AAAA];
            let lookups =
                record_types.map(|record_type| hosts.lookup_static_host(&Query::query(name.clone(), record_type)));
            let addresses: Vec<_> = lookups.iter().flatten().flat_map(addresses_in).collect();
            (!addresses.is_empty()).then_some(ResolvedName { addresses, ttl: HOSTS_TTL, failed_family: None })
        })
    }

    /// Queries A and AAAA of one absolute name; `None` if it has no addresses.
    async fn query_servers(&self, name: &Name) -> Result<Option<ResolvedName>, NetError> {
        let v4 = self.resolver.lookup(name.clone(), RecordType::A);
        let v6 = self.resolver.lookup(name.clone(), RecordType::AAAA);
        let (v4, v6) = join(v4, v6).await;
        let (v4, v6) = match (none_if_no_records(v4), none_if_no_records(v6)) {
            (Err(error), Err(_)) => return Err(error),
            families => families,
        };
        let failed_family = match (&v4, &v6) {
            (Err(_), _) => Some(DnsFamily::V4),
            (_, Err(_)) => Some(DnsFamily::V6),
            (Ok(_), Ok(_)) => None,
        };
        let error = [&v4, &v6].into_iter().find_map(|family| family.as_ref().err().cloned());
        let lookups: Vec<Lookup> = [v4, v6].into_iter().filter_map(|family| family.ok().flatten()).collect();
        // The TTLs of CNAME records count, too: when one expires, the result expires.
        let ttl = lookups.iter().flat_map(Lookup::answers).map(|record| record.ttl).min().unwrap_or_default();
        let addresses: Vec<_> = lookups.iter().flat_map(addresses_in).collect();
        match error {
            // One family has no addresses and the other query failed: the result is unknown.
            Some(error) if addresses.is_empty() => Err(error),
            _ if addresses.is_empty() => Ok(None),
            _ => Ok(Some(ResolvedName { addresses, ttl: Duration::from_secs(ttl.into()), failed_family })),
        }
    }
}

impl ResolveName for ServerResolver {
    fn resolve<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<ResolvedName, ResolveError>> {
        async move {
            let candidates = self.candidates(name)?;
            if let Some(resolved) = self.resolve_from_hosts_file(&candidates).await {
                return Ok(resolved);
            }
            let mut first_error = None;
            for candidate in &candidates {
                match self.query_servers(candidate).await {
                    Ok(Some(resolved)) => return Ok(resolved),
                    Ok(None) => {}
                    // As in the C library: a failing search domain must not hide the names after it.
                    Err(error) => first_error = first_error.or(Some(error)),
                }
            }
            Err(first_error.map_or(ResolveError::NotFound, ResolveError::Failed))
        }
        .boxed()
    }
}

/// `Ok(None)` if the server reports that there are no records, `Err` if it does not respond.
fn none_if_no_records(lookup: Result<Lookup, NetError>) -> Result<Option<Lookup>, NetError> {
    match lookup {
        Ok(lookup) => Ok(Some(lookup)),
        Err(error) if error.is_no_records_found() => Ok(None),
        Err(error) => Err(error),
    }
}

fn addresses_in(lookup: &Lookup) -> impl Iterator<Item = IpAddr> + '_ {
    lookup.answers().iter().filter_map(|record| record.data.ip_addr())
}

const HOSTS_FILE: &str = "/etc/hosts";
/// How long a result from the hosts file is used before the file is read again.
const HOSTS_TTL: Duration = Duration::from_secs(30);
