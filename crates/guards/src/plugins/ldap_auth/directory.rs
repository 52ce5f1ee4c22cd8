//! Logins at a directory: the steps of one login, and the connections that logins share.
//!
//! ```text
//!   login ─▶ permit ─▶ idle connection, or a new one ─▶ find the entry ─▶ bind as it ─▶ read its groups
//!                             ▲                                                               │
//!                             └────────────────── idle for `keepalive` ◀──────────────────────┘
//! ```

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{Semaphore, oneshot};
use tokio::time::{Instant, sleep_until, timeout};

use super::connection::{DirectoryConnection, DirectoryFailure, DirectoryServer, FoundEntry, describe};
use super::message::SearchFor;
use super::names::{GroupNames, comparable_name, comparable_text, entry_name};
use crate::diagnostic::Diagnostic;
use crate::plugin_api::PluginServices;
use crate::plugin_kit::server_diagnostics::ServerDiagnostic;

/// How entries are found, and what is read of them.
#[derive(Debug)]
pub(super) struct DirectoryQuery {
    pub(super) attribute: String,
    pub(super) base: String,
    /// The entry that searches for users, with its password. Without it, the name of a user's entry is made of
    /// `attribute`, the username and `base`.
    pub(super) searcher: Option<(String, Vec<u8>)>,
    /// The attribute of a user's entry that has its groups, if they are read.
    pub(super) groups: Option<(String, GroupNames)>,
    /// Whether the entry of each login, and the values of this attribute, are logged.
    pub(super) logs_results: bool,
}

/// The directory of one plugin, with its connections.
pub(super) struct Directory {
    server: DirectoryServer,
    query: DirectoryQuery,
    services: Arc<dyn PluginServices>,
    permits: Semaphore,
    idle: Mutex<IdleDirectoryConnections>,
    keepalive: Duration,
    diagnostic: ServerDiagnostic,
    has_failed: AtomicBool,
}

#[derive(Default)]
struct IdleDirectoryConnections {
    /// The oldest first.
    connections: Vec<(DirectoryConnection, Instant)>,
    /// Whether a task closes those that were idle for too long.
    has_closer: bool,
}

/// The result of a login.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum DirectoryLogin {
    Accepted {
        /// The name of the entry, as all spellings of it. `None` if the user cannot read the entry and the name has
        /// characters outside of ASCII, whose spellings only the directory knows.
        entry: Option<String>,
        /// The username as the entry has it, whatever the client has written for it.
        username: String,
        groups: Vec<Arc<str>>,
    },
    WrongCredentials,
}

/// The login could not be decided. The condition of the object has the details.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct DirectoryUnavailable;

/// The connections of one plugin.
const MAX_CONNECTIONS: usize = 16;
/// Groups of a user that count.
const MAX_GROUPS: usize = 10_000;
/// Groups of a user that are logged.
const MAX_LOGGED_GROUPS: usize = 50;

impl Directory {
    pub(super) fn new(
        server: DirectoryServer,
        query: DirectoryQuery,
        keepalive: Duration,
        services: Arc<dyn PluginServices>,
        diagnostic: ServerDiagnostic,
    ) -> Arc<Self> {
        Arc::new(Directory {
            server,
            query,
            services,
            permits: Semaphore::new(MAX_CONNECTIONS),
            idle: Mutex::default(),
            keepalive,
            diagnostic,
            has_failed: AtomicBool::new(false),
        })
    }

    /// See [`DirectoryServer::global_address`].
    pub(super) fn global_address(&self) -> String {
        self.server.global_address()
    }

    /// Logs in with this username and password, which is not empty. The login is a task of its own: if the request ends
    /// meanwhile, the connection is still in a known state afterwards.
    pub(super) async fn log_in(
        self: &Arc<Self>,
        username: String,
        password: Vec<u8>,
    ) -> Result<DirectoryLogin, DirectoryUnavailable> {
        let (sender, receiver) = oneshot::channel();
        let directory = Arc::clone(self);
        self.services.spawn(Box::pin(async move {
            let limit = directory.server.remote.timeout;
            let outcome = timeout(limit, directory.try_log_in(&username, &password)).await;
            let outcome = outcome.unwrap_or_else(|_| Err(format!("no response within {limit:?}")));
            directory.report(outcome.as_ref().err());
            // The request may have ended.
            drop(sender.send(outcome.map_err(|_| DirectoryUnavailable)));
        }));
        receiver.await.unwrap_or(Err(DirectoryUnavailable))
    }

    async fn try_log_in(self: &Arc<Self>, username: &str, password: &[u8]) -> Result<DirectoryLogin, String> {
        let _permit = self.permits.acquire().await.map_err(|_| "the directory is closed".to_owned())?;
        loop {
            let mut connection = match self.take_idle() {
                Some(connection) => connection,
                None => DirectoryConnection::open(&self.server, &self.services).await?,
            };
            match self.steps(&mut connection, username, password).await {
                Ok(login) => {
                    connection.is_reused = true;
                    self.put_back(connection);
                    return Ok(login);
                }
                // The server has closed it while it was idle. Others may be closed too, and a new one is not.
                Err(DirectoryFailure::Connection(_)) if connection.is_reused => {}
                Err(failure) => return Err(format!("{}: {}", self.server.address(), failure.into_text())),
            }
        }
    }

