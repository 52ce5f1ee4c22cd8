//! Reads secrets, each from the server of its vault.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::aws::AwsClient;
use super::google::GoogleClient;
use super::hashicorp::HashicorpClient;
use crate::plugin_api::PluginServices;
use crate::plugin_api::vault::{VaultApi, VaultQuery, WHOLE_SECRET};

/// The clients of all kinds of servers, which keep their credentials.
pub(super) struct VaultClient {
    hashicorp: HashicorpClient,
    aws: AwsClient,
    google: GoogleClient,
}

/// Why there is no value. The texts contain no secrets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum ReadError {
    /// The server has responded that it has no such secret.
    Missing(String),
    /// The server does not respond, or refuses: the last value stays in use.
    Unavailable(String),
}

impl VaultClient {
    pub(super) fn new(services: &Arc<dyn PluginServices>) -> Self {
        VaultClient {
            hashicorp: HashicorpClient::new(Arc::clone(services)),
            aws: AwsClient::new(Arc::clone(services)),
            google: GoogleClient::new(Arc::clone(services)),
        }
    }

    /// The text of each key of a secret.
    pub(super) async fn read(&self, query: &VaultQuery) -> Result<BTreeMap<String, String>, ReadError> {
        match &query.server.api {
            VaultApi::Hashicorp(server) => self.hashicorp.read(server, query).await,
            VaultApi::AwsSecretsManager(server) => self.aws.read(server, query).await,
            VaultApi::GoogleSecretManager(server) => self.google.read(server, query).await,
        }
    }
}

/// The keys of a secret that is one text: those of its JSON object, if it is one, and the whole.
pub(super) fn keys_of_text(text: String) -> BTreeMap<String, String> {
    let mut keys = BTreeMap::new();
    if let Ok(serde_json::Value::Object(fields)) = serde_json::from_str(&text) {
        for (name, value) in fields {
            let value = match value {
                serde_json::Value::String(text) => text,
                other => other.to_string(),
            };
            keys.insert(name, value);
        }
    }
    keys.insert(WHOLE_SECRET.to_owned(), text);
    keys
}
