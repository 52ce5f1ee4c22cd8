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

/// Resolves names with the DNS servers of the machine or, if their configuration is unreadable, with the C library.
pub(super) struct SystemResolver {
    /// The configuration file; when it changes, `read_configuration` is called again.
    file: PathBuf,
    read_configuration: Box<ReadConfiguration>,
    current: Mutex<Option<CurrentResolver>>,
}

type ReadConfiguration = dyn Fn() -> Result<ServerResolver, NetError> + Send + Sync;

#[derive(Clone)]
struct CurrentResolver {
    file_version: Option<FileVersion>,
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
        read_configuration: impl Fn() -> Result<ServerResolver, NetError> + Send + Sync + 'static,
    ) -> Self {
        SystemResolver { file, read_configuration: Box::new(read_configuration), current: Mutex::new(None) }
    }

    /// The resolver, renewed if the file has changed.
    async fn current_resolver(&self) -> Arc<dyn ResolveName> {
        let metadata = tokio::fs::metadata(&self.file).await.ok();
        let file_version = metadata.and_then(|metadata| Some((metadata.modified().ok()?, metadata.len())));
        let mut cached = self.current.lock();
        match &*cached {
            Some(current) if current.file_version == file_version => current.resolver.clone(),
            _ => cached.insert(CurrentResolver { file_version, resolver: self.configured_resolver() }).resolver.clone(),
        }
    }

    /// The resolver for the current configuration.
    fn configured_resolver(&self) -> Arc<dyn ResolveName> {
        match (self.read_configuration)() {
            Ok(servers) => Arc::new(servers),
            Err(error) => {
                let file = self.file.display();
                warn!(
                    %file,
                    %error,
                    "Cannot read the DNS configuration; using the C library's resolver, which reports no TTL: \
                     names are resolved again every {LIBRARY_TTL:?}"
                );
                Arc::new(LibcResolver)
            }
        }
    }
}

impl ResolveName for SystemResolver {
    fn resolve<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<ResolvedName, ResolveError>> {
        async move { self.current_resolver().await.resolve(name).await }.boxed()
    }
}

/// The C library's resolver, which does not report TTLs.
struct LibcResolver;

impl ResolveName for LibcResolver {
    fn resolve<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<ResolvedName, ResolveError>> {
        async move {
            let resolved = tokio::net::lookup_host((name, 0)).await.map_err(ResolveError::Library)?;
            let addresses: Vec<_> = resolved.map(|address| address.ip()).collect();
            if addresses.is_empty() {
                return Err(ResolveError::NotFound);
            }
            Ok(ResolvedName { addresses, ttl: LIBRARY_TTL, failed_family: None })
        }
        .boxed()
    }
}

const RESOLV_CONF: &str = "/etc/resolv.conf";
/// The assumed TTL of results of the C library.
const LIBRARY_TTL: Duration = Duration::from_secs(30);
