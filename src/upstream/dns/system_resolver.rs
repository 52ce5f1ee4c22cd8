//! Resolves names as currently configured on the machine. A laptop that changes networks, or a container that gets its
//! `resolv.conf` late, needs no restart.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use hickory_resolver::net::NetError;
use hickory_resolver::system_conf;
use parking_lot::Mutex;
use tracing::warn;

use super::server_resolver::ServerResolver;
use super::source::{ResolveError, ResolveName, ResolvedName};

/// The DNS servers of the machine or, if their configuration is unreadable, the C library.
pub(super) struct SystemResolver {
    /// The configuration file; when it changes, `read` is called again.
    file: PathBuf,
    read: Box<ReadConfiguration>,
    current: Mutex<Option<CurrentResolver>>,
}

type ReadConfiguration = dyn Fn() -> Result<ServerResolver, NetError> + Send + Sync;

#[derive(Clone)]
struct CurrentResolver {
    stamp: Option<FileVersion>,
    resolver: Arc<dyn ResolveName>,
}

/// Modification time and length of the file.
type FileVersion = (SystemTime, u64);

impl SystemResolver {
    pub(super) fn from_resolv_conf() -> Self {
        SystemResolver::new(PathBuf::from(RESOLV_CONF), || {
            system_conf::read_system_conf().and_then(|(config, options)| ServerResolver::new(config, options))
        })
    }

    pub(super) fn new(
        file: PathBuf,
        read: impl Fn() -> Result<ServerResolver, NetError> + Send + Sync + 'static,
    ) -> Self {
        SystemResolver { file, read: Box::new(read), current: Mutex::new(None) }
    }

    async fn current(&self) -> Arc<dyn ResolveName> {
        let metadata = tokio::fs::metadata(&self.file).await.ok();
        let stamp = metadata.and_then(|metadata| Some((metadata.modified().ok()?, metadata.len())));
        let mut current = self.current.lock();
        match &*current {
            Some(current) if current.stamp == stamp => current.resolver.clone(),
            _ => current.insert(CurrentResolver { stamp, resolver: self.configured() }).resolver.clone(),
        }
    }

    fn configured(&self) -> Arc<dyn ResolveName> {
        match (self.read)() {
            Ok(servers) => Arc::new(servers),
            Err(error) => {
                let file = self.file.display();
                warn!(
                    %file,
                    %error,
                    "Cannot read the DNS configuration; using the C library's resolver, which reports no TTL, \
                     every {LIBRARY_TTL:?}"
                );
                Arc::new(LibcResolver)
            }
        }
    }
}

impl ResolveName for SystemResolver {
    fn resolve<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<ResolvedName, ResolveError>> {
        async move { self.current().await.resolve(name).await }.boxed()
    }
}

/// The C library's resolver, which does not report TTLs.
struct LibcResolver;

impl ResolveName for LibcResolver {
    fn resolve<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<ResolvedName, ResolveError>> {
        async move {
            let found = tokio::net::lookup_host((name, 0)).await.map_err(ResolveError::Library)?;
            let addresses: Vec<_> = found.map(|address| address.ip()).collect();
            if addresses.is_empty() {
                return Err(ResolveError::NotFound);
            }
            Ok(ResolvedName { addresses, ttl: LIBRARY_TTL, failed_family: None })
        }
        .boxed()
    }
}

const RESOLV_CONF: &str = "/etc/resolv.conf";
const LIBRARY_TTL: Duration = Duration::from_secs(30);
