//! The listeners of the process itself: status, admin and echo, as the flags configure them.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Context;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use super::cache_meters::CacheMeters;
use super::views::{AdminViews, ProxyObserver, StatusViews};
use crate::admin::{self, CachePurges};
use crate::args::RunOptions;
use crate::drain::Drain;
use crate::echo;
use crate::upstream::OwnSockets;

/// The listeners of this process besides those of Gateways and Ingresses; `None` if a flag turns one off.
pub(super) struct OwnListeners {
    status: Option<TcpListener>,
    admin: Option<TcpListener>,
    echo: Option<TcpListener>,
}

impl OwnListeners {
    /// Opens the listeners. Nothing in this process connects to the status and admin listeners, whose addresses
    /// `own_sockets` gets; the echo server is a backend.
    pub(super) async fn open(options: &RunOptions, own_sockets: &OwnSockets) -> anyhow::Result<Self> {
        let listeners = OwnListeners {
            status: listen("--status-listen", options.status_listen).await?,
            admin: listen("--admin-listen", options.admin_listen).await?,
            echo: listen("--echo", options.echo).await?,
        };
        for listener in [&listeners.status, &listeners.admin].into_iter().flatten() {
            own_sockets.add_fixed(listener.local_addr().context("cannot read the local address of a listener")?);
        }
        Ok(listeners)
    }

    pub(super) fn admin_address(&self) -> anyhow::Result<Option<SocketAddr>> {
        let address = self.admin.as_ref().map(TcpListener::local_addr).transpose();
        address.context("cannot read the local address of --admin-listen")
    }

    /// Serves until the end of the drain.
    pub(super) fn serve(
        self,
        tasks: &mut JoinSet<()>,
        status: Arc<StatusViews>,
        (views, observer, purges): (AdminViews, ProxyObserver, Option<CachePurges>),
        drain: &Drain,
    ) {
        let ended = || {
            let drain = drain.clone();
            async move { drain.ended().await }
        };
        if let Some(listener) = self.status {
            tasks.spawn(admin::serve_status(listener, status, ended()));
        }
        if let Some(listener) = self.admin {
            tasks.spawn(admin::serve_admin(listener, Arc::new(views), Arc::new(observer), purges, ended()));
        }
        if let Some(listener) = self.echo {
            tasks.spawn(echo::serve(listener, ended()));
        }
    }
}

/// The purges that `--admin-token-file` permits.
pub(super) async fn cache_purges(
    options: &RunOptions,
    caches: CacheMeters,
    node: &Arc<str>,
) -> anyhow::Result<Option<CachePurges>> {
    let Some(token_file) = options.admin_token_file.clone() else { return Ok(None) };
    let purges = CachePurges { caches: Arc::new(caches), token_file, replica: Arc::clone(node) };
    purges.check().await.map_err(anyhow::Error::msg).context("--admin-token-file")?;
    Ok(Some(purges))
}

/// Binds the address of a flag; `None` if the flag turns the listener off.
async fn listen(flag: &str, address: Option<SocketAddr>) -> anyhow::Result<Option<TcpListener>> {
    let Some(address) = address else { return Ok(None) };
    let listener = TcpListener::bind(address).await.with_context(|| {
        format!("{flag} {address}: cannot listen; stop the process that uses the port, or choose another address")
    })?;
    Ok(Some(listener))
}
