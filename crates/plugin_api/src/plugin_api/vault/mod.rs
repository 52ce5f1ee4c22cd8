//! Values of vaults, which replace references such as `{vault://PREFIX/PATH/KEY}` in configurations.
//!
//! ```text
//!   configuration ─ VaultReference ─▶ VaultQuery ─▶ wanted ─▶ task that reads from the servers
//!                       value ◀─ VaultValues ◀─ responses ◀────┘
//! ```

mod server;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, OnceLock};

use arc_swap::ArcSwap;
use tokio::sync::{Notify, watch};

pub use server::{
    AppRoleSecret, AwsSecretsManager, GoogleAccount, GoogleSecretManager, HashicorpVault, KvVersion, VaultApi,
    VaultLogin, VaultServer, VaultToken, WHOLE_SECRET,
};

use super::state::PluginState;

/// A secret of a server, which has one or more keys.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct VaultQuery {
    pub server: Arc<VaultServer>,
    /// The name of the secret, or its path below the mount of the secrets engine.
    pub path: String,
    /// `None` means the newest version.
    pub version: Option<u32>,
}

/// What a server has responded to a query.
#[derive(Clone, PartialEq, Eq)]
pub enum VaultResponse {
    /// The text of each key.
    Found(Arc<BTreeMap<String, String>>),
    /// Why there is no value. It contains no secrets.
    Failed(String),
}

/// All responses so far. A query without one is in progress.
pub type VaultResponses = BTreeMap<Arc<VaultQuery>, VaultResponse>;

/// The values that configurations may refer to.
pub struct VaultValues {
    /// The environment of the process. Unset if it is not that of the process that will serve requests.
    environment: OnceLock<BTreeMap<String, String>>,
    responses: ArcSwap<VaultResponses>,
    wanted: watch::Sender<Option<BTreeSet<Arc<VaultQuery>>>>,
    changed: Notify,
}

impl VaultValues {
    /// The values of the process.
    pub fn of(state: &PluginState) -> Arc<VaultValues> {
        state.get_or_create("values of vaults", || VaultValues {
            environment: OnceLock::new(),
            responses: ArcSwap::default(),
            wanted: watch::Sender::new(None),
            changed: Notify::new(),
        })
    }

    /// Sets the environment. Only the first call has an effect.
    pub fn set_environment(&self, variables: impl IntoIterator<Item = (String, String)>) {
        self.environment.get_or_init(|| variables.into_iter().collect());
    }

    /// The environment; `None` if it is not known, as in `portico check`.
    pub fn environment(&self) -> Option<&BTreeMap<String, String>> {
        self.environment.get()
    }

    /// The response to a query; `None` while it is in progress.
    pub fn response(&self, query: &VaultQuery) -> Option<VaultResponse> {
        self.responses.load().get(query).cloned()
    }

    /// Sets the queries that configurations need.
    pub fn want(&self, queries: BTreeSet<Arc<VaultQuery>>) {
        self.wanted.send_if_modified(|wanted| {
            let is_new = wanted.as_ref() != Some(&queries);
            if is_new {
                *wanted = Some(queries);
            }
            is_new
        });
    }

    /// The queries that configurations need; `None` until they are known for the first time.
    pub fn wanted(&self) -> watch::Receiver<Option<BTreeSet<Arc<VaultQuery>>>> {
        self.wanted.subscribe()
    }

    /// Whether a wanted query has no response yet.
    pub fn is_waiting(&self) -> bool {
        let responses = self.responses.load();
        self.wanted.borrow().iter().flatten().any(|query| !responses.contains_key(query))
    }

    /// Replaces the responses.
    pub fn set_responses(&self, responses: VaultResponses) {
        if **self.responses.load() != responses {
            self.responses.store(Arc::new(responses));
            self.changed.notify_one();
        }
    }

    /// Waits until responses have changed.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }
}

impl fmt::Debug for VaultValues {
    /// Omits the values.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("VaultValues").finish_non_exhaustive()
    }
}

impl fmt::Debug for VaultResponse {
    /// Omits the values.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            VaultResponse::Found(values) => formatter.debug_tuple("Found").field(&values.len()).finish(),
            VaultResponse::Failed(reason) => formatter.debug_tuple("Failed").field(reason).finish(),
        }
    }
}
