//! Resolves as the machine is configured now: a laptop that changes networks, or a container that gets its `resolv.conf` late,
//! needs no restart.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use hickory_resolver::net::NetError;
use hickory_resolver::system_conf;
use parking_lot::Mutex;
use tracing::warn;

use super::servers::Servers;
use super::source::{Answer, Source, Unresolved};

/// The DNS servers of the machine or, where nobody can say which they are, its C library.
pub(super) struct System {
    /// When this changes, `read` is called again.
    file: PathBuf,
    read: Box<ReadConfiguration>,
    current: Mutex<Option<Current>>,
}

type ReadConfiguration = dyn Fn() -> Result<Servers, NetError> + Send + Sync;

#[derive(Clone)]
struct Current {
    stamp: Option<Stamp>,
    source: Arc<dyn Source>,
}

/// Time of change and length of the file.
type Stamp = (SystemTime, u64);

impl System {
    pub(super) fn of_this_machine() -> Self {
        System::new(PathBuf::from(RESOLV_CONF), || {
            system_conf::read_system_conf().and_then(|(config, options)| Servers::new(config, options))
        })
    }

    pub(super) fn new(file: PathBuf, read: impl Fn() -> Result<Servers, NetError> + Send + Sync + 'static) -> Self {
        System { file, read: Box::new(read), current: Mutex::new(None) }
    }

    async fn current(&self) -> Arc<dyn Source> {
        let metadata = tokio::fs::metadata(&self.file).await.ok();
        let stamp = metadata.and_then(|metadata| Some((metadata.modified().ok()?, metadata.len())));
        let mut current = self.current.lock();
        match &*current {
            Some(current) if current.stamp == stamp => current.source.clone(),
            _ => current.insert(Current { stamp, source: self.configured() }).source.clone(),
        }
    }

    fn configured(&self) -> Arc<dyn Source> {
        match (self.read)() {
            Ok(servers) => Arc::new(servers),
            Err(error) => {
                let file = self.file.display();
                warn!(%file, %error, "Cannot read how DNS is configured; the C library resolves names, every {LIBRARY_TTL:?} because it does not tell how long answers live");
                Arc::new(Library)
            }
        }
    }
}

impl Source for System {
    fn ask<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Answer, Unresolved>> {
        async move { self.current().await.ask(name).await }.boxed()
    }
}

/// The C library's resolver, which does not tell how long an answer lives.
struct Library;

impl Source for Library {
    fn ask<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Answer, Unresolved>> {
        async move {
            let found = tokio::net::lookup_host((name, 0)).await.map_err(Unresolved::Library)?;
            let addresses: Vec<_> = found.map(|address| address.ip()).collect();
            if addresses.is_empty() {
                return Err(Unresolved::Absent);
            }
            Ok(Answer { addresses, ttl: LIBRARY_TTL, missing: None })
        }
        .boxed()
    }
}

const RESOLV_CONF: &str = "/etc/resolv.conf";
const LIBRARY_TTL: Duration = Duration::from_secs(30);