    /// The requests of one login.
    async fn steps(
        &self,
        connection: &mut DirectoryConnection,
        username: &str,
        password: &[u8],
    ) -> Result<DirectoryLogin, DirectoryFailure> {
        let query = &self.query;
        let group_attribute = query.groups.as_ref().map(|(attribute, _)| &**attribute);
        let read: Vec<&str> = [&*query.attribute].into_iter().chain(group_attribute).collect();
        let (name, found) = match &query.searcher {
            None => (entry_name(&query.attribute, username, &query.base), None),
            Some((searcher, searcher_password)) => {
                let result = connection.bind(searcher, searcher_password).await?;
                if !result.is_success() {
                    let text = format!("it rejects config.bind_dn: {}", describe(&result));
                    return Err(DirectoryFailure::Rejected(text));
                }
                let what = SearchFor::Below { attribute: &query.attribute, value: username };
                let mut entries = connection.search(&query.base, what, &read).await?;
                // A username that several entries have identifies none of them.
                let (Some(entry), true) = (entries.pop(), entries.is_empty()) else {
                    return Ok(DirectoryLogin::WrongCredentials);
                };
                (entry.name.clone(), Some(entry))
            }
        };
        let result = connection.bind(&name, password).await?;
        if result.is_wrong_login() {
            return Ok(DirectoryLogin::WrongCredentials);
        }
        if !result.is_success() {
            return Err(DirectoryFailure::Rejected(describe(&result)));
        }
        let found = match found {
            Some(entry) => Some(entry),
            None => match connection.search(&name, SearchFor::Base, &read).await {
                Ok(entries) => entries.into_iter().next(),
                // The user may log in and not read the entry, which only groups require.
                Err(DirectoryFailure::Rejected(_)) if group_attribute.is_none() => None,
                Err(failure) => return Err(failure),
            },
        };
        let values: Vec<String> = match (&found, group_attribute) {
            (Some(entry), Some(attribute)) => entry.values(attribute).cloned().collect(),
            _ => Vec::new(),
        };
        let name = found.as_ref().map_or(name, |entry| entry.name.clone());
        if query.logs_results {
            let logged = &values[..values.len().min(MAX_LOGGED_GROUPS)];
            let object = self.diagnostic.object();
            tracing::info!(object, entry = ?name, groups = ?logged, "Found the entry of a user in the directory");
        }
        let username = username_of(found.as_ref(), &query.attribute, username);
        let entry = Some(comparable_name(&name)).filter(|entry| found.is_some() || entry.is_ascii());
        Ok(DirectoryLogin::Accepted { entry, username, groups: self.groups(&values) })
    }

    fn groups(&self, values: &[String]) -> Vec<Arc<str>> {
        let Some((_, names)) = &self.query.groups else { return Vec::new() };
        let mut groups: Vec<Arc<str>> =
            values.iter().take(MAX_GROUPS).filter_map(|value| names.name(value)).map(Arc::from).collect();
        groups.sort();
        groups.dedup();
        groups
    }

    fn take_idle(&self) -> Option<DirectoryConnection> {
        // The newest one, which the server has most likely not closed.
        self.idle.lock().connections.pop().map(|(connection, _)| connection)
    }

    fn put_back(self: &Arc<Self>, connection: DirectoryConnection) {
        if self.keepalive.is_zero() {
            return;
        }
        let needs_closer = {
            let mut idle = self.idle.lock();
            idle.connections.push((connection, Instant::now() + self.keepalive));
            !std::mem::replace(&mut idle.has_closer, true)
        };
        if needs_closer {
            let directory = Arc::downgrade(self);
            self.services.spawn(Box::pin(async move {
                loop {
                    let Some(next) = directory.upgrade().and_then(|directory| directory.close_expired()) else {
                        return;
                    };
                    sleep_until(next).await;
                }
            }));
        }
    }

    /// Closes connections that were idle for too long. Returns when the next one will be; `None` if there is none.
    fn close_expired(&self) -> Option<Instant> {
        let mut idle = self.idle.lock();
        let now = Instant::now();
        let expired = idle.connections.iter().take_while(|(_, expires)| *expires <= now).count();
        idle.connections.drain(..expired);
        let next = idle.connections.first().map(|(_, expires)| *expires);
        idle.has_closer = next.is_some();
        next
    }

    /// Logs and reports a failure, or that logins are possible again.
    fn report(&self, error: Option<&String>) {
        if self.has_failed.swap(error.is_some(), Relaxed) == error.is_some() {
            return;
        }
        let (object, server) = (self.diagnostic.object(), self.server.address());
        match error {
            Some(error) => {
                tracing::warn!(object, error = &*self.diagnostic.shown(error), "The directory is unavailable")
            }
            None => tracing::info!(object, server = &*self.diagnostic.shown(&server), "The directory is available"),
        }
        let remedy =
            "check that the server is running and reachable, its certificate, base_dn, and bind_dn if it is set";
        let diagnostic = error.map(|error| Diagnostic::in_config("ldap_host", error.clone(), remedy));
        self.diagnostic.set(diagnostic);
    }
}

/// The username as the entry has it: the value that the directory takes for what the client has written. An entry that
/// cannot be read has the form that all spellings share.
fn username_of(entry: Option<&FoundEntry>, attribute: &str, written: &str) -> String {
    let written = comparable_text(written);
    let mut values = entry.into_iter().flat_map(|entry| entry.values(attribute));
    let first = values.next();
    let same = first.into_iter().chain(values).find(|value| comparable_text(value) == written);
    same.or(first).cloned().unwrap_or(written)
}
