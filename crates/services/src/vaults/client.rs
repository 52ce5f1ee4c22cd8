//! Reads secrets, each from the server of its vault.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::aws::AwsClient;
use super::google::GoogleClient;
use super::hashicorp::HashicorpClient;
use super::secret_reading::ReadError;
use crate::plugin_api::PluginServices;
use crate::plugin_api::vault::{VaultApi, VaultQuery};

/// The clients of all kinds of servers, which keep their credentials.
pub(super) struct VaultClient {
    hashicorp: HashicorpClient,
    aws: AwsClient,
    google: GoogleClient,
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
