//! Servers of secrets, and how to log in to them: HashiCorp Vault and OpenBao, AWS Secrets Manager, Google Cloud Secret
//! Manager.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// The server, as a KongVault configures it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct VaultServer {
    /// The object with the configuration: `KongVault/shop`.
    pub object: String,
    pub api: VaultApi,
    /// How long a value is used before it is read again. `None`: it is read once.
    pub ttl: Option<Duration>,
    /// How long to wait after a failure.
    pub retry_after: Duration,
    /// How long the last value is used after its `ttl` while the server does not respond. `None`: without end.
    pub resurrect_ttl: Option<Duration>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum VaultApi {
    Hashicorp(HashicorpVault),
    AwsSecretsManager(AwsSecretsManager),
    GoogleSecretManager(GoogleSecretManager),
}

impl VaultApi {
    /// The key of a reference without one.
    pub fn default_key(&self) -> &'static str {
        match self {
            VaultApi::Hashicorp(_) => "value",
            VaultApi::AwsSecretsManager(_) | VaultApi::GoogleSecretManager(_) => WHOLE_SECRET,
        }
    }

    /// Whether versions of secrets have numbers.
    pub fn has_numbered_versions(&self) -> bool {
        !matches!(self, VaultApi::AwsSecretsManager(_))
    }
}

/// The key of the whole text of a secret, next to those of its JSON object.
pub const WHOLE_SECRET: &str = "";

/// A server with the HTTP API of HashiCorp Vault and OpenBao.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct HashicorpVault {
    /// A name, or an IP address without brackets.
    pub host: String,
    pub port: u16,
    pub is_secure: bool,
    /// Whether the certificate is verified.
    pub verify: bool,
    /// The value of `X-Vault-Namespace`.
    pub namespace: Option<String>,
    /// The path of the secrets engine.
    pub mount: String,
    pub kv: KvVersion,
    pub login: VaultLogin,
}

/// AWS Secrets Manager, with the identity of Portico's own Pod or machine.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct AwsSecretsManager {
    pub region: String,
    /// The URL of another endpoint than that of the region.
    pub endpoint: Option<String>,
    /// The role to assume, and the name of the session.
    pub role: Option<(String, String)>,
    /// The URL of another server of tokens than that of the region, for the role.
    pub sts_endpoint: Option<String>,
}

/// Google Cloud Secret Manager.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct GoogleSecretManager {
    pub project: String,
    pub account: GoogleAccount,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum GoogleAccount {
    /// The service account of Portico's own Pod or machine.
    Machine,
    /// A key of a service account, in the JSON of Google Cloud.
    Key(VaultToken),
}

/// The version of the key-value secrets engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum KvVersion {
    V1,
    V2,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum VaultLogin {
    Token(VaultToken),
    /// The token of the service account of this Pod is exchanged for one of the server.
    Kubernetes {
        role: String,
        auth_path: String,
        token_file: PathBuf,
    },
    /// The id and the secret of an AppRole are exchanged for a token of the server.
    AppRole {
        id: VaultToken,
        secret: AppRoleSecret,
        auth_path: String,
    },
}

/// Where the secret of an AppRole is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum AppRoleSecret {
    Text(VaultToken),
    File(PathBuf),
}

/// A text that no output shows.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct VaultToken(Arc<str>);

impl VaultToken {
    pub fn new(text: &str) -> Self {
        VaultToken(Arc::from(text))
    }

    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for VaultToken {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("VaultToken")
    }
}
