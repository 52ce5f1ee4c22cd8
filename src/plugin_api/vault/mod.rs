//! Values of vaults, which replace references such as `{vault://PREFIX/PATH/KEY}` in configurations.
//!
//! ```text
//!   configuration ─ reference.rs ─▶ VaultQuery ─▶ wanted ─▶ task that asks the servers
//!                       value ◀─ VaultValues ◀─ answers ◀──────┘
//! ```

mod reference;
mod server;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, OnceLock};

use arc_swap::ArcSwap;
use tokio::sync::{Notify, watch};

pub use reference::VaultReference;
pub use server::{KvVersion, SecretText, VaultLogin, VaultServer};

use super::state::PluginState;

/// A secret of a server, which has one or more keys.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct VaultQuery {
    pub server: Arc<VaultServer>,
    /// The path below the mount of the secrets engine.
    pub path: String,
    /// `None` means the newest version.
    pub version: Option<u32>,
}

/// What a server has responded to a query.
#[derive(Clone, PartialEq, Eq)]
pub enum VaultAnswer {
    /// The text of each key.
    Found(Arc<BTreeMap<String, String>>),
    /// Why there is no value. It contains no secrets.
    Failed(String),
}

/// All answers so far. A query without an answer is in progress.
pub type VaultAnswers = BTreeMap<Arc<VaultQuery>, VaultAnswer>;

/// The values that configurations may refer to.
pub struct VaultValues {
    /// The environment of the process. Unset if it is not that of the process that will serve requests.
    environment: OnceLock<BTreeMap<String, String>>,
    answers: ArcSwap<VaultAnswers>,
    wanted: watch::Sender<Option<BTreeSet<Arc<VaultQuery>>>>,
    changed: Notify,
}

impl VaultValues {
    /// The values of the process.
    pub fn of(state: &PluginState) -> Arc<VaultValues> {
        state.get_or_create("values of vaults", || VaultValues {
            environment: OnceLock::new(),
            answers: ArcSwap::default(),
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

    /// The answer to a query; `None` while it is in progress.
    pub fn answer(&self, query: &VaultQuery) -> Option<VaultAnswer> {
        self.answers.load().get(query).cloned()
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

    /// Whether a wanted query has no answer yet.
    pub fn is_waiting(&self) -> bool {
        let answers = self.answers.load();
        self.wanted.borrow().iter().flatten().any(|query| !answers.contains_key(query))
    }

    /// Replaces the answers.
    pub fn set_answers(&self, answers: VaultAnswers) {
        if **self.answers.load() != answers {
            self.answers.store(Arc::new(answers));
            self.changed.notify_one();
        }
    }

    /// Waits until answers have changed.
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

impl fmt::Debug for VaultAnswer {
    /// Omits the values.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            VaultAnswer::Found(values) => formatter.debug_tuple("Found").field(&values.len()).finish(),
            VaultAnswer::Failed(reason) => formatter.debug_tuple("Failed").field(reason).finish(),
        }
    }
}
